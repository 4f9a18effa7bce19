"""Reads the header of an instance once, at receipt: every column and directory key that is ever needed of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, BinaryIO

from media import charsets, datasource, records
from media.encoding import DEFLATED, EXPLICIT_LE, encode, syntax_of, tag_text
from media.headerwalk import VERIFICATION_DATETIME, HeaderWalk
from media.items import Header
from media.problems import NotDicom

# Attributes of Header that are text, with their tags.
_TEXT = {
    "specific_character_set": 0x00080005,
    "patient_id": 0x00100020,
    "issuer_of_patient_id": 0x00100021,
    "patient_birth_date": 0x00100030,
    "patient_sex": 0x00100040,
    "study_date": 0x00080020,
    "study_time": 0x00080030,
    "study_id": 0x00200010,
    "study_description": 0x00081030,
    "accession_number": 0x00080050,
    "modality": 0x00080060,
    "series_description": 0x0008103E,
    "body_part_examined": 0x00180015,
    "institution_name": 0x00080080,
    "station_name": 0x00081010,
    "manufacturer": 0x00080070,
    "photometric_interpretation": 0x00280004,
}
_NAMES = {"patient_name": 0x00100010, "referring_physician_name": 0x00080090}
_INTEGERS = {"series_number": 0x00200011, "instance_number": 0x00200013, "number_of_frames": 0x00280008}
_WORDS = {"rows": 0x00280010, "columns": 0x00280011}
_UIDS = {
    "sop_class_uid": (0x00080016, "SOP Class UID"),
    "sop_instance_uid": (0x00080018, "SOP Instance UID"),
    "study_instance_uid": (0x0020000D, "Study Instance UID"),
    "series_instance_uid": (0x0020000E, "Series Instance UID"),
}
_VERIFICATION_FLAG = 0x0040A493
_HEADER_TAGS = frozenset(
    (*_TEXT.values(), *_NAMES.values(), *_INTEGERS.values(), *_WORDS.values(), *(tag for tag, _ in _UIDS.values()))
)

_TEXT_VRS = frozenset(b"AE AS CS DA DS DT IS LO LT PN SH ST TM UC UI UR UT".split())
_UID = re.compile(r"\d+(\.\d+)*")
_CHARACTER_SET = re.compile(rb"[A-Za-z0-9 _.\\-]+\0?")
_CONTROLS = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0)), "\ufffd")


def read_header(
    path: Path, *, offset: int = 0, transfer_syntax_uid: str | None = None, length: int | None = None
) -> Header:
    """Walk through the data set of an instance and keep what a directory, a plan or a column needs of it.

    The data set begins ``offset`` bytes into the file, is ``length`` bytes long (default: to the end of the file) and
    encoded in ``transfer_syntax_uid``; without that, the file is read as a PS3.10 file. Large values are passed over
    by their lengths, yet the whole structure is walked: NotDicom names tag and offset where the data set is cut off or
    malformed, and the tag where a UID that identifies the instance is missing or not a UID. Trailing padding (zeros)
    is allowed. Study and Series Instance UID may be absent: that is for the caller to judge.
    """
    if transfer_syntax_uid is None:
        from media.part10 import locate

        located = locate(path)
        offset, transfer_syntax_uid = located.dataset_offset, located.transfer_syntax_uid
    try:
        with path.open("rb", buffering=0) as stream:
            available = max(0, stream.seek(0, 2) - offset)
            length = available if length is None else min(length, available)
            return header_in(stream, offset=offset, transfer_syntax_uid=transfer_syntax_uid, length=length)
    except OSError as error:
        raise NotDicom(f"The data set cannot be read: {error.strerror or error}") from error


def header_in(stream: BinaryIO, *, offset: int, transfer_syntax_uid: str, length: int) -> Header:
    """``read_header`` of an open, seekable file; OSError where that cannot be read."""
    source, syntax, base = datasource.from_file(stream, offset, length), syntax_of(transfer_syntax_uid), offset
    if transfer_syntax_uid in DEFLATED:
        source, syntax, base = datasource.inflated(source, length), EXPLICIT_LE, 0
    walk = HeaderWalk(source, syntax, base, _HEADER_TAGS)
    walk.run()
    return _header(walk, transfer_syntax_uid, length)


def _header(walk: HeaderWalk, transfer_syntax_uid: str, length: int) -> Header:
    plain = walk.plain
    codecs = charsets.codecs_of(_ascii(plain.get(records.SPECIFIC_CHARACTER_SET, (b"", b""))[1]))

    def text(tag: int, *, name: bool = False) -> str:
        pair = plain.get(tag)
        if pair is None:
            return ""
        decoded = charsets.decode(pair[1], codecs, name=name).strip(" \0")
        # Control characters, above all NUL, are legal in no such text and poison to databases and terminals.
        return decoded if decoded.isprintable() else decoded.translate(_CONTROLS)

    texts = {attribute: text(tag) for attribute, tag in _TEXT.items()}
    texts |= {attribute: text(tag, name=True) for attribute, tag in _NAMES.items()}
    texts |= {attribute: _uid(walk, attribute) for attribute in _UIDS}
    numbers = {attribute: _integer(text(tag)) for attribute, tag in _INTEGERS.items()}
    numbers |= {attribute: _word(*plain.get(tag, (b"", b""))) for attribute, tag in _WORDS.items()}
    fields: dict[str, Any] = texts | numbers
    return Header(
        transfer_syntax_uid=transfer_syntax_uid,
        has_pixel_data=walk.has_pixel_data,
        directory_keys=_directory_keys(walk),
        dataset_bytes=length,
        **fields,
    )


def _directory_keys(walk: HeaderWalk) -> bytes:
    """The elements met that are keys and have a value, as received but for VR, byte order and lengths."""
    plain, sequences, shared = walk.plain, walk.sequences, walk.shared
    parts = []
    for tag, vr in walk.wanted.keys:
        if tag in plain:
            given, value = plain[tag]
            if value.strip(b" \0") if vr in _TEXT_VRS else value:
                if tag == records.SPECIFIC_CHARACTER_SET and not _CHARACTER_SET.fullmatch(value):
                    continue  # would make others fail on the whole record
                if given == vr or given in (b"", b"UN") or (given in _TEXT_VRS and vr in _TEXT_VRS):
                    parts.append(encode(tag, vr, value))
                continue
        if tag == VERIFICATION_DATETIME and plain.get(_VERIFICATION_FLAG, (b"", b""))[1].strip(b" \0") != b"VERIFIED":
            continue
        if element := sequences.get(tag) or shared.get(tag):
            parts.append(element)
    return b"".join(parts)


def _ascii(value: bytes) -> str:
    return value.decode("ascii", "replace").strip(" \0")


def _uid(walk: HeaderWalk, attribute: str) -> str:
    """A UID that identifies the instance or places it; NotDicom where it is none (PS3.5 9.1)."""
    tag, name = _UIDS[attribute]
    text = _ascii(walk.plain.get(tag, (b"", b""))[1])
    if not text:
        if attribute.startswith("sop"):
            raise NotDicom(f"{tag_text(tag)} {name} is missing")
        return ""
    if len(text) > 64 or not _UID.fullmatch(text) or not text.isascii():
        raise NotDicom(f"{tag_text(tag)} {name} is not a UID: {text[:80]!r}")
    return text


def _integer(text: str) -> int | None:
    """First value of an Integer String; None where it is none (PS3.5 6.2: IS)."""
    try:
        number = int(text.split("\\", maxsplit=1)[0][:16])
    except ValueError:
        return None
    return number if abs(number) < 1 << 31 else None


def _word(vr: bytes, value: bytes) -> int | None:
    """An unsigned short, or what a maker wrote for one."""
    if vr in _TEXT_VRS:
        return _integer(_ascii(value))
    return int.from_bytes(value, "little") if len(value) in (2, 4) else None
