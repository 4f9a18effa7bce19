"""Small data sets as plain values: parsed with their text decoded, encoded in a character set that can hold it.

For identifiers of queries and what a directory record keeps of an instance; never for whole instances.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from media import charsets
from media.encoding import (
    ITEM_END,
    LONG_VRS,
    MAX_DEPTH,
    Syntax,
    dictionary_vr,
    elements,
    items,
    little_endian,
    tag_text,
)
from media.problems import NotDicom

SPECIFIC_CHARACTER_SET = 0x00080005
UTF_8 = "ISO_IR 192"
TEXT_VRS = frozenset(b"AE AS CS DA DS DT IS LO LT PN SH ST TM UC UI UR UT".split())
_IN_CHARACTER_SET = frozenset(b"LO LT PN SH ST UC UT".split())
"""VRs whose text depends on Specific Character Set (PS3.5 6.1.2.3)."""
_ALONE = (UTF_8, "GB18030", "GBK")
"""Character sets without code extensions (PS3.3 C.12.1.1.2)."""
_LEADING_BLANKS_COUNT = frozenset(b"LT ST UT UR".split())


class Attribute(NamedTuple):
    """An element: text without padding, several values separated by ``\\``; items of a sequence; or bytes as they are
    in Explicit VR Little Endian.
    """

    vr: bytes
    value: str | bytes | tuple[Attributes, ...]


Attributes = dict[int, Attribute]
"""A data set by tag."""


def parse(data: bytes, syntax: Syntax, *, character_set: str = "", depth: int = 1) -> Attributes:
    """The elements of a data set in memory. NotDicom where it is malformed.

    Elements of the standard have the VR of PS3.6 whatever the sender wrote. Text is decoded by the data set's own
    Specific Character Set, else by ``character_set``. Group lengths are left out.
    """
    return _parsed(data, 0, len(data), syntax, character_set, depth)


def _parsed(data: bytes, at: int, end: int, syntax: Syntax, character_set: str, depth: int) -> Attributes:
    if depth > MAX_DEPTH:
        raise NotDicom(f"A sequence is nested more than {MAX_DEPTH} levels deep")
    found: Attributes = {}
    spans: list[tuple[int, bytes, int, int]] = []
    for tag, given, start, stop in elements(data, at, end, syntax, "The data set", depth=depth):
        if tag == ITEM_END:
            break
        if not tag & 0xFFFF:
            continue
        vr = dictionary_vr(tag)
        if vr == b"UN" and given not in (b"", b"UN"):
            vr = given
        if tag == SPECIFIC_CHARACTER_SET:
            character_set = data[start:stop].decode("ascii", "replace").strip(" \0")
        spans.append((tag, vr, start, stop))
    codecs = charsets.codecs_of(character_set)
    for tag, vr, start, stop in spans:
        if vr == b"SQ":
            inner = items(data, start, stop, syntax, tag_text(tag), depth=depth)
            found[tag] = Attribute(
                vr, tuple(_parsed(data, first, last, syntax, character_set, depth + 1) for first, last in inner)
            )
        elif vr in TEXT_VRS:
            found[tag] = Attribute(vr, _text(data[start:stop], vr, codecs))
        else:
            found[tag] = Attribute(vr, little_endian(vr, data[start:stop], syntax.order))
    return found


def _text(value: bytes, vr: bytes, codecs: tuple[str, ...]) -> str:
    if vr in _IN_CHARACTER_SET:
        text = charsets.decode(value, codecs, name=vr == b"PN")
    else:
        text = value.decode("ascii", "replace")
    return text.rstrip(" \0") if vr in _LEADING_BLANKS_COUNT else text.strip(" \0")


def character_set_for(attributes: Mapping[int, Attribute], wished: str) -> str:
    """The Specific Character Set for these values: none where ASCII does, the one wished for, or UTF-8."""
    texts = [text for text in _texts(attributes) if not text.isascii()]
    if not texts:
        return ""
    first, *more = wished.split("\\")
    if first in _ALONE:
        wished, more = first, []
    known = (first or more) and all(term in charsets.DEFINED_TERMS for term in (first, *more) if term)
    return wished if known and all(_encodable(text, wished) for text in texts) else UTF_8


def _texts(attributes: Mapping[int, Attribute]) -> Iterator[str]:
    for vr, value in attributes.values():
        if isinstance(value, tuple):
            for item in value:
                yield from _texts(item)
        elif isinstance(value, str) and vr in _IN_CHARACTER_SET:
            yield value


@lru_cache(maxsize=4096)
def _encodable(text: str, character_set: str) -> bool:
    return charsets.decode(_encoded(text, character_set), charsets.codecs_of(character_set), name=True) == text


@lru_cache(maxsize=4096)
def _encoded(text: str, character_set: str) -> bytes:
    """Text in a character set; what that does not hold is replaced."""
    if text.isascii():
        return text.encode("ascii")
    if "\\" not in character_set and "2022" not in character_set and "IR 13" not in character_set:
        return text.encode(charsets.codecs_of(character_set)[0], "replace")
    from pydicom.charset import convert_encodings
    from pydicom.valuerep import PersonName

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        terms = character_set.split("\\")
        # A name's rules (the initial character set again behind each delimiter) are right for all other text, too.
        return PersonName(text).encode(convert_encodings(terms))


def encode(attributes: Mapping[int, Attribute], syntax: Syntax, character_set: str) -> bytes:
    """The elements in the order of their tags, defined lengths. ``character_set`` is that of the whole data set."""
    parts = []
    for tag in sorted(attributes):
        vr, value = attributes[tag]
        if isinstance(value, str):
            data = _encoded(value, character_set) if vr in _IN_CHARACTER_SET else value.encode("ascii", "replace")
        elif isinstance(value, tuple):
            data = b"".join(_item(encode(item, syntax, character_set), syntax) for item in value)
        else:
            data = little_endian(vr, value, ">") if syntax.order == ">" else value
        parts.append(element(tag, vr, data, syntax))
    return b"".join(parts)


def element(tag: int, vr: bytes, value: bytes, syntax: Syntax) -> bytes:
    """One element with an encoded value, which is padded (PS3.5 6.2, 7.1)."""
    length = len(value)
    if length & 1:
        value += b" " if vr in TEXT_VRS and vr != b"UI" else b"\0"
        length += 1
    if not syntax.explicit:
        return struct.pack(syntax.order + "HHL", tag >> 16, tag & 0xFFFF, length) + value
    if vr in LONG_VRS:
        return struct.pack(syntax.order + "HH2sHL", tag >> 16, tag & 0xFFFF, vr, 0, length) + value
    if length > 0xFFFE:
        return struct.pack(syntax.order + "HH2sHL", tag >> 16, tag & 0xFFFF, b"UN", 0, length) + value
    return struct.pack(syntax.order + "HH2sH", tag >> 16, tag & 0xFFFF, vr, length) + value


def _item(content: bytes, syntax: Syntax) -> bytes:
    return struct.pack(syntax.order + "HHL", 0xFFFE, 0xE000, len(content)) + content
