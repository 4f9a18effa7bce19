"""Nodes on one database: leases by the database's own clock, fenced by epochs.

A node may change a disc only under a lease that holds. Whoever takes a dead node's work over raises that node's epoch
first, so everything that the dead one still tries (it may only have been stopped for a while) meets a guard that fails.
Epochs come from one counter: no two leases, of any nodes, ever have the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, func, literal, or_, select, type_coerce, update
from sqlalchemy.orm import Session, aliased

from store.db import next_numbers
from store.guard import rows_changed
from store.models_base import UtcDateTime, now
from store.models_nodes import Event, Node


@dataclass(frozen=True, slots=True)
class Lease:
    """A node's claim to be alive, in one life of it."""

    node: str
    epoch: int


def database_now(session: Session) -> ColumnElement[datetime]:
    """The database's clock as an SQL expression. SQLite has none of its own: it is a part of this process."""
    if session.get_bind().dialect.name == "sqlite":
        return literal(now(), UtcDateTime())
    return type_coerce(func.clock_timestamp(), UtcDateTime())


def acquire(session: Session, name: str, seconds: float) -> Lease:
    """Begin a new life of the node: whatever an earlier one still does is fenced from here on."""
    epoch = next_numbers(session, "epoch")
    until = _later(session, seconds)
    values = {"epoch": epoch, "lease_until": until, "owner": None, "started_at": now()}
    if rows_changed(session, update(Node).where(Node.name == name).values(values)) == 0:
        session.add(Node(name=name, epoch=epoch, lease_until=now(), owner=None, started_at=now()))
        session.flush()
        session.execute(update(Node).where(Node.name == name).values(lease_until=until))
    _event(session, name, "started", epoch)
    return Lease(name, epoch)


def renew(session: Session, lease: Lease, seconds: float) -> bool:
    """Hold the lease for ``seconds`` from now; False when it was taken over."""
    statement = update(Node).where(Node.name == lease.node, Node.epoch == lease.epoch)
    return rows_changed(session, statement.values(lease_until=_later(session, seconds))) == 1


def release(session: Session, lease: Lease) -> None:
    """End a lease in good order; others need not wait."""
    statement = update(Node).where(Node.name == lease.node, Node.epoch == lease.epoch)
    if rows_changed(session, statement.values(lease_until=database_now(session))):
        _event(session, lease.node, "stopped", lease.epoch)


def owner_of(session: Session, name: str) -> str | None:
    """Who took this node's work over; None while nobody did."""
    return session.execute(select(Node.owner).where(Node.name == name)).scalar_one_or_none()


def holds(session: Session, lease: Lease) -> ColumnElement[bool]:
    """SQL condition: this lease holds now."""
    node = aliased(Node)
    condition = and_(node.name == lease.node, node.epoch == lease.epoch)
    if session.get_bind().dialect.name != "sqlite":  # one process by its lock file: nobody can have taken over
        condition = and_(condition, node.lease_until > database_now(session))
    return exists().where(condition)


def lease_held_by(session: Session, name: Any, epoch: Any) -> ColumnElement[bool]:
    """SQL condition: the claim that columns ``name`` and ``epoch`` of a row stand for is that of a living node."""
    node = aliased(Node)
    return exists().where(and_(node.name == name, node.epoch == epoch, node.lease_until > database_now(session)))


def dead(session: Session, lease: Lease) -> list[tuple[str, int]]:
    """Other nodes whose lease ran out and whom no living node looks after: name and epoch."""
    owner = aliased(Node)
    looked_after = exists().where(owner.name == Node.owner, owner.lease_until > database_now(session))
    rows = session.execute(
        select(Node.name, Node.epoch).where(
            Node.name != lease.node,
            Node.lease_until <= database_now(session),
            or_(Node.owner.is_(None), ~looked_after),
        )
    )
    return [(name, epoch) for name, epoch in rows]


def take_over(session: Session, name: str, seen_epoch: int, lease: Lease) -> bool:
    """Become the one who looks after a dead node's work; False when it lives after all, or another was first."""
    epoch = next_numbers(session, "epoch")
    statement = update(Node).where(
        Node.name == name,
        Node.epoch == seen_epoch,
        Node.lease_until <= database_now(session),
        holds(session, lease),
    )
    taken = rows_changed(session, statement.values(epoch=epoch, owner=lease.node)) == 1
    if taken:
        _event(session, name, "taken over", epoch, by=lease.node)
    return taken


def _later(session: Session, seconds: float) -> ColumnElement[datetime]:
    if session.get_bind().dialect.name == "sqlite":
        return literal(now() + timedelta(seconds=seconds), UtcDateTime())
    return type_coerce(func.clock_timestamp() + timedelta(seconds=seconds), UtcDateTime())


def _event(session: Session, name: str, what: str, epoch: int, **detail: str) -> None:
    session.add(Event(at=now(), kind="node", new=what, detail={"node": name, "epoch": epoch, **detail}))
