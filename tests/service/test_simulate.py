"""`burnish simulate`: a robot as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from burners import registry
from burners.base import BurnState
from tests.burners.orders import order
from tests.burners.robots import ROBOTS
from tests.waiting import wait_for


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "service", "simulate", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("name", ROBOTS[:1])
def test_it_burns_until_it_is_stopped(name: str, tmp_path: Path) -> None:
    folder, out = tmp_path / "robot", tmp_path / "discs"
    kind = registry.drivers()[name].load()
    options = kind.example(folder) | {"robot_path": ""}  # the robot sees the folder as we do
    robot = start(
        *(name, "--folder", os.path.relpath(folder), "--out", out),
        *("--speed", "400", "--fault", "no-blanks:0.5", "--seed", "3", "--json"),
    )
    try:
        burner = kind("r", options, data=tmp_path)
        given = order()
        ticket = burner.prepare(given)
        burner.submit(given, ticket)
        wait_for(lambda: burner.poll(ticket).state.ended, "the disc")
        assert burner.poll(ticket).state is BurnState.BURNT
        burner.close()
    finally:
        robot.send_signal(signal.SIGTERM)
        told, log = robot.communicate(timeout=120)
    assert robot.returncode == 0, log
    assert json.loads(told) == {"event": "ready", "driver": name, "folder": os.path.relpath(folder), "out": str(out)}
    assert f"{ticket['mark']}: good" in log
    assert [path.name for path in out.glob("*.iso")] == [f"{ticket['mark']}.iso"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (("nobody", "--folder", "f", "--out", "o"), "there is no simulator of 'nobody'"),
        ((ROBOTS[0], "--folder", "f", "--out", "o", "--fault", "flood"), "out-of-ink"),
        ((ROBOTS[0], "--folder", "f", "--out", "o", "--fault", "stall:2"), "from 0 to 1"),
    ],
)
def test_what_is_wrong_is_told(wrong: tuple[str, ...], told: str, tmp_path: Path) -> None:
    arguments = [str(tmp_path / one) if one in ("f", "o") else one for one in wrong]
    robot = start(*arguments)
    _, log = robot.communicate(timeout=120)
    assert robot.returncode == 2
    assert told in log and "Traceback" not in log
