"""What is to be told to targets of the settings: found among the Events, tried again until it is told or given up."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from store.db import Database
from store.guard import rows_changed
from store.models_audit import Notice
from store.models_base import now
from store.models_jobs import Disc, Job, Volume
from store.models_nodes import Counter, Event

_SETTLED = timedelta(seconds=60)
"""After so long no transaction is open any more that could still bring an Event with a lower id."""
_BATCH = 500
_TOLD_OF = ("job", "recall", "check", "mark")
_CLAIM = timedelta(seconds=60)
_FIRST_PAUSE = timedelta(seconds=10)
_LONGEST_PAUSE = timedelta(hours=1)

DONE, FAILED, NEEDS_PERSON, DAMAGED = "done", "failed", "needs-person", "damaged"
KINDS = (DONE, FAILED, NEEDS_PERSON, DAMAGED)
"""What can be told of."""


@dataclass(frozen=True, slots=True)
class Due:
    """A notice that this process has claimed, with what it says."""

    id: int
    target: str
    attempts: int
    document: dict[str, Any]


def kind_of(event: Event) -> str | None:
    """What an Event means to those who are told; None: nothing."""
    if event.kind == "job":
        return {"DONE": DONE, "FAILED": FAILED, "WAITING": NEEDS_PERSON}.get(event.new or "")
    if event.kind == "recall":
        # A recall that begins to wait for a disc, or ended without all that was wanted.
        ended = {"PARTIAL": FAILED, "FAILED": FAILED, "TIMED_OUT": FAILED, "asked": NEEDS_PERSON}
        return ended.get(event.new or "")
    if event.kind in ("check", "mark") and event.new in ("DAMAGED", "LOST"):
        return DAMAGED
    return None


def collect(db: Database, targets: Mapping[str, Collection[str]]) -> int:
    """Make a Notice of each new Event that a target wants to hear of; returns how many. ``targets``: kinds by name.

    A target that is new hears of what happens from now on.
    """
    made = 0
    for target, kinds in targets.items():
        with db.begin() as session:
            made += _collect(session, target, kinds)
    return made


def _collect(session: Session, target: str, kinds: Collection[str]) -> int:
    name = f"notice:{target}"[:32]
    mark = session.execute(select(Counter).where(Counter.name == name).with_for_update()).scalar_one_or_none()
    if mark is None:
        session.merge(Counter(name=name, value=session.scalar(select(func.max(Event.id))) or 0))
        return 0
    events = session.scalars(
        select(Event).where(Event.id > mark.value, Event.kind.in_(_TOLD_OF)).order_by(Event.id).limit(_BATCH)
    ).all()
    wanted = {event.id: what for event in events if (what := kind_of(event)) is not None and what in kinds}
    known = set(session.scalars(select(Notice.event_id).where(Notice.target == target, Notice.event_id.in_(wanted))))
    at = now()
    for event_id in wanted.keys() - known:
        session.add(Notice(target=target, event_id=event_id, what=wanted[event_id], attempts=0, next_at=at))
    settled = session.scalar(select(func.max(Event.id)).where(Event.at < at - _SETTLED)) or 0
    if len(events) == _BATCH:
        settled = min(settled, events[-1].id)
    mark.value = max(mark.value, settled)
    return len(wanted.keys() - known)


def waited_for(db: Database, targets: Collection[str]) -> list[str]:
    """Which of these targets something is due for."""
    due = select(Notice.target).where(Notice.next_at <= now(), Notice.target.in_(list(targets)))
    with db.read() as session:
        return sorted(session.scalars(due.distinct()))


def claim(db: Database, targets: Collection[str], limit: int = 20) -> list[Due]:
    """Notices that are due, claimed for a minute, so that no other node tells them as well."""
    claimed = []
    with db.begin() as session:
        rows = session.scalars(
            select(Notice)
            .where(Notice.next_at <= now(), Notice.target.in_(list(targets)))
            .order_by(Notice.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        ).all()
        for row in rows:
            document = _document(session, row)
            taken = update(Notice).where(Notice.id == row.id, Notice.next_at == row.next_at)
            if rows_changed(session, taken.values(next_at=now() + _CLAIM, attempts=Notice.attempts + 1)) == 1:
                claimed.append(Due(row.id, row.target, row.attempts + 1, document))
    return claimed


def told(db: Database, notice_id: int) -> None:
    """It was taken."""
    with db.begin() as session:
        session.execute(update(Notice).where(Notice.id == notice_id).values(told_at=now(), next_at=None, error=None))


def failed(db: Database, due: Due, error: str, *, give_up_after: timedelta) -> datetime | None:
    """It was not taken; when it is tried again, None: never."""
    with db.begin() as session:
        row = session.get(Notice, due.id)
        if row is None:
            return None
        happened = session.scalar(select(Event.at).where(Event.id == row.event_id)) or now()
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(due.attempts - 1, 12))
        row.error = error[:1000]
        row.next_at = now() + pause if now() + pause < happened + give_up_after else None
        return row.next_at


def again(session: Session, notice_id: int) -> bool:
    """Have one tried again that was given up; False where there is none."""
    statement = update(Notice).where(Notice.id == notice_id, Notice.told_at.is_(None))
    return rows_changed(session, statement.values(next_at=now(), attempts=0)) == 1


def documents(session: Session, *, before: int | None = None, limit: int = 100) -> list[dict[str, Any]]:
    """Notices, the newest first, and how each stands."""
    query = select(Notice).order_by(Notice.id.desc()).limit(limit)
    if before is not None:
        query = query.where(Notice.id < before)
    return [
        {
            "notice": f"N{row.id}",
            "target": row.target,
            "attempts": row.attempts,
            "told_at": row.told_at.isoformat(timespec="seconds") if row.told_at else None,
            "next_at": row.next_at.isoformat(timespec="seconds") if row.next_at else None,
            "error": row.error,
            **_document(session, row),
        }
        for row in session.scalars(query)
    ]


def _document(session: Session, row: Notice) -> dict[str, Any]:
    """What is told: no names or IDs of patients, and no words that could hold one."""
    event = session.get_one(Event, row.event_id)
    document: dict[str, Any] = {
        "event": row.what,
        "at": event.at.isoformat(timespec="seconds"),
        "kind": event.kind,
        "state": event.new,
    }
    if event.job_id is not None:
        job = session.get(Job, event.job_id)
        document["job"] = f"J{event.job_id}"
        if job is not None:
            document |= {"burner": job.burner, "reason": job.reason}
    if event.disc_id is not None:
        document["disc"] = f"D{event.disc_id}"
        file_set_id = session.scalar(
            select(Volume.file_set_id).join(Disc, Disc.volume_id == Volume.id).where(Disc.id == event.disc_id)
        )
        document["file_set_id"] = file_set_id
    if event.kind == "recall":
        document["recall"] = event.detail.get("recall")
    return document
