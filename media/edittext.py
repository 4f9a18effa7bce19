"""Values of edits as bytes, and bytes as values that a person reads."""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Sequence

from media import charsets
from media.edits import Edit
from media.elements import Encoding, tag_text
from media.problems import MediaError

UNICODE = "ISO_IR 192"
CHARACTER_SET_VRS = frozenset(("LO", "LT", "PN", "SH", "ST", "UC", "UT"))
"""VRs whose text depends on Specific Character Set (PS3.5 6.1.2.3)."""
PLAIN_VRS = frozenset(("AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"))
_NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d"}
EDITABLE_VRS = CHARACTER_SET_VRS | PLAIN_VRS | _NUMBERS.keys()
_BRIEF = 80


def text_bytes(value: str, declared: str, *, name: bool = False) -> bytes | None:
    """Text in a Specific Character Set; None where that cannot hold it, as reading it back shows.

    In a person name code extensions end at each delimiter (PS3.5 6.1.2.5.3).
    """
    if value.isascii():
        return value.encode("ascii")
    from pydicom.charset import convert_encodings, encode_string

    codecs = charsets.codecs_of(declared)
    try:
        found = value.encode(codecs[0]) if len(codecs) == 1 else None
    except UnicodeEncodeError:
        return None
    if found is None:
        try:
            codes = convert_encodings(declared.split("\\"))
            parts = re.split(r"([\^=\\])", value) if name else [value]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of letters that are lost, which the comparison below finds
                found = b"".join(bytes(encode_string(part, codes)) for part in parts)
        except (LookupError, ValueError):
            return None
    return found if charsets.decode(found, codecs, name=name) == value else None


def holds(declared: str, edits: Sequence[Edit]) -> bool:
    """Whether all new texts can be written in this character set."""
    return all(
        text_bytes(edit.value, declared, name=edit.vr == "PN") is not None
        for edit in edits
        if edit.value is not None and edit.vr in CHARACTER_SET_VRS
    )


def encoded(edit: Edit, declared: str, encoding: Encoding) -> bytes:
    """The value of an edit, of even length. MediaError where it is none of its VR."""
    value = edit.value or ""
    if not value:
        return b""
    if edit.vr in _NUMBERS:
        try:
            number = float if edit.vr in ("FL", "FD") else int
            return b"".join(
                struct.pack(encoding.order + _NUMBERS[edit.vr], number(part)) for part in value.split("\\") if part
            )
        except (ValueError, struct.error, OverflowError):
            raise MediaError(f"{value!r} is no value of VR {edit.vr} for {tag_text(edit.tag)}") from None
    if edit.vr not in EDITABLE_VRS:
        raise MediaError(f"{tag_text(edit.tag)} has VR {edit.vr}, which is not edited")
    if edit.vr in CHARACTER_SET_VRS:
        found = text_bytes(value, declared, name=edit.vr == "PN")
    else:
        found = value.encode("ascii") if value.isascii() else None
    if found is None:
        raise MediaError(f"{value!r} is no value of VR {edit.vr} for {tag_text(edit.tag)}")
    return found + (b"\0" if edit.vr == "UI" else b" ") if len(found) % 2 else found


def shown(vr: str, value: bytes, codecs: tuple[str, ...], encoding: Encoding, *, limit: int = _BRIEF) -> str:
    """A value as text, several parted by a backslash; of binary ones their length. ``limit`` 0: in full."""
    if vr in _NUMBERS:
        size = struct.calcsize(_NUMBERS[vr])
        numbers = [
            struct.unpack_from(encoding.order + _NUMBERS[vr], value, at)[0]
            for at in range(0, len(value) - size + 1, size)
        ]
        text = "\\".join(f"{number:g}" if isinstance(number, float) else str(number) for number in numbers)
    elif vr in CHARACTER_SET_VRS:
        text = charsets.decode(value, codecs, name=vr == "PN").strip(" \0")
    elif vr in PLAIN_VRS:
        text = value.decode("latin-1").strip(" \0")
    else:
        return f"({len(value)} bytes)"
    return brief(text) if limit else text


def brief(text: str) -> str:
    """One line of at most 80 characters."""
    line = "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
    return line if len(line) <= _BRIEF else f"{line[: _BRIEF - 1]}…"
