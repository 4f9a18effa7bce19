"""Routes: recalls from discs, the discs that people are asked for, and discs that they insert."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path as PathParameter
from fastapi import Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from jobs import recalls as work
from service.api import answers
from service.api.access import Actor, Ctx, Ops, needs, require
from service.api.models import SelectionBody
from service.api.places import readable
from service.api.streaming import answer
from service.contract import number
from service.recalling import work_of
from store import recall_plan, recalls, remotes
from store.selection import Selection, instance_ids

router = answers.router()
RecallId = Annotated[str, PathParameter(pattern=r"^C?[0-9]{1,18}$", description="ID of a recall, like C12")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RecallBody(_Body):
    selection: SelectionBody
    to: str = Field(default="", max_length=32, description="A remote node that the instances are then sent to")


class RefuseBody(_Body):
    reason: str = Field(default="", max_length=1000)


class InsertBody(_Body):
    path: str = Field(
        min_length=1, max_length=4096, description="An image, drive, mounted disc or folder on the service's machine"
    )
    place: str = Field(default="", max_length=255, description="What people call the drive")
    disc: str | None = Field(
        default=None, pattern=r"^D?[0-9]{1,18}$", description="Which copy it is, where that is known"
    )


@router.get("/recalls", summary="Open recalls, the latest first", dependencies=[needs("discs.read")])
def list_recalls(
    ctx: Ctx,
    *,
    every: Annotated[bool, Query(description="Those that have ended, too")] = False,
    limit: answers.Limit = answers.DEFAULT_PAGE,
    cursor: answers.Cursor = None,
) -> dict[str, Any]:
    before = answers.read_cursor(cursor, int)[0] if cursor else None
    with ctx.db.read() as session:
        found = recalls.documents(session, all_=every, before=before, limit=limit + 1)
    more = answers.cursor(number("C", found[limit - 1]["recall"])) if len(found) > limit else None
    return answers.listing(found[:limit], more)


@router.get("/recalls/asks", summary="Discs that people are asked to insert", dependencies=[needs("discs.read")])
def list_asks(ctx: Ctx, limit: answers.Limit = answers.DEFAULT_PAGE, cursor: answers.Cursor = None) -> dict[str, Any]:
    with ctx.db.read() as session:
        return answers.page_of(recall_plan.asks(session, work.asking_of(ctx)), limit, cursor)


@router.post("/recalls/insert", summary="Read what was inserted, for all recalls that need it", response_model=None)
def insert(
    ops: Ops, ctx: Ctx, body: InsertBody, actor: Annotated[Actor, needs("discs.handle")], request: Request
) -> dict[str, Any] | StreamingResponse:
    """What it is and what it was good for; with ``Accept: application/x-ndjson`` progress line by line, at last
    ``{"insert": ...}``. ``result`` is READ, NOT WANTED, UNKNOWN, NOT A DISC or TAKEN OUT."""
    disc = number("D", body.disc) if body.disc else None
    path = readable(ctx.settings, actor, body.path)

    def read(progress: Any, cancelled: Any) -> dict[str, Any]:
        document = work.offer(
            ctx,
            path,
            body.place,
            disc_id=disc,
            by=actor.name,
            progress=lambda done, total: progress({"phase": "read", "done": done, "total": total, "unit": "instances"}),
            cancelled=cancelled,
        )
        if not ops.receiving:
            work_of(ops).once()
        return document

    return answer(request, "insert", read)


@router.get(
    "/recalls/{recall_id}",
    summary="A recall: its discs, what came, what did not",
    dependencies=[needs("discs.read")],
    responses=answers.problems(404),
)
def recall(ctx: Ctx, recall_id: RecallId) -> dict[str, Any]:
    return work.document(ctx, number("C", recall_id))


@router.post(
    "/recalls", status_code=201, summary="Bring instances back from discs", responses=answers.problems(404, 409)
)
def begin(ops: Ops, ctx: Ctx, body: RecallBody, actor: Annotated[Actor, needs("recalls.make")]) -> dict[str, Any]:
    given = body.selection.given()
    if body.to:
        require(actor, "nodes.use")
    with ctx.db.read() as session:
        if body.to:
            remotes.by_name(session, body.to)
        ids = instance_ids(session, Selection.from_json(given), anywhere=True)
    source = "cli" if actor.how == "local" else "api"
    made = work.begin(ctx, ids, source=source, by=actor.name, selection=given, destination=body.to or None)
    if not ops.receiving:
        work_of(ops).once()
    return work.document(ctx, made)


@router.post(
    "/recalls/{recall_id}/refuse", summary="The discs will not be brought", responses=answers.problems(404, 409)
)
def refuse(
    ctx: Ctx, recall_id: RecallId, body: RefuseBody, actor: Annotated[Actor, needs("recalls.make")]
) -> dict[str, Any]:
    return work.refuse(ctx, number("C", recall_id), reason=body.reason, by=actor.name)
