"""Earlier studies in advance: when a patient's new study arrives, archived ones are recalled by rule.

What a rule did stands with its recalls, whose keys are made of rule and studies: nothing is recalled twice for the same
arrival, on however many nodes. The mark of a rule says from which instance on arrivals are of concern to it.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from config.sections import Prefetch
from jobs import recalls
from jobs.context import Context
from store.models import Instance, Series, Study
from store.models_archive import Recall
from store.models_base import now
from store.models_jobs import VolumeInstance
from store.models_nodes import Counter
from store.presence import is_here
from store.recalls import RecallError

_log = logging.getLogger("burnish.prefetch")
_EVERY_SECONDS = 5.0
_SETTLED = timedelta(minutes=10)
"""After so long no transaction is open any more that could still bring an instance with a lower id."""
_REMEMBERED = 20_000


@dataclass(frozen=True, slots=True)
class _New:
    """A study that has just got instances."""

    study_id: int
    patient: int
    study_date: str
    last: int
    """Its latest instance."""


class Prefetching:
    """The rules of the settings at work. ``tick`` is called by one thread."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._next = 0.0
        self._seen: dict[tuple[str, int], int] = {}
        """Arrivals that were looked at in this process: by rule and study the latest instance."""

    def tick(self) -> int:
        """Recall what the rules say; returns how many recalls were begun."""
        if not self._ctx.settings.prefetch or time.monotonic() < self._next:
            return 0
        self._next = time.monotonic() + _EVERY_SECONDS
        return sum(self._apply(rule) for rule in self._ctx.settings.prefetch)

    def _apply(self, rule: Prefetch) -> int:
        begun = 0
        for new in self._arrivals(rule):
            if self._seen.get((rule.name, new.study_id)) == new.last:
                continue
            with self._ctx.db.read() as session:
                wanted = _earlier(session, rule, new)
            for study_id, uid, ids in wanted:
                begun += self._recall(rule, new, study_id, uid, ids)
            if len(self._seen) > _REMEMBERED:
                self._seen.clear()
            self._seen[rule.name, new.study_id] = new.last
        return begun

    def _arrivals(self, rule: Prefetch) -> list[_New]:
        """Studies of concern that got instances since the mark; a new rule begins with what comes from now on."""
        name = _mark_name(rule)
        with self._ctx.db.read() as session:
            mark = session.scalar(select(Counter.value).where(Counter.name == name))
            if mark is not None:
                found = _new_studies(session, rule, mark)
                settled = session.scalar(
                    select(func.max(Instance.id)).where(Instance.id > mark, Instance.received_at < now() - _SETTLED)
                )
        if mark is None:
            self._set_mark(name, None)
            return []
        if settled is not None and all(new.last <= settled or (rule.name, new.study_id) in self._seen for new in found):
            self._set_mark(name, settled)
        return found

    def _set_mark(self, name: str, mark: int | None) -> None:
        try:
            with self._ctx.db.begin() as session:
                if mark is None:
                    mark = session.scalar(select(func.max(Instance.id))) or 0
                session.merge(Counter(name=name, value=mark))
        except IntegrityError:  # another node began with the rule at the same moment
            _log.debug("%s is there already", name)

    def _recall(self, rule: Prefetch, new: _New, study_id: int, uid: str, ids: Sequence[int]) -> int:
        key = f"prefetch:{rule.name}:{new.study_id}:{study_id}"
        with self._ctx.db.read() as session:
            if session.scalar(select(Recall.id).where(Recall.key == key)) is not None:
                return 0
        try:
            number = recalls.begin(
                self._ctx,
                ids,
                source=f"prefetch:{rule.name}",
                by=f"prefetch:{rule.name}",
                selection={"study": [uid]},
                destination=rule.to or None,
                key=key,
            )
        except (IntegrityError, RecallError):  # another node has just done so; it was deleted
            return 0
        _log.info("prefetch rule %s: recall C%d of %d instances", rule.name, number, len(ids))
        return 1


def _mark_name(rule: Prefetch) -> str:
    name = f"prefetch:{rule.name}"
    return name if len(name) <= 32 else f"prefetch:{hashlib.sha256(name.encode()).hexdigest()[:23]}"


def _new_studies(session: Session, rule: Prefetch, mark: int) -> list[_New]:
    query = (
        select(Study.id, Study.patient_id, Study.study_date, func.max(Instance.id))
        .join(Series, Series.study_id == Study.id)
        .join(Instance, Instance.series_id == Series.id)
        .where(Instance.id > mark, Instance.conflict_of.is_(None))
        .group_by(Study.id, Study.patient_id, Study.study_date)
        .order_by(Study.id)
    )
    if rule.calling_ae:
        query = query.where(Instance.calling_ae == rule.calling_ae)
    if rule.called_ae:
        query = query.where(Instance.called_ae == rule.called_ae)
    if rule.modalities:
        query = query.where(Series.modality.in_(rule.modalities))
    return [_New(*row) for row in session.execute(query)]


def _earlier(session: Session, rule: Prefetch, new: _New) -> list[tuple[int, str, list[int]]]:
    """``(Study, its UID, instances)`` of the patient's earlier studies that are wanted and are only on discs."""
    query = select(Study.id, Study.study_instance_uid, Study.study_date).where(
        Study.patient_id == new.patient,
        Study.id != new.study_id,
        Study.study_date <= (new.study_date or "99999999"),
        Study.study_date != "",
    )
    if rule.max_age_days:
        query = query.where(Study.study_date >= _days_before(new.study_date, rule.max_age_days))
    of_new = select(Series.modality, Series.body_part_examined).where(Series.study_id == new.study_id)
    series = list(session.execute(of_new))
    conditions = [
        (Series.modality, set(rule.earlier_modalities)),
        (Series.modality, {row[0] for row in series} if rule.same_modality else set()),
        (Series.body_part_examined, set(rule.body_parts)),
        (Series.body_part_examined, {row[1] for row in series} - {""} or {"\0"} if rule.same_body_part else set()),
    ]
    for column, values in conditions:
        if values:
            query = query.where(select(Series.id).where(Series.study_id == Study.id, column.in_(values)).exists())
    found = []
    for study_id, uid, _ in session.execute(
        query.order_by(Study.study_date.desc(), Study.id.desc()).limit(rule.studies)
    ):
        ids = list(
            session.scalars(
                select(Instance.id)
                .join(Series, Series.id == Instance.series_id)
                .where(Series.study_id == study_id, Instance.conflict_of.is_(None))
                .order_by(Instance.id)
            )
        )
        away = select(Instance.id).where(
            Instance.id.in_(select(Instance.id).join(Series).where(Series.study_id == study_id)),
            ~is_here(),
            select(VolumeInstance.volume_id).where(VolumeInstance.instance_id == Instance.id).exists(),
        )
        if session.scalar(away.limit(1)) is not None:
            found.append((study_id, uid, ids))
    return found


def _days_before(study_date: str, days: int) -> str:
    try:
        day = date.fromisoformat(study_date)
    except ValueError:
        day = now().date()
    return (day - timedelta(days=min(days, day.toordinal() - 1))).strftime("%Y%m%d")
