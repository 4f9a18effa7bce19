"""Reads a DICOMDIR of any maker, well or badly made, and never trusts it (PS3.3 Annex F, PS3.10 section 8)."""

from __future__ import annotations

import contextlib
import io
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from media import charsets, part10
from media.encoding import (
    EXPLICIT_LE,
    ITEM,
    ITEM_END,
    SEQUENCE_END,
    UNDEFINED,
    Syntax,
    element_head,
    elements,
    item_end,
    syntax_of,
    tag_text,
    value_of,
)
from media.encoding import element_to_explicit_le as _explicit
from media.fileids import MAX_COMPONENTS, check_component, hostile_component
from media.problems import FileSetInvalid, NotDicom, Problem, ProblemKind
from media.records import SPECIFIC_CHARACTER_SET, TYPES

NAME = "DICOMDIR"
_NEXT, _IN_USE, _LOWER, _TYPE = 0x00041400, 0x00041410, 0x00041420, 0x00041430
_FILE_ID, _SOP_CLASS, _SOP_INSTANCE, _TRANSFER_SYNTAX = 0x00041500, 0x00041510, 0x00041511, 0x00041512
_FILE_SET_ID, _DESCRIPTOR, _FIRST, _LAST, _CONSISTENCY = 0x00041130, 0x00041141, 0x00041200, 0x00041202, 0x00041212
_SEQUENCE = 0x00041220
_POINTERS = frozenset((_NEXT, _IN_USE, _LOWER, _TYPE, _FILE_ID, _SOP_CLASS, _SOP_INSTANCE, _TRANSFER_SYNTAX))
_MAX_DEPTH = 16
"""PS3.3 Table F.4-1 needs 4 levels, with private and retired record types a few more."""
_HEAD = 1 << 16
"""Bytes of a DICOMDIR in which all stands that comes before its records."""
_RETIRED = frozenset(
    (
        *("OVERLAY", "MODALITY LUT", "VOI LUT", "CURVE", "TOPIC", "VISIT", "RESULTS", "INTERPRETATION"),
        *("STUDY COMPONENT", "STORED PRINT", "MRDR", "PRINT QUEUE", "FILM SESSION", "FILM BOX"),
    )
)
"""Directory Record Types of former editions, which discs may still hold."""
NATIVE = frozenset(("HL7 STRUC DOC",))
"""Types, retired in 2018, whose records reference a file that is no DICOM file: a document as it is (PS3.10 Annex B).
They stand below a PATIENT record; discs of other makers have them, we write none."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a DICOMDIR may be; a disc of 100,000 instances has one of about 60 MB."""

    bytes: int = 1 << 30
    records: int = 2_000_000
    problems: int = 1000


@dataclass(slots=True)
class Record:
    """One directory record, as it stands in the file."""

    type: str
    offset: int
    """Of its item, from the beginning of the file, as the offsets in a DICOMDIR count."""
    parent: int | None
    """Index of the record above it; None for those directly under the root, and for those that nothing leads to."""
    reachable: bool
    file_id: tuple[str, ...] | None
    """Components of the Referenced File ID in capital letters; None where there is none, or a hostile one."""
    referenced_sop_class_uid: str
    referenced_sop_instance_uid: str
    referenced_transfer_syntax_uid: str
    charset: str
    """Specific Character Set (0008,0005) of this record."""
    in_use: bool
    _next: int = field(repr=False)
    _lower: int = field(repr=False)
    _directory: bytes = field(repr=False)
    _span: tuple[int, int] = field(repr=False)
    _syntax: Syntax = field(repr=False)

    @property
    def elements(self) -> dict[int, tuple[str, bytes]]:
        """VR and value of each key that can be read, without group 0004, in Explicit VR Little Endian.

        Decoded at each call, so that a directory of 100,000 records need not hold them all.
        """
        found: dict[int, tuple[str, bytes]] = {}
        with contextlib.suppress(NotDicom):  # listed as a Problem when the directory was read
            for tag, vr, start, stop in elements(self._directory, *self._span, self._syntax, self.type):
                if tag >> 16 != 0x0004 and tag >> 16 != 0xFFFE:
                    element = _explicit(self._directory, tag, vr, (start, stop), self._syntax)
                    found[tag] = (element[4:6].decode("latin_1"), value_of(element))
        return found

    @property
    def next_offset(self) -> int:
        """Offset of the next record of its level; 0: it is the last."""
        return self._next

    @property
    def lower_offset(self) -> int:
        """Offset of the first record below it; 0: there is none."""
        return self._lower

    def content(self) -> bytes:
        """Everything but the pointers and the flag, group length and delimiter: as it stands in the file, where that is
        Explicit VR Little Endian, and converted to it elsewhere. NotDicom where it is malformed."""
        pieces = []
        at = self._span[0]
        for tag, vr, start, stop in elements(self._directory, *self._span, self._syntax, f"Record {self.offset}"):
            if tag not in (0x00040000, _NEXT, _IN_USE, _LOWER, ITEM_END):
                if vr and self._syntax == EXPLICIT_LE:
                    pieces.append(self._directory[at:stop])
                else:
                    pieces.append(_explicit(self._directory, tag, vr, (start, stop), self._syntax))
            at = stop
        return b"".join(pieces)

    def text(self, tag: int) -> str:
        """A key as Unicode, without padding; empty where it has none."""
        _, value = self.elements.get(tag, ("", b""))
        return charsets.decode(value, charsets.codecs_of(self.charset), name=True).strip(" \0")


