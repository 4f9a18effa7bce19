"""The system: storage and its trend, health, settings in force, the audit log."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from jobs.context import Context
from service.api.access import Actor, Ctx, Ops, needs
from service.auditing import anchor_of
from service.web.pages import page, shown_of
from service.web.routes import router
from store import audit, auditwhat, storage, watermarks
from store.auditmessage import codes
from store.auditwhat import Who

routes = router()
PAGE = 100
_KEPT_SECONDS = 300.0
_SECRET = ("password", "secret", "token", "passphrase")
"""Words in the names of settings whose values are never shown."""


class StorageWatch:
    """What storage figures cost is paid every few minutes only."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: tuple[float, list[storage.Received]] | None = None

    def received(self, ctx: Context, zone: Any) -> list[storage.Received]:
        with self._lock:
            if self._known is None or time.monotonic() - self._known[0] > _KEPT_SECONDS:
                with ctx.db.read() as session:
                    self._known = (time.monotonic(), storage.received(session, zone))
            return self._known[1]


@routes.get("/system", dependencies=[needs("status.read")])
def system(request: Request, ctx: Ctx) -> Response:
    watch: StorageWatch = request.app.state.storage_watch
    shown = shown_of(request)
    days = watch.received(ctx, shown.zone)
    level = watermarks.level(ctx.db, ctx.spool)
    limit = level.usable * ctx.settings.spool.high_water_percent / 100
    free = limit - level.used if not level.limit else min(limit - level.used, level.limit - level.held)
    a_day = storage.daily(days)
    left = storage.days_left(free, a_day)
    full_on = datetime.now(shown.zone) + timedelta(days=left) if left is not None and left < 36_500 else None
    values: dict[str, Any] = {
        "days": days,
        "most": max([day.bytes for day in days] + [1]),
        "level": level,
        "limit": limit,
        "free": max(0.0, free),
        "a_day": a_day,
        "left": left,
        "full_on": full_on,
    }
    return page(request, "system.html", **values)


@routes.get("/system/health", dependencies=[needs("settings.read")])
def health(request: Request, ops: Ops) -> Response:
    return page(request, "system_health.html", report=ops.doctor())


@routes.get("/system/settings", dependencies=[needs("settings.read")])
def settings(request: Request, ops: Ops) -> Response:
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, value in ops.doctor()["settings"].items():
        section, _, key = name.rpartition(".")
        groups.setdefault(section, []).append((key, _plain(name, value)))
    return page(request, "system_settings.html", groups=groups)


def _plain(name: str, value: Any) -> str:
    """A value as people write it; None of those that are secret."""
    if any(word in name.rpartition(".")[2].lower() for word in _SECRET) and value:
        return "********"
    if isinstance(value, list | tuple):
        return ", ".join(str(one) for one in value)
    return "" if value is None else str(value)


@routes.get("/system/audit")
def audit_log(
    request: Request,
    ctx: Ctx,
    actor: Annotated[Actor, needs("audit.read")],
    event: Annotated[str, Query(max_length=16)] = "",
    user: Annotated[str, Query(max_length=255)] = "",
    before: Annotated[int | None, Query(ge=1)] = None,
) -> Response:
    """That somebody read it is recorded, too."""
    with ctx.db.read() as session:
        rows = audit.records(session, event=event, user=user.strip(), before=before, limit=PAGE + 1)
        waiting = audit.waiting(session) if ctx.settings.audit.syslog else 0
    with ctx.db.begin() as session:
        ctx.audit.record(session, auditwhat.log_used(Who(actor.name, actor.address)))
    known = codes()["events"]
    values: dict[str, Any] = {
        "records": rows[:PAGE],
        "meanings": {key: value[2] for key, value in known.items()},
        "events": sorted(known),
        "event": event,
        "user": user,
        "waiting": waiting,
        "next": rows[PAGE - 1].number if len(rows) > PAGE else None,
    }
    return page(request, "parts/audit_rows.html" if before else "system_audit.html", **values)


@routes.get("/system/audit/verification")
def audit_verification(request: Request, ctx: Ctx, actor: Annotated[Actor, needs("audit.read")]) -> Response:
    anchor = audit.read_anchor(anchor_of(ctx.settings))
    with ctx.db.read() as session:
        found = audit.verify(session, anchor)
    with ctx.db.begin() as session:
        ctx.audit.record(session, auditwhat.log_used(Who(actor.name, actor.address)))
    return page(request, "parts/audit_verified.html", found=found)
