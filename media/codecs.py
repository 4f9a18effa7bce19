"""Frames of compressed pixel data decoded to the samples that the encoder was given.

No colour is ever converted: what a codec's own reversible or irreversible transform needs (JPEG 2000's RCT and ICT) is
undone, YCbCr stays YCbCr, and the photometric interpretation is made to say so (PS3.5 8.2, PS3.3 C.7.6.3.1.2).
A decoder is C or Rust code fed with bytes of unknown origin: it may end the process, so callers use helper processes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

from media.codestreams import Codestream, FrameError, inspect
from media.syntaxes import TransferSyntax

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Samples = NDArray[Any]

Decoded = TypeVar("Decoded")

FRAME_LIMIT = 1 << 30
"""Bytes of one decoded frame beyond which we do not decode."""


class MoreBits(Exception):
    """Samples do not fit Bits Stored; decode again with ``bits_stored`` as the codestream has it."""

    def __init__(self, bits_stored: int) -> None:
        super().__init__(f"samples have {bits_stored} bits")
        self.bits_stored = bits_stored


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """The attributes that say how samples lie in Pixel Data (PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    samples: int
    photometric: str
    planar: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    frames: int = 1

    @property
    def sample_count(self) -> int:
        """Samples of one frame; two a pixel for chrominance subsampled YBR_FULL_422 in native form."""
        per_pixel = 2 if self.photometric == "YBR_FULL_422" and self.samples == 3 else self.samples
        return self.rows * self.columns * per_pixel

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame in memory (1-bit pixels unpacked, one a byte)."""
        return self.sample_count * max(self.bits_allocated // 8, 1)

    @property
    def pixel_bytes(self) -> int:
        """Bytes of the whole Pixel Data, without the pad byte (1-bit pixels are packed, also over frames)."""
        return (self.sample_count * self.frames * self.bits_allocated + 7) // 8


def decoded_format(syntax: TransferSyntax, declared: PixelFormat, stream: Codestream) -> PixelFormat:
    """The format in which decoded frames stand on the disc, from the data set's and the first frame's word."""
    photometric, planar = declared.photometric, declared.planar
    if syntax.codec in ("none", "deflate"):
        return declared
    if declared.samples == 3:
        if photometric in ("YBR_ICT", "YBR_RCT") or stream.rgb:
            photometric = "RGB"
        elif photometric == "YBR_FULL_422" or (stream.jfif and photometric == "RGB" and not syntax.lossless):
            photometric = "YBR_FULL"
    if syntax.codec != "rle" or planar not in (0, 1):
        planar = 0  # PS3.5 8.2.1 to 8.2.4; RLE keeps what the data set says, its own order being fixed (PS3.5 G)
    allocated, stored, high = declared.bits_allocated, declared.bits_stored, declared.high_bit
    if stream.precision > allocated:
        allocated = 8 if stream.precision <= 8 else 16 if stream.precision <= 16 else 32
        stored, high = stream.precision, stream.precision - 1
    return replace(
        declared, photometric=photometric, planar=planar, bits_allocated=allocated, bits_stored=stored, high_bit=high
    )


def require_within(form: PixelFormat, limit: int) -> None:
    """FrameError where a decoded frame has more than ``limit`` bytes."""
    if form.frame_bytes > limit:
        raise FrameError(f"a frame of {form.rows} x {form.columns} has {form.frame_bytes} bytes; the limit is {limit}")


def decode(syntax: TransferSyntax, frame: bytes, target: PixelFormat) -> bytes:
    """The samples of one frame as ``target`` asks (little endian, 1-bit pixels unpacked).

    FrameError says why it cannot be decoded; MoreBits that Bits Stored is too small for what is in it.
    """
    require_within(target, FRAME_LIMIT)
    if syntax.codec in ("none", "deflate"):
        return _plain(syntax.codec, frame, target)
    stream = inspect(syntax.codec, frame)
    for what, said, due in (
        ("rows", stream.rows, target.rows),
        ("columns", stream.columns, target.columns),
        ("components", stream.components, target.samples),
    ):
        if said and said != due:
            raise FrameError(f"its codestream has {said} {what}, the data set says {due}")
    if syntax.codec == "rle":
        samples, planar = _rle(frame, target)
        precision = target.bits_allocated
    else:
        samples, planar = _pixels(syntax.codec, frame, stream)
        precision = stream.precision
    if samples.size != target.sample_count:
        raise FrameError(f"it decodes to {samples.size} samples instead of {target.sample_count}")
    if syntax.codec != "rle":
        samples = _fitted(samples, precision, stream.signed, target)
        _check_range(samples, precision, target)
    if target.samples > 1 and planar != target.planar:
        pixels = target.rows * target.columns
        shape = (target.samples, pixels) if planar else (pixels, target.samples)
        samples = samples.reshape(shape).T
    return samples.tobytes()


def _plain(codec: str, frame: bytes, target: PixelFormat) -> bytes:
    length = (target.sample_count * target.bits_allocated + 7) // 8
    if codec == "deflate":
        try:
            frame = zlib.decompressobj(-zlib.MAX_WBITS).decompress(frame, length + 2)
        except zlib.error as error:
            raise FrameError(f"its deflated data is damaged ({error})") from None
    if not length <= len(frame) <= length + 1:
        raise FrameError(f"it decodes to {len(frame)} bytes instead of {length}")
    frame = frame[:length]
    if target.bits_allocated == 1:
        import numpy

        bits = numpy.unpackbits(numpy.frombuffer(frame, "u1"), bitorder="little")
        return bits[: target.sample_count].tobytes()
    return frame


def _guarded(decoder: Callable[[], Decoded]) -> Decoded:
    """What the decoder returns; whatever it raises (Rust panics are BaseExceptions) becomes a FrameError."""
    try:
        return decoder()
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001
        words = " ".join(str(error).split()) or type(error).__name__
        raise FrameError(f"the decoder refuses it: {words[:300]}") from None


def _rle(frame: bytes, target: PixelFormat) -> tuple[Samples, int]:
    import numpy
    from rle.utils import decode_pixel_data

    width = max(target.bits_allocated // 8, 1)
    segments = int.from_bytes(frame[:4], "little")
    if len(frame) < 64 or segments > 15 or segments != target.samples * width:
        raise FrameError(f"its RLE header has {segments} segments instead of {target.samples * width}")
    offsets = struct.unpack_from(f"<{segments}I", frame, 4)
    if offsets[0] != 64 or any(one >= other for one, other in pairwise((*offsets, len(frame)))):
        raise FrameError("its RLE header is damaged: the segments' offsets do not ascend within the frame")
    if target.bits_allocated == 1:
        return _rle_bits(frame, target), 1
    data = _guarded(
        lambda: decode_pixel_data(
            frame,
            version=2,
            rows=target.rows,
            columns=target.columns,
            bits_allocated=target.bits_allocated,
            samples_per_pixel=target.samples,
            byteorder="<",
        )
    )
    return numpy.frombuffer(data, f"<u{width}"), 1


def _rle_bits(frame: bytes, target: PixelFormat) -> Samples:
    """1-bit pixels: writers run-length encode the packed bits, as they stand in native form, or one pixel a byte."""
    import numpy
    from rle.rle import decode_segment

    offset = int.from_bytes(frame[4:8], "little")
    data = _guarded(lambda: bytes(decode_segment(frame[offset:])))
    packed = (target.sample_count + 7) // 8
    if packed <= len(data) <= packed + 1:
        return numpy.unpackbits(numpy.frombuffer(data, "u1"), bitorder="little")[: target.sample_count]
    return numpy.frombuffer(data[: max(target.sample_count, len(data) - 1)], "u1")


def _pixels(codec: str, frame: bytes, stream: Codestream) -> tuple[Samples, int]:
    """Samples in the smallest container for their precision, and their planar configuration."""
    import numpy

    if codec != "jpeg2000" and frame.rfind(b"\xff\xd9") < frame.rfind(b"\xff\xda"):
        raise FrameError("its codestream is cut off: there is no end marker")  # decoders would invent the rest
    width = 1 if stream.precision <= 8 else 2 if stream.precision <= 16 else 4
    planar = 0
    if codec == "jpeg-ls":
        data, planar = _jpeg_ls(frame, stream)
    elif codec == "jpeg":
        data = _libjpeg(_mended(frame) if stream.sequential else frame)
    else:
        from openjpeg.utils import decode_pixel_data

        data = _guarded(lambda: bytes(decode_pixel_data(frame, version=2)))
    if len(data) % width:
        raise FrameError(f"it decodes to {len(data)} bytes, which are no {width} byte samples")
    return numpy.frombuffer(data, f"<u{width}"), planar


def _mended(frame: bytes) -> bytes:
    """Sequential JPEG with the one spectral selection that it can have: some encoders write another (T.81 B.2.3)."""
    at = frame.find(b"\xff\xda")
    while 0 <= at < len(frame) - 5:
        length, components = struct.unpack_from(">HB", frame, at + 2)
        selection = at + 5 + 2 * components
        if length == 6 + 2 * components and frame[selection : selection + 3] not in (b"", b"\0\x3f\0"):
            frame = frame[:selection] + b"\0\x3f\0" + frame[selection + 3 :]
        at = frame.find(b"\xff\xda", at + 2)
    return frame


def _libjpeg(frame: bytes) -> bytes:
    from libjpeg.utils import decode_pixel_data

    return _guarded(lambda: bytes(decode_pixel_data(frame, version=2)))


def _jpeg_ls(frame: bytes, stream: Codestream) -> tuple[bytes, int]:
    import jpeg_ls  # type: ignore[import-untyped]

    data, info = _guarded(lambda: jpeg_ls.decode_pixel_data(frame))
    return bytes(data), int(stream.components > 1 and info["interleave_mode"] == 0)


def _fitted(samples: Samples, precision: int, stream_signed: bool, target: PixelFormat) -> Samples:
    """Widened to Bits Allocated; the sign is that of Pixel Representation, since not all codecs carry one."""
    width = max(target.bits_allocated, 8)
    fitted = samples.astype(f"<u{width // 8}", copy=False)
    spare = width - precision
    if spare <= 0:
        return fitted
    if target.signed:
        extended = (fitted << spare).view(f"<i{width // 8}") >> spare
        return extended.view(f"<u{width // 8}")
    if stream_signed:
        return fitted & ((1 << precision) - 1)
    return fitted


def _check_range(samples: Samples, precision: int, target: PixelFormat) -> None:
    """Codecs may carry more bits than Bits Stored; a sample that uses them would be misread."""
    if precision <= target.bits_stored or target.high_bit != target.bits_stored - 1 or not samples.size:
        return
    if target.signed:
        values = samples.view(f"<i{max(target.bits_allocated, 8) // 8}")
        half = 1 << (target.bits_stored - 1)
        fits = values.min() >= -half and values.max() < half
    else:
        fits = samples.max() < 1 << target.bits_stored
    if not fits:
        raise MoreBits(precision)


class BitPacker:
    """Packs unpacked 1-bit frames as Pixel Data wants them: eight a byte, also over frame borders (PS3.5 8.1.1)."""

    def __init__(self) -> None:
        self._rest = b""

    def pack(self, frame: bytes) -> bytes:
        import numpy

        bits = self._rest + frame
        whole = len(bits) - len(bits) % 8
        self._rest = bits[whole:]
        return numpy.packbits(numpy.frombuffer(bits[:whole], "u1") != 0, bitorder="little").tobytes()

    def finish(self) -> bytes:
        rest = self._rest
        return self.pack(bytes(8 - len(rest))) if rest else b""
