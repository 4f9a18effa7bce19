"""Plans in SQL: how what was asked for becomes volumes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from media.items import Supplied
from store.bulk import chunks
from store.db import next_numbers
from store.models import Derived, Instance, Patient, Series, Study
from store.models_base import now
from store.models_jobs import Plan, Volume, VolumeInstance

FILE_SET_DIGITS = 7
"""Digits of the running number of a File-set ID, which has at most 16 characters."""
_CHUNK = 2000
"""Rows of one statement; SQLite allows 32,766 bound values."""


def patients_by_identity(session: Session, identities: Iterable[str]) -> dict[str, int]:
    """Primary keys of those people that we know, by ``Patient.identity``."""
    found: dict[str, int] = {}
    for chunk in chunks(sorted(set(identities)), _CHUNK):
        rows = session.execute(select(Patient.identity, Patient.id).where(Patient.identity.in_(chunk)))
        found.update(rows.tuples().all())
    return found


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file of a volume to be entered."""

    instance_id: int
    derived_id: int | None
    file_id: str
    size: int
    sha256: str
    supplied: tuple[Supplied, ...]


@dataclass(frozen=True, slots=True)
class NewVolume:
    """A volume of a plan to be entered."""

    number: int
    of: int
    file_set_id: str
    file_set_uid: str
    created_at: datetime
    sectors: int
    capacity_sectors: int
    readme: bytes
    files: Sequence[NewFile]
    signing_key: bytes | None = None
    """See ``Volume``."""
    signature: bytes | None = None
    protection: str | None = None
    protection_roots: int | None = None
    iso_sectors: int | None = None
    set_catalogue: bytes | None = None
    site: str = ""


def take_file_set_ids(session: Session, prefix: str, count: int) -> list[str]:
    """File-set IDs that no disc of this installation has had: a prefix and a running number of fixed length."""
    first = next_numbers(session, "file_set", count)
    return [f"{prefix}{number:0{FILE_SET_DIGITS}}" for number in range(first, first + count)]


def add_plan(
    session: Session,
    request_id: int,
    *,
    profile: str,
    medium: str,
    capacity_sectors: int,
    report: dict[str, Any],
    volumes: Iterable[NewVolume],
) -> int:
    """Enter a plan with all its volumes and files; returns its id."""
    plan = Plan(
        request_id=request_id,
        created_at=now(),
        profile=profile,
        medium=medium,
        capacity_sectors=capacity_sectors,
        report=report,
    )
    session.add(plan)
    session.flush()
    for volume in volumes:
        row = Volume(
            plan_id=plan.id,
            number=volume.number,
            of=volume.of,
            file_set_id=volume.file_set_id,
            file_set_uid=volume.file_set_uid,
            created_at=volume.created_at,
            sectors=volume.sectors,
            capacity_sectors=volume.capacity_sectors,
            readme=volume.readme,
            signing_key=volume.signing_key,
            signature=volume.signature,
            protection=volume.protection,
            protection_roots=volume.protection_roots,
            iso_sectors=volume.iso_sectors,
            set_catalogue=volume.set_catalogue,
            site=volume.site,
        )
        session.add(row)
        session.flush()
        for start, chunk in enumerate(chunks(volume.files, _CHUNK)):
            session.execute(
                insert(VolumeInstance),
                [
                    {
                        "volume_id": row.id,
                        "position": start * _CHUNK + offset,
                        "instance_id": file.instance_id,
                        "derived_id": file.derived_id,
                        "file_id": file.file_id,
                        "size": file.size,
                        "sha256": file.sha256,
                        "supplied": [[key.record_type, key.tag, key.vr, key.value] for key in file.supplied],
                    }
                    for offset, file in enumerate(chunk, 1)
                ],
            )
    return plan.id


def volume_contents(session: Session, plan_id: int) -> dict[int, dict[str, Any]]:
    """By Volume id: ``instances`` (how many), ``studies`` (UIDs) and ``patients`` (Patient IDs as in
    the directory), in disc order."""
    found: dict[int, dict[str, Any]] = {}
    on_disc = func.coalesce(Derived.facts["patient_id"].as_string(), Patient.patient_id)
    rows = session.execute(
        select(
            VolumeInstance.volume_id,
            Study.study_instance_uid,
            Patient.id,
            on_disc,
            func.count(),
            func.min(VolumeInstance.position),
        )
        .join(Volume, Volume.id == VolumeInstance.volume_id)
        .outerjoin(Derived, Derived.id == VolumeInstance.derived_id)
        .join(Instance, Instance.id == VolumeInstance.instance_id)
        .outerjoin(Series, Series.id == Instance.series_id)
        .outerjoin(Study, Study.id == Series.study_id)
        .outerjoin(Patient, Patient.id == Study.patient_id)
        .where(Volume.plan_id == plan_id)
        .group_by(VolumeInstance.volume_id, Study.study_instance_uid, Patient.id, on_disc)
        .order_by(VolumeInstance.volume_id, func.min(VolumeInstance.position))
    )
    for volume_id, study, key, patient_id, count, _ in rows:
        volume = found.setdefault(volume_id, {"instances": 0, "studies": [], "patients": []})
        volume["instances"] += count
        if study is not None and study not in volume["studies"]:
            volume["studies"].append(study)
        patient = patient_id or f"NOID_{key}"
        if key is not None and patient not in volume["patients"]:
            volume["patients"].append(patient)
    return found
