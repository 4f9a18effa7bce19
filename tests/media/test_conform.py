"""Conforming instances to Explicit VR Little Endian: samples, attributes, change lists, refusals, memory."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import pixel_array
from pydicom.sequence import Sequence
from pydicom.uid import UID

from media.conform import conform as conform_file
from media.items import Header
from media.part10 import file_meta
from media.problems import InstanceRefused, MediaError
from media.profiles import profile
from media.recipes import EXPLICIT_LE_RECIPE, recipe_for
from media.uids import IMPLEMENTATION_CLASS_UID
from tests.soak import size

EXPLICIT, IMPLICIT, BIG, DEFLATED = (
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
)
PRE = "1.2.840.10008.1.2."
SC = "1.2.840.10008.5.1.4.1.1.7"

FILES = {
    f"{PRE}1": ["CT_small.dcm", "SC_rgb_small_odd.dcm", "liver_1frame.dcm", "SC_ybr_full_422_uncompressed.dcm"],
    IMPLICIT: ["MR_small_implicit.dcm", "rtdose.dcm", "rtdose_1frame.dcm", "SC_rgb_jpeg_dcmd.dcm", "rtplan.dcm"],
    BIG: [
        "MR_small_bigendian.dcm", "MR_small_expb.dcm", "ExplVR_BigEnd.dcm", "rtdose_expb.dcm", "liver_expb_1frame.dcm",
        "SC_rgb_small_odd_big_endian.dcm", "rtdose_expb_1frame.dcm",
    ],
    DEFLATED: ["image_dfl.dcm"],
    f"{PRE}4.50": [
        "SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_dcmtk_+eb+cr.dcm", "SC_rgb_dcmtk_+eb+cy+n1.dcm", "SC_rgb_dcmtk_+eb+cy+n2.dcm",
        "SC_rgb_dcmtk_+eb+cy+np.dcm", "SC_rgb_dcmtk_+eb+cy+s2.dcm", "SC_rgb_dcmtk_+eb+cy+s4.dcm",
        "examples_ybr_color.dcm",
        "SC_jpeg_no_color_transform.dcm", "SC_jpeg_no_color_transform_2.dcm", "SC_rgb_small_odd_jpeg.dcm",
        "SC_rgb_jpeg_app14_dcmd.dcm", "SC_rgb_jpeg_lossy_gdcm.dcm",
    ],
    f"{PRE}4.51": ["JPGExtended.dcm"],
    f"{PRE}4.70": ["SC_rgb_jpeg_gdcm.dcm"],
    f"{PRE}4.80": ["MR_small_jpeg_ls_lossless.dcm"],
    f"{PRE}4.81": [
        "JPEGLSNearLossless_08.dcm", "JPEGLSNearLossless_16.dcm", "SC_rgb_jls_lossy_line.dcm",
        "SC_rgb_jls_lossy_sample.dcm",
    ],
    f"{PRE}4.90": [
        "MR_small_jp2klossless.dcm", "GDCMJ2K_TextGBR.dcm", "examples_jpeg2k.dcm", "J2K_pixelrep_mismatch.dcm",
    ],
    f"{PRE}4.91": ["JPEG2000.dcm", "693_J2KI.dcm", "SC_rgb_gdcm_KY.dcm"],
    f"{PRE}5": [
        "MR_small_RLE.dcm", "SC_rgb_rle.dcm", "SC_rgb_rle_2frame.dcm", "SC_rgb_rle_16bit.dcm",
        "SC_rgb_rle_16bit_2frame.dcm",
        "SC_rgb_rle_32bit.dcm", "SC_rgb_rle_32bit_2frame.dcm", "rtdose_rle.dcm", "rtdose_rle_1frame.dcm",
    ],
}  # fmt: skip
"""Packaged real files by transfer syntax; every one that pydicom's wheel has pixels for."""


def packaged(name: str) -> Path:
    path = get_testdata_file(name, download=False)
    assert path, f"pydicom's wheel has no {name}"
    return Path(str(path))


