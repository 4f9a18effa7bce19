"""Walks the encoded elements of a data set in any native encoding, without holding large values (PS3.5 section 7).

The reader goes strictly forward; values are read, skipped or handed on in pieces of at most 1 MiB. It passes over what
writers in the field get wrong and says what it cannot pass over, with tag and offset.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO, NamedTuple

from media.part10 import CHUNK, DEFLATED_LE, EXPLICIT_BE, IMPLICIT_LE, LONG_VRS, VRS
from media.problems import NotDicom

UNDEFINED = 0xFFFFFFFF
ITEM = 0xFFFEE000
ITEM_END = 0xFFFEE00D
SEQUENCE_END = 0xFFFEE0DD
PIXEL_DATA = 0x7FE00010
MAX_DEPTH = 64
"""Sequences nested deeper than this are hostile, not clinical."""

WORD = (
    dict.fromkeys(("AT", "OW", "SS", "US"), 2)
    | dict.fromkeys(("FL", "OF", "OL", "SL", "UL"), 4)
    | dict.fromkeys(("FD", "OD", "OV", "SV", "UV"), 8)
)
"""Bytes of the unit in which a VR's value is byte-swapped (PS3.5 7.3); VRs that are not here are bytes."""


def tag_text(tag: int) -> str:
    """``(gggg,eeee)``."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


class Encoding(NamedTuple):
    """How the elements of a data set or item are encoded."""

    implicit: bool
    little: bool

    @property
    def order(self) -> str:
        return "<" if self.little else ">"


def encoding_of(transfer_syntax_uid: str) -> Encoding:
    """The element encoding of a transfer syntax; everything but two is Explicit VR Little Endian (PS3.5 A)."""
    return Encoding(transfer_syntax_uid == IMPLICIT_LE, transfer_syntax_uid != EXPLICIT_BE)


@dataclass(slots=True)
class Element:
    """The head of an element; its value has still to be consumed."""

    tag: int
    vr: str
    """``""`` for implicit VR and for a VR that is none (and then the dictionary decides)."""
    length: int
    """Bytes, or ``UNDEFINED``."""
    at: int
    """Offset of the element in the (inflated) stream."""
    value_at: int


class Source:
    """A forward reader over an open file, from ``start`` to its end."""

    seekable = True

    def __init__(self, stream: BinaryIO, start: int, name: str) -> None:
        self.name = name
        self._stream = stream
        self._size = stream.seek(0, os.SEEK_END)
        self._at = stream.seek(start)

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int) -> None:
        self._at = self._stream.seek(offset)

    def peek(self, count: int) -> bytes:
        """Up to ``count`` of the next bytes, without moving on."""
        data = self._stream.read(count)
        self._stream.seek(self._at)
        return data

    def read(self, count: int) -> bytes:
        """Exactly ``count`` bytes; NotDicom where the file ends before."""
        if count > self._size - self._at:
            raise self._ended()
        data = self._stream.read(count)
        if len(data) != count:
            raise self._ended()
        self._at += count
        return data

    def skip(self, count: int) -> None:
        if count > self._size - self._at:
            raise self._ended()
        self._at = self._stream.seek(self._at + count)

    def chunks(self, count: int) -> Iterator[bytes]:
        """The next ``count`` bytes in pieces of at most 1 MiB (all but the last exactly that)."""
        while count:
            piece = self.read(min(count, CHUNK))
            count -= len(piece)
            yield piece

    def _ended(self) -> NotDicom:
        return NotDicom(f"{self.name} is cut off: the value that begins at offset {self._at} is longer than the file")


class InflatedSource(Source):
    """The same over a deflated data set (PS3.5 A.5), in bounded memory; it cannot go back."""

    seekable = False
    limit = 1 << 32
    """Bytes beyond which a data set is a bomb; no medium of ours takes such a file."""

    def __init__(self, stream: BinaryIO, start: int, name: str) -> None:
        super().__init__(stream, start, name)
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._buffer = bytearray()
        self._out = 0
        self.tee: Callable[[bytes], None] | None = None
        """Is given all that is consumed, while set."""

    def tell(self) -> int:
        return self._out

    def seek(self, offset: int) -> None:
        raise NotImplementedError("A deflated data set is read forward only")

    def _fill(self, count: int) -> None:
        while len(self._buffer) < count and not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._stream.read(1 << 16)
            if not packed:
                self._buffer += self._inflate.flush()
                return
            try:
                self._buffer += self._inflate.decompress(packed, max(count, 1 << 16))
            except zlib.error as error:
                raise NotDicom(f"{self.name}: the deflated data set is damaged ({error})") from None

    def peek(self, count: int) -> bytes:
        self._fill(count)
        return bytes(self._buffer[:count])

    def read(self, count: int) -> bytes:
        if count > CHUNK:
            return b"".join(self.chunks(count))
        self._fill(count)
        if self._out + count > self.limit:
            raise NotDicom(f"{self.name}: the deflated data set is longer than {self.limit} bytes when inflated")
        if len(self._buffer) < count:
            raise NotDicom(f"{self.name} is cut off: its deflated data set ends at offset {self._out}")
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        self._out += count
        if self.tee:
            self.tee(data)
        return data

    def skip(self, count: int) -> None:
        for _ in self.chunks(count):
            pass


def open_source(stream: BinaryIO, offset: int, transfer_syntax_uid: str, name: str) -> Source:
    """A reader of the data set that begins at ``offset`` of an open file."""
    kind = InflatedSource if transfer_syntax_uid == DEFLATED_LE else Source
    return kind(stream, offset, name)


def elements(source: Source, encoding: Encoding, end: int | None, *, top: bool = False) -> Iterator[Element]:
    """The elements of a data set (``top``) or item, up to ``end`` or, where that is None, to its delimiter or file end.

    Between two elements the caller consumes the value. Zero bytes behind the last element of a data set are padding.
    """
    while end is None or source.tell() < end:
        at = source.tell()
        head = source.peek(12)
        if len(head) < 8:
            if top and not head.strip(b"\0"):
                return
            raise NotDicom(f"{source.name} is cut off within an element at offset {at}")
        group, number = struct.unpack_from(encoding.order + "HH", head)
        tag = (group << 16) | number
        if group == 0xFFFE:
            source.skip(8)
            if tag == ITEM_END and not top:
                if end is not None:
                    continue
                return
            if tag in (ITEM_END, SEQUENCE_END) and head[4:8] == bytes(4):
                continue  # a stray delimiter, which some writers leave behind a sequence of defined length
            raise NotDicom(f"{source.name} has an item {tag_text(tag)} at offset {at}, where an element should be")
        if tag == 0 and top and _only_zeros(source):
            return
        yield _head(source, encoding, tag, head, at)
        if end is not None and source.tell() > end:
            raise NotDicom(f"{source.name}: element {tag_text(tag)} at offset {at} is longer than the item it is in")


def settled(source: Source, encoding: Encoding) -> Encoding:
    """Encoding of the data set or item that begins here: some writers put implicit VR where explicit is due."""
    head = source.peek(8)
    if len(head) < 8 or head[:2] in (b"\xfe\xff", b"\xff\xfe"):
        return encoding
    vr = head[4:6].decode("latin-1")
    if not encoding.implicit and not (vr.isascii() and vr.isupper()):
        length = struct.unpack_from(encoding.order + "I", head, 4)[0]
        group = struct.unpack_from(encoding.order + "H", head)[0]
        if length < 0x10000 and dictionary_vr((group << 16) | _number(encoding, head)):
            return Encoding(True, encoding.little)
    return encoding


def _number(encoding: Encoding, head: bytes) -> int:
    return int(struct.unpack_from(encoding.order + "H", head, 2)[0])


def _head(source: Source, encoding: Encoding, tag: int, head: bytes, at: int) -> Element:
    order = encoding.order
    if encoding.implicit:
        source.skip(8)
        return Element(tag, "", struct.unpack_from(order + "I", head, 4)[0], at, at + 8)
    vr = head[4:6].decode("latin-1")
    known = vr in VRS
    long = vr in LONG_VRS or (not known and head[6:8] == b"\0\0" and vr.isascii() and vr.isupper())
    if long:
        if len(head) < 12:
            raise NotDicom(f"{source.name} is cut off within the element {tag_text(tag)} at offset {at}")
        source.skip(12)
        length, value_at = struct.unpack_from(order + "I", head, 8)[0], at + 12
    else:
        source.skip(8)
        length, value_at = struct.unpack_from(order + "H", head, 6)[0], at + 8
    return Element(tag, vr if known else "", length, at, value_at)


def _only_zeros(source: Source) -> bool:
    """Whether nothing but zero bytes follow; moves to the end then. Real padding fills a sector, not megabytes."""
    rest = source.peek(CHUNK)
    return len(rest) < CHUNK and not rest.strip(b"\0")


def items(source: Source, encoding: Encoding, element: Element, depth: int) -> Iterator[int | None]:
    """The items of a sequence: yields where each ends (None: at its delimiter); the caller consumes it."""
    if depth >= MAX_DEPTH:
        raise NotDicom(f"{source.name}: sequence {tag_text(element.tag)} is nested more than {MAX_DEPTH} levels deep")
    end = None if element.length == UNDEFINED else element.value_at + element.length
    while end is None or source.tell() < end:
        at = source.tell()
        if end is not None and end - at < 8:
            raise NotDicom(f"{source.name}: sequence {tag_text(element.tag)} ends within an item at offset {at}")
        head = source.read(8)
        group, number, length = struct.unpack(encoding.order + "HHI", head)
        tag = (group << 16) | number
        if tag == SEQUENCE_END:
            if end is None:
                return
            continue
        if tag == ITEM_END and length == 0:
            continue
        if tag != ITEM:
            raise NotDicom(
                f"{source.name}: sequence {tag_text(element.tag)} has {tag_text(tag)} at offset {at} instead of an item"
            )
        yield None if length == UNDEFINED else at + 8 + length


def skip_value(source: Source, encoding: Encoding, element: Element, depth: int = 0) -> None:
    """Pass over a value, also one of undefined length."""
    if element.length != UNDEFINED:
        source.skip(element.length)
        return
    inner = Encoding(True, True) if element.vr == "UN" else encoding
    for end in items(source, inner, element, depth):
        if end is not None:
            source.skip(end - source.tell())
            continue
        nested_encoding = settled(source, inner)
        for nested in elements(source, nested_encoding, None):
            skip_value(source, nested_encoding, nested, depth + 1)


def swapped(piece: bytes, unit: int) -> bytes:
    """A piece of a value with the bytes of each unit reversed; an incomplete last unit stays as it is."""
    if unit == 1:
        return piece
    whole = len(piece) - len(piece) % unit
    out = bytearray(piece)
    for byte in range(unit):
        out[byte:whole:unit] = piece[unit - 1 - byte : whole : unit]
    return bytes(out)


@lru_cache(maxsize=8192)
def dictionary_vr(tag: int) -> str:
    """VR by the data dictionary (PS3.6), as it stands there (``"US or SS"``); ``""`` for what is not in it.

    Private creators are LO, group lengths UL (PS3.5 7.8.1, 7.2); other private elements are unknown.
    """
    group, number = tag >> 16, tag & 0xFFFF
    if number == 0:
        return "UL"
    if group & 1:
        return "LO" if 0x0010 <= number <= 0x00FF else ""
    from pydicom.datadict import dictionary_VR

    try:
        return str(dictionary_VR(tag))
    except KeyError:
        return ""
