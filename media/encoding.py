"""Data elements in memory: split, encode, re-encode as Explicit VR Little Endian (PS3.5 section 7).

Written for speed: the directory of a disc has hundreds of thousands of elements, which no pydicom Dataset ever sees.
(Whole instances are streamed by ``elements``.)
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Container, Iterator
from typing import NamedTuple

from media.problems import NotDicom

UNDEFINED = 0xFFFFFFFF
ITEM = 0xFFFEE000
ITEM_END = 0xFFFEE00D
SEQUENCE_END = 0xFFFEE0DD

LONG_VRS = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
"""VRs with two reserved bytes and a 32-bit length (PS3.5 7.1.2)."""
_NUL_PADDED = frozenset((b"UI", b"OB", b"UN"))
_WORD_SIZES = {
    b"AT": 2, b"OW": 2, b"SS": 2, b"US": 2,
    b"FL": 4, b"OF": 4, b"OL": 4, b"SL": 4, b"UL": 4,
    b"FD": 8, b"OD": 8, b"OV": 8, b"SV": 8, b"UV": 8,
}  # fmt: skip
"""Bytes of a word that changes with the byte order."""
MAX_DEPTH = 64
"""Deeper nesting of sequences than any IOD has, and shallower than Python's own recursion limit allows."""

_LE_HEAD = struct.Struct("<HH2sH")
_LE_LONG = struct.Struct("<HH2sHL")
_LE_ULONG = struct.Struct("<L")
_BE_HEAD = struct.Struct(">HH2sH")
_LE_PLAIN = struct.Struct("<HHL")
_BE_PLAIN = struct.Struct(">HHL")


class Syntax(NamedTuple):
    """How elements are encoded; a deflated data set is Explicit VR Little Endian once inflated."""

    explicit: bool
    order: str
    """``<`` or ``>``, as ``struct`` has it."""


EXPLICIT_LE = Syntax(True, "<")
IMPLICIT_LE = Syntax(False, "<")
EXPLICIT_BE = Syntax(True, ">")

DEFLATED = frozenset(("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"))
"""Transfer syntaxes whose whole data set is deflated (PS3.5 A.5, A.7, A.11)."""


def syntax_of(transfer_syntax_uid: str) -> Syntax:
    """How a transfer syntax encodes elements: all but two are Explicit VR Little Endian (PS3.5 Annex A)."""
    if transfer_syntax_uid == "1.2.840.10008.1.2":
        return IMPLICIT_LE
    return EXPLICIT_BE if transfer_syntax_uid == "1.2.840.10008.1.2.2" else EXPLICIT_LE


def tag_text(tag: int) -> str:
    """``(gggg,eeee)``"""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def tag_of(text: str) -> int:
    """From ``(gggg,eeee)`` or ``ggggeeee``."""
    return int(text.strip("()").replace(",", ""), 16)


def element_head(data: bytes, at: int, syntax: Syntax) -> tuple[int, bytes, int, int]:
    """Tag, VR (empty where the encoding does not say), begin and length of the value of the element at ``at``.

    ``struct.error`` where ``data`` ends within the head. A VR of other bytes than capital letters marks an element
    that was written with implicit VR among explicit ones, as some makers do.
    """
    if syntax.explicit:
        group, element, vr, length = (_LE_HEAD if syntax.order == "<" else _BE_HEAD).unpack_from(data, at)
        if vr in LONG_VRS:
            (length,) = struct.unpack_from(syntax.order + "L", data, at + 8)
            return group << 16 | element, vr, at + 12, length
        if group != 0xFFFE and vr.isalpha() and vr.isupper():
            return group << 16 | element, vr, at + 8, length
    group, element, length = (_LE_PLAIN if syntax.order == "<" else _BE_PLAIN).unpack_from(data, at)
    return group << 16 | element, b"", at + 8, length