class Conformed:
    def __init__(self, source: Path, target: Path) -> None:
        self.result = conform_file(source, target, EXPLICIT_LE_RECIPE)
        self.data = target.read_bytes()
        self.tags = {change.tag for change in self.result.changes}
        self._source, self._target = source, target

    @cached_property
    def before(self) -> Dataset:
        return pydicom.dcmread(self._source, force=True)

    @cached_property
    def after(self) -> Dataset:
        return pydicom.dcmread(self._target)

    def data_set(self) -> bytes:
        length = struct.unpack_from("<I", self.data, 140)[0]
        return self.data[144 + length :]


@pytest.fixture
def conform(tmp_path: Path) -> Iterator[object]:
    def run(source: Path | bytes) -> Conformed:
        if isinstance(source, bytes):
            path = tmp_path / "source"
            path.write_bytes(source)
            source = path
        return Conformed(source, tmp_path / "target")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield run


def comparable(dataset: Dataset) -> dict[str, object]:
    """Elements but for Pixel Data, group lengths and padding, nested ones too."""
    found: dict[str, object] = {}
    for element in dataset:
        if element.tag.element == 0 or element.tag in (0x7FE00010, 0xFFFCFFFC, 0x7FE00001, 0x7FE00002):
            continue
        tag = f"({element.tag.group:04X},{element.tag.element:04X})"
        found[tag] = [comparable(item) for item in element.value] if element.VR == "SQ" else element.value
    return found


@pytest.mark.parametrize(("syntax", "name"), [(syntax, name) for syntax, names in FILES.items() for name in names])
def test_samples_and_attributes_stay(conform: object, syntax: str, name: str) -> None:
    done: Conformed = conform(packaged(name))  # type: ignore[operator]
    before, after = done.before, done.after
    assert before.file_meta.get("TransferSyntaxUID", syntax) == syntax
    assert after.file_meta.TransferSyntaxUID == done.result.transfer_syntax_uid == EXPLICIT
    assert after.file_meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert after.SOPInstanceUID == before.SOPInstanceUID == after.file_meta.MediaStorageSOPInstanceUID
    assert after.SOPClassUID == after.file_meta.MediaStorageSOPClassUID
    assert (len(done.data), hashlib.sha256(done.data).hexdigest()) == (done.result.size, done.result.sha256)
    if "PixelData" in before:
        expected, found = pixel_array(before, raw=True), pixel_array(after, raw=True)
        assert expected.shape == found.shape
        assert numpy.array_equal(expected, found)
        assert len(after.PixelData) % 2 == 0
    one, other = comparable(before), comparable(after)
    differing = {tag for tag in one.keys() | other.keys() if one.get(tag) != other.get(tag)}
    assert differing == done.tags - {"(0002,0010)"}, "exactly what the change list says has changed"
    assert ("(0002,0010)" in done.tags) == (syntax != EXPLICIT)
    for change in done.result.changes:
        assert change.sop_instance_uid == before.SOPInstanceUID
        if change.tag != "(0002,0010)":
            assert (str(one[change.tag]), str(other[change.tag])) == (change.old, change.new)


