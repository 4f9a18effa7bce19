"""Schedules: what each does and when; made, changed and removed, each with a preview of what it would do now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Form, Query
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from jobs import schedules as schedule_work
from jobs import triggers
from jobs.context import Context
from jobs.options import OptionsError
from service.api.access import Actor, Ctx, Ops, needs
from service.errors import NotDone, as_refusal
from service.web.board import told
from service.web.forms import Fields, Reader, disc_choices, refused, require_unchanged, version
from service.web.pages import language_of, page
from service.web.routes import router
from service.web.texts import Texts, texts_of
from store import pools, schedules
from store.models_archive import Schedule
from store.models_base import now

routes = router()
_MAY_READ = needs("discs.read")
_MANAGES = needs("schedules.manage")
_OPTIONS = ("profile", "medium", "burner")
"""Options of an archive schedule without a pool that the form has."""
_LISTS = ("modality", "calling_ae", "called_ae", "station")
_NUMBERS = ("min_age_hours", "max_age_days", "not_on_discs")
_UNITS = ((604_800, "w"), (86_400, "d"), (3600, "h"), (60, "m"))
_UPCOMING = 3


@routes.get("/archive/schedules", dependencies=[_MAY_READ])
def schedules_page(request: Request, ctx: Ctx) -> Response:
    with ctx.db.read() as session:
        found = [schedule_work.schedule_document(session, row, runs=5) for row in schedules.every(session)]
    return page(request, "archive_schedules.html", schedules=found)


@routes.get("/archive/schedules/{name}/preview", dependencies=[needs("plans.make")])
def preview(request: Request, ctx: Ctx, name: str) -> Response:
    """What it would put on which discs now."""
    return page(request, "parts/schedule_preview.html", preview=schedule_work.preview(ctx, name), upcoming=[])


@routes.post("/archive/schedules/{name}/switch")
def switch(
    request: Request, ctx: Ctx, actor: Annotated[Actor, _MANAGES], name: str, on: Annotated[bool, Form()]
) -> Response:
    """On or off. Switched on it counts from now: what was missed meanwhile is not made up for."""
    with ctx.db.begin() as session:
        before = schedules.get(session, name, lock=True)
        values = {"enabled": on}
        if on:
            values = schedule_work.values_of(session, ctx.settings, values, before)
        schedules.edit(session, name, values, by=actor.name)
    return told(request, "archive.told_on" if on else "archive.told_off", name=name)


@routes.post("/archive/schedules/{name}/run")
def run(request: Request, ctx: Ctx, ops: Ops, actor: Annotated[Actor, _MANAGES], name: str) -> Response:
    """Fire it now, whatever the clock says."""
    result = schedule_work.Scheduler(ctx, ops.submit, in_threads=False).run_now(name, by=actor.name)
    if "error" in result:
        raise NotDone(f"{name}: {result['error']}", "SCHEDULE")
    return told(request, "archive.told_ran", name=name)


@routes.post("/archive/schedules/{name}/remove")
def remove(request: Request, ctx: Ctx, actor: Annotated[Actor, _MANAGES], name: str) -> Response:
    with ctx.db.begin() as session:
        schedules.remove(session, name, by=actor.name)
    return told(request, "archive.told_schedule_gone", name=name)


# -- the form ----------------------------------------------------------------------------------------------------------


@routes.get("/archive/new-schedule", dependencies=[_MANAGES])
def new(request: Request, ctx: Ctx, kind: Annotated[str, Query(max_length=16)] = "archive") -> Response:
    schedule_work.kind_of(kind)
    given = {
        "kind": kind,
        "trigger": "cron",
        "cron": "0 22 * * *",
        "every": "1d",
        "timezone": ctx.settings.site.timezone or "UTC",
        "enabled": "true",
    }
    with ctx.db.read() as session:
        given["pool"] = next((pool.name for pool in pools.every(session)), "") if kind == "archive" else ""
        return _form(request, ctx, session, None, given)


@routes.post("/archive/schedules")
def add(request: Request, ctx: Ctx, actor: Annotated[Actor, _MANAGES], fields: Fields) -> Response:
    texts = texts_of(language_of(request))
    name = fields.get("name", "")
    try:
        if not schedule_work.NAME.fullmatch(name):
            raise OptionsError(texts("forms.name"))
        with ctx.db.begin() as session:
            values = schedule_work.values_of(session, ctx.settings, _given(texts, fields))
            schedules.add(session, name, values, by=actor.name)
    except Exception as error:  # noqa: BLE001 - what is not for people is raised again
        return _wrong(request, ctx, None, fields, error)
    return RedirectResponse(f"/archive/schedules#schedule-{name}", 303)


@routes.get("/archive/schedules/{name}", dependencies=[_MANAGES])
def show(request: Request, ctx: Ctx, name: str) -> Response:
    with ctx.db.read() as session:
        row = schedules.get(session, name)
        return _form(request, ctx, session, row, _fields_of(row))


@routes.post("/archive/schedules/{name}")
def change(request: Request, ctx: Ctx, actor: Annotated[Actor, _MANAGES], name: str, fields: Fields) -> Response:
    texts = texts_of(language_of(request))
    with ctx.db.read() as session:
        seen = schedules.get(session, name)
    try:
        with ctx.db.begin() as session:
            before = schedules.get(session, name, lock=True)
            require_unchanged(texts, fields, before, schedules.COLUMNS)
            values = schedule_work.values_of(session, ctx.settings, _given(texts, fields, before), before)
            schedules.edit(session, name, values, by=actor.name)
    except Exception as error:  # noqa: BLE001 - what is not for people is raised again
        return _wrong(request, ctx, seen, fields, error)
    return RedirectResponse(f"/archive/schedules#schedule-{name}", 303)


@routes.post("/archive/schedule-preview", dependencies=[_MANAGES])
def preview_of_form(request: Request, ctx: Ctx, fields: Fields) -> Response:
    """What a schedule as it is filled in would do now, and when it would fire; nothing is kept."""
    texts = texts_of(language_of(request))
    name = fields.get("name", "")
    try:
        with ctx.db.read() as session:
            before = schedules.get(session, name) if fields.get("version") else None
            values = schedule_work.values_of(session, ctx.settings, _given(texts, fields, before), before)
        at = now()
        firing = schedule_work.Firing(name or "new", values["rules"], values["options"], values["pool"], at)
        found = schedule_work.kind_of(values["kind"]).preview(ctx, firing)
        row = Schedule(created_at=at, last_fire=None, **values)
        upcoming = schedule_work.upcoming(row, _UPCOMING)
    except Exception as error:
        refusal = as_refusal(error)
        if refusal is None:
            raise
        advice = texts.known(f"advice.{refusal.code}", texts("advice.other"))
        return page(request, "parts/notice.html", status=422, kind="bad", text=texts.refusal(refusal), advice=advice)
    return page(request, "parts/schedule_preview.html", preview=found, upcoming=upcoming)


def _given(texts: Texts, fields: dict[str, str], before: Schedule | None = None) -> dict[str, Any]:
    """All that the form decides, as ``jobs.schedules.values_of`` reads it."""
    read = Reader(fields, texts)
    kind = before.kind if before is not None else read.text("kind")
    if read.text("trigger") == "every":
        every, as_it_was = read.text("every"), before.trigger.get("every_seconds") if before is not None else None
        same = as_it_was is not None and every == _interval(as_it_was)  # which may be a round number of it
        trigger: dict[str, Any] = {"every_seconds": as_it_was if same else triggers.interval_seconds(every)}
    else:
        trigger = {"cron": " ".join(read.text("cron").split())}
    pool = read.text("pool") or None
    rules: dict[str, Any] = {}
    options: dict[str, Any] = dict(before.options) if before is not None else {}
    if kind == "archive":
        rules = _rules(read)
        options = {} if pool else _own_discs(read, options)
    elif kind == "purge":
        pool = None
        for name in ("min_copies", "older_than_days"):
            _put(options, name, read.whole(name, f"schedule.{name}"))
        _put(options, "to_low_mark", read.ticked("to_low_mark") or None)
    elif kind == "reverify":
        for name in ("months", "at_most"):
            _put(options, name, read.whole(name, f"schedule.{name}"))
        _put(options, "refresh", read.ticked("refresh") or None)
        _put(options, "pool", pool)
    return {
        "kind": kind,
        "enabled": read.ticked("enabled"),
        "trigger": trigger,
        "timezone": read.text("timezone") or "UTC",
        "blackouts": [triggers.blackout_document(line) for line in read.lines("blackouts")],
        "rules": rules,
        "options": options,
        "pool": pool,
    }


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    """Set it, or take it away where there is none."""
    values.pop(name, None)
    if value is not None:
        values[name] = value


def _rules(read: Reader) -> dict[str, Any]:
    rules: dict[str, Any] = {name: read.words(name) for name in _LISTS}
    rules["modality"] = [word.upper() for word in rules["modality"]]
    rules["date_range"] = read.text("date_range")
    rules |= {name: read.number(name, f"schedule.{name}") for name in _NUMBERS}
    return {key: value for key, value in rules.items() if value}


def _own_discs(read: Reader, before: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a schedule that makes its discs by itself."""
    options = read.options(_OPTIONS, before)
    _put(options, "copies", read.whole("copies", "archive.copies"))
    _put(options, "purpose", "backup" if read.text("purpose") == "backup" else None)
    return options


