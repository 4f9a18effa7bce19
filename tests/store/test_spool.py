"""The spool: what is published is whole and durable, what is left behind is found and removed."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest

from store import spool as module
from store.spool import INCOMING, Spool, SpoolFull, is_alive, process_name


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", node="a node/..")


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small file system can be mounted by root only")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def files(spool: Spool) -> list[str]:
    return sorted(path.relative_to(spool.root).as_posix() for path in spool.root.rglob("*") if path.is_file())


def test_a_file_is_written_hashed_and_published(spool: Spool) -> None:
    incoming = spool.incoming()
    incoming.write_meta(b"meta")
    incoming.write(b"data ")
    incoming.write(memoryview(b"set"))
    received = incoming.finish()
    assert received.digest == hashlib.sha256(b"data set").hexdigest()
    assert received.file_sha256 == hashlib.sha256(b"metadata set").hexdigest()
    assert (received.dataset_bytes, received.file_bytes) == (8, 12)
    assert incoming.dataset_offset == 4
    assert not [name for name in files(spool) if not name.startswith(INCOMING)]
    path = incoming.publish()
    spool.sync([path])
    assert spool.path_of(path).read_bytes() == incoming.path.read_bytes() == b"metadata set"
    incoming.settle()
    assert files(spool) == [path]


def test_an_instance_that_never_ends_does_not_fill_the_disk(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_BYTES", 10)
    incoming = spool.incoming()
    for _ in range(5):
        incoming.write(b"123456")
    monkeypatch.setattr(spool, "is_full", lambda: True)
    with pytest.raises(SpoolFull, match="high-water"):
        for _ in range(3):
            incoming.write(b"123456")
    incoming.discard()
    assert files(spool) == []


def test_discard_leaves_nothing_at_any_moment(spool: Spool) -> None:
    for steps in range(4):
        incoming = spool.incoming()
        for step in (lambda i: i.write(b"x"), lambda i: i.finish(), lambda i: i.publish())[:steps]:
            step(incoming)
        incoming.discard()
        incoming.discard()
        assert files(spool) == []


def test_names_never_repeat_and_stay_inside(spool: Spool) -> None:
    paths = {spool.incoming().spool_path for _ in range(50)}
    assert len(paths) == 50
    assert all((spool.root / path).resolve().is_relative_to(spool.root.resolve()) for path in paths)
    assert len(list((spool.root / INCOMING).iterdir())) == 1


def test_remove_takes_the_folder_with_it_once_that_is_old(spool: Spool) -> None:
    old = spool.root / "20200101" / "00" / "x.dcm"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"")
    spool.remove("20200101/00/x.dcm")
    spool.remove("20200101/00/x.dcm")
    assert not (spool.root / "20200101").exists()
    incoming = spool.incoming()
    spool.remove(incoming.publish())
    assert spool.path_of(incoming.spool_path).parent.exists()


def test_publishing_when_a_purge_took_the_whole_day_and_another_hour_begins(
    spool: Spool,
) -> None:
    first = spool.incoming()
    first.write(b"one")
    first.finish()
    first.publish()
    first.settle()
    spool.root.joinpath(first.spool_path).unlink()
    hour = spool.root.joinpath(first.spool_path).parent
    hour.rmdir()
    hour.parent.rmdir()
    second = spool.incoming()
    other = f"{second.spool_path[:9]}{(int(second.spool_path[9:11]) + 1) % 24:02}{second.spool_path[11:]}"
    second.spool_path = other
    second.write(b"two")
    second.finish()
    assert spool.path_of(second.publish()).read_bytes() == b"two"


def test_publishing_into_a_folder_that_somebody_removed(spool: Spool) -> None:
    first = spool.incoming()
    spool.remove(first.publish())
    spool.path_of(first.spool_path).parent.rmdir()
    second = spool.incoming()
    second.write(b"2")
    assert spool.path_of(second.publish()).read_bytes() == b"2"


def test_a_full_file_system(tiny: Path) -> None:
    spool = Spool(tiny / "spool", node="n")
    incoming = spool.incoming()
    with pytest.raises(SpoolFull):
        for _ in range(20):
            incoming.write(bytes(65536))
    incoming.discard()
    again = spool.incoming()
    again.write(bytes(65536))
    again.finish()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_space_is_told_as_full(spool: Spool, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    incoming = spool.incoming()

    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module.os, "write", refuse)
    with pytest.raises(SpoolFull):
        incoming.write(b"x")
    monkeypatch.undo()
    monkeypatch.setattr(module.os, "fdatasync", refuse)
    with pytest.raises(SpoolFull):
        incoming.finish()
    incoming.discard()
    assert files(spool) == []


def test_a_partial_write_is_continued(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(module.os, "write", lambda fd, data: write(fd, bytes(data)[:3]))
    incoming = spool.incoming()
    incoming.write(b"0123456789")
    assert incoming.finish().dataset_bytes == 10
    assert incoming.path.read_bytes() == b"0123456789"


def test_high_water(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    statvfs = namedtuple("statvfs", "f_blocks f_bfree f_bavail")
    # 5 of 100 blocks are root's own: 76 used of 95 is 80 %.
    monkeypatch.setattr(module.os, "statvfs", lambda _: statvfs(100, 24, 19))
    assert not Spool(spool.root, node="n", high_water_percent=80.1).is_full()
    assert Spool(spool.root, node="n", high_water_percent=79.9).is_full()
    monkeypatch.setattr(module.os, "statvfs", lambda _: statvfs(100, 5, 0))
    assert Spool(spool.root, node="n", high_water_percent=100).is_full()


def test_limit_in_bytes(spool: Spool) -> None:
    spool.incoming().discard()
    limited = Spool(spool.root, node="n", max_bytes=100)
    limited.held_bytes = lambda: 99
    assert not limited.is_full()
    limited.held_bytes = lambda: 100
    assert limited.is_full()


def test_a_spool_that_is_not_there_yet_is_as_full_as_its_disk(tmp_path: Path) -> None:
    assert not Spool(tmp_path / "none" / "spool", node="n").is_full()
    assert Spool(tmp_path / "none" / "spool", node="n", high_water_percent=1e-9).is_full()


_CHILD = """
import os, signal, sys
from pathlib import Path
from store.spool import Spool
spool = Spool(Path(sys.argv[1]), node=sys.argv[2])
kept = []
for name in ("half", "published", "registered"):
    incoming = spool.incoming()
    incoming.write(name.encode())
    incoming.finish()
    if name != "half":
        incoming.publish()
    kept.append(incoming)
    print(incoming.spool_path, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def crash(root: Path, node: str) -> list[str]:
    """A process that dies with an instance half written, one published, and one registered; their names."""
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(root), node], stdout=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL
    return done.stdout.split()


