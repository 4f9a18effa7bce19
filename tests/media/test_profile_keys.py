"""Every set of additional DICOMDIR keys, key by key: written where the set names it, nowhere else, demanded by type."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from media import records
from media.dicomdir import dicomdir_bytes, header_size, record_sizes
from media.encoding import encode, split
from media.items import Item
from media.problems import InstanceRefused, MediaError, ProblemKind
from media.profile_keys import AddedKey, KeySet, key_set, key_sets
from media.profiles import profiles
from media.uids import new_uid
from media.verify import verify_path
from tests.makers import make
from tests.media.directory import header_of_made, item_of, named

UID = "2.25." + "9" * 39
XA = "1.2.840.10008.5.1.4.1.1.12.1"
ROWS = [
    (name, record, key)
    for name, one in key_sets().items()
    for record, keys in one.keys.items()
    for key in keys.values()
]


def full_item(record_type: str = "IMAGE", *, sop_class_uid: str = XA, image_type: str = "A\\B\\BIPLANE A") -> Item:
    """An item whose instance has every key of its records, every sequence with an item."""

    def value(key: records.Key) -> bytes:
        if key.tag == 0x00080008:
            return image_type.encode()
        if key.vr == b"SQ":
            return b"\xfe\xff\x00\xe0\0\0\0\0"
        return b"\1\0" if key.vr == b"US" else b"20240101"

    keys = {key.tag: key for name in records.levels(record_type) for key in records.TYPES[name].keys}
    blob = b"".join(encode(tag, keys[tag].vr, value(keys[tag])) for tag in sorted(keys))
    item = item_of(header_of_made(make("CT")))
    return replace(item, directory_keys=blob, record_type=record_type, sop_class_uid=sop_class_uid)


def without_icon(name: str) -> KeySet:
    return replace(key_set(name), icon=frozenset())


def tags_of(item: Item, record_type: str, name: str | None) -> set[int]:
    keys = key_set(name) if name else None
    elements = split(item.directory_keys)
    return set(split(records.record_elements(record_type, elements, (), keys, item.sop_class_uid))) - {0x00080005}


def test_every_profile_names_a_set() -> None:
    for row in profiles().values():
        assert key_set(row.directory_keys).name == row.directory_keys
    with pytest.raises(MediaError, match=r"Z\.9"):
        key_set("Z.9")


@pytest.mark.parametrize(("name", "record", "key"), ROWS)
def test_the_rows_are_sound(name: str, record: str, key: AddedKey) -> None:
    assert keyword_for_tag(key.tag) == key.keyword
    assert key.type in ("1", "1C", "2", "3")
    assert not key.conditional or key.type == "1C"
    assert key.tag in {base.tag for base in records.TYPES[record].keys}, "not extracted at receipt"
    assert key_set(name).clause.startswith(name[0])


@pytest.mark.parametrize("name", key_sets())
@pytest.mark.parametrize("record", ["PATIENT", "SERIES", "IMAGE", "SPECTROSCOPY"])
def test_a_record_has_the_keys_of_its_set_and_of_no_other(name: str, record: str) -> None:
    item = full_item("SPECTROSCOPY" if record == "SPECTROSCOPY" else "IMAGE")
    basic = {key.tag for key in records.TYPES[record].keys if key.type in ("1", "2")} | {
        key.tag for key in records.TYPES[record].keys if not any(record == r and key.tag == k.tag for _, r, k in ROWS)
    }
    assert tags_of(item, record, name) == basic | set(key_set(name).keys.get(record, {}))
    assert tags_of(item, record, None) == {key.tag for key in records.TYPES[record].keys}


@pytest.mark.parametrize(("name", "record", "key"), ROWS)
def test_a_missing_key_is_treated_by_its_type(name: str, record: str, key: AddedKey) -> None:
    item = full_item("SPECTROSCOPY" if record == "SPECTROSCOPY" else "IMAGE")
    elements = split(item.directory_keys)
    records.require_added(elements, item.record_type, without_icon(name), XA)
    del elements[key.tag]
    written = split(records.record_elements(record, elements, (), key_set(name), XA))
    assert (key.tag in written) == (key.type == "2")
    if key.type == "1" or (key.conditional and key.image_type_3) or (key.conditional and key.tag == 0x00080008):
        with pytest.raises(
            InstanceRefused, match=rf"{key.keyword} of its {record} record.*PS3.11 {name[0]}\."
        ) as error:
            records.require_added(elements, item.record_type, without_icon(name), XA)
        assert error.value.code == "INST_AP_CONFLICT"
    else:
        records.require_added(elements, item.record_type, without_icon(name), XA)


@pytest.mark.parametrize("name", ["A.3-2", "B.3-2"])
def test_references_of_biplane_images_only(name: str) -> None:
    for image_type, there in (("A\\B\\BIPLANE B", True), ("A\\B\\SINGLE PLANE", False), ("A", False)):
        assert (0x00081140 in tags_of(full_item(image_type=image_type), "IMAGE", name)) == there
    secondary = full_item(sop_class_uid="1.2.840.10008.5.1.4.1.1.7")
    assert (0x00081140 in tags_of(secondary, "IMAGE", name)) == (name == "A.3-2")
    elements = {tag: element for tag, element in split(secondary.directory_keys).items() if tag != 0x00080008}
    if name == "B.3-2":
        records.require_added(elements, "IMAGE", without_icon(name), secondary.sop_class_uid)
    else:
        with pytest.raises(InstanceRefused, match="ImageType"):
            records.require_added(elements, "IMAGE", without_icon(name), secondary.sop_class_uid)


@pytest.mark.parametrize("name", key_sets())
def test_sizes_are_known_beforehand(name: str) -> None:
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = XA, "1.2.3"
    made = make("CT", ReferencedImageSequence=Sequence([reference]), InstitutionName="Ärzte", SpecificCharacterSet="")
    item, keys = item_of(header_of_made(made)), key_set(name)
    data = dicomdir_bytes("TEST_0001", UID, named([item]), keys=keys)
    sizes = record_sizes(item, keys)
    assert len(data) == header_size("TEST_0001") + sizes.patient + sizes.study + sizes.series + sizes.instance
    image = dcmread(BytesIO(data)).DirectoryRecordSequence[3]
    assert ("ImagePositionPatient" in image) == (name in ("E.3-2", "H.3-2"))


def _of_32_rows(dataset: Dataset) -> None:
    """A number whose bytes are those of a blank and a NUL is a value all the same."""
    dataset.Rows = dataset.Columns = 32
    dataset.PixelData = bytes(32 * 32 * dataset.BitsAllocated // 8)


@pytest.mark.parametrize(("written", "lacking"), [("D.3-2", {"Rows", "Columns"}), ("H.3-2", set()), (None, set())])
def test_verification_demands_the_keys_of_the_profile(written: str | None, lacking: set[str], tmp_path: Path) -> None:
    made = make("CT", change=_of_32_rows)
    located = named([replace(item_of(header_of_made(made)), source=made.write(tmp_path / "CT.dcm"))])
    target = tmp_path.joinpath("set", *located[0][1])
    made.write(target)
    keys = key_set(written) if written else None
    (tmp_path / "set/DICOMDIR").write_bytes(dicomdir_bytes("TEST_0001", new_uid(), located, keys=keys))

    def problems(profile: str) -> list[str]:
        every = verify_path(tmp_path / "set", profile=profile).problems
        return [one.detail for one in every if one.kind is not ProblemKind.MANIFEST]  # there is none

    assert problems("STD-GEN-CD") == []
    found = problems("STD-GEN-DVD-JPEG")
    assert {detail.split(" lacks ")[1].split(" ")[0] for detail in found} == lacking
    assert all(detail.endswith("which is type 1 in PS3.11 H.3.3.1, Table H.3-2.") for detail in found)


@pytest.mark.parametrize("name", key_sets())
def test_a_profile_that_demands_icons_is_refused_while_none_are_made(name: str) -> None:
    elements = split(full_item().directory_keys)
    if name not in ("A.3-2", "B.3-2"):
        assert not key_set(name).icon
        return
    with pytest.raises(InstanceRefused, match=rf"\(0088,0200\) IconImageSequence \(PS3.11 {name[0]}\."):
        records.require_added(elements, "IMAGE", key_set(name), XA)
