"""Is a value in a directory record the value in the file? Text compared as text, not as bytes.

A record may be written in another Specific Character Set than its file, padded or spelled otherwise ("1" and "01 " as
integer strings): that is the same value. Of a sequence a record may hold a selection of the items and their elements.
"""

from __future__ import annotations

import re

from media.charsets import codecs_of, decode
from media.verify_scan import Malformed, Value, elements, items

_CHARACTER_SET_VRS = frozenset({"SH", "LO", "ST", "LT", "UT", "UC", "PN"})
_PLAIN_VRS = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"})
_NUMBER_VRS = frozenset({"AT", "FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"})
_SPECIFIC_CHARACTER_SET = 0x00080005
_DEEPEST = 16
"""Sequences within sequences that are compared."""
_SHOWN = 64
"""Characters of a value that a message shows."""


def is_empty(value: Value | None) -> bool:
    """Nothing but padding: how DICOM says that a value is not known. (32 rows are two bytes that look like it.)"""
    return value is None or not (value.data if value.vr in _NUMBER_VRS else value.data.strip(b" \0"))


def same(record: Value, record_charset: str, file: Value, file_charset: str, depth: int = 0) -> bool:
    """Whether the value in a directory record says what the value in the file says."""
    if record.data == file.data and (record_charset == file_charset or _is_plain(record.data)):
        return True
    vr = record.vr if record.vr != "UN" else file.vr
    if vr == "SQ":
        return _same_sequence(record.data, record_charset, file.data, file_charset, depth)
    if vr in ("IS", "DS"):
        return _numbers(record.data) == _numbers(file.data)
    if vr in _PLAIN_VRS:
        return _plain(vr, record.data) == _plain(vr, file.data)
    if vr in _CHARACTER_SET_VRS:
        return _words(vr, text(record, record_charset)) == _words(vr, text(file, file_charset))
    return record.data == file.data


def text(value: Value, charset: str) -> str:
    """The value as Unicode, by a Specific Character Set (0008,0005) as it stands in the data set (backslashes).

    What cannot be decoded becomes U+FFFD: a broken value is not equal to a sound one, and can be shown.
    """
    data = value.data.rstrip(b" \0")
    if value.vr not in _CHARACTER_SET_VRS or not charset or _is_plain(data):
        return data.decode("ascii" if data.isascii() else "latin-1", "replace")
    return decode(data, codecs_of(charset), name=value.vr == "PN")


def _is_plain(data: bytes) -> bool:
    """Whether text means the same in every character set: ASCII without escape sequences (which are ASCII, too)."""
    return data.isascii() and b"\x1b" not in data


def shown(value: Value | None, charset: str) -> str:
    """The value for a message: quoted, cut, without control characters."""
    if value is None:
        return "nothing"
    if value.vr == "SQ":
        return f"a sequence of {len(value.data)} bytes"
    if value.vr in _CHARACTER_SET_VRS or value.vr in _PLAIN_VRS or value.vr == "UN":
        return quoted(text(value, charset))
    return value.data[:16].hex(" ") + ("..." if len(value.data) > 16 else "")


def quoted(said: str) -> str:
    """Foreign text made safe for one line of a report."""
    short = said if len(said) <= _SHOWN else said[:_SHOWN] + "..."
    return '"' + "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in short) + '"'


def _plain(vr: str, data: bytes) -> bytes:
    """Without padding; dates and times also without the full stops and colons of ACR-NEMA, and fractions of zero."""
    value = data.rstrip(b" \0").strip(b" ")
    if vr == "DA":
        return value.replace(b".", b"")
    if vr == "TM":
        whole, _, fraction = value.replace(b":", b"").partition(b".")
        return whole.ljust(6, b"0") + b"." + fraction.rstrip(b"0")
    return re.sub(rb" *\\ *", rb"\\", value)


def _numbers(data: bytes) -> list[float | bytes]:
    numbers: list[float | bytes] = []
    for part in data.rstrip(b" \0").split(b"\\"):
        try:
            numbers.append(float(part))
        except ValueError:
            numbers.append(part.strip())
    return numbers


def _words(vr: str, said: str) -> list[str]:
    """Significant text: values without outer blanks, person names without empty trailing components and groups."""
    if vr in ("ST", "LT", "UT"):
        return [said.rstrip()]
    values = [value.strip() for value in said.split("\\")]
    if vr == "PN":
        return ["=".join(group.rstrip("^ ") for group in value.split("=")).rstrip("=") for value in values]
    return values


def _same_sequence(record: bytes, record_charset: str, file: bytes, file_charset: str, depth: int = 0) -> bool:
    """Whether the record's items are, in their order, among the file's (PS3.3 F.5: "HAS CONCEPT MOD" ones only)."""
    if depth > _DEEPEST:
        return False
    try:
        wanted, present = items(record), items(file)
        if bool(wanted) != bool(present):
            return False
        at = 0
        for item in wanted:
            part = elements(item)
            while not _within(part, record_charset, elements(present[at]), file_charset, depth):
                at += 1
            at += 1
    except (Malformed, IndexError):
        return False
    return True


def _within(part: dict[int, Value], part_charset: str, whole: dict[int, Value], whole_charset: str, depth: int) -> bool:
    """Whether every element of ``part`` is in ``whole`` with the same value."""
    part_charset = _own_charset(part, part_charset)
    whole_charset = _own_charset(whole, whole_charset)
    for tag, value in part.items():
        if tag & 0xFFFF == 0 or tag == _SPECIFIC_CHARACTER_SET:
            continue
        other = whole.get(tag)
        if other is None or not same(value, part_charset, other, whole_charset, depth + 1):
            return False
    return True


def _own_charset(item: dict[int, Value], inherited: str) -> str:
    own = item.get(_SPECIFIC_CHARACTER_SET)
    return inherited if own is None else text(own, "")
