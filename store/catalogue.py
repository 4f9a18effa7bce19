"""The archive catalogue: which studies there are, and which disc and volume hold which instance."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from media.ecc import redundancy
from store.checks import check_of
from store.models import Derived, Disc, Instance, Patient, Series, Study, Volume, VolumeInstance
from store.search import name_matches


def studies(session: Session) -> list[dict[str, Any]]:
    """What was received, a study each (the ``burnish studies --json`` document), newest study first."""
    rows = session.execute(
        select(
            Study.study_instance_uid,
            Patient.patient_id,
            Patient.patient_name,
            Patient.patient_birth_date,
            Study.study_date,
            Study.accession_number,
            Study.study_description,
            func.count(func.distinct(Series.id)).label("series"),
            func.count(Instance.id).label("instances"),
            func.coalesce(func.sum(Instance.file_bytes), 0).label("bytes"),
            func.count(Instance.spool_path).label("in_spool"),
            func.count(Instance.conflict_of).label("conflicts"),
        )
        .join(Series, Series.study_id == Study.id)
        .join(Instance, Instance.series_id == Series.id)
        .join(Patient, Patient.id == Study.patient_id)
        .group_by(Study.id, Patient.id)
        .order_by(Study.study_date.desc(), Study.id)
    )
    found = []
    for row in rows:
        document = dict(row._mapping)
        document["bytes"] = int(document["bytes"])  # PostgreSQL sums into a Decimal
        found.append(document)
    modalities: dict[str, list[str]] = {}
    for uid, modality in session.execute(
        select(Study.study_instance_uid, Series.modality).join(Series).distinct().order_by(Series.modality)
    ):
        modalities.setdefault(uid, []).append(modality)
    for document in found:
        document["modalities"] = modalities.get(document["study_instance_uid"], [])
    return found


def find(
    session: Session,
    *,
    patient_id: str = "",
    patient_name: str = "",
    study: str = "",
    accession: str = "",
    series: str = "",
    sop: str = "",
    modality: str = "",
    date_range: tuple[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Discs that hold what is looked for (the ``burnish find --json`` document), with the instances that matched.

    Discs of every state are told, so that nobody takes a failed one for good: ``state`` and ``verified_by`` say how
    much a disc can be relied upon. Empty criteria do not narrow the search. What was corrected, or given a new UID, on
    its way to the disc is found by either value; ``instances`` are UIDs as on the disc, ``originals`` has, by these,
    the UIDs as received of those that got a new one.
    """
    query = (
        select(Disc, Volume, Instance.sop_instance_uid, Derived.new_sop_instance_uid)
        .join(Volume, Volume.id == Disc.volume_id)
        .join(VolumeInstance, VolumeInstance.volume_id == Volume.id)
        .join(Instance, Instance.id == VolumeInstance.instance_id)
        .outerjoin(Derived, Derived.id == VolumeInstance.derived_id)
        .outerjoin(Series, Series.id == Instance.series_id)
        .outerjoin(Study, Study.id == Series.study_id)
        .outerjoin(Patient, Patient.id == Study.patient_id)
        .where(Disc.state != "PLANNED")
        .order_by(Volume.file_set_id, Disc.copy, Disc.attempt, VolumeInstance.position)
    )
    for column, on_disc, value in (
        (Patient.patient_id, _fact("patient_id"), patient_id),
        (Study.study_instance_uid, None, study),
        (Study.accession_number, _fact("accession_number"), accession),
        (Series.series_instance_uid, None, series),
        (Instance.sop_instance_uid, Derived.new_sop_instance_uid, sop),
        (Series.modality, _fact("modality"), modality),
    ):
        if value:
            query = query.where(column == value if on_disc is None else or_(column == value, on_disc == value))
    if patient_name:
        query = query.where(or_(name_matches(patient_name), name_matches(patient_name, _fact("name_search"))))
    if date_range:
        query = query.where(or_(Study.study_date.between(*date_range), _fact("study_date").between(*date_range)))
    found: dict[int, dict[str, Any]] = {}
    for disc, volume, uid, new_uid in session.execute(query):
        if disc.id not in found:
            found[disc.id] = {
                "volume": volume.number,
                "of": volume.of,
                "copy": disc.copy,
                "file_set_id": volume.file_set_id,
                "file_set_uid": volume.file_set_uid,
                "state": disc.state,
                "verified_by": disc.verified_by,
                "verified_at": disc.verified_at.isoformat() if disc.verified_at else None,
                "location": disc.location,
                "sha256": disc.sha256,
                "job": f"J{disc.job_id}",
                "disc": f"D{disc.id}",
                "protection": volume.protection,
                "redundancy": round(redundancy(volume.protection_roots), 1) if volume.protection_roots else None,
                **check_of(disc),
                "instances": [],
            }
        found[disc.id]["instances"].append(new_uid or uid)
        if new_uid:
            found[disc.id].setdefault("originals", {})[new_uid] = uid
    return list(found.values())


def _fact(name: str) -> ColumnElement[str]:
    """A corrected attribute of what is on a disc; NULL where it was not corrected."""
    fact: ColumnElement[str] = Derived.facts[name].as_string()
    return fact
