"""Routes: plans. Making one may take minutes (instances are conformed), so its progress comes line by line."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from service.api.access import Ops
from service.api.models import PlanBody
from service.api.problem import problem
from service.errors import as_refusal
from service.logs import logger
from service.operations import StoreOperations

router = APIRouter()
NDJSON = "application/x-ndjson"
_HEARTBEAT_SECONDS = 5.0


@router.post("/plans", status_code=201, summary="Make a plan: a dry run that tells all", response_model=None)
def make(ops: Ops, body: PlanBody, request: Request) -> dict[str, Any] | Response:
    """The plan; with ``Accept: application/x-ndjson`` lines of ``{"progress"}`` and at last ``{"plan"}`` or
    ``{"problem"}``, and the plan is given up when nobody listens any more.
    """
    stopping = request.app.state.stopping
    selection, options = body.selection.given(), body.options.given()
    if NDJSON not in request.headers.get("accept", ""):
        return ops.plan(selection, options, lambda _progress: None, stopping)
    return StreamingResponse(
        (json.dumps(line).encode() + b"\n" for line in _told(ops, selection, options, stopping)),
        media_type=NDJSON,
    )


def _told(
    ops: StoreOperations, selection: dict[str, Any], options: dict[str, Any], stopping: Any
) -> Iterator[dict[str, Any]]:
    lines: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    left = threading.Event()

    def work() -> None:
        try:
            document = ops.plan(
                selection,
                options,
                lambda progress: lines.put({"progress": progress}),
                lambda: left.is_set() or stopping(),
            )
            lines.put({"plan": document})
        except Exception as error:  # noqa: BLE001 - it is told to the client, whatever it is
            lines.put({"problem": _problem(error)})

    threading.Thread(target=work, name="plan", daemon=True).start()
    try:
        while True:
            try:
                line = lines.get(timeout=_HEARTBEAT_SECONDS)
            except queue.Empty:
                line = {}  # an empty line: finds out whether somebody still listens
            yield line
            if "plan" in line or "problem" in line:
                return
    finally:
        left.set()


def _problem(error: Exception) -> dict[str, Any]:
    refusal = as_refusal(error)
    if refusal is not None:
        return problem(refusal.http_status, str(refusal), refusal.code)
    logger("service.api").error("planning failed", error=type(error).__name__, exc_info=error)
    return problem(500, f"unexpected {type(error).__name__}; the service's log has more", "UNEXPECTED")


@router.post("/checks", summary="Which instances can be on a disc of a profile")
def check(ops: Ops, body: PlanBody) -> dict[str, Any]:
    return ops.check(body.selection.given(), body.options.given())


@router.get("/plans/{plan_id}", summary="A plan that was made before")
def plan(ops: Ops, plan_id: str) -> dict[str, Any]:
    return ops.plan_document(plan_id)
