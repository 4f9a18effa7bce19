"""One engine per data directory: the lock file, who holds it, and where the running service can be reached."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.errors import NotDone

_SETTLE_SECONDS = 30.0
"""How long a starting service may take to say where it listens."""


class InUse(NotDone):
    """Another process holds the lock of this data directory."""

    def __init__(self, data: Path, holder: dict[str, Any]) -> None:
        what, pid = holder.get("what", "another process"), holder.get("pid", "unknown")
        super().__init__(f"{data} is in use by burnish {what} (process {pid})", "IN_USE")
        self.holder = holder


class DataLock:
    """An exclusive flock on ``DATA/lock``. It ends with the process, however that ends; children do not inherit it."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.path = data / "lock"
        self._fd: int | None = None

    def acquire(self, what: str, *, patience: Callable[[dict[str, Any]], float] = lambda _holder: 0.0) -> None:
        """Take the lock for ``what`` (shown to others); raises ``InUse``.

        ``patience`` is told the holder and says how many seconds in all this caller waits for such a one.
        """
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        began = time.monotonic()
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = _read(self.path)
                if time.monotonic() - began >= patience(holder):
                    os.close(fd)
                    raise InUse(self.data, holder) from None
                time.sleep(0.05)
            except BaseException:
                os.close(fd)
                raise
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps({"what": what, "pid": os.getpid()}).encode(), 0)
        self._fd = fd

    def release(self) -> None:
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            # Unlocked by name: a child on its way to exec still has the descriptor for a moment.
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            os.close(self._fd)
            self._fd = None


def holder_of(data: Path) -> dict[str, Any] | None:
    """Who holds the lock: ``{"what", "pid"}``, empty where that is just being written; None where nobody does."""
    try:
        fd = os.open(data / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(data / "lock")
    else:
        return None
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True)
class Running:
    """A running service: where its API is, and the token for it."""

    url: str
    pid: int
    token: str
    fingerprint: str = ""
    """SHA-256 of the certificate that it has, where ``url`` is https."""


def running_service(data: Path) -> Running | None:
    """The service that runs on this data directory; None where there is none.

    Waits for one that is just starting, and raises ``InUse`` where it does not come up.
    """
    deadline = time.monotonic() + _SETTLE_SECONDS
    while (holder := holder_of(data)) is not None:
        if holder.get("what", "serve") != "serve":
            return None
        said = _read(data / "service.json")
        if said.get("pid") == holder.get("pid") is not None:
            try:
                token = (data / "cli.token").read_text().strip()
            except OSError as error:
                raise NotDone(f"the service's token cannot be read: {error}", "NO_TOKEN") from error
            return Running(str(said["url"]), int(said["pid"]), token, str(said.get("fingerprint", "")))
        if time.monotonic() > deadline:
            raise InUse(data, holder)
        time.sleep(0.05)
    return None


def write_private(path: Path, text: str) -> None:
    """Replace a file atomically by one that only its owner can read."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "w") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
