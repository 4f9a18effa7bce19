"""What we note beside the images, so that a restart knows what was handed over and what became of it.

``JOB/handed.EPOCH`` is written before an order's file gets its final name and says "may have been handed over". While
the order's temporary file ``JOB.EPOCH.tmp`` is still there, it was not: a rename takes that name away in the same
moment. Who removes the temporary file makes it impossible for ever that the claim ``EPOCH`` hands anything over.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from burners.base import BurnState
from burners.publish import sync_folder

_KEPT_SECONDS = 180 * 86_400.0
_LEFT_SECONDS = 7 * 86_400.0
_OUTCOME = ".outcome.json"


@dataclass(frozen=True, slots=True)
class Ending:
    """How an order ended; the robot's own files go away after an hour or two."""

    state: BurnState
    message: str
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Records:
    """Notes of all orders of one burner."""

    images: Path
    orders: Path

    def place(self, job_id: str) -> Path:
        """The folder for the image and label of an order."""
        return self.images / job_id

    def order_part(self, job_id: str, epoch: int) -> Path:
        return self.orders / f"{job_id}.{epoch}.tmp"

    def order_parts(self, job_id: str) -> dict[int, Path]:
        """Temporary files of an order, by the claim that made them."""
        pattern = re.compile(re.escape(job_id) + r"\.([0-9]+)\.tmp")
        found: dict[int, Path] = {}
        for path in self.orders.iterdir():
            match = pattern.fullmatch(path.name)
            if match:
                found[int(match[1])] = path
        return found

    def note_handing(self, job_id: str, epoch: int, facts: dict[str, Any]) -> None:
        """To be called right before the order's file gets its final name."""
        write_durably(self.place(job_id) / f"handed.{epoch}", json.dumps(facts).encode())

    def handed(self, job_id: str) -> dict[int, dict[str, Any]]:
        """Claims that may have handed the order over, with their facts."""
        found: dict[int, dict[str, Any]] = {}
        with suppress(FileNotFoundError):
            for path in self.place(job_id).iterdir():
                prefix, _, epoch = path.name.partition(".")
                if prefix == "handed" and epoch.isdecimal():
                    found[int(epoch)] = _read(path)
        return found

    def fence(self, job_id: str, epoch: int) -> bool:
        """Make every older claim unable to hand the order over; True where another has, or may have."""
        for other, part in self.order_parts(job_id).items():
            if other < epoch:
                with suppress(FileNotFoundError):
                    part.unlink()
                    (self.place(job_id) / f"handed.{other}").unlink(missing_ok=True)
        parts = self.order_parts(job_id)
        return any(other != epoch and other not in parts for other in self.handed(job_id))

    def overtaken(self, job_id: str, epoch: int) -> bool:
        """A newer claim is at work on the order."""
        return any(other > epoch for other in self.order_parts(job_id))

    def wish_cancel(self, job_id: str) -> None:
        path = self.place(job_id) / "cancel"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_durably(path, b"")

    def wished(self, job_id: str) -> bool:
        return (self.place(job_id) / "cancel").exists()

    def ending(self, job_id: str) -> Ending | None:
        found = _read(self.images / f"{job_id}{_OUTCOME}")
        try:
            return Ending(BurnState(found["state"]), str(found["message"]), found["sha256"]) if found else None
        except (KeyError, ValueError):
            return None

    def note_ending(self, job_id: str, ending: Ending) -> None:
        facts = {"state": ending.state.value, "message": ending.message, "sha256": ending.sha256}
        write_durably(self.images / f"{job_id}{_OUTCOME}", json.dumps(facts).encode())

    def clear(self, job_id: str) -> None:
        """Remove everything of an order but how it ended."""
        with suppress(FileNotFoundError):
            for part in self.order_parts(job_id).values():
                part.unlink(missing_ok=True)
        shutil.rmtree(self.place(job_id), ignore_errors=True)

    def forget_old(self) -> None:
        """Drop endings of half a year ago, and what was left of orders that ended a week ago."""
        now = time.time()
        with suppress(OSError):
            for path in self.images.iterdir():
                if not path.name.endswith(_OUTCOME):
                    continue
                age = now - path.stat().st_mtime
                if age > _LEFT_SECONDS:
                    shutil.rmtree(self.place(path.name.removesuffix(_OUTCOME)), ignore_errors=True)
                if age > _KEPT_SECONDS:
                    path.unlink(missing_ok=True)


def write_durably(path: Path, data: bytes) -> None:
    """Replace a file as a whole; it is on the disk when this returns. Several threads may do so at once."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o660)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
    sync_folder(path.parent)


def _read(path: Path) -> dict[str, Any]:
    """A note; empty where there is none, or none that can be read."""
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
