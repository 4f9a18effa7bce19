"""Every set of additional DICOMDIR keys, key by key: written where the set names it, nowhere else, demanded by type."""

from __future__ import annotations

import struct
from dataclasses import replace
from hashlib import sha256
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
from media.fileids import FileIds
from media.icons import icon_element, make_icon
from media.items import Icon, Item
from media.problems import InstanceRefused, MediaError, ProblemKind
from media.profile_keys import AddedKey, key_set, key_sets
from media.profiles import profiles
from media.uids import new_uid
from media.update_directory import DirectoryEdit
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
    records.require_added(elements, item.record_type, key_set(name), XA)
    del elements[key.tag]
    written = split(records.record_elements(record, elements, (), key_set(name), XA))
    assert (key.tag in written) == (key.type == "2")
    if key.type == "1" or (key.conditional and key.image_type_3) or (key.conditional and key.tag == 0x00080008):
        with pytest.raises(
            InstanceRefused, match=rf"{key.keyword} of its {record} record.*PS3.11 {name[0]}\."
        ) as error:
            records.require_added(elements, item.record_type, key_set(name), XA)
        assert error.value.code == "INST_AP_CONFLICT"
    else:
        records.require_added(elements, item.record_type, key_set(name), XA)


@pytest.mark.parametrize("name", ["A.3-2", "B.3-2"])
def test_references_of_biplane_images_only(name: str) -> None:
    for image_type, there in (("A\\B\\BIPLANE B", True), ("A\\B\\SINGLE PLANE", False), ("A", False)):
        assert (0x00081140 in tags_of(full_item(image_type=image_type), "IMAGE", name)) == there
    secondary = full_item(sop_class_uid="1.2.840.10008.5.1.4.1.1.7")
    assert (0x00081140 in tags_of(secondary, "IMAGE", name)) == (name == "A.3-2")
    elements = {tag: element for tag, element in split(secondary.directory_keys).items() if tag != 0x00080008}
    if name == "B.3-2":
        records.require_added(elements, "IMAGE", key_set(name), secondary.sop_class_uid)
    else:
        with pytest.raises(InstanceRefused, match="ImageType"):
            records.require_added(elements, "IMAGE", key_set(name), secondary.sop_class_uid)


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


def icon_of(folder: Path, name: str) -> Icon:
    rule = key_set(name).icon
    assert rule is not None
    folder.mkdir(exist_ok=True)
    content = make_icon(make("CT").write(folder), rule.recipe)
    path = folder / f"{name}.icon"
    path.write_bytes(content)
    return Icon(path, len(content), sha256(content).hexdigest())


WITH_ICONS = [name for name, one in key_sets().items() if one.icon]


def test_which_profiles_have_icons() -> None:
    rules = {name: (one.icon.size, one.icon.required) for name, one in key_sets().items() if one.icon}
    assert rules == {"A.3-2": (128, True), "B.3-2": (128, True), "E.3-2": (64, False)}


@pytest.mark.parametrize("name", WITH_ICONS)
def test_an_icon_stands_behind_the_keys_and_is_counted(name: str, tmp_path: Path) -> None:
    item = replace(full_item(), icon=icon_of(tmp_path, name))
    data = dicomdir_bytes("TEST", UID, [(item, FileIds().allocate(item))], keys=key_set(name))
    sizes = record_sizes(item, key_set(name))
    assert len(data) == header_size("TEST") + sizes.patient + sizes.study + sizes.series + sizes.instance
    records_there = dcmread(BytesIO(data)).DirectoryRecordSequence
    assert ["IconImageSequence" in record for record in records_there] == [False, False, False, True]
    record = records_there[3]
    assert [element.tag for element in record] == sorted(element.tag for element in record)
    rule = key_set(name).icon
    assert rule is not None
    assert record.IconImageSequence[0].Rows == rule.size
    bare = split(records.record_elements("IMAGE", {}, (), key_set(name), XA))
    with_icon = split(records.record_elements("IMAGE", {}, (), key_set(name), XA, icon_element(item.icon)))
    assert with_icon.keys() - bare.keys() == {0x00880200}  # an icon is no text: no character set is declared


def icon_problems(data: bytes, folder: Path, profile: str) -> list[str]:
    """What verify says of the icons of a directory (its files are not there)."""
    folder.mkdir(exist_ok=True)
    (folder / "DICOMDIR").write_bytes(data)
    every = verify_path(folder, profile=profile).problems
    return [one.detail for one in every if "IconImageSequence" in one.detail]


