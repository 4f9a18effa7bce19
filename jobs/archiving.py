"""Schedules of kind ``archive``: what their rules mean goes into a pool, or straight on discs.

(A kind of ``jobs.schedules``.)
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from sqlalchemy import Select, func, or_, select
from sqlalchemy.orm import Session

from config.settings import Settings
from jobs import pools as pool_values
from jobs.checking import check
from jobs.compression import is_lossy_already
from jobs.context import Context
from jobs.filling import VolumeSet, sets_of, wanted, window_of
from jobs.layout import lay_out
from jobs.options import AUTO, OptionsError, RequestOptions
from jobs.preparing import Prepared, profile_and_medium, require_pair
from jobs.schedules import Firing
from jobs.sources import has_source, source_of
from media.volumes import VolumePlan
from store import archiving, jobs, plans, pools, waiting
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


class AlreadyDoneError(Exception):
    """Another has run this firing to its end; nothing of this run stays."""


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
    request_id = plans.add_request(
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
    which may make them larger or smaller. Of ``refused`` only what rows can tell is known.
    """
    rules = ArchiveRules.from_json(firing.rules)
    at = now()
    with ctx.db.read() as session:
        pool = pools.get(session, firing.pool) if firing.pool is not None else None
        options = (
            pool_values.options_of(ctx.settings, pool)
            if pool is not None
            else request_options(ctx.settings, firing.options)
        )
        new = _new(session, rules, firing, options, pool)
        studies = _studies(session, new, pool)
        size = pool_values.capacity_bytes(ctx, options)
        window = window_of(studies, _PREVIEWED_MEDIA * size)
        ids = _instances(new, pool, [study.study_id for study in window.studies])
        rows = plans.rows_of(session, ids)
        conflicts = plans.conflicts_of(session, ids)
        since = waiting.since(session, ids, pool.name) if pool is not None else {}
        counts = session.scalar(select(func.count()).select_from(new.subquery())) or 0
    prepared = _as_received(ctx, rows, conflicts, options)
    discs: list[dict[str, Any]] = []
    if pool is not None:
        arrived = {row.id: since.get(row.id, at) for row in rows}
        for one in sets_of(ctx, options, pool, prepared, arrived, at):
            burnt = wanted(one, pool, everything=False)
            discs += [_disc(volume, burnt, one) for volume in one.volumes]
    elif rows:
        discs = [_disc(volume, True, None) for volume in lay_out(ctx, options, prepared).packing.volumes]
    return {
        "profile": options.profile,
        "medium": prepared.medium.name,
        "copies": options.copies,
        "purpose": options.purpose,
        "pool": firing.pool,
        "instances": counts,
        "studies": len(studies),
        "bytes": sum(study.file_bytes for study in studies),
        "packed_studies": len(window.studies),
        "conformed": sum(candidate.changes for candidate in prepared.checked.candidates),
        "discs": discs,
        "refused": [refusal.as_json() for refusal in prepared.checked.refused],
    }


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
        .where(Series.study_id.in_([study for study in study_ids if study is not None]))
    )
    if pool is None:
        return of_studies.where(Instance.id.in_(new))
    waits = select(PoolInstance.instance_id).where(waiting.waits(pool.name))
    return of_studies.where(or_(Instance.id.in_(new), Instance.id.in_(waits)))


def _as_received(
    ctx: Context, rows: list[plans.InstanceRow], conflicts: dict[str, list[int]], options: RequestOptions
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
