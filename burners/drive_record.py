"""What is known of one burn, as files in a folder: so that it can be told whoever of us dies, and when.

order.json    what shall be burnt, onto what, by which command; its presence is the decision to burn
started.json  the tool is about to begin: process, start time, drive and medium
transcript    what the tool said
cancel        somebody wants it to end
end.json      how it ended
finished.json what the verification said; from here on the folder is a memory only
lock          held (flock) by helper and tool as long as one of them lives
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from burners.publish import sync_folder

_TAIL = 64 << 10


class Run:
    """The folder of one burn."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.image = folder / "image.iso"
        self.source = folder / "image.pickle"
        self.transcript = folder / "transcript"
        self.helper_log = folder / "helper.log"

    def make(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        sync_folder(self.folder.parent)

    def read(self, name: str) -> dict[str, Any] | None:
        """``order``, ``started``, ``end`` ...; None where it was not written."""
        try:
            found = json.loads((self.folder / f"{name}.json").read_bytes())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def write(self, name: str, document: dict[str, Any]) -> None:
        """Durable, and whole or not at all."""
        temporary = self.folder / f".{name}.{os.getpid()}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, json.dumps(document, indent=1).encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.rename(self.folder / f"{name}.json")
        sync_folder(self.folder)

    def remove(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)

    def remove_bulk(self) -> None:
        """What is big, and of no use after the burn."""
        for path in (self.image, self.source):
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def tail(self) -> str:
        """The end of the transcript."""
        try:
            with self.transcript.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL))
                return file.read().decode("utf-8", "replace")
        except OSError:
            return ""

    def alive(self) -> bool:
        """Whether helper or tool lives."""
        return is_held(self.folder / "lock")

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Hold the lock for a moment: True, or False where helper or tool has it."""
        if not self.folder.is_dir():
            yield True
            return
        descriptor = take(self.folder / "lock", patience=0.0)
        try:
            yield descriptor is not None
        finally:
            if descriptor is not None:
                os.close(descriptor)


def take(path: Path, *, patience: float) -> int | None:
    """A descriptor that holds an exclusive flock; None where another has had it for ``patience`` seconds."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(descriptor)
                return None
            time.sleep(0.02)
        except BaseException:
            os.close(descriptor)
            raise


def is_held(path: Path) -> bool:
    """Whether another process holds the lock."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def start_time(pid: int) -> int | None:
    """When a process began, in clock ticks since boot (proc(5), stat, field 22): with its number it is known again."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return int(fields[19])


def boot_id() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def signal_process(started: dict[str, Any], number: int) -> bool:
    """Signal the process that a record names, if it is still that one."""
    pid = int(started.get("pid", 0))
    if not pid or started.get("boot") != boot_id():
        return False
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if start_time(pid) != started.get("start"):
            return False
        import signal

        signal.pidfd_send_signal(handle, number)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True
