"""Tables of what was asked for and is done about it: requests, plans, volumes, jobs, discs, slots of burners.

``id`` of a Request, Plan or Job is shown to people as ``R1``, ``P1``, ``J1``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, LargeBinary, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from store import models  # noqa: F401 - its tables are referred to
from store.models_base import Base, BigId


class Request(Base):
    """What somebody asked for, with a frozen list of instances (PS3.3 C.22.1)."""

    __tablename__ = "request"
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    created_at: Mapped[datetime]
    source: Mapped[str] = mapped_column(String(64))
    """``cli``, ``api``, ``rule:NAME``."""
    idempotency_key: Mapped[str | None] = mapped_column(String(255), unique=True)
    selection: Mapped[dict[str, Any]]
    options: Mapped[dict[str, Any]]
    """``jobs.options.RequestOptions`` as JSON."""
    pool: Mapped[str | None] = mapped_column(String(32), index=True)
    """The pool whose discs are made; see ``store.models_archive.Pool``."""


class RequestInstance(Base):
    __tablename__ = "request_instance"
    request_id: Mapped[int] = mapped_column(ForeignKey("request.id", ondelete="CASCADE"), primary_key=True)
    instance_id: Mapped[int] = mapped_column(ForeignKey("instance.id"), primary_key=True, index=True)


class Plan(Base):
    """How a Request becomes Volumes: a value that can be shown before any disc is spent, and burnt exactly so."""

    __tablename__ = "plan"
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    request_id: Mapped[int] = mapped_column(ForeignKey("request.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime]
    profile: Mapped[str] = mapped_column(String(64))
    medium: Mapped[str] = mapped_column(String(64))
    capacity_sectors: Mapped[int] = mapped_column(BigInteger)
    report: Mapped[dict[str, Any]]
    """``changes``, ``supplied``, ``refused``, ``notes``, ``lower_bound``: what a dry run tells besides the volumes."""


class Volume(Base):
    """One complete File-set of a plan, k of n: content, however many copies."""

    __tablename__ = "volume"
    __table_args__ = (
        UniqueConstraint("plan_id", "number"),
        # What is on too few copies is found without looking at the rest.
        Index(
            "ix_volume_short",
            "id",
            sqlite_where=text("good_copies < wanted_copies"),
            postgresql_where=text("good_copies < wanted_copies"),
        ),
        # No disc that we make has the File-set ID of another; those of others, or of a catalogue before, may.
        Index(
            "uq_volume_own_file_set_id",
            "file_set_id",
            unique=True,
            sqlite_where=text("origin = 'own'"),
            postgresql_where=text("origin = 'own'"),
        ),
    )
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    plan_id: Mapped[int] = mapped_column(ForeignKey("plan.id", ondelete="CASCADE"))
    number: Mapped[int]
    of: Mapped[int]
    file_set_id: Mapped[str] = mapped_column(String(16), index=True)
    file_set_uid: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime]
    """The creation date that stands on the disc."""
    sectors: Mapped[int] = mapped_column(BigInteger)
    capacity_sectors: Mapped[int] = mapped_column(BigInteger)
    readme: Mapped[bytes] = mapped_column(LargeBinary)
    """README.TXT, as it goes on the disc."""
    image_sha256: Mapped[str | None] = mapped_column(String(64))
    """Known when the image was first written; later images of this volume must be equal."""
    signing_key: Mapped[bytes | None] = mapped_column(LargeBinary)
    """The site's public key, PEM, as it lies on the disc; None: the manifest is not signed."""
    signature: Mapped[bytes | None] = mapped_column(LargeBinary)
    """Of MANIFEST.TXT; made with the plan, so that every copy is equal, whoever makes it."""
    protection: Mapped[str | None] = mapped_column(String(8))
    """Error-correction data behind the file system: ``rs02`` or ``rs03``; None: there is none. Then ``sectors`` counts
    it in ..."""
    protection_roots: Mapped[int | None]
    """... with so many of 255 bytes for correction ..."""
    iso_sectors: Mapped[int | None] = mapped_column(BigInteger)
    """... and the file system, without it, has so many sectors."""
    set_catalogue: Mapped[bytes | None] = mapped_column(LargeBinary)
    """The catalogue of its volume set, as it goes on the disc; None: there is none on it."""
    site: Mapped[str] = mapped_column(Text, default="")
    """Who made the disc: the institution of the settings at that time."""
    origin: Mapped[str] = mapped_column(String(8), default="own")
    """``own``; ``rebuilt``: entered from the disc again; ``foreign``: another maker's."""
    good_copies: Mapped[int] = mapped_column(default=0)
    """Discs of it that count (``store.checks.counts``); kept by ``store.copies`` ..."""
    wanted_copies: Mapped[int] = mapped_column(default=0)
    """... and how many there should be."""


