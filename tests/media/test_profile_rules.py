"""Every rule of config/profile_rules.toml: conforming data sets pass, and each way of breaking the rule is named."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.datadict import dictionary_description, dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset

from media.part10 import file_meta
from media.problems import MediaError, NotDicom
from media.profile_facts import OVERLAYS, TRANSFER_SYNTAX, Facts, is_overlay, text_values
from media.profile_rules import (
    Rule,
    check,
    facts_of,
    names,
    rule_refusal,
    rule_sets,
    rules_of,
    wanted_of,
)
from media.profiles import Profile, profile, profiles
from tests.makers import EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, encode, make, uid

LOSSLESS, BASELINE, RLE = "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.5"
XA, SC = "1.2.840.10008.5.1.4.1.1.12.1", "1.2.840.10008.5.1.4.1.1.7"
CT, MR, DX = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.1.1"
US, US_MF = "1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.3.1"
VIDEO = "1.2.840.10008.5.1.4.1.1.77.1.1.1"


def ds(sop_class_uid: str, **values: Any) -> Dataset:
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = sop_class_uid, uid(sop_class_uid)
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def overlay(made: Dataset, group: int) -> Dataset:
    made.add_new((group, 0x0010), "US", 8)
    made.add_new((group, 0x0011), "US", 8)
    made.add_new((group, 0x0100), "US", 1)
    made.add_new((group, 0x0102), "US", 0)
    made.add_new((group, 0x3000), "OW", bytes(8))
    return made


def pixels(bits: int, stored: int, photometric: str = "MONOCHROME2", samples: int = 1, rows: int = 4) -> dict[str, Any]:
    return {
        "SamplesPerPixel": samples,
        "PhotometricInterpretation": photometric,
        "Rows": rows,
        "Columns": rows,
        "BitsAllocated": bits,
        "BitsStored": stored,
        "HighBit": stored - 1,
        "PixelRepresentation": 0,
    }


def regions(organization: int | None) -> list[Dataset]:
    """Two calibrated regions (PS3.3 C.8.5.5), with the attributes that this organization of pixel components needs."""
    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 1, 0
    region.RegionLocationMinX0 = region.RegionLocationMinY0 = 0
    region.RegionLocationMaxX1 = region.RegionLocationMaxY1 = 3
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX = region.PhysicalDeltaY = 0.01
    if organization is not None:
        region.PixelComponentOrganization = organization
        region.PixelComponentPhysicalUnits, region.PixelComponentDataType = 0, 9
    if organization == 0:
        region.PixelComponentMask = 1
    if organization == 1:
        region.PixelComponentRangeStart, region.PixelComponentRangeStop = 0, 255
    if organization in (0, 1):
        region.NumberOfTableBreakPoints = 2
        region.TableOfXBreakPoints, region.TableOfYBreakPoints = [0, 1], [0.0, 1.0]
    if organization == 2:
        region.NumberOfTableEntries = 2
        region.TableOfPixelValues, region.TableOfParameterValues = [0, 1], [0.0, 1.0]
    if organization == 3:
        region.PixelValueMappingCodeSequence = [Dataset()]
    return [region, copy.deepcopy(region)]


def video(rows: int, columns: int, rate: int) -> dict[str, Any]:
    return pixels(8, 8, "YBR_PARTIAL_420", 3) | {
        "Rows": rows,
        "Columns": columns,
        "CineRate": rate,
        "PlanarConfiguration": 0,
        "NumberOfFrames": 3,
    }


DENTAL = {
    "InstitutionName": "",
    "ManufacturerModelName": "",
    "DetectorID": "",
    "DetectorManufacturerName": "",
    "DetectorManufacturerModelName": "",
}
ULTRASOUND = [
    (syntax, ds(US, **pixels(8, 8, photometric, samples)))
    for syntax, photometric, samples in (
        (EXPLICIT_LE, "MONOCHROME2", 1),
        (EXPLICIT_LE, "RGB", 3),
        (EXPLICIT_LE, "PALETTE COLOR", 1),
        (EXPLICIT_LE, "YBR_FULL_422", 3),
        (EXPLICIT_LE, "YBR_PARTIAL_422", 3),
        (RLE, "MONOCHROME2", 1),
        (RLE, "RGB", 3),
        (RLE, "PALETTE COLOR", 1),
        (RLE, "YBR_FULL", 3),
        (BASELINE, "YBR_FULL_422", 3),
        (BASELINE, "YBR_PARTIAL_422", 3),
    )
]
CONFORMING: dict[str, list[tuple[str, Dataset]]] = {
    "A.3-3": [
        (LOSSLESS, ds(XA, Modality="XA", **pixels(8, 8, rows=512))),
        (LOSSLESS, overlay(overlay(ds(XA, Modality="XA", **pixels(8, 8)), 0x6000), 0x601E)),
    ],
    "B.3-3": [(LOSSLESS, ds(XA, Modality="XA", **pixels(16, bits, rows=1024))) for bits in (10, 12)]
    + [(EXPLICIT_LE, ds(SC, **pixels(16, 16, rows=2000)))],
    "B.3-4": [(EXPLICIT_LE, ds(SC, **pixels(8, 8, rows=1024))), (LOSSLESS, overlay(ds(XA), 0x6000))],
    "C.3-2": [
        *ULTRASOUND,
        (EXPLICIT_LE, ds(US, NumberOfFrames=1, **pixels(8, 8))),
        (EXPLICIT_LE, ds(US_MF, NumberOfFrames=7, **pixels(8, 8))),
    ],
    "C.4": [(EXPLICIT_LE, ds(which, SequenceOfUltrasoundRegions=regions(None))) for which in (US, US_MF)],
    "C.5": [(EXPLICIT_LE, ds(US, SequenceOfUltrasoundRegions=regions(which))) for which in range(4)]
    + [(EXPLICIT_LE, ds(US_MF, SequenceOfUltrasoundRegions=regions(0)))],
    "E.3-3": [(EXPLICIT_LE, ds(CT, Modality="CT", **pixels(16, 12))), (LOSSLESS, ds(MR, Modality="MR"))],
    "E.3-4": [(EXPLICIT_LE, ds(MR, Modality="MR", **pixels(16, bits))) for bits in (12, 13, 14, 15, 16)]
    + [(EXPLICIT_LE, ds(MR, Modality="MR", **pixels(8, 8)))],
    "E.3-5": [
        (EXPLICIT_LE, ds(SC, **pixels(8, 8))),
        (LOSSLESS, ds(SC, **pixels(16, 16))),
        (EXPLICIT_LE, ds(SC, **pixels(8, 8, "PALETTE COLOR"))),
    ],
    "I.3-1": [
        ("1.2.840.10008.1.2.4.100", ds(VIDEO, **video(576, 720, 25))),
        ("1.2.840.10008.1.2.4.100", ds(VIDEO, **video(480, 640, 30))),
        ("1.2.840.10008.1.2.4.101", ds(VIDEO, **video(720, 1280, 60))),
        ("1.2.840.10008.1.2.4.102", ds(VIDEO, **video(1080, 1920, 30))),
        ("1.2.840.10008.1.2.4.103", ds(VIDEO, **video(1080, 1920, 30))),
        ("1.2.840.10008.1.2.4.104", ds(VIDEO, **video(1080, 1920, 60))),
    ],
    "K.3-3": [(EXPLICIT_LE, ds(DX, **pixels(8, 8)))]
    + [(EXPLICIT_LE, ds(DX, **pixels(16, bits))) for bits in (10, 12, 16)],
    "K.3-4": [(EXPLICIT_LE, ds(DX, **DENTAL)), (EXPLICIT_LE, ds(DX, **dict.fromkeys(DENTAL, "A")))],
}
CONFORMING |= {"L.4-1": CONFORMING["K.3-3"], "L.4-2": CONFORMING["K.3-4"]}
RULES = [(name, number, rule) for name, rules in rule_sets().items() for number, rule in enumerate(rules)]


def profile_with(*sets: str) -> Profile:
    from dataclasses import replace

    return replace(profile("STD-GEN-CD"), rules=sets)


def write(folder: Path, made: Dataset, syntax: str) -> Path:
    path = folder / "IMAGE"
    path.write_bytes(file_meta(str(made.SOPClassUID), str(made.SOPInstanceUID), syntax) + encode(made, syntax))
    return path


def holders(rule: Rule, made: Dataset) -> list[Dataset]:
    """The data set or, for a rule on items, the items in which the rule's attribute stands."""
    if len(rule.path) == 1:
        return [made]
    return list(made.get(rule.path[0], Dataset()).value if rule.path[0] in made else [])


