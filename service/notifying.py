"""Telling people and programs what happened to jobs: webhooks and e-mail, tried again until they are taken.

Each target has a thread of its own while there is something to tell it, so that none waits for another.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from config.settings import Settings
from jobs.context import Context
from service.logs import logger
from service.notifying_limit import Limit
from service.notifying_ways import SECONDS, Away, NotTold, post, send
from store import notices

_STOPPING_SECONDS = 5.0
_BATCH = 20


class Notifying:
    """What the clock calls; one a service."""

    def __init__(self, context: Context) -> None:
        self._context = context
        settings = context.settings
        self._hooks = {hook.name: hook for hook in settings.webhooks}
        self._mails = {mail.name: mail for mail in settings.mails}
        self._give_up = timedelta(hours=settings.mail.give_up_hours)
        self._guard = threading.Lock()
        self._working: dict[str, threading.Thread] = {}
        self._limits: dict[str, Limit] = {}
        self._failing: set[str] = set()
        self._stopping = threading.Event()

    @property
    def is_wanted(self) -> bool:
        """Whether anybody is to be told anything."""
        return bool(self._hooks or self._mails)

    def tick(self, *, wait: float = 0.0) -> None:
        """Find what is new, and begin to tell what is due; ``wait`` so many seconds for that to end."""
        db = self._context.db
        targets = {hook.name: hook.events for hook in self._hooks.values()}
        targets |= {mail.name: mail.events for mail in self._mails.values()}
        notices.collect(db, targets)
        for target in notices.waited_for(db, list(targets)):
            self._begin(target)
        self._join(wait)

    def stop(self) -> None:
        """Cut what is on its way, which counts as not taken, and wait for it to end."""
        with self._guard:
            self._stopping.set()
            for limit in self._limits.values():
                limit.cut()
        self._join(_STOPPING_SECONDS)

    def _join(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        with self._guard:
            working = list(self._working.values())
        for thread in working:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _begin(self, target: str) -> None:
        with self._guard:
            if self._stopping.is_set() or target in self._working:
                return
            thread = threading.Thread(target=self._work, args=(target,), name=f"notices-{target}", daemon=True)
            self._working[target] = thread
            thread.start()

    def _work(self, target: str) -> None:
        log = logger("service.notifying")
        try:
            self._tell_what_is_due(target)
            self._failing.discard(target)
        except Exception as error:  # noqa: BLE001 - the next tick tries again, and one line tells
            if target not in self._failing:
                log.error("notices cannot be looked at", target=target, error=repr(error))
            self._failing.add(target)
        finally:
            with self._guard:
                del self._working[target]

    def _tell_what_is_due(self, target: str) -> None:
        """One after the other; where it does not answer at all, the rest is put off without being tried."""
        db = self._context.db
        while not self._stopping.is_set() and (claimed := notices.claim(db, [target], limit=1)):
            (due,) = claimed
            try:
                self._tell(target, {"notice": f"N{due.id}", **due.document})
            except Away as error:
                for one in (due, *notices.claim(db, [target], limit=_BATCH - 1)):
                    self._not_told(one, error)
                return
            except NotTold as error:
                self._not_told(due, error)
            else:
                notices.told(db, due.id)

    def _not_told(self, due: notices.Due, error: NotTold) -> None:
        again = notices.failed(self._context.db, due, str(error), give_up_after=self._give_up)
        if due.attempts == 1 or again is None:
            logger("service.notifying").warning(
                "a notice was not taken", target=due.target, reason=str(error), given_up=again is None
            )

    def _tell(self, target: str, document: Mapping[str, Any]) -> None:
        """Tell one target, unless this stops."""
        limit = Limit(SECONDS)
        with self._guard:
            if self._stopping.is_set():
                raise Away("the service stops")
            self._limits[target] = limit
        try:
            self.tell(target, document, limit)
        finally:
            with self._guard:
                del self._limits[target]

    def tell(self, target: str, document: Mapping[str, Any], limit: Limit | None = None) -> None:
        """Tell one target. Raises NotTold, and KeyError for one that the settings do not know."""
        hook, settings = self._hooks.get(target), self._context.settings
        if hook is not None:
            post(hook, document, ca=settings.in_data(hook.ca), limit=limit)
        else:
            send(settings.mail, self._mails[target], document, settings=settings, limit=limit)


def problems(settings: Settings) -> list[str]:
    """What is wrong with webhooks and e-mail in the settings, a line each."""
    found = []
    names = [hook.name for hook in settings.webhooks] + [mail.name for mail in settings.mails]
    twice = sorted({name for name in names if names.count(name) > 1})
    found += [f"webhooks, mails: there are two of the name {name!r}" for name in twice]
    for hook in settings.webhooks:
        parts = urlsplit(hook.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            found.append(f"webhooks.{hook.name}.url: {hook.url!r} is no address: https://HOST/PATH is wanted")
    if settings.mails and not (settings.mail.host and settings.mail.sender):
        found.append("mail.host, mail.sender: needed to send e-mail ([[mails]])")
    return found
