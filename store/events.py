"""Events as they become known: everything that happened, once, also with several nodes on one database.

Numbers are given when a transaction writes, and an Event is seen when its transaction commits: on PostgreSQL number 11
may be seen before number 10. So a reader remembers which numbers below its last one were not there, and looks for them
again for some minutes; what is not there then was rolled back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from store.models_nodes import Event

PATIENCE = 300.0
"""Seconds after which a number that is not there is given up; longer than our transactions last."""
_LOOK_BACK = 200
"""Numbers before the last one that somebody new looks for, too."""
_MAX_GAPS = 1000
BATCH = 500


class BadPlace(Exception):
    """A text that says no place among the events."""


@dataclass(slots=True)
class Place:
    """How far a reader has come."""

    last: int
    """The highest number that was seen ..."""
    gaps: dict[int, float] = field(default_factory=dict)
    """... and those below it that were not there, with when they were missed (monotonic)."""

    def __str__(self) -> str:
        """For whoever goes on later: ``105``, or ``105.101.103`` where 101 and 103 were not there."""
        return ".".join(map(str, (self.last, *sorted(self.gaps))))

    @classmethod
    def of(cls, text: str, *, clock: Callable[[], float] = time.monotonic) -> Place:
        """The place that such a text means. Raises BadPlace."""
        parts = text.strip().split(".")
        if not all(part.isascii() and part.isdigit() and len(part) < 19 for part in parts) or len(parts) > _MAX_GAPS:
            raise BadPlace(text[:64])
        last, *gaps = (int(part) for part in parts)
        return cls(last, {gap: clock() for gap in gaps if gap < last})


def latest(session: Session) -> int:
    """The highest number."""
    return session.scalar(select(func.max(Event.id))) or 0


def newest(session: Session, *, clock: Callable[[], float] = time.monotonic) -> Place:
    """Where somebody begins who wants to hear of what comes."""
    last = latest(session)
    first = max(1, last - _LOOK_BACK)
    there = set(session.scalars(select(Event.id).where(Event.id >= first)))
    last = max(there, default=last)
    return Place(last, {number: clock() for number in range(first, last) if number not in there})


def news(
    session: Session, place: Place, *, clock: Callable[[], float] = time.monotonic, limit: int = BATCH
) -> list[tuple[Event, str]]:
    """The events that ``place`` has not seen yet, by their numbers, each with the place behind it."""
    for gap, since in list(place.gaps.items()):
        if clock() - since > PATIENCE:
            del place.gaps[gap]
    unseen: ColumnElement[bool] = Event.id > place.last
    if place.gaps:
        unseen = or_(unseen, Event.id.in_(list(place.gaps)))
    found: list[tuple[Event, str]] = []
    for event in session.scalars(select(Event).where(unseen).order_by(Event.id).limit(limit)):
        if event.id in place.gaps:
            del place.gaps[event.id]
        else:
            begin = max(place.last + 1, event.id - _MAX_GAPS)
            place.gaps.update((number, clock()) for number in range(begin, event.id))
            place.last = max(place.last, event.id)
            while len(place.gaps) > _MAX_GAPS // 2:
                del place.gaps[min(place.gaps)]
        found.append((event, str(place)))
    return found


def page(
    session: Session,
    *,
    before: int | None = None,
    kinds: Collection[str] = (),
    job_id: int | None = None,
    disc_id: int | None = None,
    limit: int = 100,
) -> list[Event]:
    """What happened, the latest first; ``before``: only lower numbers."""
    statement = select(Event).order_by(Event.id.desc()).limit(limit)
    if before is not None:
        statement = statement.where(Event.id < before)
    if kinds:
        statement = statement.where(Event.kind.in_(kinds))
    if job_id is not None:
        statement = statement.where(Event.job_id == job_id)
    if disc_id is not None:
        statement = statement.where(Event.disc_id == disc_id)
    return list(session.scalars(statement))


_PLAIN = frozenset(
    ("action", "by", "fire_at", "file_set_id", "hold", "kind", "node", "pool", "recall", "rule", "schedule", "watch")
)
"""Keys of a detail whose texts are names of ours: what else is text may quote a file, a disc or a person, and so a
patient."""
_FREE_STATES = frozenset(("shelf",))
"""Kinds whose states are what somebody has written: where a disc is, who has it."""


def event_document(event: Event, *, words: bool = True) -> dict[str, Any]:
    """An Event as the API tells it; without ``words`` nothing is in it that could tell of a patient."""
    if not words:
        return event_document(event) | {
            "detail": _plain(event.detail, {"reason"} if event.kind == "job" else ()),  # there it is a code
            **({"old": None, "new": None} if event.kind in _FREE_STATES else {}),
        }
    return {
        "event": event.id,
        "at": event.at.isoformat(),
        "kind": event.kind,
        "job": None if event.job_id is None else f"J{event.job_id}",
        "disc": None if event.disc_id is None else f"D{event.disc_id}",
        "instance": event.instance_id,
        "old": event.old,
        "new": event.new,
        "detail": event.detail,
    }


def _plain(detail: Any, also: Collection[str] = ()) -> dict[str, Any]:
    found = detail.items() if isinstance(detail, dict) else ()
    return {
        name: value
        for name, value in found
        if value is None or isinstance(value, bool | int | float) or name in _PLAIN or name in also
    }
