"""Discs as the documents that commands and the API show: a list of them, and one with all that is known of it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, or_, select
from sqlalchemy.orm import Session

from store import atrisk, rereading
from store.atrisk import disc_counts
from store.checks import DAMAGED, WORN, check_of
from store.models_jobs import Disc, Plan, Volume
from store.models_nodes import Event
from store.plans import volume_contents
from store.rereading import NoSuchDisc
from store.states import DiscState

_EVENTS_SHOWN = 200


def discs(
    session: Session,
    *,
    pool: str = "",
    purpose: str = "",
    shelf: str = "",
    file_set_id: str = "",
    marked: bool = False,
    out: bool = False,
    flagged: bool = False,
    all_: bool = False,
    after: int = 0,
    limit: int = 1000,
) -> list[dict[str, Any]]:
    """Verified discs (``all_``: of every state) in order of their making, those after ``after`` (an id).

    ``shelf``: how its shelf begins. ``marked``: lost or damaged by a person's word; ``out``: somebody has it;
    ``flagged``: found worn or damaged when it was read again.
    """
    query = _query().where(Disc.id > after)
    if not all_:
        query = query.where(Disc.state == DiscState.VERIFIED)
    for column, value in ((Disc.pool, pool), (Disc.purpose, purpose), (Volume.file_set_id, file_set_id)):
        if value:
            query = query.where(column == value)
    if shelf:
        query = query.where(Disc.shelf.startswith(shelf, autoescape=True))
    wanted = []
    if marked:
        wanted.append(Disc.marked.is_not(None))
    if flagged:
        wanted.append(Disc.checked_result.in_((WORN, DAMAGED)))
    if out:
        wanted.append(Disc.checked_out_to.is_not(None))
    if wanted:
        query = query.where(or_(*wanted))
    rows = session.execute(query.order_by(Disc.id).limit(limit))
    return [document(disc, volume) for disc, volume, _ in rows]


def disc(session: Session, disc_id: int) -> dict[str, Any]:
    """One disc: its studies, every reading of it, what happened to it. Raises NoSuchDisc."""
    row = session.execute(_query().where(Disc.id == disc_id)).first()
    if row is None:
        raise NoSuchDisc(f"there is no disc D{disc_id}")
    found, volume, profile = row
    others = session.scalars(
        select(Disc).where(Disc.volume_id == volume.id, Disc.id != disc_id).order_by(Disc.copy, Disc.attempt)
    )
    events = session.scalars(
        select(Event).where(Event.disc_id == disc_id).order_by(Event.id.desc()).limit(_EVENTS_SHOWN)
    ).all()
    contents = volume_contents(session, volume.plan_id).get(volume.id, {"instances": 0, "studies": [], "patients": []})
    return {
        **document(found, volume),
        "profile": profile,
        "sectors": volume.sectors,
        "protection": volume.protection,
        **contents,
        "other_discs": [atrisk.disc_summary(other) for other in others],
        "checks": rereading.history(session, disc_id),
        "events": [
            {
                "at": event.at.isoformat(),
                "kind": event.kind,
                "old": event.old,
                "new": event.new,
                "detail": event.detail,
            }
            for event in reversed(events)
        ],
    }


def document(disc: Disc, volume: Volume) -> dict[str, Any]:
    """A disc with the volume that it is a copy of."""
    return {
        "disc": f"D{disc.id}",
        "job": f"J{disc.job_id}",
        "file_set_id": volume.file_set_id,
        "file_set_uid": volume.file_set_uid,
        "volume": volume.number,
        "of": volume.of,
        "copy": disc.copy,
        "attempt": disc.attempt,
        "state": disc.state,
        "error": disc.error,
        "purpose": disc.purpose,
        "pool": disc.pool,
        "counts": disc_counts(disc),
        "good_copies": volume.good_copies,
        "wanted_copies": volume.wanted_copies,
        "shelf": disc.shelf,
        "checked_out_to": disc.checked_out_to,
        "checked_out_at": disc.checked_out_at.isoformat() if disc.checked_out_at else None,
        "marked": disc.marked,
        "marked_at": disc.marked_at.isoformat() if disc.marked_at else None,
        "marked_reason": disc.marked_reason,
        "burner": disc.burner,
        "location": disc.location,
        "sha256": disc.sha256,
        "verified_by": disc.verified_by,
        "verified_at": disc.verified_at.isoformat() if disc.verified_at else None,
        "times_read": disc.times_read,
        **check_of(disc),
    }


def _query() -> Select[Disc, Volume, str]:
    return (
        select(Disc, Volume, Plan.profile)
        .join(Volume, Volume.id == Disc.volume_id)
        .join(Plan, Plan.id == Volume.plan_id)
    )
