"""Routes: pools of discs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Path, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from jobs import filling, pools
from service.api import answers
from service.api.access import Actor, Ctx, Ops, needs
from service.api.conditional import IfMatch, Versioned, require_match, version_of
from service.api.models import OptionsBody, SelectionBody
from service.api.streaming import answer
from store import pools as store_pools
from store import waiting
from store.models import Instance
from store.models_archive import Pool
from store.selection import Selection, selecting

router = answers.router()
Name = Annotated[str, Field(pattern=f"^{pools.NAME.pattern}$")]
NamePath = Annotated[str, Path(pattern=f"^{pools.NAME.pattern}$", description="Name of a pool")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PoolValues(_Body):
    """What is decided about a pool; what is left out is as before, or the default."""

    kind: Literal["archive", "backup"] | None = None
    options: OptionsBody | None = None
    """How discs are made; of a change only what is given, null: as the settings say."""
    copies: int | None = Field(default=None, ge=1, le=99)
    required_copies: int | None = Field(default=None, ge=0, le=99)
    min_fill: float | None = Field(default=None, ge=1, le=100)
    latest_days: int | None = Field(default=None, ge=1, le=36_500)
    """null: what waits may wait for ever."""
    keep_days: int | None = Field(default=None, ge=0, le=36_500)
    quiet_minutes: int | None = Field(default=None, ge=0, le=10_080)
    shelves: list[Annotated[str, Field(max_length=255)]] | None = Field(default=None, max_length=99)

    def given(self, before: Pool | None = None) -> dict[str, Any]:
        found = {name: getattr(self, name) for name in self.model_fields_set - {"name", "options"}}
        found = {name: value for name, value in found.items() if value is not None or name == "latest_days"}
        if self.options is not None:
            options = dict(before.options if before else {}) | self.options.model_dump(exclude_unset=True)
            found["options"] = {key: value for key, value in options.items() if value is not None}
        return found


class PoolBody(PoolValues):
    name: Name


class PutBody(_Body):
    selection: SelectionBody


@router.get(
    "/pools", summary="The pools: what waits in them, which discs they have", dependencies=[needs("discs.read")]
)
def pools_list(
    ctx: Ctx,
    *,
    closed: Annotated[bool, Query(description="Those that are closed, too")] = False,
    limit: answers.Limit = answers.DEFAULT_PAGE,
    cursor: answers.Cursor = None,
) -> dict[str, Any]:
    with ctx.db.read() as session:
        found = [pools.pool_document(session, pool) for pool in store_pools.every(session, closed=closed)]
    return answers.page_of(found, limit, cursor)


@router.post("/pools", status_code=201, summary="Make a pool", responses=answers.problems(409))
def add(ctx: Ctx, body: PoolBody, actor: Annotated[Actor, needs("pools.manage")]) -> dict[str, Any]:
    values = pools.values_of(ctx.settings, body.given())
    with ctx.db.begin() as session:
        return pools.pool_document(session, store_pools.add(session, body.name, values, by=actor.name))


@router.get(
    "/pools/{name}",
    summary="A pool: also what its discs cannot hold, and its open jobs",
    dependencies=[needs("discs.read")],
    **answers.returns(dict[str, Any], 200, 404),
)
def show(ctx: Ctx, name: NamePath) -> Versioned:
    with ctx.db.read() as session:
        pool = store_pools.get(session, name)
        return Versioned(pools.full_document(ctx, session, pool), _version(pool))


@router.patch("/pools/{name}", summary="Change a pool", **answers.returns(dict[str, Any], 200, 404, 409))
def edit(
    ctx: Ctx,
    name: NamePath,
    body: PoolValues,
    actor: Annotated[Actor, needs("pools.manage")],
    if_match: IfMatch = None,
) -> Versioned:
    with ctx.db.begin() as session:
        before = store_pools.get(session, name, lock=True)
        require_match(if_match, _version(before), lambda: pools.full_document(ctx, session, before))
        values = pools.values_of(ctx.settings, _kept_in_step(body.given(before), before), before)
        pool = store_pools.edit(session, name, values, by=actor.name)
        return Versioned(pools.pool_document(session, pool), _version(pool))


def _version(pool: Pool) -> str:
    return version_of(pool, (*store_pools.COLUMNS, "closed_at"))


def _kept_in_step(given: dict[str, Any], before: Pool) -> dict[str, Any]:
    """Where all copies were required, all of the new number are; places of copies that are no longer made go."""
    copies = given.get("copies", before.copies)
    if "required_copies" not in given and before.kind == "archive":
        every = before.required_copies == before.copies
        given["required_copies"] = copies if every else min(before.required_copies, copies)
    if "shelves" not in given:
        given["shelves"] = before.shelves[:copies]
    return given


@router.delete(
    "/pools/{name}",
    summary="Remove a pool, or close it where it has discs",
    responses=answers.problems(404, 409),
)
def remove(
    ctx: Ctx, name: NamePath, actor: Annotated[Actor, needs("pools.manage")], if_match: IfMatch = None
) -> dict[str, Any]:
    """``{"pool", "removed"}``: false means that it is closed, because it has discs."""
    with ctx.db.begin() as session:
        before = store_pools.get(session, name, lock=True)
        require_match(if_match, _version(before), lambda: pools.full_document(ctx, session, before))
        return {"pool": name, "removed": store_pools.remove(session, name, by=actor.name)}


@router.post(
    "/pools/{name}/instances", summary="Let instances wait for a pool's discs", responses=answers.problems(404, 409)
)
def put(ctx: Ctx, name: NamePath, body: PutBody, actor: Annotated[Actor, needs("jobs.make")]) -> dict[str, Any]:
    """``{"pool", "instances"}``: how many the pool did not have yet."""
    meant = selecting(Selection.from_json(body.selection.given())).where(Instance.series_id.is_not(None))
    with ctx.db.begin() as session:
        pool = store_pools.get(session, name, lock=True)
        store_pools.require_open(pool)
        count = waiting.put(session, pool, meant)
        store_pools.note(session, name, "put", by=actor.name, instances=count)
    return {"pool": name, "instances": count}


@router.post(
    "/pools/{name}/burn",
    summary="Make discs of all that waits, however little",
    response_model=None,
    responses=answers.problems(404, 409),
    dependencies=[needs("jobs.make")],
)
def burn(ctx: Ctx, ops: Ops, name: NamePath, request: Request) -> dict[str, Any] | Response:
    """``{"pool", "jobs", "waiting"}``; with ``Accept: application/x-ndjson`` progress, at last ``{"burn": ...}``."""
    with ctx.db.read() as session:
        store_pools.get(session, name)

    def work(progress: Any, cancelled: Any) -> dict[str, Any]:
        def told(phase: str, done: int, total: int, unit: str) -> None:
            progress({"phase": phase, "done": done, "total": total, "unit": unit})

        made = filling.fill(ctx, name, everything=True, submit=ops.submit, progress=told, cancelled=cancelled)
        with ctx.db.read() as session:
            left = waiting.summary(session, name).instances
        return {"pool": name, "jobs": [f"J{job}" for job in made], "waiting": left}

    return answer(request, "burn", work)
