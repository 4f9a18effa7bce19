"""A file system that is not mounted is noticed: nothing is written into its mount point."""

from __future__ import annotations

from pathlib import Path

import pytest

from burners.base import BurnerOptionsError, BurnRefused, BurnState, DriverState
from burners.drive import LocalDrive
from burners.folder import FolderTarget
from burners.iso_export import IsoExport
from media import mounts
from media.mounts import Place
from store import spool
from store.spool import Spool
from tests.burners.orders import ended, order


class Mounts:
    """What is mounted where."""

    def __init__(self) -> None:
        self.points = {Path("/")}

    def of(self, folder: Path) -> Path:
        return next(place for place in (folder, *folder.parents) if place in self.points)


@pytest.fixture
def mounted(monkeypatch: pytest.MonkeyPatch) -> Mounts:
    made = Mounts()
    monkeypatch.setattr(mounts, "mount_of", made.of)
    monkeypatch.setattr(spool, "mount_of", made.of)
    return made


@pytest.fixture
def disk(tmp_path: Path, mounted: Mounts) -> Path:
    """A disk of its own, mounted."""
    place = tmp_path / "mnt"
    place.mkdir()
    mounted.points.add(place)
    return place


def test_images_are_not_written_into_an_empty_mount_point(tmp_path: Path, mounted: Mounts, disk: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    options = {"folder": str(disk / "discs")}
    burner = IsoExport("iso", options, data=data)
    assert burner.probe().state is DriverState.READY
    given = order()
    ticket = burner.prepare(given)
    burner.submit(given, ticket)
    assert ended(burner, ticket).state is BurnState.BURNT
    (disk / "discs").rename(tmp_path / "elsewhere")
    mounted.points.remove(disk)
    for again in (burner, IsoExport("iso", options, data=data)):
        status = again.probe()
        assert status.state is DriverState.OFFLINE and f"mounted at {disk} is not" in status.reason
        with pytest.raises(BurnRefused, match="mounted at"):
            again.prepare(order(copy=2))
    assert again.poll(ticket).state is BurnState.WAITING, "nobody knows what became of the disc"
    again.submit(given, ticket)
    assert list(disk.iterdir()) == []
    (tmp_path / "elsewhere").rename(disk / "discs")
    mounted.points.add(disk)
    assert again.probe().state is DriverState.READY and again.poll(ticket).state is BurnState.BURNT


def test_a_folder_that_must_exist_is_never_made(tmp_path: Path) -> None:
    burner = IsoExport("iso", {"folder": "discs", "must_exist": True}, data=tmp_path)
    assert burner.probe().state is DriverState.OFFLINE
    with pytest.raises(BurnRefused, match="No such file"):
        burner.prepare(order())
    (tmp_path / "discs").mkdir()
    assert burner.probe().state is DriverState.READY


def test_other_folders_on_disks_of_their_own(tmp_path: Path, mounted: Mounts, disk: Path) -> None:
    folder = FolderTarget("stick", {"folder": str(disk)}, data=tmp_path)
    assert folder.probe().state is DriverState.READY
    drive = {"drive": f"stdio:{tmp_path / 'disc'}", "staging": str(disk / "staging")}
    LocalDrive("drive", drive, data=tmp_path).close()
    held = Spool(disk / "spool", node="n1")
    assert not held.is_gone() and not held.is_full()
    mounted.points.remove(disk)
    assert folder.probe().state is DriverState.OFFLINE
    with pytest.raises(BurnerOptionsError, match=r"staging: .*mounted at"):
        LocalDrive("drive", drive, data=tmp_path)
    assert held.is_gone() and held.is_full()


def test_what_is_meant_can_be_said(tmp_path: Path, mounted: Mounts, disk: Path) -> None:
    Place(disk, tmp_path).require()
    mounted.points.remove(disk)
    assert (tmp_path / "places").is_dir() and "mounted at" in Place(disk, tmp_path).trouble()
    (file,) = (tmp_path / "places").iterdir()
    file.unlink()
    assert Place(disk, tmp_path).trouble() == ""
