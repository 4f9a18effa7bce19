"""Rows for tests that need a filled database but no files."""

from __future__ import annotations

import hashlib
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.models import Instance, Patient, Series, Study
from store.models_base import now
from store.models_jobs import Disc, Job, Plan, Request, Volume, VolumeInstance
from store.search import folded, further_groups


def _one(session: Session, table: type[Any], keys: dict[str, Any], values: dict[str, Any]) -> Any:
    row = session.scalars(select(table).filter_by(**keys)).first()
    if row is None:
        row = table(**keys, **values)
        session.add(row)
        session.flush()
    return row


def add_instance(
    session: Session,
    sop: str,
    *,
    patient_id: str = "P1",
    patient_name: str = "Doe^John",
    birth_date: str = "19700101",
    study: str = "1.2.1",
    series: str = "1.2.1.1",
    study_date: str = "20200101",
    accession: str = "A1",
    modality: str = "CT",
    calling_ae: str = "CT_SCU",
    called_ae: str = "BURNISH",
    in_spool: bool = True,
    **more: Any,
) -> Instance:
    """An Instance row with the rows above it; ``more`` overrides columns of the Instance."""
    identity = hashlib.sha256(f"{patient_id}|{patient_name}|{birth_date}".encode()).hexdigest()
    patient = _one(
        session,
        Patient,
        {"identity": identity},
        {
            "patient_id": patient_id,
            "issuer_of_patient_id": "",
            "patient_name": patient_name,
            "name_search": folded(patient_name),
            "name_search_2": further_groups(folded(patient_name))[0],
            "name_search_3": further_groups(folded(patient_name))[1],
            "patient_birth_date": birth_date,
            "patient_sex": "O",
        },
    )
    empty = dict.fromkeys(("study_time", "study_id", "study_description", "referring_physician_name"), "")
    study_row = _one(
        session,
        Study,
        {"study_instance_uid": study, "patient_id": patient.id},
        {"study_date": study_date, "accession_number": accession, "institution_name": "", **empty},
    )
    empty = dict.fromkeys(("series_description", "body_part_examined", "station_name", "manufacturer"), "")
    series_row = _one(
        session,
        Series,
        {"series_instance_uid": series, "study_id": study_row.id},
        {"modality": modality, "series_number": 1, **empty},
    )
    digest = hashlib.sha256(sop.encode()).hexdigest()
    values: dict[str, Any] = {
        "series_id": series_row.id,
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "sop_instance_uid": sop,
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "digest": digest,
        "dataset_bytes": 1000,
        "file_sha256": digest,
        "file_bytes": 1336,
        "spool_path": f"{digest[:2]}/{digest}.dcm" if in_spool else None,
        "photometric_interpretation": "MONOCHROME2",
        "has_pixel_data": True,
        "directory_keys": b"",
        "calling_ae": calling_ae,
        "called_ae": called_ae,
        "source": "127.0.0.1",
        "received_at": now(),
    }
    instance = Instance(**values | more)
    session.add(instance)
    session.flush()
    return instance


def add_disc(session: Session, instances: list[Instance], *, state: str = "VERIFIED", copy: int = 1) -> Disc:
    """A job of one volume that holds the instances, and a Disc of it in this state."""
    request = Request(created_at=now(), source="test", selection={}, options={})
    session.add(request)
    session.flush()
    plan = Plan(
        request_id=request.id, created_at=now(), profile="STD-GEN-CD", medium="CD-R-80", capacity_sectors=1, report={}
    )
    session.add(plan)
    session.flush()
    volume = Volume(
        plan_id=plan.id,
        number=1,
        of=1,
        file_set_id=f"TEST_{plan.id:07}",
        file_set_uid=f"1.2.3.{plan.id}",
        created_at=now(),
        sectors=1,
        capacity_sectors=1,
        readme=b"",
    )
    job = Job(
        request_id=request.id,
        plan_id=plan.id,
        state="DONE" if state == "VERIFIED" else "BURNING",
        priority=2,
        burner="iso",
        copies=1,
        attempt=1,
        cancel_requested=False,
        progress={},
        created_at=now(),
        updated_at=now(),
    )
    session.add_all([volume, job])
    session.flush()
    for position, instance in enumerate(instances, 1):
        session.add(
            VolumeInstance(
                volume_id=volume.id,
                position=position,
                instance_id=instance.id,
                file_id=f"DICOM/IM{position:06}",
                size=1,
                sha256="0" * 64,
                supplied=[],
            )
        )
    disc = Disc(
        job_id=job.id,
        volume_id=volume.id,
        copy=copy,
        attempt=1,
        state=state,
        burner="iso",
        progress=1.0,
        location="/discs/x.iso",
        verified_by="read-back" if state == "VERIFIED" else None,
        verified_at=now() if state == "VERIFIED" else None,
        created_at=now(),
        updated_at=now(),
    )
    session.add(disc)
    session.flush()
    return disc
