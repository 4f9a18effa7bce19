"""The IOD check: does an instance hold what the modules of its IOD demand (PS3.3 Annexes A and C)?

The data set is read once, forward, up to its pixel data, in bounded memory: items are judged as they end, and equal
findings are counted, not kept.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO

from media.elements import (
    PIXEL_DATA,
    WORD,
    Element,
    Encoding,
    Source,
    dictionary_vr,
    elements,
    encoding_of,
    items,
    open_source,
    settled,
    skip_value,
    tag_text,
)
from media.iodtables import Condition, Iod, Module, Node, Rule, iod, iod_key
from media.part10 import locate
from media.problems import NotDicom

_SOP_CLASS_UID, _SOP_INSTANCE_UID = 0x00080016, 0x00080018
_SHORT = 256
"""Bytes of a value that is looked at; a longer one is not empty, and no condition or list of values knows it."""
_MOST_ELEMENTS = 2_000_000
"""Elements of one instance that are looked at (some 10 s): beyond, the rest of it goes unchecked, and is said to."""
_MOST_NOTED = 4096
"""Values of one attribute that are kept for conditions elsewhere."""


class Level(StrEnum):
    """What a request does with the IOD check."""

    OFF = "off"
    REPORT = "report"
    STRICT = "strict"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that an instance lacks, as often as it lacks it."""

    tags: tuple[int, ...]
    """The sequences that the attribute is in, and the attribute."""
    path: str
    """The same in text with the numbers of the items where it was first found, ``(300A,00B0)[2]/(300A,00C0)``."""
    keyword: str
    module: str
    usage: str
    """Of the module in the IOD: ``M``, ``C`` or ``U``."""
    type: str
    """``1``, ``1C``, ``2``, ``2C``; ``""`` where the value is wrong."""
    what: str
    """``missing``, ``empty`` or ``value``."""
    severity: str
    """``error``: PS3.3 demands it. ``warning``: a reader does, or the module is only taken to be there."""
    clause: str
    count: int = 1
    value: str = ""
    """The wrong one, cut and made printable."""
    asked_by: tuple[str, ...] = ()
    """Others that ask the same, as ``CERR_DICOM 1.0 Table C.7-10``."""

    @property
    def text(self) -> str:
        """In words, for one line."""
        name = f"{self.keyword} {self.path}"
        if self.what == "value":
            return f"{name} is {self.value!r}, which {self.clause} does not allow"
        often = f", {self.count} times" if self.count > 1 else ""
        return f"{name} is {self.what}{often}: type {self.type} in {self.module} ({self.usage}), {self.clause}"

    def as_json(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "keyword": self.keyword,
            "module": self.module,
            "usage": self.usage,
            "type": self.type,
            "what": self.what,
            "severity": self.severity,
            "clause": self.clause,
            "count": self.count,
            "value": self.value,
            "asked_by": list(self.asked_by),
            "text": self.text,
        }


@dataclass(frozen=True, slots=True)
class IodReport:
    """What the check of one instance found."""

    level: Level
    sop_class_uid: str
    sop_instance_uid: str
    iod: str | None
    """Name of the IOD; None where the SOP class has none that we know (private, retired): nothing was checked."""
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    """Why something went unchecked."""

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def refused(self) -> bool:
        """Whether the level keeps the instance off the medium."""
        return self.level is Level.STRICT and bool(self.errors)

    def as_json(self) -> dict[str, Any]:
        return {
            "level": self.level.value,
            "sop_class_uid": self.sop_class_uid,
            "sop_instance_uid": self.sop_instance_uid,
            "iod": self.iod,
            "refused": self.refused,
            "findings": [finding.as_json() for finding in self.findings],
            "notes": list(self.notes),
        }


def check_instance(
    path: Path, level: Level | str = Level.REPORT, *, offset: int | None = None, transfer_syntax_uid: str = ""
) -> IodReport:
    """Check one file against the IOD of its SOP class.

    The data set begins at ``offset`` in ``transfer_syntax_uid``; without ``offset`` the file is read as a PS3.10 file.
    A pure function, fit for helper processes: no state but the compiled tables. With ``off`` nothing is read.
    NotDicom where the data set cannot be followed up to its pixel data.
    """
    level = Level(level)
    if level is Level.OFF:
        return IodReport(level, "", "", None)
    if offset is None:
        located = locate(path)
        offset, transfer_syntax_uid = located.dataset_offset, located.transfer_syntax_uid
    try:
        with path.open("rb") as stream:
            return check_stream(stream, level, offset, transfer_syntax_uid, str(path))
    except OSError as error:
        raise NotDicom(f"{path} cannot be read: {error.strerror or error}") from error


