"""Jobs as facts: ordered, cancelled, retried; changed by guarded UPDATE, each change with its Event.

A transaction that changes a disc locks the job's row first (``lock``): so the job's state, which follows from all its
discs, is always worked out from what is true.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from config.worded import Worded, state
from store import slots
from store.discs import ClaimLost, latest_discs, move_disc, new_disc, record
from store.guard import rows_changed
from store.models_archive import Pool
from store.models_base import now
from store.models_jobs import Disc, Job, Plan, Request, Volume
from store.nodes import Lease
from store.states import (
    DISC_FINAL,
    JOB_FINAL,
    JOB_PREPARING,
    DiscState,
    JobState,
    check_job,
    job_state_of,
)

_PRIORITIES = {"high": 1, "med": 2, "low": 3}
OTHERS = "--skip-refused burns the others"
"""In the error of a job that a plan with refused instances has ended, where something is left."""


class JobError(Exception):
    """What was asked of a job cannot be done as it is; ``code`` is for scripts."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class JobNotFound(JobError):
    """There is no such job."""

    def __init__(self, job_id: int) -> None:
        super().__init__("NOT_FOUND", f"there is no job J{job_id}")


class JobOptions(Protocol):
    """What a job needs of ``jobs.options.RequestOptions``."""

    @property
    def burner(self) -> str: ...
    @property
    def copies(self) -> int: ...
    @property
    def priority(self) -> str: ...
    @property
    def skip_refused(self) -> bool: ...


# --- Jobs -------------------------------------------------------------------------------------------------------------


def create_job(session: Session, request_id: int, plan_id: int | None, options: JobOptions) -> int:
    """Queue a job for a request, or for a plan of it.

    Raises JobError: PLAN_USED for a plan that has its job.
    """
    if plan_id is not None:
        other = session.execute(select(Job.id).where(Job.plan_id == plan_id)).scalar_one_or_none()
        if other is not None:
            raise JobError(
                "PLAN_USED",
                Worded(
                    "plan_used",
                    "plan P{plan} was already given to job J{job}; see `burnish job J{job}`",
                    plan=plan_id,
                    job=other,
                ),
            )
    at = now()
    job = Job(
        request_id=request_id,
        plan_id=plan_id,
        state=JobState.QUEUED,
        priority=_PRIORITIES[options.priority],
        burner=options.burner,
        copies=options.copies,
        attempt=1,
        cancel_requested=False,
        progress={},
        reason=None,
        error=None,
        node=None,
        created_at=at,
        updated_at=at,
        finished_at=None,
    )
    session.add(job)
    session.flush()
    record(session, job.id, None, None, JobState.QUEUED)
    return job.id


def refused_by(session: Session, plan_id: int) -> tuple[str, str] | None:
    """Code and text for a plan that leaves instances out, which the request must have allowed; None where none is."""
    found = _refused_by(session, plan_id)
    if found is None:
        return None
    code, text = found
    return code, f"{text}; {OTHERS}" if _has_volumes(session, plan_id) else text


def nothing_left(session: Session, plan_id: int) -> tuple[str, str] | None:
    """Code and text for a plan of which no disc can be made; None where there is something."""
    if _has_volumes(session, plan_id):
        return None
    code, text = _refused_by(session, plan_id) or ("NO_INSTANCE", "the request has no instances")
    return code, f"nothing is left that could be burnt: {text}"


def _has_volumes(session: Session, plan_id: int) -> bool:
    return session.execute(select(Volume.id).where(Volume.plan_id == plan_id).limit(1)).first() is not None


def _refused_by(session: Session, plan_id: int) -> tuple[str, str] | None:
    plan = session.get_one(Plan, plan_id)
    refused = plan.report.get("refused") or []
    if not refused:
        return None
    first = refused[0]
    more = f" (and {len(refused) - 1} more, see the report)" if len(refused) > 1 else ""
    code = (plan.report.get("reasons") or ["PROC_FAILURE"])[0]
    return code, f"refused: {first['sop_instance_uid']}: {first['reason'].removeprefix(f'{code}: ')}{more}"


def job_of_request(session: Session, request_id: int) -> int | None:
    """The newest job of a request."""
    return session.execute(select(func.max(Job.id)).where(Job.request_id == request_id)).scalar_one_or_none()


def lock(session: Session, job_id: int) -> Job:
    """The job, fresh, and locked until the end of the transaction. Raises JobNotFound."""
    job = session.get(Job, job_id, with_for_update=True, populate_existing=True)
    if job is None:
        raise JobNotFound(job_id)
    return job


