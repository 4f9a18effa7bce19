"""What DICOMweb's users did, for the audit trail (PS3.15 A.5): searches, and whose instances they were given.

A viewer fetches a study frame by frame: it is told once for each user, study and some minutes.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence

from fastapi import Request

from jobs.context import Context
from service import telling
from service.api.access import actor_of
from service.bodiless import wants_body
from store import auditwhat
from store.auditmessage import Participant
from store.auditwhat import OURSELVES, Who

_MINUTES = 15
_KEPT = 10_000


class Viewed:
    """Who has seen which study lately."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: OrderedDict[tuple[str, str, str], float] = OrderedDict()

    def first(self, user: str, address: str, study: str) -> bool:
        """Whether this is to be told (again)."""
        key, now = (user, address, study), time.monotonic()
        with self._lock:
            before = self._seen.get(key)
            if before is not None and now - before < _MINUTES * 60:
                return False
            self._seen[key] = now
            self._seen.move_to_end(key)
            while len(self._seen) > _KEPT:
                self._seen.popitem(last=False)
        return True


def _who(request: Request) -> Who:
    actor = actor_of(request)
    return Who(actor.name, actor.address) if actor else Who("nobody")


def searched(ctx: Context, request: Request) -> None:
    """A search, with what was looked for."""
    message = auditwhat.query(_who(request), "", request.url.query.encode())
    telling.soon(ctx, lambda _session: [message])


def looked_for(ctx: Context, request: Request, asked: str) -> None:
    """A search of the page, which asks again with each letter and by itself: each is told once in some minutes."""
    who = _who(request)
    if _seen(request).first(who.name, who.address, asked):
        message = auditwhat.query(who, "", asked.encode("utf-8", "replace"))
        telling.soon(ctx, lambda _session: [message])


def viewed(ctx: Context, request: Request, study: str, instances: Sequence[int]) -> None:
    """Something of a study was looked at; who asks for the headers only has seen nothing."""
    if not wants_body(request):
        return
    who = _who(request)
    if _seen(request).first(who.name, who.address, study):
        telling.soon(ctx, lambda session: auditwhat.accessed(session, who, instances))


def _seen(request: Request) -> Viewed:
    if not hasattr(request.app.state, "viewed"):
        request.app.state.viewed = Viewed()
    seen: Viewed = request.app.state.viewed
    return seen


def retrieved(ctx: Context, request: Request, instances: Sequence[int]) -> None:
    """Whole instances go out."""
    if not wants_body(request):
        return
    who = _who(request)
    source, destination = (
        Participant(OURSELVES, "source"),
        Participant(who.name, "destination", True, address=who.address),
    )
    with ctx.db.begin() as session:
        for message in auditwhat.transferred(session, instances, source, destination):
            ctx.audit.record(session, message)
