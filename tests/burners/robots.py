"""Simulated robots for tests: switched on in a thread, a thousand times faster than real ones."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from burners import registry
from burners.simulated.base import Simulator, simulators
from tests.waiting import wait_for

if TYPE_CHECKING:
    from burners.base import Burner

SPEED = 1000.0
"""A disc takes about a tenth of a second."""
ROBOTS = sorted(set(simulators()) & set(registry.drivers()))


class Running:
    """A simulated robot at work."""

    def __init__(self, robot: Simulator, lines: list[str]) -> None:
        self.robot = robot
        self.lines = lines
        """What it told."""
        self.error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="robot", daemon=True)

    @classmethod
    @contextmanager
    def on(
        cls, name: str, folder: Path, options: dict[str, Any], *, faults: Sequence[str] = (), **more: Any
    ) -> Iterator[Running]:
        """Switch it on, and off at the end; what went wrong in it fails the test."""
        make: type[Simulator] = simulators()[name].load()
        lines: list[str] = []
        robot = make(
            folder,
            folder.parent / f"{folder.name}-discs",
            robot_path=str(options.get("robot_path", "")),
            faults=faults,
            tell=lines.append,
            **{"speed": SPEED} | more,
        )
        robot.forget_seconds = 60.0 * robot.speed  # drivers do not look a thousand times as often
        running = cls(robot, lines)
        running._thread.start()
        try:
            wait_for(lambda: running.shown() or running.error, "the robot to start")
            yield running
        finally:
            running.off()
        if running.error is not None:
            raise running.error

    @classmethod
    @contextmanager
    def for_driver(cls, driver: type[Burner], folder: Path) -> Iterator[Running | None]:
        """The robot of a registered driver; None where it needs none."""
        names = [name for name, entry in registry.drivers().items() if entry.load() is driver and name in ROBOTS]
        if not names:
            yield None
            return
        with cls.on(names[0], folder, driver.example(folder)) as running:
            yield running

    def hold(self) -> None:
        """What goes on by itself after a while (ink, blanks, a program that hangs) lasts until ``let_go``."""
        self.robot.refill_seconds = self.robot.hang_seconds = float("inf")  # type: ignore[misc]

    def let_go(self) -> None:
        self.robot.refill_seconds = self.robot.hang_seconds = 0.0  # type: ignore[misc]
        self.robot._frozen_until = 0.0
        if hasattr(self.robot, "_lost_until"):
            self.robot._lost_until = 0.0

    def burns_until_cancelled(self) -> None:
        """No burn comes to its end by itself."""
        self.robot.least_burn_seconds = 1e9  # type: ignore[misc]

    def takes_nothing(self) -> None:
        """Orders that come are not found."""
        self.robot.take_seconds = 1e9  # type: ignore[misc]

    def off(self) -> None:
        self._stop.set()
        self._thread.join(timeout=60)

    def discs(self, kind: str = ".iso") -> list[Path]:
        """Good discs; with ``.bad`` the spoilt ones."""
        return sorted(path for path in self.robot.out.iterdir() if path.suffix == kind)

    def shown(self) -> bool:
        """All its status files are there, and written."""
        return all(path.exists() and path.stat().st_size for path in self.robot.status())

    def _run(self) -> None:
        try:
            self.robot.run(self._stop)
        except BaseException as error:
            self.error = error
