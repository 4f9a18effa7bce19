"""Changing a DICOMDIR, ours or another maker's: records that stay are kept as they stand, only offsets change.

A directory that contradicts itself is refused and not mended: whoever rewrites it would make the damage look right.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from media import charsets, part10
from media.dicomdir import DirectoryWriter, instance_record, offsets, upper_record
from media.dicomdir_reader import Directory, Record, read
from media.encoding import EXPLICIT_LE, element_to_explicit_le, elements, split, syntax_of, value_of
from media.items import Item
from media.problems import FileSetInvalid, MediaError, NotDicom
from media.profile_keys import KeySet
from media.records import ROOT_RECORDS
from media.trees import canonical_path

_STUDY_UID, _SERIES_UID, _PATIENT_ID, _PATIENT_NAME = 0x0020000D, 0x0020000E, 0x00100020, 0x00100010
_REWRITTEN = frozenset((0x00040000, 0x00041200, 0x00041202, 0x00041212))
_SEQUENCE = 0x00041220


@dataclass(slots=True, eq=False)
class Node:
    """A record with those below it."""

    type: str
    body: bytes
    """Everything behind the pointers."""
    path: str = ""
    """Canonical name of the file that it references; empty: none."""
    sop_instance_uid: str = ""
    record: Record | None = None
    """As it was read; None: it is new."""
    item: Item | None = None
    """Whose keys a new record has."""
    below: list[Node] = field(default_factory=list)

    def text(self, tag: int) -> str:
        """A key as Unicode, without padding."""
        if self.record is not None:
            return self.record.text(tag)
        return _item_text(self.item, tag, self.type) if self.item is not None else ""


class DirectoryEdit:
    """A DICOMDIR being changed. Raises FileSetInvalid where it is none, or one that cannot be changed soundly.

    ``keys``: the directory keys that the profile adds to new records; None: those that any profile does.
    """

    def __init__(self, data: bytes, *, keys: KeySet | None = None) -> None:
        self._keys = keys
        self.directory = read(data)
        if self.directory.cut_off:
            raise FileSetInvalid("DICOMDIR: its end is cut off; it is damaged.")
        self._head = _head(data, self.directory)
        self.roots = _tree(self.directory)
        self._studies: dict[str, tuple[Node, Node]] = {}
        self._series: dict[str, Node] = {}
        self._patients: list[Node] = []
        self._held: dict[str, Node] = {}
        for chain in self.chains():
            self._note(chain)

    def chains(self) -> Iterator[tuple[Node, ...]]:
        """Each record behind those above it, from the root, in the order of the directory."""
        pending: list[tuple[Node, ...]] = [(node,) for node in reversed(self.roots)]
        while pending:
            chain = pending.pop()
            yield chain
            pending.extend((*chain, node) for node in reversed(chain[-1].below))

    def _note(self, chain: tuple[Node, ...]) -> None:
        node = chain[-1]
        if node.type == "PATIENT":
            self._patients.append(node)
        elif node.type == "STUDY" and len(chain) > 1:
            self._studies[node.text(_STUDY_UID)] = (chain[-2], node)
        elif node.type == "SERIES":
            self._series[node.text(_SERIES_UID)] = node
        if node.path and node.sop_instance_uid:
            self._held[node.sop_instance_uid] = node

    def holds(self, sop_instance_uid: str) -> bool:
        """Whether a record references this instance."""
        return sop_instance_uid in self._held

    def files(self) -> set[str]:
        """Canonical names of all files that records reference."""
        return {chain[-1].path for chain in self.chains() if chain[-1].path}

    def place(self, item: Item) -> tuple[str, ...]:
        """Folder of the files of an item's series, study or patient, as far as the directory has them; else ()."""
        series = self._series.get(item.series_instance_uid)
        study = self._studies.get(item.study_instance_uid)
        patient = study[0] if study else self._patient(item)
        for node, depth in ((series, 1), (study[1] if study else None, 2), (patient, 3)):
            if node is not None:
                for path in _paths(node):
                    parts = path.split("/")[:-depth]
                    return tuple(parts)
        return ()

    def add(self, item: Item, path: str) -> None:
        """Add the records of an item at the end of their levels. MediaError where it contradicts what is there."""
        if self.holds(item.sop_instance_uid):
            raise MediaError(f"Instance {item.sop_instance_uid} is on the medium already.")
        keys = split(item.directory_keys)
        leaf = Node(
            item.record_type,
            instance_record(item, tuple(path.split("/")), self._keys),
            path,
            item.sop_instance_uid,
            item=item,
        )
        if item.record_type in ROOT_RECORDS:
            self.roots.append(leaf)
            self._held[item.sop_instance_uid] = leaf
            return
        found = self._studies.get(item.study_instance_uid)
        patient = found[0] if found else self._patient(item)
        if patient is not None:
            self._same_patient(patient, item)
        else:
            patient = Node("PATIENT", upper_record("PATIENT", keys, item, self._keys), item=item)
            self.roots.append(patient)
            self._note((patient,))
        study = found[1] if found else None
        if study is None:
            study = Node("STUDY", upper_record("STUDY", keys, item, self._keys), item=item)
            patient.below.append(study)
            self._note((patient, study))
        series = self._series.get(item.series_instance_uid)
        if series is not None and series not in study.below:
            raise MediaError(
                f"Series {item.series_instance_uid} of instance {item.sop_instance_uid} "
                "stands under another study on the medium."
            )
        if series is None:
            series = Node("SERIES", upper_record("SERIES", keys, item, self._keys), item=item)
            study.below.append(series)
            self._note((patient, study, series))
        series.below.append(leaf)
        self._held[item.sop_instance_uid] = leaf

    def _patient(self, item: Item) -> Node | None:
        """The PATIENT record of an item's Patient ID."""
        wanted = _item_text(item, _PATIENT_ID, "PATIENT")
        return next((node for node in self._patients if wanted and node.text(_PATIENT_ID) == wanted), None)

    @staticmethod
    def _same_patient(node: Node, item: Item) -> None:
        """Two people under one number never share a medium; nor does a study belong to two patients."""
        for tag, what, fold in ((_PATIENT_ID, "Patient ID", str), (_PATIENT_NAME, "Patient's Name", _folded)):
            there, given = node.text(tag), _item_text(item, tag, "PATIENT")
            if fold(there) != fold(given):
                raise MediaError(
                    f"Instance {item.sop_instance_uid} cannot be added: its {what} is {given[:64]!r}; "
                    f"the medium has {there[:64]!r} for the same patient or study."
                )
        if not item.patient_id and node.item is not None and node.item.patient != item.patient:
            raise MediaError(f"Instance {item.sop_instance_uid} has no Patient ID, and is of another patient.")

    def remove(self, sop_instance_uids: Collection[str]) -> set[str]:
        """Remove the records of these instances, and those above that are left with nothing below.

        Returns the canonical names of the files that no record references any more. MediaError for one that is not
        there, or that has records below it.
        """
        missing = sorted(uid for uid in sop_instance_uids if uid not in self._held)
        if missing:
            raise MediaError(f"Instance {missing[0]} is not on the medium ({len(missing)} are not).")
        gone = {self._held.pop(uid) for uid in sop_instance_uids}
        before = self.files()
        self.roots = [node for node in self.roots if not _pruned(node, gone)]
        self._studies, self._series, self._patients, self._held = {}, {}, [], {}
        for chain in self.chains():
            self._note(chain)
        return before - self.files()

    def to_bytes(self) -> bytes:
        """The DICOMDIR as it is now."""
        writer = DirectoryWriter(self._head)
        # Explicit stack: (nodes still to write, offset of the record above, offset of the last sibling).
        levels: list[tuple[Iterator[Node], int, list[int]]] = [(iter(self.roots), 0, [0])]
        while levels:
            nodes, above, last = levels[-1]
            node = next(nodes, None)
            if node is None:
                levels.pop()
                continue
            last[0] = writer.add(node.body, last[0], above)
            levels.append((iter(node.below), last[0], [0]))
        return writer.finish()


