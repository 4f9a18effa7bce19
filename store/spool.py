"""The spool: received instances as PS3.10 files, each durable before anybody is told that it was received.

    incoming/NODE/PID-START/NAME    on its way in: written, hashed, then synced; NAME is made of the hour and chance
    YYYYMMDD/HH/NAME.dcm            published: a second link to the same file, named by its row in SQL

An instance is published by a link, then registered, and only then loses its incoming name. So whatever a crash leaves
behind still has its incoming name, and the sweep at the next start need not look at anything else. No part of a name
comes from the network, and no name is ever used twice: what a purge removes can never be what has just arrived anew.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from media.mounts import mount_of

INCOMING = "incoming"
_LOOK_BYTES = 256 << 20
"""After so many bytes of an instance it is looked whether there is room for more: what never ends must not fill it."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_NAME = re.compile(r"\d{10}-[0-9a-f]{20}")
_PROCESS = re.compile(r"(\d+)-(\d+)")


class SpoolFull(Exception):
    """There is no room for another instance: the file system or quota is full, or above the high-water mark."""


@dataclass(frozen=True, slots=True)
class Received:
    """What is known of an instance's bytes once they are all in the spool."""

    digest: str
    """SHA-256 of the data set alone, lower-case hex."""
    dataset_bytes: int
    file_sha256: str
    """SHA-256 of the whole PS3.10 file."""
    file_bytes: int


