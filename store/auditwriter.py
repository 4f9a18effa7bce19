"""Recording audit messages beside the work: who answers a query does not wait for the disk.

What was put is recorded within some tenths of a second, many in one transaction. A process that is killed loses what it
had not recorded yet: that somebody asked, never that something came, went or was made (``store.auditevents``).
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from store.audit import Trail
from store.auditmessage import Message
from store.db import Database

_log = logging.getLogger(__name__)
_PAUSE = 0.2
_MOST = 200
_WAITING = 10_000
_TRIES = 5

Telling = Callable[[Session], list[Message]]
"""Finds out, in the transaction that records, what there is to tell."""


class AuditWriter:
    """A thread that records; started with its first message. ``close`` records what is left."""

    def __init__(self, db: Database, trail: Trail) -> None:
        self._db = db
        self._trail = trail
        self._queue: queue.Queue[Telling | None] = queue.Queue(_WAITING)
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None

    def put(self, telling: Telling) -> None:
        """Record this soon; waits where very much is waiting already."""
        with self._guard:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
                self._thread.start()
        self._queue.put(telling)

    def close(self) -> None:
        """Record what was put, and end."""
        with self._guard:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            thread.join(30)

    def _run(self) -> None:
        stop = threading.Event()
        while not stop.is_set():
            batch = [self._queue.get()]
            stop.wait(_PAUSE) if batch[0] is not None else None
            while len(batch) < _MOST and not self._queue.empty():
                batch.append(self._queue.get())
            if None in batch:
                stop.set()
            self._record([one for one in batch if one is not None])

    def _record(self, batch: list[Telling]) -> None:
        for attempt in range(_TRIES):
            try:
                with self._db.begin() as session:
                    messages = [message for telling in batch for message in telling(session)]
                    for message in messages:
                        self._trail.record(session, message)
            except SQLAlchemyError as error:
                if attempt + 1 == _TRIES:
                    _log.error("%d audit messages could not be recorded: %s", len(batch), type(error).__name__)
                threading.Event().wait(0.5 * (attempt + 1))
            except Exception as error:  # noqa: BLE001 - what is wrong with one message must not lose others
                if len(batch) == 1:
                    _log.error("an audit message could not be recorded: %s", type(error).__name__)
                else:
                    for one in batch:
                        self._record([one])
                return
            else:
                return