def test_the_list_of_files_covers_all_packaged_ones_with_pixels() -> None:
    listed = {name for names in FILES.values() for name in names}
    known_bad = {"JPEG-lossy.dcm", "JPEG2000-embedded-sequence-delimiter.dcm", "SC_rgb_jpeg.dcm"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in packaged("CT_small.dcm").parent.glob("*.dcm"):
            dataset = pydicom.dcmread(path, force=True, stop_before_pixels=False)
            if "PixelData" in dataset and "TransferSyntaxUID" in dataset.file_meta:
                syntax = dataset.file_meta.TransferSyntaxUID
                if syntax.is_encapsulated:
                    assert path.name in listed | known_bad


@pytest.mark.parametrize(
    ("name", "photometric"),
    [
        ("examples_ybr_color.dcm", "YBR_FULL"),
        ("SC_rgb_dcmtk_+eb+cr.dcm", "RGB"),
        ("examples_jpeg2k.dcm", "RGB"),
        ("GDCMJ2K_TextGBR.dcm", "RGB"),
        ("SC_jpeg_no_color_transform_2.dcm", "RGB"),
        ("SC_rgb_jpeg_app14_dcmd.dcm", "RGB"),
        ("SC_rgb_dcmtk_+eb+cy+s4.dcm", "YBR_FULL"),
        ("SC_rgb_gdcm_KY.dcm", "RGB"),
    ],
)
def test_colour_is_what_the_photometric_interpretation_says(conform: object, name: str, photometric: str) -> None:
    done: Conformed = conform(packaged(name))  # type: ignore[operator]
    assert done.after.PhotometricInterpretation == photometric
    shown = pydicom.pixels.pixel_array(done.after).astype(int)
    meant = pydicom.pixels.pixel_array(done.before).astype(int)
    assert abs(shown - meant).max() <= 1


def test_lossy_attributes_stay(conform: object) -> None:
    done: Conformed = conform(packaged("JPGExtended.dcm"))  # type: ignore[operator]
    for keyword in ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        assert done.after.get(keyword) == done.before.get(keyword)


def meta_for(syntax: str) -> bytes:
    return file_meta(SC, "1.2.3.4", syntax)


def encoded(dataset: Dataset, syntax: str) -> bytes:
    buffer = io.BytesIO()
    dataset = pydicom.Dataset(dataset)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.SOPClassUID, dataset.SOPInstanceUID = SC, "1.2.3.4"
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def everything() -> Dataset:
    """A data set with every VR, nested sequences, private elements and text in several character sets."""
    item = Dataset()
    item.CodeValue, item.CodeMeaning = "1", "x" * 63
    item.add_new(0x00281052, "DS", "1.50")
    outer = Dataset()
    outer.ConceptCodeSequence = Sequence([item, Dataset()])
    ds = Dataset()
    ds.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    ds.PatientName = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    ds.StudyDescription = ""
    ds.SelectorAttribute = 0x00100010
    ds.PatientAge, ds.Modality, ds.StudyDate, ds.AcquisitionDateTime = "042Y", "OT", "20200101", "20200101120000.5"
    ds.RetrieveAETitle, ds.StudyTime, ds.InstanceNumber, ds.ImageComments = "AE", "1200", "7", "a\r\nb"
    ds.SelectorFDValue, ds.SelectorFLValue = [1.5, -2.25], [0.5, 3.0]
    ds.SelectorSLValue, ds.SelectorSSValue = [-70000, 5], [-3, 4]
    ds.SelectorULValue, ds.SelectorUSValue = [70000, 1], [65535, 1]
    ds.SelectorSVValue, ds.SelectorUVValue = [-(2**40)], [2**40]
    ds.SelectorUCValue, ds.SelectorURValue, ds.SelectorUTValue = "unlimited", "http://x/y", "text"
    ds.SelectorOBValue, ds.SelectorOWValue = b"\1\2\3\4", b"\1\2\3\4"
    ds.SelectorODValue, ds.SelectorOFValue = struct.pack("<2d", 1.5, -2), struct.pack("<2f", 1.5, -2)
    ds.SelectorOLValue, ds.SelectorOVValue = struct.pack("<2I", 1, 70000), struct.pack("<2Q", 1, 2**40)
    ds.PixelRepresentation, ds.SmallestImagePixelValue = 1, -5
    ds["SmallestImagePixelValue"].VR = "SS"
    ds.ProcedureCodeSequence = Sequence([outer])
    ds.RedPaletteColorLookupTableDescriptor = [256, 0, 16]
    ds["RedPaletteColorLookupTableDescriptor"].VR = "SS"
    ds.RedPaletteColorLookupTableData = struct.pack("<256H", *range(0, 512, 2))
    return ds


def swapped_words(dataset: Dataset) -> Dataset:
    """pydicom writes the bytes of OB and OW kinds as they are: give it those that the byte order asks for."""
    ds = pydicom.Dataset(dataset)
    for keyword, code in (("OW", "u2"), ("OD", "u8"), ("OF", "u4"), ("OL", "u4"), ("OV", "u8")):
        name = f"Selector{keyword}Value"
        setattr(ds, name, numpy.frombuffer(getattr(ds, name), f"<{code}").byteswap().tobytes())
    ds.RedPaletteColorLookupTableData = numpy.frombuffer(ds.RedPaletteColorLookupTableData, "<u2").byteswap().tobytes()
    return ds


@pytest.mark.parametrize("syntax", [IMPLICIT, BIG, DEFLATED, EXPLICIT])
def test_every_vr_from_every_native_encoding(conform: object, syntax: str) -> None:
    reference: Conformed = conform(encoded(everything(), EXPLICIT))  # type: ignore[operator]
    plain = reference.data_set()
    source = swapped_words(everything()) if syntax == BIG else everything()
    done: Conformed = conform(encoded(source, syntax))  # type: ignore[operator]
    assert done.data_set() == plain, "the same bytes, however it came"
    assert reference.after["SmallestImagePixelValue"].VR == "SS"
    assert done.after.PatientName == everything().PatientName
    assert done.tags <= {"(0002,0010)"}


def implicit(tag: int, value: bytes) -> bytes:
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value


def explicit(tag: int, vr: str, value: bytes, order: str = "<") -> bytes:
    head = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF) + vr.encode()
    if vr in ("OB", "OW", "SQ", "UN", "UT", "UC"):
        return head + b"\0\0" + struct.pack(f"{order}I", len(value)) + value
    return head + struct.pack(f"{order}H", len(value)) + value