class Incoming:
    """One instance on its way into the spool. Used by one thread; ``discard`` may follow any other call."""

    def __init__(self, spool: Spool, name: str, path: Path) -> None:
        self.path = path
        """The complete file, until ``settle`` or ``discard``."""
        self.spool_path = f"{name[:8]}/{name[8:10]}/{name}.dcm"
        """Where it will be published, relative to the spool."""
        self.dataset_offset = 0
        self._spool = spool
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        self._file_hash = hashlib.sha256()
        self._dataset_hash = hashlib.sha256()
        self._size = 0
        self._look_at = _LOOK_BYTES
        self._published = False

    def write_meta(self, meta: bytes) -> None:
        """Preamble, prefix and file meta information; once, before the data set. SpoolFull where there is no room."""
        self._write(meta)
        self.dataset_offset = self._size

    def write(self, data: bytes | memoryview) -> None:
        """The next piece of the data set, as received. SpoolFull where there is no room."""
        self._write(data)
        self._dataset_hash.update(data)

    def _write(self, data: bytes | memoryview) -> None:
        self._file_hash.update(data)
        size = written = len(data)
        try:
            written = os.write(self._fd, data)
            while written < size:  # a file system that runs full takes a part first
                written += os.write(self._fd, data[written:])
        except OSError as error:
            raise _as_full(error) from error
        self._size += size
        if self._size >= self._look_at:
            self._look_at = self._size + _LOOK_BYTES
            if self._spool.is_full():
                raise SpoolFull("above the high-water mark")

    def finish(self) -> Received:
        """All bytes are there: make them durable. SpoolFull where there is no room."""
        if self._fd >= 0:
            try:
                os.fdatasync(self._fd)
                self._close()
            except OSError as error:
                raise _as_full(error) from error
        return Received(
            self._dataset_hash.hexdigest(),
            self._size - self.dataset_offset,
            self._file_hash.hexdigest(),
            self._size,
        )

    def publish(self) -> str:
        """Give the file its lasting name and return it; the folder must be synced before anybody relies on it."""
        if not self._published:
            try:
                self._spool.publish(self.path, self.spool_path)
            except OSError as error:
                raise _as_full(error) from error
            self._published = True
        return self.spool_path

    def settle(self) -> None:
        """The published name is registered: the incoming one is no longer needed."""
        self.path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Leave nothing behind."""
        self._close()
        with suppress(OSError):
            if self._published:
                self._spool.remove(self.spool_path)
            self.path.unlink(missing_ok=True)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class Spool:
    """The folder tree of received instances. Safe for threads, for processes, and for nodes that share it."""

    def __init__(self, root: Path, *, node: str, high_water_percent: float = 100.0, max_bytes: int = 0) -> None:
        """``max_bytes`` counts once ``held_bytes`` is set by somebody who knows (``store.instances``); 0 = no limit."""
        self.root = root
        self.node = node
        self.held_bytes: Callable[[], int] | None = None
        self.max_bytes = max_bytes
        self._high_water = high_water_percent
        self._mount = mount_of(root)
        self._node_folder = root / INCOMING / quote(node, safe=" ").replace(".", "%2E")
        self._folder = self._node_folder / process_name()
        self._lock = threading.Lock()
        self._known: set[Path] = set()

    def incoming(self) -> Incoming:
        """A new temporary file on the spool's own file system. SpoolFull where there is no room even for that."""
        name = f"{datetime.now(UTC):%Y%m%d%H}-{secrets.token_hex(10)}"
        try:
            self._ensure(self._folder)
            try:
                return Incoming(self, name, self._folder / name)
            except FileNotFoundError:
                self._known.discard(self._folder)
                self._ensure(self._folder)
                return Incoming(self, name, self._folder / name)
        except OSError as error:
            raise _as_full(error) from error

    def scratch(self) -> Path:
        """A name for a temporary file on the spool's file system; should we die, the sweep removes it."""
        self._ensure(self._folder)
        return self._folder / f"scratch-{secrets.token_hex(10)}"

    def is_gone(self) -> bool:
        """Whether the file system that the spool was on when this process began is mounted no more."""
        mount = mount_of(self.root)
        return mount != self._mount and mount in self._mount.parents

    def is_full(self) -> bool:
        """Whether the file system is used above the high-water mark (as ``df`` counts) or the spool holds too much.

        So it is, too, where its file system is gone: nothing may be written into the empty mount point.
        """
        if self.is_gone():
            return True
        folder = self.root
        while True:
            try:
                fs = os.statvfs(folder)
                break
            except FileNotFoundError:  # nothing was received yet: look at where it will be made
                folder = folder.absolute().parent
        used = fs.f_blocks - fs.f_bfree
        if used * 100 > self._high_water * (used + fs.f_bavail) or not fs.f_bavail:
            return True
        return bool(self.max_bytes and self.held_bytes and self.held_bytes() >= self.max_bytes)

    def path_of(self, spool_path: str) -> Path:
        """Where a published instance lies."""
        return self.root / spool_path

    def publish(self, path: Path, spool_path: str) -> None:
        """Give an incoming file its lasting name as well; never overwrites."""
        target = self.root / spool_path
        self._ensure(target.parent)
        try:
            self._link(path, target)
        except FileNotFoundError:  # the empty folder was removed in between
            self._known.discard(target.parent)
            self._ensure(target.parent)
            self._link(path, target)

    @staticmethod
    def _link(path: Path, target: Path) -> None:
        try:
            os.link(path, target)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            path.rename(target)  # a file system without links: a crash now may leave a file that no row names

    def sync(self, spool_paths: Iterable[str]) -> None:
        """Make the names of published instances durable."""
        for folder in {self.root / Path(path).parent for path in spool_paths}:
            sync_folder(folder)

    def remove(self, spool_path: str) -> None:
        """Remove a published instance, and its folder where that is left empty; no matter if it is already gone."""
        path = self.root / spool_path
        path.unlink(missing_ok=True)
        folder = path.parent
        if folder.relative_to(self.root).as_posix() < f"{datetime.now(UTC):%Y%m%d/%H}":
            with suppress(OSError):
                folder.rmdir()
                folder.parent.rmdir()

    def sweep(self, registered: Callable[[Collection[str]], set[str]] | None = None) -> int:
        """Remove what dead processes of this node left in ``incoming``; returns how many files.

        ``registered`` tells which of some published names have a row (``store.instances.registered_paths``): the
        others are removed too. Without it an instance that has both names is left for a sweep that can ask.
        """
        removed = 0
        for folder in sorted(self._node_folder.glob("*-*")):
            if is_alive(folder.name):
                continue
            try:
                names = {path: _published_path(path.name) for path in folder.iterdir()}
            except FileNotFoundError:  # another process sweeps as well
                continue
            published = {name for name in names.values() if name and (self.root / name).exists()}
            kept = registered(published) if registered and published else set()
            for path, name in names.items():
                if name in published and registered is None:
                    continue
                if name and name in published - kept:
                    self.remove(name)
                path.unlink(missing_ok=True)
                removed += 1
            with suppress(OSError):
                folder.rmdir()
        return removed

    def _ensure(self, folder: Path) -> None:
        """Make a folder that survives a power cut."""
        if folder in self._known:
            return
        with self._lock:
            try:
                self._make(folder)
            except FileNotFoundError:  # a folder above went with the last that was in it
                self._known.difference_update((folder, *folder.parents))
                self._make(folder)

    def _make(self, folder: Path) -> None:
        for parent in reversed((folder, *folder.parents)):
            if parent in self._known or not (parent == self.root or self.root in parent.parents):
                continue
            if not parent.is_dir():
                parent.mkdir(parents=parent == self.root, exist_ok=True, mode=0o750)
                sync_folder(parent.parent)
            self._known.add(parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def process_name(pid: int | None = None) -> str:
    """``PID-START`` of a process, our own by default: a PID that is used again has another start time."""
    pid = pid or os.getpid()
    return f"{pid}-{_start_time(pid) or int(time.time())}"


def is_alive(name: str) -> bool:
    """Whether the process of a ``process_name`` still runs; True for a name that is none."""
    match = _PROCESS.fullmatch(name)
    if match is None:
        return True
    pid, start = int(match[1]), int(match[2])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it lives, and is somebody else's
    return _start_time(pid) in (start, None)


def _start_time(pid: int) -> int | None:
    """Field 22 of ``/proc/PID/stat``, 0 for a zombie; None where there is no such thing."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return 0 if fields[0] in (b"Z", b"X") else int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


def _published_path(name: str) -> str | None:
    return f"{name[:8]}/{name[8:10]}/{name}.dcm" if _NAME.fullmatch(name) else None


def _as_full(error: OSError) -> Exception:
    if error.errno in _FULL:
        return SpoolFull(f"the spool is full: {error.strerror}")
    return error
