"""The folder driver: whole trees, the root of a medium, what a crash leaves, what it never touches."""

from __future__ import annotations

import errno
import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from burners import folder as driver
from burners import publish as publishing
from burners.base import BurnerOptionsError, BurnRefused, BurnState, DriverState, Outcome
from burners.folder import FolderTarget
from media.iso9660 import IsoImage
from media.items import DiscFile
from tests.burners.orders import SlowImage, an_image, ended, files, order
from tests.waiting import wait_for

UID = "2.25.1234567890"


class Killed(BaseException):
    """kill -9: nothing after it runs but what the test lets run."""


def volume(name: str = "BURNISH_0000001") -> IsoImage:
    """What looks like a file-set to the driver."""

    def made(path: str, data: bytes) -> DiscFile:
        return DiscFile(tuple(path.split("/")), len(data), hashlib.sha256(data).hexdigest(), data)

    parts = [
        made("DICOMDIR", bytes(128) + b"DICM" + UID.encode() + bytes(99)),
        made("README.TXT", b"Read me"),
        made("MANIFEST.TXT", b"sums"),
        *(made(f"DICOM/P0000001/IM{n:06}", bytes([n]) * 3000) for n in range(3)),
    ]
    return IsoImage(parts, name, an_image().created)


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    (tmp_path / "stick").mkdir()
    return tmp_path / "stick"