def tags_in(rule: Rule, holder: Dataset) -> list[int]:
    """The rule's tag, or that in each overlay group which the data set has."""
    if rule.tag >> 16 != 0x60FF:
        return [rule.tag]
    groups = sorted({element.tag.group for element in holder if is_overlay(element.tag)})
    return [group << 16 | rule.tag & 0xFFFF for group in groups]


def applies(rule: Rule, syntax: str, holder: Dataset, tag: int) -> bool:
    facts = {element.tag: _texts(element) for element in holder if element.VR != "SQ"} | {0x00020010: (syntax,)}
    return all(condition.holds(Facts(facts), tag >> 16) for condition in rule.when)


def _texts(element: Any) -> tuple[str, ...]:
    values = element.value if element.VM > 1 else [element.value]
    return tuple(str(value) for value in values if value not in ("", None))


def put(holder: Dataset, tag: int, value: Any) -> None:
    vr = dictionary_VR(tag)
    holder.add_new(tag, vr, value)


def broken(rule: Rule, holder: Dataset, tag: int) -> Iterator[tuple[str, Callable[[], None]]]:
    """Every way of breaking one rule in a data set or item that keeps it, by a word for it."""

    def remove() -> None:
        if tag in holder:
            del holder[tag]

    def empty() -> None:
        holder.add_new(tag, dictionary_VR(tag) if tag >> 16 < 0x6000 else "OW", [] if rule.items else None)

    if rule.absent:
        yield "there", lambda: overlay(holder, 0x6004) and None
        return
    if rule.type in ("1", "2") or rule.items:
        yield "missing", remove
    if rule.type == "1" or rule.items:
        yield "empty", empty
    if rule.one_of:
        other: Any = 99 if isinstance(rule.one_of[0], int) else "ZZ"
        yield "other", lambda: put(holder, tag, other)
        yield "several", lambda: put(holder, tag, [rule.one_of[0], rule.one_of[0]])
    if rule.min is not None:
        yield "small", lambda: put(holder, tag, rule.min - 1)  # type: ignore[operator]
    if rule.max is not None:
        yield "great", lambda: put(holder, tag, rule.max + 1)  # type: ignore[operator]
    if rule.equals is not None:
        yield "unequal", lambda: put(holder, tag, int(holder[tag].value) + 1)
    if rule.times is not None:
        yield "product", lambda: put(holder, tag, rule.max_product // int(holder[rule.times].value) + 1)  # type: ignore[index]


def cases(rule: Rule, data_sets: list[tuple[str, Dataset]]) -> Iterator[tuple[str, str, Dataset]]:
    """The conforming data sets made to break the rule and, but for what follows from that, no other."""
    for syntax, conforming in data_sets:
        for index, holder in enumerate(holders(rule, conforming)):
            for tag in tags_in(rule, holder) or ([0x60000010] if rule.absent else []):
                if not applies(rule, syntax, holder, tag):
                    continue
                for number, (word, _) in enumerate(broken(rule, holder, tag)):
                    made = copy.deepcopy(conforming)
                    inner = holders(rule, made)[index]
                    list(broken(rule, inner, tag))[number][1]()
                    yield f"{word} in item {index + 1}", syntax, made


def test_every_set_has_conforming_data_sets() -> None:
    assert set(CONFORMING) == set(rule_sets())


def test_every_profile_names_sets_that_there_are_and_every_set_is_named() -> None:
    for row in profiles().values():
        rules_of(row.rules)
    assert {name for row in profiles().values() for name in row.rules} == set(rule_sets())
    with pytest.raises(MediaError, match=r"'X\.1'"):
        rules_of(("X.1",))


@pytest.mark.parametrize("name", list(rule_sets()))
def test_conforming_data_sets_pass(name: str, tmp_path: Path) -> None:
    for syntax, made in CONFORMING[name]:
        path = write(tmp_path, made, syntax)
        assert check(profile_with(name), facts_of(path)) == ()
        assert rule_refusal(profile_with(name), path) is None


@pytest.mark.parametrize(("name", "number", "rule"), RULES, ids=[f"{name}-{number}" for name, number, _ in RULES])
def test_each_way_of_breaking_a_rule_is_named(name: str, number: int, rule: Rule, tmp_path: Path) -> None:
    words = set()
    for word, syntax, made in cases(rule, CONFORMING[name]):
        found = check(profile_with(name), facts_of(write(tmp_path, made, syntax)))
        named = [one for one in found if one.clause == rule.clause and rule.name in one.text]
        assert named, f"{word}: {found}"
        for one in named:
            assert one.clause in one.text and "\n" not in one.text and one.text.count("must") == 1
            assert one.tag in one.text
        words.add(word.split()[0])
    assert words, "the rule has no conforming data set in which it holds"
    if rule.absent:
        assert words == {"there"}


# What the tables of PS3.11 say, once more and in other words: what a rule demands of which attribute.
SAID = {
    "A.3-3": {
        "Modality": "be XA",
        "Rows": "be from 1 to 512",
        "Columns": "be from 1 to 512",
        "Bits Allocated": "be 8",
        "Bits Stored": "be 8",
        "Overlay Data": "have a value",
    },
    "B.3-3": {
        "Modality": "be XA",
        "Rows": "be from 1 to 1024",
        "Columns": "be from 1 to 1024",
        "Bits Stored": "be 8, 10 or 12",
    },
    "B.3-4": {
        "Rows": "be from 1 to 1024",
        "Columns": "be from 1 to 1024",
        "Samples per Pixel": "be 1",
        "Photometric Interpretation": "be MONOCHROME2",
        "Bits Allocated": "be 8",
        "Bits Stored": "be 8",
        "High Bit": "be 7",
        "Pixel Representation": "be 0",
        "Overlay group 60XX": "not be there",
    },
    "E.3-3": {"Modality": "be CT", "Photometric Interpretation": "be MONOCHROME2"},
    "E.3-4": {
        "Modality": "be MR",
        "Photometric Interpretation": "be MONOCHROME2",
        "Bits Stored": "be 8, 12, 13, 14, 15 or 16",
        "High Bit": "be Bits Stored (0028,0101) less 1",
    },
    "K.3-4": dict.fromkeys(
        (
            "Institution Name",
            "Manufacturer's Model Name",
            "Detector ID",
            "Detector Manufacturer Name",
            "Detector Manufacturer's Model Name",
        ),
        "be there, even if it is empty",
    ),
}
PAIRS = {
    "MONOCHROME2": (EXPLICIT_LE, RLE),
    "RGB": (EXPLICIT_LE, RLE),
    "PALETTE COLOR": (EXPLICIT_LE, RLE),
    "YBR_FULL": (RLE,),
    "YBR_FULL_422": (EXPLICIT_LE, BASELINE),
    "YBR_PARTIAL_422": (EXPLICIT_LE, BASELINE),
    "YBR_RCT": (),
    "MONOCHROME1": (),
}


@pytest.mark.parametrize("name", list(SAID))
def test_the_table_says_what_the_standard_says(name: str) -> None:
    assert {rule.name: rule.demand() for rule in rule_sets()[name]} == SAID[name]


@pytest.mark.parametrize("photometric", list(PAIRS))
@pytest.mark.parametrize("syntax", [EXPLICIT_LE, RLE, BASELINE])
def test_pairs_of_table_c_3_2(photometric: str, syntax: str) -> None:
    facts = Facts({0x00020010: (syntax,), 0x00280004: (photometric,), 0x00280002: ("1",)})
    found = [one for one in check(profile("STD-US-ID-SF-CDR"), facts) if one.clause == "PS3.11 Table C.3-2"]
    assert bool(found) == (syntax not in PAIRS[photometric])


def test_what_conforming_cannot_mend_is_told_before_it(tmp_path: Path) -> None:
    row = profile("STD-XABC-CD")
    path = write(tmp_path, ds(XA, Modality="XA", **pixels(16, 12, rows=513)), EXPLICIT_LE)
    refused = rule_refusal(row, path, to_be_conformed=True)
    assert refused is not None
    assert "Rows" in refused[1] and "Columns" in refused[1] and "Bits" not in refused[1]
    assert rule_refusal(profile_with("E.3-4"), tmp_path / "nothing", to_be_conformed=True) is None


def test_attributes_have_their_names_and_vrs() -> None:
    for tag, name in names().items():
        if is_overlay(tag) or tag >> 16 == 0x60FF or tag >> 16 == 2:
            continue
        assert name == dictionary_description(tag)
        assert keyword_for_tag(tag)
        vr = wanted_of(tuple(rule_sets())).vr(tag)
        assert vr is None or vr == dictionary_VR(tag)


@pytest.mark.parametrize("syntax", [EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE])
def test_facts_are_the_same_in_every_encoding(syntax: str, tmp_path: Path) -> None:
    made = overlay(ds(US, NumberOfFrames=2, **pixels(8, 8), SequenceOfUltrasoundRegions=regions(2)), 0x6002)
    made.add_new((0x0029, 0x0010), "LO", "MAKER")
    made.add_new((0x0029, 0x1001), "UN", bytes(20))
    facts = facts_of(write(tmp_path, made, syntax))
    assert facts.values[0x00020010] == (syntax,)
    assert facts.values[0x00280010] == ("4",) and facts.values[0x00280008] == ("2",)
    assert facts.values[0x60020010] == ("8",) and OVERLAYS in facts.values
    first, second = facts.items[0x00186011]
    assert first == second and first.values[0x0018602C] == ("0.01",)
    assert first.values[0x00186058] == ("0", "1")
    assert 0x00080018 not in facts.values and not any(tag >> 16 & 1 for tag in facts.values)


def test_sentences_say_what_where_and_why() -> None:
    facts = Facts({0x00080016: (CT,), 0x00080060: ("CT",), 0x00280004: ("MONOCHROME1",)})
    (found,) = check(profile("STD-CTMR-CD"), facts)
    assert found.text == (
        'Photometric Interpretation (0028,0004) is "MONOCHROME1"; in a CT image it must be MONOCHROME2'
        " (PS3.11 Table E.3-3)"
    )
    facts = Facts({0x00080016: (MR,), 0x00080060: ("MR",), 0x00280101: ("10",), 0x00280102: ("11",)})
    texts = [one.text for one in check(profile("STD-CTMR-CD"), facts)]
    assert texts == [
        "Photometric Interpretation (0028,0004) is missing; in an MR image it must be MONOCHROME2 (PS3.11 Table E.3-4)",
        "Bits Stored (0028,0101) is 10; in an MR image it must be 8, 12, 13, 14, 15 or 16 (PS3.11 Table E.3-4)",
        "High Bit (0028,0102) is 11; in an MR image it must be Bits Stored (0028,0101) less 1 (PS3.11 Table E.3-4)",
    ]


def test_a_region_is_named_by_its_number_and_only_the_first(tmp_path: Path) -> None:
    made = ds(US, SequenceOfUltrasoundRegions=[*regions(None), *regions(None)])
    for region in made.SequenceOfUltrasoundRegions[2:]:
        del region.PhysicalDeltaX
    (found,) = check(profile_with("C.4"), facts_of(write(tmp_path, made, EXPLICIT_LE)))
    assert found.text.startswith(
        "Physical Delta X (0018,602C) in item 3 of Sequence of Ultrasound Regions (0018,6011) is missing;"
    )


def test_included_rules_have_the_clause_of_the_set_that_includes_them() -> None:
    assert {rule.clause for rule in rule_sets()["C.5"]} == {"PS3.11 C.5"}
    assert {rule.clause for rule in rule_sets()["L.4-1"]} == {"PS3.11 Table L.4-1"}


def test_refusal_is_one_sentence_with_code_and_profile(tmp_path: Path) -> None:
    path = write(tmp_path, ds(CT, Modality="CT", **pixels(8, 8, "RGB", 3)), EXPLICIT_LE)
    refused = rule_refusal(profile("STD-CTMR-CD"), path)
    assert refused is not None
    assert refused[0] == "INST_AP_CONFLICT" and "STD-CTMR-CD" in refused[1] and "Table E.3-3" in refused[1]


def test_profiles_without_rules_do_not_open_the_file(tmp_path: Path) -> None:
    assert rule_refusal(profile("STD-GEN-CD"), tmp_path / "nothing") is None


def test_what_cannot_be_followed_is_refused_and_never_raises(tmp_path: Path) -> None:
    path = tmp_path / "IMAGE"
    whole = make("CT").part10()
    for end in range(0, len(whole) - 600, 37):
        path.write_bytes(whole[:end])
        refused = rule_refusal(profile("STD-CTMR-CD"), path)
        assert refused is not None and refused[0] in ("PROC_FAILURE", "INST_AP_CONFLICT")
    assert rule_refusal(profile("STD-CTMR-CD"), tmp_path / "nothing") is not None


def test_many_items_are_counted_not_kept(tmp_path: Path) -> None:
    item = b"\xfe\xff\x00\xe0\0\0\0\0"
    made = write(tmp_path, ds(US), EXPLICIT_LE)
    sequence = b"\x18\x00\x11\x60SQ\0\0" + (8 * 200_000).to_bytes(4, "little") + item * 200_000
    made.write_bytes(made.read_bytes() + sequence)
    facts = facts_of(made)
    assert len(facts.items[0x00186011]) == 1025
    assert any("more than 1024 items" in one.text for one in check(profile_with("C.4"), facts))


TEXTS = st.lists(st.text(max_size=80), max_size=3).map(tuple)


@given(
    st.dictionaries(st.sampled_from(sorted(names())), TEXTS, max_size=12),
    st.lists(st.dictionaries(st.sampled_from(sorted(names())), TEXTS, max_size=6), max_size=3),
    st.sampled_from(sorted(rule_sets())),
)
def test_hostile_values_give_sentences(values: Any, regions: Any, name: str) -> None:
    facts = Facts(values, {0x00186011: tuple(Facts(region) for region in regions)})
    for found in check(profile_with(name), facts):
        assert found.text.isprintable() and len(found.text) < 500


@given(
    st.sampled_from(["US", "UL", "FD", "FL", "IS", "DS", "CS", "LO", "UN", "OW", "SS", "SV"]), st.binary(max_size=3000)
)
def test_any_bytes_give_a_value(vr: str, data: bytes) -> None:
    for little in (True, False):
        values = text_values(vr, data, little=little)
        assert all(isinstance(value, str) for value in values) and len(values) <= 3000
        assert bool(data) or values == ()


@given(st.integers(0, 4000), st.integers(0, 255))
def test_any_flipped_byte_is_survived(at: int, value: int) -> None:
    import tempfile

    made = ds(US, **pixels(8, 8), SequenceOfUltrasoundRegions=regions(2))
    whole = bytearray(file_meta(US, "1.2", EXPLICIT_LE) + encode(made, EXPLICIT_LE))
    whole[at % len(whole)] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "IMAGE"
        path.write_bytes(whole)
        rule_refusal(profile_with("C.3-2", "C.5"), path)


def test_reading_and_judging_a_ct_is_fast(tmp_path: Path) -> None:
    path = make("CT", size=512 * 512 * 2).write(tmp_path)
    row = profile("STD-CTMR-CD")
    rule_refusal(row, path)
    took = []
    for _ in range(20):
        before = time.thread_time()
        rule_refusal(row, path)
        took.append(time.thread_time() - before)
    assert min(took) < 0.005  # 0.2 ms on the machine on which it was written


def as_pydicom_reads(path: Path) -> dict[int, tuple[str, ...]]:
    """The wanted values of a data set, read by pydicom."""
    found: dict[int, tuple[str, ...]] = {}
    for element in dcmread(path, stop_before_pixels=True, force=True):
        if wanted_of(tuple(rule_sets())).vr(element.tag) is None or element.VR in ("OB", "OW"):
            continue
        values = element.value if element.VM > 1 else [element.value]
        texts = tuple("" if value is None else str(value).strip() for value in values)
        found[int(element.tag)] = texts if any(texts) else ()
    return found


def same_as_pydicom(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = as_pydicom_reads(path)
    ours = facts_of(path).values
    left_out = (TRANSFER_SYNTAX, OVERLAYS)
    assert {tag: values for tag, values in ours.items() if tag not in left_out and not is_overlay(tag)} == {
        tag: values for tag, values in expected.items() if tag != TRANSFER_SYNTAX and not is_overlay(tag)
    }
    assert (OVERLAYS in ours) or not any(is_overlay(tag) for tag in expected)


def test_facts_are_what_pydicom_reads() -> None:
    folder = Path(str(get_testdata_file("CT_small.dcm"))).parent
    read = 0
    for path in sorted(folder.glob("*.dcm")):
        try:
            facts_of(path)
        except NotDicom:
            continue
        same_as_pydicom(path)
        read += 1
    assert read > 20


@pytest.mark.shared_data
def test_facts_of_real_files_are_what_pydicom_reads(shared_data: Path) -> None:
    folders = [shared_data / name for name in ("ct", "us", "mr", "xray", "sc", "enhanced")]
    paths = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    for path in paths:
        same_as_pydicom(path)
    assert len(paths) > 20
