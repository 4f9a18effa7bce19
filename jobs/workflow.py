"""The durable workflows, read from top to bottom. What engine runs them is no concern here.

Control flow is the engine's: after a crash a workflow runs again, and a step that had ended is not run again. Facts are
ours: each step begins by looking at them, claims what it changes under this node's lease, and changes it by guarded
UPDATE. So a step that is run twice, even by two nodes at once, does its work once.
"""

from __future__ import annotations

import logging
from contextlib import suppress

from sqlalchemy import select

from jobs import reburning
from jobs.dispatch import burn
from jobs.fetching import FetchFailed, fetch
from jobs.leases import Abandoned
from jobs.protecting import tidy
from jobs.readback import verify
from jobs.work import Teller, Wish, Work
from store import discs, jobs
from store.models_jobs import Job, Plan, Request
from store.nodes import Lease, holds
from store.states import JOB_PREPARING, DiscState, JobState

_log = logging.getLogger("burnish.jobs")


def prepare_job(work: Work, job_id: int) -> None:
    """QUEUED -> PLANNING -> CONFORMING -> READY. Its discs then have workflows of their own; nothing waits for them."""
    work.step("plan", lambda: plan(work, job_id))
    work.wake()


def make_disc(work: Work, disc_id: int) -> None:
    """PLANNED -> SUBMITTED -> BURNING -> BURNT -> VERIFYING -> VERIFIED."""
    work.step("burn", lambda: burn(work, disc_id))
    work.step("verify", lambda: verify(work, disc_id))
    with suppress(OSError):
        tidy(work.ctx)
        reburning.tidy(work.ctx)


def plan(work: Work, job_id: int) -> str:
    """Make or check the plan of a job and order its discs. Returns the job's state."""
    from jobs.conform_pool import Cancelled
    from jobs.preparing import PlanRefused

    lease = work.leases.current()
    job = _take(work, job_id, lease)
    if job is None:
        return _state(work, job_id)
    wish = Wish(work, job_id, lease)
    try:
        if wish.cancelled():
            raise Cancelled
        plan_id = _plan_of(work, job, wish)
        _check_refused(work, job, plan_id)
    except Cancelled:
        _end(work, job_id, JobState.CANCELLED, "CANCELLED", None)
    except PlanRefused as error:
        _end(work, job_id, JobState.FAILED, error.code, error.reason)
    else:
        _order(work, job_id, plan_id, lease)
    return _state(work, job_id)


def _take(work: Work, job_id: int, lease: Lease) -> Job | None:
    """Mark the job as planned by this node; None when there is nothing left to plan."""
    with work.ctx.db.begin() as session:
        job = jobs.lock(session, job_id)
        if JobState(job.state) not in JOB_PREPARING:
            return None
        if not session.execute(select(holds(session, lease))).scalar_one():
            raise Abandoned("this node's lease is gone")
        if JobState(job.state) is JobState.QUEUED:
            jobs.move_job(session, job, JobState.PLANNING, node=lease.node)
        else:
            job.node = lease.node
        return job


