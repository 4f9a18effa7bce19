"""The example of a third party's package, docs/burners/example: the whole contract suite, and through its own door."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from burners import registry
from burners.base import Burner, BurnerOptionsError, BurnState, DriverState, Outcome
from config.sections import Burner as BurnerSettings
from tests.burners.orders import an_image, ended, order
from tests.burners.test_contract import *  # noqa: F403 - its tests, run on the driver below

EXAMPLE = Path(__file__).parents[2] / "docs" / "burners" / "example"
ROOT = EXAMPLE.parents[2]


def entry_point() -> EntryPoint:
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())
    ((name, value),) = project["project"]["entry-points"][registry.GROUP].items()
    return EntryPoint(name, value, registry.GROUP)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> type[Burner]:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    found: type[Burner] = entry_point().load()
    return found


def made(driver: type[Burner], folder: Path, **options: Any) -> Burner:
    return driver("own", driver.example(folder) | options, data=folder)


def test_settings_name_it(driver: type[Burner], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "drivers", lambda: {"command": entry_point()})
    section = BurnerSettings(driver="command", folder="own", command=["make-disc", "{image}"])
    (status,) = registry.load({"own": section}, data=tmp_path).statuses()
    assert (status.name, status.driver, status.state) == ("own", "command", DriverState.READY)


def test_an_installed_package_is_found(tmp_path: Path) -> None:
    """As pip leaves it: the module, and beside it what the package says of itself."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    about = tmp_path / "burnish_command-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    (about / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{entry_point().name} = {entry_point().value}\n")
    (tmp_path / "burnish_command.py").write_text((EXAMPLE / "burnish_command.py").read_text())
    config = tmp_path / "burnish.toml"
    config.write_text('[burners.own]\ndriver = "command"\nfolder = "own"\ncommand = ["make-disc", "{image}"]\n')
    done = subprocess.run(
        [sys.executable, "-m", "service", "burners", "--json", "--config", config, "--data", tmp_path / "data"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found = {one["name"]: (one["driver"], one["state"], one["reason"]) for one in json.loads(done.stdout)}
    assert found["own"] == ("command", "READY", "make-disc {image}")


def test_a_program_that_fails_makes_no_disc(driver: type[Burner], tmp_path: Path) -> None:
    burner = made(driver, tmp_path, command=["sh", "-c", "echo out of ribbon >&2; exit 3", "{image}"])
    given = order()
    ticket = burner.prepare(given)
    burner.submit(given, ticket)
    report = ended(burner, ticket)
    assert report.state is BurnState.FAILED and "status 3: out of ribbon" in report.message
    assert burner.finish(ticket, Outcome.BAD) == ""
    assert "No such file" in run_with(driver, tmp_path / "other", ["/nowhere/program", "{image}"])


def run_with(driver: type[Burner], folder: Path, command: list[str]) -> str:
    burner = made(driver, folder, command=command)
    given = order()
    ticket = burner.prepare(given)
    burner.submit(given, ticket)
    return ended(burner, ticket).message


def test_an_interrupted_program_is_not_run_again(driver: type[Burner], tmp_path: Path) -> None:
    burner = made(driver, tmp_path)
    ticket = burner.prepare(order())
    Path(ticket["folder"]).mkdir(parents=True)
    (Path(ticket["folder"]) / "given").write_text("{}")
    assert burner.poll(ticket).state is BurnState.FAILED
    burner.submit(order(an_image()), ticket)
    assert "interrupted" in burner.poll(ticket).message


def test_wrong_options_are_named(driver: type[Burner], tmp_path: Path) -> None:
    for options, fault in (
        ({"command": "make-disc {image}"}, "no list"),
        ({"command": ["make-disc"]}, "{image}"),
        ({"folder": ""}, "folder is missing"),
    ):
        with pytest.raises(BurnerOptionsError) as caught:
            driver("own", driver.example(tmp_path) | options, data=tmp_path)
        assert fault in str(caught.value)