def encode(tag: int, vr: bytes, value: bytes) -> bytes:
    """One element in Explicit VR Little Endian, its value padded to an even length (PS3.5 6.2, 7.1)."""
    length = len(value)
    if length & 1:
        value += b"\0" if vr in _NUL_PADDED else b" "
        length += 1
    if vr in LONG_VRS:
        return _LE_LONG.pack(tag >> 16, tag & 0xFFFF, vr, 0, length) + value
    if length > 0xFFFE:
        # PS3.5 6.2.2 note 2: too long for a 16-bit length, so its VR cannot be told.
        return _LE_LONG.pack(tag >> 16, tag & 0xFFFF, b"UN", 0, length) + value
    return _LE_HEAD.pack(tag >> 16, tag & 0xFFFF, vr, length) + value


def encode_item(content: bytes) -> bytes:
    """A sequence item of defined length."""
    return _LE_PLAIN.pack(0xFFFE, 0xE000, len(content)) + content


def split(keys: bytes) -> dict[int, bytes]:
    """The whole encoded elements of an Explicit VR Little Endian data set of defined lengths, by tag.

    For our own ``directory_keys``; NotDicom where they are cut off or not ours.
    """
    found: dict[int, bytes] = {}
    at, end = 0, len(keys)
    try:
        while at < end:
            group, element, vr, length = _LE_HEAD.unpack_from(keys, at)
            if vr in LONG_VRS:
                length = _LE_ULONG.unpack_from(keys, at + 8)[0] + 4
            stop = at + 8 + length
            found[group << 16 | element] = keys[at:stop]
            at = stop
    except struct.error:
        at = -1
    if at != end:
        raise NotDicom("The directory keys are cut off")
    return found


def value_of(element: bytes) -> bytes:
    """The value of an element that ``split`` gave."""
    return element[12:] if element[4:6] in LONG_VRS else element[8:]


@functools.lru_cache(maxsize=4096)
def dictionary_vr(tag: int) -> bytes:
    """VR of a standard element (PS3.6), the first where it has several; ``UN`` of any other."""
    if tag & 0xFFFF == 0:
        return b"UL"
    if tag >> 16 & 1:
        # Private Creator, PS3.5 7.8.1
        return b"LO" if 0x10 <= tag & 0xFFFF <= 0xFF else b"UN"
    from pydicom.datadict import dictionary_VR

    try:
        vr = str(dictionary_VR(tag))
    except KeyError:
        return b"UN"
    # "US or SS", "OB or OW": which one depends on elements that a directory does not have.
    return b"OW" if vr == "OB or OW" else vr[:2].encode("ascii")


def little_endian(vr: bytes, value: bytes, order: str) -> bytes:
    """A value with its words swapped where it was big endian."""
    size = _WORD_SIZES.get(vr, 1)
    if order == "<" or size == 1 or len(value) % size:
        return value
    swapped = bytearray(len(value))
    for byte in range(size):
        swapped[byte::size] = value[size - 1 - byte :: size]
    return bytes(swapped)


def items(data: bytes, at: int, end: int, syntax: Syntax, what: str, *, depth: int = 1) -> Iterator[tuple[int, int]]:
    """Begin and end of the content of each item of the sequence value ``data[at:end]``.

    A sequence delimiter ends it early. NotDicom names ``what`` where it is malformed.
    """
    while at + 8 <= end:
        group, element, length = struct.unpack_from(syntax.order + "HHL", data, at)
        tag = group << 16 | element
        at += 8
        if tag == SEQUENCE_END:
            return
        if tag != ITEM:
            raise NotDicom(f"{what} holds {tag_text(tag)} where an item should begin")
        if length == UNDEFINED:
            stop = item_end(data, at, end, syntax, what, depth=depth)
            yield at, stop
            at = stop + 8
        else:
            if length > end - at:
                raise NotDicom(f"An item of {what} is longer than the sequence")
            yield at, at + length
            at += length
    if data[at:end].strip(b"\0"):
        raise NotDicom(f"{what} ends within an item")


def item_end(data: bytes, at: int, end: int, syntax: Syntax, what: str, *, depth: int) -> int:
    """Where the item of undefined length whose content begins at ``at`` has its item delimiter."""
    for tag, _, start, _ in elements(data, at, end, syntax, what, depth=depth, delimited=True):
        if tag == ITEM_END:
            return start - 8
    raise NotDicom(f"{what} ends within an item of undefined length")


