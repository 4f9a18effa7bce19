"""A burner that hangs keeps nobody from hearing of the others, and what is old is called so."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest

from burners import asking
from burners.base import Burner, DriverState, DriverStatus
from burners.registry import Burners
from tests.waiting import wait_for


class Device:
    """Answers when it is let."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.answers = threading.Event()
        self.answers.set()
        self.asked = 0
        self.blanks = 10

    def probe(self) -> DriverStatus:
        blanks = self.blanks
        self.asked += 1
        assert self.answers.wait(600)
        return DriverStatus(self.name, "test", DriverState.READY, "all well", {"blanks": blanks})


@pytest.fixture
def devices() -> Iterator[dict[str, Device]]:
    made = {name: Device(name) for name in ("good", "hangs")}
    yield made
    for one in made.values():
        one.answers.set()


@pytest.fixture
def burners(devices: dict[str, Device], monkeypatch: pytest.MonkeyPatch) -> Burners:
    monkeypatch.setattr(asking, "_PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(asking, "_FIRST_SECONDS", 0.3)
    return Burners(cast("dict[str, Burner]", devices))


def test_one_that_hangs_is_told_with_its_age(
    burners: Burners, devices: dict[str, Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "_FIRST_SECONDS", 600.0)
    monkeypatch.setattr(asking, "_SILENT_SECONDS", 600.0)
    assert {one.name: (one.state, one.age_seconds) for one in burners.statuses()} == {
        "good": (DriverState.READY, 0.0),
        "hangs": (DriverState.READY, 0.0),
    }
    devices["hangs"].answers.clear()
    old: dict[str, Any] = {}

    def hangs() -> bool:
        old.update({one.name: one for one in burners.statuses()})
        return bool(old["hangs"].age_seconds)

    wait_for(hangs, "it to be called old")
    assert old["hangs"].state is DriverState.READY and "ago: all well" in old["hangs"].reason
    monkeypatch.setattr(asking, "_SILENT_SECONDS", 0.0)
    hangs()
    assert old["hangs"].state is DriverState.OFFLINE and "ago it was READY: all well" in old["hangs"].reason
    assert old["hangs"].supplies == {"blanks": 10}
    assert devices["hangs"].asked == 2, "nobody asks it again before it has answered"
    devices["hangs"].blanks = 3
    devices["hangs"].answers.set()
    monkeypatch.setattr(asking, "_PATIENCE_SECONDS", 600.0)
    assert {one.name: one.supplies["blanks"] for one in burners.statuses()} == {"good": 10, "hangs": 3}


def test_one_that_never_answered_is_offline(burners: Burners, devices: dict[str, Device]) -> None:
    devices["hangs"].answers.clear()
    shown = {one.name: one for one in burners.statuses()}
    assert shown["hangs"].state is DriverState.OFFLINE and "has not answered for" in shown["hangs"].reason
    for _ in range(10):
        burners.statuses()
    assert devices["hangs"].asked == 1, "it is asked once, by one thread"


def test_what_is_told_was_asked_after_one_wanted_to_know(
    devices: dict[str, Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "_FIRST_SECONDS", 600.0)
    monkeypatch.setattr(asking, "_PATIENCE_SECONDS", 600.0)
    one = asking.Asked(cast("Burner", devices["hangs"]))
    devices["hangs"].answers.clear()
    one.ask()
    wait_for(lambda: devices["hangs"].asked == 1, "it to be asked")
    devices["hangs"].blanks = 7
    wanted = one.ask()
    devices["hangs"].answers.set()
    assert one.answer(wanted).supplies == {"blanks": 7}