@pytest.mark.parametrize(("name", "profile"), [("A.3-2", "STD-XABC-CD"), ("B.3-2", "STD-XA1K-CD")])
def test_verify_demands_the_icon_that_the_profile_demands(name: str, profile: str, tmp_path: Path) -> None:
    item = full_item()
    bare = dicomdir_bytes("TEST", UID, [(item, ("DICOM", "IM000001"))], keys=key_set(name))
    (found,) = icon_problems(bare, tmp_path / "set", profile)
    assert found.endswith(f"lacks IconImageSequence (0088,0200), which is type 1 in PS3.11 {name[0]}.3.3.2.")
    with_icon = replace(item, icon=icon_of(tmp_path, name))
    whole = dicomdir_bytes("TEST", UID, [(with_icon, ("DICOM", "IM000001"))], keys=key_set(name))
    assert icon_problems(whole, tmp_path / "set", profile) == []


WRONG = {
    "Rows": (struct.pack("<H", 64), "has 64 rows and 128 columns instead of 128 each"),
    "BitsAllocated": (struct.pack("<H", 16), "has 16 Bits Allocated and 1 samples a pixel, not 8 and 1"),
    "SamplesPerPixel": (struct.pack("<H", 3), "has 8 Bits Allocated and 3 samples a pixel, not 8 and 1"),
    "BitsStored": (struct.pack("<H", 7), "has 7 Bits Stored instead of 8"),
    "PhotometricInterpretation": (b"MONOCHROME1", "has the Photometric Interpretation 'MONOCHROME1' instead of"),
    "PixelData": (b"\0\0", "has 2 bytes of pixel data instead of 16384"),
}


@pytest.mark.parametrize("keyword", WRONG)
def test_verify_checks_the_form_of_an_icon(keyword: str, tmp_path: Path) -> None:
    value, words = WRONG[keyword]
    icon = icon_of(tmp_path, "B.3-2")
    elements = split(icon.source.read_bytes())
    tag = next(tag for tag in elements if keyword_for_tag(tag) == keyword)
    elements[tag] = encode(tag, elements[tag][4:6], value)
    content = b"".join(elements[tag] for tag in sorted(elements))
    icon.source.write_bytes(content)
    wrong = replace(full_item(), icon=Icon(icon.source, len(content), sha256(content).hexdigest()))
    data = dicomdir_bytes("TEST", UID, [(wrong, ("DICOM", "IM000001"))], keys=key_set("B.3-2"))
    (found,) = icon_problems(data, tmp_path / "set", "STD-XA1K-CD")
    assert words in found
    assert found.endswith("(PS3.11 B.3.3.2).")


def test_an_icon_that_is_none_is_a_problem_and_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "icon"
    for content in (b"", b"\x28", b"\x28\0\x10\0US\x02", b"\xff" * 40):
        path.write_bytes(content)
        wrong = replace(full_item(), icon=Icon(path, len(content), sha256(content).hexdigest()))
        data = dicomdir_bytes("TEST", UID, [(wrong, ("DICOM", "IM000001"))], keys=key_set("B.3-2"))
        folder = tmp_path / "set"
        folder.mkdir(exist_ok=True)
        (folder / "DICOMDIR").write_bytes(data)
        assert verify_path(folder, profile="STD-XA1K-CD").problems


def test_an_update_keeps_the_icons_that_are_there_and_adds_new_ones(tmp_path: Path) -> None:
    keys = key_set("E.3-2")
    one, two = (
        replace(item_of(header_of_made(make("CT", number=number))), icon=icon_of(tmp_path / str(number), "E.3-2"))
        for number in (1, 2)
    )
    before = dicomdir_bytes("TEST", UID, [(one, ("DICOM", "IM000001"))], keys=keys)
    edit = DirectoryEdit(before, keys=keys)
    edit.add(two, "DICOM/IM000002")
    edit.remove([one.sop_instance_uid])
    edit.add(one, "DICOM/IM000003")
    again = DirectoryEdit(edit.to_bytes(), keys=keys)
    assert again.to_bytes() == edit.to_bytes()
    records_there = dcmread(BytesIO(again.to_bytes())).DirectoryRecordSequence
    assert ["IconImageSequence" in record for record in records_there] == [False, False, False, True, True]
