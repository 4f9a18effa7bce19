"""Routes: the catalogue rebuilt from discs, written out, read in again."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated, Any

from fastapi import Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from service import rebuilding
from service.api import answers
from service.api.access import Actor, Ctx, needs
from service.api.places import readable
from service.api.streaming import answer
from service.bodiless import wants_body
from service.errors import NotFound, UsageError
from store import auditwhat, entering, exchange, exchange_enter
from store.auditwhat import Who
from store.exchange_values import BadRecord

router = answers.router()
_LAST = (1 << 62) - 1


class RebuildBody(BaseModel):
    model_config = ConfigDict(extra="forbid")
    paths: list[Annotated[str, Field(min_length=1, max_length=4096)]] = Field(min_length=1, max_length=10_000)
    """Absolute, on the machine of the service: images, drives, mounted discs, folders full of these."""
    dry_run: bool = False
    another_copy: bool = False


@router.post(
    "/catalogue/rebuild",
    summary="Enter what discs hold, from the discs alone",
    response_model=None,
    responses=answers.problems(409),
)
def rebuild(
    ctx: Ctx, body: RebuildBody, request: Request, actor: Annotated[Actor, needs("catalogue.import")]
) -> dict[str, Any] | Response:
    """What became of each medium, and which volumes of their sets are missing; with ``Accept: application/x-ndjson``
    progress line by line, at last ``{"rebuild": ...}``."""
    for path in body.paths:
        readable(ctx.settings, actor, path)
    return answer(
        request,
        "rebuild",
        lambda progress, cancelled: rebuilding.run(
            ctx,
            body.paths,
            dry_run=body.dry_run,
            another_copy=body.another_copy,
            by=actor.name,
            progress=progress,
            cancelled=cancelled,
        ),
    )


@router.get(
    "/catalogue/export",
    summary="The head of an export of the catalogue, and up to where its tables go",
    dependencies=[needs("catalogue.export")],
)
def export(ctx: Ctx) -> dict[str, Any]:
    """What ``GET /catalogue/export/{table}`` is asked with, table by table in the order of ``until``."""
    with ctx.db.read() as session:
        return exchange.head(session, site=ctx.settings.site.institution, software=f"Burnish {version('burnish')}")


@router.get(
    "/catalogue/export/{table}",
    summary="Records of a table of the catalogue",
    responses=answers.problems(404),
)
def export_table(
    ctx: Ctx,
    request: Request,
    actor: Annotated[Actor, needs("catalogue.export")],
    table: str,
    until: Annotated[int, Query(ge=0, le=_LAST, description="As the export's head says of this table")] = _LAST,
    limit: answers.Limit = answers.DEFAULT_PAGE,
    cursor: answers.Cursor = None,
) -> dict[str, Any]:
    if table not in exchange.TABLES:
        raise NotFound(f"there is no table {table[:40]!r}; there are {', '.join(exchange.TABLES)}")
    after = answers.read_cursor(cursor, str)[0] if cursor else 0
    if table == "volume":
        limit = min(limit, 20)  # each bears its README.TXT and VOLUMES.TXT
    try:
        with ctx.db.read() as session:
            found, last = exchange.page(session, table, after=after, until=until, limit=limit)
    except ValueError:
        raise UsageError("cursor is none of this list; begin again without one", "BAD_CURSOR") from None
    if cursor is None and wants_body(request):
        with ctx.db.begin() as session:
            told = auditwhat.catalogue_exported(Who(actor.name, actor.address), table)
            ctx.audit.record(session, told)
    return answers.listing(found, answers.cursor(str(last)) if last is not None else None)


class ImportBody(BaseModel):
    model_config = ConfigDict(extra="forbid")
    records: list[dict[str, Any]] = Field(max_length=10_000)
    """As an export has them, in its order; all are entered, or none."""
    file_set_number: int = Field(default=0, ge=0, le=10**9)
    """Of the export's head: running numbers of File-set IDs go on behind it."""


@router.post("/catalogue/import", summary="Enter records of an exported catalogue", responses=answers.problems(409))
def import_(
    ctx: Ctx, body: ImportBody, actor: Annotated[Actor, needs("catalogue.import")]
) -> dict[str, dict[str, int]]:
    """How many of each table were ``new``, and how many ``known``: those stay as they are."""
    with ctx.db.begin() as session:
        if body.file_set_number:
            entering.raise_number(session, "file_set", body.file_set_number)
        try:
            counts = exchange_enter.enter(session, body.records, rebuilding.options_of(ctx.settings))
        except BadRecord as error:
            raise UsageError(str(error), "BAD_EXPORT") from None
        new = {table: told["new"] for table, told in counts.items() if told["new"]}
        if new:
            entering.note_import(session, new, by=actor.name)
    return counts
