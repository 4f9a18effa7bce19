"""What a person may decide about a job that has failed or waits: another burner, without what is refused, no more."""

from __future__ import annotations

from sqlalchemy import update
from sqlalchemy.orm import Session

from config.worded import Worded, state
from jobs.context import Context
from store import jobs as store_jobs
from store.board import DISMISSED
from store.guard import rows_changed
from store.models_base import now
from store.models_jobs import Job, Request
from store.models_nodes import Event
from store.states import JobState


class MendingRefused(Exception):
    """It cannot be done so; the text says why, ``code`` is for scripts."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def retry(ctx: Context, job_id: int, *, burner: str = "", skip_refused: bool = False) -> None:
    """Let a job make again what failed, on another burner or without its refused instances where that is said.

    The caller submits it. Raises ``store.jobs.JobError``, ``MendingRefused``.
    """
    if burner and burner not in ctx.settings.burners:
        known = ", ".join(ctx.settings.burners)
        words = Worded("no_burner", "there is no burner {burner!r}; there are {known}", burner=burner, known=known)
        raise MendingRefused("NO_BURNER", words)
    with ctx.db.begin() as session:
        job = store_jobs.lock(session, job_id)
        if burner and burner != job.burner:
            _require_idle(job)
            rows_changed(session, update(Job).where(Job.id == job_id).values(burner=burner))
            _change_options(session, job, burner=burner)
            session.refresh(job)
        if skip_refused:
            _change_options(session, job, skip_refused=True)
        store_jobs.retry(session, job_id)


def _require_idle(job: Job) -> None:
    if JobState(job.state) not in (JobState.FAILED, JobState.CANCELLED, JobState.WAITING):
        raise store_jobs.JobError(
            "NOT_FAILED",
            Worded(
                "not_failed_burner",
                "job J{job} is {state}; only a failed one goes to another burner",
                job=job.id,
                state=state(job.state),
            ),
        )


def _change_options(session: Session, job: Job, **options: object) -> None:
    request = session.get_one(Request, job.request_id)
    request.options = request.options | options
    session.flush()


def dismiss(ctx: Context, job_id: int, by: str) -> None:
    """Take note of a failed job, so that boards show it no more; nothing else changes. Harmless twice."""
    with ctx.db.begin() as session:
        job = store_jobs.lock(session, job_id)
        if JobState(job.state) is not JobState.FAILED:
            raise MendingRefused(
                "NOT_FAILED",
                Worded("not_failed", "job J{job} is {state}, it has not failed", job=job_id, state=state(job.state)),
            )
        event = Event(at=now(), kind=DISMISSED, job_id=job_id, old=job.state, new=job.state, detail={"by": by})
        session.add(event)