UIDS = (0x00080016, SC.encode() + b"\0"), (0x00080018, b"1.2.3.4\0")
IMPLICIT_UIDS = b"".join(implicit(tag, value) for tag, value in UIDS)
EXPLICIT_UIDS = b"".join(explicit(tag, "UI", value) for tag, value in UIDS)
BIG_UIDS = b"".join(explicit(tag, "UI", value, ">") for tag, value in UIDS)
ITEM, ITEM_END, SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0\0\0\0\0", b"\xfe\xff\xdd\xe0\0\0\0\0"
OPEN = b"\xff\xff\xff\xff"
FRAMELESS = b"\xe0\x7f\x10\0OB\0\0" + OPEN + ITEM + bytes(4) + SEQUENCE_END


def test_private_elements_stay(conform: object) -> None:
    nested = ITEM + struct.pack("<I", 12) + implicit(0x00091001, b"deep")
    source = (
        IMPLICIT_UIDS
        + implicit(0x00090010, b"MAKER ")
        + implicit(0x00091001, b"\1\2\3\4")
        + implicit(0x00091002, nested)
    )
    done: Conformed = conform(meta_for(IMPLICIT) + source)  # type: ignore[operator]
    expected = (
        explicit(0x00090010, "LO", b"MAKER ")
        + explicit(0x00091001, "UN", b"\1\2\3\4")
        + explicit(0x00091002, "UN", nested)
    )
    assert done.data_set() == EXPLICIT_UIDS + expected, "byte for byte, also what may be a sequence"


def test_private_sequence_of_undefined_length_becomes_sq(conform: object) -> None:
    body = ITEM + OPEN + implicit(0x00090010, b"MAKER ") + implicit(0x00091001, b"ab") + ITEM_END + SEQUENCE_END
    done: Conformed = conform(meta_for(IMPLICIT) + IMPLICIT_UIDS + b"\x09\x00\x02\x10" + OPEN + body)  # type: ignore[operator]
    inner = explicit(0x00090010, "LO", b"MAKER ") + explicit(0x00091001, "UN", b"ab")
    sequence = b"\x09\x00\x02\x10SQ\0\0" + OPEN + ITEM + OPEN + inner + ITEM_END + SEQUENCE_END
    assert done.data_set() == EXPLICIT_UIDS + sequence


@pytest.mark.parametrize("syntax", [BIG, DEFLATED, f"{PRE}5"])
def test_unknown_sequence_stays_byte_for_byte(conform: object, syntax: str) -> None:
    body = ITEM + OPEN + implicit(0x00091001, b"ab") + implicit(0x00280010, b"\1\2") + ITEM_END + SEQUENCE_END
    un = b"\x09\x00\x02\x10UN\0\0" + OPEN + body
    if syntax == BIG:
        source = BIG_UIDS + b"\x00\x09\x10\x02UN\0\0" + OPEN + body
    elif syntax == DEFLATED:
        packer = zlib.compressobj(wbits=-15)
        source = packer.compress(EXPLICIT_UIDS + un) + packer.flush()
    else:
        source = EXPLICIT_UIDS + un
    done: Conformed = conform(meta_for(syntax) + source)  # type: ignore[operator]
    assert done.data_set() == EXPLICIT_UIDS + un


