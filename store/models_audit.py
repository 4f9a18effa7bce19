"""Tables of the audit trail and of what is told to people and programs."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from store.models_base import Base, BigId


class AuditRecord(Base):
    """An audit message (PS3.15 A.5) in a chain: each row's digest covers the row before it. Never changed or removed;
    the database refuses that.
    """

    __tablename__ = "audit_record"
    __table_args__ = (
        Index(
            "ix_audit_record_unsent",
            "number",
            sqlite_where=text("sent_at IS NULL"),
            postgresql_where=text("sent_at IS NULL"),
        ),
    )
    number: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    """Its place in the chain, from 1, without gaps."""
    at: Mapped[datetime] = mapped_column(index=True)
    event: Mapped[str] = mapped_column(String(16))
    """A key of ``[events]`` in config/audit.toml."""
    outcome: Mapped[int]
    user: Mapped[str] = mapped_column(String(255))
    """Who asked for it."""
    node: Mapped[str] = mapped_column(String(64))
    message: Mapped[str] = mapped_column(Text)
    """XML."""
    previous: Mapped[str] = mapped_column(String(64))
    """Digest of the row before; of the first row 64 zeros."""
    digest: Mapped[str] = mapped_column(String(64))
    """SHA-256, lower-case hex; see ``store.audit.digest_of``."""
    sent_at: Mapped[datetime | None]
    """When it was handed to the syslog receiver."""


class Notice(Base):
    """Something that is to be told to a target of the settings: a webhook, or people by e-mail."""

    __tablename__ = "notice"
    __table_args__ = (UniqueConstraint("target", "event_id"),)
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    target: Mapped[str] = mapped_column(String(32))
    event_id: Mapped[int] = mapped_column(ForeignKey("event.id", ondelete="CASCADE"))
    what: Mapped[str] = mapped_column(String(16))
    """``done``, ``failed``, ``needs-person`` ..."""
    attempts: Mapped[int]
    next_at: Mapped[datetime | None] = mapped_column(index=True)
    """When it is tried again; None: told, or given up."""
    told_at: Mapped[datetime | None]
    error: Mapped[str | None] = mapped_column(Text)
