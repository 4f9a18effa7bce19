"""The one driver of robots that take orders as files in a folder: what a dialect leaves open is done here.

An order goes like this, in a thread of its own until it is handed over:

1. the image goes to ``IMAGES/JOB/image.iso``, the label and further files beside it, all fsynced;
2. the order's text goes to ``JOB.EPOCH.tmp`` in the hot folder, fsynced;
3. while the robot is offline or lacks something, the order is held back (``WAITING``), and so are all others;
4. ``may_publish``; the note that it may have been handed over; then one rename to the name that the robot looks for.

From then on nothing is remembered but the ticket: files, status and our notes tell how it stands, after a restart too.
Nothing is ever handed over twice. What cannot be told for sure ends as FAILED with a reason, never as a good disc.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from burners.base import (
    BurnOrder,
    BurnRefused,
    BurnReport,
    BurnState,
    DriverState,
    DriverStatus,
    Outcome,
    Ticket,
)
from burners.exporting import SECTOR, SPARE_BYTES, Exporter, Writer
from burners.hotfolder_dialect import Dialect, Phase, RobotState
from burners.hotfolder_following import Following, ended
from burners.hotfolder_options import check
from burners.hotfolder_papers import Papers
from burners.hotfolder_records import Ending, Records
from burners.hotfolder_status import StatusWatch
from burners.publish import sync_folder
from media.mounts import Place

_log = logging.getLogger("burnish.burners")
_HOLD_SECONDS = 0.25
_SWEEP_SECONDS = 86_400.0
_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")


class HotFolder(Exporter):
    """A driver; a make of robot is a subclass that names its dialect."""

    verified_by: ClassVar[str] = "robot"
    dialect: ClassVar[type[Dialect]]

    def __init__(self, name: str, options: Mapping[str, Any], *, data: Path) -> None:
        self._options, self._dialect = check(options, data, self.dialect)
        self._share = Place(self._options.folder, data)
        super().__init__(name, self._options.slots)
        self._records = Records(self._options.images, self._options.folder)
        self._papers = Papers(self._options, self._dialect)
        self._papers.check()
        self._status = StatusWatch(self._options, self._dialect, self._share)
        self._following = Following(name, self._options, self._dialect, self._records, self._papers, self._status)
        self._handed: set[str] = set()
        """Orders that this process handed over."""
        self._swept: float | None = None

    @classmethod
    def example(cls, folder: Path) -> dict[str, Any]:
        folder.mkdir(parents=True, exist_ok=True)
        return {"folder": str(folder), "robot_path": r"\\robot\jobs", **cls.dialect.example}

    def probe(self) -> DriverStatus:
        seen = self._status.now()
        if seen.offline or seen.status.state is RobotState.UNKNOWN:
            state = DriverState.OFFLINE
        else:
            state = DriverState.WAITING if seen.status.state is RobotState.WAITING else DriverState.READY
        reason = seen.holds or f"folder {self._options.folder}"
        return DriverStatus(
            self.name, self.dialect.name, state, reason, dict(seen.status.supplies), tuple(seen.status.drives)
        )

    def prepare(self, order: BurnOrder) -> Ticket:
        job_id = _job_id(order)
        family = self._papers.family(order)
        need = order.sectors * SECTOR
        # A folder that is not there now may be there later: poll tells so, and nothing is submitted before.
        with suppress(OSError):
            if self._records.ending(job_id) or self._records.handed(job_id) or self._following.suffixes(job_id):
                raise BurnRefused(f"the robot was given an order {job_id} before; a disc of it may exist")
            place = self._options.images if self._options.images.exists() else self._options.folder
            free = shutil.disk_usage(place).free
            if free < need + SPARE_BYTES:
                raise BurnRefused(f"folder {place} has {free} bytes free; the image needs {need}")
        return {
            "mark": job_id,
            # For words only: another node may have the share elsewhere.
            "final": str(self._records.place(job_id) / "image.iso"),
            "robot": self._options.share.robot,
            "volume_id": order.file_set_id,
            "size": need,
            "family": family,
        }

    def submit(self, order: BurnOrder, ticket: Ticket) -> None:
        with self._lock:
            before = self._writers.get(ticket["mark"])
            if before is not None and before.epoch == order.epoch and (before.running or before.report.state.ended):
                return
            if before is not None:
                before.abandon.set()  # the claim it works under is gone
            if (before is None or not before.running) and self._found(ticket).state is not BurnState.UNKNOWN:
                return
            writer = Writer(order, ticket, self._write, self._remove_leftovers, after=before)
            self._writers[ticket["mark"]] = writer
            writer.start()

    def poll(self, ticket: Ticket) -> BurnReport:
        with self._lock:
            writer = self._writers.get(ticket["mark"])
        # After these two last words of a writer the files know more: handed over, or another claim has come.
        if writer is not None and (writer.running or writer.report.state not in (BurnState.QUEUED, BurnState.UNKNOWN)):
            return writer.report
        return self._found(ticket)

    def cancel(self, ticket: Ticket) -> None:
        job_id = ticket["mark"]
        self._following.wish_cancel(job_id)  # handing over at this very moment must not lose it
        with suppress(OSError):  # a share that is away just now: poll says so, and asks when it is back
            super().cancel(ticket)

    def finish(self, ticket: Ticket, outcome: Outcome) -> str:
        try:
            return super().finish(ticket, outcome)
        except OSError as error:  # what is left behind, the daily sweep removes
            _log.warning("putting away order %s of burner %s: %s", ticket["mark"], self.name, error)
            return self._put_away(ticket, outcome)

    # Until the order is handed over: the writer's thread.

    def _write(self, order: BurnOrder, ticket: Ticket, writer: Writer) -> BurnReport:
        try:
            return self._hand_over(order, ticket, writer)
        except OSError as error:
            if self._options.folder.is_dir() and not self._share.trouble():
                raise
            # The share went away. Nothing was handed over: poll waits until it is back, and then it begins anew.
            reason = f"{self._options.folder}: {error.strerror or error}"
            return BurnReport(BurnState.UNKNOWN, message=reason, device_free=True)

    def _hand_over(self, order: BurnOrder, ticket: Ticket, writer: Writer) -> BurnReport:
        job_id: str = ticket["mark"]
        handed = BurnReport(BurnState.QUEUED, message="handed over to the robot")
        lost = BurnReport(BurnState.UNKNOWN, message="another claim on this disc came meanwhile", device_free=True)
        cancelled = BurnReport(BurnState.CANCELLED, message="cancelled", device_free=True)
        self._share.require()
        self._options.images.mkdir(exist_ok=True)
        if self._records.fence(job_id, order.epoch) or self._following.suffixes(job_id):
            return handed
        self._records.place(job_id).mkdir(exist_ok=True)
        sync_folder(self._options.images)
        digest = self._papers.image(order, ticket, self._records.place(job_id), writer)
        if writer.abandon.is_set():
            return cancelled
        text, note = self._papers.order(order, ticket, self._records.place(job_id))
        part = self._records.order_part(job_id, order.epoch)
        self._papers.put(part, text)
        if not self._hold_back(writer):
            return cancelled
        if self._records.fence(job_id, order.epoch) or self._following.suffixes(job_id):
            return handed
        if self._records.overtaken(job_id, order.epoch) or not order.may_publish(digest):
            return lost
        if writer.abandon.is_set():
            return cancelled
        self._records.note_handing(job_id, order.epoch, {"sha256": digest, "note": note})
        if note:
            _log.warning("order %s of burner %s: %s", job_id, self.name, note)
        try:
            part.rename(self._options.folder / f"{job_id}{self.dialect.order_suffix}")
            self._handed.add(job_id)
            sync_folder(self._options.folder)
        except FileNotFoundError:  # a newer claim has taken our file away: nothing was handed over by this one
            (self._records.place(job_id) / f"handed.{order.epoch}").unlink(missing_ok=True)
            return lost
        except OSError as error:  # whether it took effect, the files will tell
            _log.warning("handing over order %s of burner %s: %s", job_id, self.name, error)
        return handed

    def _hold_back(self, writer: Writer) -> bool:
        """Wait until the robot can take an order; False when it is not wanted any more."""
        while not writer.abandon.is_set():
            seen = self._status.now()
            why = seen.holds
            if not why:
                return True
            writer.report = BurnReport(BurnState.WAITING, 0.0, f"{self.name}: {why}", supplies=seen.status.supplies)
            writer.abandon.wait(_HOLD_SECONDS)
        return False

    def _remove_leftovers(self, ticket: Ticket) -> None:
        """What never reached the robot. Its claim alone, where the ticket names one."""
        job_id = ticket["mark"]
        epoch = ticket.get("epoch")
        place = self._records.place(job_id)
        with suppress(FileNotFoundError):
            for other, part in self._records.order_parts(job_id).items():
                if epoch in (None, other):
                    (place / f"handed.{other}").unlink(missing_ok=True)
                    part.unlink(missing_ok=True)
        with suppress(FileNotFoundError, NotADirectoryError):
            for path in place.iterdir():
                if path.name.endswith(".part") and (epoch is None or path.name == f"image.{epoch}.part"):
                    path.unlink(missing_ok=True)
        if epoch is None and not self._records.handed(job_id) and not self._following.suffixes(job_id):
            self._records.clear(job_id)

    # From then on: files and status.

    def _found(self, ticket: Ticket) -> BurnReport:
        job_id: str = ticket["mark"]
        try:
            self._share.require()
            ending = self._following.ending(job_id)
            if ending is not None:
                return ended(ending)
            if ticket.get("robot", self._options.share.robot) != self._options.share.robot:
                reason = f"given to a robot at {ticket['robot']}, which the settings do not have any more"
                return BurnReport(BurnState.FAILED, message=f"{reason}: a disc may exist", device_free=True)
            if self._following.withdrawn(job_id).exists():
                return self._following.taken_back(job_id)
            if self._is_unknown(job_id):
                return BurnReport(BurnState.UNKNOWN, device_free=True)
            return self._following.ask(job_id)
        except OSError as error:
            reason = f"{self.name}: folder {error.filename or self._options.folder}: {error.strerror or error}"
            return BurnReport(BurnState.WAITING, message=reason)

    def _is_unknown(self, job_id: str) -> bool:
        """Neither folder, notes nor status have a trace of it, and this process never handed it over."""
        if self._following.suffixes(job_id) or job_id in self._handed:
            return False
        if not set(self._records.handed(job_id)) <= set(self._records.order_parts(job_id)):
            return False
        # Our notes may have been deleted: the robot may know more.
        return self._dialect.judge(job_id, frozenset(), self._status.now().status).state is Phase.ABSENT

    def _put_away(self, ticket: Ticket, outcome: Outcome) -> str:
        job_id = ticket["mark"]
        ending: Ending | None = None
        with suppress(OSError):
            ending = self._following.ending(job_id)
            self._records.clear(job_id)
        self._sweep()
        self._following.forget(job_id)
        self._handed.discard(job_id)
        made = ending is not None and ending.state is BurnState.BURNT
        return (self._options.location or f"output of {self.name}") if made else ""

    def _sweep(self) -> None:
        """Drop what is very old, once a day, and not while somebody waits."""
        at = time.monotonic()
        if self._swept is None or at - self._swept > _SWEEP_SECONDS:
            self._swept = at
            threading.Thread(target=self._records.forget_old, name=f"sweep-{self.name}", daemon=True).start()


def _job_id(order: BurnOrder) -> str:
    """Unique among all installations that share a robot, by the File-set UID."""
    mark = hashlib.sha256(f"{order.file_set_uid} {order.volume} {order.copy}".encode()).hexdigest()[:12]
    disc = re.sub(r"[^A-Za-z0-9_-]", "_", order.disc)
    job_id = f"B{mark}-{disc}"[:32]
    if not _JOB_ID.fullmatch(job_id):
        raise BurnRefused(f"{job_id!r} is no name for an order")
    return job_id
