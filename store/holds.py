"""Holds: studies that stay in the spool because a person wants it so (``burnish keep``), whatever is purged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, func, or_, select, update
from sqlalchemy.orm import Session

from store.bulk import chunks
from store.guard import rows_changed
from store.models import Instance, Patient, Series, Study
from store.models_archive import Hold
from store.models_base import now
from store.models_nodes import Event


class NoSuchHold(Exception):
    """There is no hold of this ID, or nothing is held of what was named."""


def in_force() -> ColumnElement[bool]:
    """True for a Hold that is neither released nor over."""
    return and_(Hold.released_at.is_(None), or_(Hold.until.is_(None), Hold.until > now()))


def held() -> ColumnElement[bool]:
    """True for an Instance of a study that is held."""
    return exists().where(
        Series.id == Instance.series_id,
        Study.id == Series.study_id,
        Hold.study_instance_uid == Study.study_instance_uid,
        in_force(),
    )


def keep(
    session: Session, studies: Iterable[str], *, reason: str, until: datetime | None = None, by: str = "cli"
) -> list[int]:
    """Hold studies by their Study Instance UIDs, also for what comes of them later; returns the holds' ids.

    A purge that has one of their instances in hand is waited for: afterwards none takes any.
    """
    uids = sorted(set(studies))
    at = now()
    made = [Hold(study_instance_uid=uid, reason=reason, by=by[:64], created_at=at, until=until) for uid in uids]
    session.add_all(made)
    session.flush()
    for hold in made:
        _event(session, hold.id, hold.study_instance_uid, None, "HELD", by, reason)
    for chunk in chunks(uids):
        wanted = (
            select(Instance.id)
            .join(Series, Series.id == Instance.series_id)
            .join(Study, Study.id == Series.study_id)
            .where(Study.study_instance_uid.in_(chunk), Instance.spool_path.is_not(None))
            .order_by(Instance.id)
            .with_for_update(read=True, key_share=True, of=Instance)
        )
        session.execute(wanted).all()
    return [hold.id for hold in made]


def release(session: Session, hold_ids: Sequence[int], *, by: str = "cli") -> int:
    """Let go of these holds; returns how many were in force. Raises NoSuchHold for an ID that there is not."""
    known = dict(session.execute(select(Hold.id, Hold.study_instance_uid).where(Hold.id.in_(hold_ids))).tuples().all())
    for hold_id in hold_ids:
        if hold_id not in known:
            raise NoSuchHold(f"there is no hold H{hold_id}; see `burnish keep --list`")
    released = 0
    for hold_id in sorted(set(hold_ids)):
        statement = update(Hold).where(Hold.id == hold_id, Hold.released_at.is_(None)).values(released_at=now())
        if rows_changed(session, statement):
            _event(session, hold_id, known[hold_id], "HELD", "RELEASED", by, "")
            released += 1
    return released


def of_studies(session: Session, studies: Sequence[str]) -> list[int]:
    """The holds in force on these studies."""
    found: list[int] = []
    for chunk in chunks(studies):
        found += session.scalars(select(Hold.id).where(Hold.study_instance_uid.in_(chunk), in_force()))
    return sorted(found)


def holds(session: Session, *, all_: bool = False, after: int | None = None, limit: int = 1000) -> list[dict[str, Any]]:
    """Holds, newest first: those in force, or all there ever were; ``after``: older than this one."""
    query = select(Hold).order_by(Hold.id.desc()).limit(limit)
    if not all_:
        query = query.where(in_force())
    if after is not None:
        query = query.where(Hold.id < after)
    rows = session.scalars(query).all()
    people = _people(session, [row.study_instance_uid for row in rows])
    return [
        {
            "hold": f"H{row.id}",
            "study_instance_uid": row.study_instance_uid,
            **people.get(row.study_instance_uid, {"patient_id": "", "patient_name": "", "study_date": ""}),
            "reason": row.reason,
            "by": row.by,
            "created_at": row.created_at.isoformat(),
            "until": row.until.isoformat() if row.until else None,
            "released_at": row.released_at.isoformat() if row.released_at else None,
        }
        for row in rows
    ]


def studies_of(session: Session, instances: Sequence[int]) -> list[str]:
    """The Study Instance UIDs of instances."""
    found: set[str] = set()
    for chunk in chunks(instances):
        found.update(
            session.scalars(
                select(Study.study_instance_uid)
                .join(Series, Series.study_id == Study.id)
                .join(Instance, Instance.series_id == Series.id)
                .where(Instance.id.in_(chunk))
                .distinct()
            )
        )
    return sorted(found)


def _people(session: Session, uids: Sequence[str]) -> dict[str, dict[str, Any]]:
    rows = session.execute(
        select(
            Study.study_instance_uid,
            func.min(Patient.patient_id).label("patient_id"),
            func.min(Patient.patient_name).label("patient_name"),
            func.min(Study.study_date).label("study_date"),
        )
        .join(Patient, Patient.id == Study.patient_id)
        .where(Study.study_instance_uid.in_(uids))
        .group_by(Study.study_instance_uid)
    )
    return {
        row.study_instance_uid: {
            "patient_id": row.patient_id,
            "patient_name": row.patient_name,
            "study_date": row.study_date,
        }
        for row in rows
    }


def _event(session: Session, hold_id: int, study: str, old: str | None, new: str, by: str, reason: str) -> None:
    detail = {"hold": f"H{hold_id}", "study_instance_uid": study, "by": by, "reason": reason}
    session.add(Event(at=now(), kind="hold", old=old, new=new, detail=detail))


def not_in_spool(session: Session, studies: Sequence[str]) -> int:
    """How many instances of these studies a hold comes too late for: they are on discs alone."""
    count = 0
    for chunk in chunks(studies):
        count += session.execute(
            select(func.count(Instance.id))
            .join(Series, Series.id == Instance.series_id)
            .join(Study, Study.id == Series.study_id)
            .where(Study.study_instance_uid.in_(chunk), Instance.spool_path.is_(None))
        ).scalar_one()
    return count
