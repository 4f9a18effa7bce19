"""DICOMDIRs of other makers, damaged ones and hostile ones."""

from __future__ import annotations

import io
import struct
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileDataset

from media.dicomdir import dicomdir_bytes
from media.dicomdir_reader import Directory, Limits, read
from media.part10 import file_meta
from media.problems import FileSetInvalid, ProblemKind
from tests.makers import KINDS, PATIENTS, make
from tests.media.directory import encoded, header_of_made, item_of, named
from tests.soak import size

UID = "2.25." + "9" * 39
FOREIGN = Path(str(get_testdata_file("CT_small.dcm"))).parent / "dicomdirtests"


def ours() -> bytes:
    items = [item_of(header_of_made(make(kind, series=n)), n) for n, kind in enumerate(KINDS)]
    other = item_of(header_of_made(make("CT", patient=PATIENTS["korean"], seed=2)), 99)
    return dicomdir_bytes("OURS", UID, named([*items, other]))


def with_records(*given: Dataset, **head: object) -> bytes:
    """A DICOMDIR of records chained in one row under the root, with right offsets where they are 0."""
    dataset = Dataset()
    dataset.FileSetID = "FOREIGN"
    dataset.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity = 0
    dataset.OffsetOfTheLastDirectoryRecordOfTheRootDirectoryEntity = 0
    dataset.FileSetConsistencyFlag = 0
    for keyword, value in head.items():
        setattr(dataset, keyword, value)
    meta = file_meta("1.2.840.10008.1.3.10", UID, "1.2.840.10008.1.2.1")
    at = len(meta) + len(encoded(dataset)) + 12
    first = at
    for n, record in enumerate(given):
        size = len(encoded(record)) + 8
        if record.get("OffsetOfTheNextDirectoryRecord") == 0 and n + 1 < len(given):
            record.OffsetOfTheNextDirectoryRecord = at + size
        last, at = at, at + size
    if given and not dataset.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity:
        dataset.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity = first
        dataset.OffsetOfTheLastDirectoryRecordOfTheRootDirectoryEntity = last
    dataset.DirectoryRecordSequence = list(given)
    return meta + encoded(dataset)


def record(kind: str = "PALETTE", **values: object) -> Dataset:
    dataset = Dataset()
    dataset.OffsetOfTheNextDirectoryRecord = 0
    dataset.RecordInUseFlag = 0xFFFF
    dataset.OffsetOfReferencedLowerLevelDirectoryEntity = 0
    dataset.DirectoryRecordType = kind
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def details(directory: Directory) -> list[str]:
    assert all(p.kind is ProblemKind.STRUCTURE and p.file == "DICOMDIR" for p in directory.problems)
    return [problem.detail for problem in directory.problems]


def test_our_own() -> None:
    data = ours()
    directory = read(data)
    assert details(directory) == []
    assert (directory.file_set_id, directory.file_set_uid) == ("OURS", UID)
    dataset = dcmread(io.BytesIO(data))
    for mine, theirs in zip(directory.records, dataset.DirectoryRecordSequence, strict=True):
        assert mine.offset == theirs.seq_item_tell
        assert mine.type == theirs.DirectoryRecordType
        assert mine.referenced_sop_instance_uid == theirs.get("ReferencedSOPInstanceUIDInFile", "")
        assert list(mine.file_id or []) == list(theirs.get("ReferencedFileID", []))
        keys = {element.tag: element.VR for element in theirs if element.tag.group != 4}
        assert {tag: vr for tag, (vr, _) in mine.elements.items()} == keys
    assert {directory.records[directory.path(n)[0]].type for n in range(len(directory.records))} == {"PATIENT"}