def _pruned(node: Node, gone: set[Node]) -> bool:
    """Whether a record goes, because it is meant, or because all that was below it has gone."""
    had = bool(node.below)
    node.below = [child for child in node.below if not _pruned(child, gone)]
    if node in gone:
        if node.below:
            raise MediaError(f"Instance {node.sop_instance_uid} has records below it that would stay.")
        return True
    return had and not node.below and not node.path


def _paths(node: Node) -> Iterator[str]:
    if node.path:
        yield node.path
    for child in node.below:
        yield from _paths(child)


def _tree(directory: Directory) -> list[Node]:
    """The records as a tree, in the order of their offsets; FileSetInvalid where these do not make one."""
    records = directory.records
    by_offset = {record.offset: index for index, record in enumerate(records)}
    led_to: set[int] = set()
    for record in records:
        if not record.reachable:
            if record.in_use:
                raise FileSetInvalid(f"DICOMDIR: no offset leads to the record at {record.offset}; it is damaged.")
            continue
        for offset in (record.next_offset, record.lower_offset):
            if not offset:
                continue
            if offset not in by_offset or offset in led_to:
                raise FileSetInvalid(f"DICOMDIR: an offset of the record at {record.offset} is wrong; it is damaged.")
            led_to.add(offset)
    nodes: dict[int, Node] = {}
    for record in records:
        if record.reachable and record.in_use:
            if record.file_id is None and 0x1500 in _pointer_elements(record):
                raise FileSetInvalid(f"DICOMDIR: the File ID of the record at {record.offset} is hostile.")
            nodes[record.offset] = Node(
                record.type,
                _content(record),
                canonical_path("/".join(record.file_id or ())),
                record.referenced_sop_instance_uid,
                record,
            )

    def siblings(offset: int) -> list[Node]:
        found = []
        while offset:
            record = records[by_offset[offset]]
            if record.in_use:
                nodes[offset].below = siblings(record.lower_offset)
                found.append(nodes[offset])
            offset = record.next_offset
        return found

    roots = [record for record in records if record.reachable and record.parent is None]
    first = [record.offset for record in roots if record.offset not in led_to]
    if roots and len(first) != 1:
        raise FileSetInvalid("DICOMDIR: its records run in a loop; it is damaged.")
    return siblings(first[0]) if first else []


