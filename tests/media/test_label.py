"""Labels: what stands on them, that it stays on the ring, and that no name is lost without a word."""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from itertools import combinations, pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media import labeltables
from media.header import read_header
from media.label import Label, LabelStyle, label_of
from media.labelcodes import SYMBOLOGIES
from media.labelfacts import LabelFacts, LabelPatient, LabelStudy, context, merge_fields
from media.labelfonts import FontError, Fonts
from media.labellayout import Arranged
from media.labelpicture import logo
from media.labelring import ZONES, Ring, Zone
from media.labeltables import LabelError
from media.labeltext import clean, name_of
from media.problems import NotDicom
from tests.soak import size

UID = "1.2.826.0.1.3680043.10.1234.5.123456789012345678901234567890"
NAMES = {
    "Latin": "Müller^Åsa^Zoë",
    "Japanese": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "Korean": "Hong^Gildong=洪^吉洞=홍^길동",
    "Chinese": "Zhang^Xiaodong=张^小东",
    "Arabic": "قباني^لنزار",
    "Hebrew": "שרון^דבורה",
    "Cyrillic": "Люкceмбypг^Анна",
    "Greek": "Διονυσιος^Γεωργία",
    "Thai": "ใจดี^สมชาย",
    "Devanagari": "कुमार^राम",
}


def study(number: int, description: str = "CT of the thorax with contrast") -> LabelStudy:
    return LabelStudy(f"20{number % 20:02d}0{number % 9 + 1}1{number % 10}", description, ("CT",), f"A{number:05d}")


def patient(name: str = "Doe^Jane", studies: int = 1, number: int = 1) -> LabelPatient:
    return LabelPatient(name, f"PID{number:05d}", "19700131", "F", tuple(study(index) for index in range(studies)))


def facts(*patients: LabelPatient, **values: object) -> LabelFacts:
    given = {"file_set_id": "BURNISH_0000001", "file_set_uid": UID, "created": "2026-11-21", "institution": "Hospital"}
    return LabelFacts(patients or (patient(),), **{**given, **values})  # type: ignore[arg-type]


def drawn(of: LabelFacts, printer: str = "generic", **style: object) -> Label:
    return label_of(of, LabelStyle(**style), printer_name=printer)  # type: ignore[arg-type]


def said(label: Label) -> str:
    return "\n".join(label.lines)


def ink(picture: bytes) -> tuple[numpy.ndarray, int]:
    """Samples of a PNG and its dots per inch."""
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    place, found, data = 8, {}, b""
    while place < len(picture):
        size = struct.unpack(">I", picture[place : place + 4])[0]
        kind, content = picture[place + 4 : place + 8], picture[place + 8 : place + 8 + size]
        assert struct.unpack(">I", picture[place + 8 + size : place + 12 + size])[0] == zlib.crc32(kind + content)
        found[kind] = content
        data += content if kind == b"IDAT" else b""
        place += 12 + size
    width, height, depth, colour = struct.unpack(">IIBB", found[b"IHDR"][:10])
    assert depth == 8
    channels = {0: 1, 2: 3}[colour]
    per_metre = struct.unpack(">IIB", found[b"pHYs"])
    assert per_metre[0] == per_metre[1]
    assert per_metre[2] == 1
    rows = numpy.frombuffer(zlib.decompress(data), numpy.uint8).reshape(height, 1 + width * channels)
    assert not rows[:, 0].any()
    return rows[:, 1:].reshape(height, width, channels).min(axis=2), round(per_metre[0] * 0.0254)


def stays_on_the_ring(label: Label) -> None:
    """By the boxes: all on the printable ring, none over another; by the letters' own ink, each within its box."""
    arranged: Arranged = label.arranged
    ring = Ring(arranged.printer.outer / 2, arranged.printer.inner / 2)
    for placed in arranged.placed:
        assert ring.contains(*placed.box), placed
        if placed.line is not None:
            left, top, right, bottom = (value * placed.size for value in placed.line.ink)
            assert placed.box[0] <= placed.x + left + 1e-6
            assert placed.x + right <= placed.box[2] + 1e-6
            assert placed.box[1] <= placed.y + top + 1e-6
            assert placed.y + bottom <= placed.box[3] + 1e-6
            assert all(glyph.glyph for glyph in placed.line.glyphs)  # no .notdef
    for one, other in combinations(arranged.placed, 2):
        apart = (
            one.box[2] <= other.box[0] + 1e-6
            or other.box[2] <= one.box[0] + 1e-6
            or one.box[3] <= other.box[1] + 1e-6
            or other.box[3] <= one.box[1] + 1e-6
        )
        assert apart, (one, other)