@pytest.mark.parametrize("name", ["DICOMDIR", "DICOMDIR-bigEnd", "DICOMDIR-implicit", "DICOMDIR-reordered"])
def test_real_ones_in_any_encoding_and_order(name: str) -> None:
    directory = read((FOREIGN / name).read_bytes())
    assert directory.file_set_id == "PYDICOM_TEST"
    assert len(directory.records) == 52
    for found in details(directory):
        assert "transfer syntax" in found
    images = [n for n, one in enumerate(directory.records) if one.type == "IMAGE"]
    assert len(images) == 31
    for n in images:
        levels = [directory.records[k] for k in directory.path(n)]
        assert [level.type for level in levels] == ["PATIENT", "STUDY", "SERIES", "IMAGE"]
        file_id = levels[3].file_id
        assert file_id is not None
        file = dcmread(FOREIGN.joinpath(*file_id), specific_tags=["PatientName", "SOPInstanceUID"])
        assert file.SOPInstanceUID == levels[3].referenced_sop_instance_uid
        assert levels[0].text(0x00100010) == file.PatientName
    rows = [one.elements[0x00200013] for one in directory.records if one.type == "IMAGE"]
    assert all(vr == "IS" for vr, _ in rows)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("DICOMDIR-nopatient", "unknown type: 'UNKNOWN'"),
        ("DICOMDIR-nooffset", "is cut off"),
        ("DICOMDIR-bigEnd", "Its transfer syntax is 1.2.840.10008.1.2.2"),
    ],
)
def test_real_defects_are_reported(name: str, problem: str) -> None:
    directory = read((FOREIGN / name).read_bytes())
    assert any(problem in found for found in details(directory))
    assert len(directory.records) == 52
    assert len([one for one in directory.records if one.file_id]) == 31


def test_a_stream_that_gives_little_at_a_time() -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 0, 100))

    data = ours()
    assert [one.offset for one in read(Slow(data)).records] == [one.offset for one in read(data).records]


def test_an_empty_directory() -> None:
    directory = read((FOREIGN / "DICOMDIR-empty.dcm").read_bytes())
    assert directory.records == []
    assert details(directory) == []


@pytest.mark.parametrize("data", [b"", b"hello", bytes(5000), b"\x89PNG\r\n\x1a\n", bytes(128) + b"DICM"])
def test_what_is_no_dicomdir_at_all(data: bytes) -> None:
    with pytest.raises(FileSetInvalid):
        read(data)


def test_an_instance_is_no_dicomdir() -> None:
    with pytest.raises(FileSetInvalid, match="none of the elements"):
        read(make("CT").part10())


def test_limits() -> None:
    data = ours()
    with pytest.raises(FileSetInvalid, match="larger than"):
        read(data, Limits(bytes=1000))
    with pytest.raises(FileSetInvalid, match="more than 5 records"):
        read(data, Limits(records=5))
    many = with_records(*(record("NONSENSE") for _ in range(50)))
    assert len(read(many, Limits(problems=10)).problems) == 11


@pytest.mark.parametrize(
    "file_id",
    [
        ["..", "..", "etc", "passwd"],
        ["", "etc", "passwd"],
        ["DICOM", "", "IM1"],
        ["."],
        ["DICOM", "A/../B"],
        ["C:", "WINDOWS"],
        ["A\x00B"],
        ["DICOM", "A\nB"],
        ["...", "A"],
    ],
)
def test_hostile_file_ids(file_id: list[str]) -> None:
    image = record("PALETTE")
    image.add_new(0x00041500, "CS", file_id)
    directory = read(with_records(image))
    assert directory.records[0].file_id is None
    assert any("hostile" in found for found in details(directory))


@pytest.mark.parametrize(
    ("given_id", "canonical"),
    [
        (["dicom", "im1"], ("DICOM", "IM1")),
        (["DICOM", "IMAGE.DCM"], ("DICOM", "IMAGE.DCM")),
        (["DICOM", "IM1.;1"], ("DICOM", "IM1")),
        (["DICOM", "IM1;1"], ("DICOM", "IM1")),
        (["DICOM", "IM000000001"], ("DICOM", "IM000000001")),
        (list("ABCDEFGHI"), tuple("ABCDEFGHI")),
    ],
)
def test_file_ids_that_only_do_not_conform(given_id: list[str], canonical: tuple[str, ...]) -> None:
    image = record("PALETTE")
    image.add_new(0x00041500, "CS", given_id)
    directory = read(with_records(image))
    assert directory.records[0].file_id == canonical
    assert any("does not conform to PS3.10 8.5" in found for found in details(directory))


def test_a_loop() -> None:
    data = with_records(record(), record(), record())
    third = read(data).records[2].offset
    bent = bytearray(data)
    struct.pack_into("<L", bent, third + 16, read(data).records[0].offset)
    assert any("met before" in found for found in details(read(bytes(bent))))
    struct.pack_into("<L", bent, third + 16, third)
    assert any("met before" in found for found in details(read(bytes(bent))))
    struct.pack_into("<L", bent, third + 16, 0)
    struct.pack_into("<L", bent, third + 8 + 30, third)
    assert any("lower level offset" in found for found in details(read(bytes(bent))))


