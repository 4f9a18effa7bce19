"""Every directory record against the files beneath it: references, UIDs and keys (PS3.3 Annex F, PS3.11 D.3.3).

An instance record must say what its file says. A PATIENT, STUDY or SERIES record stands above many files: its UIDs and
its Patient ID must be those of each of them, its descriptive keys those of at least one (a name may be spelled in two
ways within one study, and the record can hold only one).
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from media.dicomdir_reader import NATIVE, Directory, Record
from media.iconforms import wrong_form
from media.manifest import Manifest
from media.problems import NotDicom, ProblemKind
from media.profile_keys import ICON_RECORD, IconRule, KeySet
from media.records import TYPES, record_type
from media.trees import canonical_path
from media.verify_instance import FileValues
from media.verify_meta import Meta, is_uid
from media.verify_scan import Malformed, Value, elements, items
from media.verify_values import is_empty, quoted, same, shown, text

Report = Callable[[ProblemKind, str, str], None]

DICOMDIR = "DICOMDIR"
_CHARSET = 0x00080005
_SOP_CLASS, _SOP_INSTANCE = 0x00080016, 0x00080018
_PATIENT_ID, _STUDY_UID, _SERIES_UID = 0x00100020, 0x0020000D, 0x0020000E
_IMAGE_TYPE = 0x00080008
_ICON = 0x00880200
_VERIFICATION_DATETIME, _VERIFYING_OBSERVERS = 0x0040A030, 0x0040A073
_SHARED_GROUPS = 0x52009229
_IDENTITY = {"PATIENT": (_PATIENT_ID,), "STUDY": (_STUDY_UID,), "SERIES": (_SERIES_UID,)}
_NAME_TAGS = {_PATIENT_ID: "Patient ID", _STUDY_UID: "Study Instance UID", _SERIES_UID: "Series Instance UID"}
_HIGHEST = 8
_LARGEST_GROUPS = 1024 * 1024
"""Bytes of a Shared Functional Groups Sequence in which keys are looked for: real ones have a few thousand."""
_ALWAYS = frozenset(
    {_CHARSET, _SOP_CLASS, _SOP_INSTANCE, _PATIENT_ID, _STUDY_UID, _SERIES_UID, _VERIFYING_OBSERVERS, _SHARED_GROUPS}
)


@dataclass(slots=True)
class _Upper:
    """A record above instances: which of its descriptive keys no file has confirmed yet."""

    keys: dict[int, Value]
    unconfirmed: dict[int, str]
    """Tag -> what the first file says instead; ``""`` before any file was seen."""
    first_file: str = ""


class _File(NamedTuple):
    """A file's values while it is compared."""

    name: str
    values: Mapping[int, Value]
    charset: str
    complete: bool

    def agrees(self, value: Value, charset: str, candidates: list[Value]) -> bool:
        """Whether one of the file's values, or their absence, is what the record says."""
        if is_empty(value) and not candidates:
            return True
        return any(same(value, charset, candidate, self.charset) for candidate in candidates)


