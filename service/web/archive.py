"""The archive: what is at risk, pools, schedules with what they would do, discs and where they are, recalls."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Form, Query
from starlette.requests import Request
from starlette.responses import Response

from jobs import pools as pool_work
from jobs import recalls as recall_work
from jobs import schedules as schedule_work
from service.api.access import Actor, Ctx, Ops, needs
from service.api.places import readable
from service.contract import number
from service.recalling import work_of
from service.web.board import told
from service.web.pages import page
from service.web.routes import router
from service.web.studies import study_uid
from store import atrisk, discviews, holds, pools, recall_plan, recalls, schedules, seriesview, shelves
from store.selection import Selection, instance_ids

routes = router()
PAGE = 60
_MAY_READ = needs("discs.read")
Text = Annotated[str, Form(max_length=255)]


@routes.get("/archive", dependencies=[_MAY_READ])
def archive(request: Request, ctx: Ctx) -> Response:
    with ctx.db.read() as session:
        asks = recall_plan.asks(session, recall_work.asking_of(ctx))
        risks = atrisk.volumes(session, limit=PAGE)
        waiting = [pool_work.pool_document(session, pool) for pool in pools.every(session)]
        flagged = discviews.discs(session, flagged=True, limit=PAGE)
        out = discviews.discs(session, out=True, limit=PAGE)
        held = holds.holds(session, limit=PAGE)
    values: dict[str, Any] = {
        "asks": asks,
        "risks": risks,
        "pools": waiting,
        "flagged": flagged,
        "out": out,
        "holds": held,
    }
    return page(request, "archive.html", **_drive(ctx), **values)


def _drive(ctx: Ctx) -> dict[str, Any]:
    return {"drive": ctx.settings.recall.drive}


@routes.get("/archive/pools", dependencies=[_MAY_READ])
def pools_page(request: Request, ctx: Ctx) -> Response:
    with ctx.db.read() as session:
        found = [pool_work.full_document(ctx, session, pool) for pool in pools.every(session, closed=True)]
    return page(request, "archive_pools.html", pools=found)


@routes.get("/archive/schedules", dependencies=[_MAY_READ])
def schedules_page(request: Request, ctx: Ctx) -> Response:
    with ctx.db.read() as session:
        found = [schedule_work.schedule_document(session, row, runs=5) for row in schedules.every(session)]
    return page(request, "archive_schedules.html", schedules=found)


@routes.get("/archive/schedules/{name}/preview", dependencies=[needs("plans.make")])
def schedule_preview(request: Request, ctx: Ctx, name: str) -> Response:
    """What it would put on which discs now."""
    return page(request, "parts/schedule_preview.html", preview=schedule_work.preview(ctx, name))


@routes.post("/archive/schedules/{name}/switch")
def schedule_switch(
    request: Request,
    ctx: Ctx,
    actor: Annotated[Actor, needs("schedules.manage")],
    name: str,
    on: Annotated[bool, Form()],
) -> Response:
    with ctx.db.begin() as session:
        schedules.edit(session, name, {"enabled": on}, by=actor.name)
    return told(request, "archive.told_on" if on else "archive.told_off", name=name)


@routes.get("/archive/discs", dependencies=[_MAY_READ])
def discs(
    request: Request,
    ctx: Ctx,
    pool: Annotated[str, Query(max_length=32)] = "",
    shelf: Annotated[str, Query(max_length=255)] = "",
    file_set_id: Annotated[str, Query(max_length=16)] = "",
    show_only: Annotated[str, Query(max_length=16)] = "",
    after: Annotated[int, Query(ge=0)] = 0,
) -> Response:
    with ctx.db.read() as session:
        found = discviews.discs(
            session,
            pool=pool,
            shelf=shelf.strip(),
            file_set_id=file_set_id.strip().upper(),
            marked=show_only == "marked",
            out=show_only == "out",
            flagged=show_only == "flagged",
            after=after,
            limit=PAGE + 1,
        )
        names = [one.name for one in pools.every(session, closed=True)]
    following = number("D", found[PAGE - 1]["disc"]) if len(found) > PAGE else None
    given = {"pool": pool, "shelf": shelf, "file_set_id": file_set_id, "show_only": show_only}
    values: dict[str, Any] = {"discs": found[:PAGE], "next": following, "given": given, "pool_names": names}
    narrowed = any(given.values())
    return page(request, "parts/disc_rows.html" if after else "archive_discs.html", **values, narrowed=narrowed)


@routes.get("/archive/discs/{disc_id}", dependencies=[_MAY_READ])
def disc(request: Request, ctx: Ctx, disc_id: str) -> Response:
    with ctx.db.read() as session:
        found = discviews.disc(session, number("D", disc_id))
        studies = seriesview.studies_on(session, found["file_set_uid"])
    return page(request, "archive_disc.html", disc=found, studies=studies)


@routes.post("/archive/discs/{disc_id}/move")
def move(
    request: Request, ctx: Ctx, actor: Annotated[Actor, needs("discs.handle")], disc_id: str, shelf: Text = ""
) -> Response:
    with ctx.db.begin() as session:
        shelves.move(session, number("D", disc_id), shelf, by=actor.name)
    return told(request, "archive.told_moved", disc=disc_id, reload=True)


@routes.post("/archive/discs/{disc_id}/check-out")
def check_out(
    request: Request, ctx: Ctx, actor: Annotated[Actor, needs("discs.handle")], disc_id: str, to: Text
) -> Response:
    with ctx.db.begin() as session:
        shelves.check_out(session, number("D", disc_id), to, by=actor.name)
    return told(request, "archive.told_out", disc=disc_id, reload=True)


@routes.post("/archive/discs/{disc_id}/return")
def check_in(request: Request, ctx: Ctx, actor: Annotated[Actor, needs("discs.handle")], disc_id: str) -> Response:
    with ctx.db.begin() as session:
        shelves.check_in(session, number("D", disc_id), by=actor.name)
    return told(request, "archive.told_back", disc=disc_id, reload=True)


@routes.post("/archive/discs/{disc_id}/mark")
def mark(
    request: Request,
    ctx: Ctx,
    actor: Annotated[Actor, needs("discs.manage")],
    disc_id: str,
    what: Text,
    reason: Text = "",
) -> Response:
    with ctx.db.begin() as session:
        if what == "FOUND":
            shelves.found(session, number("D", disc_id), reason=reason, by=actor.name)
        else:
            shelves.mark(session, number("D", disc_id), what, reason=reason, by=actor.name)
    return told(request, "archive.told_marked", disc=disc_id, reload=True)


# -- recalls -----------------------------------------------------------------------------------------------------------


@routes.get("/archive/recalls", dependencies=[_MAY_READ])
def recalls_page(request: Request, ctx: Ctx) -> Response:
    return page(request, "archive_recalls.html", **_recalls(ctx))


@routes.get("/archive/recalls/part", dependencies=[_MAY_READ])
def recalls_part(request: Request, ctx: Ctx) -> Response:
    return page(request, "parts/recalls.html", **_recalls(ctx))


def _recalls(ctx: Ctx) -> dict[str, Any]:
    with ctx.db.read() as session:
        found = recalls.documents(session, all_=True, limit=PAGE)
        asks = recall_plan.asks(session, recall_work.asking_of(ctx))
    return {"recalls": found, "asks": asks, **_drive(ctx)}


@routes.post("/studies/{study_id}/recall")
def recall(
    request: Request, ctx: Ctx, ops: Ops, actor: Annotated[Actor, needs("recalls.make")], study_id: int
) -> Response:
    with ctx.db.read() as session:
        selection = {"study": [study_uid(session, study_id)]}
        ids = instance_ids(session, Selection.from_json(selection), anywhere=True)
    made = recall_work.begin(ctx, ids, source="api", by=actor.name, selection=selection)
    if not ops.receiving:
        work_of(ops).once()
    return told(request, "study.told_recall", recall=f"C{made}")


@routes.post("/archive/recalls/{recall_id}/refuse")
def refuse(
    request: Request, ctx: Ctx, actor: Annotated[Actor, needs("recalls.make")], recall_id: str, reason: Text = ""
) -> Response:
    recall_work.refuse(ctx, number("C", recall_id), reason=reason, by=actor.name)
    return told(request, "archive.told_refused", recall=recall_id)


@routes.post("/archive/insert")
def insert(
    request: Request,
    ctx: Ctx,
    ops: Ops,
    actor: Annotated[Actor, needs("discs.handle")],
    path: Annotated[str, Form(max_length=4096)],
) -> Response:
    """A disc was put into a drive of the service's machine, or its image lies there."""
    where = readable(ctx.settings, actor, path)
    document = recall_work.offer(ctx, where, "", disc_id=None, by=actor.name)
    if not ops.receiving:
        work_of(ops).once()
    kind = "good" if document["result"] == "READ" else "bad"
    return page(
        request,
        "parts/notice.html",
        kind=kind,
        text=document["words"],
        advice="",
        headers={"HX-Trigger": "changed"},
    )


@routes.post("/studies/{study_id}/keep")
def keep(
    request: Request, ctx: Ctx, actor: Annotated[Actor, needs("holds.manage")], study_id: int, reason: Text
) -> Response:
    with ctx.db.begin() as session:
        holds.keep(session, [study_uid(session, study_id)], reason=reason, by=actor.name)
    return told(request, "study.told_keep")


@routes.post("/archive/holds/{hold_id}/release")
def release(request: Request, ctx: Ctx, actor: Annotated[Actor, needs("holds.manage")], hold_id: str) -> Response:
    with ctx.db.begin() as session:
        holds.release(session, [number("H", hold_id)], by=actor.name)
    return told(request, "archive.told_released", reload=True)
