"""Tables of what was received: patients, studies, series, instances, and conformed copies of these.

What is true is in our tables and nowhere else; every schema change is an Alembic migration. Columns that are DICOM
attributes bear the attribute's keyword in snake case. States are text with the terms that users see. Times are UTC.
``store.models_jobs`` has what is asked for and made of it, ``models_nodes`` who takes part, ``models_archive`` what
happens over the years, ``models_users`` and ``models_audit`` who did it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, LargeBinary, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from store.models_base import Base, BigId


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
