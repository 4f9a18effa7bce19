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
_FIRST_SECONDS = 3.0
_SILENT_SECONDS = 30.0


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
                label = texts("supplies.ink", colour=texts.known(f"colour.{colour}".replace(" ", "_"), str(colour)))
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
    """How the burners stand, asked of their devices every few seconds at most, and never while a page waits.

    A robot's folder on a file server that hangs may keep the asking for hours: then what was known is shown, and that
    it is old.
    """

    def __init__(self, ask: Callable[[], list[Document]]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._looking: threading.Thread | None = None
        self._known: list[Document] | None = None
        self._at = 0.0
        """When that was known."""
        self._since = 0.0
        """When the latest look began."""

    def now(self) -> list[Document]:
        """What was known a few seconds ago; only at first somebody waits, and not for long."""
        with self._lock:
            known, at = self._known, time.monotonic()
            if (known is None or at - self._at > _KEPT_SECONDS) and not self._is_looking():
                self._since = at
                self._looking = threading.Thread(target=self._look, name="burner-watch", daemon=True)
                self._looking.start()
            looking, left = self._looking, self._since + _FIRST_SECONDS - at
        if known is None and looking is not None and left > 0:
            looking.join(left)
            with self._lock:
                known = self._known
        return known or []

    def silent(self) -> float | None:
        """For how many seconds the devices have kept a look waiting; None: they answer."""
        with self._lock:
            passed = time.monotonic() - self._since
            patience = _FIRST_SECONDS if self._known is None else _SILENT_SECONDS
            return passed if self._is_looking() and passed >= patience else None

    def _is_looking(self) -> bool:
        return self._looking is not None and self._looking.is_alive()

    def _look(self) -> None:
        found = self._ask()
        with self._lock:
            self._known, self._at = found, time.monotonic()
