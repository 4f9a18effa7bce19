"""Discs that are read again after years: what should be on them, and what was found.

A disc that was found damaged keeps its state, which says how it was made, and is counted on no more: nothing is purged
because of it, and what only it holds is not on disc any more for those who look for that.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select, update
from sqlalchemy.orm import Session

from store.guard import rows_changed
from store.models import (
    Derived,
    Disc,
    Event,
    Instance,
    Patient,
    Plan,
    Series,
    Study,
    Volume,
    VolumeInstance,
    now,
)
from store.states import DiscState

GOOD = "GOOD"
DAMAGED = "DAMAGED"


class NoSuchDisc(Exception):
    """There is no disc of this ID, or none that was ever burnt."""


def counts() -> ColumnElement[bool]:
    """True for a Disc that is counted on: verified when it was made, and not found damaged since."""
    sound = or_(Disc.checked_result.is_(None), Disc.checked_result != DAMAGED)
    return and_(Disc.state == DiscState.VERIFIED, sound)


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


def record_check(session: Session, disc_id: int, *, good: bool, how: str, detail: dict[str, Any]) -> dict[str, Any]:
    """Keep the result of reading a disc again, with an Event; returns what ``check_of`` tells. Raises NoSuchDisc."""
    disc = session.get(Disc, disc_id)
    if disc is None or DiscState(disc.state) is DiscState.PLANNED:
        raise NoSuchDisc(f"there is no disc D{disc_id}")
    before, result = disc.checked_result, GOOD if good else DAMAGED
    at = now()
    statement = update(Disc).where(Disc.id == disc_id)
    rows_changed(session, statement.values(checked_at=at, checked_result=result, checked_how=how[:255], updated_at=at))
    session.add(
        Event(
            at=at,
            kind="check",
            job_id=disc.job_id,
            disc_id=disc.id,
            old=before,
            new=result,
            detail=detail | {"how": how},
        )
    )
    session.refresh(disc)
    return {"disc": f"D{disc.id}", **check_of(disc)}
