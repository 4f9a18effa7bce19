"""Edits of instances: what is edited and nothing else, in every encoding, the same bytes each time."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from media.conform import conform
from media.editing import edit_instance, top_values
from media.edits import Edit, Edits, derived_uid, recipe_key
from media.header import read_header
from media.problems import InstanceRefused, MediaError, NotDicom
from media.recipes import EDIT_RECIPE, EXPLICIT_LE_RECIPE
from tests.makers import DEFLATED, EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, PATIENTS, make
from tests.soak import size

OLD, NEW, OTHER = "1.2.3.4", "2.25.123456789012345678901234567890", "1.2.3.5"
FILES = [
    "CT_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm", "image_dfl.dcm", "JPEG2000.dcm",
    "MR_small_RLE.dcm",
    "rtplan.dcm", "reportsi.dcm", "liver_1frame.dcm", "waveform_ecg.dcm",
    "examples_ybr_color.dcm", "JPEGLSNearLossless_08.dcm", "rtstruct.dcm",
]  # fmt: skip


def edited(path: Path, edits: Edits, folder: Path) -> tuple[Dataset, dict[str, tuple[str, str]]]:
    target = folder / "edited.dcm"
    result = conform(path, target, EDIT_RECIPE, edits=edits)
    data = target.read_bytes()
    assert (result.size, result.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    found = pydicom.dcmread(target)
    return found, {change.tag: (change.old, change.new) for change in result.changes}


@pytest.mark.parametrize("name", FILES)
def test_all_but_the_edited_stays_in_every_encoding(name: str, tmp_path: Path) -> None:
    path = Path(str(get_testdata_file(name)))
    before = pydicom.dcmread(path, force=True)
    edits = Edits(
        (
            Edit(0x00100020, "LO", "NEW-ID", "rule r"),
            Edit(0x00081010, "SH", None),
            Edit(0x00101010, "AS", "042Y"),
            Edit(0x00280120, "US", "7"),
            Edit(0x00400280, "ST", ""),
        ),
        NEW,
    )
    after, changes = edited(path, edits, tmp_path)
    assert (after.PatientID, after.PatientAge, after.SOPInstanceUID) == ("NEW-ID", "042Y", NEW)
    assert after.file_meta.MediaStorageSOPInstanceUID == NEW
    assert after["PixelPaddingValue"].value == 7 and "StationName" not in after
    assert after["CommentsOnThePerformedProcedureStep"].value == ""
    assert changes["(0008,0018)"] == (before.SOPInstanceUID, NEW)
    assert changes["(0010,0020)"][1] == "NEW-ID: rule r"
    touched = {0xFFFCFFFC, 0x00100020, 0x00081010, 0x00101010, 0x00280120, 0x00400280, 0x00080018}
    for element in before:
        if element.tag not in touched and element.tag.element:
            assert after[element.tag] == element, element.tag
    assert {e.tag for e in after} - touched == {e.tag for e in before if e.tag.element} - touched
    tags = [element.tag for element in after]
    assert tags == sorted(tags)


@pytest.mark.parametrize("name", FILES)
def test_equal_edits_give_equal_bytes_and_none_keep_the_data_set(name: str, tmp_path: Path) -> None:
    path = Path(str(get_testdata_file(name)))
    edits = Edits((Edit(0x00100010, "PN", "Doe^Jane"),), NEW)
    one = conform(path, tmp_path / "a", EDIT_RECIPE, edits=edits)
    two = conform(path, tmp_path / "b", EDIT_RECIPE, edits=edits)
    assert one.sha256 == two.sha256 and (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert one.facts and one.facts["patient_name"] == "Doe^Jane"
    # The same edit made to what came of it changes nothing more.
    again = conform(tmp_path / "a", tmp_path / "c", EDIT_RECIPE, edits=edits)
    assert not again.changes and again.sha256 == one.sha256


def referring(ds: Dataset) -> None:
    """References on every level, one to another instance."""

    def item(uid: str) -> Dataset:
        one = Dataset()
        one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", uid
        return one

    outer = item(OTHER)
    outer.ReferencedImageSequence = Sequence([item(OLD), item(OTHER)])
    ds.ReferencedImageSequence = Sequence([item(OLD), outer])
    ds.SourceImageSequence = Sequence([item(OTHER)])
    ds.SOPInstanceUIDOfConcatenationSource = OLD
    block = ds.private_block(0x0099, "TEST", create=True)
    block.add_new(0x01, "SQ", Sequence([item(OLD)]))
    block.add_new(0x02, "LO", OLD)


@pytest.mark.parametrize("syntax", [EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE, DEFLATED])
def test_references_follow_on_every_level(syntax: str, tmp_path: Path) -> None:
    made = make("CT", transfer_syntax_uid=syntax, change=referring)
    path = made.write(tmp_path / "in.dcm")
    after, changes = edited(path, Edits(uid_map={OLD: NEW}), tmp_path)
    assert after.ReferencedImageSequence[0].ReferencedSOPInstanceUID == NEW
    assert after.ReferencedImageSequence[1].ReferencedSOPInstanceUID == OTHER
    nested = after.ReferencedImageSequence[1].ReferencedImageSequence
    assert [one.ReferencedSOPInstanceUID for one in nested] == [NEW, OTHER]
    assert after.SourceImageSequence[0].ReferencedSOPInstanceUID == OTHER
    assert after.SOPInstanceUIDOfConcatenationSource == NEW
    assert after.SOPInstanceUID == made.sop_instance_uid
    assert after.PixelData == made.dataset.PixelData
    assert after[0x0099, 0x1002].value in (OLD, f"{OLD} ".encode())  # text is no reference
    if syntax != IMPLICIT_LE:  # without VRs nobody can tell what a private element is
        assert after[0x0099, 0x1001].value[0].ReferencedSOPInstanceUID == NEW
    assert changes["(0008,1155)"] == (OLD, f"{NEW}: the reference follows the new SOP Instance UID")


@pytest.mark.parametrize("undefined", [False, True])
def test_references_within_unknown_sequences_follow(undefined: bool, tmp_path: Path) -> None:
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    one = Dataset()
    one.ReferencedSOPInstanceUID = OLD
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, True
    write_dataset(buffer, one)
    item = buffer.parent.getvalue()
    value = b"\xfe\xff\x00\xe0" + len(item).to_bytes(4, "little") + item
    made = make("CT")
    head = b"\x08\x00\x40\x11UN\0\0"
    length = 0xFFFFFFFF if undefined else len(value)
    whole = head + length.to_bytes(4, "little") + value + (b"\xfe\xff\xdd\xe0\0\0\0\0" if undefined else b"")
    at = made.encoded.index(b"\x10\x00\x10\x00PN")
    path = tmp_path / "in.dcm"
    path.write_bytes(made.meta() + made.encoded[:at] + whole + made.encoded[at:])
    after, _ = edited(path, Edits(uid_map={OLD: NEW}), tmp_path)
    assert after.ReferencedImageSequence[0].ReferencedSOPInstanceUID == NEW
    assert after.PatientID == made.dataset.PatientID


def test_what_looks_like_items_and_is_none_stays(tmp_path: Path) -> None:
    junk = b"\xfe\xff\x00\xe0" + b"\xff\xff\xff\x7f" + b"junkjunk"
    made = make("CT", change=lambda ds: ds.add(DataElement(0x00091001, "UN", junk)))
    path = made.write(tmp_path / "in.dcm")
    after, _ = edited(path, Edits((Edit(0x00100020, "LO", "X"),)), tmp_path)
    assert after[0x0009, 0x1001].value == junk


@pytest.mark.parametrize(
    ("who", "name", "charset"),
    [
        ("ascii", "Rüdiger^Ä", "ISO_IR 192"),
        ("german", "Müller^Jürgen", "ISO_IR 100"),
        ("japanese", "Suzuki^Ichirou=鈴木^一郎=すずき^いちろう", "\\ISO 2022 IR 87"),
        ("unicode", "Чехов^Антон", "ISO_IR 192"),
        ("korean", "Kim=김^희중", "\\ISO 2022 IR 149"),
    ],
)
def test_a_new_name_in_the_instances_character_set(who: str, name: str, charset: str, tmp_path: Path) -> None:
    path = make("CT", patient=PATIENTS[who]).write(tmp_path / "in.dcm")
    target = tmp_path / "out.dcm"
    result = conform(path, target, EDIT_RECIPE, edits=Edits((Edit(0x00100010, "PN", name),)))
    header = read_header(target)
    assert (header.patient_name, header.specific_character_set) == (name, charset)
    assert result.facts is not None and result.facts["patient_name"] == name
    assert result.directory_keys == header.directory_keys


def test_a_name_that_the_character_set_cannot_hold_is_refused(tmp_path: Path) -> None:
    path = make("CT", patient=PATIENTS["german"]).write(tmp_path / "in.dcm")
    with pytest.raises(InstanceRefused, match=r"ISO_IR 100 cannot hold the new value of \(0008,0090\)"):
        conform(path, tmp_path / "out", EDIT_RECIPE, edits=Edits((Edit(0x00080090, "PN", "山田"),)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.dcm"]


def test_a_recipe_runs_on_the_edited_instance(tmp_path: Path) -> None:
    made = make("CT", transfer_syntax_uid=IMPLICIT_LE, change=referring)
    path = made.write(tmp_path / "in.dcm")
    edits = Edits((Edit(0x00100020, "LO", "X1", "rule"),), NEW, {OLD: OTHER})
    result = conform(path, tmp_path / "out", EXPLICIT_LE_RECIPE, edits=edits)
    after = pydicom.dcmread(tmp_path / "out")
    assert (after.PatientID, after.SOPInstanceUID) == ("X1", NEW)
    assert after.ReferencedImageSequence[0].ReferencedSOPInstanceUID == OTHER
    assert {change.sop_instance_uid for change in result.changes} == {made.sop_instance_uid}
    assert {"(0002,0010)", "(0008,0018)", "(0008,1155)", "(0010,0020)"} <= {change.tag for change in result.changes}
    assert result.new_sop_instance_uid == NEW
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.dcm", "out"]


def test_signatures_go_with_what_they_sign(tmp_path: Path) -> None:
    path = make("CT", change=lambda ds: setattr(ds, "DigitalSignaturesSequence", [Dataset()])).write(tmp_path / "a.dcm")
    after, changes = edited(path, Edits((Edit(0x00100020, "LO", "X"),)), tmp_path)
    assert "DigitalSignaturesSequence" not in after
    assert changes["(FFFA,FFFA)"] == ("present", "removed: the data set it signs was edited")


def test_values_that_are_none_are_refused_by_name(tmp_path: Path) -> None:
    path = make("CT").write(tmp_path / "in.dcm")
    for edit in (Edit(0x00280120, "US", "x"), Edit(0x00080060, "CS", "Ä"), Edit(0x00081140, "SQ", "x")):
        with pytest.raises(MediaError, match=r"\(00"):
            conform(path, tmp_path / "out", EDIT_RECIPE, edits=Edits((edit,)))


@settings(max_examples=size(60, 1200))
@given(cut=st.integers(0, 3000), flip=st.integers(0, 3000), bit=st.integers(0, 7))
def test_damaged_files_are_refused_in_words(cut: int, flip: int, bit: int, tmp_path: Path) -> None:
    data = bytearray(make("CT", change=referring).part10())
    data[flip % len(data)] ^= 1 << bit
    path = tmp_path / "in.dcm"
    path.write_bytes(bytes(data[: max(140, len(data) - cut)]))
    try:
        edit_instance(path, tmp_path / "out", Edits((Edit(0x00100020, "LO", "X"),), NEW, {OLD: OTHER}))
        read_header(path)
    except MediaError:
        return
    read_header(tmp_path / "out")


def test_edits_are_values() -> None:
    one = Edits((Edit(0x10, "LO", "a"), Edit(0x08, "LO", "b")), NEW, {"1": "2", "3": "4"})
    two = Edits((Edit(0x08, "LO", "b"), Edit(0x10, "LO", "a")), NEW, {"3": "4", "1": "2"})
    assert one.digest == two.digest == Edits.from_json(one.to_json()).digest
    assert one.digest != Edits((), NEW).digest and not Edits()
    assert recipe_key("edit/1", one) == f"edit/1+{one.digest}" and recipe_key("edit/1", None) == "edit/1"
    uid = derived_uid("d", "1.2", "r")
    assert uid == derived_uid("d", "1.2", "r") != derived_uid("e", "1.2", "r")
    assert uid.startswith("2.25.") and len(uid) <= 64


def test_top_values(tmp_path: Path) -> None:
    path = make("CT", patient=PATIENTS["japanese"], change=referring).write(tmp_path / "in.dcm")
    found = top_values(path, frozenset((0x00100010, 0x00281050, 0x00280010, 0x00102000)))
    assert found == {0x00100010: PATIENTS["japanese"].name, 0x00281050: "40.0", 0x00280010: "16"}
    (tmp_path / "no").write_bytes(io.BytesIO(b"x" * 400).getvalue())
    with pytest.raises(NotDicom):
        top_values(tmp_path / "no", frozenset((0x00100010,)))


@pytest.mark.parametrize("syntax", [EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE])
@pytest.mark.parametrize("longer", [True, False])
def test_lengths_of_what_holds_a_reference_are_right(syntax: str, longer: bool, tmp_path: Path) -> None:
    """Sequences and items of undefined length within ones of defined length, and the other way round."""

    def mixed(ds: Dataset) -> None:
        referring(ds)
        ds.ReferencedImageSequence[1].is_undefined_length_sequence_item = True
        ds.ReferencedImageSequence[1]["ReferencedImageSequence"].is_undefined_length = True
        ds["SourceImageSequence"].is_undefined_length = True
        ds.SourceImageSequence[0].ReferencedImageSequence = ds.ReferencedImageSequence

    made = make("CT", transfer_syntax_uid=syntax, change=mixed)
    path = tmp_path / "in.dcm"
    path.write_bytes(made.part10() + bytes(64))  # padding, which is dropped
    new = NEW if longer else "1.2"
    after, _ = edited(path, Edits(uid_map={OLD: new}), tmp_path)
    found = [str(one.value) for one in after.iterall() if one.keyword == "ReferencedSOPInstanceUID"]
    before = [str(one.value) for one in made.dataset.iterall() if one.keyword == "ReferencedSOPInstanceUID"]
    assert len(found) >= 8
    private = int(syntax == IMPLICIT_LE)  # without VRs a private sequence is not known for one
    assert [one for one in found if one == OLD] == [] or private
    assert found.count(OTHER) == before.count(OTHER)
    assert after.PixelData == made.dataset.PixelData
    assert not (tmp_path / "edited.dcm").read_bytes().endswith(bytes(64))
    read_header(tmp_path / "edited.dcm")


def test_a_very_large_value_is_streamed(tmp_path: Path) -> None:
    """Memory stays small, whatever the size of the pixel data."""
    import subprocess
    import sys

    path = make("CT", size=64 << 20).write(tmp_path / "in.dcm")
    script = (
        "import sys, pathlib, resource\n"
        "from media.editing import edit_instance\n"
        "from media.edits import Edit, Edits\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "source, target = map(pathlib.Path, sys.argv[1:])\n"
        "edit_instance(source, target, Edits((Edit(0x100020, 'LO', 'X'),), '1.2'))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, path, tmp_path / "out"], check=True, capture_output=True, text=True
    )
    assert int(done.stdout) < 40_000  # KiB
    assert (tmp_path / "out").stat().st_size > 60 << 20
