"""Local drives: CDs, DVDs and BDs burnt by xorriso or cdrskin, by hand-fed drives of this machine.

An order goes through two hands. A thread of the service (``drive_work``) makes the image, waits for the right blank and
asks for the claim; then a process of its own (``drive_run``) burns, and outlives the service. Between them lies a
folder (``drive_record``), which the ticket names: process, start time, drive and medium stand there before the tool
touches the blank. After a restart of the service

- a burn that runs is adopted, as nobody has stopped it;
- one that ended says how in its folder;
- one that was cut off (power, kill -9 of the helper too) left a disc that nobody can answer for: if the disc in the
  drive is that one it is read back, and that decides; else it has failed. It is never burnt again unless a person asks
  (``burnish retry``);
- one that had not begun begins anew: no blank was touched.

The drive belongs to a disc from the blank to the end of its read-back; ``finish`` opens the tray. What lies in it then
is a written disc, and the next order asks for the next blank. Blank rewritables are taken, written ones only with
``erase = true``, and discs that Burnish made never.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from burners import drive_tray
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
from burners.drive_media import device_of, is_written, look
from burners.drive_options import check
from burners.drive_programs import tool_of
from burners.drive_record import Run, signal_process
from burners.drive_tools import ToolError
from burners.drive_tray import Tray
from burners.drive_work import STAGED_SHARE, Drives, Preparation, content_of, family_of, start_helper
from burners.exporting import SECTOR, SPARE_BYTES
from media.mounts import Place

_STARTING_SECONDS = 30.0
"""After which a helper that has not begun never will."""
_LOOK_SECONDS = 3.0
_PROBE_SECONDS = 5.0
_KEEP_SECONDS = 90 * 86400.0
"""So long the record of a finished burn is kept, with its transcript."""
_QUIET_SECONDS = 600.0
"""A tool that has said nothing for so long needs a look by somebody."""


class LocalDrive:
    """The driver ``drive``."""

    verified_by: ClassVar[str] = "read-back"
    programs: ClassVar[tuple[str, ...]] = ("xorriso",)
    shared = False

    def __init__(self, name: str, options: Mapping[str, Any], *, data: Path) -> None:
        self.name = name
        self._options = check(options, data)
        self.slots = len(self._options.drives)
        self._tool = tool_of(self._options.tool, self._options.program)
        room = data.absolute() / "drives"
        if self._options.staging is not None and (trouble := Place(self._options.staging, data).trouble()):
            raise BurnerOptionsError(f"staging: {trouble}")  # the records of burns are there
        self._runs = (self._options.staging or room) / re.sub(r"[^A-Za-z0-9_-]", "_", name)
        self._drives = Drives(self._options.drives, room, self._runs)
        self._host = hashlib.sha256(f"{_machine()} {socket.gethostname()} {room}".encode()).hexdigest()[:16]
        self._work: dict[str, Preparation] = {}
        self._helpers: dict[str, subprocess.Popen[bytes]] = {}
        self._looks: dict[str, tuple[float, BurnReport]] = {}
        self._reloading: dict[str, threading.Thread] = {}
        self._shown: dict[str, dict[str, Any]] = {}
        self._lock = threading.RLock()
        self._adopt()

    @classmethod
    def example(cls, folder: Path) -> dict[str, Any]:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "disc").touch()  # a blank in a pseudo-drive
        return {"drive": f"stdio:{folder / 'disc'}"}

    def _adopt(self) -> None:
        """Drives of burns from before; forget what ended long ago."""
        for folder in sorted(self._runs.glob("*-*")):
            run = Run(folder)
            order = run.read("order")
            if run.read("finished") is not None:
                with suppress(OSError):
                    if (folder / "finished.json").stat().st_mtime < time.time() - _KEEP_SECONDS:
                        shutil.rmtree(folder, ignore_errors=True)
            elif order is not None and order.get("drive") in self._drives.names:
                self._drives.claim(order["drive"], folder.name)

    # ------------------------------------------------------------------ how it stands

    def probe(self) -> DriverStatus:
        if shutil.which(self._tool.program) is None:
            reason = f"the program {self._tool.program} is not installed"
            return DriverStatus(self.name, "drive", DriverState.OFFLINE, reason)
        with ThreadPoolExecutor(len(self._drives.names)) as pool:
            drives = list(pool.map(self._probe, self._drives.names))
        troubles = [f"{drive['name']}: {drive['trouble']}" for drive in drives if drive.get("trouble")]
        state = DriverState.OFFLINE if len(troubles) == len(drives) else DriverState.READY
        reason = (
            "; ".join(troubles) + self._others() if troubles else f"{self._tool.name}, {', '.join(self._drives.names)}"
        )
        supplies = {"blanks": sum(bool(drive.get("blank")) for drive in drives)}
        return DriverStatus(self.name, "drive", state, reason, supplies, drives)

    def _probe(self, drive: str) -> dict[str, Any]:
        """One drive. What burns is not asked, nor one with an open tray: the tool would pull it in."""
        if self._drives.busy(drive):
            return self._shown.get(drive, {"name": drive, "medium": ""}) | {"state": "burning", "blank": False}
        tray = drive_tray.state(drive)
        found: dict[str, Any] = {"name": drive, "state": "idle", "medium": "", "blank": False}
        if tray is Tray.GONE:
            return found | {"state": "offline", "trouble": "there is no such drive"}
        if tray in (Tray.OPEN, Tray.EMPTY, Tray.NOT_READY):
            return found | {"state": "open" if tray is Tray.OPEN else "empty"}
        with self._lock:
            held = self._drives.claims.get(drive)
        if held is not None and Run(self._runs / held).read("end") is not None:
            return self._shown.get(drive, found) | {"state": "reading back", "blank": False}
        try:
            with self._drives.asking(drive, patience=_PROBE_SECONDS) as alone:
                if not alone:
                    return self._shown.get(drive, found) | {"state": "busy", "blank": False}
                medium = self._tool.medium(drive)
        except ToolError as error:
            return found | {"state": "offline", "trouble": str(error)}
        content = content_of(drive, medium)
        written = is_written(medium, content)
        found |= {
            "medium": medium.profile if medium.fill.name != "ABSENT" else "",
            "status": "written" if written and medium.overwritable else medium.fill.value,
            "blank": not written and medium.fill.name == "BLANK",
            "volume_id": content.volume_id,
            "writable_sectors": medium.writable,
            "speeds": list(medium.speeds),
            "medium_id": medium.product,
            "model": medium.drive,
        }
        if medium.fill.name == "ABSENT":
            found["state"] = "empty"
        self._shown[drive] = found
        return found

    def _others(self) -> str:
        """Drives that are there and not in the settings, for who got a name wrong."""
        with suppress(ToolError):
            found = [drive for drive in self._tool.devices() if drive.name not in self._drives.names]
            if found:
                return "; found are " + ", ".join(f"{drive.name} ({drive.model})" for drive in found)
        return ""

    # ------------------------------------------------------------------ an order

    def prepare(self, order: BurnOrder) -> Ticket:
        family = family_of(order.medium)
        if family not in ("", "CD", "DVD", "BD"):
            raise BurnRefused(f"a drive makes CDs, DVDs and BDs; the volume was planned for {order.medium}")
        if shutil.which(self._tool.program) is None:
            raise BurnRefused(f"the program {self._tool.program} is not installed")
        need = 0 if self._options.stream else order.sectors * SECTOR
        place = next(path for path in (self._runs, *self._runs.parents) if path.exists())
        if (free := shutil.disk_usage(place).free) < need + SPARE_BYTES:
            raise BurnRefused(
                f'{place} has {free} bytes free, the image needs {need}; make room, or say source = "stream"'
            )
        mark = f"{hashlib.sha256(order.file_set_uid.encode()).hexdigest()[:12]}-{order.disc}"
        return {
            "run": str(self._runs / mark),
            "mark": mark,
            "host": self._host,
            "volume_id": order.file_set_id,
            "sectors": order.sectors,
            "medium": order.medium,
        }

    def submit(self, order: BurnOrder, ticket: Ticket) -> None:
        with self._lock:
            if self._recorded(ticket).state is not BurnState.UNKNOWN:
                return
            before = self._work.get(ticket["mark"])
            if before is not None:
                if before.launched or before.epoch == order.epoch:
                    return
                before.abandon()  # the claim it works under is gone
            preparation = Preparation(
                order,
                ticket,
                self._options,
                self._tool,
                self._drives,
                family_of(ticket["medium"]),
                launch=self._launch,
                after=before,
            )
            self._work[ticket["mark"]] = preparation
            preparation.start()

    def _launch(self, run: Run, token: str) -> None:
        helper = start_helper(run, token)
        with self._lock:
            self._helpers[run.folder.name] = helper

    def cancel(self, ticket: Ticket) -> None:
        run = Run(Path(ticket["run"]))
        with self._lock:
            preparation = self._work.get(ticket["mark"])
            if preparation is not None and not preparation.launched:
                preparation.abandon()
        if run.folder.is_dir() and run.read("order") is not None:
            (run.folder / "cancel").touch()
            started = run.read("started")
            if started is not None and run.alive():
                signal_process(started, signal.SIGTERM)

    def finish(self, ticket: Ticket, outcome: Outcome) -> str:
        mark, run = ticket["mark"], Run(Path(ticket["run"]))
        with self._lock:
            self._work.pop(mark, None)
            self._looks.pop(mark, None)
            self._drives.leave(mark)
        order = run.read("order")
        if ticket["host"] != self._host or order is None:
            if ticket["host"] == self._host and run.folder.is_dir():
                shutil.rmtree(run.folder, ignore_errors=True)
            return ""
        run.remove_bulk()
        before = run.read("finished")
        end = run.read("end") or {}
        wrote = end.get("began", True) and end.get("outcome") not in ("simulated", None)
        drive = order["drive"]
        place = str(device_of(drive)) if drive.startswith("stdio:") else f"taken from {drive}"
        if before is None:
            run.write("finished", {"outcome": outcome.value, "place": place, "at": time.time()})
            if self._options.eject and wrote:
                opener = threading.Thread(target=drive_tray.eject, args=(drive,), daemon=True)
                opener.start()
                opener.join(timeout=0.8)
        made = end.get("outcome") in ("burnt", "unknown")
        return place if wrote and (made or outcome is not Outcome.CANCELLED) else ""

    def close(self) -> None:
        with self._lock:
            work = list(self._work.values())
        for preparation in work:
            preparation.abandon()
        for preparation in work:
            preparation.join(timeout=10)

    # ------------------------------------------------------------------ what became of it

    def poll(self, ticket: Ticket) -> BurnReport:
        with self._lock:
            preparation = self._work.get(ticket["mark"])
        if preparation is not None and not preparation.launched:
            return preparation.report
        return self._recorded(ticket)

    def _recorded(self, ticket: Ticket) -> BurnReport:
        """What stands in the folder of a ticket."""
        if ticket["host"] != self._host:
            reason = "it was given to a drive of another machine, or under another name of this one; look there"
            return BurnReport(BurnState.FAILED, message=reason, device_free=True)
        run = Run(Path(ticket["run"]))
        order = run.read("order")
        if order is None:
            return BurnReport(BurnState.UNKNOWN, device_free=True)
        alive = run.alive()
        finished, end = run.read("finished"), run.read("end")  # after that: a helper writes its end before it goes
        if finished is not None:
            return _finished(finished, end or {})
        if alive:
            return self._burning(run, order)
        if end is not None:
            self._reap(ticket["mark"])
            return self._ended(ticket, run, order, end)
        if run.read("started") is None:
            return self._not_begun(ticket, run, order)
        return self._cut_off(ticket, run, order)

    def _burning(self, run: Run, order: Mapping[str, Any]) -> BurnReport:
        progress = self._tool.progress(run.tail())
        share = STAGED_SHARE + (1 - STAGED_SHARE) * min(1.0, progress.fraction)
        words = f"{order['drive']}: {progress.words}"
        with suppress(OSError):
            quiet = time.time() - run.transcript.stat().st_mtime
            if quiet > _QUIET_SECONDS:
                words = f"{order['drive']} has told nothing for {quiet / 60:.0f} minutes; look at it ({progress.words})"
                return BurnReport(BurnState.WAITING, share, words)
        return BurnReport(BurnState.BURNING, share, words)

    def _not_begun(self, ticket: Ticket, run: Run, order: Mapping[str, Any]) -> BurnReport:
        """The decision to burn stands, and no helper: either it is just coming, or it never will."""
        helper = self._helpers.get(ticket["mark"])
        if helper is not None:
            coming = helper.poll() is None
        else:
            coming = time.time() - float(order["at"]) < _STARTING_SECONDS
        if coming:
            return BurnReport(BurnState.BURNING, STAGED_SHARE, "starting")
        with run.held() as ours:
            # Under the lock: a helper that comes late finds its token gone, and does nothing.
            if ours and run.read("started") is None:
                run.remove("order.json")
                self._reap(ticket["mark"])
                with self._lock:
                    self._work.pop(ticket["mark"], None)
                log = run.helper_log.read_text("utf-8", "replace")[-300:].strip() if run.helper_log.exists() else ""
                return BurnReport(
                    BurnState.UNKNOWN, message=f"the burning process did not begin {log}", device_free=True
                )
        return BurnReport(BurnState.BURNING, STAGED_SHARE, "starting")

    def _cut_off(self, ticket: Ticket, run: Run, order: Mapping[str, Any]) -> BurnReport:
        """Helper and tool are gone without a word. The tray goes out and in, then what is there decides."""
        with self._lock:
            thread = self._reloading.get(ticket["mark"])
            if thread is None:
                thread = threading.Thread(target=_note_cut_off, args=(run, order["drive"]), daemon=True)
                self._reloading[ticket["mark"]] = thread
                thread.start()
        return BurnReport(BurnState.BURNING, 1.0, f"{order['drive']}: the burn was cut off; looking at the disc")

    def _ended(self, ticket: Ticket, run: Run, order: Mapping[str, Any], end: Mapping[str, Any]) -> BurnReport:
        outcome, reason = end["outcome"], str(end.get("reason", ""))
        drive = order["drive"]
        if outcome == "failed":
            spoilt = "; the blank is spoilt, take it out" if end.get("began") else ""
            return BurnReport(BurnState.FAILED, message=f"{drive}: {reason}{spoilt}", device_free=True)
        if outcome in ("cancelled", "simulated"):
            return BurnReport(BurnState.CANCELLED, message=f"{drive}: {reason}", device_free=True)
        with self._lock:
            at, report = self._looks.get(ticket["mark"], (0.0, BurnReport(BurnState.BURNT)))
        if time.monotonic() - at > _LOOK_SECONDS or at == 0.0:
            report = self._disc(order, end)
            if report.state is BurnState.WAITING and (run.folder / "cancel").exists():
                reason = f"{drive}: cancelled; the disc was burnt, taken out, and never read back"
                return BurnReport(BurnState.CANCELLED, message=reason, device_free=True)
            with self._lock:
                self._looks[ticket["mark"]] = (time.monotonic(), report)
        return report

    def _disc(self, order: Mapping[str, Any], end: Mapping[str, Any]) -> BurnReport:
        """Whether the burnt disc is in the drive, to be read back; its bytes are for the verification to judge."""
        drive = order["drive"]
        burnt = BurnReport(
            BurnState.BURNT,
            1.0,
            f"burnt in {drive}",
            image=device_of(drive),
            sha256=order["sha256"],
            undecided=end["outcome"] == "unknown",
        )
        tray = drive_tray.state(drive)
        content = look(drive) if tray in (Tray.LOADED, Tray.UNKNOWN) else None
        if content is not None and content.head == order["head"]:
            return burnt
        if end["outcome"] == "unknown" and tray is Tray.OPEN:
            return BurnReport(BurnState.WAITING, 1.0, f"push the tray of {drive} in again: its disc must be read")
        if end["outcome"] == "unknown":
            seen = f"in it is {content.volume_id or 'something else'}" if content is not None else f"its tray is {tray}"
            reason = f"{drive}: the burn was cut off, and {seen}; nothing is burnt again unless asked for"
            return BurnReport(BurnState.FAILED, message=reason, device_free=True, undecided=True)
        if content is not None and (content.unreadable or end.get("head") == content.head):
            return burnt  # it has not left the drive since; the read-back will tell what is wrong with it
        wish = str(end.get("reason") or "") if tray is Tray.OPEN else ""
        wish = wish or f"put the disc that was just burnt back into {drive}: it must be read back"
        return BurnReport(BurnState.WAITING, 1.0, wish, device_free=content is not None or tray is Tray.EMPTY)

    def _reap(self, mark: str) -> None:
        with self._lock:
            helper = self._helpers.get(mark)
            if helper is not None and helper.poll() is not None:
                del self._helpers[mark]


def _finished(finished: Mapping[str, Any], end: Mapping[str, Any]) -> BurnReport:
    """What the verification found is known: a crash came between it and the catalogue."""
    outcome = finished["outcome"]
    if outcome == Outcome.GOOD and end.get("outcome") in ("burnt", "unknown"):
        return BurnReport(BurnState.BURNT, 1.0, "burnt and read back", device_free=True)
    if outcome == Outcome.BAD:
        return BurnReport(BurnState.FAILED, message=str(end.get("reason") or "it was bad"), device_free=True)
    return BurnReport(BurnState.CANCELLED, message="cancelled", device_free=True)


def _note_cut_off(run: Run, drive: str) -> None:
    todo = drive_tray.reload(drive)
    with run.held() as ours:
        if ours and run.read("end") is None:
            run.write("end", {"outcome": "unknown", "reason": todo, "at": time.time()})


def _machine() -> str:
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        with suppress(OSError):
            return Path(path).read_text().strip()
    return f"{Path('/').stat().st_dev}"