class VolumeInstance(Base):
    """Which file of which volume holds which instance: the plan's list, and the catalogue's once a disc is verified."""

    __tablename__ = "volume_instance"
    volume_id: Mapped[int] = mapped_column(ForeignKey("volume.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """From 1, in the order of the files on the disc."""
    instance_id: Mapped[int] = mapped_column(ForeignKey("instance.id"), index=True)
    derived_id: Mapped[int | None] = mapped_column(ForeignKey("derived.id"))
    file_id: Mapped[str] = mapped_column(String(80))
    """Components joined by ``/``."""
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    supplied: Mapped[list[Any]]
    """``[[record type, tag, vr, value]]``: keys supplied in the directory records because the instance lacks them."""


class MediaCreation(Base):
    """A Media Creation Management SOP Instance (PS3.4 Annex S, PS3.3 C.22): what an SCU asked for over the network.

    How it stands is never kept here: it follows from the job's facts (``store.creations.result_of``). A cancelled one
    is no more for its SCU, the row stays as history.
    """

    __tablename__ = "media_creation"
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    sop_instance_uid: Mapped[str] = mapped_column(String(64), unique=True)
    calling_ae: Mapped[str] = mapped_column(String(16))
    source: Mapped[str] = mapped_column(String(255))
    """The peer's address."""
    created_at: Mapped[datetime]
    attributes: Mapped[dict[str, Any]]
    """By keyword of PS3.6, as asked for; sequences are in ``references``."""
    references: Mapped[list[Any]]
    """``[[SOP Class UID, SOP Instance UID, requested profile or ""]]``, in the order of the request."""
    initiated_at: Mapped[datetime | None]
    failure: Mapped[dict[str, Any] | None]
    """Why it could not even become a job: ``{"info", "failed": [[SOP Class UID, SOP Instance UID, reason]]}``."""
    request_id: Mapped[int | None] = mapped_column(ForeignKey("request.id"))
    job_id: Mapped[int | None] = mapped_column(ForeignKey("job.id"), index=True)
    cancelled_at: Mapped[datetime | None]


class Job(Base):
    """The work for one Request. Changed only through ``store.jobs`` by guarded UPDATE."""

    __tablename__ = "job"
    __table_args__ = (Index("ix_job_state", "state", "priority", "id"), {"sqlite_autoincrement": True})
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    request_id: Mapped[int] = mapped_column(ForeignKey("request.id"), index=True)
    plan_id: Mapped[int | None] = mapped_column(ForeignKey("plan.id"), unique=True)
    state: Mapped[str] = mapped_column(String(16))
    priority: Mapped[int]
    """1 high, 2 med, 3 low."""
    burner: Mapped[str] = mapped_column(String(32))
    copies: Mapped[int]
    attempt: Mapped[int]
    """Counts retries; part of the workflow's ID."""
    cancel_requested: Mapped[bool]
    progress: Mapped[dict[str, Any]]
    """``{"phase", "done", "total", "unit"}``, written now and then, for people."""
    reason: Mapped[str | None] = mapped_column(String(32))
    """Execution Status Info (PS3.3 C.22.2) or a code of ours, e.g. ``PLAN_STALE``."""
    error: Mapped[str | None] = mapped_column(Text)
    node: Mapped[str | None] = mapped_column(String(64))
    """The node whose engine runs the job's workflow now."""
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]


class Disc(Base):
    """One physical copy of a Volume. A failed Disc is final: a retry is a new row, a spoiled blank is a fact."""

    __tablename__ = "disc"
    __table_args__ = (
        UniqueConstraint("volume_id", "copy", "attempt"),
        Index("ix_disc_state", "state"),
        {"sqlite_autoincrement": True},
    )
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("job.id"), index=True)
    volume_id: Mapped[int] = mapped_column(ForeignKey("volume.id"))
    copy: Mapped[int]
    attempt: Mapped[int]
    state: Mapped[str] = mapped_column(String(16))
    burner: Mapped[str] = mapped_column(String(32))
    ticket: Mapped[dict[str, Any] | None]
    """The driver's durable handle, stored before anything is submitted."""
    node: Mapped[str | None] = mapped_column(String(64))
    """Who may submit or publish this disc ..."""
    epoch: Mapped[int | None] = mapped_column(BigInteger)
    """... in which lease; a node taken over fails this guard."""
    progress: Mapped[float]
    """0 to 1 within the present state."""
    image: Mapped[str | None] = mapped_column(Text)
    """Absolute path of the published image, where the burner makes one."""
    sha256: Mapped[str | None] = mapped_column(String(64))
    """Of the image, as read back."""
    location: Mapped[str | None] = mapped_column(Text)
    """Where the disc is now: a path, later a shelf."""
    verified_by: Mapped[str | None] = mapped_column(String(32))
    """``read-back``, or ``robot`` where only the robot vouches."""
    verified_at: Mapped[datetime | None]
    checked_at: Mapped[datetime | None]
    """When the disc was last read again (``burnish verify --record``) ..."""
    checked_result: Mapped[str | None] = mapped_column(String(16))
    """... ``GOOD``, or ``DAMAGED``: then nobody counts on it any more; see ``store.checks`` ..."""
    checked_how: Mapped[str | None] = mapped_column(String(255))
    """... and what was read, and by which program."""
    purpose: Mapped[str] = mapped_column(String(8), default="archive")
    """``archive``: the disc is a place where the catalogue finds its instances; ``backup``, ``handout``: it is none.
    ``unknown``: it is such a place, and nobody counts on it (``store.checks.UNKNOWN``)."""
    pool: Mapped[str | None] = mapped_column(String(32), index=True)
    shelf: Mapped[str | None] = mapped_column(String(255))
    """Where people keep the disc: room, shelf, slot; or a robot's bin."""
    checked_out_to: Mapped[str | None] = mapped_column(String(255))
    """Who has the disc now; None: it is in its place."""
    checked_out_at: Mapped[datetime | None]
    marked: Mapped[str | None] = mapped_column(String(16))
    """``LOST`` or ``DAMAGED``, as a person said: nobody counts on it any more."""
    marked_at: Mapped[datetime | None]
    marked_reason: Mapped[str | None] = mapped_column(Text)
    times_read: Mapped[int] = mapped_column(default=0)
    """How often it was read since it was made."""
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class BurnerSlot(Base):
    """A device of a burner. Claimed by guarded UPDATE, released only when the driver says that the device is free."""

    __tablename__ = "burner_slot"
    burner: Mapped[str] = mapped_column(String(32), primary_key=True)
    node: Mapped[str] = mapped_column(String(64), primary_key=True)
    """The node that hosts the device; ``*`` where every node can reach it."""
    slot: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    disc_id: Mapped[int | None] = mapped_column(ForeignKey("disc.id"), unique=True)
    claimed_at: Mapped[datetime | None]


class RuleStudy(Base):
    """A study that an auto-burn rule waits for or has burnt: which instances of it were already requested."""

    __tablename__ = "rule_study"
    rule: Mapped[str] = mapped_column(String(32), primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id", ondelete="CASCADE"), primary_key=True)
    last_instance_id: Mapped[int] = mapped_column(BigInteger)
    """Highest Instance id of the study that was part of a request by this rule."""
    request_id: Mapped[int | None] = mapped_column(ForeignKey("request.id"))
