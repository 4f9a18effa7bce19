"""Tables of the archive: pools, schedules, holds, checks of discs, recalls, what a watched place has brought.

``store.models`` has what is received, ``store.models_jobs`` what is asked for and made;
here is what happens to it over the years.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from store import models_jobs  # noqa: F401 - its tables are referred to
from store.models_base import Base, BigId


class Pool(Base):
    """Discs that are filled, kept and counted together."""

    __tablename__ = "pool"
    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    kind: Mapped[str] = mapped_column(String(8))
    """``archive``: its discs are entered in the catalogue as places; ``backup``: they are not."""
    options: Mapped[dict[str, Any]]
    """What its requests say: given values of ``jobs.options.RequestOptions``."""
    copies: Mapped[int]
    """Discs that are made of each volume."""
    required_copies: Mapped[int]
    """Discs of a volume that must count before what is on it may leave the spool."""
    min_fill: Mapped[float]
    """Percent of a medium from which on it is full enough to be burnt."""
    latest_days: Mapped[int | None]
    """An instance waits so many days at most; then what waits is burnt, however little. None: for ever."""
    keep_days: Mapped[int]
    """What is on the pool's discs stays in the spool for so many days after its receipt, if there is room."""
    shelves: Mapped[list[Any]]
    """Where each copy is to be put, as proposed to people: ``["A/3", "vault"]``."""
    quiet_minutes: Mapped[int] = mapped_column(default=10)
    """A study to which something was added since is left waiting: more of it may be on its way."""
    look_at: Mapped[int | None] = mapped_column(BigInteger)
    """Bytes in the spool from which on what waits may fill a medium, as the last look has shown; None: see there."""
    seen_instance: Mapped[int] = mapped_column(BigInteger, default=0)
    """Up to this Instance id late arrivals of the pool's studies were looked for."""
    created_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]
    """It takes nothing any more; its discs stay."""


class PoolInstance(Base):
    """An instance that a pool has taken, so that it is put on the pool's discs once."""

    __tablename__ = "pool_instance"
    __table_args__ = (
        Index("ix_pool_instance_request", "request_id"),
        Index("ix_pool_instance_instance", "instance_id"),
    )
    pool: Mapped[str] = mapped_column(ForeignKey("pool.name", ondelete="CASCADE"), primary_key=True)
    instance_id: Mapped[int] = mapped_column(ForeignKey("instance.id", ondelete="CASCADE"), primary_key=True)
    added_at: Mapped[datetime]
    schedule: Mapped[str | None] = mapped_column(String(32))
    """The schedule that brought it; None: a person did."""
    request_id: Mapped[int | None] = mapped_column(ForeignKey("request.id"))
    """None: it waits for a disc ..."""
    refused: Mapped[str | None] = mapped_column(Text)
    """... or the pool's discs cannot hold it, for this reason."""


class Schedule(Base):
    """What is done again and again. The table is the truth, the scheduler only a clock."""

    __tablename__ = "schedule"
    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    """``archive``, ``purge``, ``reverify``."""
    enabled: Mapped[bool]
    trigger: Mapped[dict[str, Any]]
    """``{"cron": "0 22 * * *"}`` or ``{"every_seconds": 3600}``."""
    timezone: Mapped[str] = mapped_column(String(64))
    """IANA name; cron and blackout windows are in it."""
    blackouts: Mapped[list[Any]]
    rules: Mapped[dict[str, Any]]
    """Which instances are meant."""
    options: Mapped[dict[str, Any]]
    """How, by kind."""
    pool: Mapped[str | None] = mapped_column(ForeignKey("pool.name"))
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    last_fire: Mapped[datetime | None]
    """The time that it was due, not when it ran."""


class ScheduleRun(Base):
    """A firing: one row, whoever of several nodes made it."""

    __tablename__ = "schedule_run"
    __table_args__ = (UniqueConstraint("schedule", "fire_at"),)
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    schedule: Mapped[str] = mapped_column(ForeignKey("schedule.name", ondelete="CASCADE"))
    fire_at: Mapped[datetime]
    node: Mapped[str | None] = mapped_column(String(64))
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """What came of it, for people: counts, jobs, ``error``."""


