"""Running fill: what waits in a pool is put on discs once it fills one, or once it has waited long enough.

Whether it does is found out by preparing it and packing it by real sizes, as a plan would; what was conformed for that
is in the derived cache afterwards, so that the job's own plan costs little. Until then nothing is entered: a crash
leaves everything waiting. Each set of volumes then gets its request and job in one transaction with the instances that
it takes, so nothing is on the pool's discs twice, whoever looks at the same time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from jobs.conform_pool import Cancelled
from jobs.conforming import Progress
from jobs.context import Context
from jobs.layout import lay_out
from jobs.options import OptionsError, RequestOptions
from jobs.pools import SECTOR, capacity_bytes, options_of
from jobs.preparing import PlanRefused, Prepared, prepare
from jobs.triggers import TriggerError, blackouts_of, free_from, zone
from media.filling import fill_media
from media.problems import MediaError
from media.sizing import Piece
from media.volumes import VolumePlan
from store import jobs, pools, requested, schedules, waiting
from store.archiving import without_conflicts
from store.models_archive import Pool
from store.models_base import now
from store.models_nodes import Event
from store.waiting import WaitingStudy

_log = logging.getLogger("burnish.pools")

MEDIA_AT_ONCE = 3
"""What waits is looked at in parts of so many media, beside its largest study: memory has an end."""
_MOST_MEDIA = 24
"""Where so many give no full set, because studies that each need several media hang together, the largest is taken."""
_FIRST_LOOK = 0.5
"""Of what fills a medium as received, so much makes the first look at a pool worthwhile: it shows how sizes change."""
_LOOK_AGAIN = 0.01
"""Part of a medium that must have come before a pool that was not full is looked at again."""


@dataclass(frozen=True, slots=True)
class Window:
    """The longest waiting studies of a pool, as many as are packed in one go."""

    studies: list[WaitingStudy]
    rest: bool
    """There are more."""

    @property
    def file_bytes(self) -> int:
        return sum(study.file_bytes for study in self.studies)


@dataclass(frozen=True, slots=True)
class VolumeSet:
    """Volumes that belong together because a study is on several of them; mostly one volume."""

    volumes: tuple[VolumePlan, ...]
    instances: tuple[int, ...]
    study_uids: tuple[str, ...]
    fill: float
    """0 to 1, the mean."""
    sectors: int
    due: bool
    """Something on them has waited as long as it may."""


@dataclass
class Filler:
    """Looks after every pool, again and again."""

    ctx: Context
    submit: Callable[[int], None] = lambda _job: None
    cancelled: Callable[[], bool] = lambda: False
    _problems: dict[str, str] = field(default_factory=dict)

    def tick(self) -> int:
        """Late arrivals, media that are full, what has waited long enough; returns the number of jobs made.

        To be called every some seconds, by one thread; takes long while instances are conformed.
        """
        made = 0
        with self.ctx.db.read() as session:
            names = [pool.name for pool in pools.every(session)]
        for name in names:
            if self.cancelled():
                break
            try:
                made += _look_after(self.ctx, name, self.submit, self.cancelled)
                self._problems.pop(name, None)
            except Cancelled:
                break
            except pools.PoolError as error:
                _log.debug("pool %s: %s", name, error)
            except (OptionsError, MediaError, PlanRefused, TriggerError) as error:
                if self._problems.get(name) != str(error):
                    _log.error("pool %s: %s", name, error)
                self._problems[name] = str(error)
        return made


def _look_after(ctx: Context, name: str, submit: Callable[[int], None], cancelled: Callable[[], bool]) -> int:
    with ctx.db.begin() as session:
        pool = pools.get(session, name, lock=True)
        options = options_of(ctx.settings, pool)
        late = waiting.late_arrivals(session, pool, without_conflicts(options.conflicts))
        if late:
            _event(session, name, "supplement", None, {"instances": late})
        at = now()
        studies = waiting.studies(session, name, quiet_since=quiet_since(pool, at))
        feeding = schedules.filling(session, name)
    if not studies or _is_held(feeding, at):
        return 0
    worth = pool.look_at or _enough(ctx, pool, options) * _FIRST_LOOK
    due = any(_is_due(pool, study.since, at) for study in studies)
    if not due and sum(study.file_bytes for study in studies) < worth:
        return 0
    return len(fill(ctx, name, submit=submit, cancelled=cancelled))


def _is_held(feeding: Sequence[Any], at: datetime) -> bool:
    """A schedule that fills the pool is in a blackout window: no disc begins either."""
    for schedule in feeding:
        tz = zone(schedule.timezone)
        if free_from(at, blackouts_of(schedule.blackouts), tz) != at:
            return True
    return False


def quiet_since(pool: Pool, at: datetime) -> datetime:
    """A study of which something came after this moment is left waiting."""
    return at - timedelta(minutes=pool.quiet_minutes)


def _is_due(pool: Pool, since: datetime | None, at: datetime) -> bool:
    return since is not None and pool.latest_days is not None and since <= at - timedelta(days=pool.latest_days)


def _enough(ctx: Context, pool: Pool, options: RequestOptions) -> int:
    return int(capacity_bytes(ctx, options) * pool.min_fill / 100)


def fill(
    ctx: Context,
    name: str,
    *,
    everything: bool = False,
    submit: Callable[[int], None] = lambda _job: None,
    progress: Progress = lambda *_: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> list[int]:
    """Make jobs for what fills discs, and for what is due; ``everything``: for all that waits. Returns their ids.

    Raises NoSuchPool, OptionsError, MediaError, PlanRefused, ``Cancelled``.
    """
    made: list[int] = []
    media = MEDIA_AT_ONCE
    while not cancelled():
        with ctx.db.read() as session:
            pool = pools.get(session, name)
            at = now()
            quiet = None if everything else quiet_since(pool, at)
            studies = waiting.studies(session, name, quiet_since=quiet)
        options = options_of(ctx.settings, pool)
        window = window_of(studies, media * capacity_bytes(ctx, options))
        if not window.studies:
            break
        sets, left_out = _packed(ctx, pool, options, window, at, progress, cancelled)
        if left_out:
            with ctx.db.begin() as session:
                pools.get(session, name, lock=True)
                waiting.refuse(session, name, left_out)
                _event(session, name, "refused", None, {"instances": len(left_out)})
        chosen = chosen_of(sets, pool, window, media, everything=everything)
        for one in chosen:
            job_id = _order(ctx, pool, options, one, everything=everything)
            if job_id is not None:
                made.append(job_id)
                submit(job_id)
        if not window.rest:
            _look_later(ctx, pool, options, window, sets, chosen)
            break
        media = next_media(media, progress=bool(chosen or left_out))
    return made


def window_of(studies: Sequence[WaitingStudy], most: int) -> Window:
    """The longest waiting studies, of so many bytes beside the largest of them."""
    total = largest = 0
    for number, study in enumerate(studies):
        if total - largest >= most:
            return Window(list(studies[:number]), rest=True)
        total += study.file_bytes
        largest = max(largest, study.file_bytes)
    return Window(list(studies), rest=False)


def chosen_of(
    sets: Sequence[VolumeSet], pool: Pool, window: Window, media: int, *, everything: bool = False
) -> list[VolumeSet]:
    """Those of a window of so many ``media`` of which discs are made now."""
    found = [one for one in sets if _wanted(one, pool, everything=everything and not window.rest)]
    if not found and window.rest and media >= _MOST_MEDIA and sets:
        return [max(sets, key=lambda one: len(one.volumes))]
    return found


def next_media(media: int, *, progress: bool) -> int:
    """How many media are looked at next; ``progress``: something of this window waits no more."""
    return MEDIA_AT_ONCE if progress else min(_MOST_MEDIA, media * 2)


def _wanted(one: VolumeSet, pool: Pool, *, everything: bool) -> bool:
    return everything or one.due or one.fill * 100 >= pool.min_fill


def _packed(
    ctx: Context,
    pool: Pool,
    options: RequestOptions,
    window: Window,
    at: datetime,
    progress: Progress,
    cancelled: Callable[[], bool],
) -> tuple[list[VolumeSet], dict[int, str]]:
    """What the window's studies are on discs, and the instances that can be on none, with the reason."""
    ids = waiting.instances_of(pool.name, (study.study_id for study in window.studies))
    with ctx.db.read() as session:
        rows = requested.rows_of(session, ids)
        conflicts = requested.conflicts_of(session, ids)
        since = waiting.since(session, ids, pool.name)
    prepared = prepare(ctx, rows, conflicts, options, progress=progress, cancelled=cancelled)
    progress("pack", 0, len(rows), "instances")
    sets = sets_of(ctx, options, pool, prepared, {row.id: since.get(row.id, at) for row in rows}, at)
    placed = {instance for one in sets for instance in one.instances}
    reasons = {row.id: "DUPL_REF_INST: another instance with its SOP Instance UID is put on discs" for row in rows}
    reasons |= {refusal.row.id: f"{refusal.code}: {refusal.reason}" for refusal in prepared.checked.refused}
    return sets, {row_id: reason for row_id, reason in reasons.items() if row_id not in placed}