def test_long_value_of_a_short_vr_becomes_un(conform: object) -> None:
    value = b"1.5\\" * 20000
    done: Conformed = conform(meta_for(IMPLICIT) + IMPLICIT_UIDS + implicit(0x3004000C, value))  # type: ignore[operator]
    assert done.data_set() == EXPLICIT_UIDS + explicit(0x3004000C, "UN", value)
    (change,) = (change for change in done.result.changes if change.tag == "(3004,000C)")
    assert "VR DS" in change.old and "VR UN" in change.new


def test_group_lengths_padding_and_strangers_are_dropped(conform: object) -> None:
    source = (
        implicit(0x00000100, b"\1\0")
        + implicit(0x00080000, b"\1\2\3\4")
        + IMPLICIT_UIDS
        + implicit(0x00100000, b"\1\2\3\4")
        + implicit(0x00100020, b"ID")
        + implicit(0xFFFCFFFC, bytes(100))
    )
    done: Conformed = conform(meta_for(IMPLICIT) + source)  # type: ignore[operator]
    assert done.data_set() == EXPLICIT_UIDS + explicit(0x00100020, "LO", b"ID")
    assert done.tags == {"(0002,0010)", "(0000,0100)"}


def test_zero_bytes_behind_the_data_set_are_padding(conform: object) -> None:
    done: Conformed = conform(meta_for(IMPLICIT) + IMPLICIT_UIDS + bytes(1500))  # type: ignore[operator]
    assert done.data_set() == EXPLICIT_UIDS


def test_odd_lengths_are_padded(conform: object) -> None:
    done: Conformed = conform(  # type: ignore[operator]
        meta_for(IMPLICIT) + IMPLICIT_UIDS + implicit(0x00081155, b"1.2.3") + implicit(0x00100020, b"abc")
    )
    assert done.data_set() == EXPLICIT_UIDS + explicit(0x00081155, "UI", b"1.2.3\0") + explicit(
        0x00100020, "LO", b"abc "
    )


def test_items_in_implicit_vr_within_explicit_are_read(conform: object) -> None:
    inner = implicit(0x00080100, b"CODE") + implicit(0x00080102, b"DCM ")
    source = EXPLICIT_UIDS + explicit(0x00081032, "SQ", ITEM + struct.pack("<I", len(inner)) + inner)
    done: Conformed = conform(meta_for(f"{PRE}5") + source)  # type: ignore[operator]
    assert done.after.ProcedureCodeSequence[0].CodeValue == "CODE"
    assert done.after.ProcedureCodeSequence[0].CodingSchemeDesignator == "DCM"


def test_vr_that_is_none_is_looked_up(conform: object) -> None:
    source = EXPLICIT_UIDS + b"\x28\x00\x20\x01  \x02\x00\x05\x00"
    done: Conformed = conform(meta_for(f"{PRE}5") + source)  # type: ignore[operator]
    assert done.data_set() == EXPLICIT_UIDS + explicit(0x00280120, "US", b"\5\0")
    assert "(0028,0120)" in done.tags


def test_big_endian_cells_of_32_bits_by_word_or_whole(conform: object) -> None:
    values = numpy.arange(64, dtype="<u4") * 977 + 0x00130000
    head = b"".join(
        explicit(tag, "US", struct.pack(">H", value), ">")
        for tag, value in ((0x00280010, 8), (0x00280011, 8), (0x00280100, 32), (0x00280101, 32))
    )
    whole = values.astype(">u4").tobytes()
    by_word = values.view("<u2").astype(">u2").tobytes()
    assert whole != by_word
    for stored in (whole, by_word):
        done: Conformed = conform(meta_for(BIG) + BIG_UIDS + head + explicit(0x7FE00010, "OW", stored, ">"))  # type: ignore[operator]
        assert done.after.PixelData == values.tobytes()