class TestWhatStandsOnIt:
    def test_one_patient(self) -> None:
        label = drawn(facts(volume=2, volumes=3, copy=1, disposition="Ward 12"))
        assert not label.notices
        text = said(label)
        for expected in (
            "Hospital", "Doe, Jane", "ID PID00001", "*1970-01-31", "DICOM ONLY", "Created 2026-11-21",
            "Disc 2 of 3, copy 1", "BURNISH_0000001", "2000-01-10 CT CT of the thorax with contrast · A00000",
            "Ward 12",
        ):  # fmt: skip
            assert expected in text

    @pytest.mark.parametrize(("script", "name"), NAMES.items())
    def test_names_of_all_scripts(self, script: str, name: str) -> None:
        label = drawn(facts(patient(name)))
        assert not label.notices, script
        for group in name_of(name).groups:
            assert group in label.lines
        stays_on_the_ring(label)

    def test_a_script_without_font_is_named(self) -> None:
        label = drawn(facts(patient("\U00011700\U00011701^X")))  # Ahom
        assert "[Ahom?]" in said(label)
        assert any("Ahom" in notice for notice in label.notices)

    def test_letters_are_joined_and_ordered(self) -> None:
        fonts = Fonts()
        joined = fonts.shape("محمد")
        apart = [fonts.shape(letter).glyphs[0].glyph for letter in "محمد"]
        assert not set(apart[:3]) & {glyph.glyph for glyph in joined.glyphs}  # the last letter does not join
        assert [glyph.x for glyph in joined.glyphs] == sorted(glyph.x for glyph in joined.glyphs)
        vowel = fonts.shape("कि")  # written second, read first
        assert vowel.glyphs[0].glyph != fonts.shape("क").glyphs[0].glyph
        assert vowel.glyphs[-1].glyph == fonts.shape("क").glyphs[0].glyph

    @pytest.mark.parametrize("name", ["\U00020bb7田^太郎", "髙橋^德", "﨑山^昭", "葛\U000e0100城^花子"])
    def test_rare_letters_of_japanese_names(self, name: str) -> None:
        label = drawn(facts(patient(f"Yamada^Hanako={name}")))
        assert not label.notices
        stays_on_the_ring(label)

    def test_where_the_images_come_from(self) -> None:
        def of(*institutions: str, site: str) -> str:
            studies = tuple(LabelStudy("20260101", "x", ("CT",), "", each) for each in institutions)
            return said(drawn(facts(LabelPatient("Doe", "1", studies=studies), institution=site)))

        assert "Images of St Elsewhere; Mercy" in of("St Elsewhere", "Mercy", "Mercy", site="Hospital")
        assert "Images of St Elsewhere; Mercy" in of("St Elsewhere", "Mercy", site="")
        alone = of("Mercy", "Mercy", site="")
        assert "Mercy" in alone.splitlines()
        assert "Images of" not in alone + of("Hospital", site="Hospital") + of("", site="Hospital")

    def test_no_patient_at_all(self) -> None:
        empty = LabelFacts((), "BURNISH_0000001", UID, "2026-11-21")
        assert drawn(empty).lines == ["DICOM ONLY", "Created 2026-11-21", "Disc 1 of 1", "BURNISH_0000001"]
        assert merge_fields(empty)["patients"] == "0"

    def test_several_patients(self) -> None:
        of = facts(patient("Doe^Jane", 2, 1), patient("山田^太郎", 1, 2))
        text = said(drawn(of))
        assert "2 patients" in text
        assert "Doe, Jane · ID PID00001 · *1970-01-31 · 2 studies" in text
        assert "山田 太郎 · ID PID00002 · *1970-01-31" in text
        assert "3 studies · CT · 2000-01-10 to 2001-02-11" in text

    @pytest.mark.parametrize(
        ("shown", "there", "not_there"), [("id", "PID00001", "Doe"), ("none", "DICOM", "PID00001")]
    )
    def test_privacy(self, shown: str, there: str, not_there: str) -> None:
        for of in (facts(shown=shown), facts(patient(), patient("Roe^Jim", 2, 2), shown=shown)):
            text = said(drawn(of)) + str(merge_fields(of))
            assert there in text
            assert not_there not in text
            assert "1970" not in text
            assert "Roe" not in text

    def test_without_information_from_instances(self) -> None:
        text = said(drawn(facts(extracted=False, label_text="Teaching file 7\nsecond line")))
        assert "Teaching file 7\nsecond line" in text
        assert "Doe" not in text
        assert "thorax" not in text

    def test_many_studies_become_a_list_and_a_summary(self) -> None:
        sizes = []
        for count in (3, 12, 40, 4000):
            label = drawn(facts(patient(studies=count)))
            stays_on_the_ring(label)
            of_studies = [placed for placed in label.arranged.placed if placed.row == "studies"]
            sizes.append(of_studies[0].size)
            text = " ".join(label.lines)
            shown = text.count("thorax")
            if shown < count:
                assert f"+ {count - shown} more studies, see README.TXT" in text
                assert any(f"{shown} of {count}" in notice for notice in label.notices)
            else:
                assert not label.notices
            assert f"{count} studies" in text
        assert sizes == sorted(sizes, reverse=True)

    def test_many_patients(self) -> None:
        label = drawn(facts(*(patient(f"Family{number}^Given", 1, number) for number in range(300))))
        stays_on_the_ring(label)
        text = " ".join(label.lines)
        assert "300 patients" in text
        listed = [number for number in range(300) if f"Family{number}, Given (ID PID{number:05d})" in text]
        assert len(listed) > 10
        assert f"+ {300 - len(listed)} more patients, see README.TXT" in text

    def test_a_name_too_long_for_any_label_is_cut_with_a_mark(self) -> None:
        label = drawn(facts(patient("Long " * 79)), printer="generic-8cm")
        stays_on_the_ring(label)
        assert "…" in said(label)
        assert any(notice.startswith("cut on the label") for notice in label.notices)

    def test_a_long_word_is_parted_and_whole(self) -> None:
        name = "Wolfeschlegelsteinhausenbergerdorffwelchevoralternwarengewissenhaftschafers"
        label = drawn(facts(patient(f"{name}^Adolph")))
        assert name in "".join(label.lines)
        assert not label.notices

    def test_determinism(self) -> None:
        of = facts(patient("Yamada^Tarou=山田^太郎", 5))
        for kind in ("png", "pdf", "svg"):
            assert drawn(of).drawn(kind) == drawn(of).drawn(kind)


