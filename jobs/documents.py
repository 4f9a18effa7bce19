"""Jobs as the JSON documents that commands and the API show."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import false, func, select
from sqlalchemy.orm import Session

from jobs.options import PRIORITIES
from jobs.protecting import protection_document
from store.discs import latest_discs
from store.jobs import JobNotFound
from store.models_jobs import BurnerSlot, Disc, Job, Plan, Request, Volume
from store.models_nodes import Event
from store.states import DISC_FINAL, DiscState, JobState

_PRIORITY_NAMES = {number: name for name, number in PRIORITIES.items()}
_EVENTS_SHOWN = 500


def job_document(session: Session, job_id: int) -> dict[str, Any]:
    """A job with its discs (the latest attempt of each copy), progress and report. Raises JobNotFound."""
    job = session.get(Job, job_id)
    if job is None:
        raise JobNotFound(job_id)
    request = session.get(Request, job.request_id)
    assert request is not None
    discs = latest_discs(session, job_id)
    volumes = {
        volume.id: volume
        for volume in session.execute(select(Volume).where(Volume.id.in_([disc.volume_id for disc in discs]))).scalars()
    }
    return {
        "job": f"J{job.id}",
        "state": job.state,
        "discs": [_disc(disc, volumes[disc.volume_id]) for disc in discs],
        "needs": _needs(job, discs),
        "created": job.created_at.isoformat(),
        "finished": job.finished_at.isoformat() if job.finished_at else None,
        "attempt": job.attempt,
        "plan": f"P{job.plan_id}" if job.plan_id is not None else None,
        "profile": _profile(session, job, request.options),
        "burner": job.burner,
        "copies": job.copies,
        "priority": _PRIORITY_NAMES.get(job.priority, str(job.priority)),
        "source": request.source,
        "cancel_requested": job.cancel_requested,
        "reason": job.reason,
        "error": job.error,
        "progress": _progress(session, job, discs, volumes),
        "report": _report(session, job),
    }


def jobs_list(
    session: Session, *, limit: int | None = None, before: int | None = None, states: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Jobs, newest first: state, when, profile, how many discs and how many of them are verified.

    ``before``: only those with a lower number; ``states``: only those in one of them.
    """
    statement = (
        select(Job, Request.options, Plan.profile)
        .join(Request, Request.id == Job.request_id)
        .outerjoin(Plan, Plan.id == Job.plan_id)
        .order_by(Job.id.desc())
        .limit(limit)
    )
    if before is not None:
        statement = statement.where(Job.id < before)
    if states:
        statement = statement.where(Job.state.in_(states))
    rows = session.execute(statement).all()
    newest = (
        select(Disc.job_id, Disc.volume_id, Disc.copy, func.max(Disc.attempt).label("attempt"))
        .where(Disc.job_id.between(rows[-1][0].id, rows[0][0].id) if rows else false())
        .group_by(Disc.job_id, Disc.volume_id, Disc.copy)
        .subquery()
    )
    counts: dict[int, dict[str, int]] = {}
    by_state = (
        select(Disc.job_id, Disc.state, func.count())
        .join(
            newest,
            (newest.c.volume_id == Disc.volume_id)
            & (newest.c.copy == Disc.copy)
            & (newest.c.attempt == Disc.attempt)
            & (newest.c.job_id == Disc.job_id),
        )
        .group_by(Disc.job_id, Disc.state)
    )
    for job_id, state, count in session.execute(by_state):
        counts.setdefault(job_id, {})[state] = count
    return [
        {
            "job": f"J{job.id}",
            "state": job.state,
            "created": job.created_at.isoformat(),
            "profile": profile or options.get("profile"),
            "discs": sum(counts.get(job.id, {}).values()),
            "verified": counts.get(job.id, {}).get(DiscState.VERIFIED, 0),
            "priority": _PRIORITY_NAMES.get(job.priority, str(job.priority)),
            "reason": job.reason,
            "error": job.error,
        }
        for job, options, profile in rows
    ]


def _profile(session: Session, job: Job, options: dict[str, Any]) -> str | None:
    """Of the plan, once there is one: the request may have said ``auto``."""
    plan = session.get(Plan, job.plan_id) if job.plan_id is not None else None
    return plan.profile if plan is not None else options.get("profile")