def pixels(photometric: str = "MONOCHROME2", **values: int) -> Dataset:
    ds = Dataset()
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = 4, 6, 1, photometric
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def test_encapsulated_uncompressed(conform: object) -> None:
    frames = [bytes(range(24)), bytes(range(100, 124))]
    ds = pixels(NumberOfFrames=2)
    ds.add_new(0x7FE00010, "OB", encapsulate(frames, fragments_per_frame=1))
    ds["PixelData"].is_undefined_length = True
    done: Conformed = conform(encoded(ds, f"{PRE}1.98"))  # type: ignore[operator]
    assert done.after.PixelData == b"".join(frames)
    assert done.after["PixelData"].VR == "OB"
    assert done.tags == {"(0002,0010)"}


def test_extended_offset_table_goes(conform: object) -> None:
    frames = [bytes(range(24)), bytes(range(100, 124))]
    ds = pixels(NumberOfFrames=2)
    ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths = struct.pack("<2Q", 0, 32), struct.pack("<2Q", 24, 24)
    ds.add_new(0x7FE00010, "OB", encapsulate(frames, has_bot=False))
    ds["PixelData"].is_undefined_length = True
    done: Conformed = conform(encoded(ds, f"{PRE}1.98"))  # type: ignore[operator]
    assert done.after.PixelData == b"".join(frames)
    assert "ExtendedOffsetTable" not in done.after
    assert done.tags == {"(0002,0010)", "(7FE0,0001)", "(7FE0,0002)"}


def test_odd_number_of_bytes_is_padded(conform: object) -> None:
    ds = pixels(Rows=3, Columns=5)
    ds.add_new(0x7FE00010, "OB", encapsulate([bytes(range(15))]))
    ds["PixelData"].is_undefined_length = True
    done: Conformed = conform(encoded(ds, f"{PRE}1.98"))  # type: ignore[operator]
    assert done.after.PixelData == bytes(range(15)) + b"\0"


def test_missing_planar_configuration_is_put_in_its_place(conform: object) -> None:
    source = packaged("SC_rgb_dcmtk_+eb+cr.dcm")
    ds = pydicom.dcmread(source)
    del ds.PlanarConfiguration
    buffer = io.BytesIO()
    ds.save_as(buffer)
    done: Conformed = conform(buffer.getvalue())  # type: ignore[operator]
    assert done.after.PlanarConfiguration == 0
    tags = [element.tag for element in done.after]
    assert tags == sorted(tags)
    (change,) = (change for change in done.result.changes if change.tag == "(0028,0006)")
    assert (change.old, change.new) == ("", "0")


def test_bits_stored_follow_the_codestream_where_samples_need_it(conform: object) -> None:
    ds = pydicom.dcmread(packaged("MR_small_jpeg_ls_lossless.dcm"))
    expected = pixel_array(ds, raw=True)
    ds.BitsStored, ds.HighBit = 8, 7
    buffer = io.BytesIO()
    ds.save_as(buffer)
    done: Conformed = conform(buffer.getvalue())  # type: ignore[operator]
    assert (done.after.BitsStored, done.after.HighBit) == (16, 15)
    assert numpy.array_equal(pixel_array(done.after, raw=True), expected)
    assert {"(0028,0101)", "(0028,0102)"} <= done.tags


def test_float_pixels_stay(conform: object) -> None:
    ds = pixels(BitsAllocated=32)
    del ds.BitsStored, ds.HighBit, ds.PixelRepresentation
    ds.FloatPixelData = numpy.linspace(-1, 1, 24, dtype="<f4").tobytes()
    done: Conformed = conform(encoded(ds, IMPLICIT))  # type: ignore[operator]
    assert done.after.FloatPixelData == ds.FloatPixelData
    assert done.after["FloatPixelData"].VR == "OF"


@pytest.mark.parametrize(("allocated", "vr"), [(8, "OB"), (16, "OW"), (1, "OB")])
def test_vr_of_native_pixel_data(conform: object, allocated: int, vr: str) -> None:
    ds = pixels(BitsAllocated=allocated, BitsStored=allocated, HighBit=allocated - 1)
    ds.add_new(0x7FE00010, "OW", bytes(48))
    done: Conformed = conform(encoded(ds, IMPLICIT))  # type: ignore[operator]
    assert vr == done.after["PixelData"].VR


