"""Finding drivers by the entry points ``burnish.burners``; bundled ones come through the same door."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from burners.asking import Asked, ask_all
from burners.base import Burner, BurnerOptionsError, DriverState, DriverStatus

if TYPE_CHECKING:
    from config.sections import Burner as BurnerSettings

GROUP = "burnish.burners"
DISCS = frozenset(("CD", "DVD", "BD"))
"""Families of media types that a driver makes which says nothing of it."""


@dataclass(frozen=True)
class Burners:
    """The burners of the settings: those that work, and why the others do not."""

    usable: Mapping[str, Burner]
    unusable: Mapping[str, DriverStatus] = field(default_factory=dict)
    _asked: dict[str, Asked] = field(init=False, default_factory=dict, repr=False, compare=False)
    _guard: threading.Lock = field(init=False, default_factory=threading.Lock, repr=False, compare=False)

    def get(self, name: str) -> Burner | None:
        return self.usable.get(name)

    def why_not(self, name: str) -> str:
        """Why there is no usable burner of this name."""
        status = self.unusable.get(name)
        return status.reason if status else f"there is no section [burners.{name}] in the settings"

    def statuses(self) -> list[DriverStatus]:
        """How each burner stands now; a driver that fails in ``probe`` is shown with its error.

        One that does not answer within seconds is shown with what was known last (``age_seconds``).
        """
        with self._guard:
            for name, burner in self.usable.items():
                self._asked.setdefault(name, Asked(burner))
            asked = list(self._asked.values())
        return sorted([*ask_all(asked), *self.unusable.values()], key=lambda status: status.name)

    def close(self) -> None:
        for burner in self.usable.values():
            burner.close()


def drivers() -> dict[str, EntryPoint]:
    """The drivers that are installed, by name."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def families(driver: str) -> frozenset[str]:
    """Families of the media types (``media.mediatypes``) that a driver makes: its class attribute ``families``."""
    entry = drivers().get(driver)
    if entry is None:
        return DISCS
    try:
        return frozenset(getattr(entry.load(), "families", DISCS))
    except Exception:  # noqa: BLE001 - what is wrong with it, `load` says
        return DISCS


def load(sections: Mapping[str, BurnerSettings], *, data: Path) -> Burners:
    """Make a burner of each ``[burners.NAME]`` section. One that cannot be made does not stop the others."""
    installed = drivers()
    usable: dict[str, Burner] = {}
    unusable: dict[str, DriverStatus] = {}
    for name, section in sections.items():
        try:
            if section.driver not in installed:
                known = ", ".join(sorted(installed)) or "none"
                raise BurnerOptionsError(f"there is no driver {section.driver!r}; installed are: {known}")
            driver: type[Burner] = installed[section.driver].load()
            usable[name] = driver(name, section.options, data=data)
        except BurnerOptionsError as error:
            unusable[name] = DriverStatus(name, section.driver, DriverState.UNUSABLE, str(error))
        except Exception as error:  # noqa: BLE001 - a third party's driver may raise anything when it is loaded
            reason = f"the driver cannot be loaded: {type(error).__name__}: {error}"
            unusable[name] = DriverStatus(name, section.driver, DriverState.UNUSABLE, reason)
    return Burners(usable, unusable)