@dataclass(slots=True)
class Directory:
    """What a DICOMDIR says."""

    file_set_id: str
    file_set_uid: str
    transfer_syntax_uid: str
    descriptor: tuple[str, ...] | None
    """File-set Descriptor File ID (0004,1141); None where there is none, or a hostile one."""
    records: list[Record]
    problems: list[Problem]

    @property
    def cut_off(self) -> bool:
        """Whether some of it is missing, as far as its lengths tell."""
        return any(" is cut off" in problem.detail for problem in self.problems)

    def path(self, index: int) -> tuple[int, ...]:
        """Indices of the records from the root down to this one, itself included."""
        found = [index]
        while (parent := self.records[found[-1]].parent) is not None:
            found.append(parent)
        return tuple(reversed(found))


class _Problems:
    """A list that does not grow without end."""

    def __init__(self, limit: int) -> None:
        self.found: list[Problem] = []
        self._limit = limit

    def add(self, detail: str) -> None:
        if len(self.found) < self._limit:
            self.found.append(Problem(ProblemKind.STRUCTURE, NAME, detail))
        elif len(self.found) == self._limit:
            self.found.append(Problem(ProblemKind.STRUCTURE, NAME, "More problems than are listed here"))


def read(source: BinaryIO | bytes, limits: Limits = Limits()) -> Directory:
    """Read a DICOMDIR. FileSetInvalid where it is none at all; everything else that is wrong becomes a Problem.

    Problems are of kind STRUCTURE: records that no offset leads to, offsets that lead to no record or back to one,
    records that are not in use, unknown or misplaced record types, File IDs that do not conform (kept in capital
    letters) or are hostile (None), a transfer syntax that PS3.10 8.6 does not allow, a cut-off end.
    """
    data = source if isinstance(source, bytes) else _all(source, limits.bytes + 1)
    if len(data) > limits.bytes:
        raise FileSetInvalid(f"The DICOMDIR is larger than {limits.bytes} bytes")
    problems = _Problems(limits.problems)
    try:
        located = part10.locate_in(io.BytesIO(data), NAME, directory=True)
    except NotDicom as error:
        raise FileSetInvalid(str(error)) from None
    if located.sop_class_uid != part10.MEDIA_STORAGE_DIRECTORY:
        problems.add(f"Its Media Storage SOP Class UID is {located.sop_class_uid or 'missing'}")
    if located.transfer_syntax_uid != part10.EXPLICIT_LE:
        problems.add(f"Its transfer syntax is {located.transfer_syntax_uid}, not Explicit VR Little Endian")
    syntax = syntax_of(located.transfer_syntax_uid)
    head, sequence = _root(data, located.dataset_offset, syntax, problems)
    records = _records(data, sequence, syntax, limits, problems)
    _link(records, _number(head, _FIRST, syntax), _number(head, _LAST, syntax), problems)
    if _number(head, _CONSISTENCY, syntax):
        problems.add("The File-set Consistency Flag (0004,1212) says that the directory may be inconsistent")
    return Directory(
        file_set_id=_text(head.get(_FILE_SET_ID, b"")),
        file_set_uid=located.sop_instance_uid,
        transfer_syntax_uid=located.transfer_syntax_uid,
        descriptor=_file_id(head.get(_DESCRIPTOR, b""), "The File-set Descriptor File ID", problems),
        records=records,
        problems=problems.found,
    )