def test_same_source_gives_same_bytes(tmp_path: Path) -> None:
    source = packaged("examples_ybr_color.dcm")
    one = conform_file(source, tmp_path / "one", EXPLICIT_LE_RECIPE)
    other = conform_file(source, tmp_path / "other", EXPLICIT_LE_RECIPE)
    assert one == other
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    assert pickle.loads(pickle.dumps(one)) == one


# -- refusals --


def compressed(frames: list[bytes], syntax: str, **values: int) -> bytes:
    ds = pixels(**values)
    ds.add_new(0x7FE00010, "OB", encapsulate(frames, has_bot=False))
    ds["PixelData"].is_undefined_length = True
    return encoded(ds, syntax)


@pytest.mark.parametrize(
    ("source", "code", "reason"),
    [
        (lambda: compressed([b"video!"], f"{PRE}4.102"), "INST_AP_CONFLICT", "video stream"),
        (lambda: meta_for(f"{PRE}4.110") + EXPLICIT_UIDS + FRAMELESS, "INST_AP_CONFLICT", "JPEG XL"),
        (lambda: encoded(pixels(), f"{PRE}4.94"), "INST_AP_CONFLICT", "JPIP server"),
        (lambda: compressed([b"no jpeg at all"], f"{PRE}4.50"), "PROC_FAILURE", "does not begin like a JPEG"),
        (lambda: compressed([bytes(24)] * 2, f"{PRE}1.98", NumberOfFrames=3), "PROC_FAILURE", "3 frames, but has 2"),
        (
            lambda: compressed([bytes(24), bytes(20)], f"{PRE}1.98", NumberOfFrames=2),
            "PROC_FAILURE",
            "frame 2 of 2 cannot be decoded: it decodes to 20 bytes instead of 24",
        ),
        (
            lambda: compressed([bytes(24)] * 3, f"{PRE}1.98", Rows=65535, Columns=65535, NumberOfFrames=2),
            "INST_OVERSIZED",
            "4 GiB",
        ),
        (lambda: compressed([bytes(24)], f"{PRE}1.98", Rows=0), "PROC_FAILURE", "is 0"),
        (lambda: compressed([bytes(24)], f"{PRE}1.98", BitsAllocated=7), "PROC_FAILURE", "Bits Allocated"),
        (lambda: packaged("MR_truncated.dcm").read_bytes(), "PROC_FAILURE", "cut off"),
        (lambda: packaged("rtplan_truncated.dcm").read_bytes(), "PROC_FAILURE", "cut off"),
        (
            lambda: packaged("JPEG2000-embedded-sequence-delimiter.dcm").read_bytes(),
            "PROC_FAILURE",
            "frame 1 of 1 cannot be decoded: its codestream has",
        ),
        (lambda: implicit(0x00080005, b"ISO_IR 100"), "PROC_FAILURE", "SOP Class UID"),
        (lambda: b"just text", "PROC_FAILURE", "text file"),
        (
            lambda: meta_for(EXPLICIT) + EXPLICIT_UIDS + FRAMELESS,
            "PROC_FAILURE",
            "does not say how",
        ),
    ],
)  # fmt: skip
def test_refusals_name_instance_and_reason(tmp_path: Path, source: object, code: str, reason: str) -> None:
    path, target = tmp_path / "source", tmp_path / "target"
    path.write_bytes(source())  # type: ignore[operator]
    with pytest.raises(InstanceRefused, match=re.escape(reason)) as caught:
        conform_file(path, target, EXPLICIT_LE_RECIPE)
    assert caught.value.code == code
    assert str(path) in caught.value.reason or "1.2.3.4" in caught.value.reason or "Instance 1." in caught.value.reason
    assert [entry.name for entry in tmp_path.iterdir()] == ["source"], "nothing is left behind"


def test_unknown_recipe_and_unwritable_target(tmp_path: Path) -> None:
    source = packaged("MR_small_implicit.dcm")
    with pytest.raises(MediaError, match="no recipe"):
        conform_file(source, tmp_path / "target", "implicit/9")
    with pytest.raises(MediaError, match="cannot be written"):
        conform_file(source, tmp_path / "missing" / "target", EXPLICIT_LE_RECIPE)


