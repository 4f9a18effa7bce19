"""Discs as facts: claimed under a lease, changed by guarded UPDATE, each change with its Event."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, exists, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from store import copies
from store.guard import rows_changed
from store.models_base import now
from store.models_jobs import Disc, Job, Volume
from store.models_nodes import Event
from store.nodes import Lease, holds, lease_held_by
from store.states import DISC_FINAL, DiscState, check_disc


class ClaimLost(Exception):
    """The guard of an UPDATE failed: another claim, or another state, has come meanwhile."""


@dataclass(frozen=True, slots=True)
class DiscFacts:
    """A disc with what is known of its job and volume, as read in one transaction."""

    disc: Disc
    volume: Volume
    cancel_requested: bool
    priority: int


def latest_discs(session: Session, job_id: int) -> list[Disc]:
    """The latest attempt of each copy of each volume, in that order."""
    newest = (
        select(Disc.volume_id, Disc.copy, func.max(Disc.attempt).label("attempt"))
        .where(Disc.job_id == job_id)
        .group_by(Disc.volume_id, Disc.copy)
        .subquery()
    )
    statement = (
        select(Disc)
        .join(Volume, Volume.id == Disc.volume_id)
        .join(
            newest,
            and_(
                newest.c.volume_id == Disc.volume_id,
                newest.c.copy == Disc.copy,
                newest.c.attempt == Disc.attempt,
            ),
        )
        .where(Disc.job_id == job_id)
        .order_by(Volume.number, Disc.copy)
        .execution_options(populate_existing=True)
    )
    return list(session.execute(statement).scalars())


def facts_of(session: Session, disc_id: int) -> DiscFacts:
    """A disc with its volume and what its job wants of it."""
    row = session.execute(
        select(Disc, Volume, Job.cancel_requested, Job.priority)
        .join(Volume, Volume.id == Disc.volume_id)
        .join(Job, Job.id == Disc.job_id)
        .where(Disc.id == disc_id)
        .execution_options(populate_existing=True)
    ).one()
    return DiscFacts(*row)


def claim_disc(session: Session, disc_id: int, lease: Lease) -> bool:
    """Take a disc under a lease that holds, unless another node's living lease has it, or it has ended."""
    free = or_(Disc.node.is_(None), Disc.node == lease.node, ~lease_held_by(session, Disc.node, Disc.epoch))
    statement = update(Disc).where(Disc.id == disc_id, Disc.state.notin_(DISC_FINAL), free, holds(session, lease))
    return rows_changed(session, statement.values(node=lease.node, epoch=lease.epoch, updated_at=now())) == 1


def is_next(session: Session, facts: DiscFacts) -> bool:
    """Whether no other disc that a living node holds ready for the same burner should go before this one."""
    other = aliased(Disc)
    earlier = or_(Job.priority < facts.priority, and_(Job.priority == facts.priority, other.id < facts.disc.id))
    waiting = (
        exists()
        .where(other.job_id == Job.id, other.burner == facts.disc.burner, other.state == DiscState.PLANNED)
        .where(lease_held_by(session, other.node, other.epoch), earlier)
    )
    return not session.execute(select(waiting)).scalar_one()


def still_claimed(session: Session, disc_id: int, lease: Lease) -> bool:
    """Whether the claim on a disc holds; the row is locked until the end of the transaction."""
    statement = update(Disc).where(
        Disc.id == disc_id, Disc.node == lease.node, Disc.epoch == lease.epoch, holds(session, lease)
    )
    return rows_changed(session, statement.values(updated_at=now())) == 1


def move_disc(session: Session, disc: Disc, new: DiscState, *, lease: Lease | None = None, **values: Any) -> None:
    """Change the state of a disc as it was seen, under the lease that it was claimed with; its job must be locked.

    Raises ClaimLost when state or claim are not so any more. ``lease`` None: nobody has claimed it yet.
    """
    old = DiscState(disc.state)
    check_disc(old, new)
    values = {"progress": 0.0} | values | {"state": new, "updated_at": now()}
    statement = update(Disc).where(Disc.id == disc.id, Disc.state == old)
    if lease is not None:
        statement = statement.where(Disc.node == lease.node, Disc.epoch == lease.epoch, holds(session, lease))
    if rows_changed(session, statement.values(values)) != 1:
        raise ClaimLost(f"disc D{disc.id} is not {old} any more, or not ours")
    detail = {key: values[key] for key in ("error", "image", "verified_by") if values.get(key)}
    if lease is not None:
        detail |= {"node": lease.node, "epoch": lease.epoch}
    record(session, disc.job_id, disc.id, old, new, **detail)
    if new is DiscState.VERIFIED:
        copies.recount(session, disc.volume_id)
    session.refresh(disc)


def note_disc_progress(session: Session, disc_id: int, lease: Lease, progress: float) -> None:
    statement = update(Disc).where(Disc.id == disc_id, Disc.node == lease.node, Disc.epoch == lease.epoch)
    rows_changed(session, statement.values(progress=min(1.0, max(0.0, progress)), updated_at=now()))


def note_image_digest(session: Session, volume_id: int, sha256: str) -> str:
    """Keep the digest of a volume's first image; returns the one that is kept."""
    statement = update(Volume).where(Volume.id == volume_id, Volume.image_sha256.is_(None))
    rows_changed(session, statement.values(image_sha256=sha256))
    kept = session.execute(select(Volume.image_sha256).where(Volume.id == volume_id)).scalar_one()
    assert kept is not None
    return kept


def new_disc(
    job: Job,
    volume_id: int,
    copy: int,
    *,
    attempt: int,
    purpose: str = "archive",
    pool: str | None = None,
    shelf: str | None = None,
) -> Disc:
    """A PLANNED disc, not yet added to a session. ``shelf``: where it is to be put."""
    at = now()
    return Disc(
        job_id=job.id,
        volume_id=volume_id,
        copy=copy,
        attempt=attempt,
        state=DiscState.PLANNED,
        burner=job.burner,
        ticket=None,
        node=None,
        epoch=None,
        progress=0.0,
        image=None,
        sha256=None,
        location=None,
        verified_by=None,
        verified_at=None,
        checked_at=None,
        checked_result=None,
        checked_how=None,
        purpose=purpose,
        pool=pool,
        shelf=shelf,
        times_read=0,
        error=None,
        created_at=at,
        updated_at=at,
    )


def record(session: Session, job_id: int, disc_id: int | None, old: str | None, new: str | None, **detail: Any) -> None:
    kind = "job" if disc_id is None else "disc"
    session.add(Event(at=now(), kind=kind, job_id=job_id, disc_id=disc_id, old=old, new=new, detail=detail))