@dataclass(slots=True)
class DirectoryCheck:
    """Compares a directory with the files of its medium while these pass by, in any order."""

    directory: Directory
    manifest: Manifest | None
    """What other makers' media lack; then a type 1 key that a file lacks counts as supplied (PS3.11 D.3.3.1 note)."""
    report: Report
    added: KeySet | None = None
    """The keys that the profile adds, where one is known."""
    referenced: dict[str, int] = field(default_factory=dict)
    """Canonical file name -> index of the record that references it."""
    native: set[str] = field(default_factory=set)
    """Canonical names of files that are referenced as what they are, and not as DICOM files: HL7 structured documents
    (PS3.10 Annex B)."""
    uids: dict[str, str] = field(default_factory=dict)
    """SOP Instance UID -> the first file that has it."""
    _uppers: dict[int, _Upper] = field(default_factory=dict)
    _always: frozenset[int] = _ALWAYS
    _coming: tuple[int, dict[int, Value]] = (-1, {})
    """The instance record whose file passes by, and its keys."""
    _visited: set[int] = field(default_factory=set)
    _supplied: dict[tuple[int, int], str] = field(default_factory=dict)
    """(record index, tag) -> value that the manifest says was supplied."""

    def __post_init__(self) -> None:
        for index, record in enumerate(self.directory.records):
            if not record.reachable or not record.in_use:
                continue  # the reader has said so; for who follows the offsets it is not there
            if record.file_id and self._refer(index, record):
                if record.type not in NATIVE:
                    continue  # its keys are decoded when its file passes by
                self.native.add(canonical_path("/".join(record.file_id)))
            keys = self._keys(index)
            self._check_record(index, record, keys)
            if record.type in _IDENTITY and not record.file_id:
                descriptive = (tag for tag in keys if _is_key(tag) and tag not in _IDENTITY[record.type])
                self._uppers[index] = _Upper(keys, dict.fromkeys(descriptive, ""))
        self._always = _ALWAYS.union(*(upper.keys for upper in self._uppers.values()))
        self._check_unique()
        if self.manifest is not None:
            self._read_supplied(self.manifest)

    # ------------------------------------------------------------------ the directory by itself

    def _check_record(self, index: int, record: Record, keys: Mapping[int, Value]) -> None:
        """Keys by the table of the record's type; its place is checked by the reader."""
        row = TYPES.get(record.type)
        if row is None:
            return
        if record.type not in ("PATIENT", "STUDY", "SERIES", "PRIVATE") and not record.file_id:
            self._directory_problem(ProblemKind.STRUCTURE, index, "references no file")
        for key in row.keys:
            value = keys.get(key.tag)
            if key.type == "1" and is_empty(value):
                said = "lacks" if value is None else "has an empty"
                self._directory_problem(
                    ProblemKind.KEY, index, f"{said} {key.keyword} {_tag(key.tag)}, which is type 1"
                )
            elif key.type == "2" and value is None:
                self._directory_problem(ProblemKind.KEY, index, f"lacks {key.keyword} {_tag(key.tag)}, which is type 2")
        if self.added is not None:
            self._check_added(index, record, keys, self.added)
        for tag in (_STUDY_UID, _SERIES_UID):
            value = keys.get(tag)
            if value is not None and not is_empty(value) and not is_uid(text(value, "")):
                self._directory_problem(ProblemKind.UID, index, f"has the invalid UID {shown(value, '')}")

    def _check_added(self, index: int, record: Record, keys: Mapping[int, Value], added: KeySet) -> None:
        """Keys by the profile's own table (PS3.11 X.3.3)."""
        if added.icon is not None:
            self._check_icon(index, record, keys.get(_ICON), added.icon)
        of_annex_f = {key.tag for key in TYPES[record.type].keys if key.type in ("1", "2")}
        image_type = keys[_IMAGE_TYPE].data if _IMAGE_TYPE in keys else b""
        for key in added.keys.get(record.type, {}).values():
            value = keys.get(key.tag)
            demanded = key.type == "1" or (
                key.type == "1C" and key.conditional and key.holds(record.referenced_sop_class_uid or "", image_type)
            )
            if key.tag in of_annex_f or not (is_empty(value) if demanded else key.type == "2" and value is None):
                continue
            said = "lacks" if value is None else "has an empty"
            detail = f"{said} {key.keyword} {_tag(key.tag)}, which is type {key.type} in PS3.11 {added.clause}"
            self._directory_problem(ProblemKind.KEY, index, detail)

    def _check_icon(self, index: int, record: Record, value: Value | None, rule: IconRule) -> None:
        """There where it must be, and of the form that the profile gives it."""
        name = f"IconImageSequence {_tag(_ICON)}"
        if value is None or is_empty(value):
            if record.type == ICON_RECORD and rule.required:
                detail = f"lacks {name}, which is type 1 in PS3.11 {rule.clause}"
                self._directory_problem(ProblemKind.KEY, index, detail)
            return
        try:
            item = elements(next(iter(items(value.data)), b""))
        except (Malformed, struct.error):
            self._directory_problem(ProblemKind.KEY, index, f"has an {name} that cannot be read")
            return
        held = {tag: one.data for tag, one in item.items()}
        wrong = wrong_form(held, size=rule.size, photometric=rule.photometric, bits_stored=rule.bits_stored)
        if wrong is not None:
            self._directory_problem(ProblemKind.KEY, index, f"has an {name} that {wrong} (PS3.11 {rule.clause})")

    def _check_unique(self) -> None:
        """One PATIENT record an ID (PS3.11 D.3.3), one STUDY and SERIES record a UID (PS3.3 F.5.2, F.5.3)."""
        seen: dict[tuple[str, str], int] = {}
        for index, upper in self._uppers.items():
            record = self.directory.records[index]
            for tag in _IDENTITY[record.type]:
                value = upper.keys.get(tag)
                if value is None or is_empty(value):
                    continue
                key = (record.type, text(value, record.charset))
                if key in seen:
                    kind = ProblemKind.PROFILE if tag == _PATIENT_ID else ProblemKind.UID
                    other = self.directory.records[seen[key]].offset
                    self._directory_problem(
                        kind, index, f"has the same {_NAME_TAGS[tag]} {quoted(key[1])} as the one at byte {other}"
                    )
                else:
                    seen[key] = index

    def _refer(self, index: int, record: Record) -> bool:
        """Remember which file a record references; False where another one does so already."""
        name = canonical_path("/".join(record.file_id or ()))
        if name in self.referenced:
            other = self.directory.records[self.referenced[name]]
            self.report(
                ProblemKind.STRUCTURE,
                name,
                f"Two directory records reference it, those at bytes {other.offset} and {record.offset} of DICOMDIR.",
            )
            return False
        self.referenced[name] = index
        return True

    def _read_supplied(self, manifest: Manifest) -> None:
        for key in manifest.supplied:
            own = self.referenced.get(canonical_path(key.path))
            levels = () if own is None else (own, *self._parents(own))
            index = next((level for level in levels if self.directory.records[level].type == key.record_type), None)
            if index is None:
                self.report(
                    ProblemKind.MANIFEST,
                    "MANIFEST.TXT",
                    f"It lists a key supplied to the {quoted(key.record_type)} record of {quoted(key.path)},"
                    " which DICOMDIR does not have.",
                )
                continue
            tag = int(key.tag[1:5] + key.tag[6:10], 16)
            self._supplied[index, tag] = key.value

    # ------------------------------------------------------------------ a file passes by

    def wanted(self, name: str) -> frozenset[int]:
        """Tags whose values ``visit`` needs of the referenced file that comes next."""
        index = self.referenced[name]
        keys = self._keys(index)
        self._coming = (index, keys)
        self._visited.add(index)
        self._check_record(index, self.directory.records[index], keys)
        return self._always.union(keys)

    def visit(self, name: str, meta: Meta, found: FileValues | None) -> None:
        """Compare the file for which ``wanted`` was asked with its record and those above it.

        ``found`` None: its data set could not be read.
        """
        index, keys = self._coming
        record = self.directory.records[index]
        values = found.values if found is not None else None
        self._check_uids(name, record, meta, values)
        if found is None or values is None:
            return
        file = _File(name, values, _charset(values), found.complete)
        for tag, value in keys.items():
            if _is_key(tag):
                self._compare_own(file, index, tag, value)
        for above, upper in self._above(index):
            self._compare_above(file, above, upper)

    def _check_uids(self, name: str, record: Record, meta: Meta, values: Mapping[int, Value] | None) -> None:
        wrong = ProblemKind.UID
        for what, in_record, in_file in (
            ("SOP Class UID", record.referenced_sop_class_uid, meta.sop_class_uid),
            ("SOP Instance UID", record.referenced_sop_instance_uid, meta.sop_instance_uid),
            ("Transfer Syntax UID", record.referenced_transfer_syntax_uid, meta.transfer_syntax_uid),
        ):
            if in_record != in_file:
                said = quoted(in_record) if in_record else "none"
                self.report(
                    wrong, name, f"Its {what} is {quoted(in_file)}; its {record.type} record in DICOMDIR has {said}."
                )
        expected = record_type(meta.sop_class_uid)
        if expected is not None and record.type not in (expected, "PRIVATE"):
            self.report(
                ProblemKind.STRUCTURE,
                name,
                f"Its directory record is of type {quoted(record.type)}; for its SOP class it must be {expected}.",
            )
        if values is None:
            return
        for what, tag, in_meta in (
            ("SOP Class UID", _SOP_CLASS, meta.sop_class_uid),
            ("SOP Instance UID", _SOP_INSTANCE, meta.sop_instance_uid),
        ):
            value = values.get(tag)
            in_dataset = text(value, "") if value is not None else ""
            if in_dataset != in_meta:
                said = quoted(in_dataset) if in_dataset else "none"
                self.report(
                    wrong, name, f"Its data set has {what} {said}, its file meta information {quoted(in_meta)}."
                )

    def duplicate(self, name: str, sop_instance_uid: str) -> None:
        """A file-set never holds one SOP Instance twice."""
        first = self.uids.setdefault(sop_instance_uid, name)
        if first != name:
            self.report(ProblemKind.UID, name, f"Its SOP Instance UID {sop_instance_uid} is that of {first}, too.")

    def _compare_own(self, file: _File, index: int, tag: int, value: Value) -> None:
        record = self.directory.records[index]
        candidates = list(_in_file(tag, file.values))
        if file.agrees(value, record.charset, candidates):
            return
        said = f"its {record.type} record says {shown(value, record.charset)}"
        if not candidates:
            if file.complete and not self._is_supplied(index, tag, value):
                unlisted = "" if self.manifest is None else "; the manifest does not list that as supplied"
                self.report(ProblemKind.KEY, file.name, f"It has no {_key_name(tag)}, but {said}{unlisted}.")
            return
        kind = ProblemKind.UID if value.vr == "UI" else ProblemKind.KEY
        self.report(kind, file.name, f"Its {_key_name(tag)} is {shown(candidates[0], file.charset)}; {said}.")

    def _compare_above(self, file: _File, index: int, upper: _Upper) -> None:
        record = self.directory.records[index]
        upper.first_file = upper.first_file or file.name
        for tag in _IDENTITY[record.type]:
            value = upper.keys.get(tag) or Value("UI", b"")
            candidate = file.values.get(tag)
            if candidate is None or is_empty(candidate):
                if is_empty(value) or self._is_supplied(index, tag, value):
                    continue
            elif same(value, record.charset, candidate, file.charset):
                continue
            kind = ProblemKind.KEY if tag == _PATIENT_ID else ProblemKind.UID
            said = f"the {record.type} record above it says {shown(value, record.charset)}"
            self.report(kind, file.name, f"Its {_NAME_TAGS[tag]} is {shown(candidate, file.charset)}; {said}.")
        for tag in list(upper.unconfirmed):
            value = upper.keys[tag]
            candidates = list(_in_file(tag, file.values))
            if file.agrees(value, record.charset, candidates):
                del upper.unconfirmed[tag]
            elif not upper.unconfirmed[tag] and (candidates or file.complete):
                upper.unconfirmed[tag] = shown(candidates[0], file.charset) if candidates else "nothing"

    def finish(self) -> None:
        """Report what no file has confirmed, and check the records whose files never came."""
        for index in self.referenced.values():
            if index not in self._visited:
                self._check_record(index, self.directory.records[index], self._keys(index))
        for index, upper in self._uppers.items():
            record = self.directory.records[index]
            for tag, said in upper.unconfirmed.items():
                value = upper.keys[tag]
                if not said or (said == "nothing" and self._is_supplied(index, tag, value)):
                    continue
                self._directory_problem(
                    ProblemKind.KEY,
                    index,
                    f"says {_key_name(tag)} {shown(value, record.charset)}; no file below it does: "
                    f"{upper.first_file} says {said}",
                )

    # ------------------------------------------------------------------ helpers

    def _is_supplied(self, index: int, tag: int, value: Value) -> bool:
        """Whether a value that no file has may stand in the record all the same."""
        record = self.directory.records[index]
        if self.manifest is None:
            row = TYPES.get(record.type)
            return row is not None and any(key.tag == tag and key.type == "1" for key in row.keys)
        supplied = self._supplied.get((index, tag))
        if supplied is None:
            return False
        said = "".join(c if c.isprintable() else " " for c in text(value, record.charset))
        return supplied.strip() == said.strip()

    def _keys(self, index: int) -> dict[int, Value]:
        """A record's keys, decoded anew each time: only those above instances are kept."""
        record = self.directory.records[index]
        try:
            return {tag: Value(vr, value) for tag, (vr, value) in record.elements.items()}
        except (NotDicom, struct.error) as error:
            self._directory_problem(ProblemKind.STRUCTURE, index, f"cannot be read: {error}")
            return {}

    def _above(self, index: int) -> Iterator[tuple[int, _Upper]]:
        for level in self._parents(index):
            upper = self._uppers.get(level)
            if upper is not None:
                yield level, upper

    def _parents(self, index: int) -> Iterator[int]:
        """The records above one, nearest first. A chain made to be long is not followed: Annex F has four levels."""
        for _ in range(_HIGHEST):
            parent = self.directory.records[index].parent
            if parent is None:
                return
            yield parent
            index = parent

    def _directory_problem(self, kind: ProblemKind, index: int, detail: str) -> None:
        record = self.directory.records[index]
        self.report(kind, DICOMDIR, f"The {record.type or 'nameless'} record at byte {record.offset} {detail}.")


