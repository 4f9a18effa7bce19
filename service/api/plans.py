"""Routes: plans. Making one may take minutes (instances are conformed), so its progress comes line by line."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import Response

from service.api import answers
from service.api.access import Ops, needs
from service.api.documents import Fitness, PlanDoc
from service.api.models import PlanBody
from service.api.streaming import answer, told

router = answers.router()


@router.post(
    "/plans",
    summary="Make a plan: a dry run that tells all",
    dependencies=[needs("plans.make")],
    **told(PlanDoc, 201, 404, 409),
)
def make(ops: Ops, body: PlanBody, request: Request) -> dict[str, Any] | Response:
    """The plan; with ``Accept: application/x-ndjson`` lines of ``{"progress"}`` and at last ``{"plan"}`` or
    ``{"problem"}``, and the plan is given up when nobody listens any more.
    """
    selection, options = body.selection.given(), body.options.given()
    return answer(request, "plan", lambda progress, cancelled: ops.plan(selection, options, progress, cancelled))


@router.post(
    "/checks",
    summary="Which instances can be on a disc of a profile",
    dependencies=[needs("plans.make")],
    **answers.returns(Fitness, 200, 404, 409),
)
def check(ops: Ops, body: PlanBody) -> dict[str, Any]:
    return ops.check(body.selection.given(), body.options.given())


@router.get(
    "/plans/{plan_id}",
    summary="A plan that was made before",
    dependencies=[needs("jobs.read")],
    **answers.returns(PlanDoc, 200, 404),
)
def plan(ops: Ops, plan_id: answers.PlanId) -> dict[str, Any]:
    return ops.plan_document(plan_id)
