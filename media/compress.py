"""An instance with its pixel data losslessly compressed, frame by frame (PS3.5 A.4), from any syntax that we decode.

Two runs over the source: the first decodes and compresses every frame into a file beside the target, so that the offset
table is known before the frames are; the second writes the data set around them. Nothing but one frame is in memory.
The SOP Instance UID stays: no sample changes (expanding a palette changes how they are written, not how they look).
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, BinaryIO, Protocol

from media import pixels
from media.codecs import FRAME_LIMIT, FrameError, PixelFormat
from media.elements import PIXEL_DATA
from media.encoders import Encoder, encode
from media.part10 import CHUNK

_PALETTE = range(0x00281101, 0x00281104), range(0x00281199, 0x0028119A), range(0x00281201, 0x00281224)
"""Palette Color Lookup Tables: descriptors, UID, data and segmented data (PS3.3 C.7.9)."""
_FLOATS = frozenset((0x7FE00008, 0x7FE00009))
_HELD = 1 << 18
_BASIC_LIMIT = 0xFFFFFFFF
"""Offsets beyond this need an Extended Offset Table (PS3.5 A.4)."""
_EXTENDED, _EXTENDED_LENGTHS = 0x7FE00001, 0x7FE00002
_WAVELETS = 1 << 5
"""Rows and columns that the JPEG 2000 encoder's fixed number of resolutions takes."""
_COLOURS = ("RGB", "YBR_FULL")
_GREYS = ("MONOCHROME1", "MONOCHROME2")


class Unsuitable(Exception):
    """This pixel data cannot be compressed as asked, for a reason that is no fault of it; it can stay as it is."""


class Writer(Protocol):
    """What ``media.explicit.ExplicitWriter`` offers."""

    def write(self, data: bytes) -> None: ...
    def value(self, tag: int, vr: str, length: int, pieces: Iterator[bytes]) -> None: ...
    def raw_sequence(self, tag: int) -> Callable[[bytes], None]: ...
    def begin_sequence(self, tag: int) -> None: ...
    def begin_item(self) -> None: ...
    def end_item(self) -> None: ...
    def end_sequence(self, tag: int) -> None: ...


def _is_palette(tag: int) -> bool:
    return any(tag in tags for tags in _PALETTE)


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
        keep = self._depth == 0 and length <= _HELD and (tag in pixels.FACTS or _is_palette(tag))
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
        _require_suitable(before, self._encoder, length)
        table = None
        after = before
        if before.photometric == "PALETTE COLOR" and self._encoder.palette == "expand":
            table = _palette_table(self._values, before)
            bits = table.dtype.itemsize * 8
            after = replace(
                before, samples=3, photometric="RGB", bits_allocated=bits, bits_stored=bits, high_bit=bits - 1
            )
        elif self._encoder.codec != "rle" and before.bits_allocated == 16 and before.bits_stored <= 8:
            after = replace(after, bits_allocated=8)
        source = pixels.Pieces(pieces)
        for number in range(1, before.frames + 1):
            samples = _samples(source.take(before.frame_bytes), before, self._encoder)
            if table is not None:
                samples = table[samples.reshape(-1)]
            elif after.bits_allocated != before.bits_allocated:
                samples = samples.astype("i1" if after.signed else "u1")
            try:
                frame = encode(self._encoder, samples, after)
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


def _require_suitable(form: PixelFormat, encoder: Encoder, length: int) -> None:
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


def _samples(frame: bytes, form: PixelFormat, encoder: Encoder) -> Any:
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


def _palette_table(values: dict[int, bytes], form: PixelFormat) -> Any:
    """The colour of every possible sample, 8 bits each where 16 say no more (PS3.3 C.7.6.3.1.5)."""
    import numpy
    from pydicom.dataset import Dataset
    from pydicom.pixels.processing import apply_color_lut

    if form.signed or form.bits_allocated > 16:
        raise Unsuitable("its palette has signed or very large indices")
    palette = Dataset()
    for tag, value in values.items():
        if tag in range(0x00281101, 0x00281104) and len(value) == 6:
            palette.add_new(tag, "US", list(struct.unpack("<3H", value)))
        elif _is_palette(tag) and tag != 0x00281199:
            palette.add_new(tag, "OW", value)
    indices = numpy.arange(1 << form.bits_allocated, dtype=f"u{form.bits_allocated // 8}").reshape(1, -1)
    try:
        table = apply_color_lut(indices, palette)[0]
    except Exception as error:  # noqa: BLE001 - whatever a hostile palette makes of it
        raise Unsuitable(f"its palette cannot be read ({error})") from None
    if table.shape != (1 << form.bits_allocated, 3):
        raise Unsuitable("its palette has other than three colours")
    if table.dtype.itemsize == 2 and (not (table & 0xFF).any() or not (table % 257).any()):
        table = (table >> 8).astype("u1")
    return table


