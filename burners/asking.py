"""Asking burners how they stand, each by itself: one that hangs keeps nobody from hearing of the others.

A hot folder on a file server that is gone, or a drive's tool that blocks, may keep a question for hours. Each burner
has one thread at most that asks it; where that is not back in time, what was known last is told, with its age.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace

from burners.base import Burner, DriverState, DriverStatus

_PATIENCE_SECONDS = 2.0
_FIRST_SECONDS = 10.0
"""For a burner of which nothing is known yet: a drive may have to spin up."""
_SILENT_SECONDS = 30.0
"""Who has not answered for so long is OFFLINE, whatever was known before."""


class Asked:
    """One burner, and what is known of how it stands."""

    def __init__(self, burner: Burner) -> None:
        self._burner = burner
        self._guard = threading.Condition()
        self._asking = False
        self._since = 0.0
        """When the latest question was asked."""
        self._known: DriverStatus | None = None
        self._at = 0.0
        """When that was answered."""

    def ask(self) -> float:
        """Begin to ask, unless somebody does; returns the moment (monotonic) from which an answer is wanted."""
        with self._guard:
            wanted = time.monotonic()
            self._begin()
            return wanted

    def answer(self, wanted: float) -> DriverStatus:
        """What the burner says that was asked at ``wanted`` or later; what was known before, where that takes long."""
        with self._guard:
            while True:
                if not self._asking:
                    if self._known is not None and self._since >= wanted:
                        return self._known
                    self._begin()
                patience = _FIRST_SECONDS if self._known is None else _PATIENCE_SECONDS
                left = self._since + patience - time.monotonic()
                if left <= 0 or not self._guard.wait_for(lambda: not self._asking, left):
                    return self._old()

    def _begin(self) -> None:
        if not self._asking:
            self._asking, self._since = True, time.monotonic()
            threading.Thread(target=self._probe, name=f"probe-{self._burner.name}", daemon=True).start()

    def _probe(self) -> None:
        burner = self._burner
        try:
            found = burner.probe()
        except Exception as error:  # noqa: BLE001 - its state is shown, whatever it raises
            reason = f"{type(error).__name__}: {error}"
            found = DriverStatus(burner.name, type(burner).__name__, DriverState.OFFLINE, reason)
        with self._guard:
            self._known, self._at, self._asking = found, time.monotonic(), False
            self._guard.notify_all()

    def _old(self) -> DriverStatus:
        at = time.monotonic()
        silent, known = at - self._since, self._known
        if known is None:
            reason = f"has not answered for {silent:.0f} s"
            return DriverStatus(self._burner.name, type(self._burner).__name__, DriverState.OFFLINE, reason)
        age = at - self._at
        was = f"{known.state.value}: {known.reason}" if known.reason else known.state.value
        if silent >= _SILENT_SECONDS:
            reason = f"has not answered for {silent:.0f} s; {age:.0f} s ago it was {was}"
            return replace(known, state=DriverState.OFFLINE, reason=reason, age_seconds=age)
        reason = f"has not answered for {silent:.0f} s; as of {age:.0f} s ago: {known.reason or known.state.value}"
        return replace(known, reason=reason, age_seconds=age)


def ask_all(asked: Sequence[Asked]) -> list[DriverStatus]:
    """How each stands; all are asked at once."""
    wanted = [one.ask() for one in asked]
    return [one.answer(at) for one, at in zip(asked, wanted, strict=True)]
