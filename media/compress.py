"""Pixel data compressed frame by frame, from any syntax that we decode: the first of two runs over an instance.

Every frame is decoded and compressed into a file beside the target, so that the offset table is known before the frames
are; the second run (``media.framewriter``) writes the data set around them. Nothing but one frame is in memory. Where
the encoder is lossless no sample changes (expanding a palette changes how they are written, not how they look).
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO

from media import pixels
from media.codecs import FRAME_LIMIT, PixelFormat
from media.codestreams import FrameError
from media.elements import PIXEL_DATA
from media.encoders import Encoder, encode
from media.framewriter import is_palette
from media.pixellimits import pixel_limits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Samples = NDArray[Any]

SOP_CLASS = 0x00080016
KEPT = pixels.FACTS | {SOP_CLASS}
"""Attributes of the top level that are kept, beside palettes."""
_FLOATS = frozenset((0x7FE00008, 0x7FE00009))
_HELD = 1 << 18
_WAVELETS = 1 << 5
"""Rows and columns that the JPEG 2000 encoder's fixed number of resolutions takes."""
_COLOURS = ("RGB", "YBR_FULL")
_GREYS = ("MONOCHROME1", "MONOCHROME2")


class Unsuitable(Exception):
    """This pixel data cannot be compressed as asked, for a reason that is no fault of it; it can stay as it is."""


class FrameCollector:
    """First run: an Emitter that compresses the frames of the top level's Pixel Data into ``store``."""

    def __init__(self, encoder: Encoder, store: BinaryIO) -> None:
        self._encoder, self._store = encoder, store
        self._depth = 0
        self._values: dict[int, bytes] = {}
        self.lengths = array("Q")
        """Bytes of each frame, the pad byte included."""
        self.before: PixelFormat | None = None
        self.after: PixelFormat | None = None
        """How samples lay, and how the compressed frames' samples lie; None without pixel data."""

    def value(self, tag: int, vr: str, length: int, pieces: Iterator[bytes]) -> None:
        if self._depth == 0 and tag == PIXEL_DATA:
            self._compress(length, pieces)
            return
        keep = self._depth == 0 and length <= _HELD and (tag in KEPT or is_palette(tag))
        value = bytearray()
        for piece in pieces:
            if keep:
                value += piece
        if keep:
            self._values[tag] = bytes(value)
        if self._depth == 0 and tag in _FLOATS:
            raise Unsuitable("its samples are floating point numbers")

    def raw_sequence(self, tag: int) -> Callable[[bytes], None]:
        return lambda _: None

    def begin_sequence(self, tag: int) -> None:
        self._depth += 1

    def begin_item(self) -> None: ...

    def end_item(self) -> None: ...

    def end_sequence(self, tag: int) -> None:
        self._depth -= 1

    def _compress(self, length: int, pieces: Iterator[bytes]) -> None:
        try:
            before = pixels.pixel_format(self._values)
        except FrameError as error:
            raise Unsuitable(str(error)) from None
        require_suitable(before, self._encoder, length)
        prepare, after = self._treatment(before)
        source = pixels.Pieces(pieces)
        for number in range(1, before.frames + 1):
            samples = prepare(samples_of(source.take(before.frame_bytes), before, self._encoder))
            try:
                frame = self._encoded(samples, after)
            except FrameError as error:
                raise FrameError(f"frame {number} of {before.frames} cannot be compressed: {error}") from None
            self._store.write(frame)
            if len(frame) % 2:
                self._store.write(b"\0")
            self.lengths.append(len(frame) + len(frame) % 2)
        if any(piece.strip(b"\0") for piece in source.rest()):
            raise Unsuitable("there is more pixel data than its attributes say")
        photometric = self._encoder.rgb if after.photometric == "RGB" else after.photometric
        self.before, self.after = before, replace(after, photometric=photometric, planar=0)

    def _treatment(self, before: PixelFormat) -> tuple[Callable[[Samples], Samples], PixelFormat]:
        """What is done to the samples of a frame before they are encoded, and how they lie then."""
        if before.photometric == "PALETTE COLOR" and self._encoder.palette == "expand":
            table = palette_table(self._values, before)
            bits = table.dtype.itemsize * 8
            after = replace(
                before, samples=3, photometric="RGB", bits_allocated=bits, bits_stored=bits, high_bit=bits - 1
            )
            return lambda samples: table[samples.reshape(-1)], after
        if self._encoder.codec != "rle" and before.bits_allocated == 16 and before.bits_stored <= 8:
            if pixel_limits(pixels.text(self._values, SOP_CLASS)).sixteen_bits:
                require_wide_cells(self._encoder)
                return lambda samples: samples, before
            cell = "i1" if before.signed else "u1"
            return lambda samples: samples.astype(cell), replace(before, bits_allocated=8)
        return lambda samples: samples, before

    def _encoded(self, samples: Samples, form: PixelFormat) -> bytes:
        return encode(self._encoder, samples, form)