def move_job(session: Session, job: Job, new: JobState, **values: Any) -> None:
    """Change the state of a job as it was seen. Raises ClaimLost when it is not so any more."""
    old = JobState(job.state)
    check_job(old, new)
    at = now()
    values |= {"state": new, "updated_at": at, "finished_at": at if new in JOB_FINAL else None}
    statement = update(Job).where(Job.id == job.id, Job.state == old)
    if rows_changed(session, statement.values(values)) != 1:
        raise ClaimLost(f"job J{job.id} is not {old} any more")
    detail = {key: values[key] for key in ("reason", "error", "node") if values.get(key)}
    record(session, job.id, None, old, new, **detail)
    session.refresh(job)


def end_preparing(session: Session, job_id: int, new: JobState, *, reason: str | None, error: str | None) -> None:
    """End a job that has no discs (FAILED, CANCELLED); one that has gone on meanwhile is let be."""
    job = lock(session, job_id)
    if JobState(job.state) in JOB_PREPARING:
        move_job(session, job, new, reason=reason, error=error, progress={})


def note_progress(session: Session, job_id: int, progress: Mapping[str, Any]) -> None:
    """For people: ``{"phase", "done", "total", "unit"}``."""
    rows_changed(session, update(Job).where(Job.id == job_id).values(progress=dict(progress), updated_at=now()))


def note_waiting(session: Session, job: Job, disc_id: int, what: str | None) -> None:
    """What a person must do before this disc of a locked job can go on; None: nothing (any more)."""
    waits = dict((job.progress or {}).get("waiting") or {})
    before = waits.pop(f"D{disc_id}", None)
    if what is not None:
        waits[f"D{disc_id}"] = what
    if before != what:
        note_progress(session, job.id, {"waiting": waits} if waits else {})
        session.refresh(job, ["progress"])


def order_discs(session: Session, job: Job, plan_id: int) -> list[int]:
    """Give a job its plan and its discs (volumes x copies), READY to be burnt; the job must be locked."""
    volumes = session.execute(select(Volume.id).where(Volume.plan_id == plan_id).order_by(Volume.number)).scalars()
    copies = [(volume_id, copy) for volume_id in volumes.all() for copy in range(1, job.copies + 1)]
    discs = _new_discs(session, job, [(volume_id, copy, 1) for volume_id, copy in copies])
    if not discs:
        raise JobError("NO_INSTANCE", f"plan P{plan_id} has no volumes")
    session.add_all(discs)
    session.flush()
    for disc in discs:
        record(session, job.id, disc.id, None, DiscState.PLANNED)
    move_job(session, job, JobState.READY, plan_id=plan_id, progress={})
    return [disc.id for disc in discs]


def _new_discs(session: Session, job: Job, wanted: Sequence[tuple[int, int, int]]) -> list[Disc]:
    """Discs for (Volume, copy, attempt): for what the request says, each copy with the place that its pool proposes."""
    request = session.get_one(Request, job.request_id)
    pool = session.get(Pool, request.pool) if request.pool is not None else None
    shelves = pool.shelves if pool is not None else []
    return [
        new_disc(
            job,
            volume_id,
            copy,
            attempt=attempt,
            purpose=request.options.get("purpose", "archive"),
            pool=request.pool,
            shelf=shelves[copy - 1] if copy <= len(shelves) else None,
        )
        for volume_id, copy, attempt in wanted
    ]


def request_cancel(session: Session, job_id: int) -> None:
    """Flag a job; what no device has begun ends at once, the rest when steps and drivers obey. Harmless twice."""
    job = lock(session, job_id)
    if JobState(job.state) in JOB_FINAL or job.cancel_requested:
        return
    rows_changed(session, update(Job).where(Job.id == job_id).values(cancel_requested=True, updated_at=now()))
    record(session, job_id, None, job.state, job.state, action="cancel requested")
    session.refresh(job)
    if JobState(job.state) is JobState.QUEUED:
        move_job(session, job, JobState.CANCELLED, reason="CANCELLED", progress={})
        return
    for disc in latest_discs(session, job_id):
        if DiscState(disc.state) is DiscState.PLANNED:
            move_disc(session, disc, DiscState.CANCELLED)
        elif DiscState(disc.state) in DISC_FINAL:  # a person has decided about it
            note_waiting(session, job, disc.id, None)
    settle(session, job)


