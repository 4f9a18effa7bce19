"""Studies as people look for them: by what they type, newest first, a page at a time.

Every criterion goes by an index, and counts are made for the studies of the page only, so that an answer takes as long
among a million studies as among a thousand. Only a name that nothing begins with is looked for everywhere in names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, bindparam, case, exists, func, or_, select, union
from sqlalchemy.orm import Session

from store.matching import begins_with, has_wildcard, patient_name_condition, text_condition
from store.models import Instance, Patient, Series, Study
from store.presence import has_restored
from store.search import folded_text, name_matches
from store.selection import on_verified_disc, parse_date_range

_WILDCARDS = 4
"""Stars of a pattern; with more the database would try every way to match."""
_SCANNED_LENGTH = 3
"""Characters from which on a name is looked for in the middle of names, too."""


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for; empty criteria do not narrow the search, those given are combined by AND."""

    text: str = ""
    """As typed into one field: the beginning of a name in any script, of a Patient ID or an Accession Number; ``*`` and
    ``?`` are wildcards."""
    patient_name: str = ""
    patient_id: str = ""
    accession: str = ""
    study: str = ""
    """Study Instance UID."""
    date_range: str = ""
    """``YYYYMMDD-YYYYMMDD``, either end open, or one date."""
    modality: str = ""
    calling_ae: str = ""


@dataclass(slots=True)
class StudyRow:
    """A study of the page, with counts of what it has."""

    id: int
    study_instance_uid: str
    study_date: str
    study_time: str
    study_description: str
    accession_number: str
    referring_physician_name: str
    patient: int
    patient_id: str
    patient_name: str
    patient_birth_date: str
    patient_sex: str
    modalities: list[str] = field(default_factory=list)
    series: int = 0
    instances: int = 0
    bytes: int = 0
    in_spool: int = 0
    back: int = 0
    """Instances that are not in the spool, but back from a disc as they were changed for it."""
    on_disc: int = 0
    """Instances that a disc holds which is counted on."""
    conflicts: int = 0
    received_at: datetime | None = None
    """When the last instance came."""

    @property
    def key(self) -> tuple[str, int]:
        """Where the next page begins, as ``search`` takes it."""
        return self.study_date, self.id


def search(session: Session, query: Query, *, limit: int = 30, after: tuple[str, int] | None = None) -> list[StudyRow]:
    """At most ``limit`` studies that match, the newest first, those behind ``after``; the last one's ``key`` leads on.

    Raises ``SelectionError`` for a date range that is none.
    """
    found = _found(session, query, limit, after, anywhere=False)
    text = query.text.strip()
    if not found and after is None and len(text) >= _SCANNED_LENGTH and not has_wildcard(text):
        found = _found(session, query, limit, after, anywhere=True)
    rows = [StudyRow(*row) for row in found]
    count(session, rows)
    return rows


def one(session: Session, study_id: int) -> StudyRow | None:
    """A study by its primary key."""
    row = session.execute(_select().where(Study.id == study_id)).first()
    if row is None:
        return None
    found = StudyRow(*row)
    count(session, [found])
    return found


def some(session: Session, study_ids: Sequence[int]) -> list[StudyRow]:
    """Studies by their primary keys, in that order; those that are not there are left out."""
    rows = [StudyRow(*row) for row in session.execute(_select().where(Study.id.in_(study_ids)))]
    count(session, rows)
    order = {key: position for position, key in enumerate(study_ids)}
    return sorted(rows, key=lambda row: order[row.id])


def _select() -> Any:
    return select(
        Study.id,
        Study.study_instance_uid,
        Study.study_date,
        Study.study_time,
        Study.study_description,
        Study.accession_number,
        Study.referring_physician_name,
        Patient.id,
        Patient.patient_id,
        Patient.patient_name,
        Patient.patient_birth_date,
        Patient.patient_sex,
    ).join(Patient, Patient.id == Study.patient_id)


def _found(session: Session, query: Query, limit: int, after: tuple[str, int] | None, *, anywhere: bool) -> list[Any]:
    postgresql = session.get_bind().dialect.name == "postgresql"
    statement = _select().where(*_conditions(query, postgresql=postgresql, anywhere=anywhere))
    if after is not None:
        date, key = after
        statement = statement.where(and_(Study.study_date <= date, or_(Study.study_date < date, Study.id < key)))
    return list(session.execute(statement.order_by(Study.study_date.desc(), Study.id.desc()).limit(limit)))


