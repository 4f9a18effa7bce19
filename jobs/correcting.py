"""Attributes corrected by the catalogue or by rules before anything is checked or packed.

What is corrected is corrected in the file that goes on the disc, in its directory record, and in whose volume it lies:
a corrected instance belongs to a person only where Patient ID, issuer, name and birth date agree after correction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from jobs.conform_pool import Cancelled
from jobs.context import Context
from jobs.options import RequestOptions
from jobs.people import People
from media import coercion, edittext
from media.coercion import Attribute, Rule
from media.conform import IDENTITY
from media.editing import ORIGINAL_ATTRIBUTES, top_values
from media.edits import Edit
from media.encoding import encode, split, value_of
from media.headerwalk import wanted_for
from media.problems import InstanceRefused, NotDicom
from media.records import SPECIFIC_CHARACTER_SET, record_type
from store import people as catalogue
from store.requested import InstanceRow

_TOLD_EVERY = 200
_FIELDS = {
    0x00100020: "patient_id",
    0x00100021: "issuer_of_patient_id",
    0x00100010: "patient_name",
    0x00100030: "patient_birth_date",
    0x00080020: "study_date",
    0x00080030: "study_time",
    0x00081030: "study_description",
    0x00080060: "modality",
}
_NUMBERS = {0x00200011: "series_number", 0x00200013: "instance_number"}
_IDENTITY_TAGS = frozenset((0x00100020, 0x00100021, 0x00100010, 0x00100030))
_STUDY_INSTANCE_UID = 0x0020000D
_PATIENT_GROUP = 0x0010


@dataclass(slots=True)
class Corrected:
    """The instances of a request as they will be."""

    rows: list[InstanceRow]
    values: dict[int, tuple[Edit, ...]] = field(default_factory=dict)
    """What is corrected, by Instance id."""
    modalities: dict[int, str] = field(default_factory=dict)
    """As received, of those whose modality is corrected."""
    refused: list[tuple[InstanceRow, str, str]] = field(default_factory=list)
    """Instances that cannot be corrected as a rule wants it: failure code and reason."""


def correct(
    ctx: Context,
    rows: Sequence[InstanceRow],
    options: RequestOptions,
    *,
    path_of: Callable[[InstanceRow], Path],
    has_source: Callable[[InstanceRow], bool],
    progress: Callable[[int, int], None] = lambda *_: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Corrected:
    """Find what rules and catalogue change. Reads the header of every instance if there are any, else nothing.

    An instance that cannot be read is left as it is, for the check to refuse. Raises ``Cancelled``.
    """
    rules = coercion.rules_of(options.coerce)
    if not rules and not options.coerce_catalogue:
        return Corrected(list(rows), modalities=_modalities(rows))
    known_tags = frozenset(one.tag for one in coercion.attributes().values() if one.catalogue)
    tags = coercion.looked_at(rules) | _IDENTITY_TAGS | {_STUDY_INSTANCE_UID} | known_tags
    result = Corrected([], modalities=_modalities(rows))
    people: list[dict[str, Any] | None] = []
    with ctx.db.read() as session:
        known = catalogue.known(session, {(row.patient, row.study_instance_uid) for row in rows})
        by_id: dict[tuple[str, str], list[dict[str, str]]] = {}
        for done, row in enumerate(rows):
            if done % _TOLD_EVERY == 0:
                progress(done, len(rows))
                if cancelled():
                    raise Cancelled
            found = _Instance(row)
            try:
                if has_source(row):
                    found.values = top_values(path_of(row), tags)
                    found.find(rules, known.get((row.patient, row.study_instance_uid), {}), options.coerce_catalogue)
                    found.look_up(session, rules, by_id)
            except NotDicom:
                found.edits = {}
            except InstanceRefused as error:
                result.refused.append((row, error.code, error.reason))
                continue
            if any(tag >> 16 == _PATIENT_GROUP or not edit.value for tag, edit in found.edits.items()):
                found.edits[ORIGINAL_ATTRIBUTES] = Edit(ORIGINAL_ATTRIBUTES, "SQ", None, "it tells what is corrected")
            if found.edits:
                result.values[row.id] = tuple(found.edits[tag] for tag in sorted(found.edits))
            result.rows.append(found.corrected())
            if result.rows[-1].modality != row.modality:
                result.modalities.setdefault(row.id, row.modality)
            people.append(found.person())
        whose = People(session, people)
    result.rows = [
        replace(row, patient=whose.key(row.patient, facts)) for row, facts in zip(result.rows, people, strict=True)
    ]
    return result


def _modalities(rows: Sequence[InstanceRow]) -> dict[int, str]:
    """As received, of what came back from a disc with another."""
    return {row.id: row.restored.modality for row in rows if row.restored is not None and row.restored.modality}


@dataclass(slots=True)
class _Instance:
    row: InstanceRow
    values: Mapping[int, str] = field(default_factory=dict)
    edits: dict[int, Edit] = field(default_factory=dict)

    def find(self, rules: Sequence[Rule], known: Mapping[str, str], everything: bool) -> None:
        self.edits = coercion.corrections(rules, self.values, known, everything=everything)

    def look_up(
        self, session: Session, rules: Sequence[Rule], by_id: dict[tuple[str, str], list[dict[str, str]]]
    ) -> None:
        """What rules take from the catalogue's person with the corrected Patient ID; InstanceRefused without one."""
        for rule in rules:
            if not rule.from_catalogue or not rule.holds(self.values):
                continue
            key = (self._value(0x00100020), self._value(0x00100021))
            if key not in by_id:
                by_id[key] = catalogue.people_with(session, *key)
            found = by_id[key]
            if len(found) != 1:
                who = f"{key[0]!r}" + (f" of {key[1]!r}" if key[1] else "")
                words = f"rule {rule.name} takes its patient from the catalogue, which knows {len(found) or 'no'} "
                raise InstanceRefused("PROC_FAILURE", f"{words}{'people' if found else 'one'} with Patient ID {who}")
            for attribute in rule.from_catalogue:
                self._take(rule, attribute, found[0].get(attribute.keyword, ""))

    def _take(self, rule: Rule, attribute: Attribute, value: str) -> None:
        if value and value != self._value(attribute.tag):
            why = f"rule {rule.name}, as in the catalogue"
            self.edits[attribute.tag] = Edit(attribute.tag, attribute.vr, value, why)

    def _value(self, tag: int) -> str:
        """As it will be."""
        edit = self.edits.get(tag)
        return (edit.value or "") if edit is not None else self.values.get(tag, "")

    def corrected(self) -> InstanceRow:
        """The row as it will be, but for whose it is."""
        if not self.edits:
            return self.row
        changed: dict[str, Any] = {
            name: self.edits[tag].value or ""
            for tag, name in _FIELDS.items()
            if tag in self.edits and name in InstanceRow.__slots__
        }
        for tag, name in _NUMBERS.items():
            if tag in self.edits:
                changed[name] = int(self.edits[tag].value or 0) if self.edits[tag].value else None
        return replace(self.row, directory_keys=_keys(self.row, self.edits), **changed)

    def person(self) -> dict[str, Any] | None:
        """Who the patient is now, as ``Derived.facts`` will say; None where that was not corrected."""
        if not _IDENTITY_TAGS & self.edits.keys() or self.row.patient is None:
            return None
        facts = {_FIELDS[tag]: self._value(tag) for tag in _IDENTITY_TAGS}
        facts["study_instance_uid"] = self.row.study_instance_uid
        assert facts.keys() == set(IDENTITY)
        return facts


def _keys(row: InstanceRow, edits: Mapping[int, Edit]) -> bytes:
    """The directory keys as they will be; those of the edited file take their place once it is made."""
    wanted = dict(wanted_for(record_type(row.sop_class_uid)).keys)
    elements = split(row.directory_keys)
    charset = elements.get(SPECIFIC_CHARACTER_SET)
    declared = value_of(charset).decode("ascii", "replace").strip(" \0") if charset else ""
    if not edittext.holds(declared, list(edits.values())):
        declared = edittext.UNICODE
        elements[SPECIFIC_CHARACTER_SET] = encode(SPECIFIC_CHARACTER_SET, b"CS", declared.encode("ascii"))
    for tag, edit in edits.items():
        if tag not in wanted:
            continue
        elements.pop(tag, None)
        if edit.value:
            value = edittext.text_bytes(edit.value, declared, name=edit.vr == "PN") or edit.value.encode()
            elements[tag] = encode(tag, wanted[tag], value)
    return b"".join(elements[tag] for tag in sorted(elements))
