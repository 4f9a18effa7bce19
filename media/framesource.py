"""One frame of an image's pixel data with the attributes that say how it is shown, read without the other frames."""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from media import pixels
from media.codecs import FRAME_LIMIT, MoreBits, PixelFormat, decode, require_within
from media.codestreams import FrameError
from media.elements import (
    PIXEL_DATA,
    UNDEFINED,
    Element,
    Encoding,
    dictionary_vr,
    elements,
    encoding_of,
    items,
    open_source,
    settled,
    skip_value,
    swapped,
)
from media.part10 import CHUNK, locate
from media.pixels import cell_unit, compressed_pixels, pixel_format
from media.problems import InstanceRefused, NotDicom
from media.syntaxes import require_decodable, transfer_syntax

REPRESENTATIVE_FRAME = 0x00286010
PADDING_VALUE, PADDING_LIMIT = 0x00280120, 0x00280121
PIXEL_ASPECT_RATIO, PIXEL_SPACING, IMAGER_PIXEL_SPACING = 0x00280034, 0x00280030, 0x00181164
WINDOW_CENTER, WINDOW_WIDTH, VOI_FUNCTION = 0x00281050, 0x00281051, 0x00281056
INTERCEPT, SLOPE = 0x00281052, 0x00281053
MODALITY_LUTS, VOI_LUTS = 0x00283000, 0x00283010
LUT_DESCRIPTOR, LUT_DATA = 0x00283002, 0x00283006
PALETTE_DESCRIPTORS = (0x00281101, 0x00281102, 0x00281103)
PALETTES = (0x00281201, 0x00281202, 0x00281203)
SEGMENTED_PALETTES = (0x00281221, 0x00281222, 0x00281223)
_SHARED, _PER_FRAME = 0x52009229, 0x52009230
_WORDS = {
    *(REPRESENTATIVE_FRAME, PADDING_VALUE, PADDING_LIMIT, LUT_DESCRIPTOR, LUT_DATA),
    *(*PALETTE_DESCRIPTORS, *PALETTES, *SEGMENTED_PALETTES),
    *(pixels.FACTS - pixels.TEXT_FACTS),
}
"""Wanted attributes of 16-bit words."""
_WANTED = (
    _WORDS
    | pixels.TEXT_FACTS
    | {PIXEL_ASPECT_RATIO, PIXEL_SPACING, IMAGER_PIXEL_SPACING, WINDOW_CENTER, WINDOW_WIDTH, VOI_FUNCTION}
    | {INTERCEPT, SLOPE}
)
_LONGEST = 1 << 18
"""Bytes of the longest wanted value: a lookup table has 65,536 entries of 16 bits at most."""
_GROUPS_DEPTH = 4


@dataclass(frozen=True, slots=True)
class Frame:
    """A decoded frame."""

    samples: bytes
    """Little endian as ``form`` says; 1-bit pixels unpacked."""
    form: PixelFormat
    facts: dict[int, bytes]
    """Values by tag; of functional groups those of this frame, of palettes those of the data set."""
    luts: dict[int, dict[int, bytes]]
    """First item of Modality LUT Sequence and VOI LUT Sequence, by their tags."""
    number: int
    """From 1."""
    frames: int = 1
    """How many the image has."""


def representative_frame(path: Path) -> Frame:
    """The frame that Representative Frame Number (0028,6010) names, else the one a third of the way through.

    (PS3.11 A.3.3.2, note 2.) Memory is bounded by that frame. InstanceRefused where there is no image, or it cannot be
    decoded; NotDicom for a malformed file. Decoders may crash on hostile data: call it in a helper process.
    """
    return frame_at(path, None)


