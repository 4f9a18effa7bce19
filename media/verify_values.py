"""Is a value in a directory record the value in the file? Text compared as text, not as bytes.

A record may be written in another Specific Character Set than its file, padded or spelled otherwise ("1" and "01 " as
integer strings): that is the same value. Sequences are compared item by item (lazily, with pydicom: they are rare).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_CHARACTER_SET_VRS = frozenset({"SH", "LO", "ST", "LT", "UT", "UC", "PN"})
_PLAIN_VRS = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"})
_SHOWN = 64
"""Characters of a value that a message shows."""


class Value(NamedTuple):
    """An element's value as it lies in a data set: little endian, a sequence in Explicit VR."""

    vr: str
    data: bytes


def is_empty(value: Value | None) -> bool:
    """Nothing but padding: how DICOM says that a value is not known."""
    return value is None or not value.data.strip(b" \0")


def same(record: Value, record_charset: str, file: Value, file_charset: str) -> bool:
    """Whether the value in a directory record says what the value in the file says."""
    if record.data == file.data and (record_charset == file_charset or record.data.isascii()):
        return True
    vr = record.vr if record.vr != "UN" else file.vr
    if vr == "SQ":
        return _same_sequence(record.data, record_charset, file.data, file_charset)
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
    if value.vr not in _CHARACTER_SET_VRS or not charset or (data.isascii() and b"\x1b" not in data):
        return data.decode("ascii" if data.isascii() else "latin-1", "replace")
    return _decode(value.vr, data, charset)


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


def _decode(vr: str, data: bytes, charset: str) -> str:
    """Slow path: pydicom knows ISO 2022; imported here so that a plain disc is verified without it."""
    import warnings

    from pydicom.charset import convert_encodings, decode_bytes
    from pydicom.valuerep import PersonName

    delimiters = {0x5E, 0x3D} if vr == "PN" else {0x09, 0x0A, 0x0C, 0x0D}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            encodings = convert_encodings([part.strip() for part in charset.split("\\")])
            if vr == "PN":
                return str(PersonName(data, encodings).decode())
            return decode_bytes(data, encodings, set(delimiters))
        except (LookupError, ValueError):
            return data.decode("latin-1")


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


def _same_sequence(record: bytes, record_charset: str, file: bytes, file_charset: str) -> bool:
    """Every item of the record's sequence is an item of the file's (a record may hold a selection: PS3.3 F.5)."""
    try:
        wanted = _items(record, record_charset)
        present = _items(file, file_charset)
    except Exception:  # noqa: BLE001 - pydicom raises nearly anything on hostile bytes
        return False
    if bool(wanted) != bool(present):
        return False
    return all(any(item == other or _within(item, other) for other in present) for item in wanted)


def _within(part: Dataset, whole: Dataset) -> bool:
    """``part`` has no element that ``whole`` has not with an equal value."""
    return all(element.tag in whole and whole[element.tag].value == element.value for element in part)


def _items(data: bytes, charset: str) -> list[Dataset]:
    from io import BytesIO

    from pydicom.charset import convert_encodings
    from pydicom.filereader import read_sequence

    encodings = convert_encodings([part.strip() for part in charset.split("\\")])
    items = list(read_sequence(BytesIO(data), False, True, len(data), encodings))
    for item in items:
        item.decode()
    return items
