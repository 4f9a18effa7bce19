"""The archive catalogue: which studies there are, and which disc and volume hold which instance."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, String, func, literal_column, or_, select
from sqlalchemy.orm import Session, defer

from media.ecc import redundancy
from store.bulk import chunks
from store.checks import ARCHIVE, UNKNOWN, check_of
from store.matching import has_wildcard, patient_name_condition
from store.models import Derived, Instance, Patient, Series, Study
from store.models_jobs import Disc, Volume, VolumeInstance
from store.search import name_matches
from store.whole import is_made_of


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
    back = _back(session)
    for document in found:
        document["modalities"] = modalities.get(document["study_instance_uid"], [])
        document["back"] = back.get((document["study_instance_uid"], document["patient_id"]), 0)
    return found


def _back(session: Session) -> dict[tuple[str, str], int]:
    """By study and Patient ID: instances not in the spool, but back from a disc as they were changed for it."""
    rows = session.execute(
        select(Study.study_instance_uid, Patient.patient_id, func.count(func.distinct(Instance.id)))
        .join(Series, Series.study_id == Study.id)
        .join(Instance, Instance.series_id == Series.id)
        .join(Patient, Patient.id == Study.patient_id)
        .join(Derived, is_made_of())
        .where(Instance.spool_path.is_(None), Derived.restored_at.is_not(None), Derived.new_sop_instance_uid.is_(None))
        .group_by(Study.id, Patient.id, Study.study_instance_uid, Patient.patient_id)
    )
    return {(uid, patient_id): count for uid, patient_id, count in rows}


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
    """Discs of the archive that hold what is looked for (the ``burnish find --json`` document), with what matched.

    Discs of every state are told, so that nobody takes a failed one for good: ``state`` and ``verified_by`` say how
    much a disc can be relied upon, ``purpose`` whether it is one of which nobody said what it is for. Empty criteria
    do not narrow the search. What was corrected, or given a new UID, on its way to the disc is found by either value;
    ``instances`` are UIDs as on the disc, ``originals`` has, by these, the UIDs as received of those that got a new
    one.
    """
    facts = Facts(session)
    query = (
        select(Disc.id, Instance.sop_instance_uid, Derived.new_sop_instance_uid, VolumeInstance.position)
        .join(Volume, Volume.id == Disc.volume_id)
        .join(VolumeInstance, VolumeInstance.volume_id == Volume.id)
        .join(Instance, Instance.id == VolumeInstance.instance_id)
        .outerjoin(Derived, Derived.id == VolumeInstance.derived_id)
        .outerjoin(Series, Series.id == Instance.series_id)
        .outerjoin(Study, Study.id == Series.study_id)
        .outerjoin(Patient, Patient.id == Study.patient_id)
        .where(Disc.state != "PLANNED", Disc.purpose.in_((ARCHIVE, UNKNOWN)))
    )
    criteria: tuple[tuple[Any, Any, str], ...] = (
        (Instance.sop_instance_uid, Derived.new_sop_instance_uid, sop),
        (Series.series_instance_uid, None, series),
        (Study.study_instance_uid, None, study),
        (Study.accession_number, facts("accession_number"), accession),
        (Patient.patient_id, facts("patient_id"), patient_id),
        (Series.modality, facts("modality"), modality),
    )
    for column, on_disc, value in criteria:
        if value:
            query = query.where(column == value if on_disc is None else or_(column == value, on_disc == value))
    if patient_name:
        query = query.where(or_(name_matches(patient_name), name_matches(patient_name, facts("name_search"))))
    if date_range:
        query = query.where(or_(Study.study_date.between(*date_range), facts("study_date").between(*date_range)))
    rows: list[Any] = []
    for part in _narrowed(session, criteria[:-1], patient_name, facts):
        rows += session.execute(query if part is None else query.where(VolumeInstance.instance_id.in_(part)))
    found: dict[int, dict[str, Any]] = {}
    for disc, volume in _discs(session, {row[0] for row in rows}):
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
            "purpose": disc.purpose,
            "pool": disc.pool,
            "shelf": disc.shelf,
            "checked_out_to": disc.checked_out_to,
            "marked": disc.marked,
            **check_of(disc),
            "instances": [],
        }
    for disc_id, uid, new_uid, _ in sorted(rows, key=lambda row: (row[0], row[3])):
        found[disc_id]["instances"].append(new_uid or uid)
        if new_uid:
            found[disc_id].setdefault("originals", {})[new_uid] = uid
    return list(found.values())


def _discs(session: Session, ids: Collection[int]) -> list[Any]:
    """Discs with their volumes, in the order of File-set IDs and copies."""
    found: list[Any] = []
    ordered = sorted(ids)
    for chunk in chunks(ordered):
        found += session.execute(
            select(Disc, Volume)
            .join(Volume, Volume.id == Disc.volume_id)
            .where(Disc.id.in_(chunk))
            .options(defer(Volume.readme), defer(Volume.set_catalogue), defer(Volume.signature))
        )
    return sorted(found, key=lambda row: (row[1].file_set_id, row[0].copy, row[0].attempt, row[0].id))


class Facts:
    """Corrected attributes of what is on a disc, as SQL; NULL where they were not corrected.

    They are written without parameters, as the indexes of migration 0016 have them.
    """

    def __init__(self, session: Session) -> None:
        self._postgresql = session.get_bind().dialect.name == "postgresql"

    def __call__(self, name: str) -> ColumnElement[str]:
        if self._postgresql:
            return Derived.facts.op("->>", return_type=String())(literal_column(f"'{name}'"))
        return func.json_extract(Derived.facts, literal_column(f"'$.{name}'"), type_=String())


def _narrowed(
    session: Session, criteria: Sequence[tuple[Any, Any, str]], patient_name: str, facts: Facts
) -> Iterator[Sequence[int] | None]:
    """Instances (by id, a part at a time) outside of which nothing can match: by the first criterion, which is the
    narrowest, as received or as corrected; each of both has an index. None: all.
    """
    received = select(Instance.id)
    joined = received.join(Series, Series.id == Instance.series_id).join(Study, Study.id == Series.study_id)
    joined = joined.join(Patient, Patient.id == Study.patient_id)
    corrected = select(Instance.id).join(Derived, is_made_of())
    for column, on_disc, value in criteria:
        if value:
            of_instance = column is Instance.sop_instance_uid
            received = (received if of_instance else joined).where(column == value)
            conditions = [on_disc == value] if on_disc is not None else []
            if conditions and not of_instance:
                conditions.append(Derived.facts.is_not(None))  # as the index has it
            break
    else:
        by_index = _name_by_index(session, patient_name) if patient_name else None
        if by_index is None:
            yield None
            return
        received = joined.where(by_index, name_matches(patient_name))
        conditions = [name_matches(patient_name, facts("name_search")), Derived.facts.is_not(None)]
    ids = set(session.scalars(received))
    if conditions:
        ids.update(session.scalars(corrected.where(*conditions)))
    yield from chunks(sorted(ids))


def _name_by_index(session: Session, patient_name: str) -> ColumnElement[bool] | None:
    """A superset of the patients with this name, by indexes; None: all, or nobody knows."""
    pattern = patient_name.replace("=", " ")
    pattern = pattern if has_wildcard(pattern) else f"{pattern}*"
    return patient_name_condition(pattern, postgresql=session.get_bind().dialect.name == "postgresql")
