"""PS3.10 files: writes our file meta information and finds the data set in files that others wrote, well or badly."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from media.problems import NotDicom
from media.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

IMPLICIT_LE = "1.2.840.10008.1.2"
EXPLICIT_LE = "1.2.840.10008.1.2.1"
DEFLATED_LE = "1.2.840.10008.1.2.1.99"
EXPLICIT_BE = "1.2.840.10008.1.2.2"
MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"
_NAMES = {
    IMPLICIT_LE: "Implicit VR Little Endian",
    EXPLICIT_LE: "Explicit VR Little Endian",
    EXPLICIT_BE: "Explicit VR Big Endian",
}

CHUNK = 1 << 20
_HEAD = 1 << 16
_META_LIMIT = 1 << 20
_UNDEFINED = 0xFFFFFFFF
_PIXEL_DATA = 0x7FE00010

_LONG = "OB OD OF OL OV OW SQ SV UC UN UR UT UV"
_SHORT = "AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US"
VRS = frozenset(f"{_LONG} {_SHORT}".split())
"""The value representations of PS3.5 6.2."""
LONG_VRS = frozenset(_LONG.split())
"""Those whose length is a 32-bit field after two reserved bytes (PS3.5 7.1.2)."""

_FOREIGN: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 image"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 codestream"),
    (0, b"GIF8", "a GIF image"),
    (0, b"BM", "a BMP image"),
    (0, b"II*\x00", "a TIFF image"),
    (0, b"MM\x00*", "a TIFF image"),
    (0, b"%PDF-", "a PDF document"),
    (0, b"PK\x03\x04", "a ZIP archive (or a document or program packed as one)"),
    (0, b"PK\x05\x06", "an empty ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"MZ", "a Windows program"),
    (0, b"\x7fELF", "a program"),
    (0, b"\x00\x00\x01\xba", "an MPEG video"),
    (0, b"\x00\x00\x01\xb3", "an MPEG video"),
    (4, b"ftyp", "an MP4 or QuickTime video"),
    (0, b"RIFF", "a RIFF file (AVI, WAV or WebP)"),
    (0, b"SQLite format 3", "an SQLite database"),
    (0, b"solid ", "an STL model"),
    (0, b"MSH|", "an HL7 version 2 message"),
    (0, b"\x0bMSH|", "an HL7 version 2 message"),
    (32769, b"CD001", "an ISO 9660 disc image (import it as a medium)"),
)


@dataclass(frozen=True, slots=True)
class Part10:
    """Where the data set of a file begins, and how it is encoded."""

    transfer_syntax_uid: str
    """As the data set really is encoded, where that can be told and differs from what the file says."""
    sop_class_uid: str
    """Media Storage SOP Class UID; ``""`` where the file has no (complete) file meta information."""
    sop_instance_uid: str
    """Media Storage SOP Instance UID; ``""`` likewise."""
    dataset_offset: int
    """Bytes from the beginning of the file."""
    notes: tuple[str, ...] = ()
    """What was wrong with the file and passed over, in words."""


def _explicit(tag: int, vr: bytes, value: bytes) -> bytes:
    if len(value) % 2:
        value += b"\x00" if vr in (b"UI", b"OB") else b" "
    if vr == b"OB":
        return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def file_meta(
    sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, version_name: str = IMPLEMENTATION_VERSION_NAME
) -> bytes:
    """Preamble, prefix and file meta information of a file that we write (PS3.10 7.1).

    The same arguments give the same bytes; ``version_name``: as that version of Burnish wrote it. A UID that is no
    ASCII raises NotDicom.
    """
    try:
        elements = b"".join(
            (
                _explicit(0x00020001, b"OB", b"\x00\x01"),
                _explicit(0x00020002, b"UI", sop_class_uid.encode("ascii")),
                _explicit(0x00020003, b"UI", sop_instance_uid.encode("ascii")),
                _explicit(0x00020010, b"UI", transfer_syntax_uid.encode("ascii")),
                _explicit(0x00020012, b"UI", IMPLEMENTATION_CLASS_UID.encode("ascii")),
                _explicit(0x00020013, b"SH", version_name.encode("ascii")),
            )
        )
    except UnicodeEncodeError as error:
        raise NotDicom(f"A UID holds other characters than digits and dots: {error.object!r}") from None
    return bytes(128) + b"DICM" + _explicit(0x00020000, b"UL", struct.pack("<I", len(elements))) + elements


def locate(path: Path, *, directory: bool = False) -> Part10:
    """Find the data set in a file: with or without preamble, with or without file meta information.

    Where the file meta information names a transfer syntax that the data set does not have, or none, the encoding is
    told from the data set's first elements, and a note says so. Only those are read: that the rest can be parsed is
    for ``header.read_header`` to find out. ``directory`` lets a DICOMDIR pass, which otherwise is no instance.
    NotDicom names the file and gives a reason that a person understands.
    """
    try:
        if not path.is_file():
            raise NotDicom(f"{path} is not a file" if path.exists() else f"{path} does not exist")
        with path.open("rb") as stream:
            return locate_in(stream, str(path), directory=directory)
    except OSError as error:
        raise NotDicom(f"{path} cannot be read: {error.strerror or error}") from error


def locate_in(stream: BinaryIO, name: str, *, directory: bool = False) -> Part10:
    """``locate`` for an open, seekable file; ``name`` is what messages call it."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    head = stream.read(_HEAD)
    if not size:
        raise NotDicom(f"{name} is empty")
    notes: list[str] = []
    if head[128:132] == b"DICM" and not (_begins_data_set(head) and head[132:134] != b"\x02\x00"):
        start, has_prefix = 132, True
    elif head[:4] == b"DICM":
        start, has_prefix = 4, True
        notes.append("the 128 byte preamble is missing")
    else:
        start, has_prefix = 0, False
        notes.append("preamble and prefix are missing")
    meta: dict[int, bytes] = {}
    if head[start : start + 2] == b"\x02\x00" or head[start : start + 4] == b"\x00\x02\x00\x00":
        if size > _HEAD and _meta_end_hint(head, start) > _HEAD:
            stream.seek(0)
            head = stream.read(_META_LIMIT)
        meta, offset = _read_meta(head, start, name, size, notes)
    else:
        offset = start
        notes.append("file meta information is missing")
    if not has_prefix and not meta:
        _refuse_foreign(head, name)
    if offset >= size:
        raise NotDicom(f"{name} holds file meta information only, and no data set")

    sop_class, sop_instance, declared = (_uid(meta, tag) for tag in (0x00020002, 0x00020003, 0x00020010))
    if sop_class == MEDIA_STORAGE_DIRECTORY and not directory:
        raise NotDicom(f"{name} is a DICOMDIR, not an instance: import the medium or folder that it describes")
    syntax = _settle(stream, size, offset, declared, name, notes=notes)
    return Part10(syntax, sop_class, sop_instance, offset, tuple(notes))


