"""Reads the header of an instance once, at receipt: every column and directory key that is ever needed of it."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any, BinaryIO

from media import charsets, datasource, records
from media.encoding import DEFLATED, EXPLICIT_LE, encode, syntax_of, tag_text
from media.headerwalk import VERIFICATION_DATETIME, HeaderWalk, Plain, Wanted
from media.items import Header
from media.problems import NotDicom

_TEXT = {
    0x00080005: "specific_character_set",
    0x00100020: "patient_id",
    0x00100021: "issuer_of_patient_id",
    0x00100030: "patient_birth_date",
    0x00100040: "patient_sex",
    0x00080020: "study_date",
    0x00080030: "study_time",
    0x00200010: "study_id",
    0x00081030: "study_description",
    0x00080050: "accession_number",
    0x00080060: "modality",
    0x0008103E: "series_description",
    0x00180015: "body_part_examined",
    0x00080080: "institution_name",
    0x00081010: "station_name",
    0x00080070: "manufacturer",
    0x00280004: "photometric_interpretation",
}
"""Attributes of Header that are text, by tag."""
_NAMES = {0x00100010: "patient_name", 0x00080090: "referring_physician_name"}
_INTEGERS = {0x00200011: "series_number", 0x00200013: "instance_number", 0x00280008: "number_of_frames"}
_WORDS = {0x00280010: "rows", 0x00280011: "columns"}
_UIDS = {
    0x00080016: ("sop_class_uid", "SOP Class UID"),
    0x00080018: ("sop_instance_uid", "SOP Instance UID"),
    0x0020000D: ("study_instance_uid", "Study Instance UID"),
    0x0020000E: ("series_instance_uid", "Series Instance UID"),
}
_SOP_UIDS = (0x00080016, 0x00080018)
_VERIFICATION_FLAG = 0x0040A493
HEADER_TAGS = frozenset((*_TEXT, *_NAMES, *_INTEGERS, *_WORDS, *_UIDS))

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
    walk = HeaderWalk(source, syntax, base, HEADER_TAGS)
    walk.run()
    return header_of_walk(walk, transfer_syntax_uid, length)


def text_of(value: bytes, codecs: tuple[str, ...], name: bool) -> str:
    """A text as a column has it."""
    decoded = charsets.decode(value, codecs, name=name).strip(" \0")
    # Control characters, above all NUL, are legal in no such text and poison to databases and terminals.
    return decoded if decoded.isprintable() else decoded.translate(_CONTROLS)


def key_of(tag: int, vr: bytes, given: bytes, value: bytes) -> bytes:
    """A directory key, which is no sequence, encoded; nothing where it has no value, or none that it can have.

    ``given``: the VR as received.
    """
    if not (value.strip(b" \0") if vr in _TEXT_VRS else value):
        return b""
    if tag == records.SPECIFIC_CHARACTER_SET and not _CHARACTER_SET.fullmatch(value):
        return b""  # would make others fail on the whole record
    if given == vr or given in (b"", b"UN") or (given in _TEXT_VRS and vr in _TEXT_VRS):
        return encode(tag, vr, value)
    return b""


def header_of_walk(walk: HeaderWalk, transfer_syntax_uid: str, length: int) -> Header:
    """The Header of a data set that was walked through."""
    fields = fields_of(walk.plain, codecs_of(walk.plain))
    complete(fields, walk, keys_of(walk.plain, walk.wanted), transfer_syntax_uid, length)
    return Header(**fields)


def codecs_of(plain: Plain) -> tuple[str, ...]:
    """Of the data set's Specific Character Set."""
    return charsets.codecs_of(_ascii(plain.get(records.SPECIFIC_CHARACTER_SET, (b"", b""))[1]))


def fields_of(plain: Plain, codecs: tuple[str, ...]) -> dict[str, Any]:
    """The attributes of Header that these elements are. NotDicom where a UID is none."""
    fields: dict[str, Any] = {}
    for tag, (vr, value) in plain.items():
        if tag in _TEXT:
            fields[_TEXT[tag]] = text_of(value, codecs, False)
        elif tag in _UIDS:
            fields[_UIDS[tag][0]] = _uid(tag, value)
        elif tag in _INTEGERS:
            fields[_INTEGERS[tag]] = _integer(text_of(value, codecs, False))
        elif tag in _NAMES:
            fields[_NAMES[tag]] = text_of(value, codecs, True)
        elif tag in _WORDS:
            fields[_WORDS[tag]] = _word(vr, value)
    return fields


def keys_of(plain: Plain, wanted: Wanted) -> dict[int, bytes]:
    """Those of these elements that are keys, as received but for VR, byte order and lengths."""
    vrs = wanted.keys
    return {tag: key_of(tag, vrs[tag], given, value) for tag, (given, value) in plain.items() if tag in vrs}


def complete(
    fields: dict[str, Any], walk: HeaderWalk, keys: dict[int, bytes], transfer_syntax_uid: str, length: int
) -> None:
    """Add to the attributes of a Header what are no elements; its keys are these, and sequences that were met.

    NotDicom where a UID that identifies the instance is missing.
    """
    for tag in _SOP_UIDS:
        attribute, name = _UIDS[tag]
        if not fields.get(attribute):
            raise NotDicom(f"{tag_text(tag)} {name} is missing")
    for others in (walk.sequences, walk.shared):
        for tag, element in others.items():
            if tag == VERIFICATION_DATETIME and not _is_verified(walk):
                continue
            if tag in walk.wanted.keys:
                keys.setdefault(tag, element)
    fields["transfer_syntax_uid"] = transfer_syntax_uid
    fields["has_pixel_data"] = walk.has_pixel_data
    fields["directory_keys"] = b"".join([keys[tag] for tag in sorted(keys)])
    fields["dataset_bytes"] = length


def _is_verified(walk: HeaderWalk) -> bool:
    return walk.plain.get(_VERIFICATION_FLAG, (b"", b""))[1].strip(b" \0") == b"VERIFIED"


def _ascii(value: bytes) -> str:
    return value.decode("ascii", "replace").strip(" \0")


@functools.lru_cache(256)
def _uid(tag: int, value: bytes) -> str:
    """A UID that identifies the instance or places it; NotDicom where it is none (PS3.5 9.1)."""
    text = _ascii(value)
    if text and (len(text) > 64 or not _UID.fullmatch(text) or not text.isascii()):
        raise NotDicom(f"{tag_text(tag)} {_UIDS[tag][1]} is not a UID: {text[:80]!r}")
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
