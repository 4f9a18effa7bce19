"""Routes: jobs."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header

from service.api.access import Ops
from service.api.models import JobBody

router = APIRouter()


@router.post("/jobs", status_code=201, summary="Burn a selection or a plan")
def burn(
    ops: Ops, body: JobBody, idempotency_key: Annotated[str | None, Header(max_length=255)] = None
) -> dict[str, Any]:
    return ops.burn(
        selection=body.selection.given() if body.selection else None,
        plan=body.plan,
        options=body.options.given(),
        idempotency_key=body.idempotency_key or idempotency_key,
    )


@router.get("/jobs", summary="All jobs, newest first")
def jobs(ops: Ops) -> list[dict[str, Any]]:
    return ops.jobs()


@router.get("/jobs/{job_id}", summary="A job with its discs, progress and report")
def job(ops: Ops, job_id: str) -> dict[str, Any]:
    return ops.job(job_id)


@router.post("/jobs/{job_id}/cancel", summary="Ask a job to stop")
def cancel(ops: Ops, job_id: str) -> dict[str, Any]:
    return ops.cancel(job_id)


@router.post("/jobs/{job_id}/retry", summary="Make again what failed")
def retry(ops: Ops, job_id: str) -> dict[str, Any]:
    return ops.retry(job_id)