def test_offsets_that_lead_nowhere() -> None:
    data = ours()
    offsets = [one.offset for one in read(data).records]
    bent = bytearray(data)
    struct.pack_into("<L", bent, offsets[3] + 16, 77)
    found = details(read(bytes(bent)))
    assert f"The next record offset of the record at {offsets[3]} is 77, where no record begins" in found
    bent = bytearray(data)
    struct.pack_into("<L", bent, offsets[0] + 8 + 30, 0)
    directory = read(bytes(bent))
    assert any("No offset leads to the STUDY record" in found for found in details(directory))
    assert [one.reachable for one in directory.records[:2]] == [True, False]
    data = with_records(record(), OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity=0xFFFFFFFF)
    assert any("offset of the first record is 4294967295" in found for found in details(read(data)))


def test_the_last_record_of_the_root() -> None:
    right = read(with_records(record()))
    assert details(right) == []
    first = right.records[0].offset
    data = with_records(record(), OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity=first)
    assert details(read(data)) == [f"The offset of the last record of the root is 0, and not {first}"]


def test_flags_and_places() -> None:
    found = details(read(with_records(record(RecordInUseFlag=0))))
    assert any("not in use" in one for one in found)
    assert any("Consistency" in one for one in details(read(with_records(record(), FileSetConsistencyFlag=0xFFFF))))
    assert any("directly under the root" in one for one in details(read(with_records(record("IMAGE")))))
    assert any("retired type: 'CURVE'" in one for one in details(read(with_records(record("CURVE")))))
    assert any("has no type" in one for one in details(read(with_records(record("")))))
    assert details(read(with_records(record("PRIVATE")))) == []


def test_undefined_lengths() -> None:
    dataset = dcmread(FOREIGN / "DICOMDIR")
    plain = read((FOREIGN / "DICOMDIR").read_bytes())
    dataset["DirectoryRecordSequence"].is_undefined_length = True
    for one in dataset.DirectoryRecordSequence:
        one.is_undefined_length_sequence_item = True
    meta = file_meta("1.2.840.10008.1.3.10", UID, "1.2.840.10008.1.2.1")
    directory = read(meta + encoded(_plain(dataset)))
    assert [one.file_id for one in directory.records] == [one.file_id for one in plain.records]
    assert [one.elements for one in directory.records] == [one.elements for one in plain.records]


def _plain(dataset: FileDataset) -> Dataset:
    copy = Dataset()
    copy.update({element.tag: element for element in dataset})
    return copy


def test_truncation_anywhere() -> None:
    data = ours()
    whole = read(data)
    for length in range(400, len(data), 97):
        directory = read(data[:length])
        assert directory.problems
        for mine, theirs in zip(directory.records[:-1], whole.records, strict=False):
            assert (mine.type, mine.file_id, mine.offset) == (theirs.type, theirs.file_id, theirs.offset)


@settings(max_examples=size(200, 4000))
@given(
    changes=st.lists(st.tuples(st.integers(300, 1 << 16), st.binary(min_size=1, max_size=6)), min_size=1, max_size=8)
)
def test_damaged_bytes_raise_nothing_else(changes: list[tuple[int, bytes]]) -> None:
    data = bytearray(_OURS)
    for where, value in changes:
        at = where % len(data)
        data[at : at + len(value)] = value
    try:
        directory = read(bytes(data))
    except FileSetInvalid:
        return
    for n, one in enumerate(directory.records):
        assert len(directory.path(n)) <= len(directory.records)
        assert all(isinstance(value, bytes) for _, value in one.elements.values())
        one.text(0x00100010)
        assert one.file_id is None or all(part not in ("", ".", "..") for part in one.file_id)


_OURS = ours()


def test_ten_thousand_records_in_a_second_or_so() -> None:
    item = item_of(header_of_made(make("CT")))
    data = dicomdir_bytes("T", UID, named([replace(item, sop_instance_uid=f"1.{n}") for n in range(5000)]))
    begin = time.thread_time()
    directory = read(data)
    assert len(directory.records) == 5003
    assert not directory.problems
    assert time.thread_time() - begin < 15


def test_a_deep_chain_is_not_followed() -> None:
    """Each record the child of the one before: neither the stack nor time may grow with such a depth."""
    data = bytearray(with_records(*(record("PRIVATE") for _ in range(3000))))
    offsets = [one.offset for one in read(bytes(data)).records]
    for one, after in zip(offsets, [*offsets[1:], 0], strict=True):
        struct.pack_into("<L", data, one + 16, 0)
        struct.pack_into("<L", data, one + 8 + 30, after)
    directory = read(bytes(data))
    assert any("levels deep" in found for found in details(directory))
    assert max(len(directory.path(n)) for n in range(3000)) < 50