def check_stream(stream: BinaryIO, level: Level, offset: int, transfer_syntax_uid: str, name: str) -> IodReport:
    """``check_instance`` for an open, seekable file; ``name`` is what messages call it."""
    encoding = encoding_of(transfer_syntax_uid)
    sop_class, sop_instance = _identity(open_source(stream, offset, transfer_syntax_uid, name), encoding)
    key = iod_key(sop_class)
    if key is None:
        note = f"SOP class {sop_class or '(none)'} has no IOD in our tables: nothing was checked"
        return IodReport(level, sop_class, sop_instance, None, (), (note,))
    tables = iod(key)
    check = _Check(tables)
    check.run(open_source(stream, offset, transfer_syntax_uid, name), encoding)
    return IodReport(level, sop_class, sop_instance, tables.name, tuple(check.findings()), tuple(check.notes))


def _identity(source: Source, encoding: Encoding) -> tuple[str, str]:
    """SOP Class and Instance UID of the data set: they stand in its first elements."""
    found = {_SOP_CLASS_UID: "", _SOP_INSTANCE_UID: ""}
    encoding = settled(source, encoding)
    for element in elements(source, encoding, None, top=True):
        if element.tag > _SOP_INSTANCE_UID:
            break
        if element.tag in found and element.length <= _SHORT:
            found[element.tag] = _shown(source.read(element.length).decode("ascii", "replace").strip(" \0"))
        else:
            skip_value(source, encoding, element)
    return found[_SOP_CLASS_UID], found[_SOP_INSTANCE_UID]


class _Enough(Exception):
    """So many elements are not looked at."""


@dataclass(slots=True)
class _Seen:
    """One rule that was broken: how often, where first, and by which value."""

    position: tuple[tuple[int, int], ...]
    value: str
    count: int = 0


