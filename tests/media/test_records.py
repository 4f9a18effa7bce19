"""The table of directory records against the dictionaries of others, and what may be supplied."""

from __future__ import annotations

import contextlib

import pytest
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.fileset import DIRECTORY_RECORDERS
from pydicom.sequence import Sequence
from pydicom.uid import UID_dictionary
from pynetdicom import sop_class

from media import records
from media.encoding import encode, split, value_of
from media.problems import InstanceRefused
from tests.makers import KINDS, make
from tests.media.directory import header_of_made, numbers

TYPES = sorted(records.TYPES)
CURRENT = {
    *("PATIENT", "STUDY", "SERIES", "IMAGE", "RT DOSE", "RT STRUCTURE SET", "RT PLAN", "RT TREAT RECORD"),
    *("PRESENTATION", "WAVEFORM", "SR DOCUMENT", "KEY OBJECT DOC", "SPECTROSCOPY", "RAW DATA", "REGISTRATION"),
    *("FIDUCIAL", "HANGING PROTOCOL", "ENCAP DOC", "VALUE MAP", "STEREOMETRIC", "PALETTE", "IMPLANT", "IMPLANT ASSY"),
    *("IMPLANT GROUP", "PLAN", "MEASUREMENT", "SURFACE", "SURFACE SCAN", "TRACT", "ASSESSMENT", "RADIOTHERAPY"),
    *("ANNOTATION", "INVENTORY", "WF PRESENTATION", "PRIVATE"),
}
"""PS3.3 F.3.2.2, (0004,1430), without the retired ones."""


def test_every_record_type_of_annex_f() -> None:
    assert set(TYPES) == CURRENT
    assert set(DIRECTORY_RECORDERS) <= CURRENT


def test_every_storage_sop_class_has_one_record_type_or_a_reason() -> None:
    standard = {str(uid) for uid in sop_class._STORAGE_CLASSES.values()}
    standard |= {uid for uid, (name, kind, *_) in UID_dictionary.items() if kind == "SOP Class" and "Storage" in name}
    standard -= {uid for uid in standard if uid.startswith("1.2.840.10008.1.")}  # directory, commitment
    mapped = [uid for uids in records._TABLE["sop_classes"].values() for uid in uids]
    assert len(mapped) == len(set(mapped))
    for uid in sorted(standard):
        assert (records.record_type(uid) is None) == (uid in records.WITHOUT_RECORD), uid
    assert {records.record_type(uid) for uid in mapped} | {*records.LEVELS, "PRIVATE"} == CURRENT
    assert records.record_type("1.2.3.4") is None


@pytest.mark.parametrize("name", TYPES)
def test_the_keys_are_those_of_the_data_dictionary(name: str) -> None:
    row = records.TYPES[name]
    assert [key.tag for key in row.keys] == sorted({key.tag for key in row.keys})
    for key in row.keys:
        assert keyword_for_tag(key.tag) == key.keyword
        assert dictionary_VR(key.tag) == key.vr.decode()
        assert key.type in ("1", "1C", "2", "3")
        assert key.derived in ("", "verifying-observers", "concept-modifiers")
        assert key.supply in ("", "date", "time", "patient_id", "study_id", "series_number", "instance_number") or (
            key.supply.startswith("=")
        )
        assert not key.supply or key.type == "1"


def test_hierarchy_and_prefixes() -> None:
    assert {name for name in TYPES if not records.TYPES[name].parent} == {"PATIENT", *records.ROOT_RECORDS}
    assert {records.TYPES[name].parent for name in TYPES} == {"", "PATIENT", "STUDY", "SERIES"}
    prefixes = [records.TYPES[name].prefix for name in TYPES]
    assert len(set(prefixes)) == len(prefixes)
    assert all(prefix.isalpha() and prefix.isupper() and 1 <= len(prefix) <= 2 for prefix in prefixes)
    assert records.levels("PALETTE") == ("PALETTE",)
    assert records.levels("IMAGE") == ("PATIENT", "STUDY", "SERIES", "IMAGE")


@pytest.mark.parametrize("name", sorted(DIRECTORY_RECORDERS))
def test_pydicom_demands_no_key_that_is_not_ours(name: str) -> None:
    """Whatever attribute pydicom's recorder asks a data set for is a key of ours."""
    asked: set[str] = set()

    class Asked:
        def __contains__(self, keyword: str) -> bool:
            asked.add(keyword)
            return True

        def __getitem__(self, keyword: str) -> object:
            return type("Element", (), {"VM": 1})

        def __getattr__(self, keyword: str) -> object:
            asked.add(keyword)
            return None

        def get(self, keyword: str, default: object = None) -> object:
            asked.add(keyword)
            return default

    with contextlib.suppress(TypeError, ValueError, AttributeError):  # a recorder may choke on a value that is none
        DIRECTORY_RECORDERS[name](Asked())
    ours = {key.keyword for key in records.TYPES[name].keys}
    assert asked - {"SpecificCharacterSet"} <= ours


@pytest.mark.parametrize("kind", KINDS)
def test_complete_instances_need_nothing(kind: str) -> None:
    made = make(kind)
    header = header_of_made(made)
    assert records.record_type(header.sop_class_uid) == made.record_type
    assert records.supply(header, made.record_type, numbers(7)) == ()


def supplied(kind: str, **values: object) -> dict[str, str]:
    header = header_of_made(make(kind, **values))
    kind = records.record_type(header.sop_class_uid) or ""
    return {f"{key.record_type} {key.tag}": key.value for key in records.supply(header, kind, numbers(7))}