def _content(record: Record) -> bytes:
    try:
        return record.content()
    except NotDicom as error:
        raise FileSetInvalid(f"DICOMDIR: {error}; it is damaged.") from error


def _pointer_elements(record: Record) -> set[int]:
    """Element numbers of group 0004 that a record's content has with a value."""
    content = _content(record)
    return {
        tag & 0xFFFF
        for tag, _, start, stop in elements(content, 0, len(content), EXPLICIT_LE, "a record")
        if tag >> 16 == 4 and content[start:stop].strip(b" \0")
    }


def _head(data: bytes, directory: Directory) -> bytes:
    """Everything before the records: the meta information as it was, the File-set UID in it, and the root's keys."""
    located = part10.locate_in(io.BytesIO(data), "DICOMDIR", directory=True)
    syntax = syntax_of(located.transfer_syntax_uid)
    if syntax == EXPLICIT_LE:
        parts = [data[: located.dataset_offset]]
    else:
        parts = [part10.file_meta(part10.MEDIA_STORAGE_DIRECTORY, directory.file_set_uid, part10.EXPLICIT_LE)]
    at = located.dataset_offset
    try:
        for tag, vr, start, stop in elements(data, at, len(data), syntax, "DICOMDIR"):
            if tag == _SEQUENCE:
                return b"".join([*parts, offsets()])
            if tag not in _REWRITTEN:
                parts.append(element_to_explicit_le(data, tag, vr, (start, stop), syntax))
    except NotDicom as error:
        raise FileSetInvalid(f"DICOMDIR: {error}; it is damaged.") from error
    raise FileSetInvalid("DICOMDIR: there is no Directory Record Sequence.")


def _item_text(item: Item | None, tag: int, record_type: str) -> str:
    """A key of an item as Unicode, or the value that is supplied in its place."""
    if item is None:
        return ""
    found = split(item.directory_keys)
    if tag in found:
        names = value_of(found[0x00080005]).decode("ascii", "replace").strip(" \0") if 0x00080005 in found else ""
        value = charsets.decode(value_of(found[tag]), charsets.codecs_of(names), name=True).strip(" \0")
        if value:
            return value
    text = f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
    return next((key.value for key in item.supplied if key.record_type == record_type and key.tag.upper() == text), "")


def _folded(name: str) -> str:
    """A person's name without what does not tell people apart: case, blanks, empty components at the end."""
    groups = [" ".join(group.rstrip("^ ").split()).casefold() for group in name.split("=")]
    return "=".join(groups).rstrip("=")