def target(data: Path, **options: Any) -> FolderTarget:
    return FolderTarget("stick", {"folder": "stick", **options}, data=data)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def expected() -> dict[str, bytes]:
    return {file.path: file.source for file in volume().files if isinstance(file.source, bytes)}


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"folder": ""}, "folder"),
        ({"root": "yes"}, "root"),
        ({"root": True, "slots": 2}, "one volume"),
        ({"root": True, "pattern": "{file_set_id}{copy}"}, "no name"),
        ({"file_system": 5}, "file_system"),
        ({"file_system": "FAT 32"}, "file_system"),
        ({"pattern": "{file_set_id}:{copy}"}, "FAT"),
        ({"pattern": "{file_set_id}"}, "{copy}"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_wrong_options_are_named(tmp_path: Path, options: dict[str, Any], fault: str) -> None:
    with pytest.raises(BurnerOptionsError) as caught:
        target(tmp_path, **options)
    assert fault in str(caught.value)


@pytest.mark.parametrize("root", [False, True])
def test_all_files_as_they_are(tmp_path: Path, stick: Path, root: bool) -> None:
    (stick / "System Volume Information").mkdir()
    burner = target(tmp_path, root=root)
    given = order(volume())
    ticket = burner.prepare(given)
    burner.submit(given, ticket)
    report = ended(burner, ticket)
    assert report.state is BurnState.BURNT, report.message
    place = stick if root else stick / "BURNISH_0000001_1"
    assert report.image == place
    assert report.sha256 == hashlib.sha256(b"sums").hexdigest()
    assert tree(place) == expected()
    top = {"DICOMDIR", "README.TXT", "MANIFEST.TXT", "DICOM"} if root else {place.name}
    assert set(files(stick)) == {"System Volume Information", *top}
    assert target(tmp_path, root=root).poll(ticket).state is BurnState.BURNT
    assert burner.finish(ticket, Outcome.GOOD) == str(place)


def test_a_medium_that_is_not_there_or_not_empty_is_refused(tmp_path: Path, stick: Path) -> None:
    (stick / "HOLIDAY.JPG").write_bytes(b"sea")
    with pytest.raises(BurnRefused, match=r"HOLIDAY\.JPG"):
        target(tmp_path, root=True).prepare(order(volume()))
    away = FolderTarget("b", {"folder": str(tmp_path / "absent")}, data=tmp_path)
    with pytest.raises(BurnRefused, match="absent"):
        away.prepare(order(volume()))
    assert away.probe().state is DriverState.OFFLINE
    assert not (tmp_path / "absent").exists()


def test_the_file_system_is_checked(tmp_path: Path, stick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = publishing.file_system_of(stick)
    assert there
    assert target(tmp_path, file_system=there).probe().state is DriverState.READY
    with pytest.raises(BurnRefused, match=f"is on {there}, not on udf"):
        target(tmp_path, file_system="udf").prepare(order(volume()))
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/a / ext4 rw 0 0\n/dev/b {str(stick).replace('i', chr(92) + '151')} udf rw 0 0\n")
    monkeypatch.setattr(publishing, "Path", lambda name: mounts if name == "/proc/self/mounts" else Path(name))
    assert publishing.file_system_of(stick) == "udf"
    assert publishing.file_system_of(tmp_path) == "ext4"


def test_room_is_counted_in_clusters(tmp_path: Path, stick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    burner = target(tmp_path)
    given = order(volume())
    ticket = burner.prepare(given)
    monkeypatch.setattr(driver, "_need", lambda *_: 1 << 60)
    burner.submit(given, ticket)
    report = ended(burner, ticket)
    assert report.state is BurnState.FAILED and "6 files need" in report.message
    monkeypatch.undo()
    cluster = os.statvfs(stick).f_frsize
    # DICOMDIR, two texts and three instances of a cluster each, three folders: the root, DICOM and the patient's.
    assert driver._need(stick, volume().files) == (6 + 3) * max(512, cluster)


def test_a_name_that_is_taken_is_refused_and_kept(tmp_path: Path, stick: Path) -> None:
    burner = target(tmp_path)
    given = order(SlowImage(volume()))
    ticket = burner.prepare(given)
    (stick / "BURNISH_0000001_1").mkdir()
    (stick / "BURNISH_0000001_1" / "MINE").write_bytes(b"1")
    with pytest.raises(BurnRefused, match="not ours"):
        burner.prepare(given)
    assert burner.poll(ticket).state is BurnState.FAILED
    assert burner.finish(ticket, Outcome.BAD) == ""
    assert tree(stick) == {"BURNISH_0000001_1/MINE": b"1"}


@pytest.mark.parametrize("root", [False, True])
def test_cancel_in_the_middle_leaves_nothing(tmp_path: Path, stick: Path, root: bool) -> None:
    burner = target(tmp_path, root=root)
    image = SlowImage(volume())
    given = order(image)
    ticket = burner.prepare(given)
    burner.submit(given, ticket)
    wait_for(image.started.is_set, "the writer")
    burner.cancel(ticket)
    image.go.set()
    assert ended(burner, ticket).state is BurnState.CANCELLED
    assert burner.finish(ticket, Outcome.CANCELLED) == ""
    assert files(stick) == []


@pytest.mark.parametrize("root", [False, True])
def test_a_disc_that_nobody_wants_is_removed_and_a_bad_one_marked(tmp_path: Path, stick: Path, root: bool) -> None:
    for outcome in (Outcome.CANCELLED, Outcome.BAD):
        burner = target(tmp_path, root=root)
        given = order(volume())
        ticket = burner.prepare(given)
        burner.submit(given, ticket)
        assert ended(burner, ticket).state is BurnState.BURNT
        where = burner.finish(ticket, outcome)
        if outcome is Outcome.CANCELLED:
            assert (where, files(stick)) == ("", [])
        else:
            assert where.endswith("DICOMDIR.bad" if root else "BURNISH_0000001_1.bad")
            assert not list(stick.rglob("DICOMDIR")) or not root


@pytest.mark.parametrize("root", [False, True])
def test_killed_at_every_step_it_is_made_whole_by_the_next(
    tmp_path: Path, stick: Path, root: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At no moment is there a DICOMDIR whose files are not all there, and the next run ends with the whole file-set."""
    steps = 0
    for kill_at in range(1, 1000):
        burner = target(tmp_path, root=root)
        given = order(volume())
        ticket = burner.prepare(given)
        counted = _counting(monkeypatch, kill_at)
        with suppress(Killed):
            burner._write(given, ticket, _Idle())  # type: ignore[arg-type]
        monkeypatch.undo()
        steps = counted[0]
        visible = [path for path in stick.rglob("DICOMDIR") if not any(p.startswith(".") for p in path.parts)]
        for path in visible:
            assert expected().items() <= tree(path.parent).items()
        again = target(tmp_path, root=root)
        found = again.poll(ticket)
        assert found.state in (BurnState.UNKNOWN, BurnState.BURNT), found.message
        if found.state is BurnState.BURNT and found.image:
            assert tree(found.image) == expected(), "nothing is beside it when it is read back"
        later = order(volume(), epoch=8)
        again.submit(later, ticket)
        assert ended(again, ticket).state is BurnState.BURNT
        where = Path(again.finish(ticket, Outcome.GOOD))
        assert tree(where) == expected()
        assert again.finish(ticket, Outcome.CANCELLED) == ""
        assert files(stick) == []
        if steps < kill_at:
            break
    assert steps > (12 if root else 8)


class _Idle:
    """A writer whom nobody cancels."""

    def __init__(self) -> None:
        import threading

        self.abandon = threading.Event()

    def progress(self, done: int) -> None:
        pass


def _counting(monkeypatch: pytest.MonkeyPatch, kill_at: int) -> list[int]:
    """Every fsync and rename is a step; the one with this number is never done."""
    count = [0]

    def step() -> None:
        count[0] += 1
        if count[0] == kill_at:
            raise Killed

    real_sync, real_rename = os.fsync, publishing._rename_noreplace

    def fsync(descriptor: int) -> None:
        step()
        real_sync(descriptor)

    def rename(source: Path, final: Path) -> int:
        step()
        return real_rename(source, final)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(publishing, "_rename_noreplace", rename)
    return count


def test_where_renaming_cannot_refuse_a_folder_is_published_all_the_same(
    tmp_path: Path, stick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "_rename_noreplace", lambda *_: errno.EINVAL)
    burner = target(tmp_path)
    given = order(volume())
    ticket = burner.prepare(given)
    burner.submit(given, ticket)
    assert ended(burner, ticket).state is BurnState.BURNT
    assert tree(stick / "BURNISH_0000001_1") == expected()
    (stick / "new").mkdir()
    with pytest.raises(FileExistsError):
        publishing.publish(stick / "new", stick / "BURNISH_0000001_1")


def test_what_is_in_the_way_in_the_root_is_kept(tmp_path: Path, stick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody writes to the stick between the look and the last rename."""
    burner = target(tmp_path, root=True)
    given = order(volume())
    ticket = burner.prepare(given)
    real = publishing._rename_noreplace

    def rename(source: Path, final: Path) -> int:
        if final.name == "README.TXT":
            final.write_bytes(b"mine")
        return real(source, final)

    monkeypatch.setattr(publishing, "_rename_noreplace", rename)
    burner.submit(given, ticket)
    assert ended(burner, ticket).state is BurnState.FAILED
    burner.finish(ticket, Outcome.BAD)
    assert tree(stick) == {"README.TXT": b"mine"}


@pytest.mark.parametrize("name", ["CON", "LPT1", "A:B", "IM1."])
def test_names_that_fat_cannot_hold_are_refused(tmp_path: Path, stick: Path, name: str) -> None:
    with pytest.raises(BurnRefused, match="FAT"):
        driver._check_names([DiscFile(("DICOM", name), 1, "", b"x")])
