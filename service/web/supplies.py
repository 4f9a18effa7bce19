"""What a burner holds, as drivers tell it (ink in per cent, discs in bins, bytes free), as gauges for people."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from service.contract import Document
from service.web.shown import Shown
from service.web.texts import Texts

_LOW_PERCENT = 15
_FEW_BLANKS = 5
_KEPT_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Gauge:
    """One supply."""

    label: str
    text: str
    fraction: float | None = None
    """Of full, where that is known."""
    kind: str = ""
    """``warn`` when it is low, ``bad`` when it is gone."""


def gauges(supplies: Mapping[str, Any], texts: Texts, shown: Shown) -> list[Gauge]:
    """All that can be shown of a driver's ``supplies``; a key that nobody knows is shown as it is."""
    return list(_gauges(supplies, texts, shown))


def _gauges(supplies: Mapping[str, Any], texts: Texts, shown: Shown) -> Iterator[Gauge]:
    for key, value in supplies.items():
        if key in ("ink", "ink_percent") and isinstance(value, Mapping):
            for colour, level in value.items():
                label = texts("supplies.ink", colour=texts.known(f"colour.{colour}", str(colour)))
                yield _percent(label, level, shown)
        elif key in ("bins", "stackers") and isinstance(value, Mapping):
            for name, count in value.items():
                yield Gauge(
                    texts(f"supplies.{key}", name=name), str(count), kind=_few(count) if str(name) == "1" else ""
                )
        elif key == "blanks" and isinstance(value, int):
            yield Gauge(texts("supplies.blanks"), str(value), kind="")
        elif key == "free_bytes":
            yield Gauge(texts("supplies.free"), shown.size(value))
        elif key == "free_mb":
            yield Gauge(texts("supplies.free"), shown.size(float(value) * 1e6))
        elif key == "printers" and isinstance(value, Mapping):
            for name, printer in value.items():
                words = ", ".join(f"{what} {how}" for what, how in printer.items()) if printer else ""
                yield Gauge(str(name), words)
        elif isinstance(value, str | int | float) and not isinstance(value, bool):
            yield Gauge(texts.known(f"supplies.{key}", str(key).replace("_", " ")), str(value))


def _percent(label: str, level: Any, shown: Shown) -> Gauge:
    if not isinstance(level, int | float):
        return Gauge(label, str(level))
    kind = "bad" if level <= 0 else "warn" if level < _LOW_PERCENT else ""
    return Gauge(label, shown.percent(level / 100), max(0.0, min(1.0, level / 100)), kind)


def _few(count: Any) -> str:
    return ("bad" if count <= 0 else "warn" if count < _FEW_BLANKS else "") if isinstance(count, int) else ""


class BurnerWatch:
    """How the burners stand, asked of their devices every few seconds at most, and never while a page waits."""

    def __init__(self, ask: Callable[[], list[Document]]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._asking = False
        self._known: list[Document] | None = None
        self._at = 0.0

    def now(self) -> list[Document]:
        """What was known a few seconds ago; only the first one who asks waits."""
        with self._lock:
            known, old = self._known, time.monotonic() - self._at > _KEPT_SECONDS
            if known is not None and old and not self._asking:
                self._asking = True
                threading.Thread(target=self._look, name="burner-watch", daemon=True).start()
        if known is None:
            self._look()
            known = self._known or []
        return known

    def _look(self) -> None:
        try:
            found = self._ask()
            with self._lock:
                self._known, self._at = found, time.monotonic()
        finally:
            with self._lock:
                self._asking = False