def test_endless_nesting_is_refused(tmp_path: Path) -> None:
    deep = (struct.pack("<HHI", 8, 0x1032, 0xFFFFFFFF) + ITEM + OPEN) * 5000
    path = tmp_path / "source"
    path.write_bytes(meta_for(IMPLICIT) + IMPLICIT_UIDS + deep)
    with pytest.raises(InstanceRefused, match="levels deep"):
        conform_file(path, tmp_path / "target", EXPLICIT_LE_RECIPE)


def test_deflated_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("media.elements.InflatedSource.limit", 1 << 20)
    packer = zlib.compressobj(wbits=-15)
    zeros = packer.compress(EXPLICIT_UIDS + explicit(0x7FE00010, "OW", bytes(4 << 20))) + packer.flush()
    path = tmp_path / "source"
    path.write_bytes(meta_for(DEFLATED) + zeros)
    assert path.stat().st_size < 8192
    with pytest.raises(InstanceRefused, match="longer than 1048576 bytes when inflated"):
        conform_file(path, tmp_path / "target", EXPLICIT_LE_RECIPE)


@settings(max_examples=size(150, 3000))
@given(
    st.sampled_from(
        ["MR_small_implicit.dcm", "MR_small_bigendian.dcm", "SC_rgb_rle.dcm", "image_dfl.dcm", "nested_priv_SQ.dcm"]
    ),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=8),
    st.floats(0.3, 1),
)
def test_damaged_files_are_conformed_or_refused(
    tmp_path: Path, name: str, flips: list[tuple[float, int]], kept: float
) -> None:
    data = bytearray(packaged(name).read_bytes())
    for where, value in flips:
        data[int(where * len(data))] = value
    path = tmp_path / "damaged"
    path.write_bytes(data[: int(len(data) * kept)])
    try:
        result = conform_file(path, tmp_path / "target", EXPLICIT_LE_RECIPE)
    except MediaError as error:
        assert str(error)
    else:
        assert result.size == (tmp_path / "target").stat().st_size


# -- recipes --


@pytest.mark.parametrize(
    ("syntax", "recipe"), [(EXPLICIT, None)] + [(syntax, EXPLICIT_LE_RECIPE) for syntax in FILES if syntax != EXPLICIT]
)
def test_recipe_for(syntax: str, recipe: str | None) -> None:
    assert recipe_for(Header(SC, "1.2.3", syntax), profile("STD-GEN-CD")) == recipe


@pytest.mark.parametrize("syntax", [f"{PRE}4.100", f"{PRE}4.94", "1.3.6.1.4.1.99999.1"])
def test_recipe_for_refuses_by_name(syntax: str) -> None:
    with pytest.raises(InstanceRefused, match=r"Instance 1\.2\.3 is in .*cannot be decoded"):
        recipe_for(Header(SC, "1.2.3", syntax), profile("STD-GEN-CD"))


# -- memory --

MEASURE = """
import resource, sys
from pathlib import Path
from media.conform import conform
conform(Path(sys.argv[1]), Path(sys.argv[3]), "explicit-le/1")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
result = conform(Path(sys.argv[2]), Path(sys.argv[3]), "explicit-le/1")
print(result.size, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("syntax", [IMPLICIT, BIG])
def test_large_native_instances_are_streamed(tmp_path: Path, syntax: str) -> None:
    size = 192 << 20
    path = tmp_path / "large"
    order, uids = ("<", IMPLICIT_UIDS) if syntax == IMPLICIT else (">", BIG_UIDS)
    with path.open("wb") as stream:
        stream.write(meta_for(syntax) + uids)
        head = struct.pack(f"{order}HH", 0x7FE0, 0x0010) + (b"" if syntax == IMPLICIT else b"OW\0\0")
        stream.write(head + struct.pack(f"{order}I", size))
        stream.truncate(stream.tell() + size)
    small = packaged("MR_small_implicit.dcm")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, small, path, tmp_path / "target"],
        check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    written, grown = map(int, done.stdout.split())
    assert written > size
    assert grown < 32 << 10, f"{grown} KiB more for an instance of {size >> 20} MiB"
