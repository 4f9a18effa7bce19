"""The archive: what is at risk, discs and where they are, copies made again, recalls, what is held in the spool."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Form, Query
from starlette.requests import Request
from starlette.responses import Response

from jobs import pools as pool_work
from jobs import reburning
from jobs import recalls as recall_work
from service.api.access import Actor, Ctx, Ops, needs
from service.api.places import readable
from service.contract import Document, number
from service.recalling import work_of
from service.web.board import told
from service.web.make import Planning, Plannings
from service.web.pages import page
from service.web.pools import working_on
from service.web.routes import router
from service.web.studies import study_uid
from store import atrisk, discviews, holds, pools, recall_plan, recalls, seriesview, shelves
from store.checks import UNKNOWN
from store.selection import Selection, instance_ids

routes = router()
PAGE = 60
_STUDIES_SHOWN = 4
"""Of a recall."""
_MAY_READ = needs("discs.read")
Text = Annotated[str, Form(max_length=255)]


@routes.get("/archive", dependencies=[_MAY_READ])
def archive(request: Request, ctx: Ctx) -> Response:
    with ctx.db.read() as session:
        asks = recall_plan.asks(session, recall_work.asking_of(ctx))
        risks = atrisk.volumes(session, limit=PAGE + 1)
        waiting = [pool_work.pool_document(session, pool) for pool in pools.every(session)]
        flagged = discviews.discs(session, flagged=True, limit=PAGE + 1)
        out = discviews.discs(session, out=True, limit=PAGE + 1)
        held = holds.holds(session, limit=PAGE + 1)
        unknown = atrisk.unconfirmed_discs(session)
    values: dict[str, Any] = {
        "asks": asks,
        "risks": risks,
        "pools": waiting,
        "flagged": flagged,
        "out": out,
        "holds": held,
        "unknown": unknown,
        "most": PAGE,
        "burner_names": list(ctx.settings.burners),
    }
    return page(request, "archive.html", **_drive(ctx), **values)


def _drive(ctx: Ctx) -> dict[str, Any]:
    return {"drive": ctx.settings.recall.drive}


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
            purpose=UNKNOWN if show_only == "unknown" else "",
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
    offered = found["state"] == "VERIFIED" and found["purpose"] != "handout"
    values: dict[str, Any] = {"offered": offered, "burner_names": list(ctx.settings.burners), **_drive(ctx)}
    return page(request, "archive_disc.html", disc=found, studies=studies, **values)


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
            marked = shelves.mark(session, number("D", disc_id), what, reason=reason, by=actor.name)
            if atrisk.volumes(session, of_volumes=[marked.volume_id]):
                return told(request, "archive.told_at_risk", disc=disc_id, reload=True)
    return told(request, "archive.told_marked", disc=disc_id, reload=True)


@routes.post("/archive/discs/{disc_id}/purpose")
def dedicate(
    request: Request, ctx: Ctx, actor: Annotated[Actor, needs("discs.manage")], disc_id: str, purpose: Text
) -> Response:
    with ctx.db.begin() as session:
        shelves.dedicate(session, number("D", disc_id), purpose, by=actor.name)
    return told(request, "archive.told_purpose", disc=disc_id, reload=True)


@routes.post("/archive/unknown-discs")
def dedicate_unknown(
    request: Request, ctx: Ctx, actor: Annotated[Actor, needs("discs.manage")], purpose: Text
) -> Response:
    """All discs of which nobody said what they are for."""
    with ctx.db.begin() as session:
        changed = shelves.dedicate_unknown(session, purpose, by=actor.name)
    return told(request, "archive.told_unknown", n=str(len(changed)), reload=True)


@routes.post("/archive/reburn")
def reburn(
    request: Request,
    ctx: Ctx,
    ops: Ops,
    actor: Annotated[Actor, needs("discs.manage")],
    of: Annotated[str, Form(max_length=64)],
    copies: Annotated[str, Form(pattern=r"^([1-9][0-9]?)?$")] = "",
    burner: Annotated[str, Form(max_length=32)] = "",
    path: Annotated[str, Form(max_length=4096)] = "",
) -> Response:
    """Another copy of a volume; what it takes is read first, so the answer asks for itself until it is ordered."""
    where = readable(ctx.settings, actor, path.strip()) if path.strip() else None

    def work(planning: Planning) -> Document:
        def note(progress: Document) -> None:
            planning.progress = progress

        ordered = reburning.order(
            ctx,
            of,
            copies=int(copies) if copies else None,
            burner=burner,
            path=where,
            by=actor.name,
            progress=note,
            cancelled=lambda: planning.given_up,
        )
        ops.submit(ordered.job_id)
        return {"jobs": [f"J{ordered.job_id}"]}

    plannings: Plannings = request.app.state.plannings
    return working_on(request, plannings.begin(work, ""))


# -- recalls -----------------------------------------------------------------------------------------------------------


@routes.get("/archive/recalls", dependencies=[_MAY_READ])
def recalls_page(request: Request, ctx: Ctx) -> Response:
    return page(request, "archive_recalls.html", **_recalls(ctx))


@routes.get("/archive/recalls/part", dependencies=[_MAY_READ])
def recalls_part(request: Request, ctx: Ctx, before: Annotated[int | None, Query(ge=1)] = None) -> Response:
    return page(request, "parts/recall_rows.html" if before else "parts/recalls.html", **_recalls(ctx, before))


def _recalls(ctx: Ctx, before: int | None = None) -> dict[str, Any]:
    with ctx.db.read() as session:
        found = recalls.documents(session, all_=True, before=before, limit=PAGE + 1)
        asks = recall_plan.asks(session, recall_work.asking_of(ctx))
        of_recall = {
            f"C{key}": studies
            for key, studies in seriesview.studies_of_recalls(
                session, [number("C", one["recall"]) for one in found[:PAGE]], most=_STUDIES_SHOWN
            ).items()
        }
    following = number("C", found[PAGE - 1]["recall"]) if len(found) > PAGE else None
    values = {"recalls": found[:PAGE], "next": following, "asks": asks, **_drive(ctx)}
    return values | {"of_recall": of_recall, "studies_shown": _STUDIES_SHOWN}


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
    return page(request, "parts/inserted.html", offer=document, headers={"HX-Trigger": "changed"})


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