def _fields_of(row: Schedule) -> dict[str, str]:
    every = row.trigger.get("every_seconds")
    found = {
        "kind": row.kind,
        "name": row.name,
        "trigger": "every" if every else "cron",
        "cron": str(row.trigger.get("cron", "")),
        "every": _interval(every) if every else "",
        "timezone": row.timezone,
        "blackouts": "\n".join(_window(one) for one in row.blackouts),
        "enabled": "true" if row.enabled else "",
        "pool": row.pool or str(row.options.get("pool", "")),
    }
    found |= {name: ", ".join(row.rules.get(name, [])) for name in _LISTS}
    found |= {name: f"{row.rules[name]:g}" if name in row.rules else "" for name in _NUMBERS}
    found["date_range"] = str(row.rules.get("date_range", ""))
    for name, value in row.options.items():
        if name != "pool":
            found[name] = ("true" if value else "") if isinstance(value, bool) else str(value)
    return found


def _interval(seconds: int) -> str:
    """As ``jobs.triggers.interval_seconds`` reads it; of one that is no whole number of minutes, the nearest."""
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds % size == 0), _UNITS[-1])
    return f"{max(1, round(seconds / size))}{unit}"


def _window(document: Mapping[str, Any]) -> str:
    """As ``jobs.triggers.blackout_document`` reads it."""
    return f"{','.join(document.get('days') or ())} {document['from']}-{document['to']}".strip()


def _form(
    request: Request,
    ctx: Context,
    session: Session,
    row: Schedule | None,
    given: dict[str, str],
    *,
    error: str = "",
    status: int = 200,
) -> Response:
    kind = row.kind if row is not None else given.get("kind", "archive")
    values: dict[str, Any] = {
        "schedule": row,
        "kind": kind if kind in schedule_work.KINDS else "archive",
        "kinds": list(schedule_work.KINDS),
        "version": version(row, schedules.COLUMNS),
        "pool_names": [one.name for one in pools.every(session)],
        **disc_choices(ctx),
    }
    return page(request, "archive_schedule_form.html", status=status, given=given, error=error, **values)


def _wrong(request: Request, ctx: Context, row: Schedule | None, fields: dict[str, str], error: Exception) -> Response:
    given, why, status = refused(request, error, fields, _fields_of(row) if row is not None else {})
    with ctx.db.read() as session:
        return _form(request, ctx, session, row, given, error=why, status=status)
