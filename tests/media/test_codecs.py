"""Transfer syntaxes as rows, codestream heads, frames in fragments, decoded samples."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames
from pydicom.uid import UID_dictionary

from media.codecs import BitPacker, MoreBits, PixelFormat, decode, decoded_format
from media.codestreams import Codestream, FrameError, inspect
from media.elements import Source
from media.frames import Fragments
from media.problems import InstanceRefused, MediaError, NotDicom
from media.syntaxes import require_decodable, transfer_syntax, transfer_syntaxes
from tests.soak import size

GREY = PixelFormat(4, 6, 1, "MONOCHROME2", 0, 16, 12, 11, False)
COLOUR = PixelFormat(4, 6, 3, "RGB", 0, 8, 8, 7, False)
RLE, JPEG, JPEG_LOSSLESS, JPEG_LS, J2K, PLAIN, DEFLATED_FRAMES = (
    transfer_syntax(f"1.2.840.10008.1.2.{tail}") for tail in ("5", "4.50", "4.70", "4.80", "4.90", "1.98", "8.1")
)


def first_frame(name: str) -> tuple[pydicom.Dataset, bytes]:
    dataset = pydicom.dcmread(str(get_testdata_file(name, download=False)))
    return dataset, next(generate_frames(dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames", 1))))


def test_every_transfer_syntax_of_the_dictionary_has_a_row() -> None:
    standard = {
        uid
        for uid, entry in UID_dictionary.items()
        if entry[1] == "Transfer Syntax" and uid.startswith("1.2.840.10008.1.2") and entry[3] != "Retired"
    }
    streams = {uid for uid in standard if uid.startswith("1.2.840.10008.1.2.7.")}  # SMPTE ST 2110: never in a file
    assert standard - streams - {"1.2.840.10008.1.2.1"} <= set(transfer_syntaxes())


@pytest.mark.parametrize("uid", list(transfer_syntaxes()))
def test_row_says_how_to_decode_or_why_not(uid: str) -> None:
    row = transfer_syntaxes()[uid]
    assert row.encoding in ("implicit-le", "explicit-le", "explicit-be", "deflated", "encapsulated")
    if row.encoding == "encapsulated":
        assert bool(row.refused) != (row.codec in ("jpeg", "jpeg-ls", "jpeg2000", "rle", "deflate", "none"))
    else:
        assert not row.codec
    if row.refused:
        with pytest.raises(InstanceRefused) as caught:
            require_decodable(row, "1.2.3")
        assert row.uid in str(caught.value) and row.refused in str(caught.value) and "1.2.3" in str(caught.value)
    else:
        require_decodable(row, "1.2.3")


@pytest.mark.parametrize(
    "uid", ["1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.107", "1.2.840.10008.1.2.4.94", "1.9.9"]
)
def test_video_referenced_and_private_syntaxes_are_refused(uid: str) -> None:
    with pytest.raises(InstanceRefused, match="cannot be decoded"):
        require_decodable(transfer_syntax(uid), "1.2.3")


@pytest.mark.parametrize(
    ("name", "codec", "stream"),
    [
        ("SC_rgb_jpeg_gdcm.dcm", "jpeg", Codestream(100, 100, 3, 8, rgb=True)),
        ("JPGExtended.dcm", "jpeg", Codestream(1024, 256, 1, 12, sequential=True)),
        ("MR_small_jpeg_ls_lossless.dcm", "jpeg-ls", Codestream(64, 64, 1, 16)),
        ("MR_small_jp2klossless.dcm", "jpeg2000", Codestream(64, 64, 1, 16, True)),
    ],
)
def test_inspect(name: str, codec: str, stream: Codestream) -> None:
    assert replace(inspect(codec, first_frame(name)[1]), jfif=False) == stream


@pytest.mark.parametrize("codec", ["jpeg", "jpeg-ls", "jpeg2000"])
@pytest.mark.parametrize("frame", [b"", b"\xff\xd8", b"\xff\xd8\xff\xc0", b"\xff\x4f\xff\x51\0\x29", b"nothing at all"])
def test_inspect_refuses_what_is_none(codec: str, frame: bytes) -> None:
    with pytest.raises(FrameError):
        inspect(codec, frame)


@settings(max_examples=size(200, 4000))
@given(st.sampled_from(["jpeg", "jpeg2000"]), st.binary(max_size=200))
def test_inspect_never_fails_otherwise(codec: str, tail: bytes) -> None:
    with contextlib.suppress(FrameError):
        inspect(codec, (b"\xff\xd8" if codec == "jpeg" else b"\xff\x4f\xff\x51") + tail)


def test_sequential_jpeg_with_another_spectral_selection_is_read() -> None:
    form = PixelFormat(1024, 256, 1, "MONOCHROME2", 0, 16, 12, 11, False)
    extended = transfer_syntax("1.2.840.10008.1.2.4.51")
    broken, sound = (first_frame(name)[1] for name in ("JPEG-lossy.dcm", "JPGExtended.dcm"))
    assert broken != sound
    assert decode(extended, broken, form) == decode(extended, sound, form)


def test_codestream_that_differs_from_the_data_set_is_not_decoded() -> None:
    _, frame = first_frame("MR_small_jpeg_ls_lossless.dcm")
    form = PixelFormat(64, 64, 1, "MONOCHROME2", 0, 16, 16, 15, True)
    assert len(decode(JPEG_LS, frame, form)) == 8192
    for wrong, what in ((replace(form, rows=63), "rows"), (replace(form, columns=1), "columns")):
        with pytest.raises(FrameError, match=what):
            decode(JPEG_LS, frame, wrong)
    with pytest.raises(FrameError, match="components"):
        decode(JPEG_LS, frame, replace(form, samples=3))


def test_decoded_frame_has_a_limit() -> None:
    with pytest.raises(FrameError, match="limit"):
        decode(JPEG, b"\xff\xd8", replace(COLOUR, rows=65535, columns=65535))


@pytest.mark.parametrize("syntax", [RLE, JPEG_LOSSLESS, JPEG_LS, J2K])
def test_damaged_frames_say_so(syntax: object) -> None:
    names = {RLE: "MR_small_RLE.dcm", JPEG_LS: "MR_small_jpeg_ls_lossless.dcm", J2K: "MR_small_jp2klossless.dcm"}
    name = names.get(syntax, "SC_rgb_jpeg_gdcm.dcm")  # type: ignore[call-overload]
    dataset, frame = first_frame(name)
    form = PixelFormat(
        dataset.Rows, dataset.Columns, dataset.SamplesPerPixel, dataset.PhotometricInterpretation, 0,
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation == 1,
    )  # fmt: skip
    decode(syntax, frame, form)  # type: ignore[arg-type]
    for kept in (0.05, 0.5, 0.9, 0.99):
        with pytest.raises(FrameError):
            decode(syntax, frame[: int(len(frame) * kept)], form)  # type: ignore[arg-type]


def test_planes_follow_the_data_set_for_rle() -> None:
    dataset, frame = first_frame("SC_rgb_rle.dcm")
    form = replace(COLOUR, rows=dataset.Rows, columns=dataset.Columns)
    pixels = numpy.frombuffer(decode(RLE, frame, form), "u1").reshape(-1, 3)
    planes = numpy.frombuffer(decode(RLE, frame, replace(form, planar=1)), "u1").reshape(3, -1)
    assert (planes == pixels.T).all()
    assert (pixels == dataset.pixel_array.reshape(-1, 3)).all()


def rle_frame(*segments: bytes) -> bytes:
    """Literal runs only."""
    packed = []
    for segment in segments:
        runs = (segment[at : at + 128] for at in range(0, len(segment), 128))
        data = b"".join(bytes((len(run) - 1,)) + run for run in runs)
        packed.append(data + b"\x80" * (len(data) % 2))
    offsets = [64]
    for data in packed[:-1]:
        offsets.append(offsets[-1] + len(data))
    return struct.pack("<16I", len(packed), *offsets, *[0] * (15 - len(packed))) + b"".join(packed)


def test_rle_of_odd_lengths_and_sixteen_bits() -> None:
    form = PixelFormat(3, 5, 1, "MONOCHROME2", 0, 16, 16, 15, False)
    frame = rle_frame(bytes(range(15)), bytes(range(100, 115)))
    assert numpy.frombuffer(decode(RLE, frame, form), "<u2").tolist() == [high * 256 + 100 + high for high in range(15)]


def test_rle_with_other_segments_than_the_data_set_is_refused() -> None:
    with pytest.raises(FrameError, match="1 segments instead of 2"):
        decode(RLE, rle_frame(bytes(24)), GREY)


@pytest.mark.parametrize(
    ("offsets", "form"),
    [((64, 9), GREY), ((64, 4000), GREY), ((0, 70), GREY), ((64,) * 16, replace(GREY, samples=8))],
)
def test_rle_with_damaged_header_is_refused(offsets: tuple[int, ...], form: PixelFormat) -> None:
    frame = struct.pack(f"<{1 + len(offsets)}I", len(offsets), *offsets).ljust(64, b"\0") + bytes(60)
    with pytest.raises(FrameError, match="RLE header"):
        decode(RLE, frame, form)


@pytest.mark.parametrize("packed", [True, False])
def test_rle_of_one_bit(packed: bool) -> None:
    form = PixelFormat(3, 5, 1, "MONOCHROME2", 0, 1, 1, 0, False)
    bits = [1, 0, 1, 1, 0, 0, 0, 1, 1, 1, 0, 1, 0, 0, 1]
    raw = numpy.packbits(bits, bitorder="little").tobytes() if packed else bytes(bits)
    assert list(decode(RLE, rle_frame(raw), form)) == bits


def test_frames_in_raw_and_deflated_form() -> None:
    samples = bytes(range(48))
    deflater = zlib.compressobj(wbits=-15)
    deflated = deflater.compress(samples) + deflater.flush()
    assert decode(PLAIN, samples, GREY) == samples
    assert decode(DEFLATED_FRAMES, deflated, GREY) == samples
    assert decode(DEFLATED_FRAMES, deflated + b"\0", GREY) == samples
    for syntax, frame in ((PLAIN, samples[:-2]), (PLAIN, samples + b"12"), (DEFLATED_FRAMES, deflated[:-3])):
        with pytest.raises(FrameError):
            decode(syntax, frame, GREY)


def test_signed_samples_get_their_sign_back() -> None:
    import jpeg_ls  # type: ignore[import-untyped]

    values = numpy.resize(numpy.array([-2048, -1, 0, 1, 2047, -5], "<i2"), (64, 64))
    twelve = values.view("<u2") & 0xFFF
    frame = bytes(jpeg_ls.encode_array(twelve))
    form = PixelFormat(64, 64, 1, "MONOCHROME2", 0, 16, 12, 11, True)
    assert inspect("jpeg-ls", frame).precision == 12
    assert numpy.array_equal(numpy.frombuffer(decode(JPEG_LS, frame, form), "<i2"), values.ravel())
    unsigned = numpy.frombuffer(decode(JPEG_LS, frame, replace(form, signed=False)), "<u2")
    assert numpy.array_equal(unsigned, twelve.ravel())


def test_samples_beyond_bits_stored_are_noticed() -> None:
    _, frame = first_frame("MR_small_jpeg_ls_lossless.dcm")
    form = PixelFormat(64, 64, 1, "MONOCHROME2", 0, 16, 8, 7, True)
    with pytest.raises(MoreBits) as caught:
        decode(JPEG_LS, frame, form)
    assert caught.value.bits_stored == 16


@pytest.mark.parametrize(
    ("syntax", "photometric", "stream", "after"),
    [
        (JPEG, "YBR_FULL_422", Codestream(), "YBR_FULL"),
        (JPEG, "YBR_FULL", Codestream(), "YBR_FULL"),
        (JPEG, "RGB", Codestream(), "RGB"),
        (JPEG, "RGB", Codestream(jfif=True), "YBR_FULL"),
        (JPEG, "YBR_FULL_422", Codestream(rgb=True), "RGB"),
        (JPEG_LOSSLESS, "RGB", Codestream(jfif=True), "RGB"),
        (J2K, "YBR_RCT", Codestream(), "RGB"),
        (J2K, "YBR_ICT", Codestream(), "RGB"),
        (J2K, "YBR_FULL", Codestream(), "YBR_FULL"),
        (RLE, "YBR_FULL", Codestream(), "YBR_FULL"),
        (PLAIN, "YBR_FULL_422", Codestream(), "YBR_FULL_422"),
    ],
)
def test_photometric_interpretation_after_decoding(
    syntax: object, photometric: str, stream: Codestream, after: str
) -> None:
    declared = replace(COLOUR, photometric=photometric)
    assert decoded_format(syntax, declared, stream).photometric == after  # type: ignore[arg-type]


def test_planar_configuration_and_bits_after_decoding() -> None:
    assert decoded_format(JPEG, replace(COLOUR, planar=1), Codestream()).planar == 0
    assert decoded_format(RLE, replace(COLOUR, planar=1), Codestream()).planar == 1
    widened = decoded_format(JPEG, replace(GREY, bits_allocated=8, bits_stored=8, high_bit=7), Codestream(precision=12))
    assert (widened.bits_allocated, widened.bits_stored, widened.high_bit) == (16, 12, 11)


def test_one_bit_pixels_are_packed_over_frame_borders() -> None:
    dice = numpy.random.default_rng(7)
    frames = [dice.integers(0, 2, 15, "u1").tobytes() for _ in range(5)]
    packer = BitPacker()
    packed = b"".join([*(packer.pack(frame) for frame in frames), packer.finish()])
    assert packed == numpy.packbits(numpy.frombuffer(b"".join(frames), "u1"), bitorder="little").tobytes()


def test_sizes_of_pixel_data() -> None:
    assert GREY.frame_bytes == 48 and GREY.pixel_bytes == 48
    assert replace(COLOUR, photometric="YBR_FULL_422").frame_bytes == 48
    bits = PixelFormat(3, 5, 1, "MONOCHROME2", 0, 1, 1, 0, False, 5)
    assert (bits.frame_bytes, bits.pixel_bytes) == (15, 10)


# -- frames in fragments --


def fragments(encapsulated: bytes) -> tuple[Fragments, Source]:
    source = Source(io.BytesIO(encapsulated), 0, "sample")
    return Fragments(source), source


FRAMES = [b"\xff\xd8" + bytes((number,)) * (40 + number) + b"\xff\xd9" for number in range(3)]


def all_frames(encapsulated: bytes, count: int) -> list[bytes]:
    found, source = fragments(encapsulated)
    assert source.tell() == len(encapsulated)
    return [found.read(pieces).removesuffix(b"\0") for pieces in found.frames(count)]


@pytest.mark.parametrize("per_frame", [1, 2, 3])
@pytest.mark.parametrize("table", [True, False])
def test_frames_by_table_or_by_mark(per_frame: int, table: bool) -> None:
    data = encapsulate(FRAMES, fragments_per_frame=per_frame, has_bot=table) + b"\xfe\xff\xdd\xe0\0\0\0\0"
    assert all_frames(data, 3) == FRAMES


def test_frames_beside_an_extended_offset_table() -> None:
    data, _, _ = encapsulate_extended(FRAMES)
    assert all_frames(data, 3) == FRAMES


def test_one_frame_takes_all_fragments() -> None:
    data = encapsulate(FRAMES[:1], fragments_per_frame=4, has_bot=False)
    assert all_frames(data, 1) == FRAMES[:1]


@pytest.mark.parametrize("table", [True, False])
def test_more_frames_than_declared_are_not_dropped(table: bool) -> None:
    for count in (1, 2):
        with pytest.raises(FrameError, match=f"declares {count} frame"):
            fragments(encapsulate(FRAMES, has_bot=table))[0].frames(count)


def test_wrong_offset_table_is_passed_over() -> None:
    data = bytearray(encapsulate(FRAMES, fragments_per_frame=2))
    struct.pack_into("<3I", data, 8, 0, 13, 99)
    assert all_frames(bytes(data), 3) == FRAMES


def test_frames_that_cannot_be_told_apart() -> None:
    data = encapsulate([b"abcdefgh" * 5, b"ijklmnop" * 5], fragments_per_frame=2, has_bot=False)
    with pytest.raises(FrameError, match="cannot be told apart"):
        fragments(data)[0].frames(3)
    with pytest.raises(FrameError, match="declares 5 frames, but has 4 fragments"):
        fragments(data)[0].frames(5)


def test_missing_sequence_delimiter_is_passed_over() -> None:
    assert len(all_frames(encapsulate(FRAMES), 3)) == 3


@pytest.mark.parametrize("data", [b"", b"\xfe\xff\x00\xe0", b"\xfe\xff\x00\xe0\x10\0\0\0abc", b"\x08\0\x05\0CS\0\0"])
def test_broken_fragments_are_refused(data: bytes) -> None:
    with pytest.raises(NotDicom):
        fragments(data)


@settings(max_examples=size(200, 4000))
@given(st.binary(max_size=120), st.integers(1, 5))
def test_hostile_fragments_end_in_an_error_or_frames(tail: bytes, count: int) -> None:
    with contextlib.suppress(FrameError, MediaError):
        found, _ = fragments(encapsulate(FRAMES, has_bot=False)[: 8 + len(tail) // 2] + tail)
        for pieces in found.frames(count):
            found.read(pieces)


def test_modules_stay_light() -> None:
    import subprocess
    import sys

    code = "import sys; import media.conform, media.compare; assert not {'numpy', 'pydicom'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
