"""Recalls in the running service: looked at every second, together with what is recalled in advance (prefetch)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from jobs import prefetch
from jobs.recalls import RecallWork
from service.logs import logger
from service.operations import StoreOperations

if TYPE_CHECKING:
    from jobs.recalls import Send

_TICK_SECONDS = 1.0
_STOP_SECONDS = 10.0


class Recalling:
    """A thread of its own: what recalls do may take long, and nothing else waits for it."""

    def __init__(self, operations: StoreOperations) -> None:
        self._context = operations.context
        self._work = work_of(operations)
        self._prefetch = prefetch.Prefetching(operations.context)
        self._stopping = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="recalls", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Begin nothing more; what is being read ends with the present file."""
        self._stopping.set()
        self._work.stop()
        self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        while not self._stopping.wait(_TICK_SECONDS):
            try:
                self._prefetch.tick()
                self._work.tick()
                self._failing = False
            except Exception as error:  # noqa: BLE001 - the next tick tries again, and one line tells
                if not self._failing:
                    logger("service.recalling").error("recalls do not go on", error=repr(error))
                self._failing = True


def work_of(operations: StoreOperations) -> RecallWork:
    """The work of recalls on an open store."""
    return RecallWork(operations.context, _sender(operations))


def _sender(operations: StoreOperations) -> Send:
    def send(node: str, ids: Sequence[int], cancelled: Callable[[], bool]) -> list[str]:
        exchange = operations.exchange
        exchange.echo_node(node)  # one that is away is tried again later, as a whole
        document = exchange.send(node, ids, lambda _progress: None, cancelled)
        return [f"{one['sop_instance_uid']}: {one['reason']}" for one in document["failed"]]

    return send
