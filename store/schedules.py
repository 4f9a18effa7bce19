"""Schedules and their firings. One row a firing: whoever of several nodes made it, and what came of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import and_, delete, exists, or_, select, update
from sqlalchemy.orm import Session

from config.worded import Worded
from store.db import enter
from store.guard import rows_changed
from store.models_archive import Schedule, ScheduleRun
from store.models_base import now
from store.models_nodes import Event, Node
from store.nodes import database_now

COLUMNS = ("kind", "enabled", "trigger", "timezone", "blackouts", "rules", "options", "pool")
"""What a person decides about a schedule."""


KEPT_RUNS = 1000
"""Firings that are kept of each schedule."""


class ScheduleError(Exception):
    """A schedule is not as it would have to be for this; ``code`` is for scripts."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class NoSuchSchedule(ScheduleError):
    """There is no schedule of this name."""

    def __init__(self, name: str) -> None:
        super().__init__("NOT_FOUND", f"there is no schedule {name[:64]!r}; see `burnish schedule list`")


def get(session: Session, name: str, *, lock: bool = False) -> Schedule:
    """A schedule by its name; ``lock``: nobody else fires or changes it until the end of the transaction.

    Raises NoSuchSchedule.
    """
    row = (
        session.get(Schedule, name, with_for_update=True, populate_existing=True)
        if lock
        else session.get(Schedule, name)
    )
    if row is None:
        raise NoSuchSchedule(name)
    return row


def every(session: Session, *, enabled: bool = False) -> list[Schedule]:
    """All schedules by name; ``enabled``: only those that fire."""
    query = select(Schedule).order_by(Schedule.name)
    return list(session.scalars(query.where(Schedule.enabled) if enabled else query))


def filling(session: Session, pool: str) -> list[Schedule]:
    """The schedules that fire and fill a pool."""
    return list(session.scalars(select(Schedule).where(Schedule.pool == pool, Schedule.enabled)))


def add(session: Session, name: str, values: Mapping[str, Any], *, by: str = "cli") -> Schedule:
    """Enter a schedule with all of ``COLUMNS``. Raises ScheduleError (EXISTS)."""
    taken = ScheduleError("EXISTS", Worded("schedule_known", "there is a schedule {schedule} already", schedule=name))
    if session.get(Schedule, name) is not None:
        raise taken
    at = now()
    row = Schedule(
        name=name, created_at=at, updated_at=at, last_fire=None, **{column: values[column] for column in COLUMNS}
    )
    if not enter(session, row):
        raise taken
    _event(session, name, "added", {"by": by, **values})
    return row


def edit(session: Session, name: str, values: Mapping[str, Any], *, by: str = "cli") -> Schedule:
    """Change some of ``COLUMNS``. Raises NoSuchSchedule."""
    row = get(session, name, lock=True)
    changed = {key: values[key] for key in COLUMNS if key in values and values[key] != getattr(row, key)}
    if changed:
        for key, value in changed.items():
            setattr(row, key, value)
        row.updated_at = now()
        session.flush()
        _event(session, name, "changed", {"by": by, **changed})
    return row


def remove(session: Session, name: str, *, by: str = "cli") -> None:
    """Remove a schedule and the list of its firings; what it had made stays. Raises NoSuchSchedule."""
    row = get(session, name, lock=True)
    session.execute(delete(ScheduleRun).where(ScheduleRun.schedule == name))
    session.delete(row)
    _event(session, name, "removed", {"by": by})


# --- Firings ----------------------------------------------------------------------------------------------------------


def begin_run(session: Session, row: Schedule, fire_at: datetime, node: str, *, by_clock: bool = True) -> ScheduleRun:
    """Enter a firing of a locked schedule; ``by_clock``: what was due until then is done with it."""
    run = ScheduleRun(schedule=row.name, fire_at=fire_at, node=node, started_at=now(), finished_at=None, result=None)
    session.add(run)
    if by_clock:
        row.last_fire = fire_at
    session.flush()
    return run


def finish_run(session: Session, run_id: int, result: Mapping[str, Any]) -> bool:
    """Say what came of a firing; False where that was said before: then nothing of this transaction may stay."""
    statement = update(ScheduleRun).where(ScheduleRun.id == run_id, ScheduleRun.finished_at.is_(None))
    if rows_changed(session, statement.values(finished_at=now(), result=dict(result))) != 1:
        return False
    run = session.get_one(ScheduleRun, run_id)
    new = "failed" if "error" in result else "fired"
    _event(session, run.schedule, new, {"fire_at": run.fire_at.isoformat(), **result})
    _forget_old(session, run.schedule)
    return True


def _forget_old(session: Session, name: str) -> None:
    """Events tell of every firing; of the rows the newest are enough."""
    of_it = ScheduleRun.schedule == name
    newest = select(ScheduleRun.fire_at).where(of_it).order_by(ScheduleRun.fire_at.desc())
    oldest = session.scalar(newest.offset(KEPT_RUNS).limit(1))
    if oldest is not None:
        ended = ScheduleRun.finished_at.is_not(None)
        session.execute(delete(ScheduleRun).where(of_it, ScheduleRun.fire_at <= oldest, ended))


def take_unfinished(session: Session, node: str, busy: Collection[int]) -> list[ScheduleRun]:
    """Firings that a crash cut short, now this node's: its own that it is not ``busy`` with, those of dead nodes."""
    living = exists().where(Node.name == ScheduleRun.node, Node.lease_until > database_now(session))
    mine = ScheduleRun.node == node
    rows = session.scalars(
        select(ScheduleRun)
        .where(
            ScheduleRun.finished_at.is_(None),
            ScheduleRun.id.not_in(list(busy)),
            or_(mine, ScheduleRun.node.is_(None), and_(~mine, ~living)),
        )
        .order_by(ScheduleRun.id)
        .with_for_update()
    ).all()
    for row in rows:
        row.node = node
    session.flush()
    return list(rows)


def runs(session: Session, name: str, *, limit: int = 20) -> list[ScheduleRun]:
    """The newest firings of a schedule, the newest first."""
    query = select(ScheduleRun).where(ScheduleRun.schedule == name).order_by(ScheduleRun.fire_at.desc())
    return list(session.scalars(query.limit(limit)))


def _event(session: Session, name: str, new: str, detail: Mapping[str, Any]) -> None:
    session.add(Event(at=now(), kind="schedule", new=new, detail={"schedule": name, **detail}))
