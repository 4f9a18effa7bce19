"""Whether two arrivals are one content: over encodings and compression, and not over any change."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import UID

from media.compare import content_digest, same_content
from media.conform import conform
from media.part10 import file_meta
from media.problems import MediaError
from media.recipes import EXPLICIT_LE_RECIPE

EXPLICIT, IMPLICIT, BIG, DEFLATED, RLE = (
    f"1.2.840.10008.1.2{tail}" for tail in (".1", "", ".2", ".1.99", ".5")
)  # fmt: skip
SC = "1.2.840.10008.5.1.4.1.1.7"
pytestmark = pytest.mark.filterwarnings("ignore")


def packaged(name: str) -> Path:
    return Path(str(get_testdata_file(name, download=False)))


def saved(dataset: Dataset, path: Path, syntax: str | None = None) -> Path:
    if syntax:
        dataset = pydicom.dcmread(io.BytesIO(_bytes(dataset)))
        dataset.file_meta.TransferSyntaxUID = UID(syntax)
        little = syntax != BIG
        if not little:
            dataset.PixelData = numpy.frombuffer(dataset.PixelData, "<u2").byteswap().tobytes()
        pydicom.dcmwrite(path, dataset, implicit_vr=syntax == IMPLICIT, little_endian=little, force_encoding=True)
    else:
        dataset.save_as(path)
    return path


def _bytes(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


@pytest.fixture
def image() -> Dataset:
    dataset = pydicom.dcmread(packaged("CT_small.dcm"))
    del dataset[0xFFFCFFFC]
    return dataset


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG, DEFLATED])
def test_encoding_does_not_count(tmp_path: Path, image: Dataset, syntax: str) -> None:
    assert same_content(saved(image, tmp_path / "other", syntax), packaged("CT_small.dcm"))


def test_lossless_compression_does_not_count(tmp_path: Path, image: Dataset) -> None:
    original = saved(image, tmp_path / "original")
    image.compress(UID(RLE), generate_instance_uid=False)
    assert same_content(saved(image, tmp_path / "packed"), original)


@pytest.mark.parametrize(
    "name", ["MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_padded.dcm"]
)
def test_real_files_in_several_syntaxes(name: str) -> None:
    assert same_content(packaged("MR_small.dcm"), packaged(name))


@pytest.mark.parametrize(
    "name", ["SC_rgb_rle_2frame.dcm", "examples_ybr_color.dcm", "rtdose_expb.dcm", "rtplan.dcm", "reportsi.dcm"]
)
def test_conformed_file_is_its_source(tmp_path: Path, name: str) -> None:
    conform(packaged(name), tmp_path / "target", EXPLICIT_LE_RECIPE)
    assert same_content(packaged(name), tmp_path / "target")


def _pixel(ds: Dataset) -> None:
    ds.PixelData = ds.PixelData[:5000] + bytes((ds.PixelData[5000] ^ 1,)) + ds.PixelData[5001:]


def _nested(ds: Dataset) -> None:
    ds.OtherPatientIDsSequence[0].PatientID = "other"


def _private(ds: Dataset) -> None:
    element = next(element for element in ds if element.tag.is_private and element.value and element.VR == "DS")
    element.value = "17"


def _setter(keyword: str, value: object) -> Callable[[Dataset], None]:
    return lambda ds: setattr(ds, keyword, value)


CHANGES: dict[str, Callable[[Dataset], None]] = {
    "a sample": _pixel,
    "an item": _nested,
    "a private value": _private,
    "a name": _setter("PatientName", "Other^Name"),
    "an absent attribute": _setter("PatientComments", "new"),
    "an empty attribute": _setter("PatientComments", ""),
    "rows": _setter("Rows", 127),
    "character set": _setter("SpecificCharacterSet", "ISO_IR 192"),
    "rescale": _setter("RescaleIntercept", "-1023"),
    "one attribute less": lambda ds: delattr(ds, "StudyDate"),
}


@pytest.mark.parametrize("what", list(CHANGES))
def test_every_change_counts(tmp_path: Path, image: Dataset, what: str) -> None:
    original = saved(image, tmp_path / "original")
    CHANGES[what](image)
    assert not same_content(saved(image, tmp_path / "changed"), original)


def test_trailing_blanks_of_text_do_not_count(tmp_path: Path, image: Dataset) -> None:
    original = saved(image, tmp_path / "original")
    image.StationName = image.StationName + "  "
    assert same_content(saved(image, tmp_path / "blanks"), original)


def element(tag: int, vr: str, value: bytes) -> bytes:
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode()
    return (
        head
        + (b"\0\0" + struct.pack("<I", len(value)) if vr in ("UN", "SQ") else struct.pack("<H", len(value)))
        + value
    )


UIDS = element(0x00080016, "UI", SC.encode() + b"\0") + element(0x00080018, "UI", b"1.2.3\0")


def file(path: Path, *elements: bytes, syntax: str = EXPLICIT) -> Path:
    path.write_bytes(file_meta(SC, "1.2.3", syntax) + UIDS + b"".join(elements))
    return path


def test_private_blocks_may_lie_elsewhere(tmp_path: Path) -> None:
    one = file(
        tmp_path / "one",
        element(0x00090010, "LO", b"FIRST "), element(0x00090011, "LO", b"SECOND"),
        element(0x00091001, "LO", b"a "), element(0x00091101, "LO", b"b "),
    )  # fmt: skip
    other = file(
        tmp_path / "other",
        element(0x00090010, "LO", b"SECOND"), element(0x00090020, "LO", b"FIRST "),
        element(0x00091001, "LO", b"b "), element(0x00092001, "LO", b"a "),
    )  # fmt: skip
    mixed = file(
        tmp_path / "mixed",
        element(0x00090010, "LO", b"FIRST "), element(0x00090011, "LO", b"SECOND"),
        element(0x00091001, "LO", b"b "), element(0x00091101, "LO", b"a "),
    )  # fmt: skip
    assert same_content(one, other)
    assert not same_content(one, mixed)


def test_private_sequence_with_and_without_a_dictionary(tmp_path: Path) -> None:
    item, item_end, end, undefined = (
        b"\xfe\xff\x00\xe0",
        b"\xfe\xff\x0d\xe0\0\0\0\0",
        b"\xfe\xff\xdd\xe0\0\0\0\0",
        b"\xff" * 4,
    )
    creator = element(0x00090010, "LO", b"MAKER ")
    inner = element(0x00100020, "LO", b"ID")
    plain = struct.pack("<HHI", 0x10, 0x20, 2) + b"ID"
    known = file(tmp_path / "known", creator, element(0x00091001, "SQ", item + struct.pack("<I", len(inner)) + inner))
    unknown = file(
        tmp_path / "unknown", creator, element(0x00091001, "UN", item + struct.pack("<I", len(plain)) + plain)
    )
    head = b"\x09\0\x01\x10UN\0\0" + undefined
    endless = file(tmp_path / "endless", creator, head + item + undefined + plain + item_end + end)
    other = file(tmp_path / "different", creator, head + item + undefined + plain[:-1] + b"X" + item_end + end)
    assert same_content(known, unknown)
    assert same_content(known, endless)
    assert not same_content(known, other)
    garbage = [
        file(tmp_path / f"garbage{tail}", creator, element(0x00091001, "UN", item + bytes((9, tail))))
        for tail in (1, 2)
    ]
    assert same_content(garbage[0], garbage[0])
    assert not same_content(*garbage)


@pytest.mark.parametrize("allocated", [8, 16])
def test_planar_configuration_does_not_count(tmp_path: Path, allocated: int) -> None:
    colour = numpy.random.default_rng(3).integers(0, 200, (2, 5, 7, 3), f"u{allocated // 8}")
    paths = []
    for planar in (0, 1):
        ds = pydicom.dcmread(packaged("SC_rgb_small_odd.dcm"))
        ds.NumberOfFrames, ds.Rows, ds.Columns, ds.PlanarConfiguration = 2, 5, 7, planar
        ds.BitsAllocated = ds.BitsStored = allocated
        ds.HighBit = allocated - 1
        ds.add_new(0x7FE00010, "OW", (colour.transpose(0, 3, 1, 2) if planar else colour).tobytes())
        paths.append(saved(ds, tmp_path / f"planar{planar}"))
    ds.PixelData = ds.PixelData[:-1] + b"\xff"
    assert same_content(*paths)
    assert not same_content(paths[0], saved(ds, tmp_path / "changed"))


def test_lossy_equals_only_its_own_samples(tmp_path: Path) -> None:
    source = packaged("examples_ybr_color.dcm")
    conform(source, tmp_path / "decoded", EXPLICIT_LE_RECIPE)
    decoded = pydicom.dcmread(tmp_path / "decoded")
    assert same_content(source, tmp_path / "decoded")
    decoded.LossyImageCompressionRatio = "2"
    assert not same_content(source, saved(decoded, tmp_path / "other"))


@pytest.mark.parametrize("name", ["JPEG2000-embedded-sequence-delimiter.dcm", "MR_truncated.dcm", "README.txt"])
def test_what_cannot_be_read_equals_nothing(tmp_path: Path, name: str) -> None:
    assert not same_content(packaged(name), packaged(name))
    assert not same_content(tmp_path / "missing", packaged("CT_small.dcm"))
    with pytest.raises(MediaError):
        content_digest(packaged(name))


def test_warnings_are_not_needed() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same_content(packaged("SC_rgb_rle.dcm"), packaged("SC_rgb_rle.dcm"))
