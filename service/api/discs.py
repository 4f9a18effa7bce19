"""Routes: discs as things that are kept, what is on too few of them, studies that are held in the spool."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from fastapi import Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from jobs import reburning, reverifying
from jobs.context import Context
from service.api import answers, places
from service.api.access import Actor, Ctx, Ops, needs
from service.api.conditional import IfMatch, Versioned, require_match, version_of
from service.api.models import SelectionBody
from service.api.streaming import answer
from service.contract import number
from service.errors import UsageError
from store import atrisk, copies, discviews, holds, shelves
from store.models_jobs import Disc
from store.selection import Selection, SelectionError, instance_ids

router = answers.router()
Text = Annotated[str, Field(max_length=255)]
_DECIDED = ("state", "purpose", "shelf", "checked_out_to", "checked_out_at", "marked", "marked_at", "marked_reason")
"""What people decide about a disc, for If-Match."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ShelfBody(_Body):
    shelf: Text


class CheckOutBody(_Body):
    to: Text


class ReturnBody(_Body):
    shelf: Text | None = None
    """None: where it was."""


class MarkBody(_Body):
    mark: Literal["LOST", "DAMAGED"]
    reason: str = Field(default="", max_length=2000)


class PurposeBody(_Body):
    purpose: Literal["archive", "backup", "handout"]


class PurposesBody(PurposeBody):
    discs: list[Annotated[str, Field(pattern=r"^[Dd]?[0-9]{1,18}$")]] = Field(default=[], max_length=10_000)
    all_unknown: bool = False
    file_set_id: str = Field(default="", max_length=16, pattern=r"^[A-Za-z0-9_ *?]*$")


class FoundBody(_Body):
    reason: str = Field(default="", max_length=2000)


class ReburnBody(_Body):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)
    of: str = Field(min_length=1, max_length=64)
    copies: int | None = Field(default=None, ge=1, le=99)
    burner: str = Field(default="", max_length=32)
    from_: str = Field(default="", alias="from", max_length=4096)
    priority: Literal["high", "med", "low"] = "med"


class HoldBody(_Body):
    selection: SelectionBody
    reason: str = Field(min_length=1, max_length=2000)
    until: str = Field(default="", max_length=40)
    """A day, the last one, or a moment (RFC 3339); empty: until it is released."""


class ReleaseBody(_Body):
    holds: list[Annotated[str, Field(pattern=r"^H?[0-9]{1,18}$")]] = Field(default=[], max_length=10_000)
    selection: SelectionBody | None = None


@router.get("/discs", summary="Discs: what they are copies of, where they are", dependencies=[needs("discs.read")])
def discs(
    ctx: Ctx,
    *,
    pool: Annotated[str, Query(max_length=32)] = "",
    purpose: Literal["", "archive", "backup", "handout", "unknown"] = "",
    shelf: Annotated[str, Query(max_length=255, description="How the shelf begins")] = "",
    file_set_id: Annotated[str, Query(max_length=16)] = "",
    marked: Annotated[bool, Query(description="Lost or damaged, as a person said")] = False,
    out: Annotated[bool, Query(description="Checked out")] = False,
    flagged: Annotated[bool, Query(description="Found worn or damaged when read again")] = False,
    every: Annotated[bool, Query(description="Those that are not verified, too")] = False,
    limit: answers.Limit = answers.DEFAULT_PAGE,
    cursor: answers.Cursor = None,
) -> dict[str, Any]:
    after = answers.read_cursor(cursor, int)[0] if cursor else 0
    with ctx.db.read() as session:
        found = discviews.discs(
            session,
            pool=pool,
            purpose=purpose,
            shelf=shelf,
            file_set_id=file_set_id,
            marked=marked,
            out=out,
            flagged=flagged,
            all_=every,
            after=after,
            limit=limit + 1,
        )
    more = answers.cursor(number("D", found[limit - 1]["disc"])) if len(found) > limit else None
    return answers.listing(found[:limit], more)


