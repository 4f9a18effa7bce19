"""The board: burners, and jobs by what they need; a job with its discs and what happened to it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import Form
from starlette.requests import Request
from starlette.responses import Response

from jobs import documents, mending
from jobs import recalls as recall_work
from service.api.access import Actor, Ctx, Ops, needs
from service.contract import number
from service.errors import NotFound
from service.web.pages import language_of, page, shown_of
from service.web.routes import router
from service.web.supplies import BurnerWatch, gauges
from service.web.texts import texts_of
from store import board as store_board
from store import recall_plan
from store.models_base import now

routes = router()
_MAY_MAKE = needs("jobs.make")
_EVENTS_SHOWN = 200


def burners_of(request: Request) -> list[dict[str, Any]]:
    """How the burners stand, each with its gauges."""
    watch: BurnerWatch = request.app.state.burner_watch
    texts, shown = texts_of(language_of(request)), shown_of(request)
    return [{**one, "gauges": gauges(one["supplies"], texts, shown)} for one in watch.now()]


def silent(request: Request) -> float | None:
    """For how many seconds the burners have not answered; None: they do."""
    watch: BurnerWatch = request.app.state.burner_watch
    return watch.silent()


def board_values(request: Request, ctx: Ctx) -> dict[str, Any]:
    zone = shown_of(request).zone
    day = datetime.now(zone).replace(hour=0, minute=0, second=0, microsecond=0)
    with ctx.db.read() as session:
        found = store_board.board(session, day=day)
        asks = recall_plan.asks(session, recall_work.asking_of(ctx))
    return {
        "board": found,
        "asks": asks,
        "drive": ctx.settings.recall.drive,
        "burners": burners_of(request),
        "silent": silent(request),
        "now": now(),
        "burner_names": list(ctx.settings.burners),
    }


@routes.get("/", dependencies=[needs("status.read")])
def board(request: Request, ctx: Ctx) -> Response:
    return page(request, "board.html", **board_values(request, ctx))


@routes.get("/board/part", dependencies=[needs("status.read")])
def part(request: Request, ctx: Ctx) -> Response:
    """The board anew, after ``/live`` said that something changed."""
    return page(request, "parts/board.html", **board_values(request, ctx))


@routes.get("/jobs", dependencies=[needs("jobs.read")])
def jobs(request: Request, ctx: Ctx, before: int | None = None, state: str = "") -> Response:
    with ctx.db.read() as session:
        found = store_board.page_of_jobs(session, before=before, state=state)
    values: dict[str, Any] = {"jobs": found, "state": state, "next": found[-1].id if len(found) == 50 else None}
    return page(request, "parts/job_rows.html" if before is not None else "jobs.html", **values)


@routes.get("/jobs/{job_id}", dependencies=[needs("jobs.read")])
def job(request: Request, ctx: Ctx, job_id: str) -> Response:
    return page(request, "job.html", **_job_values(request, ctx, number("J", job_id)))


@routes.get("/jobs/{job_id}/part", dependencies=[needs("jobs.read")])
def job_part(request: Request, ctx: Ctx, job_id: str) -> Response:
    return page(request, "parts/job.html", **_job_values(request, ctx, number("J", job_id)))


def _job_values(request: Request, ctx: Ctx, job_id: int) -> dict[str, Any]:
    with ctx.db.read() as session:
        found = store_board.one(session, job_id)
        if found is None:
            raise NotFound(f"there is no job J{job_id}")
        document = documents.job_document(session, job_id)
    report = document["report"]
    return {
        "job": found,
        "document": document,
        "events": report.get("events", [])[-_EVENTS_SHOWN:],
        "changed": report.get("changed", []),
        "refused": report.get("refused", []),
        "burner_names": list(ctx.settings.burners),
        "now": now(),
    }


@routes.post("/jobs/{job_id}/retry")
def retry(
    request: Request,
    ctx: Ctx,
    ops: Ops,
    actor: Annotated[Actor, _MAY_MAKE],
    job_id: str,
    burner: Annotated[str, Form(max_length=32)] = "",
    skip_refused: Annotated[bool, Form()] = False,
) -> Response:
    wanted = number("J", job_id)
    mending.retry(ctx, wanted, burner=burner, skip_refused=skip_refused)
    ops.submit(wanted)
    return told(request, "board.told_retry", job=f"J{wanted}")


@routes.post("/jobs/{job_id}/cancel", dependencies=[_MAY_MAKE])
def cancel(request: Request, ops: Ops, job_id: str) -> Response:
    ops.cancel(job_id)
    return told(request, "board.told_cancel", job=f"J{number('J', job_id)}")


@routes.post("/jobs/{job_id}/dismiss")
def dismiss(request: Request, ctx: Ctx, actor: Annotated[Actor, _MAY_MAKE], job_id: str) -> Response:
    wanted = number("J", job_id)
    mending.dismiss(ctx, wanted, by=actor.name)
    return told(request, "board.told_dismiss", job=f"J{wanted}")


def told(request: Request, key: str, *, reload: bool = False, **values: str) -> Response:
    """A notice that it was done. ``reload``: the page is asked for anew, else what listens for ``changed``."""
    text = texts_of(language_of(request))(key, **values)
    headers = {"HX-Trigger": "reload" if reload else "changed"}
    return page(request, "parts/notice.html", kind="good", text=text, advice="", headers=headers)