def sequence_end(data: bytes, at: int, end: int, syntax: Syntax, what: str, *, depth: int) -> int:
    """The offset behind the delimiter of the sequence of undefined length whose items begin at ``at``."""
    if depth > MAX_DEPTH:
        raise NotDicom(f"{what} is nested more than {MAX_DEPTH} levels deep")
    while at + 8 <= end:
        group, element, length = struct.unpack_from(syntax.order + "HHL", data, at)
        tag = group << 16 | element
        at += 8
        if tag == SEQUENCE_END:
            return at
        if tag != ITEM:
            raise NotDicom(f"{what} holds {tag_text(tag)} where an item should begin")
        if length == UNDEFINED:
            at = item_end(data, at, end, syntax, what, depth=depth + 1) + 8
        else:
            at += length
    raise NotDicom(f"{what} ends within a sequence of undefined length")


def elements(
    data: bytes, at: int, end: int, syntax: Syntax, what: str, *, depth: int = 1, delimited: bool = False
) -> Iterator[tuple[int, bytes, int, int]]:
    """Tag, VR, begin and end of the value of each element in ``data[at:end]``, an item's content or a data set.

    A value of undefined length ends behind its delimiter. With ``delimited`` the last one yielded is the item
    delimiter. NotDicom names ``what`` and the element where it is malformed.
    """
    while at + 8 <= end:
        try:
            tag, vr, start, length = element_head(data, at, syntax)
        except struct.error:
            break
        if length == UNDEFINED:
            inner = IMPLICIT_LE if vr == b"UN" else syntax
            stop = sequence_end(data, start, end, inner, tag_text(tag), depth=depth + 1)
        else:
            stop = start + length
            if stop > end:
                raise NotDicom(f"{tag_text(tag)} in {what} is longer than what holds it")
        yield tag, vr, start, stop
        if delimited and tag == ITEM_END:
            return
        at = stop
    if data[at:end].strip(b"\0"):
        raise NotDicom(f"{what} ends within an element")


def to_explicit_le(
    data: bytes, at: int, end: int, syntax: Syntax, what: str, *, keep: Container[int] | None = None, depth: int = 1
) -> bytes:
    """The elements of ``data[at:end]`` in Explicit VR Little Endian with defined lengths.

    Group lengths and the item delimiter are left out, and at this level everything that is not in ``keep``.
    """
    parts = []
    for tag, vr, start, stop in elements(data, at, end, syntax, what, depth=depth):
        if tag == ITEM_END:
            break
        if (keep is None or tag in keep) and tag & 0xFFFF:
            parts.append(element_to_explicit_le(data, tag, vr, (start, stop), syntax, depth=depth))
    return b"".join(parts)


def element_to_explicit_le(
    data: bytes,
    tag: int,
    vr: bytes,
    span: tuple[int, int],
    syntax: Syntax,
    *,
    depth: int = 1,
    keep: Container[int] | None = None,
) -> bytes:
    """One element re-encoded; its items, where it is a sequence, reduced to what is in ``keep``."""
    start, stop = span
    if depth > MAX_DEPTH:
        raise NotDicom(f"{tag_text(tag)} is nested more than {MAX_DEPTH} levels deep")
    known = dictionary_vr(tag) if vr in (b"", b"UN") else vr
    if vr == b"UN":
        syntax = IMPLICIT_LE
    if known == b"UN" and data[start : start + 4] == b"\xfe\xff\x00\xe0":
        # An unknown element whose value is made of items is a sequence (PS3.5 6.2.2 note 4).
        known = b"SQ"
    if known != b"SQ":
        return encode(tag, known, little_endian(known, data[start:stop], syntax.order))
    content = b"".join(
        encode_item(to_explicit_le(data, first, last, syntax, tag_text(tag), keep=keep, depth=depth + 1))
        for first, last in items(data, start, stop, syntax, tag_text(tag), depth=depth)
    )
    return encode(tag, b"SQ", content)
