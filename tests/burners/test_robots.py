"""Every driver that has a simulator, with every fault of it. No robot is named here."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from burners import registry
from burners.base import Burner, BurnReport, BurnState, Outcome, Ticket
from burners.simulated.base import FAULTS, simulators
from tests.burners.orders import an_image, order
from tests.burners.robots import ROBOTS, Running
from tests.waiting import wait_for

PATIENT = {"stale_seconds": 60.0, "lost_seconds": 60.0, "stall_minutes": 5.0, "cancel_minutes": 5.0}
"""However slowly this machine runs, no robot that works is given up."""
QUICK = {"stale_seconds": 0.5, "lost_seconds": 1.5, "stall_minutes": 0.01, "cancel_minutes": 0.05}
"""Where nothing more comes of an order, so that nobody waits for minutes here."""
LASTING = ("out-of-ink", "no-blanks", "offline")
"""Go on when they were seen."""

WORDS = {"out-of-ink": r"\bink|ribbon", "no-blanks": r"blank|\bbin\b", "offline": "status"}
"""By which a person understands what is wrong."""

STRICT = set(FAULTS) - {"delete-file"}
"""After which no good disc exists beside what the driver says; of the others a robot may know better than its files."""

TALKING = [name for name in ROBOTS if simulators()[name].load().shows_supplies]
"""Those that say what they lack."""


def options_for(fault: str, *, cancels: bool) -> dict[str, float]:
    """A driver's patience with a robot that has this fault."""
    if fault in ("out-of-ink", "no-blanks", "garbage-status"):
        return PATIENT
    if fault == "offline":
        return PATIENT | {"stale_seconds": QUICK["stale_seconds"]}
    if fault == "stall" and cancels:
        return PATIENT | {"stall_minutes": QUICK["stall_minutes"]}
    return QUICK


def faults() -> list[Any]:
    return [pytest.param(name, fault) for name in ROBOTS for fault in simulators()[name].load().faults]


class Desk:
    """A driver with its robot, and everything that it ever said of an order."""

    def __init__(self, name: str, folder: Path, fault: str = "") -> None:
        self.kind: type[Burner] = registry.drivers()[name].load()
        self.folder = folder
        self.can_cancel = self.kind.dialect({}, []).cancellation("X") is not None  # type: ignore[attr-defined]
        patience = options_for(fault, cancels=self.can_cancel) if fault else PATIENT
        self.options = self.kind.example(folder) | patience
        self.burner = self.restarted()
        self.said: list[BurnReport] = []

    def restarted(self) -> Burner:
        return self.kind("b1", self.options, data=self.folder)

    def give(self, **more: Any) -> Ticket:
        given = order(**more)
        ticket = self.burner.prepare(given)
        self.burner.submit(given, ticket)
        return ticket

    def see(self, ticket: Ticket, until: Callable[[BurnReport], object], what: str) -> BurnReport:
        def looked() -> bool:
            self.said.append(self.burner.poll(ticket))
            return bool(until(self.said[-1]))

        wait_for(looked, what)
        return self.said[-1]

    def end(self, ticket: Ticket) -> BurnReport:
        return self.see(ticket, lambda report: report.state.ended, "the order to end")

    def handed(self, ticket: Ticket) -> bool:
        return any(path.suffix != ".tmp" for path in self.folder.glob(f"{ticket['mark']}.*"))

    def waited(self) -> str:
        """What it said while it waited for a person."""
        return "; ".join(report.message for report in self.said if report.state is BurnState.WAITING)


@pytest.mark.parametrize("name", ROBOTS)
def test_a_good_disc(name: str, tmp_path: Path) -> None:
    desk = Desk(name, tmp_path / "robot")
    image = an_image(size=3 << 20)
    with Running.on(name, desk.folder, desk.options) as robot:
        ticket = desk.give(image=image)
        report = desk.end(ticket)
        assert report.state is BurnState.BURNT, report.message
        chunks: list[bytes] = []
        assert report.sha256 == image.write(lambda data: chunks.append(bytes(data)))
        assert [disc.read_bytes() for disc in robot.discs()] == [b"".join(chunks)]
        assert desk.burner.finish(ticket, Outcome.GOOD)
        later = desk.restarted().poll(ticket)
        assert (later.state, later.message, later.sha256) == (report.state, report.message, report.sha256)
        assert not list(desk.folder.rglob("image*")), "images are not kept in the robot's folder"


@pytest.mark.parametrize(("name", "fault"), faults())
def test_a_fault(name: str, fault: str, tmp_path: Path) -> None:
    desk = Desk(name, tmp_path / "robot", fault)
    with Running.on(name, desk.folder, desk.options, faults=[fault]) as robot:
        if fault in LASTING and name in TALKING:
            robot.hold()
        ticket = desk.give()
        if fault in LASTING and name in TALKING:
            desk.see(ticket, lambda report: re.search(WORDS[fault], desk.waited(), re.IGNORECASE), "what is wrong")
            robot.let_go()
        if fault == "stall":
            desk.see(ticket, lambda report: "moved" in report.message, "the driver to notice that nothing moves")
            assert desk.said[-1].state is BurnState.WAITING
            desk.burner.cancel(ticket)
        report = desk.end(ticket)
        good = robot.discs()
        assert len(good) == (1 if report.state is BurnState.BURNT else 0) or fault not in STRICT
        if report.state is BurnState.BURNT:
            assert len(good) == 1
            assert good[0].read_bytes()[32808:32823] == b"BURNISH_0000001"
        assert desk.restarted().poll(ticket).state is report.state, "a restart finds the same"
        if fault in ("out-of-ink", "no-blanks", "offline"):
            assert report.state is BurnState.BURNT, report.message
        elif fault in ("half-read", "bad-disc", "refuse", "cancel"):
            assert report.state is BurnState.FAILED and report.message
        elif fault == "stall":
            assert report.state is (BurnState.CANCELLED if desk.can_cancel else BurnState.FAILED), report.message
        elif fault == "garbage-status":
            assert report.state is BurnState.BURNT, report.message
        else:  # delete-file, and what only one make has
            assert report.state in (BurnState.BURNT, BurnState.FAILED, BurnState.CANCELLED), report
        desk.burner.finish(ticket, Outcome.GOOD if report.state is BurnState.BURNT else Outcome.BAD)
        before = len(robot.robot.jobs)
        desk.burner.submit(order(epoch=9), ticket)
        assert desk.burner.poll(ticket).state is report.state
        assert len(robot.robot.jobs) <= before, "nothing is handed over twice"