def _plan_of(work: Work, job: Job, wish: Wish) -> int:
    """The plan that the job was given, the one that a run before this made, or a new one."""
    from jobs.conform_pool import Cancelled
    from jobs.preparing import PlanRefused

    if job.plan_id is not None:
        work.rooms.check_plan(work.ctx, job.plan_id)
        return job.plan_id
    with work.ctx.db.read() as session:
        made = session.execute(
            select(Plan.id).where(Plan.request_id == job.request_id).order_by(Plan.id.desc()).limit(1)
        ).scalar_one_or_none()
        # What a plan had to refuse may be there by the time of a retry.
        usable = (
            made is not None
            and session.execute(select(Job.id).where(Job.plan_id == made)).first() is None
            and jobs.refused_by(session, made) is None
            and jobs.nothing_left(session, made) is None
        )
    if made is not None and usable:
        with suppress(PlanRefused):
            work.rooms.check_plan(work.ctx, made)
            return made

    def tell(phase: str, done: int, total: int, unit: str) -> None:
        with work.ctx.db.begin() as session:
            jobs.note_progress(session, job.id, {"phase": phase, "done": done, "total": total, "unit": unit})

    told = Teller(tell)
    try:
        fetch(work.ctx, job.request_id, work.pull, progress=told, cancelled=wish.cancelled)
    except FetchFailed as error:
        raise PlanRefused("NO_INSTANCE", str(error)) from error
    if wish.cancelled():
        raise Cancelled

    def on_phase(phase: str) -> None:
        with work.ctx.db.begin() as session:
            locked = jobs.lock(session, job.id)
            if locked.state == JobState.PLANNING and phase == JobState.CONFORMING:
                jobs.move_job(session, locked, JobState.CONFORMING)

    return work.rooms.make_plan(work.ctx, job.request_id, progress=told, cancelled=wish.cancelled, on_phase=on_phase)


def _check_refused(work: Work, job: Job, plan_id: int) -> None:
    """A plan without some of what was asked for is burnt only if the request says so, one without anything never.

    Raises PlanRefused.
    """
    from jobs.preparing import PlanRefused

    with work.ctx.db.read() as session:
        skip = session.get_one(Request, job.request_id).options.get("skip_refused")
        refusal = jobs.nothing_left(session, plan_id) if skip else jobs.refused_by(session, plan_id)
        refusal = refusal or jobs.nothing_left(session, plan_id)
    if refusal is not None:
        raise PlanRefused(*refusal)


def _order(work: Work, job_id: int, plan_id: int, lease: Lease) -> None:
    with work.ctx.db.begin() as session:
        job = jobs.lock(session, job_id)
        if JobState(job.state) not in JOB_PREPARING:
            return
        if job.node != lease.node or not session.execute(select(holds(session, lease))).scalar_one():
            raise Abandoned("another node plans this job now")
        if job.cancel_requested:
            jobs.move_job(session, job, JobState.CANCELLED, reason="CANCELLED", progress={})
            return
        jobs.order_discs(session, job, plan_id)


def _end(work: Work, job_id: int, state: JobState, reason: str, error: str | None) -> None:
    with work.ctx.db.begin() as session:
        jobs.end_preparing(session, job_id, state, reason=reason, error=error)


def _state(work: Work, job_id: int) -> str:
    with work.ctx.db.read() as session:
        return session.execute(select(Job.state).where(Job.id == job_id)).scalar_one()


def give_up_job(work: Work, job_id: int, error: Exception) -> None:
    """A fault that nobody foresaw, while a job was planned: it fails, and says so."""
    _log.error("job J%d", job_id, exc_info=error)
    _end(work, job_id, JobState.FAILED, "PROC_FAILURE", _words(error))


def give_up_disc(work: Work, disc_id: int, error: Exception | str) -> None:
    """The same for a disc. Its slot is freed only if the driver says that the device is free."""
    if isinstance(error, Exception):
        _log.error("disc D%d", disc_id, exc_info=error)
        error = _words(error)
    claimed = work.claim(disc_id)
    if claimed is None:
        return
    lease, facts = claimed
    free = True
    burner = work.burners.get(facts.disc.burner)
    if facts.disc.ticket is not None and burner is not None:
        try:
            free = burner.poll(facts.disc.ticket).device_free
        except Exception:  # noqa: BLE001 - it may well be what failed before
            free = False
    with work.ctx.db.begin() as session:
        disc = discs.facts_of(session, disc_id).disc
        jobs.end_disc(session, disc, DiscState.FAILED, lease, free=free, error=error)


def _words(error: Exception) -> str:
    """For people: without an SQL statement, whose parameters may hold a patient's name."""
    text = str(getattr(error, "orig", None) or error)
    return f"{type(error).__name__}: {text}"[:2000]