def sets_of(
    ctx: Context,
    options: RequestOptions,
    pool: Pool,
    prepared: Prepared,
    since: Mapping[int, datetime],
    at: datetime,
) -> list[VolumeSet]:
    """The volumes that the longest waiting studies fill best. ``since``: by Instance id, when it came to the pool."""
    candidates = prepared.checked.candidates
    first: dict[tuple[int | None, str], datetime] = {}
    for candidate in candidates:
        key = candidate.row.patient, candidate.row.study_instance_uid
        first[key] = min(first.get(key, at), since[candidate.row.id])

    def age(piece: Piece) -> tuple[datetime, str]:
        study = piece.items[0].study_instance_uid
        return first.get((piece.patient.patient, study), at), study  # type: ignore[arg-type]

    due = {candidate.row.id for candidate in candidates if _is_due(pool, since[candidate.row.id], at)}
    laid = lay_out(ctx, options, prepared, packer=partial(fill_media, age=age))
    return [_volume_set(volumes, due) for volumes in _together(laid.packing.volumes)]


def _together(volumes: Sequence[VolumePlan]) -> list[list[VolumePlan]]:
    """Volumes in groups that share no study with each other."""
    by_study: dict[Any, int] = {}
    parent: list[int] = []

    def root(number: int) -> int:
        while parent[number] != number:
            number = parent[number] = parent[parent[number]]
        return number

    for number, volume in enumerate(volumes):
        parent.append(number)
        for key in {(item.patient, item.study_instance_uid) for item in volume.items if item.study_instance_uid}:
            other = by_study.setdefault(key, number)
            parent[root(number)] = root(other)
    found: dict[int, list[VolumePlan]] = {}
    for number, volume in enumerate(volumes):
        found.setdefault(root(number), []).append(volume)
    return list(found.values())


