"""Pixel Data of a data set or item: what decoding changes in it, and its samples frame by frame (PS3.5 section 8)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from media.codecs import FRAME_LIMIT, BitPacker, PixelFormat, decode, decoded_format
from media.codestreams import FrameError, inspect
from media.elements import Element, Source, swapped, tag_text
from media.frames import Fragments
from media.part10 import CHUNK
from media.syntaxes import TransferSyntax

PHOTOMETRIC, PLANAR, FRAMES, ALLOCATED, STORED, HIGH, SIGNED = (
    0x00280004, 0x00280006, 0x00280008, 0x00280100, 0x00280101, 0x00280102, 0x00280103,
)  # fmt: skip
SAMPLES, ROWS, COLUMNS = 0x00280002, 0x00280010, 0x00280011
TEXT_FACTS = frozenset((PHOTOMETRIC, FRAMES))
FACTS = TEXT_FACTS | {PLANAR, ALLOCATED, STORED, HIGH, SIGNED, SAMPLES, ROWS, COLUMNS}
"""The attributes that say how samples lie; those that are not text are US."""
_NAMES = {SAMPLES: "Samples per Pixel", ROWS: "Rows", COLUMNS: "Columns", ALLOCATED: "Bits Allocated"}
_LIMIT = 0xFFFFFFFE

Facts = Mapping[int, bytes]
"""Values of the attributes of one data set, little endian, by tag."""


class Oversized(Exception):
    """Decoded, the pixel data is longer than one element can be; the text gives the length."""


def text(facts: Facts, tag: int) -> str:
    return facts.get(tag, b"").decode("latin-1").strip("\0 ")


def pixel_format(facts: Facts) -> PixelFormat:
    """How the data set says that its samples lie; FrameError where it does not say so."""

    def number(tag: int, default: int | None = None) -> int:
        value = facts.get(tag, b"")
        if len(value) >= 2:
            return int.from_bytes(value[:2], "little")
        if default is None:
            raise FrameError(f"the data set has no {_NAMES[tag]} {tag_text(tag)}")
        return default

    frames = text(facts, FRAMES) or "1"
    if not frames.isascii() or not frames.isdigit():
        raise FrameError(f"Number of Frames (0028,0008) is {frames!r}")
    allocated = number(ALLOCATED)
    if allocated not in (1, 8, 16, 32, 64):
        raise FrameError(f"Bits Allocated (0028,0100) is {allocated}")
    stored = number(STORED, allocated)
    form = PixelFormat(
        rows=number(ROWS),
        columns=number(COLUMNS),
        samples=number(SAMPLES, 1),
        photometric=text(facts, PHOTOMETRIC),
        planar=number(PLANAR, 0),
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=number(HIGH, stored - 1),
        signed=number(SIGNED, 0) == 1,
        frames=int(frames) or 1,
    )
    if not form.rows or not form.columns or not form.samples:
        raise FrameError("Rows, Columns or Samples per Pixel is 0")
    return form


@dataclass(slots=True)
class CompressedPixels:
    """One encapsulated Pixel Data, found but not yet decoded."""

    syntax: TransferSyntax
    fragments: Fragments
    frames: list[range]
    """The fragments of each frame."""
    end: int
    """Offset behind the whole element."""
    target: PixelFormat
    """How the decoded samples lie."""
    overrides: dict[int, tuple[str, bytes]]
    """VR and value of each attribute that decoding changes."""
    changes: list[tuple[int, str, str]]
    """The same as tag, old and new value in words."""

    @property
    def vr(self) -> str:
        """PS3.5 A.2: OW above 8 bits, OB at and below (where OW would do as well)."""
        return "OW" if self.target.bits_allocated > 8 else "OB"

    @property
    def length(self) -> int:
        """Bytes of the decoded element's value, the pad byte included."""
        return self.target.pixel_bytes + self.target.pixel_bytes % 2

    def samples(self) -> Iterator[bytes]:
        """The decoded value, a frame at a time. FrameError names the frame; MoreBits as ``codecs.decode`` has it."""
        packer = BitPacker() if self.target.bits_allocated == 1 else None
        for number, fragments in enumerate(self.frames, 1):
            try:
                frame = decode(self.syntax, self.fragments.read(fragments), self.target)
            except FrameError as error:
                raise FrameError(f"frame {number} of {len(self.frames)} cannot be decoded: {error}") from None
            yield packer.pack(frame) if packer else frame
        if packer:
            yield packer.finish()
        if self.target.pixel_bytes % 2:
            yield b"\0"