class FrameWriter:
    """Second run: an Emitter that writes the data set around the frames that ``collector`` left in ``store``."""

    def __init__(self, writer: Writer, collector: FrameCollector, store: BinaryIO, *, consume: bool) -> None:
        assert collector.before is not None and collector.after is not None
        self._writer, self._store, self._consume = writer, store, consume
        self._depth = 0
        self._lengths = collector.lengths
        self._drop_palette = collector.before.samples != collector.after.samples
        self.changes: list[tuple[int, str, str]] = []
        self._pending = self._overrides(collector.before, collector.after)
        offsets = array("Q", [0])
        for length in self._lengths:
            offsets.append(offsets[-1] + length + 8)
        self._basic = b""
        if offsets[-2] <= _BASIC_LIMIT:
            self._basic = struct.pack(f"<{len(self._lengths)}I", *offsets[:-1])
        else:
            self._pending[_EXTENDED] = ("OV", struct.pack(f"<{len(self._lengths)}Q", *offsets[:-1]))
            self._pending[_EXTENDED_LENGTHS] = ("OV", struct.pack(f"<{len(self._lengths)}Q", *self._lengths))

    def _overrides(self, before: PixelFormat, after: PixelFormat) -> dict[int, tuple[str, bytes]]:
        found: dict[int, tuple[str, bytes]] = {}
        if before.photometric != after.photometric:
            value = after.photometric.encode("ascii")
            found[pixels.PHOTOMETRIC] = ("CS", value + b" " * (len(value) % 2))
            self.changes.append((pixels.PHOTOMETRIC, before.photometric, after.photometric))
        numbers = [
            (pixels.SAMPLES, before.samples, after.samples),
            (pixels.ALLOCATED, before.bits_allocated, after.bits_allocated),
            (pixels.STORED, before.bits_stored, after.bits_stored),
            (pixels.HIGH, before.high_bit, after.high_bit),
        ]
        if after.samples > 1:
            numbers.append((pixels.PLANAR, before.planar if before.samples > 1 else -1, 0))
        for tag, old, new in numbers:
            if old != new:
                found[tag] = ("US", struct.pack("<H", new))
                self.changes.append((tag, str(old) if old >= 0 else "", str(new)))
        return found

    def copy(self, tag: int, encoded: bytes) -> None:
        """An element of the top level that is encoded as it is to be written, if it stays; any for Pixel Data."""
        if tag == PIXEL_DATA or tag in self._pending or (self._drop_palette and _is_palette(tag)):
            self.value(tag, "", 0, iter(()))
            return
        if self._pending:
            self._flush(tag)
        self._writer.write(encoded)

    def _flush(self, tag: int) -> None:
        if self._depth == 0:
            for due in sorted(due for due in self._pending if due < tag):
                vr, value = self._pending.pop(due)
                self._writer.value(due, vr, len(value), iter((value,)))

    def value(self, tag: int, vr: str, length: int, pieces: Iterator[bytes]) -> None:
        self._flush(tag)
        if self._depth == 0 and tag == PIXEL_DATA:
            if self._consume:
                for _ in pieces:
                    pass
            self._frames()
        elif self._depth == 0 and tag in self._pending:
            for _ in pieces:
                pass
            vr, value = self._pending.pop(tag)
            self._writer.value(tag, vr, len(value), iter((value,)))
        elif self._depth == 0 and self._drop_palette and _is_palette(tag):
            for _ in pieces:
                pass
            self.changes.append((tag, "present", "removed: the palette is expanded"))
        else:
            self._writer.value(tag, vr, length, pieces)

    def _frames(self) -> None:
        write = self._writer.write
        # Pixel Data, OB, undefined length; then the item with the Basic Offset Table (PS3.5 A.4)
        write(struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF))
        write(struct.pack("<HHI", 0xFFFE, 0xE000, len(self._basic)) + self._basic)
        self._store.seek(0)
        for length in self._lengths:
            write(struct.pack("<HHI", 0xFFFE, 0xE000, length))
            for start in range(0, length, CHUNK):
                write(self._store.read(min(length - start, CHUNK)))
        write(struct.pack("<HHI", 0xFFFE, 0xE0DD, 0))

    def raw_sequence(self, tag: int) -> Callable[[bytes], None]:
        self._flush(tag)
        return self._writer.raw_sequence(tag)

    def begin_sequence(self, tag: int) -> None:
        self._flush(tag)
        self._depth += 1
        self._writer.begin_sequence(tag)

    def begin_item(self) -> None:
        self._writer.begin_item()

    def end_item(self) -> None:
        self._writer.end_item()

    def end_sequence(self, tag: int) -> None:
        self._depth -= 1
        self._writer.end_sequence(tag)


def merged(changes: list[tuple[int, str, str]]) -> list[tuple[int, str, str]]:
    """One change for each tag: the first old and the last new value; none where they are equal."""
    found: dict[int, tuple[str, str]] = {}
    for tag, old, new in changes:
        found[tag] = (found[tag][0] if tag in found else old, new)
    return [(tag, old, new) for tag, (old, new) in found.items() if old != new]