@router.get("/discs/due", summary="Discs that were not read for long", dependencies=[needs("discs.read")])
def due(
    ctx: Ctx,
    *,
    months: Annotated[int, Query(ge=1, le=1200)] = 12,
    pool: Annotated[str, Query(max_length=32)] = "",
    limit: answers.Limit = answers.DEFAULT_PAGE,
    cursor: answers.Cursor = None,
) -> dict[str, Any]:
    return answers.page_of(reverifying.due_document(ctx, months=months, pool=pool), limit, cursor)


@router.post(
    "/discs/recount",
    summary="Bring the numbers of copies into agreement with the discs",
    dependencies=[needs("discs.manage")],
)
def recount(ctx: Ctx) -> dict[str, Any]:
    with ctx.db.begin() as session:
        return {"recounted": copies.recount_all(session)}


@router.get(
    "/discs/{disc_id}",
    summary="A disc: what is on it, every reading of it, what happened to it",
    dependencies=[needs("discs.read")],
    **answers.returns(dict[str, Any], 200, 404),
)
def disc(ctx: Ctx, disc_id: answers.DiscId) -> Versioned:
    key = number("D", disc_id)
    with ctx.db.read() as session:
        document = discviews.disc(session, key)
        return Versioned(document, _version(session.get_one(Disc, key)))


@router.post(
    "/discs/{disc_id}/move", summary="Note where a disc is kept", **answers.returns(dict[str, Any], 200, 404, 409)
)
def move(
    ctx: Ctx,
    disc_id: answers.DiscId,
    body: ShelfBody,
    actor: Annotated[Actor, needs("discs.handle")],
    if_match: IfMatch = None,
) -> Versioned:
    with ctx.db.begin() as session:
        _require_match(session, disc_id, if_match)
        changed = shelves.move(session, number("D", disc_id), body.shelf, by=actor.name)
    return _told(ctx, changed)


@router.post(
    "/discs/{disc_id}/check-out", summary="Note who takes a disc", **answers.returns(dict[str, Any], 200, 404, 409)
)
def check_out(
    ctx: Ctx,
    disc_id: answers.DiscId,
    body: CheckOutBody,
    actor: Annotated[Actor, needs("discs.handle")],
    if_match: IfMatch = None,
) -> Versioned:
    with ctx.db.begin() as session:
        _require_match(session, disc_id, if_match)
        changed = shelves.check_out(session, number("D", disc_id), body.to, by=actor.name)
    return _told(ctx, changed)


@router.post(
    "/discs/{disc_id}/return", summary="Note that a disc is back", **answers.returns(dict[str, Any], 200, 404, 409)
)
def check_in(
    ctx: Ctx,
    disc_id: answers.DiscId,
    body: ReturnBody,
    actor: Annotated[Actor, needs("discs.handle")],
    if_match: IfMatch = None,
) -> Versioned:
    with ctx.db.begin() as session:
        _require_match(session, disc_id, if_match)
        changed = shelves.check_in(session, number("D", disc_id), body.shelf, by=actor.name)
    return _told(ctx, changed)


@router.post(
    "/discs/{disc_id}/mark",
    summary="A disc is lost or damaged: nobody counts on it any more",
    **answers.returns(dict[str, Any], 200, 404, 409),
)
def mark(
    ctx: Ctx,
    disc_id: answers.DiscId,
    body: MarkBody,
    actor: Annotated[Actor, needs("discs.manage")],
    if_match: IfMatch = None,
) -> Versioned:
    """The disc, and under ``too_few`` its volume, where that is now on too few discs."""
    with ctx.db.begin() as session:
        _require_match(session, disc_id, if_match)
        marked = shelves.mark(session, number("D", disc_id), body.mark, reason=body.reason, by=actor.name)
    return _told(ctx, marked)


