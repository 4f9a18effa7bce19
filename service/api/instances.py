"""Route: taking in a file as ``burnish import`` streams it; any length, in bounded memory."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import Query, Request
from fastapi.responses import Response

from service import acting
from service.api import answers, uploads
from service.api.access import Ops, needs
from service.api.documents import Ingested
from store.instances import Provenance

router = answers.router()
_BINARY = {"schema": {"type": "string", "format": "binary"}}


@router.post(
    "/instances",
    summary="Take in one instance: the body is a Part 10 file, or a bare data set",
    dependencies=[needs("studies.receive")],
    openapi_extra={"requestBody": {"required": True, "content": {"application/dicom": _BINARY}}},
    **answers.returns(Ingested, 200, 400, 404, 409),
)
async def ingest(
    ops: Ops,
    request: Request,
    reconcile: Annotated[str, Query(pattern="^([0-9a-f]{64})?$", description="Digest of a rule set")] = "",
) -> dict[str, Any] | Response:
    """``{"outcome": "stored" | "duplicate" | "conflict", "sop_instance_uid", "instance"}``; a refused file is a
    problem. ``reconcile`` names a rule set (``POST /reconciliations``) that corrects it first: ``changes`` tells how.
    """
    given = Provenance("", "", acting.source("import"))
    return await uploads.taken(request, partial(ops.ingest_stream, reconcile=reconcile, provenance=given))