def frame_at(path: Path, number: int | None, *, limit: int = FRAME_LIMIT) -> Frame:
    """A frame by its number, from 1; None is the representative one. Raises as above, and InstanceRefused where there
    is no such frame, or where it has more than ``limit`` bytes: then nothing was decoded.
    """
    located = locate(path)
    syntax = transfer_syntax(located.transfer_syntax_uid)
    try:
        require_decodable(syntax, located.sop_instance_uid or path.name)
        with path.open("rb") as stream:
            return _Reader(stream, located.dataset_offset, syntax.uid, path.name, number, limit).frame()
    except (FrameError, pixels.Oversized) as error:
        raise InstanceRefused("PROC_FAILURE", f"its pixel data cannot be decoded: {error}") from None
    except struct.error as error:
        raise NotDicom(f"{path.name} cannot be read: {error}") from error


class _Reader:
    """One walk through a data set, up to and into its pixel data."""

    def __init__(
        self, stream: BinaryIO, start: int, syntax_uid: str, name: str, number: int | None, limit: int
    ) -> None:
        self._number, self._limit = number, limit
        self._syntax = transfer_syntax(syntax_uid)
        self._source = open_source(stream, start, syntax_uid, name)
        self._encoding = settled(self._source, encoding_of(syntax_uid))
        self._facts: dict[int, bytes] = {}
        self._luts: dict[int, dict[int, bytes]] = {}

    def frame(self) -> Frame:
        for element in elements(self._source, self._encoding, None, top=True):
            if element.tag == PIXEL_DATA:
                samples, form, number = self._decode(element)
                return Frame(samples, form, self._facts, self._luts, number, max(1, form.frames))
            self._note(self._encoding, element, self._facts)
        raise InstanceRefused("PROC_FAILURE", "it has no Pixel Data (7FE0,0010)")

    def _note(self, encoding: Encoding, element: Element, into: dict[int, bytes]) -> None:
        """Take in an element if it is wanted, else pass over it."""
        tag = element.tag
        if tag in _WANTED and element.length <= _LONGEST:
            into[tag] = self._value(encoding, element)
        elif tag in (MODALITY_LUTS, VOI_LUTS) and self._is_sequence(element):
            for index, item in enumerate(self._items(encoding, element, 0)):
                values: dict[int, bytes] = {}
                for inner in item:
                    if index == 0:
                        self._note_plain(inner, values)
                    else:
                        skip_value(self._source, inner[0], inner[1], 1)
                if index == 0:
                    self._luts[tag] = values
        elif tag in (_SHARED, _PER_FRAME) and self._is_sequence(element):
            own = 0 if tag == _SHARED else self._chosen(self._frames())
            for index, item in enumerate(self._items(encoding, element, 0)):
                for inner in item:
                    if index == own:
                        self._note_groups(inner, into, 1)
                    else:
                        skip_value(self._source, inner[0], inner[1], 1)
        else:
            skip_value(self._source, encoding, element)

    @staticmethod
    def _is_sequence(element: Element) -> bool:
        return element.vr in ("SQ", "") or (element.vr == "UN" and element.length == UNDEFINED)

    def _note_plain(self, inner: tuple[Encoding, Element], into: dict[int, bytes]) -> None:
        encoding, element = inner
        if element.tag in _WANTED and element.length <= _LONGEST:
            into[element.tag] = self._value(encoding, element)
        else:
            skip_value(self._source, encoding, element, 1)

    def _note_groups(self, inner: tuple[Encoding, Element], into: dict[int, bytes], depth: int) -> None:
        """What functional groups say of a frame (PS3.3 C.7.6.16), wherever in them it stands."""
        encoding, element = inner
        sequence = element.vr == "SQ" or (not element.vr and dictionary_vr(element.tag) == "SQ")
        if not sequence or depth >= _GROUPS_DEPTH:
            self._note_plain(inner, into)
            return
        for item in self._items(encoding, element, depth):
            for nested in item:
                self._note_groups(nested, into, depth + 1)

    def _items(self, encoding: Encoding, element: Element, depth: int) -> Iterator[Iterator[tuple[Encoding, Element]]]:
        """Each item as its elements; all of them must be consumed."""
        inner = Encoding(True, True) if element.vr == "UN" else encoding
        for end in items(self._source, inner, element, depth):
            own = settled(self._source, inner)
            yield ((own, one) for one in elements(self._source, own, end))

    def _value(self, encoding: Encoding, element: Element) -> bytes:
        value = self._source.read(element.length)
        return value if encoding.little or element.tag not in _WORDS else swapped(value, 2)

    # -- pixel data ----------------------------------------------------------------------------------------------

    def _frames(self) -> int:
        words = pixels.text(self._facts, pixels.FRAMES) or "1"
        return int(words) if words.isascii() and words.isdigit() and len(words) < 10 else 1

    def _chosen(self, frames: int) -> int:
        """Index of the wanted or representative frame among so many."""
        if self._number is not None:
            if not 1 <= self._number <= max(1, frames):
                raise InstanceRefused("PROC_FAILURE", f"it has {frames} frames, and no frame {self._number}")
            return self._number - 1
        said = int.from_bytes(self._facts.get(REPRESENTATIVE_FRAME, b"")[:2], "little")
        return said - 1 if 1 <= said <= frames else frames // 3

    def _decode(self, element: Element) -> tuple[bytes, PixelFormat, int]:
        if element.length == UNDEFINED:
            if self._syntax.encoding != "encapsulated":
                raise FrameError(f"it is compressed, which its transfer syntax {self._syntax} does not allow")
            return self._compressed()
        form = pixel_format(self._facts)
        index = self._chosen(form.frames)
        return self._native(element, form, index), form, index + 1

    def _compressed(self) -> tuple[bytes, PixelFormat, int]:
        require_within(pixel_format(self._facts), self._limit)
        found = compressed_pixels(self._source, self._facts, self._syntax)
        index = self._chosen(len(found.frames))
        data = found.fragments.read(found.frames[index])
        form = found.target
        require_within(form, self._limit)
        try:
            samples = decode(self._syntax, data, form)
        except MoreBits as error:
            form = replace(form, bits_stored=error.bits_stored, high_bit=error.bits_stored - 1)
            samples = decode(self._syntax, data, form)
        return samples, form, index + 1

    def _native(self, element: Element, form: PixelFormat, index: int) -> bytes:
        """One frame of pixel data that is not compressed; 1-bit pixels run on over frames (PS3.5 8.1.1)."""
        require_within(form, self._limit)
        first_bit = form.sample_count * form.bits_allocated * index
        last_bit = first_bit + form.sample_count * form.bits_allocated
        first, last = first_bit // 8, (last_bit + 7) // 8
        if last > element.length:
            raise FrameError(f"{form.frames} frames need more than the {element.length} bytes that are there")
        unit = 1 if self._encoding.little or element.vr == "OB" else 2
        if unit == 2:
            unit = cell_unit(self._source.peek(min(element.length, CHUNK)), form.bits_allocated)
        start = first - first % unit
        self._source.skip(start)
        length = min(last + -last % unit, element.length) - start
        data = swapped(self._source.read(length), unit)[first - start : last - start]
        return _unpacked(data, first_bit % 8, form.sample_count) if form.bits_allocated == 1 else data


def _unpacked(data: bytes, skip: int, count: int) -> bytes:
    import numpy

    bits = numpy.unpackbits(numpy.frombuffer(data, "u1"), bitorder="little")
    return bits[skip : skip + count].tobytes()


def numbers(facts: dict[int, bytes], tag: int) -> tuple[float, ...]:
    """The values of a DS or IS attribute; () where one of them is no finite number."""
    return _numbers(facts.get(tag, b""))


@functools.lru_cache(maxsize=256)
def _numbers(value: bytes) -> tuple[float, ...]:
    words = value.decode("latin-1").strip("\0 ")
    try:
        found = tuple(float(word) for word in words.split("\\")) if words else ()
    except ValueError:
        return ()
    return found if all(abs(number) < 1e12 for number in found) else ()


def words_of(value: bytes, *, signed: bool = False) -> tuple[int, ...]:
    """A value of 16-bit words."""
    count = len(value) // 2
    return struct.unpack(f"<{count}{'h' if signed else 'H'}", value[: 2 * count])