@router.post(
    "/discs/{disc_id}/found", summary="A marked disc is there again", **answers.returns(dict[str, Any], 200, 404, 409)
)
def found(
    ctx: Ctx,
    disc_id: answers.DiscId,
    body: FoundBody,
    actor: Annotated[Actor, needs("discs.manage")],
    if_match: IfMatch = None,
) -> Versioned:
    with ctx.db.begin() as session:
        _require_match(session, disc_id, if_match)
        back = shelves.found(session, number("D", disc_id), reason=body.reason, by=actor.name)
    return _told(ctx, back)


@router.post(
    "/discs/{disc_id}/purpose",
    summary="A disc is for something else from now on",
    **answers.returns(dict[str, Any], 200, 404, 409),
)
def dedicate(
    ctx: Ctx,
    disc_id: answers.DiscId,
    body: PurposeBody,
    actor: Annotated[Actor, needs("discs.manage")],
    if_match: IfMatch = None,
) -> Versioned:
    with ctx.db.begin() as session:
        _require_match(session, disc_id, if_match)
        changed = shelves.dedicate(session, number("D", disc_id), body.purpose, by=actor.name)
    return _told(ctx, changed)


@router.post(
    "/discs/purpose", summary="Several discs are for something else from now on", responses=answers.problems(404, 409)
)
def dedicate_many(ctx: Ctx, body: PurposesBody, actor: Annotated[Actor, needs("discs.manage")]) -> dict[str, Any]:
    """Either the discs named, or with ``all_unknown`` or ``file_set_id`` (a pattern, ``*`` and ``?``) those of which
    nobody said what they are for. All or none."""
    if bool(body.discs) == (body.all_unknown or bool(body.file_set_id)):
        raise UsageError("say which discs: by number, or all_unknown or file_set_id for those of unknown purpose")
    with ctx.db.begin() as session:
        if body.discs:
            wanted = sorted({number("D", one.upper()) for one in body.discs})
            changed = [shelves.dedicate(session, one, body.purpose, by=actor.name).id for one in wanted]
        else:
            changed = shelves.dedicate_unknown(session, body.purpose, file_set_id=body.file_set_id, by=actor.name)
        left = atrisk.unconfirmed_discs(session)
    return {"purpose": body.purpose, "discs": [f"D{one}" for one in changed], "purpose_unknown": left}


@router.get("/at-risk", summary="What is on too few discs", dependencies=[needs("discs.read")])
def at_risk(
    ctx: Ctx,
    *,
    in_spool: Annotated[bool, Query(description="Volumes too of which everything is in the spool")] = False,
    limit: answers.Limit = answers.DEFAULT_PAGE,
    cursor: answers.Cursor = None,
) -> dict[str, Any]:
    after = answers.read_cursor(cursor, int)[0] if cursor else 0
    """``purpose_unknown`` of the first page: discs of which nobody said what they are for, and volumes that nothing
    else holds."""
    with ctx.db.read() as session:
        short = atrisk.volumes(session, in_spool_too=in_spool, after=after, limit=limit + 1)
        unsure = atrisk.unconfirmed(session) if cursor is None else None
    more = answers.cursor(short[limit - 1]["volume_id"]) if len(short) > limit else None
    return {**answers.listing(short[:limit], more), "purpose_unknown": unsure}


@router.post(
    "/reburns",
    status_code=201,
    summary="Another copy of a volume, equal to the others",
    responses=answers.problems(404, 409),
    response_model=None,
)
def reburn(
    ctx: Ctx,
    ops: Ops,
    body: ReburnBody,
    request: Request,
    actor: Annotated[Actor, needs("discs.manage")],
    key: answers.IdempotencyKey = None,
) -> dict[str, Any] | Response:
    """The job; what it takes is read before, so progress is told line by line for ``Accept: application/x-ndjson``."""

    path = places.readable(ctx.settings, actor, body.from_) if body.from_ else None

    def work(progress: Any, cancelled: Any) -> dict[str, Any]:
        ordered = reburning.order(
            ctx,
            body.of,
            copies=body.copies,
            burner=body.burner,
            path=path,
            priority=body.priority,
            by=actor.name,
            idempotency_key=key,
            progress=progress,
            cancelled=cancelled,
        )
        ops.submit(ordered.job_id)
        return {"job": f"J{ordered.job_id}", "from": ordered.source, "restored": ordered.restored}

    return answer(request, "reburn", work)


