"""Pools: discs that are filled, kept and counted together. What waits in them is ``store.waiting``'s."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import exists, func, select, update
from sqlalchemy.orm import Session

from config.worded import Worded
from store import copies
from store.db import enter
from store.guard import rows_changed
from store.models import Instance
from store.models_archive import Pool, PoolInstance, Schedule
from store.models_base import now
from store.models_jobs import Disc, Request
from store.models_nodes import Event
from store.states import DiscState

COLUMNS = (
    "kind",
    "options",
    "copies",
    "required_copies",
    "min_fill",
    "latest_days",
    "keep_days",
    "shelves",
    "quiet_minutes",
)
"""What a person decides about a pool."""


SETTLED = timedelta(minutes=10)
"""After so long no transaction is open any more that could still bring an instance with a lower id."""


class PoolError(Exception):
    """A pool is not as it would have to be for this; ``code`` is for scripts."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class NoSuchPool(PoolError):
    """There is no pool of this name."""

    def __init__(self, name: str) -> None:
        super().__init__("NOT_FOUND", f"there is no pool {name[:64]!r}; see `burnish pool list`")


def get(session: Session, name: str, *, lock: bool = False) -> Pool:
    """A pool by its name; ``lock``: nobody else changes it or what it has taken until the end of the transaction.

    Raises NoSuchPool.
    """
    pool = session.get(Pool, name, with_for_update=True, populate_existing=True) if lock else session.get(Pool, name)
    if pool is None:
        raise NoSuchPool(name)
    return pool


def require_open(pool: Pool) -> None:
    """Raise PoolError (CLOSED) for a pool that takes nothing any more."""
    if pool.closed_at is not None:
        raise PoolError(
            "CLOSED",
            Worded(
                "pool_closed",
                "pool {pool} was closed on {day} and takes nothing any more",
                pool=pool.name,
                day=f"{pool.closed_at:%Y-%m-%d}",
            ),
        )


def every(session: Session, *, closed: bool = False) -> list[Pool]:
    """All pools by name; ``closed``: with those that take nothing any more."""
    query = select(Pool).order_by(Pool.name)
    return list(session.scalars(query if closed else query.where(Pool.closed_at.is_(None))))


def add(session: Session, name: str, values: Mapping[str, Any], *, by: str = "cli") -> Pool:
    """Enter a pool with all of ``COLUMNS``. Late arrivals of its studies are looked for from now on.

    Raises PoolError (EXISTS).
    """
    taken = PoolError("EXISTS", Worded("pool_known", "there is a pool {pool} already", pool=name))
    if session.get(Pool, name) is not None:
        raise taken
    # Not the very latest: a transaction that is still open may bring a lower id.
    seen = session.scalar(select(func.max(Instance.id)).where(Instance.received_at < now() - SETTLED)) or 0
    pool = Pool(
        name=name,
        created_at=now(),
        closed_at=None,
        look_at=None,
        seen_instance=seen,
        **{key: values[key] for key in COLUMNS},
    )
    if not enter(session, pool):
        raise taken
    note(session, pool.name, "added", by=by, **values)
    return pool


def edit(session: Session, name: str, values: Mapping[str, Any], *, by: str = "cli") -> Pool:
    """Change some of ``COLUMNS``. What the pool's discs could not hold is tried again; discs that exist stay as they
    are.

    Raises NoSuchPool, PoolError (CLOSED).
    """
    pool = get(session, name, lock=True)
    require_open(pool)
    changed = {key: values[key] for key in COLUMNS if key in values and values[key] != getattr(pool, key)}
    if not changed:
        return pool
    for key, value in changed.items():
        setattr(pool, key, value)
    pool.look_at = None
    rows_changed(session, update(PoolInstance).where(PoolInstance.pool == name).values(refused=None))
    session.flush()
    if "required_copies" in changed:
        copies.recount_pool(session, name)
    note(session, name, "changed", by=by, **changed)
    return pool


def remove(session: Session, name: str, *, by: str = "cli") -> bool:
    """Remove a pool that never made a disc, else close it; True: it is gone, False: it is closed.

    Raises NoSuchPool; PoolError: WAITING while something waits for its discs, IN_USE while a schedule fills it.
    """
    pool = get(session, name, lock=True)
    used = session.scalars(select(Schedule.name).where(Schedule.pool == name).order_by(Schedule.name)).all()
    if used:
        raise PoolError(
            "IN_USE",
            Worded(
                "pool_used",
                "pool {pool} is filled by schedule {schedules}; remove or change it first",
                pool=name,
                schedules=", ".join(used),
            ),
        )
    waits = exists().where(PoolInstance.pool == name, PoolInstance.request_id.is_(None), PoolInstance.refused.is_(None))
    if session.scalar(select(waits)):
        raise PoolError(
            "WAITING",
            Worded(
                "pool_waits",
                "instances wait for discs of pool {pool}; `burnish pool burn-now {pool}` makes them first",
                pool=name,
            ),
        )
    made = exists().where(Request.pool == name)
    if session.scalar(select(made)) or session.scalar(select(exists().where(Disc.pool == name))):
        if pool.closed_at is None:
            pool.closed_at = now()
            note(session, name, "closed", by=by)
        return False
    session.delete(pool)
    note(session, name, "removed", by=by)
    return True


def disc_counts(session: Session, name: str) -> dict[str, int]:
    """Discs of a pool by what is true of them: ``made``, ``verified``, ``failed``, ``open``."""
    found = dict.fromkeys(("made", "verified", "failed", "open"), 0)
    rows = session.execute(select(Disc.state, func.count()).where(Disc.pool == name).group_by(Disc.state))
    for state, count in rows:
        found["made"] += count
        key = {DiscState.VERIFIED: "verified", DiscState.FAILED: "failed", DiscState.CANCELLED: "failed"}
        found[key.get(DiscState(state), "open")] += count
    return found


def note(session: Session, name: str, what: str, *, by: str, **detail: Any) -> None:
    """Keep an Event of what was done to a pool."""
    session.add(Event(at=now(), kind="pool", new=what, detail={"pool": name, "by": by, **detail}))