def _volume_set(volumes: Sequence[VolumePlan], due: set[int]) -> VolumeSet:
    items = [item for volume in volumes for item in volume.items]
    return VolumeSet(
        volumes=tuple(volumes),
        instances=tuple(sorted(item.key for item in items)),
        study_uids=tuple(dict.fromkeys(item.study_instance_uid for item in items if item.study_instance_uid)),
        fill=sum(volume.sectors for volume in volumes) / sum(volume.capacity_sectors for volume in volumes),
        sectors=sum(volume.sectors for volume in volumes),
        due=any(item.key in due for item in items),
    )


def _order(ctx: Context, pool: Pool, options: RequestOptions, one: VolumeSet, *, everything: bool) -> int | None:
    """Request and job for a set of volumes; None where another has taken something of it meanwhile."""
    why = "full" if one.fill * 100 >= pool.min_fill else "due" if one.due else "asked for"
    try:
        with ctx.db.begin() as session:
            pools.require_open(pools.get(session, pool.name, lock=True))
            request_id = requested.add_request(
                session,
                one.instances,
                selection={"study": list(one.study_uids)},
                options=options.to_json(),
                source=f"pool:{pool.name}",
                idempotency_key=None,
                pool=pool.name,
            )
            if not waiting.take(session, pool.name, one.instances, request_id):
                raise _TakenError
            job_id = jobs.create_job(session, request_id, None, options)
            detail = {
                "why": "asked for" if everything and why != "full" else why,
                "studies": len(one.study_uids),
                "instances": len(one.instances),
                "volumes": len(one.volumes),
                "fill": round(one.fill, 4),
            }
            _event(session, pool.name, "filled", job_id, detail)
    except _TakenError:
        return None
    _log.info("pool %s: job J%d for %d instances (%s)", pool.name, job_id, len(one.instances), why)
    return job_id


class _TakenError(Exception):
    """Another has taken it."""


def _look_later(
    ctx: Context,
    pool: Pool,
    options: RequestOptions,
    window: Window,
    sets: Sequence[VolumeSet],
    chosen: Sequence[VolumeSet],
) -> None:
    """Nothing more is full: note how much must wait before it is worth another look, by what real sizes have shown."""
    sectors = sum(one.sectors for one in sets)
    growth = sectors * SECTOR / window.file_bytes if window.file_bytes and sectors else 1.0
    left = sum(one.sectors for one in sets if one not in chosen) * SECTOR / growth
    again = left + _LOOK_AGAIN * capacity_bytes(ctx, options) / growth
    with ctx.db.begin() as session:
        pools.get(session, pool.name, lock=True).look_at = int(max(_enough(ctx, pool, options) / growth, again))


def _event(session: Any, name: str, new: str, job_id: int | None, detail: dict[str, Any]) -> None:
    session.add(Event(at=now(), kind="pool", job_id=job_id, new=new, detail={"pool": name, **detail}))
