"""What was found when a disc was read again after years: kept, compared with before, and counted by."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from store import copies
from store.checks import DAMAGED, GOOD, WORN, check_of
from store.guard import rows_changed
from store.models_archive import DiscCheck
from store.models_base import now
from store.models_jobs import Disc
from store.models_nodes import Event
from store.states import DiscState

SLOWER = 3.0
"""A drive that needs so many times as long for a sector of a disc as it once did reads it with difficulty."""


class NoSuchDisc(Exception):
    """There is no disc of this ID, or none that was ever burnt."""


def record_check(
    session: Session,
    disc_id: int,
    *,
    good: bool,
    how: str,
    detail: dict[str, Any],
    sectors: int | None = None,
    unreadable: int | None = None,
    seconds: float | None = None,
) -> dict[str, Any]:
    """Keep the result of reading a disc again, with an Event; returns what ``check_of`` tells. Raises NoSuchDisc.

    ``how``: what was read. ``sectors``: of 2048 bytes, that were to be read, and how many ``unreadable`` ones there
    were among them. A disc that is still good, but read worse than before, becomes ``WORN``.
    """
    disc = session.get(Disc, disc_id, with_for_update=True, populate_existing=True)
    if disc is None or DiscState(disc.state) is DiscState.PLANNED:
        raise NoSuchDisc(f"there is no disc D{disc_id}")
    how = how[:255]
    reasons = _worse(session, disc_id, how, sectors, unreadable, seconds)
    before, result = disc.checked_result, (WORN if reasons else GOOD) if good else DAMAGED
    if reasons:
        detail = detail | {"worse": reasons}
    at = now()
    statement = update(Disc).where(Disc.id == disc_id)
    values = {"checked_at": at, "checked_result": result, "checked_how": how, "updated_at": at}
    rows_changed(session, statement.values(values | {"times_read": Disc.times_read + 1}))
    session.add(
        DiscCheck(
            disc_id=disc_id,
            at=at,
            result=result,
            how=how,
            sectors=sectors,
            unreadable=unreadable,
            seconds=seconds,
            detail=detail,
        )
    )
    session.add(
        Event(
            at=at,
            kind="check",
            job_id=disc.job_id,
            disc_id=disc.id,
            old=before,
            new=result,
            detail=detail | {"how": how},
        )
    )
    session.flush()
    copies.recount(session, disc.volume_id)
    session.refresh(disc)
    return {"disc": f"D{disc.id}", **check_of(disc), **({"worse": reasons} if reasons else {})}


def history(session: Session, disc_id: int) -> list[dict[str, Any]]:
    """Every reading of a disc since it was made, oldest first."""
    rows = session.scalars(select(DiscCheck).where(DiscCheck.disc_id == disc_id).order_by(DiscCheck.at, DiscCheck.id))
    return [
        {
            "at": row.at.isoformat(),
            "result": row.result,
            "how": row.how,
            "sectors": row.sectors,
            "unreadable": row.unreadable,
            "seconds": row.seconds,
            "detail": row.detail,
        }
        for row in rows
    ]


def _worse(
    session: Session, disc_id: int, how: str, sectors: int | None, unreadable: int | None, seconds: float | None
) -> list[str]:
    """In what way a disc was read worse than it once was; a worn one stays so until it reads better."""
    earlier = session.scalars(select(DiscCheck).where(DiscCheck.disc_id == disc_id)).all()
    found = []
    most = max((row.unreadable or 0 for row in earlier if row.result == GOOD), default=0)
    if unreadable and unreadable > most:
        found.append(f"{unreadable} sectors cannot be read; there were {most}")
    # Time tells something of a drive alone, and of one and the same.
    if how.startswith("drive") and sectors and seconds:
        rates = [row.seconds / row.sectors for row in earlier if row.how == how and row.sectors and row.seconds]
        if rates and seconds / sectors > SLOWER * min(rates):
            found.append(f"it was read {seconds / sectors / min(rates):.1f} times as slowly as once in the same drive")
    return found
