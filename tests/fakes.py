"""Stand-ins for things that a test machine has not got: a disc robot that takes its time."""

from __future__ import annotations

import json
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


class FakeRobot:
    """A robot with a hot folder, all by itself: an order is a file that it takes, and a disc is a file that it makes.

    It is driven by the test (``work``), or at each poll where the option ``by_itself`` is true. What it knows is in
    the folder, so another driver object (a restart) finds everything again.
    """

    verified_by: ClassVar[str] = "robot"
    shared = True

    def __init__(self, name: str, options: Mapping[str, Any], *, data: Path) -> None:
        unknown = set(options) - {"folder", "by_itself", "slots", "out_of_ink", "spoil"}
        if unknown or "folder" not in options:
            raise BurnerOptionsError(f"unknown or missing: {', '.join(sorted(unknown) or ['folder'])}")
        self.name = name
        self.slots = options.get("slots", 1)
        self.out_of_ink = bool(options.get("out_of_ink"))
        self.spoil = bool(options.get("spoil"))
        self._by_itself = options.get("by_itself", True)
        self._folder = data / options["folder"]
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()

    @classmethod
    def example(cls, folder: Path) -> dict[str, Any]:
        return {"folder": str(folder)}

    def probe(self) -> DriverStatus:
        return DriverStatus(self.name, "fake", DriverState.READY, "", {"ink": 0 if self.out_of_ink else 100})

    def prepare(self, order: BurnOrder) -> Ticket:
        if order.sectors > 1_000_000:
            raise BurnRefused("no such large blanks")
        return {"order": f"{order.file_set_uid[-6:]}-{order.disc}-{order.attempt}"}

    def submit(self, order: BurnOrder, ticket: Ticket) -> None:
        with self._lock:
            if self._read(ticket):
                return
            chunks: list[bytes] = []
            digest = order.open_image().write(lambda data: chunks.append(bytes(data)))
            if not order.may_publish(digest):
                return
            (self._folder / f"{ticket['order']}.image").write_bytes(b"".join(chunks))
            self._write(ticket, state="QUEUED", done=0, sha256=digest)

    def poll(self, ticket: Ticket) -> BurnReport:
        if self._by_itself:
            self.work(ticket)
        known = self._read(ticket)
        if not known:
            return BurnReport(BurnState.UNKNOWN, device_free=True)
        state = BurnState(known["state"])
        return BurnReport(
            state,
            known["done"] / 3,
            known.get("message", ""),
            sha256=known["sha256"],
            device_free=state.ended,
            supplies={"ink": 0 if self.out_of_ink else 100},
        )

    def cancel(self, ticket: Ticket) -> None:
        with self._lock:
            known = self._read(ticket)
            if known and not BurnState(known["state"]).ended:
                self._write(ticket, **known | {"cancel": True})

    def finish(self, ticket: Ticket, outcome: Outcome) -> str:
        return "output bin" if outcome is Outcome.GOOD else ""

    def close(self) -> None:
        pass

    def work(self, ticket: Ticket) -> None:
        """One step of the robot's work on an order."""
        with self._lock:
            known = self._read(ticket)
            if not known or BurnState(known["state"]).ended:
                return
            if known.get("cancel"):
                self._write(ticket, **known | {"state": "CANCELLED"})
            elif self.out_of_ink:
                self._write(ticket, **known | {"state": "WAITING", "message": "out of ink"})
            elif self.spoil:
                self._write(ticket, **known | {"state": "FAILED", "message": "write error"})
            elif known["done"] < 3:
                self._write(ticket, **known | {"state": "BURNING", "done": known["done"] + 1})
            else:
                with (self._folder / "made").open("a") as file:
                    file.write(f"{ticket['order']}\n")
                self._write(ticket, **known | {"state": "BURNT"})

    def made(self) -> list[str]:
        """Every disc that came out of the robot, in order."""
        path = self._folder / "made"
        return path.read_text().split() if path.exists() else []

    def _read(self, ticket: Ticket) -> dict[str, Any]:
        path = self._folder / f"{ticket['order']}.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def _write(self, ticket: Ticket, **known: Any) -> None:
        path = self._folder / f"{ticket['order']}.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(known))
        temporary.rename(path)
