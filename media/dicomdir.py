"""Writes the DICOMDIR of a volume in one pass and linear time (PS3.3 Annex F, PS3.10 section 8.6, PS3.11 D.3.3)."""

from __future__ import annotations

import re
import struct
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from media.encoding import encode, split
from media.fileids import length_of
from media.icons import icon_element, icon_length
from media.items import Item
from media.part10 import EXPLICIT_LE, MEDIA_STORAGE_DIRECTORY, file_meta
from media.problems import MediaError
from media.profile_keys import KeySet
from media.records import ROOT_RECORDS, record_elements

FILE_SET_ID_LENGTH = 16
"""Longest File-set ID (0004,1130), a Code String (PS3.3 F.3.2.1)."""

_ITEM_HEAD = 8
_RECORD = struct.Struct("<HHL HH2sHL HH2sHH HH2sHL")
_NEXT = (0x0004, 0x1400, b"UL", 4)
_IN_USE = (0x0004, 0x1410, b"US", 2, 0xFFFF)
_LOWER = (0x0004, 0x1420, b"UL", 4)
_POINTERS_SIZE = _RECORD.size - _ITEM_HEAD
_NEXT_AT, _LOWER_AT = _ITEM_HEAD + 8, _ITEM_HEAD + 30
_TAIL = struct.Struct("<HH2sHL HH2sHL HH2sHH HH2sHL")
_OFFSET_FIRST = (0x0004, 0x1200, b"UL", 4)
_OFFSET_LAST = (0x0004, 0x1202, b"UL", 4)
_CONSISTENT = (0x0004, 0x1212, b"US", 2, 0x0000)
_SEQUENCE = (0x0004, 0x1220, b"SQ", 0)
_ULONG = struct.Struct("<L")
_LARGEST = 0xFFFFFFFE


@dataclass(frozen=True, slots=True)
class RecordSizes:
    """Bytes that each record of one item takes in a DICOMDIR, item head included; 0 for a record that it has not."""

    patient: int
    study: int
    series: int
    instance: int


def _body(record_type: str, keys: bytes, item: Item | None = None, file_id: tuple[str, ...] = ()) -> bytes:
    """A record behind its pointers: type, reference where it has one, keys (PS3.3 Table F.3-3)."""
    parts = [encode(0x00041430, b"CS", record_type.encode("ascii"))]
    if item is not None:
        if record_type == "PRIVATE":
            # It says what kind of private record this is (PS3.3 F.6.1); ours are one kind for each SOP class.
            parts.append(encode(0x00041432, b"UI", item.sop_class_uid.encode("ascii")))
        parts += (
            encode(0x00041500, b"CS", "\\".join(file_id).encode("ascii")),
            encode(0x00041510, b"UI", item.sop_class_uid.encode("ascii")),
            encode(0x00041511, b"UI", item.sop_instance_uid.encode("ascii")),
            encode(0x00041512, b"UI", item.transfer_syntax_uid.encode("ascii")),
        )
    parts.append(keys)
    return b"".join(parts)


def record_sizes(item: Item, keys: KeySet | None = None) -> RecordSizes:
    """The exact sizes of the records that an item needs, its File ID being one of ``fileids.FileIds``.

    ``keys``: those that the profile adds (None: those that any profile does).
    A volume's DICOMDIR is ``header_size`` and the instance sizes of all items, and of each patient, study and series
    the size that the first of its items in the volume has.
    """
    elements = split(item.directory_keys)
    name = ("x" * length_of(item.record_type),)

    def size(record_type: str, of: Item | None = None) -> int:
        body = record_elements(record_type, elements, item.supplied, keys, item.sop_class_uid)
        return _ITEM_HEAD + _POINTERS_SIZE + len(_body(record_type, body, of, name))

    instance = size(item.record_type, item) + icon_length(item.icon)
    if item.record_type in ROOT_RECORDS:
        return RecordSizes(0, 0, 0, instance)
    return RecordSizes(size("PATIENT"), size("STUDY"), size("SERIES"), instance)


def offsets() -> bytes:
    """The end of a directory's head, with zeros for what ``DirectoryWriter`` fills in."""
    return _TAIL.pack(*_OFFSET_FIRST, 0, *_OFFSET_LAST, 0, *_CONSISTENT, *_SEQUENCE, 0)


