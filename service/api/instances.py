"""Route: taking in a file as ``burnish import`` streams it; any length, in bounded memory."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import Query, Request
from fastapi.responses import Response

from service.api import answers, uploads
from service.api.access import Ops, needs

router = answers.router()


@router.post(
    "/instances",
    summary="Take in one instance: the body is a Part 10 file, or a bare data set",
    response_model=None,
    dependencies=[needs("studies.receive")],
)
async def ingest(
    ops: Ops,
    request: Request,
    reconcile: Annotated[str, Query(pattern="^([0-9a-f]{64})?$", description="Digest of a rule set")] = "",
) -> dict[str, Any] | Response:
    """``{"outcome": "stored" | "duplicate" | "conflict", "sop_instance_uid", "instance"}``; a refused file is a
    problem. ``reconcile`` names a rule set (``POST /reconciliations``) that corrects it first: ``changes`` tells how.
    """
    return await uploads.taken(request, partial(ops.ingest_stream, reconcile=reconcile))