def _conditions(query: Query, *, postgresql: bool, anywhere: bool) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if text := query.text.strip():
        found.append(_typed(text, postgresql=postgresql, anywhere=anywhere))
    if query.patient_name:
        by_name = _name(query.patient_name, postgresql=postgresql)
        if by_name is not None:
            found.append(Study.patient_id.in_(select(Patient.id).where(by_name)))
    if query.patient_id:
        by_id = _text(Patient.patient_id, query.patient_id, postgresql=postgresql)
        found.append(Study.patient_id.in_(select(Patient.id).where(by_id)))
    if query.accession:
        found.append(_text(Study.accession_number, query.accession, postgresql=postgresql))
    if query.study:
        found.append(Study.study_instance_uid == query.study)
    if query.date_range:
        first, last = parse_date_range(query.date_range)
        found += [Study.study_date >= first, Study.study_date <= last, Study.study_date != ""]
    if query.modality:
        found.append(exists().where(Series.study_id == Study.id, Series.modality == query.modality))
    if query.calling_ae:
        own = select(Series.id).where(Series.study_id == Study.id).correlate(Study)
        found.append(exists().where(Instance.series_id.in_(own), Instance.calling_ae == query.calling_ae))
    return found


def _typed(text: str, *, postgresql: bool, anywhere: bool) -> ColumnElement[bool]:
    """What one field means: a name, or an ID, or an accession number."""
    if anywhere:
        like = folded_text(text.replace("=", " ")).replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        return Study.patient_id.in_(select(Patient.id).where(Patient.name_search.like(f"%{like}%", escape="\\")))
    pattern = text if has_wildcard(text) else f"{text}*"
    ways = [
        select(Study.id).where(_text(Study.accession_number, spelt, postgresql=postgresql))
        for spelt in dict.fromkeys((pattern, pattern.upper()))
    ]
    ways += [
        select(Study.id)
        .join(Patient, Patient.id == Study.patient_id)
        .where(_text(Patient.patient_id, spelt, postgresql=postgresql))
        for spelt in dict.fromkeys((pattern, pattern.upper()))
    ]
    by_name = _name(_as_name(pattern), postgresql=postgresql)
    if by_name is not None:
        ways.append(select(Study.id).join(Patient, Patient.id == Study.patient_id).where(by_name))
    return Study.id.in_(union(*ways).scalar_subquery())


def _name(pattern: str, *, postgresql: bool) -> ColumnElement[bool] | None:
    """Patients of this name, by the index as far as it leads; None: all."""
    pattern = re.sub(r"\*+", "*", pattern)
    by_index = patient_name_condition(pattern, postgresql=postgresql)
    if by_index is None or pattern.count("*") > _WILDCARDS:
        return by_index
    # ``DOE^*`` is meant for a DOE without given name, too (as in store.matching).
    return and_(by_index, name_matches(re.sub(r"(\^\*)+$", "", pattern)))


def _as_name(pattern: str) -> str:
    """Commas and blanks part components as they do when people write names: ``Doe, Jane``."""
    return pattern.replace(",", " ").replace("=", " ")


def _text(column: Any, pattern: str, *, postgresql: bool) -> ColumnElement[bool]:
    if pattern.endswith("*") and not has_wildcard(pattern[:-1]):
        return begins_with(column, pattern[:-1], postgresql=postgresql)
    return text_condition(column, [pattern], postgresql=postgresql)


def count(session: Session, rows: Sequence[StudyRow]) -> None:
    """Fill in what the studies of a page have."""
    by_id = {row.id: row for row in rows}
    if not by_id:
        return
    for study_id, modality, series, instances, size, in_spool, back, on_disc, conflicts, received in session.execute(
        _counted(), {"studies": list(by_id)}
    ):
        row = by_id[study_id]
        if modality:
            row.modalities.append(modality)
        row.series += series
        row.instances += instances
        row.bytes += int(size)  # PostgreSQL sums into a Decimal
        row.in_spool += in_spool
        row.back += int(back)
        row.on_disc += int(on_disc)
        row.conflicts += conflicts
        if row.received_at is None or received > row.received_at:
            row.received_at = received


@cache
def _counted() -> Select[Any]:
    """Made once: that takes longer than to run it."""
    return (
        select(
            Series.study_id,
            Series.modality,
            func.count(func.distinct(Series.id)),
            func.count(Instance.id),
            func.coalesce(func.sum(Instance.file_bytes), 0),
            func.count(Instance.spool_path),
            func.coalesce(func.sum(case((Instance.spool_path.is_not(None), 0), (has_restored(), 1), else_=0)), 0),
            func.coalesce(func.sum(case((on_verified_disc(), 1), else_=0)), 0),
            func.count(Instance.conflict_of),
            func.max(Instance.received_at),
        )
        .join(Instance, Instance.series_id == Series.id)
        .where(Series.study_id.in_(bindparam("studies", expanding=True)))
        .group_by(Series.study_id, Series.modality)
        .order_by(Series.study_id, Series.modality)
    )
