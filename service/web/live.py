"""What has changed, told to open pages by server-sent events: a page then asks for its part anew.

A page bears the mark of how things stood before it was made, and its stream begins from there: what changes between the
page and its stream, or while a connection is lost, is told, too.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import StreamingResponse

from jobs.context import Context
from service.api.access import Ctx, needs, while_allowed
from service.errors import TryLater
from service.web.pages import language_of
from service.web.routes import router
from service.web.texts import Texts, texts_of
from store import board

routes = router()
_LOOK_SECONDS = 0.7
_SLEEP_SECONDS = 0.5
_HEARTBEAT_SECONDS = 15.0
_APART = {"board": 0.8, "received": 2.0, "burners": 2.0, "event": 2.0}
"""Seconds between two events of a kind. The last of many is told late and never left out: a page whose last news were
dropped would show an old state for as long as nothing else happens."""
MAX_STREAMS = 200
_CALLED_WITHIN = 60.0
"""Seconds after a page was made in which its stream must begin to call for what happened since."""
_CALLED_AGAIN_WITHIN = 3600.0
"""The same for one that broke off, from what it told last."""
_MARK = re.compile(r"([0-9a-f]{12})\.([0-9a-f]{12})\.([0-9a-f]{12})\.(\d{1,18})\.(\d{1,12})")


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at the database found."""

    board: Any
    received: Any
    burners: str
    event: int


@dataclass(frozen=True, slots=True)
class Mark:
    """The same in short, as an address bears it."""

    board: str
    received: str
    burners: str
    event: int

    @classmethod
    def of(cls, seen: Seen) -> Self:
        return cls(_digest(seen.board), _digest(seen.received), _digest(seen.burners), seen.event)

    def __str__(self) -> str:
        return f"{self.board}.{self.received}.{self.burners}.{self.event}.{int(time.time())}"


def _digest(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:12]


class Pulse:
    """One look a second at most, however many pages are open."""

    def __init__(self, context: Context, burners: Any) -> None:
        self._context = context
        self._burners = burners
        self._lock = threading.Lock()
        self._seen: Seen | None = None
        self._at = 0.0
        self.streams = 0
        """Pages that listen."""

    def look(self) -> Seen:
        with self._lock:
            if self._seen is None or time.monotonic() - self._at > _LOOK_SECONDS:
                with self._context.db.read() as session:
                    jobs, received = board.signature(session)
                    event = board.last_event(session)
                burners = json.dumps(self._burners.now(), sort_keys=True, default=str)
                self._seen, self._at = Seen(jobs, received, burners, event), time.monotonic()
            return self._seen

    def mark(self) -> str:
        """For a page that is made next. Burners are as they were told last: no page waits for devices here."""
        with self._lock:
            seen = self._seen
            if seen is None or time.monotonic() - self._at > _LOOK_SECONDS:
                with self._context.db.read() as session:
                    jobs, received = board.signature(session)
                    seen = Seen(jobs, received, seen.burners if seen else "", board.last_event(session))
            return str(Mark.of(seen))

    def alarms(self, after: int) -> list[board.Alarm]:
        with self._context.db.read() as session:
            return board.alarms(session, after)


@routes.get("/live", dependencies=[needs("status.read")])
async def live(request: Request, ctx: Ctx, since: str = "") -> StreamingResponse:
    """Events ``board``, ``burners`` and ``received`` say that something changed; ``attention`` calls a person.

    ``since``: the mark of the page.
    """
    texts = texts_of(language_of(request))
    pulse: Pulse = request.app.state.pulse
    if pulse.streams >= MAX_STREAMS:
        raise TryLater(f"{MAX_STREAMS} pages listen already", "TOO_MANY_STREAMS")
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    stands = Mark.of(await run_in_threadpool(pulse.look))
    place = _place(request.headers.get("last-event-id", ""), stands, _CALLED_AGAIN_WITHIN)
    place = place or _place(since, stands, _CALLED_WITHIN) or stands
    told = while_allowed(request, "status.read", _told(request, pulse, texts, place))
    return StreamingResponse(told, media_type="text/event-stream", headers=headers)


def _place(text: str, stands: Mark, within: float) -> Mark | None:
    """Where a page stands; calls that are older than ``within`` seconds are not made any more."""
    found = _MARK.fullmatch(text)
    if found is None:
        return None
    jobs, received, burners, event, at = found.groups()
    late = time.time() - int(at) > within
    return Mark(jobs, received, burners, stands.event if late else min(int(event), stands.event))


async def _told(request: Request, pulse: Pulse, texts: Texts, seen: Mark) -> AsyncIterator[str]:
    pulse.streams += 1
    try:
        async for piece in _news(request, pulse, texts, seen):
            yield piece
    except SQLAlchemyError:  # without its database: the page comes again by itself, and is told so then
        return
    finally:
        pulse.streams -= 1


async def _news(request: Request, pulse: Pulse, texts: Texts, seen: Mark) -> AsyncIterator[str]:
    stopping = request.app.state.stopping
    heard = time.monotonic()
    due: dict[str, float] = {}
    told = dict.fromkeys(_APART, 0.0)
    yield f"retry: 3000\nid: {seen}\n\n"
    while not stopping() and not await request.is_disconnected():
        await asyncio.sleep(_SLEEP_SECONDS)
        found = Mark.of(await run_in_threadpool(pulse.look))
        at = time.monotonic()
        for name, apart in _APART.items():
            if getattr(found, name) != getattr(seen, name):
                due.setdefault(name, told[name] + apart)
        for name in [name for name in _APART if name in due and due[name] <= at]:
            del due[name]
            told[name] = heard = at
            yield f"event: {name}\nid: {found}\ndata: \n\n"
        if found.event != seen.event:
            for alarm in await run_in_threadpool(pulse.alarms, seen.event):
                heard = at
                yield f"event: attention\nid: {found}\ndata: {json.dumps(_words(alarm, texts))}\n\n"
        seen = found
        if at - heard > _HEARTBEAT_SECONDS:
            heard = at
            yield f"id: {seen}\n: still here\n\n"


def _words(alarm: board.Alarm, texts: Texts) -> dict[str, str]:
    if alarm.state == "FAILED":
        text = texts("alerts.failed", job=f"J{alarm.job}", what=texts.known(f"reason.{alarm.reason}", alarm.reason))
    else:
        text = texts("alerts.needs", job=f"J{alarm.job}", what=texts.said(alarm.waits[:300]))
    return {"text": text, "tag": f"J{alarm.job}", "link": f"/jobs/J{alarm.job}"}
