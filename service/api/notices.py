"""Routes: what is told to webhooks and people, and figures for Prometheus; whether the service is ready."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path, Request
from fastapi.responses import JSONResponse, Response

from service.api import answers
from service.api.access import Ctx, Ops, for_everybody, needs
from service.errors import NotDone, NotFound
from service.metrics import Metrics
from service.notifying import Notifying
from service.notifying_ways import NotTold
from service.ready import examine
from store import notices as told
from store.models_base import now

router = answers.router()
outside = answers.router()
"""Routes that are not below /api/v1."""
NoticeId = Annotated[str, Path(pattern=r"^N?[0-9]{1,18}$", description="ID of a notice, like N12")]


@router.get(
    "/notices",
    summary="What was told to webhooks and by e-mail, the newest first",
    dependencies=[needs("notify.manage")],
)
def listed(ctx: Ctx, limit: answers.Limit = answers.DEFAULT_PAGE, cursor: answers.Cursor = None) -> dict[str, Any]:
    before = answers.read_cursor(cursor, int)[0] if cursor else None
    with ctx.db.read() as session:
        found = told.documents(session, before=before, limit=limit + 1)
    following = answers.cursor(int(found[limit - 1]["notice"][1:])) if len(found) > limit else None
    return answers.listing(found[:limit], following)


@router.post(
    "/notices/targets/{name}/test",
    summary="Tell a target something, to see whether it hears",
    dependencies=[needs("notify.manage")],
    responses=answers.problems(404, 409),
)
def test(ctx: Ctx, name: str) -> dict[str, Any]:
    document = {"notice": "N0", "event": "test", "at": now().isoformat(timespec="seconds")}
    try:
        Notifying(ctx).tell(name, document)
    except KeyError as error:
        raise NotFound(f"there is no webhook or e-mail {name!r} in the settings") from error
    except NotTold as error:
        raise NotDone(str(error), "NOT_TOLD") from error
    return {"target": name, "told": True}


@router.post(
    "/notices/{notice}/retry",
    summary="Try again to tell what was given up",
    dependencies=[needs("notify.manage")],
    responses=answers.problems(404),
)
def retry(ctx: Ctx, notice: NoticeId) -> dict[str, Any]:
    number = int(notice.lstrip("N"))
    with ctx.db.begin() as session:
        if not told.again(session, number):
            raise NotFound(f"there is no notice N{number} that was not told")
    return {"notice": f"N{number}", "next_at": now().isoformat(timespec="seconds")}


@outside.get(
    "/metrics", summary="Figures for Prometheus", dependencies=[needs("metrics.read")], response_class=Response
)
def metrics(request: Request, ops: Ops) -> Response:
    """Text format 0.0.4."""
    state = request.app.state
    if getattr(state, "metrics", None) is None:
        state.metrics = Metrics(ops)
    return Response(state.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@outside.get(
    "/readyz",
    summary="Whether the service can do its work; needs no token",
    dependencies=[for_everybody],
    responses={503: {"description": "Not ready", "content": {"application/json": {"schema": {"type": "object"}}}}},
)
def readyz(ops: Ops) -> JSONResponse:
    """503 where it cannot; what is wrong stands in the log and in ``/api/v1/doctor``, not here."""
    found = examine(ops)
    return JSONResponse(found, status_code=200 if found["status"] == "ready" else 503)
