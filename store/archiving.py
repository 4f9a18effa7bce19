"""Which instances an archive schedule means: rules for studies, which then go as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, exists, func, select, true
from sqlalchemy.orm import Session, aliased

from store.models import Instance, Series, Study
from store.models_jobs import Request, RequestInstance, Volume, VolumeInstance
from store.selection import SelectionError, parse_date_range
from store.whole import holds_all

_MOST_VALUES = 200
_MOST_DISCS = 99


@dataclass(frozen=True, slots=True)
class ArchiveRules:
    """Several kinds of rules are combined by AND, several values of one kind by OR; none at all: every study.

    A study is meant if something of it in the spool is as ``modality``, ``calling_ae``, ``called_ae`` and ``station``
    say; then all of it is, reports and presentation states with the images.
    """

    modality: tuple[str, ...] = ()
    calling_ae: tuple[str, ...] = ()
    called_ae: tuple[str, ...] = ()
    station: tuple[str, ...] = ()
    """Station Name (0008,1010)."""
    date_range: str = ""
    """Study dates, as ``store.selection.Selection.date_range``."""
    min_age_hours: float = 0
    """Nothing of the study came for so long ..."""
    max_age_days: float = 0
    """... but something did within so many days; 0: whenever that was."""
    not_on_discs: int = 0
    """Only instances that fewer than so many discs hold which are counted on; 0: whatever holds them."""

    def to_json(self) -> dict[str, Any]:
        found = {one.name: getattr(self, one.name) for one in fields(self)}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items() if value}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ArchiveRules:
        """Raises SelectionError naming the rule that makes no sense."""
        unknown = set(values) - {one.name for one in fields(cls)}
        if unknown:
            raise SelectionError(f"unknown rule {', '.join(sorted(map(str, unknown)))}")
        given: dict[str, Any] = {}
        for name, value in values.items():
            if name in ("modality", "calling_ae", "called_ae", "station"):
                given[name] = _texts(name, value)
            elif name == "date_range":
                if not isinstance(value, str):
                    raise SelectionError("date_range must be text")
                if value:
                    parse_date_range(value)
                given[name] = value
            else:
                given[name] = _number(name, value)
        made = cls(**given)
        if made.max_age_days and made.min_age_hours >= made.max_age_days * 24:
            raise SelectionError("min_age_hours leaves nothing that max_age_days allows")
        return made


def _texts(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or len(value) > _MOST_VALUES:
        raise SelectionError(f"{name} must be a list of at most {_MOST_VALUES} texts")
    if any(not isinstance(one, str) or not 0 < len(one) <= 64 or not one.isprintable() for one in value):
        raise SelectionError(f"{name}: each value must be text of 1 to 64 printable characters")
    return tuple(value)


def _number(name: str, value: Any) -> float:
    whole = name == "not_on_discs"
    most = _MOST_DISCS if whole else 100_000
    fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most
    if not fits or (whole and value != int(value)):
        raise SelectionError(f"{name} must be a {'whole ' if whole else ''}number from 0 to {most}")
    return int(value) if whole else value


def meant(rules: ArchiveRules, at: datetime, *, also: ColumnElement[bool] | None = None) -> Select[int]:
    """Selects the ids of the instances in the spool that the rules mean at a moment.

    ``also``: what else must be true of an Instance, beside the Series and Study that it belongs to.
    """
    query = (
        select(Instance.id)
        .join(Series, Series.id == Instance.series_id)
        .join(Study, Study.id == Series.study_id)
        .where(Instance.spool_path.is_not(None), true() if also is None else also)
    )
    one, of_it = aliased(Instance), aliased(Series)
    studies = select(of_it.study_id).join(one, one.series_id == of_it.id).where(one.spool_path.is_not(None))
    named = [
        column.in_(values)
        for column, values in (
            (of_it.modality, rules.modality),
            (one.calling_ae, rules.calling_ae),
            (one.called_ae, rules.called_ae),
            (of_it.station_name, rules.station),
        )
        if values
    ]
    if named:
        query = query.where(Series.study_id.in_(studies.where(*named)))
    if rules.date_range:
        first, last = parse_date_range(rules.date_range)
        query = query.where(Study.study_date >= first, Study.study_date <= last, Study.study_date != "")
    if rules.min_age_hours:
        query = query.where(Series.study_id.not_in(_added_after(at - timedelta(hours=rules.min_age_hours))))
    if rules.max_age_days:
        query = query.where(Series.study_id.in_(_added_after(at - timedelta(days=rules.max_age_days))))
    if rules.not_on_discs:
        query = query.where(_discs() < rules.not_on_discs)
    return query


def _added_after(moment: datetime) -> Select[int]:
    """Studies of which something came after a moment."""
    series = aliased(Series)
    instance = aliased(Instance)
    return (
        select(series.study_id)
        .join(instance, instance.series_id == series.id)
        .where(instance.received_at > moment)
        .distinct()
    )


def _discs() -> ColumnElement[int]:
    """How many discs that are counted on hold all of an Instance."""
    # Each volume once, though a disc of another maker may have an instance twice.
    on = select(VolumeInstance.volume_id).where(VolumeInstance.instance_id == Instance.id, holds_all())
    return (
        select(func.coalesce(func.sum(Volume.good_copies), 0))
        .where(Volume.id.in_(on.correlate(Instance)))
        .correlate(Instance)
        .scalar_subquery()
    )


def studies_of(session: Session, ids: Select[int]) -> dict[int, int | None]:
    """The Study of each Instance, by their ids."""
    rows = select(Instance.id, Series.study_id).outerjoin(Series, Series.id == Instance.series_id)
    return dict(session.execute(rows.where(Instance.id.in_(ids))).tuples().all())


def not_requested_by(source: str) -> ColumnElement[bool]:
    """True for an Instance that no request of this source has asked for yet."""
    return ~exists().where(
        RequestInstance.instance_id == Instance.id,
        Request.id == RequestInstance.request_id,
        Request.source == source,
    )


def without_conflicts(policy: str) -> ColumnElement[bool]:
    """True for an Instance that may be put on a disc under ``RequestOptions.conflicts``, whatever else is."""
    return Instance.conflict_of.is_(None) if policy == "first" else and_(true())