def test_sweep_after_a_crash(tmp_path: Path) -> None:
    half, published, registered = crash(tmp_path, "one")
    others = crash(tmp_path, "two")
    spool = Spool(tmp_path, node="one")
    alive = spool.incoming()
    asked: list[str] = []

    def rows(paths: object) -> set[str]:
        asked.extend(paths)  # type: ignore[call-overload]
        return {registered}

    assert spool.sweep(rows) == 3
    assert sorted(asked) == sorted([published, registered])
    assert not spool.path_of(half).exists()
    assert not spool.path_of(published).exists()
    assert spool.path_of(registered).read_bytes() == b"registered"
    assert alive.path.exists()
    # The other node's files are its own.
    assert spool.path_of(others[1]).exists()
    assert len(list((tmp_path / INCOMING / "two").rglob("*-*"))) == 1 + 3
    assert spool.sweep(rows) == 0


def test_sweep_that_cannot_ask_keeps_what_may_be_registered(tmp_path: Path) -> None:
    _, published, registered = crash(tmp_path, "one")
    spool = Spool(tmp_path, node="one")
    assert spool.sweep() == 1
    assert spool.path_of(published).exists()
    assert spool.sweep(lambda _: {registered}) == 2
    assert not spool.path_of(published).exists()


def test_processes_are_known_by_their_start() -> None:
    assert is_alive(process_name())
    pid, _, start = process_name().partition("-")
    assert not is_alive(f"{pid}-{int(start) + 1}")
    assert is_alive("something else")
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    name = process_name(child.pid)
    assert is_alive(name)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(name)  # a zombie
    child.communicate()
    assert not is_alive(name)