def _is_key(tag: int) -> bool:
    """An element of a record that repeats one of the instance."""
    return tag >> 16 != 0x0004 and tag not in (_CHARSET, _ICON) and tag & 0xFFFF != 0 and not tag >> 16 & 1


def _in_file(tag: int, values: Mapping[int, Value]) -> Iterator[Value]:
    """The values that a file has for a key: its own, or those that Annex F takes from inside a sequence."""
    own = values.get(tag)
    if own is not None and not is_empty(own):
        yield own
        return
    try:
        if tag == _VERIFICATION_DATETIME and _VERIFYING_OBSERVERS in values:
            found = [elements(item).get(tag) for item in items(values[_VERIFYING_OBSERVERS].data)]
            yield from sorted((value for value in found if value is not None), key=lambda v: v.data, reverse=True)[:1]
        elif _SHARED_GROUPS in values and len(values[_SHARED_GROUPS].data) <= _LARGEST_GROUPS:
            yield from _shared(tag, values[_SHARED_GROUPS].data)
    except Malformed:
        return


def _shared(tag: int, groups: bytes) -> Iterator[Value]:
    """A key of a multi-frame image that stands in its Shared Functional Groups Sequence."""
    for item in items(groups):
        for macro_tag, macro in elements(item).items():
            if macro_tag == tag:
                yield macro
            elif macro.vr == "SQ":
                for inner in items(macro.data):
                    value = elements(inner).get(tag)
                    if value is not None:
                        yield value


def _charset(values: Mapping[int, Value]) -> str:
    value = values.get(_CHARSET)
    return text(value, "") if value is not None else ""


def _tag(tag: int) -> str:
    return f"({tag >> 16:04x},{tag & 0xFFFF:04x})"


def _key_name(tag: int) -> str:
    name = _key_names().get(tag)
    return f"{name} {_tag(tag)}" if name else _tag(tag)


@functools.cache
def _key_names() -> dict[int, str]:
    return {key.tag: key.keyword for row in TYPES.values() for key in row.keys}
