"""Route: what happened, as pages of the past or as a stream of what comes (server-sent events)."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import AsyncIterator, Collection, Mapping
from typing import TYPE_CHECKING, Annotated

import anyio
import anyio.to_thread
from fastapi import Header, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from jobs.context import Context
from service.api import answers
from service.api.access import Ctx, actor_of, needs, while_allowed
from service.api.documents import EventList
from service.bodiless import wants_body
from service.contract import number
from service.errors import TryLater, UsageError
from store import events
from store.events import BadPlace, Place
from store.models_nodes import Event

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

router = answers.router()
STREAM = "text/event-stream"
MAX_STREAMS = 100
_LOOK_SECONDS = 0.5
_HEARTBEAT_SECONDS = 15.0
_LIFETIME_SECONDS = 3600.0
"""Then a stream ends and its client begins another, so that who may no longer listen does not for ever."""
_RETRY = "retry: 2000\n\n"

Kinds = Annotated[list[str] | None, Query(max_length=50, description="Only these: `job`, `disc`, `recall` ...")]


class Listeners:
    """Who listens in this process: one look at the database for all of them finds out whether there is news."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()
        self._latest, self._at = 0, 0.0

    def latest(self, ctx: Context) -> int:
        with self._lock:
            if time.monotonic() - self._at > _LOOK_SECONDS / 2:
                with ctx.db.read() as session:
                    self._latest = events.latest(session)
                self._at = time.monotonic()
            return self._latest


@router.get(
    "/events",
    summary="What happened, the latest first; as text/event-stream what happens",
    dependencies=[needs("status.read")],
    response_model=None,
    responses={
        200: {"model": EventList, "content": {STREAM: {"schema": {"type": "string"}}}},
        **answers.problems(404),
    },
)
async def happened(
    ctx: Ctx,
    request: Request,
    kind: Kinds = None,
    job: Annotated[str | None, Query(pattern=r"^J?[0-9]{1,18}$")] = None,
    disc: Annotated[str | None, Query(pattern=r"^D?[0-9]{1,18}$")] = None,
    limit: answers.Limit = answers.DEFAULT_PAGE,
    cursor: answers.Cursor = None,
    last_event_id: Annotated[
        str | None, Header(max_length=20_000, description="Of a stream: go on behind this")
    ] = None,
) -> Response:
    """A stream begins with what comes from now on, or behind ``Last-Event-ID``; each event has its kind as name and the
    document as data. Numbers of events are ascending, but one may come after a higher one. Who may not read studies
    is told nothing that could hold a patient's name or number: of ``detail`` numbers and names of ours.
    """
    actor = actor_of(request)
    wanted = _Wanted(
        frozenset(kind or ()),
        number("J", job) if job else None,
        number("D", disc) if disc else None,
        words=actor is not None and actor.may("studies.read"),
    )
    if STREAM not in request.headers.get("accept", ""):
        before = answers.read_cursor(cursor, int)[0] if cursor else None
        return await anyio.to_thread.run_sync(_page, ctx, wanted, before, limit)
    place = await anyio.to_thread.run_sync(_begin, ctx, last_event_id)
    listeners = _listeners(request)
    if listeners.count >= MAX_STREAMS:
        raise TryLater(f"{MAX_STREAMS} streams of events are open already", "TOO_MANY_STREAMS")
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    told = while_allowed(request, "status.read", _stream(request, ctx, listeners, place, wanted))
    return _Stream(listeners, told, counted=wants_body(request), headers=headers)


class _Stream(StreamingResponse):
    """Counted from when it is let in until it has ended: many that come at once are not more than may be."""

    def __init__(
        self, listeners: Listeners, told: AsyncIterator[str], *, counted: bool, headers: Mapping[str, str]
    ) -> None:
        super().__init__(told, media_type=STREAM, headers=headers)
        self._listeners = listeners
        listeners.count += counted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._listeners.count -= 1


class _Wanted:
    def __init__(self, kinds: Collection[str], job_id: int | None, disc_id: int | None, *, words: bool) -> None:
        self.kinds, self.job_id, self.disc_id, self.words = kinds, job_id, disc_id, words

    def __call__(self, event: Event) -> bool:
        return (
            (not self.kinds or event.kind in self.kinds)
            and (self.job_id is None or event.job_id == self.job_id)
            and (self.disc_id is None or event.disc_id == self.disc_id)
        )


def _page(ctx: Context, wanted: _Wanted, before: int | None, limit: int) -> Response:
    with ctx.db.read() as session:
        found = events.page(
            session,
            before=before,
            kinds=wanted.kinds,
            job_id=wanted.job_id,
            disc_id=wanted.disc_id,
            limit=limit + 1,
        )
        items = [events.event_document(event, words=wanted.words) for event in found[:limit]]
    more = answers.cursor(found[limit - 1].id) if len(found) > limit else None
    return JSONResponse(answers.listing(items, more))


def _listeners(request: Request) -> Listeners:
    state = request.app.state
    if not hasattr(state, "listeners"):
        state.listeners = Listeners()
    listeners: Listeners = state.listeners
    return listeners


def _begin(ctx: Context, last_event_id: str | None) -> Place:
    if last_event_id:
        try:
            place = Place.of(last_event_id)
        except BadPlace:
            raise UsageError("Last-Event-ID is none of ours; leave it out to begin with what comes") from None
        with ctx.db.read() as session:
            if place.last <= events.latest(session):
                return place  # else it is of a database that was another
    with ctx.db.read() as session:
        return events.newest(session)


async def _stream(
    request: Request, ctx: Context, listeners: Listeners, place: Place, wanted: _Wanted
) -> AsyncIterator[str]:
    stopping = request.app.state.stopping
    begun = told = time.monotonic()
    yield _RETRY + f"id: {place}\n\n"
    while not stopping() and time.monotonic() - begun < _LIFETIME_SECONDS:
        found, more = await anyio.to_thread.run_sync(_news, ctx, listeners, place, wanted)
        if found:
            told = time.monotonic()
            yield found
        elif time.monotonic() - told > _HEARTBEAT_SECONDS:
            told = time.monotonic()
            yield f"id: {place}\n:\n\n"
        if not more:
            await anyio.sleep(_LOOK_SECONDS)


def _news(ctx: Context, listeners: Listeners, place: Place, wanted: _Wanted) -> tuple[str, bool]:
    """The text of new events, and whether there are more at once."""
    if not place.gaps and listeners.latest(ctx) <= place.last:
        return "", False
    with ctx.db.read() as session:
        found = events.news(session, place)
        texts = [_text(event, behind, words=wanted.words) for event, behind in found if wanted(event)]
    return "".join(texts), len(found) >= events.BATCH


def _text(event: Event, behind: str, *, words: bool) -> str:
    data = json.dumps(events.event_document(event, words=words), ensure_ascii=False)
    return f"id: {behind}\nevent: {event.kind}\ndata: {data}\n\n"
