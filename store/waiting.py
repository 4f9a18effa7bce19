"""What waits in a pool for its discs: put there once, taken once, completed by what of its studies comes later."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, exists, func, insert, literal, or_, select, update
from sqlalchemy.orm import Session, aliased

from store.bulk import chunks
from store.guard import rows_changed
from store.models import Instance, Series
from store.models_archive import Pool, PoolInstance
from store.models_base import now
from store.pools import SETTLED

_CHUNK = 2000
_OPEN = timedelta(minutes=1)
"""What came so shortly before may have been in a transaction that nobody could see into yet."""
_ADVANCE = 500
"""The mark is moved on only when that spares looking at so many instances."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a pool has for its next discs."""

    instances: int
    studies: int
    file_bytes: int
    """As received."""
    oldest: datetime | None
    """When the one came that has waited longest."""


@dataclass(frozen=True, slots=True)
class WaitingStudy:
    """The part of a study that waits."""

    study_id: int | None
    """None: objects that belong to no study."""
    since: datetime
    instances: int
    file_bytes: int


def waits(name: str) -> ColumnElement[bool]:
    """True for a PoolInstance that waits for a disc of this pool."""
    return and_(PoolInstance.pool == name, PoolInstance.request_id.is_(None), PoolInstance.refused.is_(None))


def put(session: Session, pool: Pool, wanted: Select[Any], *, schedule: str | None = None) -> int:
    """Let the instances whose ids ``wanted`` selects wait for discs of a locked pool; returns how many it had not."""
    known = exists().where(PoolInstance.pool == pool.name, PoolInstance.instance_id == Instance.id)
    chosen = select(
        literal(pool.name),
        Instance.id,
        literal(now(), PoolInstance.added_at.type),
        literal(schedule, PoolInstance.schedule.type),
    ).where(Instance.id.in_(wanted), Instance.spool_path.is_not(None), ~known)
    columns = ["pool", "instance_id", "added_at", "schedule"]
    counted = {"preserve_rowcount": True}  # PostgreSQL's driver tells it only so
    result: Any = session.execute(insert(PoolInstance).from_select(columns, chosen), execution_options=counted)
    return int(result.rowcount)


def late_arrivals(session: Session, pool: Pool, also: ColumnElement[bool]) -> int:
    """Let what came of studies after a locked pool took something of them wait for a supplement; returns how many.

    What was there before and was not taken is not wanted. ``also``: what else must be true of an Instance.
    """
    last = session.scalar(select(func.max(Instance.id))) or 0
    if last <= pool.seen_instance:
        return 0
    known = exists().where(PoolInstance.pool == pool.name, PoolInstance.instance_id == Instance.id)
    new = session.execute(
        select(Instance.id, Series.study_id, Instance.received_at)
        .join(Series, Series.id == Instance.series_id)
        .where(Instance.id > pool.seen_instance, Instance.id <= last, Instance.spool_path.is_not(None))
        .where(_of_a_study_of(pool.name), ~known, also)
        .order_by(Instance.id)
    ).all()
    first = _first_taken(session, pool.name, {row.study_id for row in new})
    late = [row.id for row in new if row.received_at > first[row.study_id] - _OPEN]
    count = 0
    for chunk in chunks(late, _CHUNK):
        count += put(session, pool, select(Instance.id).where(Instance.id.in_(chunk)))
    settled = session.scalar(select(func.max(Instance.id)).where(Instance.received_at < now() - SETTLED)) or 0
    if settled - pool.seen_instance > _ADVANCE:
        pool.seen_instance = settled
    return count


def _of_a_study_of(name: str) -> ColumnElement[bool]:
    """True for an Instance, beside its Series, of a study of which a pool has something."""
    other, sibling = aliased(Instance), aliased(Series)
    return (
        exists()
        .where(sibling.study_id == Series.study_id, other.series_id == sibling.id)
        .where(PoolInstance.pool == name, PoolInstance.instance_id == other.id)
    )


def _first_taken(session: Session, name: str, study_ids: Collection[int]) -> dict[int, datetime]:
    """When a pool took the first instance of each study."""
    found: dict[int, datetime] = {}
    wanted = sorted(study_ids)
    for chunk in chunks(wanted, _CHUNK):
        rows = session.execute(
            select(Series.study_id, func.min(PoolInstance.added_at))
            .join(Instance, Instance.series_id == Series.id)
            .join(PoolInstance, PoolInstance.instance_id == Instance.id)
            .where(PoolInstance.pool == name, Series.study_id.in_(chunk))
            .group_by(Series.study_id)
        )
        found.update(rows.tuples().all())
    return found