class Hold(Base):
    """A study that is to stay in the spool, by order of a person."""

    __tablename__ = "hold"
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    study_instance_uid: Mapped[str] = mapped_column(String(64), index=True)
    reason: Mapped[str] = mapped_column(Text)
    by: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]
    until: Mapped[datetime | None]
    released_at: Mapped[datetime | None]


class DiscCheck(Base):
    """A reading of a disc after it was made; the latest also stands with the Disc."""

    __tablename__ = "disc_check"
    __table_args__ = (Index("ix_disc_check_disc", "disc_id", "at"),)
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    disc_id: Mapped[int] = mapped_column(ForeignKey("disc.id", ondelete="CASCADE"))
    at: Mapped[datetime]
    result: Mapped[str] = mapped_column(String(16))
    """As ``Disc.checked_result``."""
    how: Mapped[str] = mapped_column(String(255))
    sectors: Mapped[int | None] = mapped_column(BigInteger)
    """That were read, of 2048 bytes ..."""
    unreadable: Mapped[int | None] = mapped_column(BigInteger)
    """... and that could not be."""
    seconds: Mapped[float | None]
    detail: Mapped[dict[str, Any]]


class Recall(Base):
    """Instances that are wanted back from discs, and where they go."""

    __tablename__ = "recall"
    __table_args__ = (Index("ix_recall_state", "state"), {"sqlite_autoincrement": True})
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    source: Mapped[str] = mapped_column(String(64))
    """``cli``, ``api``, ``c-move:AE``, ``c-get:AE``, ``prefetch:RULE``."""
    by: Mapped[str] = mapped_column(String(64))
    selection: Mapped[dict[str, Any]]
    destination: Mapped[str | None] = mapped_column(String(32))
    """A remote node that the instances are sent to; None: they are only brought back."""
    state: Mapped[str] = mapped_column(String(16))
    key: Mapped[str | None] = mapped_column(String(255), unique=True)
    """What makes a second request for the same the same recall."""
    progress: Mapped[dict[str, Any]]
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    deadline: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    node: Mapped[str | None] = mapped_column(String(64))
    """The node that sends for it now."""


class RecallInstance(Base):
    """One of a recall's instances, and what came of it."""

    __tablename__ = "recall_instance"
    __table_args__ = (Index("ix_recall_instance_instance", "instance_id", "state"),)
    recall_id: Mapped[int] = mapped_column(ForeignKey("recall.id", ondelete="CASCADE"), primary_key=True)
    instance_id: Mapped[int] = mapped_column(ForeignKey("instance.id", ondelete="CASCADE"), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    volume_id: Mapped[int | None] = mapped_column(ForeignKey("volume.id"))
    """Where it came from."""
    reason: Mapped[str | None] = mapped_column(Text)


class RecallVolume(Base):
    """A volume that a recall needs: which disc of it was asked for, and what came."""

    __tablename__ = "recall_volume"
    __table_args__ = (Index("ix_recall_volume_volume", "volume_id", "state"),)
    recall_id: Mapped[int] = mapped_column(ForeignKey("recall.id", ondelete="CASCADE"), primary_key=True)
    volume_id: Mapped[int] = mapped_column(ForeignKey("volume.id", ondelete="CASCADE"), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    disc_id: Mapped[int | None] = mapped_column(ForeignKey("disc.id"))
    """The copy that is wanted, or was read."""
    place: Mapped[str | None] = mapped_column(Text)
    """Drive or folder where it is wanted, or was found."""
    asked_at: Mapped[datetime | None]
    answer: Mapped[str | None] = mapped_column(Text)
    """What people or the disc said, in words."""


class WatchSeen(Base):
    """What a watched folder or drive has brought, so that it is dealt with once."""

    __tablename__ = "watch_seen"
    __table_args__ = (UniqueConstraint("watch", "identity"),)
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    watch: Mapped[str] = mapped_column(String(32))
    identity: Mapped[str] = mapped_column(String(255))
    """What tells this disc or file from others, e.g. name, size and time, or File-set UID."""
    path: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime]
    result: Mapped[dict[str, Any]]