def _begins_data_set(head: bytes) -> bool:
    """Whether the first bytes are an explicit VR element of group 0008 (so that "DICM" behind them is chance)."""
    return head[:2] in (b"\x08\x00", b"\x00\x08") and head[4:6].decode("latin-1") in VRS


def _uid(meta: dict[int, bytes], tag: int) -> str:
    return meta.get(tag, b"").decode("latin-1").strip("\0 ")


def _meta_end_hint(head: bytes, start: int) -> int:
    """Where the group length says that the file meta information ends; 0 where it does not say."""
    if head[start : start + 8] == b"\x02\x00\x00\x00UL\x04\x00":
        return start + 12 + int(struct.unpack_from("<I", head, start + 8)[0])
    return 0


def _read_meta(head: bytes, start: int, name: str, size: int, notes: list[str]) -> tuple[dict[int, bytes], int]:
    """Elements of group 0002 and the offset behind them. Tolerates implicit VR and big endian, against PS3.10 7.1."""
    meta: dict[int, bytes] = {}
    at = start
    little = head[start : start + 2] == b"\x02\x00"
    order = "<" if little else ">"
    implicit = False
    while at + 8 <= len(head):
        group, element = struct.unpack_from(order + "HH", head, at)
        if group != 0x0002:
            break
        vr = head[at + 4 : at + 6].decode("latin-1")
        if vr in LONG_VRS and at + 12 <= len(head):
            length = struct.unpack_from(order + "I", head, at + 8)[0]
            value = at + 12
        elif vr in VRS:
            length = struct.unpack_from(order + "H", head, at + 6)[0]
            value = at + 8
        else:
            length = struct.unpack_from(order + "I", head, at + 4)[0]
            value = at + 8
            implicit = True
        if value + length > size:
            raise NotDicom(f"{name} ends within its file meta information, in element (0002,{element:04X})")
        if value + length > len(head):
            raise NotDicom(f"{name} has more than {_META_LIMIT} bytes of file meta information")
        meta[(group << 16) | element] = head[value : value + length]
        at = value + length
    if not little:
        notes.append("file meta information is big endian")
    if implicit:
        notes.append("file meta information has implicit VR")
    return meta, at


def _refuse_foreign(head: bytes, name: str) -> None:
    for offset, magic, what in _FOREIGN:
        if head[offset : offset + len(magic)] == magic:
            raise NotDicom(f"{name} is {what}, not DICOM")
    if not head.strip(b"\0"):
        raise NotDicom(f"{name} holds only zero bytes")
    start = head[:1024].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        raise NotDicom(f"{name} is an HTML page, not DICOM")
    if start.startswith(b"<?xml"):
        raise NotDicom(f"{name} is an XML document, not DICOM")
    try:
        text = head[:4096].decode("utf-8")
    except UnicodeDecodeError as error:
        text = head[: error.start].decode("utf-8") if error.start > 4000 else "\0"
    if all(character.isprintable() or character in "\r\n\t\f\ufeff\x1b" for character in text):
        raise NotDicom(f"{name} is a text file, not DICOM")


@dataclass(frozen=True, slots=True)
class _Fit:
    """How many of the first elements make sense in a transfer syntax, and whether a wrong one came after them."""

    elements: int
    sound: bool


