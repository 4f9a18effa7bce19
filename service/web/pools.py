"""Pools: what waits in each; made, changed and closed; discs made of what waits, however little."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi.responses import RedirectResponse
from starlette.requests import Request
from starlette.responses import Response

from jobs import filling
from jobs import pools as pool_work
from jobs.context import Context
from jobs.options import AUTO, OptionsError
from service.api.access import Actor, Ctx, Ops, needs
from service.contract import Document
from service.web.board import told
from service.web.forms import Fields, Reader, disc_choices, refused, require_unchanged, version
from service.web.make import Planning, Plannings, trouble_of
from service.web.pages import language_of, page
from service.web.routes import router
from service.web.texts import Texts, texts_of
from store import pools
from store.models_archive import Pool

routes = router()
_MAY_READ = needs("discs.read")
_MANAGES = needs("pools.manage")
OPTIONS = ("profile", "medium", "burner", "priority", "patients_per_disc", "conflicts", "compress", "protect")
"""Options of a request that the form has; any others stay as they were."""


@routes.get("/archive/pools", dependencies=[_MAY_READ])
def pools_page(request: Request, ctx: Ctx) -> Response:
    with ctx.db.read() as session:
        found = [pool_work.full_document(ctx, session, pool) for pool in pools.every(session, closed=True)]
    return page(request, "archive_pools.html", pools=found)


@routes.get("/archive/new-pool", dependencies=[_MANAGES])
def new(request: Request, ctx: Ctx) -> Response:
    settings = ctx.settings
    given = {
        "kind": "archive",
        "profile": settings.plan.profile if settings.plan.profile != AUTO else "",
        "patients_per_disc": "many",
        "copies": str(settings.burn.copies),
        "min_fill": "97",
        "keep_days": "0",
        "quiet_minutes": "10",
    }
    return _form(request, ctx, None, given)


@routes.post("/archive/pools")
def add(request: Request, ctx: Ctx, actor: Annotated[Actor, _MANAGES], fields: Fields) -> Response:
    texts = texts_of(language_of(request))
    name = fields.get("name", "")
    try:
        if not pool_work.NAME.fullmatch(name):
            raise OptionsError(texts("forms.name"))
        values = pool_work.values_of(ctx.settings, _given(texts, fields))
        with ctx.db.begin() as session:
            pools.add(session, name, values, by=actor.name)
    except Exception as error:  # noqa: BLE001 - what is not for people is raised again
        return _wrong(request, ctx, None, fields, error)
    return RedirectResponse(f"/archive/pools#pool-{name}", 303)


@routes.get("/archive/pools/{name}", dependencies=[_MANAGES])
def show(request: Request, ctx: Ctx, name: str) -> Response:
    with ctx.db.read() as session:
        pool = pools.get(session, name)
        return _form(request, ctx, pool, _fields_of(pool))


@routes.post("/archive/pools/{name}")
def change(request: Request, ctx: Ctx, actor: Annotated[Actor, _MANAGES], name: str, fields: Fields) -> Response:
    texts = texts_of(language_of(request))
    with ctx.db.read() as session:
        seen = pools.get(session, name)
    try:
        with ctx.db.begin() as session:
            before = pools.get(session, name, lock=True)
            require_unchanged(texts, fields, before, pools.COLUMNS)
            given = _given(texts, {**fields, "kind": before.kind}, before)
            pools.edit(session, name, pool_work.values_of(ctx.settings, given, before), by=actor.name)
    except Exception as error:  # noqa: BLE001 - what is not for people is raised again
        return _wrong(request, ctx, seen, fields, error)
    return RedirectResponse(f"/archive/pools#pool-{name}", 303)


@routes.post("/archive/pools/{name}/remove")
def remove(request: Request, ctx: Ctx, actor: Annotated[Actor, _MANAGES], name: str) -> Response:
    """Gone where it never made a disc, else closed."""
    with ctx.db.begin() as session:
        gone = pools.remove(session, name, by=actor.name)
    return told(request, "archive.told_pool_gone" if gone else "archive.told_pool_closed", reload=True, name=name)


@routes.post("/archive/pools/{name}/burn")
def burn(request: Request, ctx: Ctx, ops: Ops, _actor: Annotated[Actor, needs("jobs.make")], name: str) -> Response:
    """Make discs of all that waits; the answer asks for itself again until their jobs are there."""
    with ctx.db.read() as session:
        pools.require_open(pools.get(session, name))

    def work(planning: Planning) -> Document:
        def note(phase: str, done: int, total: int, _unit: str) -> None:
            planning.progress = {"phase": phase, "done": done, "total": total}

        made = filling.fill(
            ctx, name, everything=True, submit=ops.submit, progress=note, cancelled=lambda: planning.given_up
        )
        return {"jobs": [f"J{job}" for job in made]}

    plannings: Plannings = request.app.state.plannings
    return working_on(request, plannings.begin(work, ""))


@routes.get("/archive/work/{token}", dependencies=[_MAY_READ])
def working(request: Request, token: str) -> Response:
    """How far discs are ordered: of a pool, or of a volume that is made again."""
    plannings: Plannings = request.app.state.plannings
    return working_on(request, plannings.get(token))


def working_on(request: Request, planning: Planning) -> Response:
    """How far it is, what came of it, or what went wrong."""
    texts = texts_of(language_of(request))
    return page(request, "parts/ordering.html", planning=planning, plan=planning.plan, **trouble_of(texts, planning))


# -- the form ----------------------------------------------------------------------------------------------------------


def _given(texts: Texts, fields: dict[str, str], before: Pool | None = None) -> dict[str, Any]:
    """All that the form decides, as ``jobs.pools.values_of`` reads it."""
    read = Reader(fields, texts)
    options = read.options(OPTIONS, before.options if before is not None else {})
    label = read.text("label_text")
    options = {key: value for key, value in options.items() if key != "label_text"}
    given: dict[str, Any] = {
        "kind": read.text("kind"),
        "options": options | ({"label_text": label} if label else {}),
        "copies": read.whole("copies", "archive.copies"),
        "min_fill": read.number("min_fill", "pool.min_fill"),
        "latest_days": read.whole("latest_days", "pool.latest_days"),
        "keep_days": read.whole("keep_days", "pool.keep_days") or 0,
        "quiet_minutes": read.whole("quiet_minutes", "pool.quiet_minutes") or 0,
        "shelves": read.lines("shelves"),
        "required_copies": read.whole("required_copies", "pool.required_copies"),
    }
    if given["kind"] == "backup":  # no places of the archive: none can be demanded
        given["required_copies"] = None
    return given


def _fields_of(pool: Pool) -> dict[str, str]:
    found = {name: str(pool.options.get(name, "")) for name in (*OPTIONS, "label_text")}
    found["patients_per_disc"] = found["patients_per_disc"] or "many"
    for name in ("kind", "copies", "keep_days", "quiet_minutes"):
        found[name] = str(getattr(pool, name))
    found["min_fill"] = f"{pool.min_fill:g}"
    found["required_copies"] = str(pool.required_copies or "")
    found["latest_days"] = str(pool.latest_days or "")
    found["shelves"] = "\n".join(pool.shelves)
    return found


def _form(
    request: Request, ctx: Context, pool: Pool | None, given: dict[str, str], *, error: str = "", status: int = 200
) -> Response:
    known = set(OPTIONS) | {"label_text"}
    values: dict[str, Any] = {
        "pool": pool,
        "version": version(pool, pools.COLUMNS),
        "others": {key: value for key, value in (pool.options if pool else {}).items() if key not in known},
        **disc_choices(ctx),
    }
    return page(request, "archive_pool_form.html", status=status, given=given, error=error, **values)


def _wrong(request: Request, ctx: Context, pool: Pool | None, fields: dict[str, str], error: Exception) -> Response:
    given, why, status = refused(request, error, fields, _fields_of(pool) if pool is not None else {})
    return _form(request, ctx, pool, given, error=why, status=status)