def test_identifiers_are_numbered() -> None:
    assert supplied("CT", PatientID="", StudyID=None, SeriesNumber=None, InstanceNumber="") == {
        "PATIENT (0010,0020)": "NOID_7",
        "STUDY (0020,0010)": "S7",
        "SERIES (0020,0011)": "7",
        "IMAGE (0020,0013)": "7",
    }
    assert supplied("CT", PatientID="   ") == {"PATIENT (0010,0020)": "NOID_7"}


def test_dates_come_from_the_instances_other_dates_only() -> None:
    nothing = dict.fromkeys(
        (
            *("StudyDate", "StudyTime", "SeriesDate", "SeriesTime", "AcquisitionDate", "AcquisitionTime"),
            *("ContentDate", "ContentTime", "InstanceCreationDate", "InstanceCreationTime", "AcquisitionDateTime"),
        )
    )
    date, time = "STUDY (0008,0020)", "STUDY (0008,0030)"
    assert supplied("CT", **nothing | {"SeriesDate": "20010203", "SeriesTime": "0405"}) == {
        date: "20010203",
        time: "0405",
    }
    assert supplied("CT", **nothing | {"AcquisitionDateTime": "20010203040506.7+0100"}) == {
        date: "20010203",
        time: "040506.7",
    }
    # A time of the same day first, whatever the order of the sources.
    both = {"SeriesTime": "11", "SeriesDate": "20010203", "ContentDate": "20010909", "ContentTime": "12"}
    assert supplied("CT", **nothing | both | {"StudyDate": "20010909"}) == {time: "12"}
    assert supplied("CT", **nothing | both | {"StudyDate": "19990909"}) == {time: "11"}
    assert supplied("CT", **nothing | {"InstanceCreationDate": "20010203", "StudyTime": "12"}) == {date: "20010203"}
    with pytest.raises(InstanceRefused, match=r"\(0008,0020\) StudyDate .* \(0008,0030\) StudyTime of its STUDY"):
        supplied("CT", **nothing)
    with pytest.raises(InstanceRefused, match=r"StudyTime"):
        supplied("CT", **nothing | {"SeriesDate": "20010203"})
    with pytest.raises(InstanceRefused, match=r"StudyDate"):
        supplied("CT", **nothing | {"SeriesDate": "2001.02.03", "SeriesTime": "1234"})


@pytest.mark.parametrize(
    ("kind", "keyword", "tag", "record"),
    [
        ("CT", "Modality", "0008,0060", "SERIES"),
        ("CT", "StudyInstanceUID", "0020,000D", "STUDY"),
        ("CT", "SeriesInstanceUID", "0020,000E", "SERIES"),
        ("PR", "ContentLabel", "0070,0080", "PRESENTATION"),
        ("SR", "ConceptNameCodeSequence", "0040,A043", "SR DOCUMENT"),
        ("SR", "CompletionFlag", "0040,A491", "SR DOCUMENT"),
        ("RTDOSE", "DoseSummationType", "3004,000A", "RT DOSE"),
        ("RTPLAN", "RTPlanLabel", "300A,0002", "RT PLAN"),
        ("RTSTRUCT", "StructureSetLabel", "3006,0002", "RT STRUCTURE SET"),
        ("PDF", "MIMETypeOfEncapsulatedDocument", "0042,0012", "ENCAP DOC"),
    ],
)
def test_what_must_not_be_invented_is_refused_by_name(kind: str, keyword: str, tag: str, record: str) -> None:
    with pytest.raises(InstanceRefused, match=rf"\({tag}\) {keyword} of its {record} record") as refusal:
        supplied(kind, **{keyword: None})
    assert refusal.value.code == "DIR_PROC_ERR"


def test_an_empty_sequence_is_a_missing_one() -> None:
    with pytest.raises(InstanceRefused, match="ConceptNameCodeSequence"):
        supplied("SR", ConceptNameCodeSequence=Sequence())


def test_record_elements() -> None:
    elements = {
        0x00080005: encode(0x00080005, b"CS", b"ISO_IR 192"),
        0x00100010: encode(0x00100010, b"PN", "Ångström".encode()),
        0x00080060: encode(0x00080060, b"CS", b"CT"),
    }
    record = split(records.record_elements("PATIENT", elements))
    assert [*record] == [0x00080005, 0x00100010]
    record = split(records.record_elements("STUDY", elements))
    assert {tag: value_of(element) for tag, element in record.items()} == {
        0x00080005: b"ISO_IR 192",
        0x00080050: b"",  # type 2
        0x00081030: b"",
    }
    given = (
        records.Supplied("PATIENT", "(0010,0020)", "LO", "NOID_1"),
        records.Supplied("STUDY", "(0020,0010)", "SH", "1"),
    )
    assert value_of(split(records.record_elements("PATIENT", elements, given))[0x00100020]) == b"NOID_1"
    assert value_of(split(records.record_elements("STUDY", elements, given))[0x00200010]) == b"1 "
    assert 0x00100020 not in split(records.record_elements("SERIES", elements, given))


def test_text_beyond_ascii_says_in_which_character_set_it_is() -> None:
    elements = {0x00100010: encode(0x00100010, b"PN", b"M\xfcller"), 0x00100020: encode(0x00100020, b"LO", b"1")}
    assert value_of(split(records.record_elements("PATIENT", elements))[0x00080005]) == b"ISO_IR 100"
    elements = {0x00280010: encode(0x00280010, b"US", b"\x00\xff")}
    assert 0x00080005 not in split(records.record_elements("IMAGE", elements))
