"""Our tables. What is true is here and nowhere else; every schema change is an Alembic migration.

Columns that are DICOM attributes bear the attribute's keyword in snake case. States are text with the terms that users
see. Times are UTC. ``id`` of a Request, Plan or Job is shown to people as ``R1``, ``P1``, ``J1``.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

BigId = BigInteger().with_variant(Integer, "sqlite")


def _prefix_index(name: str, column: str) -> Index:
    """An index by which the beginning of a text is found, on PostgreSQL in every collation."""
    return Index(name, column, postgresql_ops={column: "text_pattern_ops"})


def _corrected_indexes(*names: str) -> list[Index]:
    """Indexes of corrected attributes; written as ``store.catalogue`` asks for them (SQLite: migration 0016)."""
    return [
        Index(
            f"ix_derived_fact_{name}", text(f"(facts ->> '{name}')"), postgresql_where=text("facts IS NOT NULL")
        ).ddl_if(dialect="postgresql")
        for name in names
    ]


class UtcDateTime(TypeDecorator[datetime]):
    """A time with zone in Python, UTC in the database (SQLite keeps no zone)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def now() -> datetime:
    return datetime.now(UTC)


class Base(DeclarativeBase):
    # Every constraint has a name, so that a later migration can find it.
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime, dict[str, Any]: JSON, list[Any]: JSON}  # noqa: RUF012


# --- What was received ------------------------------------------------------------------------------------------------


class Patient(Base):
    """One person as the instances name them.

    Instances belong to one Patient only if Patient ID, issuer, name and birth date agree (and the study, where there is
    no Patient ID): two people who share a number must never share a volume.
    """

    __tablename__ = "patient"
    __table_args__ = (
        _prefix_index("ix_patient_patient_id", "patient_id"),
        _prefix_index("ix_patient_name_search", "name_search"),
        _prefix_index("ix_patient_name_search_2", "name_search_2"),
        _prefix_index("ix_patient_name_search_3", "name_search_3"),
    )
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    identity: Mapped[str] = mapped_column(String(64), unique=True)
    """Digest of what makes this patient different from others; see ``store.instances.patient_identity``."""
    patient_id: Mapped[str] = mapped_column(String(255))
    issuer_of_patient_id: Mapped[str] = mapped_column(String(255))
    patient_name: Mapped[str] = mapped_column(Text)
    """Unicode, all component groups, joined by ``=``."""
    name_search: Mapped[str] = mapped_column(Text)
    """``patient_name`` folded for search (case, accents); see ``store.search.folded``."""
    name_search_2: Mapped[str | None] = mapped_column(Text)
    """The second component group of ``name_search``, where there is one ..."""
    name_search_3: Mapped[str | None] = mapped_column(Text)
    """... and the third."""
    patient_birth_date: Mapped[str] = mapped_column(String(64))
    patient_sex: Mapped[str] = mapped_column(String(64))


class Study(Base):
    __tablename__ = "study"
    __table_args__ = (
        UniqueConstraint("study_instance_uid", "patient_id"),
        _prefix_index("ix_study_accession_number", "accession_number"),
    )
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    patient_id: Mapped[int] = mapped_column(ForeignKey("patient.id"), index=True)
    study_instance_uid: Mapped[str] = mapped_column(String(64))
    study_date: Mapped[str] = mapped_column(String(64), index=True)
    study_time: Mapped[str] = mapped_column(String(64))
    study_id: Mapped[str] = mapped_column(String(255))
    study_description: Mapped[str] = mapped_column(Text)
    accession_number: Mapped[str] = mapped_column(String(255))
    referring_physician_name: Mapped[str] = mapped_column(Text)
    institution_name: Mapped[str] = mapped_column(Text)


class Series(Base):
    __tablename__ = "series"
    __table_args__ = (UniqueConstraint("series_instance_uid", "study_id"),)
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"), index=True)
    series_instance_uid: Mapped[str] = mapped_column(String(64))
    modality: Mapped[str] = mapped_column(String(64), index=True)
    series_number: Mapped[int | None] = mapped_column(BigInteger)
    series_description: Mapped[str] = mapped_column(Text)
    body_part_examined: Mapped[str] = mapped_column(String(255))
    station_name: Mapped[str] = mapped_column(String(255))
    manufacturer: Mapped[str] = mapped_column(Text)


