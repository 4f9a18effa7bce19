"""What is told of a match beside its attributes: counts, where its instances are, on which discs (PS3.4 C.4.1.1.3.2).

Asked for a page of matches at a time, a few statements each. An instance counts once: those in conflict with one
received before do not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Select, distinct, func, select
from sqlalchemy.orm import Session

from store.checks import is_place
from store.models import Derived, Instance, Series, Study
from store.models_jobs import Disc, Volume, VolumeInstance
from store.presence import has_restored, is_here
from store.query_keys import FILE_SET_ID, FILE_SET_UID, INSTANCE_AVAILABILITY, Level
from store.whole import names_its_patient

ONLINE, NEARLINE, OFFLINE, UNAVAILABLE = "ONLINE", "NEARLINE", "OFFLINE", "UNAVAILABLE"
"""Instance Availability (PS3.3 C.4.23.1.1), best first."""


@dataclass(slots=True)
class Fact:
    """Of one match."""

    availability: str = UNAVAILABLE
    """That of its worst instance."""
    file_set_id: str = ""
    file_set_uid: str = ""
    """The File-set on verified discs that holds all of its instances; of several, the latest."""
    computed: dict[str, int | tuple[str, ...]] = field(default_factory=dict)
    """By keyword."""

    @property
    def told(self) -> dict[int, str]:
        """What every match tells, by tag."""
        return {
            INSTANCE_AVAILABILITY: self.availability,
            FILE_SET_ID: self.file_set_id,
            FILE_SET_UID: self.file_set_uid,
        }


_COUNTS: Mapping[Level, tuple[str, str, str]] = {
    "PATIENT": (
        "NumberOfPatientRelatedStudies",
        "NumberOfPatientRelatedSeries",
        "NumberOfPatientRelatedInstances",
    ),
    "STUDY": ("", "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances"),
    "SERIES": ("", "", "NumberOfSeriesRelatedInstances"),
    "IMAGE": ("", "", ""),
}
_ENTITY: Mapping[Level, Any] = {
    "PATIENT": Study.patient_id,
    "STUDY": Series.study_id,
    "SERIES": Instance.series_id,
    "IMAGE": Instance.id,
}


def first_of_its_uid() -> ColumnElement[bool]:
    """Not in conflict with an instance received before. Never by the index: nearly all are so."""
    return func.coalesce(Instance.conflict_of, 0) == 0


def facts_of(session: Session, level: Level, rows: Sequence[Any], computed: Collection[str]) -> dict[int, Fact]:
    """Facts by ``row_id``; rows of IMAGE have a ``row_path``, all say whether there is ``any_disc``."""
    facts = {row.row_id: Fact() for row in rows}
    if not facts:
        return facts
    if level == "IMAGE":
        missing = {row.row_id: 0 if row.row_path is not None else 1 for row in rows}
        totals = dict.fromkeys(facts, 1)
    else:
        missing, totals = _count(session, level, facts)
    _subtract_restored(session, level, missing)
    for row_id, fact in facts.items():
        if totals.get(row_id, 0) and not missing.get(row_id, 1):
            fact.availability = ONLINE
    if "ModalitiesInStudy" in computed:
        _collect(session, facts, "ModalitiesInStudy", Series.modality)
    if "SOPClassesInStudy" in computed:
        _collect(session, facts, "SOPClassesInStudy", Instance.sop_class_uid)
    if rows[0].any_disc:
        _on_discs(session, level, facts, totals, missing)
    return facts


def _instances(level: Level, *columns: Any) -> Select[Any]:
    """Of the instances below some entities; those in conflict with another left out."""
    statement = select(_ENTITY[level].label("entity"), *columns).select_from(Instance)
    if level in ("PATIENT", "STUDY"):
        statement = statement.join(Series, Series.id == Instance.series_id)
    if level == "PATIENT":
        statement = statement.join(Study, Study.id == Series.study_id)
    return statement.where(first_of_its_uid())


def _count(session: Session, level: Level, facts: Mapping[int, Fact]) -> tuple[dict[int, int], dict[int, int]]:
    """How many instances are not in the spool, and how many there are."""
    columns: list[Any] = [func.count(Instance.id), func.count(Instance.spool_path)]
    if level in ("PATIENT", "STUDY"):
        columns.append(func.count(distinct(Series.id)))
    if level == "PATIENT":
        columns.append(func.count(distinct(Study.id)))
    missing, totals = dict.fromkeys(facts, 0), dict.fromkeys(facts, 0)
    studies, series, instances = _COUNTS[level]
    statement = _instances(level, *columns).where(_ENTITY[level].in_(list(facts))).group_by(_ENTITY[level])
    for entity, total, held, *above in session.execute(statement):
        totals[entity], missing[entity] = total, total - held
        computed = facts[entity].computed
        computed[instances] = total
        for keyword, number in zip((series, studies), above, strict=False):
            computed[keyword] = number
    return missing, totals


def _subtract_restored(session: Session, level: Level, missing: dict[int, int]) -> None:
    """What is not in the spool may be back from a disc as it was conformed for it."""
    entity, purged = _ENTITY[level], [row_id for row_id, count in missing.items() if count]
    if not purged:
        return
    statement = (
        _instances(level, func.count(Instance.id))
        .where(entity.in_(purged), Instance.spool_path.is_(None), has_restored())
        .group_by(entity)
    )
    for row_id, count in session.execute(statement):
        missing[row_id] -= count


def _collect(session: Session, facts: Mapping[int, Fact], keyword: str, column: Any) -> None:
    statement = select(Series.study_id, column).where(Series.study_id.in_(list(facts))).distinct().order_by(column)
    if column is Instance.sop_class_uid:
        statement = statement.join(Instance, Instance.series_id == Series.id)
    found: dict[int, list[str]] = {}
    for study, value in session.execute(statement):
        found.setdefault(study, []).append(value)
    for study, values in found.items():
        facts[study].computed[keyword] = tuple(values)


# --- Discs ------------------------------------------------------------------------------------------------------------


def on_disc(statement: Select[Any]) -> Select[Any]:
    """Instances joined with the files of volumes that are the instance itself, not one made of it under a new UID."""
    return (
        statement.join(VolumeInstance, VolumeInstance.instance_id == Instance.id)
        .outerjoin(Derived, Derived.id == VolumeInstance.derived_id)
        .where(Derived.new_sop_instance_uid.is_(None))
    )


def _on_discs(
    session: Session, level: Level, facts: dict[int, Fact], totals: Mapping[int, int], missing: Mapping[int, int]
) -> None:
    entity = _ENTITY[level]
    counted = (
        on_disc(_instances(level, VolumeInstance.volume_id, func.count(distinct(Instance.id))))
        .where(entity.in_(list(facts)))
        .group_by(entity, VolumeInstance.volume_id)
        .order_by(VolumeInstance.volume_id)
    )
    holds = list(session.execute(counted))
    volumes = verified_volumes(session, {volume for _, volume, _ in holds})
    for row_id, volume, count in holds:
        if volume in volumes and count == totals[row_id]:
            facts[row_id].file_set_id, facts[row_id].file_set_uid = volumes[volume].file_set_id, volumes[volume].uid
    purged = [row_id for row_id, count in missing.items() if count]
    if purged and volumes:
        _find_purged(session, level, facts, missing, volumes, purged)


def _find_purged(
    session: Session,
    level: Level,
    facts: dict[int, Fact],
    missing: Mapping[int, int],
    volumes: Mapping[int, VerifiedVolume],
    purged: Sequence[int],
) -> None:
    """Availability of what is no longer (all) in the spool."""
    entity = _ENTITY[level]
    statement = (
        on_disc(_instances(level, Instance.id, VolumeInstance.volume_id))
        .where(entity.in_(purged), ~is_here(), VolumeInstance.volume_id.in_(list(volumes)), names_its_patient())
        .order_by(entity, Instance.id)
        .execution_options(yield_per=1000)
    )
    for row_id, rows in groupby(session.execute(statement), key=lambda row: row[0]):
        found, nearline = 0, True
        for _, places in groupby(rows, key=lambda row: row[1]):
            found += 1
            nearline &= any(volumes[volume].image is not None for _, _, volume in places)
        if found == missing[row_id]:
            facts[row_id].availability = NEARLINE if nearline else OFFLINE


@dataclass(frozen=True, slots=True)
class VerifiedVolume:
    """A volume of which there are verified discs that are a place to find it."""

    file_set_id: str
    uid: str
    image: Path | None
    """An image file, or folder of its files, that can be read here and now."""


def verified_volumes(session: Session, ids: Collection[int]) -> dict[int, VerifiedVolume]:
    """Those of some volumes that are on verified discs, by id."""
    found: dict[int, VerifiedVolume] = {}
    statement = (
        select(Volume.id, Volume.file_set_id, Volume.file_set_uid, Disc.image)
        .join(Disc, Disc.volume_id == Volume.id)
        .where(Volume.id.in_(list(ids)), is_place())
        .order_by(Disc.id)
    )
    for volume, file_set_id, uid, image in session.execute(statement):
        known = found.get(volume)
        if known is not None and known.image is not None:
            continue
        path = Path(image) if image else None
        # Not a device: which disc lies in a drive now nobody knows.
        there = path is not None and (path.is_file() or path.is_dir())
        found[volume] = VerifiedVolume(file_set_id, uid, path if there else None)
    return found