def _fit(stream: BinaryIO, start: int, size: int, syntax: str, *, guessing: bool, limit: int = 24) -> _Fit:
    order = ">" if syntax == EXPLICIT_BE else "<"
    implicit = syntax == IMPLICIT_LE
    at, last, count = start, -1, 0
    while count < limit and at < size:
        stream.seek(at)
        header = stream.read(12)
        if len(header) < 8:
            return _Fit(count, not header.strip(b"\0"))
        group, element = struct.unpack_from(order + "HH", header)
        tag = (group << 16) | element
        vr = header[4:6].decode("latin-1")
        if tag <= last or (guessing and last < 0 and group > 0x0020):
            return _Fit(count, tag == 0 and count > 0)
        if implicit:
            length, value = struct.unpack_from(order + "I", header, 4)[0], at + 8
        elif vr not in VRS:
            return _Fit(count, False)
        elif vr in LONG_VRS:
            if len(header) < 12:
                return _Fit(count, False)
            length, value = struct.unpack_from(order + "I", header, 8)[0], at + 12
        else:
            length, value = struct.unpack_from(order + "H", header, 6)[0], at + 8
        if length == _UNDEFINED:
            return _Fit(count + 1, vr in ("SQ", "UN", "OB", "OW") or implicit)
        if value + length > size:
            # A value cut off by the end of the file is believed only after others that were right.
            return _Fit(count, False)
        count, last, at = count + 1, tag, value + length
    return _Fit(count, True)


def _settle(stream: BinaryIO, size: int, offset: int, declared: str, name: str, *, notes: list[str]) -> str:
    """The transfer syntax to read the data set in; appends a note where it is not the declared one."""
    if declared == DEFLATED_LE and _inflates(stream, offset):
        return declared
    expected = declared if declared in (IMPLICIT_LE, EXPLICIT_BE) else EXPLICIT_LE
    fits = {
        syntax: _fit(stream, offset, size, syntax, guessing=not declared or syntax != expected)
        for syntax in (EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE)
    }
    best = max(fits, key=lambda syntax: (fits[syntax].elements, fits[syntax].sound, syntax == expected))
    if declared:
        if fits[expected].sound or fits[expected].elements >= max(1, fits[best].elements):
            if declared == DEFLATED_LE:
                notes.append("the data set is not deflated, although the file says so")
                return EXPLICIT_LE
            return declared
        if fits[best].elements < 2 or not fits[best].sound:
            if fits[expected].elements:
                return declared
            raise NotDicom(f"{name} has no readable data element where its data set should begin (offset {offset})")
        if declared not in (IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE):
            raise NotDicom(
                f"{name} says that it is encoded in transfer syntax {declared}, but its data set has {_NAMES[best]}"
            )
        notes.append(f"the data set has {_NAMES[best]}, although the file says {declared}")
        return best
    if not fits[best].elements or (fits[best].elements < 3 and not fits[best].sound):
        raise NotDicom(f"{name} is not DICOM: it has no DICOM prefix and does not begin with data elements")
    if best != IMPLICIT_LE and _is_encapsulated(stream, offset, size, best):
        raise NotDicom(f"{name} does not say its transfer syntax, and its pixel data is compressed in an unknown one")
    notes.append(f"no transfer syntax is given; read as {_NAMES[best]}")
    return best


def _inflates(stream: BinaryIO, offset: int) -> bool:
    stream.seek(offset)
    try:
        return len(zlib.decompressobj(-zlib.MAX_WBITS).decompress(stream.read(_HEAD), 64)) > 8
    except zlib.error:
        return False


def _is_encapsulated(stream: BinaryIO, offset: int, size: int, syntax: str) -> bool:
    """Whether Pixel Data of an explicit VR data set has undefined length, as far as that can be walked."""
    order = ">" if syntax == EXPLICIT_BE else "<"
    at, depth = offset, 0
    for _ in range(100_000):
        if at + 8 > size:
            break
        stream.seek(at)
        header = stream.read(12)
        group, element = struct.unpack_from(order + "HH", header)
        tag = (group << 16) | element
        if group == 0xFFFE:
            length = struct.unpack_from(order + "I", header, 4)[0]
            depth += {0xE0DD: -1}.get(element, 0)
            at += 8 + (length if depth <= 0 and length != _UNDEFINED else 0)
            continue
        vr = header[4:6].decode("latin-1")
        long = vr in LONG_VRS
        if vr not in VRS or (long and len(header) < 12):
            return False
        length = struct.unpack_from(order + ("I" if long else "H"), header, 8 if long else 6)[0]
        if length == _UNDEFINED and tag == _PIXEL_DATA and depth <= 0:
            return True
        depth += length == _UNDEFINED
        at += (12 if long else 8) + (0 if length == _UNDEFINED else length)
    return False


def dataset_chunks(path: Path, located: Part10) -> Iterator[bytes]:
    """The encoded data set of a file, exactly as it stands there, in pieces of at most 1 MiB."""
    with path.open("rb") as stream:
        stream.seek(located.dataset_offset)
        while chunk := stream.read(CHUNK):
            yield chunk
