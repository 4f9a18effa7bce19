"""Lossless compression: samples bit for bit, codestreams as their transfer syntax wants them, attributes, refusals."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import numpy
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import iter_pixels

import media.conform
from media import framewriter
from media.conform import ConformResult, conform
from media.encoders import encoders
from media.items import Header
from media.normalise import as_changes
from media.problems import InstanceRefused
from media.profiles import profile
from media.quick import compress_quickly
from media.recipes import recipe_for

LOSSLESS = ("jpeg-lossless/1", "jpeg-lossless-p14/1", "j2k/1", "rle/1")
FILES = (
    "CT_small.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm",
    "image_dfl.dcm", "JPGExtended.dcm", "SC_rgb_rle_2frame.dcm", "SC_rgb_rle_16bit_2frame.dcm",
    "SC_rgb_jpeg_gdcm.dcm", "examples_palette.dcm", "examples_ybr_color.dcm", "J2K_pixelrep_mismatch.dcm",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _quiet() -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def packaged(name: str) -> Path:
    path = get_testdata_file(name, download=False)
    assert path, f"pydicom's wheel has no {name}"
    return Path(str(path))


def run(source: Path, tmp_path: Path, recipe: str) -> tuple[ConformResult, Dataset]:
    target = tmp_path / "target.dcm"
    result = conform(source, target, recipe)
    assert sorted(path.name for path in tmp_path.iterdir() if "target" in path.name) == ["target.dcm"]
    return result, pydicom.dcmread(target)


def samples(data_set: Dataset) -> list[numpy.ndarray]:
    return list(iter_pixels(data_set, raw=True))


@pytest.mark.parametrize("recipe", LOSSLESS)
@pytest.mark.parametrize("name", FILES)
def test_decoded_by_others_every_sample_is_the_same(name: str, recipe: str, tmp_path: Path) -> None:
    plain = tmp_path / "plain.dcm"
    conform(packaged(name), plain, "explicit-le/1")
    before = pydicom.dcmread(plain)
    result, after = run(packaged(name), tmp_path, recipe)
    assert result.transfer_syntax_uid == encoders()[recipe].syntax == after.file_meta.TransferSyntaxUID
    assert after.SOPInstanceUID == before.SOPInstanceUID
    expected = samples(before)
    if before.PhotometricInterpretation == "PALETTE COLOR" and recipe != "rle/1":
        expected = [apply_color_lut(frame, before) for frame in expected]
        if after.BitsAllocated == 8:
            expected = [frame >> 8 for frame in expected]
        assert (after.SamplesPerPixel, after.PhotometricInterpretation[:3]) in ((3, "RGB"), (3, "YBR"))
        assert "RedPaletteColorLookupTableDescriptor" not in after
    for one, other in zip(expected, samples(after), strict=True):
        assert numpy.array_equal(one, other)


@pytest.mark.parametrize("recipe", LOSSLESS)
def test_the_same_again_gives_the_same_bytes(recipe: str, tmp_path: Path) -> None:
    first = conform(packaged("SC_rgb_rle_2frame.dcm"), tmp_path / "first", recipe)
    assert conform(packaged("SC_rgb_rle_2frame.dcm"), tmp_path / "second", recipe) == first
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def _markers(frame: bytes) -> tuple[list[int], bytes]:
    """The markers up to the start of scan, and the scan's parameters (T.81 B.2.3)."""
    found, at = [], 2
    while frame[at + 1] != 0xDA:
        found.append(frame[at + 1])
        at += 2 + struct.unpack_from(">H", frame, at + 2)[0]
    components = frame[at + 4]
    return found, frame[at + 5 + 2 * components : at + 8 + 2 * components]


@pytest.mark.parametrize("recipe", ["jpeg-lossless/1", "jpeg-lossless-p14/1"])
@pytest.mark.parametrize("name", ["CT_small.dcm", "SC_rgb_rle_2frame.dcm", "SC_rgb_rle_16bit_2frame.dcm"])
def test_every_frame_is_sof3_with_selection_value_1(name: str, recipe: str, tmp_path: Path) -> None:
    _, after = run(packaged(name), tmp_path, recipe)
    count = int(after.get("NumberOfFrames", 1))
    frames = list(generate_frames(after.PixelData, number_of_frames=count))
    assert len(frames) == count
    for frame in frames:
        markers, (predictor, end, transform) = _markers(frame)
        assert [marker for marker in markers if 0xC0 <= marker <= 0xCF and marker != 0xC4] == [0xC3]
        assert (predictor, end, transform) == (1, 0, 0)


@pytest.mark.parametrize(
    ("recipe", "photometric"), [("jpeg-lossless/1", "RGB"), ("j2k/1", "YBR_RCT"), ("rle/1", "RGB")]
)
def test_colour_is_named_as_its_codec_wants_it(recipe: str, photometric: str, tmp_path: Path) -> None:
    result, after = run(packaged("SC_rgb_gdcm_KY.dcm"), tmp_path, recipe)
    assert (after.PhotometricInterpretation, after.PlanarConfiguration) == (photometric, 0)
    told = {change.tag: (change.old, change.new) for change in result.changes}
    assert ("(0028,0004)" in told) == (photometric != "RGB")
    assert after.file_meta.TransferSyntaxUID in told["(0002,0010)"][1]