def read_identity(source: BinaryIO) -> tuple[str, str]:
    """File-set UID and File-set ID of a DICOMDIR, of which only the beginning is read. FileSetInvalid: it is none."""
    try:
        located = part10.locate_in(source, NAME, directory=True)
    except NotDicom as error:
        raise FileSetInvalid(str(error)) from None
    source.seek(0)
    head, _ = _root(_all(source, _HEAD), located.dataset_offset, syntax_of(located.transfer_syntax_uid), _Problems(0))
    return located.sop_instance_uid, _text(head.get(_FILE_SET_ID, b""))


def _all(source: BinaryIO, limit: int) -> bytes:
    """Up to ``limit`` bytes of a file that may give fewer at a time."""
    pieces = []
    while limit > 0 and (piece := source.read(limit)):
        pieces.append(piece)
        limit -= len(piece)
    return b"".join(pieces)


def _root(data: bytes, at: int, syntax: Syntax, problems: _Problems) -> tuple[dict[int, bytes], tuple[int, int]]:
    """The elements before the Directory Record Sequence, and where that begins and ends."""
    head: dict[int, bytes] = {}
    sequence = (len(data), len(data))
    while at + 8 <= len(data):
        try:
            tag, _, start, length = element_head(data, at, syntax)
        except struct.error:
            break
        if tag == _SEQUENCE:
            if length == UNDEFINED or start + length > len(data):
                if length != UNDEFINED:
                    problems.add(f"The Directory Record Sequence is cut off: it says {length} bytes")
                length = len(data) - start
            return head, (start, start + length)
        if length == UNDEFINED or start + length > len(data):
            problems.add(f"{tag_text(tag)} at offset {at} is cut off or misplaced")
            break
        head[tag] = data[start : start + length]
        at = start + length
    if not head.keys() & {_FILE_SET_ID, _FIRST, _LAST, _CONSISTENCY}:
        raise FileSetInvalid("The file has none of the elements of a DICOMDIR")
    problems.add("There is no Directory Record Sequence (0004,1220)")
    return head, sequence


def _records(
    data: bytes, sequence: tuple[int, int], syntax: Syntax, limits: Limits, problems: _Problems
) -> list[Record]:
    """Every item of the Directory Record Sequence up to where it can be read."""
    found: list[Record] = []
    at, end = sequence
    unpack = struct.Struct(syntax.order + "HHL").unpack_from
    while at + 8 <= end:
        offset = at
        group, element, length = unpack(data, at)
        at += 8
        if (group, element) == (SEQUENCE_END >> 16, SEQUENCE_END & 0xFFFF):
            break
        if (group, element) != (ITEM >> 16, ITEM & 0xFFFF):
            problems.add(f"{tag_text(group << 16 | element)} stands at offset {offset} where a record should begin")
            break
        if len(found) >= limits.records:
            raise FileSetInvalid(f"The DICOMDIR has more than {limits.records} records")
        what = f"The record at offset {offset}"
        if length == UNDEFINED:
            try:
                stop = item_end(data, at, end, syntax, what, depth=1)
            except NotDicom as error:
                problems.add(str(error))
                break
        else:
            stop = at + length
        if stop > end:
            problems.add(f"{what} is cut off")
            stop = end
        found.append(_record(data, offset, (at, stop), syntax, problems))
        at = stop + 8 if length == UNDEFINED else stop
    return found