@pytest.mark.parametrize("name", TALKING)
def test_while_it_waits_for_ink_nothing_else_is_given_to_it(name: str, tmp_path: Path) -> None:
    desk = Desk(name, tmp_path / "robot")
    with Running.on(name, desk.folder, desk.options, faults=["out-of-ink"]) as robot:
        robot.hold()
        first = desk.give()
        desk.see(first, lambda report: re.search(WORDS["out-of-ink"], report.message, re.I), "the ink to run out")
        assert desk.said[-1].state is BurnState.WAITING
        second = desk.give(disc="D13", copy=2)
        desk.see(
            second,
            lambda report: re.search(WORDS["out-of-ink"], report.message, re.I),
            "the second order to be held back",
        )
        assert desk.said[-1].state is BurnState.WAITING
        assert desk.burner.probe().supplies
        robot.let_go()
        assert desk.end(first).state is BurnState.BURNT
        assert desk.end(second).state is BurnState.BURNT
        went_on = max(number for number, line in enumerate(robot.lines) if line == f"{first['mark']}: printing")
        assert robot.lines.index(f"{second['mark']}: taken") > went_on
        assert len(robot.discs()) == 2


@pytest.mark.parametrize("name", ROBOTS)
def test_an_order_that_nobody_took_can_be_taken_back(name: str, tmp_path: Path) -> None:
    """The robot is switched off right after the order came."""
    desk = Desk(name, tmp_path / "robot", "offline")
    with Running.on(name, desk.folder, desk.options) as robot:
        robot.takes_nothing()
        ticket = desk.give()
        wait_for(lambda: desk.handed(ticket), "the order to be handed over")
    desk.burner.cancel(ticket)
    assert desk.end(ticket).state is BurnState.CANCELLED
    assert desk.burner.finish(ticket, Outcome.CANCELLED) == ""
    with Running.on(name, desk.folder, desk.options) as robot:
        assert robot.discs() == []
        assert [path for path in desk.folder.iterdir() if path.name.startswith(f"{ticket['mark']}.")] == []


@pytest.mark.parametrize("name", ROBOTS)
def test_cancelled_in_the_middle(name: str, tmp_path: Path) -> None:
    desk = Desk(name, tmp_path / "robot")
    with Running.on(name, desk.folder, desk.options) as robot:
        if desk.can_cancel:
            robot.burns_until_cancelled()
        ticket = desk.give()
        desk.see(ticket, lambda report: f"{ticket['mark']}: burning" in robot.lines, "the burn to begin")
        desk.burner.cancel(ticket)
        report = desk.end(ticket)
        if desk.can_cancel:
            assert (report.state, robot.discs()) == (BurnState.CANCELLED, []), report.message
        else:
            assert (report.state, len(robot.discs())) == (BurnState.BURNT, 1), "too late"


@pytest.mark.parametrize("name", ROBOTS)
def test_the_share_goes_away_and_comes_back(name: str, tmp_path: Path) -> None:
    desk = Desk(name, tmp_path / "robot")
    away = tmp_path / "unplugged"
    with Running.on(name, desk.folder, desk.options) as robot:
        robot.takes_nothing()
        ticket = desk.give()
        desk.see(ticket, lambda report: report.state is BurnState.QUEUED and desk.handed(ticket), "the handing over")
    desk.folder.rename(away)
    report = desk.burner.poll(ticket)
    assert report.state is BurnState.WAITING and str(desk.folder) in report.message
    assert desk.restarted().poll(ticket).state is BurnState.WAITING, "never UNKNOWN: it would be given again"
    wait_for(lambda: desk.burner.probe().state == "OFFLINE", "the driver to notice")
    desk.burner.submit(order(epoch=9), ticket)
    away.rename(desk.folder)
    with Running.on(name, desk.folder, desk.options) as robot:
        assert desk.end(ticket).state is BurnState.BURNT
        assert len(robot.discs()) == 1


@pytest.mark.parametrize("name", TALKING)
def test_the_robot_is_filled_up_when_the_order_that_needed_it_was_cancelled(name: str, tmp_path: Path) -> None:
    desk = Desk(name, tmp_path / "robot")
    with Running.on(name, desk.folder, desk.options, faults=["no-blanks"]) as robot:
        robot.hold()
        first = desk.give()
        desk.see(first, lambda report: re.search(WORDS["no-blanks"], report.message, re.I), "the blanks to run out")
        desk.burner.cancel(first)
        assert desk.end(first).state is BurnState.CANCELLED
        robot.robot._faults = []
        robot.let_go()
        assert desk.end(desk.give(disc="D13", copy=2)).state is BurnState.BURNT
