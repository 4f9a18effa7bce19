"""Routes: watched folders and drives, and what they brought."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path

from jobs.context import Context
from service.api import answers
from service.api.access import Ctx, Ops, needs
from service.contract import Document
from service.errors import NotFound
from store import watches

router = answers.router()
Name = Annotated[str, Path(pattern="^[A-Za-z0-9_-]{1,32}$")]


@router.get("/watches", summary="Watched folders and drives, and how they stand", dependencies=[needs("studies.read")])
def watched(ctx: Ctx, ops: Ops) -> dict[str, Any]:
    """``state``: ``watching``, ``absent`` (there is no such place), ``failing`` (``detail`` says why), or ``not
    running``: no service runs here."""
    live = {document["name"]: document for document in ops.watches()}
    with ctx.db.read() as session:
        counts = watches.counts(session, [watch.name for watch in ctx.settings.watch])
    return answers.listing(
        {
            **watch.model_dump(mode="json"),
            **live.get(watch.name, {"state": "not running"}),
            "seen": counts.get(watch.name, 0),
        }
        for watch in ctx.settings.watch
    )


@router.get(
    "/watches/{name}/seen",
    summary="What a watched place brought, the newest first",
    dependencies=[needs("studies.read")],
    responses=answers.problems(404),
)
def seen(
    ctx: Ctx, name: Name, limit: answers.Limit = answers.DEFAULT_PAGE, cursor: answers.Cursor = None
) -> dict[str, Any]:
    """Each disc, image or folder once, with its result: verified, imported, refused, sent on."""
    _known(ctx, name)
    before = answers.read_cursor(cursor, int)[0] if cursor is not None else None
    with ctx.db.read() as session:
        rows: list[Document] = watches.listed(session, name, limit, before)
    return answers.listing(rows, answers.cursor(rows[-1]["seen"]) if len(rows) == limit else None)


@router.delete(
    "/watches/{name}/seen/{number}",
    summary="Have a disc dealt with again when it is next seen",
    dependencies=[needs("studies.receive")],
    responses=answers.problems(404),
)
def forget(ctx: Ctx, name: Name, number: Annotated[int, Path(ge=1, lt=1 << 62)]) -> dict[str, Any]:
    """What lies there must be changed, or put there anew, to be seen again; a disc in a drive, inserted again."""
    _known(ctx, name)
    with ctx.db.begin() as session:
        if not watches.forget(session, name, number):
            raise NotFound(f"{name} has brought nothing with the number {number}")
    return {"forgotten": number}


def _known(ctx: Context, name: str) -> None:
    if name not in [watch.name for watch in ctx.settings.watch]:
        raise NotFound(f"there is no watched place {name}")
