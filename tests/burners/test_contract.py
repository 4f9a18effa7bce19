"""What every driver shall do: the registered ones, and the fake robot that other tests use. No driver is named here."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from burners import registry
from burners.base import Burner, BurnerOptionsError, BurnReport, BurnState, DriverState, Outcome
from tests.burners.orders import an_image, ended, order
from tests.burners.robots import Running
from tests.fakes import FakeRobot

DRIVERS: dict[str, type[Burner]] = {name: entry.load() for name, entry in registry.drivers().items()}
DRIVERS["fake"] = FakeRobot


@pytest.fixture(params=sorted(DRIVERS))
def driver(request: pytest.FixtureRequest) -> type[Burner]:
    found = DRIVERS[request.param]
    missing = [name for name in getattr(found, "programs", ()) if shutil.which(name) is None]
    if missing and os.environ.get("CI") != "true":
        pytest.skip(f"not installed: {', '.join(missing)}")
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "device"


@pytest.fixture(autouse=True)
def device(driver: type[Burner], folder: Path) -> Iterator[Running | None]:
    """The robot that the driver needs, switched on, where it has a simulator."""
    with Running.for_driver(driver, folder) as robot:
        yield robot


@pytest.fixture
def burner(driver: type[Burner], folder: Path) -> Iterator[Burner]:
    made = driver("b1", driver.example(folder), data=folder)
    yield made
    made.close()


def again(driver: type[Burner], folder: Path) -> Burner:
    """The driver after a restart."""
    return driver("b1", driver.example(folder), data=folder)


def test_it_says_how_it_stands(burner: Burner) -> None:
    status = burner.probe()
    assert (status.name, status.state) == ("b1", DriverState.READY), status.reason
    assert burner.slots >= 1 and isinstance(burner.shared, bool)
    assert burner.verified_by in ("read-back", "robot")


def test_it_refuses_options_that_it_does_not_know(driver: type[Burner], folder: Path) -> None:
    with pytest.raises(BurnerOptionsError, match="colour"):
        driver("b1", driver.example(folder) | {"colour": "red"}, data=folder)
    with pytest.raises(BurnerOptionsError):
        driver("b1", {}, data=folder)


def test_a_disc_is_made_once_and_told_after_a_restart(
    driver: type[Burner], burner: Burner, folder: Path, device: Running | None
) -> None:
    given = order()
    ticket = burner.prepare(given)
    assert burner.poll(ticket).state is BurnState.UNKNOWN
    burner.submit(given, ticket)
    burner.submit(given, ticket)
    report = ended(burner, ticket)
    assert report.state is BurnState.BURNT, report.message
    burner.submit(given, ticket)
    assert burner.poll(ticket).state is BurnState.BURNT
    later = again(driver, folder)
    found = later.poll(ticket)
    assert (found.state, found.device_free, found.image) == (BurnState.BURNT, report.device_free, report.image)
    later.submit(order(epoch=8), ticket)
    assert ended(later, ticket).state is BurnState.BURNT
    assert later.finish(ticket, Outcome.GOOD)
    assert later.poll(ticket).device_free
    assert (report.image is not None) == (burner.verified_by == "read-back")
    if isinstance(burner, FakeRobot):
        assert len(burner.made()) == 1
    if device is not None:
        assert len(device.discs()) == 1


def test_the_image_can_be_read_back(burner: Burner) -> None:
    image = an_image(size=3 << 20)
    given = order(image)
    ticket = burner.prepare(given)
    burner.submit(given, ticket)
    report = ended(burner, ticket)
    if report.image is None:
        assert burner.verified_by != "read-back"
        return
    chunks: list[bytes] = []
    digest = image.write(lambda data: chunks.append(bytes(data)))
    if report.image.is_dir():  # written file by file
        made = {str(path.relative_to(report.image)): path for path in report.image.rglob("*") if path.is_file()}
        assert {name: path.read_bytes() for name, path in made.items()} == {
            file.path: file.source for file in image.files
        }
        return
    made = report.image.read_bytes()
    size = 2048 * image.sectors
    assert made[:size] == b"".join(chunks)
    assert not made[size:].strip(b"\0")  # a medium may be written in larger blocks
    assert report.sha256 == digest


def test_a_ticket_is_json(burner: Burner) -> None:
    import json

    ticket = burner.prepare(order())
    assert json.loads(json.dumps(ticket)) == ticket


def test_preparing_leaves_nothing(burner: Burner, folder: Path) -> None:
    before = sorted(folder.rglob("*")) if folder.exists() else []
    for _ in range(2):
        burner.prepare(order())
    assert [path for path in (sorted(folder.rglob("*")) if folder.exists() else []) if path.is_file()] == [
        path for path in before if path.is_file()
    ]


def test_who_lost_the_disc_publishes_nothing(driver: type[Burner], burner: Burner, folder: Path) -> None:
    given = order(mine=lambda: False)
    ticket = burner.prepare(given)
    asked: list[BurnReport] = []
    burner.submit(given, ticket)
    from tests.waiting import wait_for

    wait_for(lambda: asked.append(burner.poll(ticket)) or asked[-1].device_free, "the driver to give up")
    assert asked[-1].state is BurnState.UNKNOWN
    assert again(driver, folder).poll(ticket).state is BurnState.UNKNOWN
    # The one who has it now makes it, in this process or another.
    burner.submit(order(epoch=8), ticket)
    assert ended(burner, ticket).state is BurnState.BURNT


def test_cancelled_before_it_began(burner: Burner) -> None:
    ticket = burner.prepare(order())
    burner.cancel(ticket)
    assert burner.poll(ticket).state is BurnState.UNKNOWN
    assert burner.finish(ticket, Outcome.CANCELLED) == ""


def test_cancelled_after_the_end_is_too_late(burner: Burner) -> None:
    given = order()
    ticket = burner.prepare(given)
    burner.submit(given, ticket)
    assert ended(burner, ticket).state is BurnState.BURNT
    burner.cancel(ticket)
    assert burner.poll(ticket).state is BurnState.BURNT


def test_an_image_that_cannot_be_made_fails(burner: Burner, tmp_path: Path) -> None:
    from media.iso9660 import IsoImage
    from media.items import DiscFile

    source = tmp_path / "source"
    source.write_bytes(b"not what was promised")
    lie = IsoImage((DiscFile(("A",), 21, "0" * 64, source),), "DISC_1", an_image().created)
    given = order(lie)
    ticket = burner.prepare(given)
    try:
        burner.submit(given, ticket)
    except Exception as error:
        assert "A" in str(error)
        return
    report = ended(burner, ticket)
    assert report.state is BurnState.FAILED and "A" in report.message
