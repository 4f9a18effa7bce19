"""A driver that gives each disc's image to a program of the site, which makes the disc and ends with status 0.

    [burners.own]
    driver = "command"
    folder = "own"                                  # for images and what is known of each disc
    command = ["/usr/local/bin/make-disc", "{image}"]
    place = "shelf beside the reading room"         # where finished discs are found

Everything that must be known after a crash is in the folder of the ticket, as files that are written whole or not at
all: ``given`` (the program was, or was about to be, started: the disc may exist) and ``ended`` (how it ended).
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from burners.base import (
    BurnerOptionsError,
    BurnOrder,
    BurnRefused,
    BurnReport,
    BurnState,
    DriverState,
    DriverStatus,
    Outcome,
    Ticket,
)
from media.problems import MediaError

_KNOWN = ("folder", "command", "place")


class CommandBurner:
    """The driver ``command``."""

    verified_by: ClassVar[str] = "robot"  # nobody here can read the disc back, and the catalogue must not claim it
    slots = 1
    shared = False  # the program and its device belong to this machine

    def __init__(self, name: str, options: Mapping[str, Any], *, data: Path) -> None:
        # All faults at once, unknown keys too: a misspelt option must not be overlooked.
        faults = [f"unknown option {key!r}" for key in options if key not in _KNOWN]
        faults += [f"{key} is missing" for key in ("folder", "command") if not options.get(key)]
        command = options.get("command", [])
        if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
            faults.append("command is no list of words")
        elif command and not any("{image}" in word for word in command):
            faults.append("command nowhere says {image}")
        if faults:
            raise BurnerOptionsError("; ".join(faults))
        self.name = name
        self._folder = data / Path(options["folder"])
        self._command = command
        self._place = str(options.get("place") or "output tray")
        self._workers: dict[str, _Worker] = {}
        self._lock = threading.Lock()

    @classmethod
    def example(cls, folder: Path) -> dict[str, Any]:
        """The contract suite makes discs with these options; ``test -s`` is content with any image."""
        return {"folder": str(folder), "command": ["test", "-s", "{image}"]}

    def probe(self) -> DriverStatus:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            return DriverStatus(self.name, "command", DriverState.OFFLINE, f"{self._folder}: {error.strerror}")
        return DriverStatus(self.name, "command", DriverState.READY, " ".join(self._command))

    def prepare(self, order: BurnOrder) -> Ticket:
        """The handle that is stored first. Nothing is made here; what cannot be done is refused here."""
        if os.path.lexists(self._folder) and not self._folder.is_dir():
            raise BurnRefused(f"{self._folder} is no folder")
        # Disc IDs are unique within an installation, File-set UIDs all over the world.
        return {"folder": str(self._folder / f"{order.file_set_uid[-24:]}-{order.disc}"), "size": order.sectors * 2048}

    def submit(self, order: BurnOrder, ticket: Ticket) -> None:
        with self._lock:
            before = self._workers.get(ticket["folder"])
            if before is not None and (before.epoch == order.epoch or before.report.state is BurnState.BURNT):
                return
            if before is None and self._known(ticket).state is not BurnState.UNKNOWN:
                return  # it was given to the program once: never again
            if before is not None:
                before.abandon.set()  # an older claim, which may not begin any more
            worker = _Worker(order, Path(ticket["folder"]), self._command, after=before)
            self._workers[ticket["folder"]] = worker
            worker.start()

    def poll(self, ticket: Ticket) -> BurnReport:
        with self._lock:
            worker = self._workers.get(ticket["folder"])
        return worker.report if worker is not None else self._known(ticket)

    def _known(self, ticket: Ticket) -> BurnReport:
        """What the files say, when nobody here works on it: after a restart, say."""
        folder = Path(ticket["folder"])
        if not (folder / "given").exists():
            return BurnReport(BurnState.UNKNOWN, device_free=True)
        try:
            ended = json.loads((folder / "ended").read_bytes())
        except (OSError, ValueError):
            # The program was cut off. Whether there is a disc, and a good one, a person must see.
            reason = "the program was interrupted; look at what it made before a retry"
            return BurnReport(BurnState.FAILED, message=reason, device_free=True)
        return _report(ended)

    def cancel(self, ticket: Ticket) -> None:
        with self._lock:
            worker = self._workers.get(ticket["folder"])
        if worker is not None:
            worker.abandon.set()  # the program itself is not interrupted: a half-made disc helps nobody

    def finish(self, ticket: Ticket, outcome: Outcome) -> str:
        with self._lock:
            self._workers.pop(ticket["folder"], None)
        made = self._known(ticket).state is BurnState.BURNT
        (Path(ticket["folder"]) / "image.iso").unlink(missing_ok=True)
        return self._place if made and outcome is not Outcome.CANCELLED else ""

    def close(self) -> None:
        with self._lock:
            workers = list(self._workers.values())
        for worker in workers:
            worker.abandon.set()
        for worker in workers:
            worker.join(10)


class _Worker(threading.Thread):
    """One disc: its image, the claim, the program. ``submit`` and ``poll`` must return at once, so it is a thread."""

    def __init__(self, order: BurnOrder, folder: Path, command: list[str], *, after: _Worker | None) -> None:
        super().__init__(name=f"command-{order.disc}", daemon=True)
        self.epoch = order.epoch
        self.abandon = threading.Event()
        self.report = BurnReport(BurnState.QUEUED)
        self._order = order
        self._folder = folder
        self._command = command
        self._after = after

    def run(self) -> None:
        try:
            if self._after is not None:
                self._after.join()
            self.report = self._make()
        except (MediaError, BurnRefused) as error:
            state = BurnState.CANCELLED if self.abandon.is_set() else BurnState.FAILED
            self.report = BurnReport(state, message=str(error), device_free=True)
        except Exception as error:  # noqa: BLE001 - the last words of a thread must reach the workflow
            self.report = BurnReport(BurnState.FAILED, message=f"{type(error).__name__}: {error}", device_free=True)

    def _make(self) -> BurnReport:
        self._folder.mkdir(parents=True, exist_ok=True)
        image, size = self._folder / "image.iso", self._order.sectors * 2048

        def progress(done: int) -> None:
            self.report = BurnReport(BurnState.BURNING, 0.5 * done / size, "making the image")

        with image.open("wb") as file:
            digest = self._order.open_image().write(file, progress, self.abandon.is_set)
        # The last question before what cannot be undone.
        if self.abandon.is_set():
            return BurnReport(BurnState.CANCELLED, message="cancelled", device_free=True)
        if not self._order.may_publish(digest):
            image.unlink(missing_ok=True)
            return BurnReport(BurnState.UNKNOWN, message="another claim on this disc came", device_free=True)
        _write(self._folder / "given", {"sha256": digest})
        self.report = BurnReport(BurnState.BURNING, 0.5, "the program makes the disc")
        try:
            done = subprocess.run(
                [word.replace("{image}", str(image)) for word in self._command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                check=False,
            )
            status, said = done.returncode, done.stderr.decode("utf-8", "replace")[-300:].strip()
        except OSError as error:
            status, said = 127, f"{self._command[0]}: {error.strerror}"
        ended = {"status": status, "said": said, "sha256": digest}
        _write(self._folder / "ended", ended)
        return _report(ended)


def _report(ended: Mapping[str, Any]) -> BurnReport:
    if ended["status"] == 0:
        return BurnReport(BurnState.BURNT, 1.0, sha256=ended["sha256"], device_free=True)
    reason = f"the program ended with status {ended['status']}: {ended['said']}"
    return BurnReport(BurnState.FAILED, message=reason, device_free=True)


def _write(path: Path, document: dict[str, Any]) -> None:
    """Durable, and whole or not at all."""
    temporary = path.with_name(f".{path.name}")
    with temporary.open("w") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
