"""Tables of who takes part and of what happened: nodes of this service, other application entities, events."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from store.models_base import Base, BigId


class Node(Base):
    """A service process on this database, with a lease by the database's own clock."""

    __tablename__ = "node"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    epoch: Mapped[int] = mapped_column(BigInteger)
    """Raised at each start and by whoever takes the lease over."""
    lease_until: Mapped[datetime]
    owner: Mapped[str | None] = mapped_column(String(64))
    """Name of the node that looks after this one's work after its death; None while it lives."""
    started_at: Mapped[datetime]


class RemoteNode(Base):
    """An application entity of others that we may open associations to; what a C-MOVE may send to is here."""

    __tablename__ = "remote_node"
    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    """As commands name it."""
    ae_title: Mapped[str] = mapped_column(String(16), index=True)
    host: Mapped[str] = mapped_column(String(255))
    port: Mapped[int]
    retrieve: Mapped[str] = mapped_column(String(4), default="move")
    """How instances are fetched from it: ``move`` or ``get``."""
    tls: Mapped[bool] = mapped_column(default=False)
    """Associations with it, whoever opens them, are over TLS."""
    created_at: Mapped[datetime]
    contact_at: Mapped[datetime | None]
    """When we last asked something of it ..."""
    contact_ok: Mapped[bool | None]
    """... whether it answered ..."""
    contact_words: Mapped[str | None] = mapped_column(Text)
    """... and what came of it, in words."""


class Commitment(Base):
    """A Storage Commitment transaction (PS3.4 Annex J)."""

    __tablename__ = "commitment"
    __table_args__ = (UniqueConstraint("role", "ae_title", "transaction_uid"), {"sqlite_autoincrement": True})
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    role: Mapped[str] = mapped_column(String(3))
    """``scp``: asked of us; ``scu``: asked by us."""
    transaction_uid: Mapped[str] = mapped_column(String(64))
    ae_title: Mapped[str] = mapped_column(String(16))
    """Of the other side."""
    source: Mapped[str] = mapped_column(String(255))
    """The other side's address, as it asked us."""
    created_at: Mapped[datetime]
    references: Mapped[list[Any]]
    """``[[SOP Class UID, SOP Instance UID]]``."""
    result: Mapped[dict[str, Any] | None]
    """``{"committed": [[SOP Class UID, SOP Instance UID, File-set ID, File-set UID]], "failed": [[..., reason]]}``."""
    settled_at: Mapped[datetime | None]
    """When the result was fixed."""
    reported_at: Mapped[datetime | None]
    """When the other side had acknowledged it."""
    attempts: Mapped[int]
    next_at: Mapped[datetime | None] = mapped_column(index=True)
    """When there is something to do about it again; None: nothing any more."""
    error: Mapped[str | None] = mapped_column(Text)
    """Why it could not be reported, in words."""


class Event(Base):
    """What happened to what, when, by whom: written in the transaction that made it so, never changed."""

    __tablename__ = "event"
    __table_args__ = (
        Index(
            "ix_event_not_audited",
            "id",
            sqlite_where=text("NOT audited"),
            postgresql_where=text("NOT audited"),
        ),
    )
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    kind: Mapped[str] = mapped_column(String(32))
    """``received``, ``job``, ``disc``, ``conflict``, ``purge``, ``delete``, ``node``, ``rule`` ..."""
    job_id: Mapped[int | None] = mapped_column(BigInteger, index=True)
    disc_id: Mapped[int | None] = mapped_column(BigInteger, index=True)
    instance_id: Mapped[int | None] = mapped_column(BigInteger, index=True)
    old: Mapped[str | None] = mapped_column(String(64))
    new: Mapped[str | None] = mapped_column(String(64))
    detail: Mapped[dict[str, Any]]
    audited: Mapped[bool] = mapped_column(default=False)
    """Whether the audit trail has what it wants of it (``store.auditevents``)."""


class Counter(Base):
    """Running numbers, e.g. of File-set IDs; never given back."""

    __tablename__ = "counter"
    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger)