class _Check:
    """One walk through one data set."""

    def __init__(self, tables: Iod) -> None:
        self.notes: list[str] = []
        self._iod = tables
        self._left = _MOST_ELEMENTS
        self._position: list[tuple[int, int]] = []
        self._seen: dict[tuple[Rule, str, Condition], _Seen] = {}
        self._noted: dict[tuple[int, ...], list[str]] = {}
        self._top: dict[int, str | None] = {}

    def run(self, source: Source, encoding: Encoding) -> None:
        try:
            self._walk(source, settled(source, encoding), None, self._iod.root)
        except _Enough:
            # What was not reached may well be there: only what was found in whole items stands.
            at = "/".join(tag_text(tag) for tag, _ in self._position) or "the data set"
            self.notes.append(f"Only the first {_MOST_ELEMENTS} elements were checked, up to {at}")

    def _walk(self, source: Source, encoding: Encoding, end: int | None, node: Node) -> None:
        """A data set or an item: see its elements, then judge it."""
        top = node is self._iod.root
        seen: dict[int, str | None] = self._top if top else {}
        known, children = node.known, node.children
        for element in elements(source, encoding, end, top=top):
            self._left -= 1
            if not self._left:
                raise _Enough
            tag = element.tag
            if tag >> 24 == 0x60:
                tag &= 0xFF00FFFF  # overlays: all groups as the first
            if tag not in known:
                skip_value(source, encoding, element, len(self._position))
            elif tag in children and _is_sequence(element):
                seen[tag] = self._items(source, encoding, element, children[tag])
            elif tag == PIXEL_DATA and top:
                seen[tag] = "..." if element.length else None
            else:
                seen[tag] = _value(source, encoding, element, len(self._position))
            if tag in node.noted and (text := seen.get(tag)) is not None:
                values = self._noted.setdefault(node.noted[tag], [])
                if len(values) < _MOST_NOTED:
                    values.append(text)
            if tag == PIXEL_DATA and top:
                break
        self._judge(node, seen)

    def _items(self, source: Source, encoding: Encoding, element: Element, node: Node) -> str | None:
        inner = Encoding(True, True) if element.vr == "UN" else encoding
        number = 0
        for end in items(source, inner, element, len(self._position)):
            number += 1
            self._position.append((element.tag, number))
            self._walk(source, settled(source, inner), end, node)
            self._position.pop()
        return "..." if number else None

    def _judge(self, node: Node, seen: dict[int, str | None]) -> None:
        for tag, rules in node.rules.items():
            if seen.get(tag) is not None:
                continue
            for rule in rules:
                if tag in seen:
                    if rule.type.startswith("1"):
                        self._note(rule, "empty", ())
                elif not rule.may_lack:
                    if not rule.conditions:
                        self._note(rule, "missing", ())
                    for condition in rule.conditions:
                        if all(term.from_root or term.holds(_texts(seen, term.path[0])) for term in condition):
                            self._note(rule, "missing", tuple(term for term in condition if term.from_root))
        for tag, rules in node.values.items():
            text = seen.get(tag)
            if text is not None:
                for rule in rules:
                    if text.strip() not in rule.allowed:
                        self._note(rule, "value", (), text)

    def _note(self, rule: Rule, what: str, pending: Condition, value: str = "") -> None:
        found = self._seen.get((rule, what, pending))
        if found is None:
            found = self._seen[rule, what, pending] = _Seen(tuple(self._position), _shown(value))
        found.count += 1

    def findings(self) -> Iterator[Finding]:
        """One for an attribute, its fault and its place in the IOD, however many modules and readers ask for it."""
        here = {module: self._severity(module) for module in self._iod.modules}
        groups: dict[tuple[tuple[int, ...], str], list[tuple[Rule, _Seen, str]]] = {}
        for (rule, what, pending), found in self._seen.items():
            severity = here[rule.module]
            if severity and self._holds(pending):
                if not rule.by_standard:
                    severity = "warning"
                groups.setdefault(((*rule.path, rule.tag), what), []).append((rule, found, severity))
        for (tags, what), group in sorted(groups.items(), key=lambda pair: pair[0]):
            group.sort(key=lambda each: (not each[0].by_standard, each[2], each[0].type))
            rule, found, severity = group[0]
            others = {other.clause for other, _, _ in group if not other.by_standard} - {rule.clause}
            yield Finding(
                tags=tags,
                path="".join(f"{tag_text(tag)}[{number}]/" for tag, number in found.position) + tag_text(rule.tag),
                keyword=rule.keyword,
                module=rule.module.name,
                usage=rule.module.usage,
                type=rule.type,
                what=what,
                severity=severity,
                clause=rule.clause,
                count=found.count,
                value=found.value,
                asked_by=tuple(sorted(others)),
            )

    def _severity(self, module: Module) -> str:
        """What its absence is; ``""`` where nothing says that the module is there or should be."""
        if module.usage == "M":
            return "error"
        if module.presence:
            return "error" if any(self._holds(condition) for condition in module.presence) else ""
        return "warning" if not module.triggers.isdisjoint(self._top) else ""

    def _holds(self, condition: Condition) -> bool:
        return all(term.holds(self._noted.get(term.path, ())) for term in condition)


def _texts(seen: dict[int, str | None], tag: int) -> Sequence[str]:
    text = seen.get(tag)
    return () if text is None else (text,)


def _shown(value: str) -> str:
    """Foreign text made safe for a line of a report."""
    return "".join(c if c.isprintable() else "\ufffd" for c in value[:64])


def _is_sequence(element: Element) -> bool:
    return (element.vr if element.vr not in ("", "UN") else dictionary_vr(element.tag)) == "SQ"


def _value(source: Source, encoding: Encoding, element: Element, depth: int) -> str | None:
    """The value as text where it is short; None where it is empty (PS3.5 7.4: no value, or only padding)."""
    if element.length > _SHORT or element.tag == PIXEL_DATA:
        skip_value(source, encoding, element, depth)
        return "..." if element.length else None
    data = source.read(element.length)
    vr = (element.vr if element.vr not in ("", "UN") else dictionary_vr(element.tag))[:2]
    size = WORD.get(vr, 1)
    if vr in ("US", "SS", "UL", "SL") and len(data) % size == 0:
        code = {"US": "H", "SS": "h", "UL": "I", "SL": "i"}[vr]
        numbers = struct.unpack(f"{encoding.order}{len(data) // size}{code}", data)
        return "\\".join(map(str, numbers)) if numbers else None
    if vr == "AT" and len(data) % 4 == 0:
        words = struct.unpack(f"{encoding.order}{len(data) // 2}H", data)
        tags = zip(words[::2], words[1::2], strict=True)
        return "\\".join(f"{group:04X}{number:04X}" for group, number in tags) if words else None
    if size > 1 or vr in ("OB", "SQ", "UN"):
        return "..." if data else None
    text = data.decode("latin-1").strip(" \0")
    return text if text.strip(" \\") else None
