"""Routes: schedules."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field

from jobs import schedules
from service.api import answers
from service.api.access import Actor, Ctx, Ops, needs
from service.api.conditional import IfMatch, Versioned, require_match, version_of
from service.errors import NotDone
from store import schedules as store_schedules
from store.models_archive import Schedule

router = answers.router()
Name = Annotated[str, Field(pattern=f"^{schedules.NAME.pattern}$")]
NamePath = Annotated[str, Path(pattern=f"^{schedules.NAME.pattern}$", description="Name of a schedule")]
Runs = Annotated[int, Query(ge=0, le=1000, description="At most so many of its newest runs")]
_UPCOMING = 5


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ScheduleValues(_Body):
    """What is decided about a schedule; what is left out is as before, or the default."""

    kind: Annotated[str, Field(max_length=16)] | None = None
    enabled: bool | None = None
    cron: Annotated[str, Field(max_length=255)] | None = None
    every_seconds: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None
    timezone: Annotated[str, Field(max_length=64)] | None = None
    blackouts: list[dict[str, Any]] | None = Field(default=None, max_length=50)
    rules: dict[str, Any] | None = None
    """Of a change only what is given; null takes a rule away. The same for options."""
    options: dict[str, Any] | None = None
    pool: Annotated[str, Field(max_length=32)] | None = None

    def given(self, before: Schedule | None = None) -> dict[str, Any]:
        found = {
            name: getattr(self, name)
            for name in ("kind", "enabled", "timezone", "blackouts")
            if getattr(self, name) is not None
        }
        if "pool" in self.model_fields_set:
            found["pool"] = self.pool
        for name in ("rules", "options"):
            changes = getattr(self, name)
            if changes is not None:
                merged = dict(getattr(before, name) if before else {}) | changes
                found[name] = {key: value for key, value in merged.items() if value is not None}
        trigger = {name: getattr(self, name) for name in ("cron", "every_seconds") if getattr(self, name) is not None}
        if trigger:
            found["trigger"] = trigger
        return found


class ScheduleBody(ScheduleValues):
    name: Name


class PreviewBody(ScheduleValues):
    schedule: Name | None = None
    """One that there is, as it would be if it were changed so; null: a new one, which may leave open when it fires."""


@router.get("/schedules", summary="The schedules, when each fires next", dependencies=[needs("discs.read")])
def schedules_list(
    ctx: Ctx, *, limit: answers.Limit = answers.DEFAULT_PAGE, cursor: answers.Cursor = None
) -> dict[str, Any]:
    with ctx.db.read() as session:
        found = [schedules.schedule_document(session, row) for row in store_schedules.every(session)]
    return answers.page_of(found, limit, cursor)


@router.post("/schedules", status_code=201, summary="Make a schedule", responses=answers.problems(404, 409))
def add(ctx: Ctx, body: ScheduleBody, actor: Annotated[Actor, needs("schedules.manage")]) -> dict[str, Any]:
    with ctx.db.begin() as session:
        values = schedules.values_of(session, ctx.settings, body.given())
        return _document(session, store_schedules.add(session, body.name, values, by=actor.name))


@router.get(
    "/schedules/{name}",
    summary="A schedule, its next firings and its newest runs",
    dependencies=[needs("discs.read")],
    **answers.returns(dict[str, Any], 200, 404),
)
def show(ctx: Ctx, name: NamePath, runs: Runs = 20) -> Versioned:
    with ctx.db.read() as session:
        row = store_schedules.get(session, name)
        return Versioned(_document(session, row, runs), _version(row))


@router.patch(
    "/schedules/{name}",
    summary="Change, enable or disable a schedule",
    **answers.returns(dict[str, Any], 200, 404, 409),
)
def edit(
    ctx: Ctx,
    name: NamePath,
    body: ScheduleValues,
    actor: Annotated[Actor, needs("schedules.manage")],
    if_match: IfMatch = None,
) -> Versioned:
    with ctx.db.begin() as session:
        before = store_schedules.get(session, name, lock=True)
        require_match(if_match, _version(before), lambda: _document(session, before))
        values = schedules.values_of(session, ctx.settings, body.given(before), before)
        row = store_schedules.edit(session, name, values, by=actor.name)
        return Versioned(_document(session, row), _version(row))


@router.delete("/schedules/{name}", summary="Remove a schedule", responses=answers.problems(404))
def remove(
    ctx: Ctx, name: NamePath, actor: Annotated[Actor, needs("schedules.manage")], if_match: IfMatch = None
) -> dict[str, Any]:
    """``{"schedule"}``; what it has made stays."""
    with ctx.db.begin() as session:
        before = store_schedules.get(session, name, lock=True)
        require_match(if_match, _version(before), lambda: _document(session, before))
        store_schedules.remove(session, name, by=actor.name)
    return {"schedule": name}


@router.post("/schedules/{name}/run", summary="Fire a schedule now", responses=answers.problems(404, 409))
def run(ctx: Ctx, ops: Ops, name: NamePath, actor: Annotated[Actor, needs("schedules.manage")]) -> dict[str, Any]:
    """What came of it: ``{"schedule", "result"}``."""
    result = schedules.Scheduler(ctx, ops.submit, in_threads=False).run_now(name, by=actor.name)
    if "error" in result:
        raise NotDone(f"schedule {name}: {result['error']}", "SCHEDULE")
    return {"schedule": name, "result": result}


@router.get(
    "/schedules/{name}/preview",
    summary="What a schedule would do now, and on which discs; nothing is done",
    dependencies=[needs("discs.read")],
    responses=answers.problems(404, 409),
)
def preview(ctx: Ctx, name: NamePath) -> dict[str, Any]:
    return schedules.preview(ctx, name)


@router.post(
    "/schedules/preview",
    summary="What a schedule that is not kept would do now, and on which discs; nothing is done",
    dependencies=[needs("plans.make")],
    responses=answers.problems(404, 409),
)
def preview_unsaved(ctx: Ctx, body: PreviewBody) -> dict[str, Any]:
    """The document of a schedule's preview."""
    before = None
    if body.schedule is not None:
        with ctx.db.read() as session:
            before = store_schedules.get(session, body.schedule)
    return schedules.preview_of(ctx, body.given(before), before)


def _version(row: Schedule) -> str:
    return version_of(row, store_schedules.COLUMNS)


def _document(session: Any, row: Schedule, runs: int = 1) -> dict[str, Any]:
    return schedules.schedule_document(session, row, runs=runs) | {"upcoming": schedules.upcoming(row, _UPCOMING)}
