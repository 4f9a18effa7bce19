"""SELECT: which instances somebody means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, exists, select
from sqlalchemy.orm import Session

from config.worded import Worded
from store.checks import counts
from store.models import Instance, Patient, Series, Study
from store.models_jobs import Disc, VolumeInstance
from store.whole import holds_all


class SelectionError(Exception):
    """A selection that cannot be understood; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What is asked for; several kinds of criteria are combined by AND, several values of one kind by OR."""

    study: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    sop: tuple[str, ...] = ()
    patient_id: tuple[str, ...] = ()
    accession: tuple[str, ...] = ()
    date_range: str = ""
    """Study dates, ``YYYYMMDD-YYYYMMDD`` inclusive, either end open, or one date."""
    modality: tuple[str, ...] = ()
    calling_ae: tuple[str, ...] = ()
    all: bool = False
    not_on_disc: bool = False
    """Only what no verified disc holds."""
    instance: tuple[int, ...] = ()
    """Our own numbers, as the answer to an import has them: where several instances have one UID, just those."""
    after_instance: int = 0
    """Only what was received after the instance with this ``id`` (used by rules, for late arrivals)."""

    @property
    def is_empty(self) -> bool:
        return self == Selection()

    @property
    def names_instances(self) -> bool:
        """Somebody named things; what of them is no longer in the spool must be refused, not left out."""
        return bool(self.study or self.series or self.sop or self.patient_id or self.accession or self.instance)

    def to_json(self) -> dict[str, Any]:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items() if value}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Selection:
        unknown = set(values) - set(cls.__slots__)
        if unknown:
            raise SelectionError(f"unknown criterion {', '.join(sorted(unknown))}")
        given: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return cls(**given)


def parse_date_range(text: str) -> tuple[str, str]:
    """First and last date of ``A-B``, ``A-``, ``-B`` or ``A``; raises ``SelectionError``."""
    match = re.fullmatch(r"(\d{8})?(-)?(\d{8})?", text)
    if not match or not (match[1] or match[3]) or (match[3] and not match[2]):
        raise SelectionError(
            Worded("no_range", "{given!r} is no date range: YYYYMMDD-YYYYMMDD, either end may be left open", given=text)
        )
    first = match[1] or ""
    last = match[3] or ("99999999" if match[2] else first)
    if first > last:
        raise SelectionError(Worded("range_order", "the date range {given!r} ends before it begins", given=text))
    return first, last


def on_verified_disc() -> ColumnElement[bool]:
    """True for an Instance that a verified disc holds in full which was not found damaged since."""
    return exists().where(
        VolumeInstance.instance_id == Instance.id,
        holds_all(),
        Disc.volume_id == VolumeInstance.volume_id,
        counts(),
    )


def _query(selection: Selection, *, anywhere: bool) -> Select[Any]:
    query = (
        select(Instance.id)
        .outerjoin(Series, Instance.series_id == Series.id)
        .outerjoin(Study, Series.study_id == Study.id)
        .outerjoin(Patient, Study.patient_id == Patient.id)
    )
    for column, values in (
        (Study.study_instance_uid, selection.study),
        (Series.series_instance_uid, selection.series),
        (Instance.sop_instance_uid, selection.sop),
        (Instance.id, selection.instance),
        (Patient.patient_id, selection.patient_id),
        (Study.accession_number, selection.accession),
        (Series.modality, selection.modality),
        (Instance.calling_ae, selection.calling_ae),
    ):
        if values:
            query = query.where(column.in_(values))
    if selection.date_range:
        first, last = parse_date_range(selection.date_range)
        query = query.where(Study.study_date >= first, Study.study_date <= last, Study.study_date != "")
    if selection.not_on_disc:
        query = query.where(~on_verified_disc())
    if selection.after_instance:
        query = query.where(Instance.id > selection.after_instance)
    if not selection.names_instances and not anywhere:
        query = query.where(Instance.spool_path.is_not(None))
    return query


def instance_ids(session: Session, selection: Selection, *, anywhere: bool = False) -> list[int]:
    """Primary keys of the instances that are meant, in order of receipt.

    Of what somebody names, instances that were purged are included (a plan refuses them by name); broad criteria
    (``all``, dates, modality ...) mean what is in the spool, or with ``anywhere`` all that is known. Raises
    ``SelectionError`` for an empty selection.
    """
    return list(session.scalars(selecting(selection, anywhere=anywhere).order_by(Instance.id)))


def selecting(selection: Selection, *, anywhere: bool = False) -> Select[Any]:
    """Selects the same. Raises ``SelectionError`` for an empty selection."""
    if selection.is_empty:
        raise SelectionError("nothing is selected; name a study, series, patient ... or say --all")
    return _query(selection, anywhere=anywhere)