class Instance(Base):
    """A SOP Instance as received. Its bytes are a PS3.10 file in the spool until it is purged; the row stays."""

    __tablename__ = "instance"
    __table_args__ = (
        UniqueConstraint("sop_instance_uid", "digest"),
        Index("ix_instance_received", "received_at"),
        Index("ix_instance_calling_ae", "calling_ae", "received_at"),
        # What is in the spool is found without looking at what was purged, what came first (by its name) at first.
        Index(
            "ix_instance_in_spool",
            "spool_path",
            sqlite_where=text("spool_path IS NOT NULL"),
            postgresql_where=text("spool_path IS NOT NULL"),
        ),
        {"sqlite_autoincrement": True},
    )
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    """Ascending in order of receipt."""
    series_id: Mapped[int | None] = mapped_column(ForeignKey("series.id"), index=True)
    """None for objects that belong to no patient (hanging protocols, palettes, implant templates)."""
    sop_class_uid: Mapped[str] = mapped_column(String(64))
    sop_instance_uid: Mapped[str] = mapped_column(String(64))
    transfer_syntax_uid: Mapped[str] = mapped_column(String(64))
    digest: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the data set as received, without file meta information, lower-case hex."""
    dataset_bytes: Mapped[int] = mapped_column(BigInteger)
    file_sha256: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the PS3.10 file in the spool."""
    file_bytes: Mapped[int] = mapped_column(BigInteger)
    spool_path: Mapped[str | None] = mapped_column(String(255))
    """Relative to the spool folder; None once purged."""
    conflict_of: Mapped[int | None] = mapped_column(ForeignKey("instance.id"), index=True)
    """The instance received first with this SOP Instance UID and truly different content."""
    instance_number: Mapped[int | None] = mapped_column(BigInteger)
    rows: Mapped[int | None] = mapped_column(Integer)
    columns: Mapped[int | None] = mapped_column(Integer)
    number_of_frames: Mapped[int | None] = mapped_column(Integer)
    photometric_interpretation: Mapped[str] = mapped_column(String(64))
    has_pixel_data: Mapped[bool]
    directory_keys: Mapped[bytes] = mapped_column(LargeBinary)
    """See ``media.items.Header.directory_keys``."""
    calling_ae: Mapped[str] = mapped_column(String(16))
    called_ae: Mapped[str] = mapped_column(String(16))
    source: Mapped[str] = mapped_column(String(255))
    """The peer's address, or ``import``."""
    received_at: Mapped[datetime]


class Derived(Base):
    """A conformed instance in the derived-file cache, keyed by what it was made of and how."""

    __tablename__ = "derived"
    __table_args__ = (
        UniqueConstraint("source_digest", "sop_instance_uid", "recipe"),
        # What there are files of is found without looking at what was purged.
        Index(
            "ix_derived_there",
            "id",
            sqlite_where=text("purged_at IS NULL OR restored_at IS NOT NULL"),
            postgresql_where=text("purged_at IS NULL OR restored_at IS NOT NULL"),
        ),
        *_corrected_indexes("patient_id", "accession_number"),
    )
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    source_digest: Mapped[str] = mapped_column(String(64))
    sop_instance_uid: Mapped[str] = mapped_column(String(64))
    recipe: Mapped[str] = mapped_column(String(64))
    path: Mapped[str] = mapped_column(String(255))
    """Relative to the derived folder."""
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    transfer_syntax_uid: Mapped[str] = mapped_column(String(64))
    changes: Mapped[list[Any]]
    """``[{"tag", "old", "new"}]``: what was changed in this instance."""
    new_sop_instance_uid: Mapped[str | None] = mapped_column(String(64), index=True)
    """None: it kept its own."""
    directory_keys: Mapped[bytes | None] = mapped_column(LargeBinary)
    """As they are after it was changed; None: as of the Instance."""
    facts: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """Attributes of ``media.items.Header`` that are others than the Instance's, by name; None: none is."""
    created_at: Mapped[datetime]
    restored_at: Mapped[datetime | None]
    """When its file came back from a disc, because the instance as received is not to be had; None: it is a cache."""
    purged_at: Mapped[datetime | None]
    """When its file was removed, until it is made again (or came back, ``restored_at``); the row stays for plans."""


# --- What was asked for -----------------------------------------------------------------------------------------------


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


# --- What is done about it --------------------------------------------------------------------------------------------


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
    """``archive``: the disc is a place where the catalogue finds its instances; ``backup``, ``handout``: it is none."""
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


class RuleStudy(Base):
    """A study that an auto-burn rule waits for or has burnt: which instances of it were already requested."""

    __tablename__ = "rule_study"
    rule: Mapped[str] = mapped_column(String(32), primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id", ondelete="CASCADE"), primary_key=True)
    last_instance_id: Mapped[int] = mapped_column(BigInteger)
    """Highest Instance id of the study that was part of a request by this rule."""
    request_id: Mapped[int | None] = mapped_column(ForeignKey("request.id"))