class TestHostileText:
    def test_control_characters_and_overrides_are_seen(self) -> None:
        assert clean("a\x00b\x1b[31m\u202ec\nd\te") == "a\ufffdb\ufffd[31m\ufffdc d e"

    def test_no_invisible_pile_of_marks(self) -> None:
        label = drawn(facts(patient("Z" + "\u0301" * 500 + "algo")))
        stays_on_the_ring(label)

    def test_nothing_of_it_is_markup(self) -> None:
        hostile = "</text><script>alert(1)</script>&lol;<image href='http://x/'>{{ 7*7 }}{% raw %}"
        of = facts(patient(hostile, 1), institution=hostile, label_text=hostile, disposition=hostile)
        text = drawn(of).drawn("svg").decode()
        root = ElementTree.fromstring(text)
        names = {str(element.tag).rpartition("}")[2] for element in root.iter()}
        assert names == {"svg", "title", "defs", "path", "rect", "g", "use"}
        for element in root.iter():
            for key, value in element.attrib.items():
                assert not key.startswith("on")
                assert "href" not in key or value.startswith("#")
        assert "{{ 7*7 }}" in root[0].text.replace("\n", " ") if root[0].text else False
        assert "49" not in (root[0].text or "").split("{{")[0]

    @pytest.mark.parametrize(
        "text", ["\x00", "\ud800", "=" * 99, "^" * 99, "\u202e" * 9, "\ufffc", "\u2068\u2069", " "]
    )
    def test_odd_names(self, text: str) -> None:
        stays_on_the_ring(drawn(facts(LabelPatient(text, text, text, text, (LabelStudy(text, text, (text,), text),)))))


