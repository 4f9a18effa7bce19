"""A limit for a whole exchange with another machine.

Time-outs of sockets count from byte to byte: who sends one now and then is never too late. Here the connection is cut
when the time is up, whatever it is waiting for.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

_AGAIN = 0.2
"""Seconds between cuts, until the exchange has ended: a connection may be in the making when its time is up."""


class Limit:
    """Cuts the sockets that it watches when ``seconds`` are over, or ``cut`` is called. A context manager."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._sources: list[Callable[[], socket.socket | None]] = []
        self._guard = threading.Lock()
        self._end = threading.Event()
        self._now = threading.Event()
        self.over = False
        """Whether the connection was cut."""

    def watch(self, source: Callable[[], socket.socket | None]) -> None:
        """``source`` gives a socket of the exchange, as it is then; None: there is none."""
        with self._guard:
            self._sources.append(source)

    def cut(self) -> None:
        """The time is up now."""
        self._now.set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._run, name="notice-limit", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end.set()
        self._now.set()

    def _run(self) -> None:
        self._now.wait(self._seconds)
        while not self._end.is_set():
            self.over = True
            with self._guard:
                sources = list(self._sources)
            for source in sources:
                with suppress(OSError):
                    if (one := source()) is not None:
                        # Of the plain socket: another thread is within that of TLS.
                        socket.socket.shutdown(one, socket.SHUT_RDWR)
            self._end.wait(_AGAIN)
