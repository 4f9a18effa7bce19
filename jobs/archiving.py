"""Schedules of kind ``archive``: what their rules mean goes into a pool, or straight on discs.

(A kind of ``jobs.schedules``.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Select, func, or_, select
from sqlalchemy.orm import Session

from config.settings import Settings
from jobs import pools as pool_values
from jobs.checking import Refusal, check
from jobs.compression import is_lossy_already
from jobs.context import Context
from jobs.filling import MEDIA_AT_ONCE, VolumeSet, Window, chosen_of, next_media, quiet_since, sets_of, window_of
from jobs.layout import lay_out
from jobs.options import AUTO, OptionsError, RequestOptions
from jobs.preparing import Prepared, profile_and_medium, require_pair
from jobs.schedules import AlreadyDoneError, Firing
from jobs.sources import has_source, source_of
from media.volumes import VolumePlan
from store import archiving, jobs, pools, requested, waiting
from store.archiving import ArchiveRules
from store.models import Instance, Series, Study
from store.models_archive import Pool, PoolInstance
from store.models_base import now
from store.waiting import WaitingStudy

_PREVIEWED_MEDIA = 20
"""A preview packs so many media's worth; of the rest it tells the sum."""


def values_of(
    settings: Settings, rules: Mapping[str, Any], options: Mapping[str, Any], pool: str | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Rules and options as they are kept. Raises OptionsError, MediaError, SelectionError."""
    kept = ArchiveRules.from_json(rules).to_json()
    if pool is not None:
        if options:
            raise OptionsError(f"{', '.join(sorted(options))}: how discs are made is the pool's to say")
        return kept, {}
    request_options(settings, options)
    return kept, dict(options)


def request_options(settings: Settings, given: Mapping[str, Any]) -> RequestOptions:
    """The options of a schedule's own requests. Raises OptionsError and MediaError."""
    for name in ("pool", "pull_from"):
        if name in given:
            raise OptionsError(f"{name} is not for a schedule's options")
    options = RequestOptions.from_settings(settings, {"patients_per_disc": "many", **given})
    require_pair(options)
    return options


def run(ctx: Context, firing: Firing) -> dict[str, Any]:
    """Let what is meant wait in the pool, or order its discs: in one transaction with the firing's result.

    Raises AlreadyDoneError where another node has done so.
    """
    rules = ArchiveRules.from_json(firing.rules)
    job_id: int | None = None
    with ctx.db.begin() as session:
        if firing.pool is not None:
            pool = pools.get(session, firing.pool, lock=True)
            pools.require_open(pool)
            options = pool_values.options_of(ctx.settings, pool)
            meant = archiving.meant(rules, now(), also=archiving.without_conflicts(options.conflicts))
            count = waiting.put(session, pool, meant, schedule=firing.schedule)
            result: dict[str, Any] = {"instances": count, "pool": pool.name}
        else:
            options = request_options(ctx.settings, firing.options)
            ids = list(session.scalars(_for_discs(rules, firing, options).order_by(Instance.id)))
            result = {"instances": len(ids)}
            if ids:
                job_id = _order(session, firing, options, ids)
                result["job"] = f"J{job_id}"
        if not firing.finish(session, result):
            raise AlreadyDoneError
    if job_id is not None:
        firing.submit(job_id)
    return result


def _source(schedule: str) -> str:
    return f"schedule:{schedule}"


def _for_discs(rules: ArchiveRules, firing: Firing, options: RequestOptions) -> Select[int]:
    """What is meant and was not yet requested by this schedule: nothing is burnt twice because a job takes long."""
    also = archiving.not_requested_by(_source(firing.schedule))
    return archiving.meant(rules, now(), also=also & archiving.without_conflicts(options.conflicts))


def _order(session: Session, firing: Firing, options: RequestOptions, ids: list[int]) -> int:
    rows = (
        select(Study.study_instance_uid)
        .join(Series, Series.study_id == Study.id)
        .join(Instance, Instance.series_id == Series.id)
    )
    uids = sorted({uid for chunk in _chunks(ids) for uid in session.scalars(rows.where(Instance.id.in_(chunk)))})
    request_id = requested.add_request(
        session,
        ids,
        selection={"study": uids},
        options=options.to_json(),
        source=_source(firing.schedule),
        idempotency_key=None,  # the firing's result is in the same transaction, and is entered once
    )
    return jobs.create_job(session, request_id, None, options)


def _chunks(ids: list[int]) -> list[list[int]]:
    return [ids[start : start + 5000] for start in range(0, len(ids), 5000)]


# --- Preview ----------------------------------------------------------------------------------------------------------


def preview(ctx: Context, firing: Firing) -> dict[str, Any]:
    """Which discs a firing would make now, and what would wait for others; nothing is entered or conformed.

    Sizes are those of the instances as received; ``conformed`` counts those that are changed on their way to a disc,
    which may make them larger or smaller. Of ``refused`` only what rows can tell is known. ``left_waiting``: studies to
    which something came too lately for the pool's discs.
    """
    rules = ArchiveRules.from_json(firing.rules)
    with ctx.db.read() as session:
        pool = pools.get(session, firing.pool) if firing.pool is not None else None
        options = (
            pool_values.options_of(ctx.settings, pool)
            if pool is not None
            else request_options(ctx.settings, firing.options)
        )
        new = _new(session, rules, firing, options, pool)
        studies = _studies(session, new, pool)
        counts = session.scalar(select(func.count()).select_from(new.subquery())) or 0
        lively = waiting.lively(session, quiet_since(pool, now())) if pool is not None else set()
    settled = [study for study in studies if study.study_id not in lively]
    left = [study for study in studies if study.study_id in lively]
    shown = _Shown()
    medium = (
        _directly(ctx, options, new, settled, shown)
        if pool is None
        else _filled(ctx, options, pool, new, settled, shown)
    )
    return {
        "profile": options.profile,
        "medium": medium,
        "copies": options.copies,
        "purpose": options.purpose,
        "pool": firing.pool,
        "instances": counts,
        "studies": len(studies),
        "bytes": sum(study.file_bytes for study in studies),
        "packed_studies": shown.studies,
        "left_waiting": {
            "studies": len(left),
            "instances": sum(study.instances for study in left),
            "bytes": sum(study.file_bytes for study in left),
            "quiet_minutes": pool.quiet_minutes if pool is not None else None,
        },
        "conformed": shown.conformed,
        "discs": shown.discs,
        "refused": [refusal.as_json() for refusal in shown.refused],
    }


@dataclass(slots=True)
class _Shown:
    """What a preview has found so far."""

    discs: list[dict[str, Any]] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    conformed: int = 0
    studies: int = 0
    """That were packed."""


def _directly(
    ctx: Context, options: RequestOptions, new: Select[int], studies: list[WaitingStudy], shown: _Shown
) -> str:
    """The discs of a request of its own; returns the medium."""
    window = window_of(studies, _PREVIEWED_MEDIA * pool_values.capacity_bytes(ctx, options))
    with ctx.db.read() as session:
        ids = _instances(new, None, [study.study_id for study in window.studies])
        rows, conflicts = requested.rows_of(session, ids), requested.conflicts_of(session, ids)
    prepared = _as_received(ctx, rows, conflicts, options)
    if rows:
        shown.discs += [_disc(volume, True, None) for volume in lay_out(ctx, options, prepared).packing.volumes]
    shown.refused += prepared.checked.refused
    shown.conformed = sum(candidate.changes for candidate in prepared.checked.candidates)
    shown.studies = len(window.studies)
    return prepared.medium.name


def _filled(
    ctx: Context,
    options: RequestOptions,
    pool: Pool,
    new: Select[int],
    studies: Sequence[WaitingStudy],
    shown: _Shown,
) -> str:
    """The discs of a pool, window by window as ``jobs.filling.fill`` makes them; returns the medium."""
    size = pool_values.capacity_bytes(ctx, options)
    at = now()
    media = MEDIA_AT_ONCE
    left, gone = list(studies), set[int]()
    while True:
        window = window_of(left, media * size)
        with ctx.db.read() as session:
            ids = _instances(new, pool, [study.study_id for study in window.studies])
            rows = [row for row in requested.rows_of(session, ids) if row.id not in gone]
            conflicts = requested.conflicts_of(session, ids)
            since = waiting.since(session, ids, pool.name)
            of = archiving.studies_of(session, ids)
        prepared = _as_received(ctx, rows, conflicts, options)
        sets = sets_of(ctx, options, pool, prepared, {row.id: since.get(row.id, at) for row in rows}, at)
        placed = {instance for one in sets for instance in one.instances}
        left_out = {row.id for row in rows} - placed
        chosen = chosen_of(sets, pool, window, media)
        shown.discs += [_disc(volume, True, one) for one in chosen for volume in one.volumes]
        shown.refused += [one for one in prepared.checked.refused if one.row.id not in gone]
        gone |= left_out | {instance for one in chosen for instance in one.instances}
        rest = [(of[row.id], since.get(row.id, at), row.file_bytes) for row in rows if row.id not in gone]
        before, left = len(left), _still_waiting(left, window, rest)
        if not window.rest or len(shown.discs) >= _PREVIEWED_MEDIA:
            shown.discs += [_disc(volume, False, one) for one in sets if one not in chosen for volume in one.volumes]
            shown.conformed += sum(candidate.changes for candidate in prepared.checked.candidates)
            shown.studies += len(window.studies)
            return prepared.medium.name
        shown.conformed += sum(one.changes for one in prepared.checked.candidates if one.row.id in gone)
        shown.studies += before - len(left)
        media = next_media(media, progress=bool(chosen or left_out))


def _still_waiting(
    studies: Sequence[WaitingStudy], window: Window, rest: Sequence[tuple[int | None, datetime, int]]
) -> list[WaitingStudy]:
    """What is left when of a ``window`` only the ``rest`` waits: study, since when, bytes of each instance."""
    stay: dict[int | None, WaitingStudy] = {}
    for study_id, since, size in rest:
        one = stay.get(study_id, WaitingStudy(study_id, since, 0, 0))
        stay[study_id] = WaitingStudy(study_id, min(one.since, since), one.instances + 1, one.file_bytes + size)
    return [stay[one.study_id] for one in window.studies if one.study_id in stay] + list(studies[len(window.studies) :])


def _new(
    session: Session, rules: ArchiveRules, firing: Firing, options: RequestOptions, pool: Pool | None
) -> Select[int]:
    """Selects what the firing would take."""
    if pool is None:
        return _for_discs(rules, firing, options)
    known = select(PoolInstance.instance_id).where(PoolInstance.pool == pool.name)
    also = archiving.without_conflicts(options.conflicts) & Instance.id.not_in(known)
    return archiving.meant(rules, now(), also=also)


def _studies(session: Session, new: Select[int], pool: Pool | None) -> list[WaitingStudy]:
    """What waits already, the longest waiting first, and then what the firing would take."""
    found = waiting.studies(session, pool.name) if pool is not None else []
    rows = session.execute(
        select(Series.study_id, func.count(), func.sum(Instance.file_bytes))
        .join(Instance, Instance.series_id == Series.id)
        .where(Instance.id.in_(new))
        .group_by(Series.study_id)
        .order_by(Series.study_id)
    )
    by_study = {study.study_id: study for study in found}
    for study_id, count, size in rows:
        before = by_study.get(study_id)
        by_study[study_id] = WaitingStudy(
            study_id,
            before.since if before else now(),
            count + (before.instances if before else 0),
            int(size) + (before.file_bytes if before else 0),
        )
    return list(by_study.values())


def _instances(new: Select[int], pool: Pool | None, study_ids: list[int | None]) -> Select[int]:
    of_studies = (
        select(Instance.id)
        .join(Series, Series.id == Instance.series_id)
        .where(Series.study_id.in_([study for study in study_ids if study is not None]), Instance.id.in_(new))
    )
    if pool is None:
        return of_studies
    waits = waiting.instances_of(pool.name, study_ids)
    return select(Instance.id).where(or_(Instance.id.in_(of_studies), Instance.id.in_(waits)))


def _as_received(
    ctx: Context, rows: list[requested.InstanceRow], conflicts: dict[str, list[int]], options: RequestOptions
) -> Prepared:
    """What ``jobs.preparing.prepare`` gives, as far as rows can tell."""
    if options.profile == AUTO:
        from jobs.preparing import settle

        profile, medium, chosen = settle(ctx, rows, conflicts, options)
    else:
        (profile, medium), chosen = profile_and_medium(options), None
    checked = check(
        rows,
        profile=profile,
        conflicts=conflicts,
        policy=options.conflicts,
        compression=options.compression(ctx.settings),
        has_source=partial(has_source, ctx),
        is_lossy_already=lambda row: is_lossy_already(source_of(ctx, row)),
    )
    return Prepared(profile, medium, checked, {}, {}, {"chosen": chosen})


def _disc(volume: VolumePlan, burnt: bool, one: VolumeSet | None) -> dict[str, Any]:
    """A volume for people: how full, and which studies are on it, in disc order."""
    return {
        "burnt": burnt,
        "why": None if one is None else "due" if one.due else "full" if burnt else "waits",
        "sectors": volume.sectors,
        "capacity_sectors": volume.capacity_sectors,
        "fill": round(100 * volume.sectors / volume.capacity_sectors, 1),
        "instances": len(volume.items),
        "studies": [
            {
                "study_instance_uid": study.content.study_instance_uid,
                "patient_id": patient.content.facts.patient_id,
                "patient_name": patient.content.facts.patient_name,
                "study_date": study.content.facts.study_date,
                "instances": study.instances,
            }
            for patient in volume.patients
            for study in patient.studies
        ],
    }
