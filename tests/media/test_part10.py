"""Finding the data set in files of every kind, and writing our own file meta information."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file

from media.part10 import Part10, file_meta, locate, locate_in
from media.problems import NotDicom
from media.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from tests.soak import size

IMPLICIT, EXPLICIT, DEFLATED, BIG = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
)
JPEG = "1.2.840.10008.1.2.4.50"
CT = "1.2.840.10008.5.1.4.1.1.2"


def located(data: bytes) -> Part10:
    return locate_in(io.BytesIO(data), "data")


def packaged(name: str) -> Path:
    return Path(str(get_testdata_file(name, download=False)))


def element(group: int, number: int, vr: str, value: bytes, order: str = "<") -> bytes:
    return struct.pack(f"{order}HH2sH", group, number, vr.encode(), len(value)) + value


def implicit(group: int, number: int, value: bytes) -> bytes:
    return struct.pack("<HHI", group, number, len(value)) + value


EXPLICIT_SET = element(8, 5, "CS", b"ISO_IR 100") + element(8, 0x16, "UI", b"1.2\0") + element(8, 0x18, "UI", b"1.23")
BIG_SET = b"".join(
    (
        element(8, 5, "CS", b"ISO_IR 100", ">"),
        element(8, 0x16, "UI", b"1.2\0", ">"),
        element(8, 0x18, "UI", b"1.23", ">"),
    )
)
IMPLICIT_SET = implicit(8, 5, b"ISO_IR 100") + implicit(8, 0x16, b"1.2\0") + implicit(8, 0x18, b"1.23")
RAW_DEFLATE = zlib.compressobj(wbits=-15)
DEFLATED_SET = RAW_DEFLATE.compress(EXPLICIT_SET) + RAW_DEFLATE.flush()


def test_our_meta_is_what_ps3_10_asks(tmp_path: Path) -> None:
    meta = file_meta(CT, "1.2.3", EXPLICIT)
    path = tmp_path / "a"
    path.write_bytes(meta + EXPLICIT_SET)
    read = pydicom.dcmread(path).file_meta
    assert [element.tag for element in read] == [
        0x00020000, 0x00020001, 0x00020002, 0x00020003, 0x00020010, 0x00020012, 0x00020013,
    ]  # fmt: skip
    assert meta[:132] == bytes(128) + b"DICM"
    assert read.FileMetaInformationGroupLength == len(meta) - 144
    assert read.FileMetaInformationVersion == b"\0\1"
    assert (read.MediaStorageSOPClassUID, read.MediaStorageSOPInstanceUID, read.TransferSyntaxUID) == (
        CT,
        "1.2.3",
        EXPLICIT,
    )
    assert read.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert read.ImplementationVersionName == IMPLEMENTATION_VERSION_NAME
    assert len(meta) % 2 == 0
    assert file_meta(CT, "1.2.3", EXPLICIT) == meta
    assert locate(path) == Part10(EXPLICIT, CT, "1.2.3", len(meta))


def test_uid_that_is_no_ascii_is_refused() -> None:
    with pytest.raises(NotDicom, match="UID"):
        file_meta(CT, "1.2.é", EXPLICIT)


@pytest.mark.parametrize(
    ("data_set", "declared", "read_as", "note"),
    [
        (EXPLICIT_SET, EXPLICIT, EXPLICIT, None),
        (IMPLICIT_SET, IMPLICIT, IMPLICIT, None),
        (BIG_SET, BIG, BIG, None),
        (DEFLATED_SET, DEFLATED, DEFLATED, None),
        (EXPLICIT_SET, JPEG, JPEG, None),
        (EXPLICIT_SET, IMPLICIT, EXPLICIT, "although"),
        (IMPLICIT_SET, EXPLICIT, IMPLICIT, "although"),
        (BIG_SET, EXPLICIT, BIG, "although"),
        (EXPLICIT_SET, BIG, EXPLICIT, "although"),
        (EXPLICIT_SET, DEFLATED, EXPLICIT, "not deflated"),
    ],
)
def test_encoding_is_told_from_the_data_set(data_set: bytes, declared: str, read_as: str, note: str | None) -> None:
    found = located(file_meta(CT, "1.2.3", declared) + data_set)
    assert found.transfer_syntax_uid == read_as
    assert found.dataset_offset == len(file_meta(CT, "1.2.3", declared))
    assert (note is None) == (not found.notes)
    assert note is None or note in found.notes[0]


@pytest.mark.parametrize(("data_set", "syntax"), [(EXPLICIT_SET, EXPLICIT), (IMPLICIT_SET, IMPLICIT), (BIG_SET, BIG)])
def test_neither_preamble_nor_meta(data_set: bytes, syntax: str) -> None:
    found = located(data_set)
    assert (found.transfer_syntax_uid, found.dataset_offset, found.sop_instance_uid) == (syntax, 0, "")
    assert "file meta information is missing" in found.notes


def test_meta_without_preamble_or_prefix() -> None:
    meta = file_meta(CT, "1.2.3", IMPLICIT)
    found = located(meta[132:] + IMPLICIT_SET)
    assert (found.transfer_syntax_uid, found.dataset_offset) == (IMPLICIT, len(meta) - 132)
    assert located(meta[128:] + IMPLICIT_SET).dataset_offset == len(meta) - 128


def test_prefix_without_meta() -> None:
    found = located(bytes(128) + b"DICM" + IMPLICIT_SET)
    assert (found.transfer_syntax_uid, found.dataset_offset) == (IMPLICIT, 132)


def test_dicm_by_chance_in_a_bare_data_set() -> None:
    filler = element(8, 5, "CS", b"ISO_IR 100") + element(8, 0x80, "LO", b"x" * 94)
    data = filler + element(8, 0x1010, "SH", b"DICM1 ")
    assert data[128:132] == b"DICM"
    assert located(data).dataset_offset == 0


def test_meta_in_implicit_vr_and_without_length() -> None:
    meta = (
        implicit(2, 2, CT.encode() + b"\0") + implicit(2, 3, b"1.2.3\0") + implicit(2, 0x10, EXPLICIT.encode() + b"\0")
    )
    found = located(bytes(128) + b"DICM" + meta + EXPLICIT_SET)
    assert (found.sop_class_uid, found.sop_instance_uid, found.transfer_syntax_uid) == (CT, "1.2.3", EXPLICIT)
    assert any("implicit" in note for note in found.notes)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(200), "PNG"),
        (b"\xff\xd8\xff\xe0" + bytes(200), "JPEG image"),
        (b"%PDF-1.4\n" + bytes(200), "PDF"),
        (b"PK\x03\x04" + bytes(200), "ZIP"),
        (b"II*\0" + bytes(200), "TIFF"),
        (b"MZ" + bytes(200), "Windows program"),
        (b"<!DOCTYPE html><html></html>", "HTML"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><a/>", "XML"),
        ("Grüße aus der Radiologie\n".encode() * 300, "text file"),
        (bytes(5000), "only zero bytes"),
        (bytes(32769) + b"CD001" + bytes(40), "disc image"),
        (file_meta(CT, "1.2.3", EXPLICIT), "no data set"),
        (file_meta(CT, "1.2.3", EXPLICIT)[:200], "within its file meta"),
        (file_meta(CT, "1.2.3", EXPLICIT) + bytes(range(7, 200)), "no readable data element"),
        (file_meta(CT, "1.2.3", JPEG) + IMPLICIT_SET, "has Implicit VR"),
        (file_meta("1.2.840.10008.1.3.10", "1.2.3", EXPLICIT) + EXPLICIT_SET, "DICOMDIR"),
        (bytes(range(256)) * 20, "not DICOM"),
    ],
)
def test_refusals_name_file_and_reason(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "sample"
    path.write_bytes(data)
    with pytest.raises(NotDicom, match=reason) as caught:
        locate(path)
    assert str(path) in str(caught.value)


def test_bare_compressed_data_set_is_refused() -> None:
    pixels = b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    with pytest.raises(NotDicom, match="compressed in an unknown one"):
        located(EXPLICIT_SET + pixels)


def test_dicomdir_passes_where_asked_for() -> None:
    path = packaged("dicomdirtests/DICOMDIR")
    assert locate(path, directory=True).sop_class_uid == "1.2.840.10008.1.3.10"


def test_folder_and_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotDicom, match="not a file"):
        locate(tmp_path)
    with pytest.raises(NotDicom, match="does not exist"):
        locate(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("name", "syntax"),
    [
        ("CT_small.dcm", EXPLICIT),
        ("MR_small_implicit.dcm", IMPLICIT),
        ("MR_small_bigendian.dcm", BIG),
        ("image_dfl.dcm", DEFLATED),
        ("SC_rgb_jpeg_gdcm.dcm", "1.2.840.10008.1.2.4.70"),
        ("ExplVR_BigEndNoMeta.dcm", BIG),
        ("ExplVR_LitEndNoMeta.dcm", EXPLICIT),
        ("rtstruct.dcm", IMPLICIT),
        ("no_meta_group_length.dcm", IMPLICIT),
        ("meta_missing_tsyntax.dcm", IMPLICIT),
        ("priv_SQ.dcm", IMPLICIT),
        ("UN_sequence.dcm", "1.2.840.10008.1.2.4.70"),
    ],
)
def test_packaged_files(name: str, syntax: str) -> None:
    assert locate(packaged(name)).transfer_syntax_uid == syntax


@settings(max_examples=size(300, 6000))
@given(st.binary(max_size=600), st.sampled_from([b"", bytes(128) + b"DICM", file_meta(CT, "1.2", EXPLICIT)]))
def test_any_bytes_are_located_or_refused(data: bytes, before: bytes) -> None:
    try:
        found = located(before + data)
    except NotDicom as error:
        assert str(error).startswith("data ")
    else:
        assert 0 <= found.dataset_offset < len(before + data)


@pytest.mark.shared_data
def test_real_files_are_located_or_refused_with_a_reason(shared_data: Path) -> None:
    refused = {}
    for path in sorted(path for path in shared_data.rglob("*") if path.is_file()):
        try:
            locate(path)
        except NotDicom as error:
            refused[str(path.relative_to(shared_data))] = str(error)
    strange = [
        name for name in refused if not name.startswith("nondicom/") and "DICOMDIR" not in name and "README" not in name
    ]
    assert strange == ["bad/no_meta.dcm"], "one stray byte stands before its data set"
    foreign = sum(path.is_file() for path in (shared_data / "nondicom").rglob("*"))
    assert foreign and sum(name.startswith("nondicom/") for name in refused) == foreign
