"""Lossless compression of what most instances are: small, native and written by the book.

One look at the header in memory instead of several walks over the file. It gives the bytes and changes that the long
way (``media.conform``) gives, and leaves to that whatever is out of the ordinary in any respect.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from media.codestreams import FrameError
from media.compress import SOP_CLASS, FrameCollector, Unsuitable
from media.elements import ITEM, ITEM_END, PIXEL_DATA, SEQUENCE_END, UNDEFINED
from media.encoders import Encoder
from media.explicit import ExplicitWriter
from media.framewriter import FrameWriter, merged, pixel_rewrite
from media.part10 import CHUNK, EXPLICIT_LE, LONG_VRS, MEDIA_STORAGE_DIRECTORY, VRS, file_meta
from media.syntaxes import transfer_syntax

LARGEST = 1 << 26
"""Bytes of a file that is held in memory."""
_DEEPEST = 16
_PADDING = 0xFFFCFFFC
_SOP_INSTANCE = 0x00080018
_SHORT = frozenset(vr.encode("ascii") for vr in VRS - LONG_VRS)
_LONG = frozenset(vr.encode("ascii") for vr in LONG_VRS)
_HEAD = struct.Struct("<HH2sH")
_LENGTH = struct.Struct("<I")
_ITEM_HEAD = struct.Struct("<HHI")


@dataclass(frozen=True, slots=True)
class Quick:
    """What was written, as ``media.conform.ConformResult`` has it; the changes as tag, old and new value."""

    sop_instance_uid: str
    changes: list[tuple[int, str, str]]
    size: int
    sha256: str


class _Unusual(Exception):
    """This is for the long way."""


class _Element(NamedTuple):
    tag: int
    sequence: bool
    encoded: bytes
    """As it is to be written, if it stays; empty for Pixel Data."""
    value_at: int
    end: int
    """Of the value, in the source."""


def compress_quickly(source: Path, part: Path, encoder: Encoder) -> Quick | None:
    """Write ``source`` with its frames compressed to ``part``, and sync it. None: nothing was written, nor judged.

    OSError where ``part`` cannot be written.
    """
    if encoder.lossy:
        return None
    try:
        with source.open("rb") as stream:
            if os.fstat(stream.fileno()).st_size > LARGEST:
                return None
            data = stream.read()
    except OSError:
        return None  # the long way says what is wrong
    frames = io.BytesIO()
    collector = FrameCollector(encoder, frames)
    try:
        elements = _data_set(data, _data_set_at(data))
        found = {element.tag: element for element in elements if not element.sequence}
        sop_class, sop_instance = (_uid(data, found.get(tag)) for tag in (SOP_CLASS, _SOP_INSTANCE))
        for tag, element in found.items():
            if tag == SOP_CLASS or tag >> 16 in (0x0028, 0x7FE0):
                collector.value(tag, "", element.end - element.value_at, _pieces(data, element))
    except (_Unusual, Unsuitable, FrameError, struct.error):
        return None
    if collector.before is None or collector.after is None:
        return None
    rewrite = pixel_rewrite(collector.before, collector.after)
    with part.open("wb") as out:
        writer = ExplicitWriter(out)
        writer.write(file_meta(sop_class, sop_instance, encoder.syntax))
        emitter = FrameWriter(writer, frames, collector.lengths, rewrite, consume=False)
        for element in elements:
            emitter.copy(element.tag, element.encoded)
        size, digest = writer.finish()
        os.fsync(out.fileno())
    syntax = (0x00020010, str(transfer_syntax(EXPLICIT_LE)), str(transfer_syntax(encoder.syntax)))
    return Quick(sop_instance, merged([*emitter.changes, syntax]), size, digest)


def _pieces(data: bytes, element: _Element) -> Iterator[bytes]:
    for start in range(element.value_at, element.end, CHUNK):
        yield data[start : min(start + CHUNK, element.end)]


def _uid(data: bytes, element: _Element | None) -> str:
    text = data[element.value_at : element.end].decode("latin-1").strip("\0 ") if element else ""
    if not 0 < len(text) <= 64:
        raise _Unusual
    return text


def _data_set_at(data: bytes) -> int:
    """Offset of the data set of a PS3.10 file in Explicit VR Little Endian."""
    if data[128:132] != b"DICM":
        raise _Unusual
    at, syntax = 132, b""
    while data[at : at + 2] == b"\x02\0":
        _, number, vr, length = _HEAD.unpack_from(data, at)
        if vr in _LONG:
            length, at = _LENGTH.unpack_from(data, at + 8)[0], at + 4
        elif vr not in _SHORT:
            raise _Unusual
        value = data[at + 8 : at + 8 + min(length, 128)]
        at += 8 + length
        if number == 0x0010:
            syntax = value
        elif number == 0x0002 and value.strip(b"\0 ") == MEDIA_STORAGE_DIRECTORY.encode("ascii"):
            raise _Unusual
    if syntax.strip(b"\0 ") != EXPLICIT_LE.encode("ascii"):
        raise _Unusual
    return at


def _data_set(data: bytes, at: int) -> list[_Element]:
    """The elements of the top level; _Unusual where anything is not as PS3.5 has it."""
    end, last = len(data), -1
    found: list[_Element] = []
    while at < end:
        group, number, vr, length = _HEAD.unpack_from(data, at)
        tag = (group << 16) | number
        if tag <= last or group in (0x0000, 0x0002, 0xFFFE):
            raise _Unusual
        last, begin = tag, at
        if vr == b"SQ":
            encoded, at = _sequence(data, at, end, 0)
            found.append(_Element(tag, True, encoded, begin, at))
            continue
        value_at, at = _value(data, begin, vr, length, end)
        if number != 0 and tag != _PADDING:  # group lengths and padding are encoding, not content
            encoded = b"" if tag == PIXEL_DATA else data[begin:at]
            found.append(_Element(tag, False, encoded, value_at, at))
    return found


def _value(data: bytes, at: int, vr: bytes, length: int, end: int) -> tuple[int, int]:
    """Where the value of the element at ``at`` begins and ends."""
    if vr in _SHORT:
        value_at = at + 8
    elif vr in _LONG and data[at + 6 : at + 8] == b"\0\0":
        length, value_at = _LENGTH.unpack_from(data, at + 8)[0], at + 12
    else:
        raise _Unusual
    if length % 2 or value_at + length > end:  # an undefined length is odd
        raise _Unusual
    return value_at, value_at + length


def _sequence(data: bytes, at: int, end: int, depth: int) -> tuple[bytes, int]:
    """A sequence as it is to be written, with undefined lengths, and where it ends."""
    length = _LENGTH.unpack_from(data, at + 8)[0]
    if depth > _DEEPEST or data[at + 6 : at + 8] != b"\0\0":
        raise _Unusual
    parts = [data[at : at + 8], b"\xff\xff\xff\xff"]
    at += 12
    open_end = length == UNDEFINED
    stop = end if open_end else at + length
    if stop > end:
        raise _Unusual
    while open_end or at < stop:
        group, number, length = _ITEM_HEAD.unpack_from(data, at)
        tag = (group << 16) | number
        at += 8
        if tag == SEQUENCE_END and open_end and length == 0:
            break
        if tag != ITEM:
            raise _Unusual
        parts.append(b"\xfe\xff\x00\xe0\xff\xff\xff\xff")
        at = _item(data, at, stop, length, parts, depth)
        parts.append(b"\xfe\xff\x0d\xe0\0\0\0\0")
    if at > stop:
        raise _Unusual
    parts.append(b"\xfe\xff\xdd\xe0\0\0\0\0")
    return b"".join(parts), at


def _item(data: bytes, at: int, stop: int, length: int, parts: list[bytes], depth: int) -> int:
    """Append the elements of an item to ``parts``; returns where it ends."""
    open_end = length == UNDEFINED
    end = stop if open_end else at + length
    if end > stop:
        raise _Unusual
    while open_end or at < end:
        if at + 8 > end:
            raise _Unusual
        group, number, vr, length = _HEAD.unpack_from(data, at)
        if group == 0xFFFE:
            if open_end and (group << 16) | number == ITEM_END and data[at + 4 : at + 8] == b"\0\0\0\0":
                return at + 8
            raise _Unusual
        begin = at
        if vr == b"SQ":
            encoded, at = _sequence(data, at, end, depth + 1)
            parts.append(encoded)
            continue
        _, at = _value(data, begin, vr, length, end)
        if number == 0 or (group << 16) | number in (_PADDING, PIXEL_DATA):
            raise _Unusual
        parts.append(data[begin:at])
    return at
