"""The DICOMDIR that we write: sizes, offsets, order, hierarchy, keys."""

from __future__ import annotations

import time
from dataclasses import replace
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import FileDataset

from media import records
from media.dicomdir import dicomdir_bytes, header_size, record_sizes
from media.dicomdir_reader import read
from media.encoding import encode
from media.fileids import FileIds
from media.items import Item, Supplied
from media.problems import MediaError
from media.uids import IMPLEMENTATION_CLASS_UID, new_uid
from tests.makers import KINDS, PATIENTS, make
from tests.media.directory import EXPLICIT_LE, header_of_made, item_of, named
from tests.soak import size

UID = "2.25." + "9" * 39


def made_items() -> list[Item]:
    """One instance of each kind, three patients."""
    patients = [PATIENTS["ascii"], PATIENTS["japanese"], PATIENTS["german"]]
    return [
        item_of(header_of_made(make(kind, patient=patients[n * 3 // len(KINDS)], series=n)), n)
        for n, kind in enumerate(KINDS)
    ]


def written(items: list[Item], **options: object) -> FileDataset:
    return dcmread(BytesIO(dicomdir_bytes("TEST_0001", UID, named(items), **options)))


def test_the_head_is_that_of_a_basic_directory() -> None:
    dataset = written(made_items())
    meta = dataset.file_meta
    assert meta.MediaStorageSOPClassUID == "1.2.840.10008.1.3.10"
    assert meta.MediaStorageSOPInstanceUID == UID
    assert meta.TransferSyntaxUID == EXPLICIT_LE
    assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert dataset.FileSetID == "TEST_0001"
    assert dataset.FileSetConsistencyFlag == 0
    assert "FileSetDescriptorFileID" not in dataset
    assert written(made_items(), descriptor=("README",)).FileSetDescriptorFileID == "README"
    assert [record.RecordInUseFlag for record in dataset.DirectoryRecordSequence] == [0xFFFF] * len(
        dataset.DirectoryRecordSequence
    )


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_its_record_with_its_keys(kind: str) -> None:
    made = make(kind)
    item = item_of(header_of_made(made))
    dataset = written([item])
    patient, study, series, instance = dataset.DirectoryRecordSequence
    assert [r.DirectoryRecordType for r in dataset.DirectoryRecordSequence] == [
        *("PATIENT", "STUDY", "SERIES"),
        made.record_type,
    ]
    assert list(instance.ReferencedFileID)[:4] == ["DICOM", "P0000001", "ST000001", "SE000001"]
    assert instance.ReferencedSOPClassUIDInFile == made.sop_class_uid
    assert instance.ReferencedSOPInstanceUIDInFile == made.sop_instance_uid
    assert instance.ReferencedTransferSyntaxUIDInFile == EXPLICIT_LE
    for record in (patient, study, series, instance):
        for key in records.TYPES[record.DirectoryRecordType].keys:
            in_instance = key.tag in made.dataset and made.dataset[key.tag].VM
            if key.type in ("1", "2") or (in_instance and not key.derived):
                assert key.tag in record, key.keyword
            if key.type == "1":
                assert record[key.tag].VM > 0, key.keyword
            if in_instance and key.tag in record and key.vr != b"SQ":
                assert record[key.tag].value == made.dataset[key.tag].value
    assert patient.PatientName == made.dataset.PatientName


def test_records_stand_depth_first_in_the_order_of_the_items() -> None:
    item = item_of(header_of_made(make("CT")))
    items = [
        replace(item, patient=p, study_instance_uid=s, series_instance_uid=e, sop_instance_uid=f"1.{n}")
        for n, (p, s, e) in enumerate(
            [("b", "1.1", "1.1"), ("b", "1.1", "1.1"), ("b", "1.1", "1.2"), ("b", "1.2", "1.1"), ("a", "1.1", "1.1")]
        )
    ]
    palette = replace(item, record_type="PALETTE", sop_instance_uid="1.99")
    directory = read(dicomdir_bytes("T", UID, named([items[0], palette, *items[1:]])))
    assert not directory.problems
    assert "".join(record.type[:2] + " " for record in directory.records) == (
        "PA ST SE IM IM SE IM ST SE IM PA ST SE IM PA "
    )
    order = [r.referenced_sop_instance_uid for r in directory.records if r.referenced_sop_instance_uid]
    assert order == ["1.0", "1.1", "1.2", "1.3", "1.4", "1.99"]
    assert [len(directory.path(n)) for n in (0, 3, 14)] == [1, 4, 1]
    files = [r.file_id for r in directory.records if r.file_id]
    assert files == sorted(files, key=lambda name: (len(name) == 2, name))


def test_items_that_do_not_come_together_still_share_their_records() -> None:
    item = item_of(header_of_made(make("CT")))
    items = [
        replace(item, series_instance_uid=f"1.{n % 2}", sop_instance_uid=f"2.{n}", study_instance_uid="1.7")
        for n in range(6)
    ]
    directory = read(dicomdir_bytes("T", UID, named(items)))
    assert [record.type for record in directory.records].count("SERIES") == 2
    assert not directory.problems


def test_patients_of_one_id_do_not_share_a_record() -> None:
    one = item_of(header_of_made(make("CT", patient=replace(PATIENTS["ascii"], name="One"))))
    two = item_of(header_of_made(make("MR", patient=replace(PATIENTS["ascii"], name="Two"))))
    directory = read(dicomdir_bytes("T", UID, named([one, two])))
    assert [r.text(0x00100010) for r in directory.records if r.type == "PATIENT"] == ["One", "Two"]


def test_upper_records_are_those_of_the_first_item() -> None:
    first, second = (
        item_of(header_of_made(make("CT", number=n, StudyDescription=f"D{n}", SeriesNumber=n))) for n in (1, 2)
    )
    directory = read(dicomdir_bytes("T", UID, named([second, first])))
    assert [r.text(0x00081030) for r in directory.records if r.type == "STUDY"] == ["D2"]
    assert [r.text(0x00200011) for r in directory.records if r.type == "SERIES"] == ["2"]


def test_supplied_values_stand_in_their_record() -> None:
    item = item_of(header_of_made(make("CT", PatientID="", StudyID=None, SeriesNumber=None, InstanceNumber=None)), 7)
    assert len(item.supplied) == 4
    patient, study, series, image = written([item]).DirectoryRecordSequence
    assert (patient.PatientID, study.StudyID, series.SeriesNumber, image.InstanceNumber) == ("NOID_7", "S7", 7, 7)


@pytest.mark.parametrize("name", PATIENTS)
def test_every_record_says_in_which_character_set_it_is(name: str) -> None:
    item = item_of(header_of_made(make("CT", patient=PATIENTS[name])))
    dataset = written([item])
    assert str(dataset.DirectoryRecordSequence[0].PatientName) == PATIENTS[name].name
    charset = PATIENTS[name].charset
    for record in read(dicomdir_bytes("T", UID, named([item]))).records:
        assert record.charset == charset
        assert record.type != "PATIENT" or record.text(0x00100010) == PATIENTS[name].name


def test_private_sop_classes_say_what_they_are() -> None:
    item = replace(item_of(header_of_made(make("CT"))), sop_class_uid="1.2.3.4", record_type="PRIVATE")
    record = written([item]).DirectoryRecordSequence[3]
    assert record.DirectoryRecordType == "PRIVATE"
    assert record.PrivateRecordUID == "1.2.3.4"
    assert [element.tag for element in record] == sorted(element.tag for element in record)


def test_what_cannot_be_written() -> None:
    item = item_of(header_of_made(make("CT")))
    with pytest.raises(MediaError, match=item.sop_instance_uid):
        dicomdir_bytes("T", UID, named([item, item]))
    for file_set_id in ("lower", "A" * 17, "A\\B", "Ä"):
        with pytest.raises(MediaError, match="no File-set ID"):
            dicomdir_bytes(file_set_id, UID, [])
    with pytest.raises(MediaError, match="32-bit"):
        large = encode(0x00080008, b"UT", bytes(1 << 20))
        many = [replace(item, sop_instance_uid=f"1.{n}", directory_keys=large) for n in range(5)]
        _with_limit(many)


def _with_limit(items: list[Item]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("media.dicomdir._LARGEST", 4 << 20)
        dicomdir_bytes("T", UID, named(items))


def test_an_empty_volume() -> None:
    dataset = written([])
    assert dataset.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity == 0
    assert len(dataset.DirectoryRecordSequence) == 0
    assert len(dicomdir_bytes("TEST_0001", UID, [])) == header_size("TEST_0001")


def expected_size(file_set_id: str, items: list[Item], descriptor: tuple[str, ...] | None = None) -> int:
    """As a planner would add it up."""
    total, met = header_size(file_set_id, descriptor=descriptor), set()
    for item in items:
        sizes = record_sizes(item)
        total += sizes.instance
        patient = (item.patient,)
        study = (*patient, item.study_instance_uid)
        for place, length in (
            (patient, sizes.patient),
            (study, sizes.study),
            ((*study, item.series_instance_uid), sizes.series),
        ):
            if length and place not in met:
                met.add(place)
                total += length
    return total


def test_the_size_is_known_beforehand() -> None:
    items = made_items()
    for descriptor in (None, ("README",), ("A", "B")):
        data = dicomdir_bytes("TEST_0001", new_uid(), named(items), descriptor=descriptor)
        assert len(data) == expected_size("TEST_0001", items, descriptor)


TEXT = st.text(alphabet="ABC äÄ漢\\^=", max_size=40).map(lambda text: text.encode())
NAMES = st.sampled_from(sorted(set(records.TYPES) - set(records.LEVELS)))


@st.composite
def odd_items(draw: st.DrawFn) -> Item:
    kind = draw(NAMES)
    keys = {key.tag: key for name in records.levels(kind) for key in records.TYPES[name].keys}
    chosen = draw(st.lists(st.sampled_from(sorted(keys)), unique=True)) if keys else []
    blob = b"".join(encode(tag, keys[tag].vr, b"" if keys[tag].vr == b"SQ" else draw(TEXT)) for tag in sorted(chosen))
    given = draw(st.lists(st.sampled_from(sorted(keys)), unique=True, max_size=3)) if keys else []
    supplied = tuple(
        Supplied(name, f"({tag >> 16:04X},{tag & 0xFFFF:04X})", keys[tag].vr.decode(), draw(st.text("AB1", max_size=9)))
        for tag in given
        for name in records.levels(kind)
    )
    return Item(
        key=1,
        sop_class_uid=draw(st.sampled_from(["1.2", "1.2.3", "1.2.840.10008.5.1.4.1.1.2"])),
        sop_instance_uid=draw(st.integers(1, 10**30).map(str)),
        transfer_syntax_uid=EXPLICIT_LE,
        study_instance_uid=draw(st.sampled_from(["1.1", "1.22"])),
        series_instance_uid=draw(st.sampled_from(["1.1", "1.22"])),
        patient=draw(st.sampled_from("ab")),
        patient_id="",
        record_type=kind,
        directory_keys=blob,
        source=__file__,
        size=0,
        sha256="",
        supplied=supplied,
    )


@settings(max_examples=size(200, 4000))
@given(st.lists(odd_items(), max_size=12, unique_by=lambda item: item.sop_instance_uid), st.text("AB_1", max_size=16))
def test_sizes_and_offsets_of_anything(items: list[Item], file_set_id: str) -> None:
    # The planner keeps a patient's, study's and series' items together, each group led by the same item as on disc.
    items = sorted(items, key=lambda item: (item.patient, item.study_instance_uid, item.series_instance_uid))
    data = dicomdir_bytes(file_set_id, UID, named(items))
    assert len(data) == expected_size(file_set_id, items)
    directory = read(data)
    assert not directory.problems
    assert len([r for r in directory.records if r.referenced_sop_instance_uid]) == len(items)
    assert len(dcmread(BytesIO(data)).DirectoryRecordSequence) == len(directory.records)


def test_time_grows_with_the_number_of_items() -> None:
    item = item_of(header_of_made(make("CT")))

    def seconds(count: int) -> float:
        items = [replace(item, sop_instance_uid=f"1.{n}") for n in range(count)]
        best = 9e9
        for _ in range(3):
            ids, begin = FileIds(), time.thread_time()
            dicomdir_bytes("T", UID, [(one, ids.allocate(one)) for one in items])
            best = min(best, time.thread_time() - begin)
        return best

    small, large = seconds(1000), seconds(8000)
    assert large < 8 * small * 2  # quadratic would be 64 times
    assert large < 8000 * 300e-6
