"""A study's series and images in the order in which people look at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, cast, func, select
from sqlalchemy.orm import Session

from store.checks import is_place
from store.models import Instance, Patient, Series, Study
from store.models_archive import RecallInstance
from store.models_jobs import Disc, Volume, VolumeInstance


@dataclass(frozen=True, slots=True)
class SeriesRow:
    """A series with what it has."""

    id: int
    series_instance_uid: str
    modality: str
    series_number: int | None
    series_description: str
    body_part_examined: str
    station_name: str
    instances: int
    images: int
    """Instances with pixel data ..."""
    images_here: int
    """... and those of them that are in the spool."""
    bytes: int


def series_of(session: Session, study_id: int) -> list[SeriesRow]:
    """By series number."""
    shown = select(Series.id).where(Series.study_id == study_id).scalar_subquery()
    image = Instance.has_pixel_data.is_(True)
    rows = session.execute(
        select(
            Series.id,
            Series.series_instance_uid,
            Series.modality,
            Series.series_number,
            Series.series_description,
            Series.body_part_examined,
            Series.station_name,
            func.count(Instance.id),
            func.count(Instance.id).filter(image),
            func.count(Instance.spool_path).filter(image),
            cast(func.coalesce(func.sum(Instance.file_bytes), 0), BigInteger),
        )
        .join(Instance, Instance.series_id == Series.id)
        .where(Series.id.in_(shown))
        .group_by(Series.id)
        .order_by(Series.series_number.is_(None), Series.series_number, Series.id)
    )
    return [SeriesRow(*row) for row in rows]


def images_of(session: Session, series_id: int) -> list[dict[str, Any]]:
    """The images of a series: ``id``, ``number``, ``frames``, and ``here`` where it is in the spool."""
    rows = session.execute(
        select(Instance.id, Instance.instance_number, Instance.number_of_frames, Instance.spool_path)
        .where(Instance.series_id == series_id, Instance.has_pixel_data.is_(True))
        .order_by(Instance.instance_number.is_(None), Instance.instance_number, Instance.id)
    )
    return [
        {"id": key, "number": number, "frames": max(1, frames or 1), "here": path is not None}
        for key, number, frames, path in rows
    ]


def picture_of_series(session: Session, series_id: int) -> str | None:
    """Spool path of the image in the middle of a series; None where none is in the spool."""
    paths = session.scalars(
        select(Instance.spool_path)
        .where(Instance.series_id == series_id, Instance.has_pixel_data.is_(True), Instance.spool_path.is_not(None))
        .order_by(Instance.instance_number.is_(None), Instance.instance_number, Instance.id)
    ).all()
    return paths[len(paths) // 2] if paths else None


def series_to_show(session: Session, study_id: int) -> int | None:
    """The series that stands for a study: the first one with images in the spool."""
    return session.execute(
        select(Series.id)
        .join(Instance, Instance.series_id == Series.id)
        .where(Series.study_id == study_id, Instance.has_pixel_data.is_(True), Instance.spool_path.is_not(None))
        .order_by(Series.series_number.is_(None), Series.series_number, Series.id)
        .limit(1)
    ).scalar_one_or_none()


def instance_ids(session: Session, study_id: int) -> list[int]:
    """Primary keys of all instances of a study."""
    query = select(Instance.id).join(Series, Series.id == Instance.series_id).where(Series.study_id == study_id)
    return list(session.scalars(query))


@dataclass(frozen=True, slots=True)
class OnDisc:
    """A disc that holds something of a study and can be read."""

    id: int
    file_set_id: str
    number: int
    of: int
    copy: int
    shelf: str | None
    location: str | None
    instances: int
    """Of the study."""
    purpose: str
    """As of a Disc: ``archive``, or ``unknown``."""


def discs_of(session: Session, study_id: int) -> list[OnDisc]:
    """The discs on which a study is."""
    held = (
        select(VolumeInstance.volume_id, func.count().label("instances"))
        .join(Instance, Instance.id == VolumeInstance.instance_id)
        .join(Series, Series.id == Instance.series_id)
        .where(Series.study_id == study_id)
        .group_by(VolumeInstance.volume_id)
        .subquery()
    )
    rows = session.execute(
        select(
            Disc.id,
            Volume.file_set_id,
            Volume.number,
            Volume.of,
            Disc.copy,
            Disc.shelf,
            Disc.location,
            held.c.instances,
            Disc.purpose,
        )
        .join(Volume, Volume.id == Disc.volume_id)
        .join(held, held.c.volume_id == Volume.id)
        .where(is_place())
        .order_by(Volume.file_set_id, Disc.copy)
        .limit(200)
    )
    return [OnDisc(*row) for row in rows]


def studies_on(session: Session, file_set_uid: str) -> list[dict[str, Any]]:
    """The studies that a volume holds something of, each with its key, patient, date and how much."""
    rows = session.execute(
        select(
            Study.id,
            Study.study_date,
            Study.study_description,
            Patient.patient_id,
            Patient.patient_name,
            func.count().label("instances"),
        )
        .join(Series, Series.study_id == Study.id)
        .join(Instance, Instance.series_id == Series.id)
        .join(VolumeInstance, VolumeInstance.instance_id == Instance.id)
        .join(Volume, Volume.id == VolumeInstance.volume_id)
        .join(Patient, Patient.id == Study.patient_id)
        .where(Volume.file_set_uid == file_set_uid)
        .group_by(Study.id, Patient.id)
        .order_by(Patient.patient_name, Study.study_date)
    )
    return [dict(row._mapping) for row in rows]


def studies_of_recalls(session: Session, recalls: Sequence[int], *, most: int) -> dict[int, list[dict[str, Any]]]:
    """Of each recall the studies that it brings back, ``most`` of them: key, patient and date."""
    pairs = (
        select(RecallInstance.recall_id, Series.study_id)
        .join(Instance, Instance.id == RecallInstance.instance_id)
        .join(Series, Series.id == Instance.series_id)
        .where(RecallInstance.recall_id.in_(recalls))
        .distinct()
        .subquery()
    )
    found: dict[int, list[dict[str, Any]]] = {}
    for row in session.execute(
        select(pairs.c.recall_id, Study.id, Study.study_date, Patient.patient_id, Patient.patient_name)
        .join(Study, Study.id == pairs.c.study_id)
        .join(Patient, Patient.id == Study.patient_id)
        .order_by(pairs.c.recall_id, Study.id)
    ):
        studies = found.setdefault(row.recall_id, [])
        if len(studies) < most:
            studies.append({key: value for key, value in row._mapping.items() if key != "recall_id"})
    return found


def study_of_instance(session: Session, instance_id: int) -> str:
    """The Study Instance UID of an instance; "" where there is no such instance."""
    wanted = select(Study.study_instance_uid).join(Series, Series.study_id == Study.id)
    wanted = wanted.join(Instance, Instance.series_id == Series.id).where(Instance.id == instance_id)
    return session.scalar(wanted) or ""


def study_of(session: Session, study_id: int) -> Study | None:
    """The row of a study."""
    return session.get(Study, study_id)