def compressed_pixels(
    source: Source, facts: Facts, syntax: TransferSyntax, *, bits_stored: int | None = None, by_pixel: bool = False
) -> CompressedPixels:
    """Plan the decoding of the encapsulated Pixel Data whose first item ``source`` stands at.

    ``bits_stored`` replaces what the data set says, ``by_pixel`` asks for planar configuration 0 in any case.
    FrameError and Oversized say why it cannot be decoded.
    """
    declared = pixel_format(facts)
    if declared.pixel_bytes > _LIMIT:
        raise Oversized(f"{declared.pixel_bytes} bytes")
    fragments = Fragments(source)
    end = source.tell()
    frames = list(fragments.frames(declared.frames))
    target = decoded_format(syntax, declared, inspect(syntax.codec, fragments.read(frames[0])))
    if bits_stored is not None:
        target = replace(target, bits_stored=bits_stored, high_bit=bits_stored - 1)
    if by_pixel:
        target = replace(target, planar=0)
    if target.pixel_bytes > _LIMIT:
        raise Oversized(f"{target.pixel_bytes} bytes")
    overrides: dict[int, tuple[str, bytes]] = {}
    changes: list[tuple[int, str, str]] = []
    if target.photometric != declared.photometric:
        value = target.photometric.encode("ascii")
        overrides[PHOTOMETRIC] = ("CS", value + b" " * (len(value) % 2))
        changes.append((PHOTOMETRIC, declared.photometric, target.photometric))
    numbers = [
        (ALLOCATED, declared.bits_allocated, target.bits_allocated),
        (STORED, declared.bits_stored, target.bits_stored),
        (HIGH, declared.high_bit, target.high_bit),
    ]
    if declared.samples > 1:
        numbers.append((PLANAR, declared.planar if PLANAR in facts else -1, target.planar))
    for tag, old, new in numbers:
        if old != new:
            overrides[tag] = ("US", struct.pack("<H", new))
            changes.append((tag, str(old) if old >= 0 else "", str(new)))
    return CompressedPixels(syntax, fragments, frames, end, target, overrides, changes)


def cell_unit(sample: bytes, bits_allocated: int) -> int:
    """In which units big endian Pixel Data of VR OW is to be swapped.

    By PS3.5 8.1.1 cells of more than 16 bits are packed least significant word first and each word is swapped (as DCMTK
    and GDCM do); many writers swap whole cells instead (as pydicom reads). In images the most significant word varies
    least, so it shows which was meant; where both vary alike, whole cells are.
    """
    unit = bits_allocated // 8
    if unit not in (4, 8) or len(sample) < unit:
        return 2
    whole = len(sample) - len(sample) % unit
    first = {sample[at : at + 2] for at in range(0, whole, unit)}
    last = {sample[at : at + 2] for at in range(unit - 2, whole, unit)}
    return unit if len(first) <= len(last) else 2


class Pieces:
    """Bytes that come in pieces, taken in others."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._buffer = b""

    def take(self, count: int) -> bytes:
        parts = [self._buffer]
        have = len(self._buffer)
        while have < count and (piece := next(self._pieces, b"")):
            parts.append(piece)
            have += len(piece)
        data = b"".join(parts)
        self._buffer = data[count:]
        return data[:count]

    def rest(self) -> Iterator[bytes]:
        yield self._buffer
        yield from self._pieces


def plain_samples(source: Source, element: Element, facts: Facts, unit: int) -> Iterator[bytes]:
    """Native Pixel Data as a comparison wants it: colour-by-pixel, without zero bytes behind the last frame.

    ``unit`` is that of the byte order, 1 for none. What does not fit the data set's own description comes as it is.
    """
    pieces = Pieces(swapped(piece, unit) for piece in source.chunks(element.length))
    try:
        form = pixel_format(facts)
    except FrameError:
        form = None
    if form is not None and form.pixel_bytes <= element.length:
        if form.samples > 1 and form.planar == 1 and form.bits_allocated >= 8 and form.frame_bytes <= FRAME_LIMIT:
            import numpy

            for _ in range(form.frames):
                cells = numpy.frombuffer(pieces.take(form.frame_bytes), f"u{form.bits_allocated // 8}")
                yield cells.reshape(form.samples, -1).T.tobytes()
        else:
            left = form.pixel_bytes
            while left:
                piece = pieces.take(min(left, CHUNK))
                left -= len(piece)
                yield piece
        if form.pixel_bytes % 2:
            pieces.take(1)
            yield b"\0"
        yield from (piece for piece in pieces.rest() if piece.strip(b"\0"))
        return
    yield from pieces.rest()
