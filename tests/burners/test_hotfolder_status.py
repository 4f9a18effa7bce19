"""Whether a robot lives, by what its status file shows and when."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from burners import hotfolder_status
from burners.hotfolder_options import check
from burners.hotfolder_status import StatusWatch
from burners.primera import Primera, PrimeraDialect
from media.mounts import Place

_STATUS = "[RobotList]\nRobot0=Bravo\n[System]\nSysErrorNumber=0\nServerTickCount={tick}\n"


class Clock:
    """Both clocks of the module, and the file's time, as the test wants them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at = 1000.0
        self._file = folder / "Status" / "SystemStatus.txt"
        self._file.parent.mkdir(parents=True)
        clocks = SimpleNamespace(monotonic=lambda: self.at, time=lambda: self.at + 1e9, sleep=time.sleep)
        monkeypatch.setattr(hotfolder_status, "time", clocks)  # of this module alone: other threads live on
        monkeypatch.setattr(StatusWatch, "_set_clock", lambda *_: None)

    def beat(self) -> None:
        """The robot writes its status now."""
        self._file.write_text(_STATUS.format(tick=int(self.at)))
        os.utime(self._file, (self.at + 1e9,) * 2)


@pytest.fixture
def watch(tmp_path: Path) -> StatusWatch:
    options: dict[str, Any] = Primera.example(tmp_path) | {"stale_seconds": 30}
    checked, dialect = check(options, tmp_path, PrimeraDialect)
    return StatusWatch(checked, dialect, Place(checked.folder, checked.folder.parent))


def test_a_robot_that_was_switched_off_long_before(
    tmp_path: Path, watch: StatusWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(tmp_path, monkeypatch)
    clock.beat()
    clock.at += 31
    assert "not changed" in watch.now().offline
    clock.beat()
    clock.at += 1
    assert not watch.now().offline


def test_a_robot_that_was_switched_off_while_nobody_looked(
    tmp_path: Path, watch: StatusWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(tmp_path, monkeypatch)
    clock.beat()
    assert not watch.now().offline
    clock.at += 5
    clock.beat()  # its last
    clock.at += 3600
    assert "not changed" in watch.now().offline


def test_a_file_server_whose_clock_is_slow(tmp_path: Path, watch: StatusWatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """While somebody looks, a change that is seen counts, whatever the file's time says."""
    clock = Clock(tmp_path, monkeypatch)
    clock.beat()
    assert not watch.now().offline
    for _ in range(5):
        clock.at += 10
        clock.beat()
        os.utime(tmp_path / "Status" / "SystemStatus.txt", (1, 1))
        assert not watch.now().offline
    clock.at += 31
    assert "not changed" in watch.now().offline