def require_suitable(form: PixelFormat, encoder: Encoder, length: int) -> None:
    """Unsuitable, with the reason, where the encoder cannot take pixel data of ``length`` bytes as it is described."""
    allowed: tuple[tuple[bool, str], ...] = (
        (form.bits_allocated in (8, 16, 32), f"its cells have {form.bits_allocated} bits"),
        (
            form.bits_allocated <= 16 or encoder.max_bits > 16,
            f"its cells have {form.bits_allocated} bits, the codec takes {encoder.max_bits}",
        ),
        (
            encoder.codec != "jpeg2000" or min(form.rows, form.columns) >= _WAVELETS,
            "it is too small for the encoder's six resolutions",
        ),
        (form.samples in (1, 3), f"it has {form.samples} samples a pixel"),
        (
            form.photometric in (*_GREYS, "PALETTE COLOR") if form.samples == 1 else form.photometric in _COLOURS,
            f"its photometric interpretation is {form.photometric or 'missing'}",
        ),
        (form.samples == 1 or not form.signed, "its colours are signed"),
        (form.samples == 1 or form.bits_stored == form.bits_allocated, "its colours do not fill their cells"),
        (0 < form.bits_stored <= form.bits_allocated, f"its Bits Stored is {form.bits_stored}"),
        (form.high_bit == form.bits_stored - 1, f"its High Bit is {form.high_bit}"),
        (form.frame_bytes <= FRAME_LIMIT, f"a frame has {form.frame_bytes} bytes"),
        (form.pixel_bytes <= length, "there is less pixel data than its attributes say"),
    )
    for fits, words in allowed:
        if not fits:
            raise Unsuitable(words)


def require_wide_cells(encoder: Encoder) -> None:
    """Unsuitable where the encoder brings 8 bits stored into cells of 8 bits, and the SOP class demands 16."""
    if encoder.codec != "jpeg-lossless" and encoder.max_bits != 12:
        raise Unsuitable("its SOP class demands 16 bits allocated, this codec makes 8 of what has no more")


def samples_of(frame: bytes, form: PixelFormat, encoder: Encoder) -> Samples:
    """One frame colour-by-pixel. Unsuitable where a cell holds more than the sample (an overlay, say)."""
    import numpy

    sign = "i" if form.signed else "u"
    samples = numpy.frombuffer(frame, f"<{sign}{form.bits_allocated // 8}")
    if form.samples > 1 and form.planar == 1:
        samples = numpy.ascontiguousarray(samples.reshape(form.samples, -1).T).reshape(-1)
    if encoder.codec != "rle" and form.bits_stored < form.bits_allocated:
        half = 1 << (form.bits_stored - 1) if form.signed else 0
        low, high = (-half, half - 1) if form.signed else (0, (1 << form.bits_stored) - 1)
        if samples.min() < low or samples.max() > high:
            raise Unsuitable("its cells hold more than Bits Stored, like an overlay")
    return samples


def palette_table(values: dict[int, bytes], form: PixelFormat) -> Samples:
    """The colour of every possible sample, 8 bits each where 16 say no more (PS3.3 C.7.6.3.1.5)."""
    import numpy
    from pydicom.dataset import Dataset
    from pydicom.pixels.processing import apply_color_lut

    if form.signed or form.bits_allocated > 16:
        raise Unsuitable("its palette has signed or very large indices")
    palette = Dataset()
    palette.set_original_encoding(is_implicit_vr=False, is_little_endian=True)
    for tag, value in values.items():
        if tag in range(0x00281101, 0x00281104) and len(value) == 6:
            palette.add_new(tag, "US", list(struct.unpack("<3H", value)))
        elif is_palette(tag) and tag != 0x00281199:
            palette.add_new(tag, "OW", value)
    indices = numpy.arange(1 << form.bits_allocated, dtype=f"u{form.bits_allocated // 8}").reshape(1, -1)
    try:
        table: Samples = apply_color_lut(indices, palette)[0]
    except Exception as error:  # noqa: BLE001 - whatever a hostile palette makes of it
        raise Unsuitable(f"its palette cannot be read ({error})") from None
    if table.shape != (1 << form.bits_allocated, 3):
        raise Unsuitable("its palette has other than three colours")
    if table.dtype.itemsize == 2 and (not (table & 0xFF).any() or not (table % 257).any()):
        table = (table >> 8).astype("u1")
    return table
