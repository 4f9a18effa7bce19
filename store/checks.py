"""Discs on which one counts, and what should be on them; what is found when one is read again is ``store.rereading``'s.

A disc that was found damaged keeps its state, which says how it was made, and is counted on no more: nothing is purged
because of it, and what only it holds is not on disc any more for those who look for that.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from store.hints import unindexed
from store.models import Derived, Instance, Patient, Series, Study
from store.models_jobs import Disc, Plan, Volume, VolumeInstance
from store.states import DiscState

GOOD = "GOOD"
WORN = "WORN"
"""All of it can be read, but worse than before: time for another copy."""
DAMAGED = "DAMAGED"
ARCHIVE = "archive"
BACKUP = "backup"
HANDOUT = "handout"
UNKNOWN = "unknown"
"""Nobody said what the disc is for: it was entered from itself and does not tell. What is on it is found and can be
recalled; whether the disc is kept here nobody knows, so nobody counts on it."""
PURPOSES = (ARCHIVE, BACKUP, HANDOUT)
"""That a person may say."""


def counts() -> ColumnElement[bool]:
    """True for a Disc that is counted on: of the archive, verified when it was made, and since then neither found
    damaged nor marked as lost or damaged by a person."""
    return and_(is_good(), Disc.purpose == ARCHIVE)


def is_place() -> ColumnElement[bool]:
    """True for a Disc where what it holds is found: one that counts, or would if it was known to be kept here."""
    return and_(is_good(), Disc.purpose.in_((ARCHIVE, UNKNOWN)))


def is_unconfirmed() -> ColumnElement[bool]:
    """True for a Disc that somebody is to say of what it is for."""
    return and_(Disc.state == DiscState.VERIFIED, Disc.purpose == UNKNOWN, Disc.marked.is_(None))


def is_good() -> ColumnElement[bool]:
    """True for a Disc that was verified when it was made, and since then neither found damaged nor marked."""
    sound = or_(Disc.checked_result.is_(None), Disc.checked_result != DAMAGED)
    # Nearly every disc is verified: they are to be found by volume.
    verified = unindexed(Disc.state) == DiscState.VERIFIED
    return and_(verified, Disc.marked.is_(None), sound)


def volume_document(session: Session, *, file_set_uid: str = "", file_set_id: str = "") -> dict[str, Any] | None:
    """What the catalogue knows of a medium: its digests, its discs, each file with patient, study and series.

    Looked for by File-set UID, or, where that cannot be read any more, by File-set ID. None: it knows no such one.
    """
    criterion = Volume.file_set_uid == file_set_uid if file_set_uid else Volume.file_set_id == file_set_id
    row = session.execute(select(Volume, Plan.profile).join(Plan, Plan.id == Volume.plan_id).where(criterion)).first()
    if row is None:
        return None
    volume, profile = row
    discs = session.scalars(
        select(Disc).where(Disc.volume_id == volume.id, Disc.state != DiscState.PLANNED).order_by(Disc.id)
    )
    return {
        "file_set_id": volume.file_set_id,
        "file_set_uid": volume.file_set_uid,
        "volume": volume.number,
        "of": volume.of,
        "profile": profile,
        "sectors": volume.sectors,
        "iso_sectors": volume.iso_sectors,
        "protection": volume.protection,
        "image_sha256": volume.image_sha256,
        "discs": [_disc(disc) for disc in discs],
        "instances": _instances(session, volume.id),
    }


def volume_of_disc(session: Session, disc_id: int) -> dict[str, Any]:
    """The same of the volume that a disc is a copy of; the disc must exist."""
    uid = session.execute(
        select(Volume.file_set_uid).join(Disc, Disc.volume_id == Volume.id).where(Disc.id == disc_id)
    ).scalar_one()
    found = volume_document(session, file_set_uid=uid)
    assert found is not None
    return found


def _disc(disc: Disc) -> dict[str, Any]:
    return {
        "disc": f"D{disc.id}",
        "copy": disc.copy,
        "attempt": disc.attempt,
        "state": disc.state,
        "location": disc.location,
        "sha256": disc.sha256,
        "verified_by": disc.verified_by,
        **check_of(disc),
    }


def check_of(disc: Disc) -> dict[str, Any]:
    """The last check of a disc, as documents tell it."""
    return {
        "checked_at": disc.checked_at.isoformat() if disc.checked_at else None,
        "checked_result": disc.checked_result,
        "checked_how": disc.checked_how,
    }


def _instances(session: Session, volume_id: int) -> list[dict[str, Any]]:
    """Every file of a volume in disc order."""
    columns = {
        "file": VolumeInstance.file_id,
        "sha256": VolumeInstance.sha256,
        "sop_instance_uid": func.coalesce(Derived.new_sop_instance_uid, Instance.sop_instance_uid),
        "instance_number": Instance.instance_number,
        "series_instance_uid": Series.series_instance_uid,
        "modality": Series.modality,
        "series_number": Series.series_number,
        "series_description": Series.series_description,
        "study_instance_uid": Study.study_instance_uid,
        "study_date": Study.study_date,
        "study_description": Study.study_description,
        "patient_id": Patient.patient_id,
        "patient_name": Patient.patient_name,
        "facts": Derived.facts,
    }
    rows = session.execute(
        select(*columns.values())
        .join(Instance, Instance.id == VolumeInstance.instance_id)
        .outerjoin(Derived, Derived.id == VolumeInstance.derived_id)
        .outerjoin(Series, Series.id == Instance.series_id)
        .outerjoin(Study, Study.id == Series.study_id)
        .outerjoin(Patient, Patient.id == Study.patient_id)
        .where(VolumeInstance.volume_id == volume_id)
        .order_by(VolumeInstance.position)
        .execution_options(yield_per=2000)
    )
    found = []
    for row in rows:
        values: dict[str, Any] = {
            name: "" if value is None else value for name, value in zip(columns, row, strict=True)
        }
        corrected = values.pop("facts") or {}
        found.append({name: corrected.get(name, value) for name, value in values.items()})
    return found