printers = st.sampled_from(sorted(labeltables.printers()))
texts = st.text(
    st.one_of(
        st.sampled_from("abcdefghij KLMNO,.-/^=0123456789"),
        st.sampled_from("山田太郎张伟한국어ひらがな"),
        st.sampled_from("محمد علي שלום"),
        st.sampled_from("ใจดีสมชายराम\u0301\u0e35"),
        st.characters(),
    ),
    max_size=120,
)


class TestProperties:
    @given(
        printer=printers,
        patients=st.lists(st.tuples(texts, st.text(max_size=40), st.lists(texts, max_size=6)), max_size=8),
        more=st.integers(0, 60),
        text=texts,
        barcode=st.sampled_from(["", "12345", "A" * 70, "é"]),
        symbology=st.sampled_from(["CODE128", "CODE39", "QR", "DataMatrix", "nonsense"]),
    )
    @settings(max_examples=size(25, 500))
    def test_everything_stays_on_the_ring(
        self,
        printer: str,
        patients: list[tuple[str, str, list[str]]],
        more: int,
        text: str,
        barcode: str,
        symbology: str,
    ) -> None:
        people = [
            LabelPatient(name, number, "19700101", "", tuple(LabelStudy("20200101", each, ("MR",)) for each in studies))
            for name, number, studies in patients
        ]
        people += [patient(f"Roe^Number{index}", 1, index) for index in range(more)]
        of = LabelFacts(
            tuple(people),
            "BURNISH_0000001",
            UID,
            "2026-11-21",
            institution=text,
            label_text=text,
            disposition=text,
            barcode_value=barcode,
            barcode_symbology=symbology,
        )
        label = drawn(of, printer)
        stays_on_the_ring(label)
        # Each patient and study is on the label, or a notice says that something is not.
        shown = "".join(label.lines).replace(" ", "")
        if not label.notices:
            for person in people:
                for group in name_of(person.patient_name).groups[: 1 if len(people) > 1 else 3]:
                    assert group.replace(" ", "") in shown

    @given(st.floats(30, 59), st.floats(7.5, 25), st.sampled_from(ZONES), st.floats(-60, 60), st.floats(0.1, 20))
    def test_a_zone_s_room_is_on_the_ring(
        self, outer: float, inner: float, name: str, top: float, height: float
    ) -> None:
        ring = Ring(outer, inner)
        left, right = Zone(name, ring).span(top, top + height)
        if right > left:
            assert ring.contains(left, top, right, top + height, slack=1e-3)


class TestPictures:
    @pytest.mark.parametrize("name", labeltables.printers())
    def test_no_ink_outside_of_the_ring(self, name: str) -> None:
        of = facts(
            patient("Wolfeschlegelstein^Jane^^Prof.=山田^太郎=やまだ^たろう", 40),
            barcode_value="BURNISH-77",
            barcode_symbology="CODE128",
            label_text="A text that the request wants on the label",
        )
        label = drawn(of, name)
        samples, dpi = ink(label.drawn("png", dpi=150))
        assert dpi == 150
        printer = label.arranged.printer
        side = round(printer.disc / 25.4 * dpi)
        assert samples.shape == (side, side)
        y, x = numpy.mgrid[:side, :side]
        middle = (side - 1) / 2
        radius = numpy.hypot(x - middle, y - middle) / dpi * 25.4
        dark = samples < 250
        assert dark.any()
        assert not dark[(radius > printer.outer / 2) | (radius < printer.inner / 2)].any()

    def test_at_600_dpi(self) -> None:
        samples, dpi = ink(drawn(facts()).drawn("png", dpi=600))
        assert dpi == 600
        assert samples.shape == (2835, 2835)

    def test_other_kinds_and_resolutions_are_refused(self) -> None:
        with pytest.raises(LabelError, match="gif"):
            drawn(facts()).drawn("gif")
        with pytest.raises(LabelError, match="5 dpi"):
            drawn(facts()).drawn("png", dpi=5)

    def test_the_pdf_is_whole(self) -> None:
        content = drawn(facts()).drawn("pdf")
        assert content.startswith(b"%PDF-1.4")
        start = int(content.rsplit(b"startxref\n", 1)[1].split()[0])
        assert content[start:].startswith(b"xref\n0 5\n")
        for number, line in enumerate(content[start:].splitlines()[3:7], 1):
            assert content[int(line.split()[0]) :].startswith(f"{number} 0 obj".encode())


