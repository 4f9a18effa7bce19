"""Frames of an instance as they lie in its file: compressed, or native samples, little endian (PS3.5 8, A.4).

Nothing is decoded here but by ``decoded``, so this is safe wherever it runs. A frame comes in pieces.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from media import pixels
from media.codecs import FRAME_LIMIT, BitPacker, MoreBits, PixelFormat, decode, require_within
from media.codestreams import FrameError
from media.elements import (
    PIXEL_DATA,
    UNDEFINED,
    Element,
    elements,
    encoding_of,
    open_source,
    settled,
    skip_value,
    swapped,
)
from media.frames import Fragments
from media.part10 import CHUNK, locate
from media.pixels import cell_unit, compressed_pixels, pixel_format
from media.problems import InstanceRefused
from media.syntaxes import TransferSyntax
from media.syntaxes import transfer_syntax as syntax_of

_FLOAT, _DOUBLE = 0x7FE00008, 0x7FE00009
_WORDS = pixels.FACTS - pixels.TEXT_FACTS


class NoSuchFrame(Exception):
    """The instance has no frame of this number, or no frames at all; the text says so."""


@dataclass(frozen=True, slots=True)
class RawFrame:
    """A frame that was found."""

    length: int
    pieces: Iterator[bytes]
    """While the file is open, and before the next frame is asked for."""


class Frames:
    """The frames of a file; use it as a context manager.

    Raises NoSuchFrame where there is no pixel data, InstanceRefused where its frames cannot be told apart, NotDicom for
    a malformed file.
    """

    def __init__(self, path: Path) -> None:
        self._stack = ExitStack()
        located = locate(path)
        self.syntax: TransferSyntax = syntax_of(located.transfer_syntax_uid)
        self.compressed = False
        self._stream = self._stack.enter_context(path.open("rb"))
        try:
            self._source = open_source(self._stream, located.dataset_offset, self.syntax.uid, path.name)
            self._encoding = settled(self._source, encoding_of(self.syntax.uid))
            self._facts: pixels.Facts = {}
            self._element = self._pixel_data()
            self._begin()
        except (FrameError, struct.error) as error:
            self._stack.close()
            raise InstanceRefused("PROC_FAILURE", f"its pixel data cannot be read: {error}") from None
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def count(self) -> int:
        return len(self._ranges) if self.compressed else self._form.frames

    def frame(self, number: int) -> RawFrame:
        """A frame, from 1, as it is in the file. Of a deflated data set, only later ones than those before."""
        if not 1 <= number <= self.count:
            raise NoSuchFrame(f"it has {self.count} frames, and none with the number {number}")
        if self.compressed:
            fragments = self._ranges[number - 1]
            return RawFrame(self._fragments.length(fragments), self._fragments.pieces(fragments))
        return self._native(number - 1)

    def require(self, number: int) -> None:
        """InstanceRefused where the pixel data ends before this frame does; nothing is read."""
        if not self.compressed:
            self._extent(number - 1)

    def decoded(self, number: int, *, limit: int = FRAME_LIMIT) -> bytes:
        """A compressed frame as native samples, little endian, colours as its codec gives them; a native one as it is.

        InstanceRefused where it cannot be decoded, or has more than ``limit`` bytes: then nothing was. Call it in a
        helper process: decoders are C code fed with what came from anywhere.
        """
        found = self.frame(number)
        try:
            require_within(self._form, limit)
            raw = b"".join(found.pieces)
            if not self.compressed:
                return raw
            self._source.seek(self._element.value_at)
            form = compressed_pixels(self._source, self._facts, self.syntax).target
            require_within(form, limit)
            try:
                samples = decode(self.syntax, raw, form)
            except MoreBits as error:
                form = replace(form, bits_stored=error.bits_stored, high_bit=error.bits_stored - 1)
                samples = decode(self.syntax, raw, form)
        except (FrameError, pixels.Oversized) as error:
            raise InstanceRefused("PROC_FAILURE", f"its frame {number} cannot be decoded: {error}") from None
        if form.bits_allocated > 1:
            return samples
        packer = BitPacker()
        return packer.pack(samples) + packer.finish()

    # -- where it is -----------------------------------------------------------------------------------------------

    def _pixel_data(self) -> Element:
        facts: dict[int, bytes] = {}
        for element in elements(self._source, self._encoding, None, top=True):
            if element.tag in (PIXEL_DATA, _FLOAT, _DOUBLE):
                self._facts = facts
                return element
            if element.tag in pixels.FACTS and element.length <= 128:
                value = self._source.read(element.length)
                little = self._encoding.little or element.tag not in _WORDS
                facts[element.tag] = value if little else swapped(value, 2)
            else:
                skip_value(self._source, self._encoding, element)
        raise NoSuchFrame("it has no pixel data")

    def _begin(self) -> None:
        self._form: PixelFormat = pixel_format(self._facts)
        if self._element.length != UNDEFINED:
            self._at = self._source.tell()
            return
        if self.syntax.encoding != "encapsulated":
            raise FrameError(f"it is compressed, which its transfer syntax {self.syntax} does not allow")
        self.compressed = True
        self._fragments = Fragments(self._source)
        self._ranges = list(self._fragments.frames(self._form.frames))

    # -- native ----------------------------------------------------------------------------------------------------

    def _native(self, index: int) -> RawFrame:
        element = self._element
        allocated, bits, first, last = self._extent(index)
        unit = self._unit(allocated)
        start = first - first % unit
        end = min(last + -last % unit, element.length)
        if allocated == 1 and (bits % 8 or unit > 1):
            return self._bits(index, start, end, unit)
        self._go_to(start)
        pieces = self._cut(end - start, unit, first - start, last - first)
        return RawFrame(last - first, pieces)

    def _extent(self, index: int) -> tuple[int, int, int, int]:
        """Bits allocated to a sample, bits of a frame, and the frame's bytes in the pixel data: first, behind last."""
        form, element = self._form, self._element
        allocated = {_FLOAT: 32, _DOUBLE: 64}.get(element.tag, form.bits_allocated)
        bits = form.sample_count * allocated
        first, last = bits * index // 8, (bits * (index + 1) + 7) // 8
        if last > element.length:
            raise InstanceRefused(
                "PROC_FAILURE", f"{form.frames} frames need more than the {element.length} bytes that are there"
            )
        return allocated, bits, first, last

    def _unit(self, allocated: int) -> int:
        """In which units the bytes are to be swapped; 1: they are not."""
        if self._encoding.little or self._element.vr == "OB":
            return 1
        if self._element.tag != PIXEL_DATA:
            return allocated // 8
        self._go_to(0)
        return cell_unit(self._source.peek(min(self._element.length, CHUNK)), allocated)

    def _go_to(self, offset: int) -> None:
        """To this offset of the pixel data; a deflated data set can only be read forward."""
        target = self._at + offset
        if self._source.seekable:
            self._source.seek(target)
        elif target < self._source.tell():
            raise NoSuchFrame("the frames of a deflated data set are read in ascending order only")
        else:
            self._source.skip(target - self._source.tell())

    def _cut(self, length: int, unit: int, skip: int, count: int) -> Iterator[bytes]:
        for piece in self._source.chunks(length):
            part = swapped(piece, unit)[skip : skip + count]
            skip = max(0, skip - len(piece))
            count -= len(part)
            if part:
                yield part

    def _bits(self, index: int, start: int, end: int, unit: int) -> RawFrame:
        """1-bit pixels run on over frames (PS3.5 8.1.1): a frame alone begins with a byte of its own."""
        import numpy

        count = self._form.sample_count
        if count > FRAME_LIMIT:
            raise InstanceRefused("PROC_FAILURE", f"a frame has {count} pixels; the limit is {FRAME_LIMIT}")
        self._go_to(start)
        data = swapped(self._source.read(end - start), unit)
        first = count * index - 8 * start
        bits = numpy.unpackbits(numpy.frombuffer(data, "u1"), bitorder="little")[first : first + count]
        packed = numpy.packbits(bits, bitorder="little").tobytes()
        return RawFrame(len(packed), iter((packed,)))