def _record(data: bytes, offset: int, span: tuple[int, int], syntax: Syntax, problems: _Problems) -> Record:
    what = f"The record at offset {offset}"
    own: dict[int, bytes] = {}
    try:
        for tag, _, start, stop in elements(data, *span, syntax, what):
            if tag in _POINTERS or tag == SPECIFIC_CHARACTER_SET:
                own[tag] = data[start:stop]
    except NotDicom as error:
        problems.add(str(error))
    record = Record(
        type=_text(own.get(_TYPE, b"")),
        offset=offset,
        parent=None,
        reachable=False,
        file_id=_file_id(own.get(_FILE_ID, b""), f"The Referenced File ID of the record at offset {offset}", problems),
        referenced_sop_class_uid=_text(own.get(_SOP_CLASS, b"")),
        referenced_sop_instance_uid=_text(own.get(_SOP_INSTANCE, b"")),
        referenced_transfer_syntax_uid=_text(own.get(_TRANSFER_SYNTAX, b"")),
        charset=_text(own.get(SPECIFIC_CHARACTER_SET, b"")),
        in_use=_IN_USE not in own or _number(own, _IN_USE, syntax) != 0,
        _next=_number(own, _NEXT, syntax),
        _lower=_number(own, _LOWER, syntax),
        _directory=data,
        _span=span,
        _syntax=syntax,
    )
    if not record.in_use:
        problems.add(f"{what} is marked as not in use, which is retired")
    if record.type not in TYPES and record.type not in NATIVE:
        retired = " a retired" if record.type in _RETIRED else " an unknown"
        problems.add(f"{what} is of{retired} type: {record.type[:20]!r}" if record.type else f"{what} has no type")
    return record


def _link(records: list[Record], first: int, last: int, problems: _Problems) -> None:
    """Follow the offsets from the root; each record is met once, however they are bent."""
    by_offset = {record.offset: index for index, record in enumerate(records)}
    depths = [0] * len(records)
    pending: list[tuple[int, int | None, str]] = [(first, None, "The offset of the first record")]
    last_root = 0
    while pending:
        offset, parent, what = pending.pop()
        depth = 1 if parent is None else depths[parent] + 1
        if depth > _MAX_DEPTH:
            problems.add(f"{what} leads more than {_MAX_DEPTH} levels deep")
            continue
        while offset:
            index = by_offset.get(offset)
            if index is None:
                problems.add(f"{what} is {offset}, where no record begins")
                break
            record = records[index]
            if record.reachable:
                problems.add(f"{what} is {offset}, which leads to a record that was met before")
                break
            record.reachable, record.parent, depths[index] = True, parent, depth
            _check_place(record, None if parent is None else records[parent], problems)
            if parent is None:
                last_root = offset
            if record._lower:
                pending.append((record._lower, index, f"The lower level offset of the record at {offset}"))
            offset, what = record._next, f"The next record offset of the record at {offset}"
    for record in records:
        if not record.reachable:
            problems.add(f"No offset leads to the {record.type[:20] or 'untyped'} record at offset {record.offset}")
    if last != last_root:
        problems.add(f"The offset of the last record of the root is {last}, and not {last_root}")


def _check_place(record: Record, above: Record | None, problems: _Problems) -> None:
    """Whether a record may stand there (PS3.3 Table F.4-1); private records may stand anywhere."""
    kind = TYPES.get(record.type)
    if record.type in NATIVE and (above is None or above.type != "PATIENT"):
        problems.add(f"The {record.type} record at offset {record.offset} stands below no PATIENT record")
    if kind is None or record.type == "PRIVATE" or (above is not None and above.type not in TYPES):
        return
    if kind.parent != (above.type if above else ""):
        place = f"below a {above.type} record" if above else "directly under the root"
        problems.add(f"The {record.type} record at offset {record.offset} stands {place}")


def _file_id(value: bytes, what: str, problems: _Problems) -> tuple[str, ...] | None:
    """Canonical components, or None where there are none or one that must not become part of a path."""
    if not value.strip(b" \0"):
        return None
    given = [component.strip(" \0") for component in value.decode("latin_1").split("\\")]
    if any(hostile_component(component) for component in given):
        problems.add(f"{what} is hostile: {'/'.join(given)[:200]!r}")
        return None
    if len(given) > MAX_COMPONENTS or not all(check_component(component) for component in given):
        problems.add(f"{what} does not conform to PS3.10 8.5: {'/'.join(given)[:200]!r}")
    return tuple(_VERSION.sub("", component.upper()) for component in given)


_VERSION = re.compile(r"\.?(;\d+)?$")
"""What ISO 9660 appends to names: a lone dot, a version."""


def _text(value: bytes) -> str:
    return value.decode("ascii", "replace").strip(" \0")


def _number(elements_: Mapping[int, bytes], tag: int, syntax: Syntax) -> int:
    """An unsigned number of two or four bytes; 0 where there is none."""
    value = elements_.get(tag, b"")
    return int.from_bytes(value, "little" if syntax.order == "<" else "big") if len(value) in (2, 4) else 0