def retry(session: Session, job_id: int) -> None:
    """Let a job that has failed, was cancelled, or waits for this decision make again whatever of it is not VERIFIED.

    Raises JobError (NOT_FAILED).
    """
    job = lock(session, job_id)
    latest = latest_discs(session, job_id)
    undecided = job.state == JobState.WAITING and all(DiscState(disc.state) in DISC_FINAL for disc in latest)
    if JobState(job.state) not in (JobState.FAILED, JobState.CANCELLED) and not undecided:
        raise JobError(
            "NOT_FAILED",
            Worded(
                "not_retried",
                "job J{job} is {state}; only a failed or cancelled job can be retried",
                job=job_id,
                state=state(job.state),
            ),
        )
    again = [disc for disc in latest if DiscState(disc.state) is not DiscState.VERIFIED]
    fresh: dict[str, Any] = {
        "attempt": job.attempt + 1,
        "cancel_requested": False,
        "reason": None,
        "error": None,
        "progress": {},
    }
    if not again:  # it never got as far as discs
        move_job(session, job, JobState.QUEUED, **fresh)
        return
    discs = _new_discs(session, job, [(disc.volume_id, disc.copy, disc.attempt + 1) for disc in again])
    session.add_all(discs)
    session.flush()
    for disc in discs:
        record(session, job_id, disc.id, None, DiscState.PLANNED, attempt=disc.attempt)
    move_job(session, job, JobState.READY, **fresh)


def settle(session: Session, job: Job) -> JobState:
    """Bring the state of a locked job into agreement with its discs; returns it.

    A job waits as long as one of its discs does (``note_waiting``), whatever the others are at.
    """
    waiting = bool((job.progress or {}).get("waiting"))
    states = [DiscState(disc.state) for disc in latest_discs(session, job.id)]
    seen = JobState(job.state)
    if not states or seen in JOB_PREPARING | JOB_FINAL:
        return seen
    target = job_state_of(states, waiting=waiting)
    if target in (seen, JobState.READY):
        return seen
    if seen is JobState.READY and target in (JobState.WAITING, JobState.DONE):
        move_job(session, job, JobState.BURNING)
    values: dict[str, Any] = {}
    if target in JOB_FINAL:
        values["progress"] = {}
    if target is JobState.FAILED:
        values |= {"reason": "MCD_FAILURE", "error": _failures(session, job.id)}
    if target is JobState.CANCELLED:
        values["reason"] = "CANCELLED"
    move_job(session, job, target, **values)
    return target


def end_disc(
    session: Session,
    disc: Disc,
    new: DiscState,
    lease: Lease | None,
    *,
    free: bool,
    undecided: bool = False,
    **values: Any,
) -> None:
    """A disc's last state, its slot where the device is free, and what follows for its job: in one transaction.

    ``undecided``: nobody knows for certain what became of a failed disc, so its job waits until a person has looked.
    """
    job = lock(session, disc.job_id)
    move_disc(session, disc, new, lease=lease, **values)
    ask = undecided and new is DiscState.FAILED and not job.cancel_requested
    note_waiting(session, job, disc.id, _decide(job.id, values.get("error")) if ask else None)
    if free:
        slots.release(session, disc.id)
    settle(session, job)


def _decide(job_id: int, error: str | None) -> str:
    return (
        f"{error or 'it is not known how the burn ended'}. Look at the disc; then `burnish retry J{job_id}` makes "
        f"another, `burnish cancel J{job_id}` leaves it at that"
    )


def unsettled(session: Session) -> list[int]:
    """Jobs past planning whose discs have all ended, but whose own state does not say so yet."""
    open_disc = select(Disc.id).where(Disc.job_id == Job.id, Disc.state.notin_(DISC_FINAL)).exists()
    past = [state for state in JobState if state not in JOB_PREPARING | JOB_FINAL]
    return list(session.execute(select(Job.id).where(Job.state.in_(past), ~open_disc)).scalars())


@dataclass(frozen=True, slots=True)
class OpenJob:
    """A job to be planned."""

    id: int
    attempt: int
    priority: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class OpenDisc:
    """A disc that has not ended."""

    id: int
    burner: str
    priority: int
    begun: bool
    """Its ticket is stored: it has a slot, and waits for nobody."""
    created_at: datetime


def work_to_do(session: Session) -> tuple[list[OpenJob], list[OpenDisc]]:
    """What must have a workflow: jobs to plan, and discs to make in the order in which they shall begin."""
    jobs = session.execute(
        select(Job.id, Job.attempt, Job.priority, Job.created_at).where(Job.state.in_(JOB_PREPARING)).order_by(Job.id)
    )
    discs = session.execute(
        select(Disc.id, Disc.burner, Job.priority, Disc.state != DiscState.PLANNED, Disc.created_at)
        .join(Job, Job.id == Disc.job_id)
        .where(Disc.state.notin_(DISC_FINAL))
        .order_by(Job.priority, Disc.id)
    )
    return [OpenJob(*row) for row in jobs], [OpenDisc(*row) for row in discs]


def _failures(session: Session, job_id: int) -> str:
    failed = [disc for disc in latest_discs(session, job_id) if disc.state == DiscState.FAILED]
    return "; ".join(f"D{disc.id}: {disc.error}" for disc in failed)[:4000]