@router.get("/holds", summary="Studies that stay in the spool", dependencies=[needs("studies.read")])
def list_holds(
    ctx: Ctx,
    *,
    every: Annotated[bool, Query(description="Those that are over or released, too")] = False,
    limit: answers.Limit = answers.DEFAULT_PAGE,
    cursor: answers.Cursor = None,
) -> dict[str, Any]:
    after = answers.read_cursor(cursor, int)[0] if cursor else None
    with ctx.db.read() as session:
        kept = holds.holds(session, all_=every, after=after, limit=limit + 1)
    more = answers.cursor(number("H", kept[limit - 1]["hold"])) if len(kept) > limit else None
    return answers.listing(kept[:limit], more)


@router.post("/holds", status_code=201, summary="Hold studies in the spool")
def keep(ctx: Ctx, body: HoldBody, actor: Annotated[Actor, needs("holds.manage")]) -> dict[str, Any]:
    """``{"holds", "studies", "not_in_spool"}``: how many instances of the studies are only on discs already."""
    until = _until(ctx, body.until)
    with ctx.db.begin() as session:
        studies = _studies(session, body.selection)
        made = holds.keep(session, studies, reason=body.reason, until=until, by=actor.name)
        away = holds.not_in_spool(session, studies)
    return {"holds": [f"H{one}" for one in made], "studies": studies, "not_in_spool": away}


@router.post("/holds/release", summary="Let go of holds, by their IDs or studies", responses=answers.problems(404))
def release(ctx: Ctx, body: ReleaseBody, actor: Annotated[Actor, needs("holds.manage")]) -> dict[str, Any]:
    if not body.holds and body.selection is None:
        raise UsageError("say which holds: their IDs, or a selection of studies")
    with ctx.db.begin() as session:
        wanted = [number("H", one) for one in body.holds]
        if body.selection is not None:
            wanted += holds.of_studies(session, _studies(session, body.selection))
        return {"released": holds.release(session, wanted, by=actor.name)}


def _told(ctx: Context, disc: Disc) -> Versioned:
    """A disc after a change; and its volume where that is on too few discs now."""
    with ctx.db.read() as session:
        document = discviews.disc(session, disc.id)
        version = _version(session.get_one(Disc, disc.id))
        short = atrisk.volumes(session, of_volumes=[disc.volume_id], in_spool_too=True)
    return Versioned({**document, "too_few": short[0] if short else None}, version)


def _version(disc: Disc) -> str:
    return version_of(disc, _DECIDED)


def _require_match(session: Session, disc_id: str, if_match: str | None) -> None:
    """Raises ChangedMeanwhile; nobody else changes the disc until the end of the transaction."""
    disc = session.get(Disc, number("D", disc_id), with_for_update=True, populate_existing=True)
    if disc is not None:
        require_match(if_match, _version(disc), lambda: discviews.disc(session, disc.id))


def _studies(session: Any, selection: SelectionBody) -> list[str]:
    found = holds.studies_of(session, instance_ids(session, Selection.from_json(selection.given())))
    if not found:
        raise SelectionError("the selection is empty: no study matches (see `burnish studies`)")
    return found


def _until(ctx: Context, text: str) -> datetime | None:
    """The end of a day in the site's zone, or a moment."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
        if len(text) <= len("YYYY-MM-DD"):
            name = ctx.settings.site.timezone
            zone = ZoneInfo(name) if name else datetime.now().astimezone().tzinfo
            moment = datetime.combine(moment.date() + timedelta(days=1), time(), zone)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"until is {text!r}; it may be a day (YYYY-MM-DD) or a moment (RFC 3339)") from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if moment <= datetime.now(UTC):
        raise UsageError(f"until is {text}, and that is past")
    return moment