def png_of(width: int, height: int, colour: tuple[int, ...]) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    row = b"\0" + bytes(colour) * width
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(row * height))
        + chunk(b"IEND", b"")
    )


SVG = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 30 10">%s</svg>'


class TestLogo:
    def test_png(self, tmp_path: Path) -> None:
        path = tmp_path / "logo.png"
        path.write_bytes(png_of(30, 10, (200, 30, 30)))
        label = drawn(facts(), logo=path)
        stays_on_the_ring(label)
        assert [placed.row for placed in label.arranged.placed].count("logo") == 1
        samples, _ = ink(label.drawn("png"))
        assert samples.min() < 40
        assert b"/Subtype /Image /Width 1200 /Height 400" in label.drawn("pdf")
        assert b"data:image/png;base64," in label.drawn("svg")

    def test_svg(self, tmp_path: Path) -> None:
        path = tmp_path / "logo.svg"
        path.write_text(SVG % '<path d="M0 0h30v10z" fill="#006"/>')
        assert logo(path).ratio == pytest.approx(3.0)

    @pytest.mark.parametrize(
        "evil",
        [
            "<script>1</script>", '<image href="http://example.org/a.png"/>', '<path d="M0 0h9v9z" onload="x"/>',
            '<use xlink:href="other.svg#a"/>', '<path fill="url(http://example.org/#a)" d="M0 0h9v9z"/>',
            "<style>@import 'x.css';</style>", "<style>path{fill:url(file:///etc/passwd)}</style>",
            '<defs><g id="a"><path d="M0 0h9v9z"/></g><g id="b"><use href="#a"/></g></defs><use href="#b"/>',
            "<foreignObject/>", "<text>no font</text>", "<a/>", "",
        ],
    )  # fmt: skip
    def test_evil_svg(self, tmp_path: Path, evil: str) -> None:
        path = tmp_path / "logo.svg"
        path.write_text(SVG % evil)
        with pytest.raises(LabelError, match=r"logo\.svg"):
            logo(path)

    @pytest.mark.parametrize(
        "content", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xfe<svg/>", png_of(9, 9, (1, 1, 1))[:60],
                    b'<!DOCTYPE svg [<!ENTITY a "b">]>' + (SVG % "&a;").encode()],
    )  # fmt: skip
    def test_broken(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "logo"
        path.write_bytes(content)
        with pytest.raises(LabelError):
            logo(path)

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(LabelError, match=r"none\.png"):
            drawn(facts(), logo=tmp_path / "none.png")


class TestTables:
    def test_every_printer_and_layout_of_ours(self) -> None:
        for name, printer in labeltables.printers().items():
            assert labeltables.printer(name) == printer
            assert labeltables.layout(printer.layout).rows
        assert {
            zone for name in labeltables.layouts() for zone in (row.zone for row in labeltables.layout(name).rows)
        } == set(ZONES)

    def test_another_ring(self) -> None:
        label = drawn(facts(), outer_mm=100.0, inner_mm=50.0)
        assert (label.arranged.printer.outer, label.arranged.printer.inner) == (100.0, 50.0)
        stays_on_the_ring(label)

    @pytest.mark.parametrize(("outer", "inner"), [(130, 0), (50, 0), (0, 70), (80, 45)])
    def test_impossible_rings(self, outer: float, inner: float) -> None:
        with pytest.raises(LabelError, match="cannot be"):
            drawn(facts(), outer_mm=outer, inner_mm=inner)

    def test_unknown_names(self) -> None:
        with pytest.raises(LabelError, match="label printer 'x'"):
            drawn(facts(), "x")
        with pytest.raises(LabelError, match="label layout 'x'"):
            drawn(facts(), layout="x")

    def test_a_site_s_own_layout(self, tmp_path: Path) -> None:
        path = tmp_path / "own.toml"
        path.write_text(
            'margin = 1.0\n[[rows]]\nzone = "top"\ntext = "{{ patient.name|upper }} {{ volume + 1 }}"\nsize = 5\n'
        )
        assert drawn(facts(), layout=str(path)).lines == ["DOE, JANE 2"]

    @pytest.mark.parametrize(
        "row",
        [
            'zone = "middle"', 'zone = "top"\nkind = "picture"', 'zone = "top"\nsize = "big"',
            'zone = "top"\nleast = 9',
            'zone = "top"\ncolour = "red"', "size = 3", 'zone = "top"\ntext = "{{ nobody }}"',
            'zone = "top"\ntext = "{{"',
            'zone = "top"\ntext = "{{ 1/0 }}"', 'zone = "top"\ntext = "{{ \'\'.__class__.__mro__ }}"',
            'zone = "top"\ntext = "x"\nwhen = "("',
        ],
    )  # fmt: skip
    def test_wrong_layouts(self, tmp_path: Path, row: str) -> None:
        path = tmp_path / "own.toml"
        path.write_text(f"[[rows]]\n{row}\n")
        with pytest.raises(LabelError, match=r"own\.toml"):
            drawn(facts(), layout=str(path))

    def test_fonts_of_the_settings(self, tmp_path: Path) -> None:
        bad = tmp_path / "bad.ttf"
        bad.write_bytes(b"no font")
        for path in (bad, tmp_path / "none.ttf"):
            with pytest.raises(FontError, match=path.name):
                drawn(facts(), fonts=(path,))

    def test_a_font_of_the_settings_comes_first(self) -> None:
        from importlib import resources

        named = Path(str(resources.files("config").joinpath("labels", "fonts", "NotoSansThai-Regular.ttf")))
        found = Fonts([named]).of("ก", bold=True)
        assert found is not None
        assert found.path == named


class TestMergeFields:
    def test_one_patient(self) -> None:
        fields = merge_fields(facts(patient(NAMES["Japanese"]), disc="D1", job="J2"))
        assert fields["patient_name"] == "Yamada, Tarou"
        assert fields["patient_name_ideographic"] == "山田 太郎"
        assert fields["patient_name_phonetic"] == "やまだ たろう"
        assert fields["study_date"] == "2000-01-10"
        assert fields["study_list"] == "2000-01-10 CT CT of the thorax with contrast"
        assert (fields["disc"], fields["job"], fields["volume"], fields["volumes"]) == ("D1", "J2", "1", "1")

    def test_every_value_is_one_harmless_line(self) -> None:
        hostile = "a\r\nJOB_ID=x\x00\u202e\t\u2028b"
        evil = LabelPatient(*[hostile] * 4, (LabelStudy(hostile, hostile, (hostile,), hostile),))
        of = facts(evil, institution=hostile, label_text=hostile, disposition=hostile, barcode_value=hostile)
        for fields in (merge_fields(of), merge_fields(facts(*of.patients, patient()))):
            for value in fields.values():
                assert all(character.isprintable() or character == "\ufffd" for character in value), value

    def test_the_names_are_the_same_for_all(self) -> None:
        sets = [set(merge_fields(of)) for of in (facts(), facts(patient(), patient()), facts(extracted=False))]
        assert all(one == other for one, other in pairwise(sets))

    def test_many_studies_are_summarised(self) -> None:
        assert merge_fields(facts(patient(studies=30)))["study_list"].endswith("; + 10 more studies, see README.TXT")


class TestDocs:
    PAGE = (Path(__file__).parents[2] / "docs" / "labels.md").read_text()

    def test_every_merge_field(self) -> None:
        for name in merge_fields(facts()):
            assert f"`{name}`" in self.PAGE

    def test_every_name_of_templates(self) -> None:
        for name, value in context(facts()).items():
            assert f"`{name}`" in self.PAGE or all(f".{key}`" in self.PAGE for key in value), name

    def test_every_printer_layout_and_symbology(self) -> None:
        for name, printer in labeltables.printers().items():
            assert f"| `{name}` | {printer.disc / 10:g} cm | {printer.inner:g} to {printer.outer:g}" in self.PAGE
        for name in labeltables.layouts():
            assert f"`{name}`" in self.PAGE
        for name in SYMBOLOGIES:
            assert name in self.PAGE


@pytest.mark.shared_data
def test_names_of_real_files(shared_data: Path) -> None:
    """Each character set of the files of the standard's examples is drawn, without a gap."""
    names = set()
    for path in sorted((shared_data / "charset").iterdir()):
        with suppress(NotDicom):
            names.add(read_header(path).patient_name)
    assert len(names) > 8
    for name in names:
        label = drawn(facts(patient(name)))
        assert not [notice for notice in label.notices if "font" in notice], name
        stays_on_the_ring(label)