class DirectoryWriter:
    """The growing file, with the offsets that have still to be filled in. ``head`` ends with ``offsets()``."""

    def __init__(self, head: bytes) -> None:
        self.out = bytearray(head)
        self._begin = len(head)
        self.first_root = 0
        self.last_root = 0

    def add(self, body: bytes, previous: int, parent: int) -> int:
        """Append a record behind its ``previous`` sibling, or as the first below ``parent``; its offset (0: none)."""
        offset = len(self.out)
        length = _POINTERS_SIZE + len(body)
        if offset + length > _LARGEST:
            raise MediaError("The DICOMDIR would be larger than its 32-bit offsets can address")
        self.out += _RECORD.pack(0xFFFE, 0xE000, length, *_NEXT, 0, *_IN_USE, *_LOWER, 0)
        self.out += body
        if previous:
            _ULONG.pack_into(self.out, previous + _NEXT_AT, offset)
        elif parent:
            _ULONG.pack_into(self.out, parent + _LOWER_AT, offset)
        if not parent:
            self.first_root = self.first_root or offset
            self.last_root = offset
        return offset

    def finish(self) -> bytes:
        """The whole file, once the last record is in."""
        begin = self._begin
        _ULONG.pack_into(self.out, begin - _TAIL.size + 8, self.first_root)
        _ULONG.pack_into(self.out, begin - _TAIL.size + 20, self.last_root)
        _ULONG.pack_into(self.out, begin - 4, len(self.out) - begin)
        return bytes(self.out)


def header_size(file_set_id: str, *, descriptor: tuple[str, ...] | None = None) -> int:
    """Bytes of a DICOMDIR before its first record; a File-set UID has 44 characters, as ``uids.new_uid`` makes them."""
    return len(_head(file_set_id, "9" * 44, descriptor))


def _head(file_set_id: str, file_set_uid: str, descriptor: tuple[str, ...] | None) -> bytes:
    """Everything up to the items of the Directory Record Sequence, with zeros for what is known later."""
    if len(file_set_id) > FILE_SET_ID_LENGTH or not re.fullmatch(r"[A-Z0-9_ ]*", file_set_id):
        raise MediaError(f"{file_set_id!r} is no File-set ID: at most 16 of A-Z, 0-9, blank and underscore")
    parts = [
        file_meta(MEDIA_STORAGE_DIRECTORY, file_set_uid, EXPLICIT_LE),
        encode(0x00041130, b"CS", file_set_id.encode("ascii")),
    ]
    if descriptor:
        parts.append(encode(0x00041141, b"CS", "\\".join(descriptor).encode("ascii")))
    parts.append(offsets())
    return b"".join(parts)


def dicomdir_bytes(
    file_set_id: str,
    file_set_uid: str,
    items: Sequence[tuple[Item, tuple[str, ...]]],
    *,
    descriptor: tuple[str, ...] | None = None,
    keys: KeySet | None = None,
) -> bytes:
    """The DICOMDIR of a file-set that holds ``items`` (each with its File ID), its UID being the File-set UID.

    Records stand depth first in the order in which the items are given, so that a reader who follows them meets the
    files in that order, if items of one series, study and patient come together; items whose records stand under the
    root come last. A PATIENT, STUDY or SERIES record has the keys, and the supplied values, of its first item. Items
    of different ``Item.patient`` never share one. ``keys``: those that the profile adds (None: those that any profile
    does). MediaError where an instance comes twice.
    """
    tree: dict[Hashable, dict[str, dict[str, list[int]]]] = {}
    roots: list[int] = []
    seen: set[str] = set()
    for index, (item, _) in enumerate(items):
        if item.sop_instance_uid in seen:
            raise MediaError(f"SOP Instance UID {item.sop_instance_uid} would be twice in one file-set")
        seen.add(item.sop_instance_uid)
        if item.record_type in ROOT_RECORDS:
            roots.append(index)
            continue
        studies = tree.setdefault(item.patient, {})
        studies.setdefault(item.study_instance_uid, {}).setdefault(item.series_instance_uid, []).append(index)

    writer = DirectoryWriter(_head(file_set_id, file_set_uid, descriptor))
    patient_at = 0
    for studies in tree.values():
        study_at = 0
        for all_series in studies.values():
            series_at = 0
            for indices in all_series.values():
                first = items[indices[0]][0]
                elements = split(first.directory_keys)
                if not study_at and not series_at:
                    patient_at = writer.add(upper_record("PATIENT", elements, first, keys), patient_at, 0)
                if not series_at:
                    study_at = writer.add(upper_record("STUDY", elements, first, keys), study_at, patient_at)
                series_at = writer.add(upper_record("SERIES", elements, first, keys), series_at, study_at)
                instance_at = 0
                for index in indices:
                    instance_at = writer.add(instance_record(*items[index], keys), instance_at, series_at)
    for index in roots:
        patient_at = writer.add(instance_record(*items[index], keys), patient_at, 0)
    return writer.finish()


def upper_record(level: str, elements: Mapping[int, bytes], item: Item, keys: KeySet | None = None) -> bytes:
    """The PATIENT, STUDY or SERIES record of an item, behind its pointers."""
    return _body(level, record_elements(level, elements, item.supplied, keys, item.sop_class_uid))


def instance_record(item: Item, file_id: tuple[str, ...], keys: KeySet | None = None) -> bytes:
    """The record that references an item, behind its pointers. MediaError where its icon cannot be read."""
    elements = split(item.directory_keys)
    icon = icon_element(item.icon)
    body = record_elements(item.record_type, elements, item.supplied, keys, item.sop_class_uid, icon)
    return _body(item.record_type, body, item, file_id)
