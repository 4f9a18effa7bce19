"""Routes: jobs."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from jobs import documents, mending
from service.api import answers
from service.api.access import Actor, Ctx, Ops, needs, require
from service.api.documents import JobDoc, JobList
from service.api.models import JobBody
from service.contract import number
from store.states import JobState

router = answers.router()


class RetryBody(BaseModel):
    """How it is made again; what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")
    burner: str = Field(default="", max_length=32, description="Make it on this burner instead")
    skip_refused: bool = Field(default=False, description="Make it without the instances that were refused")


@router.post(
    "/jobs",
    summary="Burn a selection or a plan",
    **answers.returns(JobDoc, 201, 404, 409),
)
def burn(
    ops: Ops,
    body: JobBody,
    actor: Annotated[Actor, needs("jobs.make")],
    idempotency_key: answers.IdempotencyKey = None,
) -> dict[str, Any]:
    """With ``pull_from`` it takes the right nodes.use, too."""
    if body.options.pull_from:
        require(actor, "nodes.use")
    return ops.burn(
        selection=body.selection.given() if body.selection else None,
        plan=body.plan,
        options=body.options.given(),
        idempotency_key=body.idempotency_key or idempotency_key,
    )


@router.get("/jobs", summary="Jobs, newest first", dependencies=[needs("jobs.read")], **answers.returns(JobList))
def jobs(
    ops: Ops,
    state: Annotated[list[JobState] | None, Query(max_length=20)] = None,
    limit: answers.Limit = answers.DEFAULT_PAGE,
    cursor: answers.Cursor = None,
) -> dict[str, Any]:
    before = answers.read_cursor(cursor, int)[0] if cursor else None
    with ops.context.db.read() as session:
        found = documents.jobs_list(session, limit=limit + 1, before=before, states=state or ())
    more = len(found) > limit
    last = number("J", found[limit - 1]["job"]) if more else None
    return answers.listing(found[:limit], answers.cursor(last) if more else None)


@router.get(
    "/jobs/{job_id}",
    summary="A job with its discs, progress and report",
    dependencies=[needs("jobs.read")],
    **answers.returns(JobDoc, 200, 404),
)
def job(ops: Ops, job_id: answers.JobId) -> dict[str, Any]:
    return ops.job(job_id)


@router.post(
    "/jobs/{job_id}/cancel",
    summary="Ask a job to stop",
    dependencies=[needs("jobs.make")],
    **answers.returns(JobDoc, 200, 404, 409),
)
def cancel(ops: Ops, job_id: answers.JobId) -> dict[str, Any]:
    return ops.cancel(job_id)


@router.post(
    "/jobs/{job_id}/retry",
    summary="Make again what failed",
    dependencies=[needs("jobs.make")],
    **answers.returns(JobDoc, 200, 404, 409),
)
def retry(ctx: Ctx, ops: Ops, job_id: answers.JobId, body: RetryBody | None = None) -> dict[str, Any]:
    wanted, how = number("J", job_id), body or RetryBody()
    mending.retry(ctx, wanted, burner=how.burner, skip_refused=how.skip_refused)
    ops.submit(wanted)
    return ops.job(job_id)


@router.post(
    "/jobs/{job_id}/dismiss",
    summary="Take note of a failed job: boards show it no more",
    **answers.returns(JobDoc, 200, 404, 409),
)
def dismiss(ctx: Ctx, ops: Ops, actor: Annotated[Actor, needs("jobs.make")], job_id: answers.JobId) -> dict[str, Any]:
    mending.dismiss(ctx, number("J", job_id), by=actor.name)
    return ops.job(job_id)