def summary(session: Session, name: str) -> Waiting:
    """What waits in a pool."""
    count, studies, size, oldest = session.execute(
        select(
            func.count(),
            func.count(func.distinct(Series.study_id)),
            func.coalesce(func.sum(Instance.file_bytes), 0),
            func.min(PoolInstance.added_at),
        )
        .select_from(PoolInstance)
        .join(Instance, Instance.id == PoolInstance.instance_id)
        .outerjoin(Series, Series.id == Instance.series_id)
        .where(waits(name))
    ).one()
    return Waiting(count, studies, int(size), oldest)


def studies(session: Session, name: str, *, quiet_since: datetime | None = None) -> list[WaitingStudy]:
    """What waits in a pool, by study, the longest waiting first.

    ``quiet_since``: without studies of which something came after this moment.
    """
    query = (
        select(
            Series.study_id,
            func.min(PoolInstance.added_at).label("since"),
            func.count(),
            func.coalesce(func.sum(Instance.file_bytes), 0),
        )
        .select_from(PoolInstance)
        .join(Instance, Instance.id == PoolInstance.instance_id)
        .outerjoin(Series, Series.id == Instance.series_id)
        .where(waits(name))
        .group_by(Series.study_id)
        .order_by("since", Series.study_id)
    )
    if quiet_since is not None:
        later, series = aliased(Instance), aliased(Series)
        lively = (
            select(series.study_id).join(later, later.series_id == series.id).where(later.received_at > quiet_since)
        )
        query = query.where(or_(Series.study_id.is_(None), Series.study_id.not_in(lively)))
    return [WaitingStudy(study, since, count, int(size)) for study, since, count, size in session.execute(query)]


def lively(session: Session, quiet_since: datetime) -> set[int]:
    """Studies of which something came after this moment: more may be on its way."""
    query = (
        select(Series.study_id)
        .join(Instance, Instance.series_id == Series.id)
        .where(Instance.received_at > quiet_since, Series.study_id.is_not(None))
        .distinct()
    )
    return {study for study in session.scalars(query) if study is not None}


def instances_of(name: str, study_ids: Iterable[int | None]) -> Select[int]:
    """Selects the ids of what waits in a pool of these studies (at most some thousand)."""
    wanted = set(study_ids)
    of_study: ColumnElement[bool] = Series.study_id.in_([study for study in wanted if study is not None])
    if None in wanted:
        of_study = or_(of_study, Series.study_id.is_(None))
    return (
        select(PoolInstance.instance_id)
        .join(Instance, Instance.id == PoolInstance.instance_id)
        .outerjoin(Series, Series.id == Instance.series_id)
        .where(waits(name), of_study)
    )


def since(session: Session, ids: Select[int], name: str) -> dict[int, datetime]:
    """When instances came to a pool, by Instance id."""
    rows = session.execute(
        select(PoolInstance.instance_id, PoolInstance.added_at).where(
            PoolInstance.pool == name, PoolInstance.instance_id.in_(ids)
        )
    )
    return dict(rows.tuples().all())


def take(session: Session, name: str, ids: Sequence[int], request_id: int) -> bool:
    """Give waiting instances of a locked pool to a request: all of them, or False where one waits no more."""
    taken = 0
    for chunk in chunks(ids, _CHUNK):
        chosen = PoolInstance.instance_id.in_(chunk)
        taken += rows_changed(session, update(PoolInstance).where(waits(name), chosen).values(request_id=request_id))
    return taken == len(ids)


def refuse(session: Session, name: str, reasons: Mapping[int, str]) -> None:
    """Note why a pool's discs cannot hold instances; they wait no more."""
    for instance_id, reason in reasons.items():
        statement = update(PoolInstance).where(waits(name), PoolInstance.instance_id == instance_id)
        rows_changed(session, statement.values(refused=reason[:2000]))


def refused(session: Session, name: str, *, limit: int) -> tuple[int, list[dict[str, str]]]:
    """How many instances a pool's discs cannot hold, and some of them with the reason."""
    of_pool = (PoolInstance.pool == name, PoolInstance.refused.is_not(None))
    count = session.scalar(select(func.count()).select_from(PoolInstance).where(*of_pool)) or 0
    rows = session.execute(
        select(Instance.sop_instance_uid, PoolInstance.refused)
        .join(Instance, Instance.id == PoolInstance.instance_id)
        .where(*of_pool)
        .order_by(PoolInstance.instance_id)
        .limit(limit)
    )
    return count, [{"sop_instance_uid": uid, "reason": reason or ""} for uid, reason in rows]