@pytest.mark.parametrize("recipe", ["jpeg-lossless/1", "jpeg-lossless-p14/1", "rle/1"])
def test_colour_by_plane_becomes_colour_by_pixel(recipe: str, tmp_path: Path) -> None:
    data_set = pydicom.dcmread(packaged("SC_rgb_small_odd.dcm"))
    shape = (data_set.Rows, data_set.Columns, 3)
    pixels = numpy.frombuffer(data_set.PixelData, "u1")[: numpy.prod(shape)].reshape(shape)
    data_set.PlanarConfiguration = 1
    planes = pixels.transpose(2, 0, 1).tobytes()
    data_set.PixelData = planes + b"\0" * (len(planes) % 2)
    data_set.save_as(tmp_path / "source")
    result, after = run(tmp_path / "source", tmp_path, recipe)
    assert ("(0028,0006)", "1", "0") in [(change.tag, change.old, change.new) for change in result.changes]
    assert numpy.array_equal(samples(after)[0], pixels)


@pytest.mark.parametrize("extended", [False, True])
def test_offset_table_points_at_the_frames(extended: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if extended:
        monkeypatch.setattr(framewriter, "_BASIC_LIMIT", 1)
    _, after = run(packaged("SC_rgb_rle_16bit_2frame.dcm"), tmp_path, "jpeg-lossless/1")
    if extended:
        offsets = struct.unpack("<2Q", after.ExtendedOffsetTable)
        lengths = struct.unpack("<2Q", after.ExtendedOffsetTableLengths)
        start = 8
        assert after.PixelData[4:8] == b"\0\0\0\0"
    else:
        assert struct.unpack_from("<I", after.PixelData, 4) == (8,)
        offsets, lengths, start = struct.unpack_from("<2I", after.PixelData, 8), None, 16
    for number, offset in enumerate(offsets):
        tag, length = struct.unpack_from("<4sI", after.PixelData, start + offset)
        assert tag == b"\xfe\xff\x00\xe0"
        assert after.PixelData[start + offset + 8 :].startswith(b"\xff\xd8\xff")
        assert lengths is None or lengths[number] == length


@pytest.mark.parametrize("stored", [8, 10, 12, 16])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("recipe", LOSSLESS)
def test_bits_and_sign(stored: int, signed: bool, recipe: str, tmp_path: Path) -> None:
    data_set = pydicom.dcmread(packaged("CT_small.dcm"))
    low, high = (-(1 << (stored - 1)), (1 << (stored - 1)) - 1) if signed else (0, (1 << stored) - 1)
    values = numpy.random.default_rng(stored).integers(low, high, size=(128, 128), endpoint=True)
    values[0, :2] = low, high
    pixels = values.astype("<i2" if signed else "<u2")
    data_set.BitsStored, data_set.HighBit, data_set.PixelRepresentation = stored, stored - 1, int(signed)
    data_set.PixelData = pixels.tobytes()
    data_set.save_as(tmp_path / "source")
    _, after = run(tmp_path / "source", tmp_path, recipe)
    assert after.BitsStored == stored
    assert after.PixelRepresentation == signed
    assert numpy.array_equal(samples(after)[0].astype("i4"), values)


@pytest.mark.parametrize("name", ["liver_1frame.dcm", "rtdose_1frame.dcm"])
def test_unsuitable_pixels_stay_uncompressed_and_it_is_said(name: str, tmp_path: Path) -> None:
    result, after = run(packaged(name), tmp_path, "jpeg-lossless/1")
    assert after.file_meta.TransferSyntaxUID == result.transfer_syntax_uid == "1.2.840.10008.1.2.1"
    assert any(change.tag == "(7FE0,0010)" and "not compressed: its cells" in change.new for change in result.changes)


def test_an_overlay_in_the_cells_is_not_lost(tmp_path: Path) -> None:
    data_set = pydicom.dcmread(packaged("CT_small.dcm"))
    data_set.BitsStored, data_set.HighBit, data_set.PixelRepresentation = 12, 11, 0
    data_set.PixelData = numpy.full((128, 128), 0x1001, "<u2").tobytes()
    data_set.save_as(tmp_path / "source")
    result, after = run(tmp_path / "source", tmp_path, "j2k/1")
    assert result.transfer_syntax_uid == "1.2.840.10008.1.2.1"
    assert after.PixelData == data_set.PixelData


def test_an_image_too_small_for_wavelets_stays_uncompressed(tmp_path: Path) -> None:
    result, _ = run(packaged("SC_rgb_small_odd.dcm"), tmp_path, "j2k/1")
    assert result.transfer_syntax_uid == "1.2.840.10008.1.2.1"
    assert any("too small" in change.new for change in result.changes)


def test_an_instance_without_pixels_is_plain(tmp_path: Path) -> None:
    result, _ = run(packaged("rtplan.dcm"), tmp_path, "j2k/1")
    assert result.transfer_syntax_uid == "1.2.840.10008.1.2.1"


def test_a_bad_frame_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder that loses a sample is caught before anything is published."""
    from media import encoders as module

    honest, calls = module._rle, []

    def lossy(pixels: numpy.ndarray, form: object) -> bytes:
        calls.append(1)
        return honest(pixels if len(calls) == 1 else pixels ^ 1, form)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_rle", lossy)
    source = packaged("SC_rgb_rle_2frame.dcm")
    uid = pydicom.dcmread(source, stop_before_pixels=True).SOPInstanceUID
    with pytest.raises(InstanceRefused, match=r"frame 2 of 2 cannot be compressed: .*other samples") as refused:
        conform(source, tmp_path / "target", "rle/1")
    assert str(uid) in str(refused.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("compress", "identifier", "syntax", "recipe"),
    [
        ("none", "STD-GEN-DVD-JPEG", "1", None),
        ("none", "STD-GEN-DVD-JPEG", "4.70", "explicit-le/1"),
        ("lossless", "STD-GEN-DVD-JPEG", "1", "jpeg-lossless/1"),
        ("lossless", "STD-GEN-DVD-JPEG", "4.90", "jpeg-lossless/1"),
        ("lossless", "STD-GEN-DVD-JPEG", "4.70", None),
        ("lossless", "STD-GEN-DVD-JPEG", "4.50", None),
        ("lossless", "STD-GEN-CD", "1", None),
        ("lossless", "STD-GEN-CD", "4.90", "explicit-le/1"),
        ("keep", "STD-GEN-DVD-JPEG", "4.50", None),
        ("keep", "STD-GEN-DVD-JPEG", "4.90", "explicit-le/1"),
        ("keep", "STD-GEN-CD", "4.70", "explicit-le/1"),
    ],
)
def test_what_is_asked_for_within_the_profile(compress: str, identifier: str, syntax: str, recipe: str | None) -> None:
    header = Header("1.2.840.10008.5.1.4.1.1.2", "1.2.3", f"1.2.840.10008.1.2.{syntax}", has_pixel_data=True)
    assert recipe_for(header, profile(identifier), compress) == recipe


def test_what_has_no_pixels_is_not_compressed() -> None:
    header = Header("1.2.840.10008.5.1.4.1.1.481.5", "1.2.3", "1.2.840.10008.1.2.1")
    assert recipe_for(header, profile("STD-GEN-DVD-JPEG"), "lossless") is None


def test_the_quick_way_gives_what_the_long_way_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes, digest and changes are the same for whatever the quick way takes, and it takes the usual."""
    folder = Path(str(packaged("CT_small.dcm"))).parent
    taken = []
    for source in sorted(folder.glob("*.dcm")):
        for recipe in ("jpeg-lossless/1", "rle/1"):
            quick = compress_quickly(source, tmp_path / "quick", encoders()[recipe])
            if quick is None:
                continue
            monkeypatch.setattr(media.conform, "compress_quickly", lambda *_: None)
            long = conform(source, tmp_path / "long", recipe)
            monkeypatch.undo()
            assert (tmp_path / "long").read_bytes() == (tmp_path / "quick").read_bytes(), source
            assert (long.size, long.sha256) == (quick.size, quick.sha256)
            assert long.changes == as_changes(quick.sop_instance_uid, quick.changes)
            taken.append(source.name)
    assert {"CT_small.dcm", "MR_small.dcm"} <= set(taken)
    assert len(taken) >= 10


def test_the_quick_way_keeps_its_hands_off_what_is_unusual(tmp_path: Path) -> None:
    plain = packaged("CT_small.dcm").read_bytes()
    at = plain.index(b"\x28\x00\x02\x00US")
    unusual = {
        "cut off": plain[:-100000],
        "cut within an element": plain[: at + 5],
        "empty": b"",
        "no prefix": plain[132:],
        "a VR that is none": plain[:at] + plain[at : at + 4] + b"??" + plain[at + 6 :],
        "elements out of order": plain[:at] + plain[at : at + 10] * 2 + plain[at + 10 :],
        "length beyond the end": plain[:at] + b"\x28\x00\x01\x00OB\0\0\xfe\xff\xff\xff" + plain[at:],
        "an odd length": plain[:at] + b"\x28\x00\x01\x00US\x03\x00abc" + plain[at:],
        "a stray item": plain[:at] + b"\xfe\xff\x00\xe0\0\0\0\0" + plain[at:],
        "nested too deep": plain[:at] + b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 500,
        "an unfinished sequence": plain[:at] + b"\x28\x00\x01\x00SQ\0\0\xff\xff\xff\xff",
        "a sequence that ends in an item": plain[:at] + b"\x28\x00\x01\x00SQ\0\0\x04\0\0\0" + plain[at:],
    }
    for what, data in unusual.items():
        (tmp_path / "source").write_bytes(data)
        assert compress_quickly(tmp_path / "source", tmp_path / "part", encoders()["rle/1"]) is None, what
    assert compress_quickly(tmp_path / "none", tmp_path / "part", encoders()["rle/1"]) is None
    assert not (tmp_path / "part").exists()
