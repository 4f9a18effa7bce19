"""Telling long work that the service stops."""

from __future__ import annotations

import threading


class Stopping:
    """A flag that is set once, when the service begins to stop."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def begin(self) -> None:
        self._event.set()

    def __call__(self) -> bool:
        return self._event.is_set()
