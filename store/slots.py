"""Device slots: one row each, claimed and released by guarded UPDATE. A queue is not a lock; this is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from store.guard import rows_changed
from store.models_base import now
from store.models_jobs import BurnerSlot, Disc
from store.nodes import Lease, lease_held_by
from store.states import DISC_FINAL

EVERY_NODE = "*"
"""Host of a device that every node can reach."""


def ensure(session: Session, burner: str, host: str, count: int) -> None:
    """Have ``count`` slots for a burner; a slot in use is never taken away. Raises IntegrityError when two begin."""
    known = set(
        session.execute(select(BurnerSlot.slot).where(BurnerSlot.burner == burner, BurnerSlot.node == host)).scalars()
    )
    for slot in range(1, count + 1):
        if slot not in known:
            session.add(BurnerSlot(burner=burner, node=host, slot=slot, disc_id=None, claimed_at=None))
    session.execute(
        delete(BurnerSlot).where(
            BurnerSlot.burner == burner, BurnerSlot.node == host, BurnerSlot.slot > count, BurnerSlot.disc_id.is_(None)
        )
    )


def claim(session: Session, burner: str, host: str, disc_id: int) -> int | None:
    """Take a free slot for a disc, or the one that it has already; None when all are in use."""
    mine = select(BurnerSlot.slot).where(BurnerSlot.disc_id == disc_id)
    held = session.execute(mine).scalar_one_or_none()
    if held is not None:
        return held
    free = select(BurnerSlot.slot).where(
        BurnerSlot.burner == burner, BurnerSlot.node == host, BurnerSlot.disc_id.is_(None)
    )
    for slot in session.execute(free.order_by(BurnerSlot.slot)).scalars().all():
        statement = update(BurnerSlot).where(
            BurnerSlot.burner == burner,
            BurnerSlot.node == host,
            BurnerSlot.slot == slot,
            BurnerSlot.disc_id.is_(None),
        )
        try:
            with session.begin_nested():
                if rows_changed(session, statement.values(disc_id=disc_id, claimed_at=now())):
                    return slot
        except IntegrityError:  # another of our own was given to this disc a moment before
            return session.execute(mine).scalar_one_or_none()
    return None


@dataclass(frozen=True, slots=True)
class Leftover:
    """A slot whose disc has ended without freeing it."""

    disc_id: int
    burner: str
    ticket: dict[str, Any] | None


def leftovers(session: Session, lease: Lease) -> list[Leftover]:
    """Slots of ended discs that this node, or one that is dead, made last."""
    rows = session.execute(
        select(Disc.id, Disc.burner, Disc.ticket)
        .join(BurnerSlot, BurnerSlot.disc_id == Disc.id)
        .where(Disc.state.in_(DISC_FINAL))
        .where(or_(Disc.node == lease.node, ~lease_held_by(session, Disc.node, Disc.epoch)))
    )
    return [Leftover(*row) for row in rows]


def release(session: Session, disc_id: int) -> bool:
    """Free the slot of a disc. Only when the driver said that the device is free. False: it held none."""
    statement = update(BurnerSlot).where(BurnerSlot.disc_id == disc_id)
    return rows_changed(session, statement.values(disc_id=None, claimed_at=None)) > 0
