"""File-sets of real instances: order, digests, reproducibility, exact size."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from media import records
from media.contents import arrange
from media.dicomdir_reader import read
from media.fileset import FileSet, build, overview, sizing
from media.header import read_header
from media.items import Header, Item
from media.manifest import parse
from media.part10 import EXPLICIT_LE, locate
from media.problems import MediaError
from media.readme import DiscText
from media.trees import IsoTree
from media.volumes import VolumePlan, pack
from tests.media.discs import CREATED, entry, written

TEXT = DiscText("Burnish 0.1.0", "STD-GEN-CD", "CD-R-80", institution="Hospital")
UID = "2.25." + "1" * 39
NAMES = ["CT_small.dcm", "MR_small.dcm", "reportsi.dcm", "waveform_ecg.dcm"]


def real_entry(number: int, name: str) -> tuple[Item, Header]:
    path = get_testdata_file(name)
    assert isinstance(path, str)
    source = Path(path)
    found = locate(source)
    header = read_header(source, offset=found.dataset_offset, transfer_syntax_uid=found.transfer_syntax_uid)
    record_type = records.record_type(header.sop_class_uid)
    assert record_type
    data = source.read_bytes()
    item = Item(
        key=number,
        sop_class_uid=header.sop_class_uid,
        sop_instance_uid=header.sop_instance_uid,
        transfer_syntax_uid=EXPLICIT_LE,
        study_instance_uid=header.study_instance_uid,
        series_instance_uid=header.series_instance_uid,
        patient=(header.patient_id, header.patient_name),
        patient_id=header.patient_id,
        record_type=record_type,
        directory_keys=header.directory_keys,
        source=source,
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        supplied=records.supply(header, record_type, records.Numbers("NOID_1", "1", "1", str(number))),
    )
    return item, header


@pytest.fixture(scope="module")
def volume() -> VolumePlan:
    contents = arrange([real_entry(number, name) for number, name in enumerate(NAMES)])
    packing = pack(contents, capacity_sectors=2000, sizing=sizing(TEXT, file_set_id_length=9), many_patients=True)
    assert not packing.refused
    (found,) = packing.volumes
    return found


def built(volume: VolumePlan) -> FileSet:
    return build(volume, text=TEXT, file_set_id="DISC_0007", file_set_uid=UID, created=CREATED)


def test_files_stand_in_disc_order_and_the_image_has_the_planned_size(volume: VolumePlan) -> None:
    file_set = built(volume)
    names = [file.path for file in file_set.files]
    assert names[:3] == ["DICOMDIR", "README.TXT", "MANIFEST.TXT"]
    assert len(names) == 3 + len(NAMES)
    assert [file for _, file in file_set.instances] == list(file_set.files[3:])
    assert [item for item, _ in file_set.instances] == list(volume.items)
    assert file_set.image.sectors == volume.sectors
    assert len(written(file_set.image)) == volume.sectors * 2048


def test_equal_plans_give_equal_bytes(volume: VolumePlan) -> None:
    assert built(volume).files == built(volume).files
    assert written(built(volume).image) == written(built(volume).image)


def test_the_disc_is_what_its_directory_and_manifest_say(volume: VolumePlan, tmp_path: Path) -> None:
    file_set = built(volume)
    path = tmp_path / "disc.iso"
    path.write_bytes(written(file_set.image))
    with IsoTree(path) as tree:
        data = {name: tree.open(name).read() for name in tree.order}
    assert list(data) == [file.path for file in file_set.files]
    assert data["README.TXT"] == overview(volume, text=TEXT, file_set_id="DISC_0007", created=CREATED)
    manifest = parse(data["MANIFEST.TXT"])
    assert manifest.digests == {
        name: hashlib.sha256(found).hexdigest() for name, found in data.items() if name != "MANIFEST.TXT"
    }
    directory = read(io.BytesIO(data["DICOMDIR"]))
    assert directory.problems == []
    assert (directory.file_set_id, directory.file_set_uid) == ("DISC_0007", UID)
    referenced = ["/".join(record.file_id) for record in directory.records if record.file_id]
    assert referenced == [file.path for _, file in file_set.instances]
    keys = {(key.path, key.record_type, key.tag, key.value) for key in manifest.supplied}
    assert keys == {
        (file.path, key.record_type, key.tag.lower(), key.value)
        for item, file in file_set.instances
        for key in item.supplied
    }


def test_a_size_that_was_not_planned_is_an_error(volume: VolumePlan) -> None:
    with pytest.raises(MediaError, match=f"DISC_0007 was planned with {volume.sectors + 1} sectors and came out with"):
        built(replace(volume, sectors=volume.sectors + 1))


def test_a_large_set_is_built_to_the_sector() -> None:
    entries = [entry(number, study=number // 500, series=number // 50, size=number) for number in range(3000)]
    packing = pack(arrange(entries), capacity_sectors=9000, sizing=sizing(TEXT, file_set_id_length=9))
    (found,) = packing.volumes
    assert built(found).image.sectors == found.sectors