def _disc(disc: Disc, volume: Volume) -> dict[str, Any]:
    return {
        "disc": f"D{disc.id}",
        "volume": volume.number,
        "of": volume.of,
        "copy": disc.copy,
        "attempt": disc.attempt,
        "file_set_id": volume.file_set_id,
        "file_set_uid": volume.file_set_uid,
        "image": disc.image,
        "sha256": disc.sha256,
        "sectors": volume.sectors,
        **protection_document(volume),
        "state": disc.state,
        "progress": disc.progress,
        "verified_by": disc.verified_by,
        "verified_at": disc.verified_at.isoformat() if disc.verified_at else None,
        "location": disc.location,
        "error": disc.error,
    }


def _needs(job: Job, discs: list[Disc]) -> list[dict[str, Any]]:
    """What a person must do: load a blank, change ink; and decide, where discs have failed."""
    waits = (job.progress or {}).get("waiting") or {}
    needs = [{"disc": disc, "what": what} for disc, what in waits.items()]
    if job.state == JobState.FAILED:
        again = f"look into it; `burnish retry J{job.id}` makes another disc, nothing is burnt again by itself"
        needs += [{"disc": f"D{disc.id}", "what": again} for disc in discs if disc.state == DiscState.FAILED]
    return needs


def _progress(session: Session, job: Job, discs: list[Disc], volumes: dict[int, Volume]) -> dict[str, Any]:
    """Of the job: phase and a fraction; of each volume: the fraction of its copies' work that is done."""
    by_volume: dict[int, list[float]] = {}
    for disc in discs:
        by_volume.setdefault(disc.volume_id, []).append(_part_done(disc))
    parts = [part for found in by_volume.values() for part in found]
    known = job.progress or {}
    progress: dict[str, Any] = {
        "phase": known.get("phase") or _waiting_phase(known) or job.state,
        "done": known.get("done", sum(disc.state == DiscState.VERIFIED for disc in discs)),
        "total": known.get("total", len(discs)),
        "unit": known.get("unit", "discs" if discs else ""),
        "fraction": round(sum(parts) / len(parts), 3) if parts else 0.0,
        "volumes": [
            {
                "volume": volumes[volume_id].number,
                "of": volumes[volume_id].of,
                "file_set_id": volumes[volume_id].file_set_id,
                "fraction": round(sum(found) / len(found), 3),
            }
            for volume_id, found in by_volume.items()
        ],
    }
    busy = [disc.id for disc in discs if disc.state == DiscState.PLANNED]
    if busy and session.execute(select(BurnerSlot).where(BurnerSlot.burner == job.burner).limit(1)).first() is None:
        progress["note"] = f"no running service has the burner {job.burner!r}"
    return progress


def _waiting_phase(known: dict[str, Any]) -> str:
    waits = list((known.get("waiting") or {}).values())
    return f"waiting: {waits[0]}" if waits else ""


_BEFORE = {
    DiscState.PLANNED: 0.0,
    DiscState.SUBMITTED: 0.0,
    DiscState.BURNING: 0.0,
    DiscState.BURNT: 0.5,
    DiscState.VERIFYING: 0.5,
}


def _part_done(disc: Disc) -> float:
    """Writing is one half of a disc's work, reading back the other."""
    state = DiscState(disc.state)
    if state in DISC_FINAL:
        return 1.0
    within = disc.progress / 2 if state in (DiscState.BURNING, DiscState.VERIFYING) else 0.0
    return _BEFORE[state] + within


def _report(session: Session, job: Job) -> dict[str, Any]:
    """The plan's report, and what happened, in order."""
    of_job = Plan.id == job.plan_id if job.plan_id is not None else Plan.request_id == job.request_id
    plan = session.execute(select(Plan).where(of_job).order_by(Plan.id.desc()).limit(1)).scalar_one_or_none()
    events = session.execute(
        select(Event).where(Event.job_id == job.id).order_by(Event.id.desc()).limit(_EVENTS_SHOWN)
    ).scalars()
    report = dict(plan.report) if plan is not None else {}
    report["events"] = [
        {
            "at": event.at.isoformat(),
            "of": f"D{event.disc_id}" if event.disc_id is not None else f"J{job.id}",
            "old": event.old,
            "new": event.new,
            **({"detail": event.detail} if event.detail else {}),
        }
        for event in reversed(list(events))
    ]
    return report
