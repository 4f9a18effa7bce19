"""What happens before a burn, in a thread of the service: the image, the right blank, the claim, then the helper.

Nothing of this outlives the service, and nothing of it touches a medium. The image is written to a file beside the run
first (or, for ``source = "stream"``, only read once), so that every source is known to be right, and the image's digest
is noted for all copies of the volume, before a blank is spent.
"""

from __future__ import annotations

import os
import pickle
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from burners import drive_tray
from burners.base import BurnOrder, BurnRefused, BurnReport, BurnState, ImageSource, Ticket
from burners.drive_media import (
    HEAD_SECTORS,
    SECTOR,
    Content,
    Fill,
    Medium,
    head_digest,
    is_pseudo,
    is_written,
    look,
    why_not,
)
from burners.drive_options import Options
from burners.drive_record import Run, is_held, take
from burners.drive_tools import Burn, Tool, ToolError
from burners.drive_tray import Tray
from burners.exporting import Sink, planned_image
from media.problems import MediaError

LOOK_SECONDS = 1.0
"""Between two looks at a drive in which a blank is awaited."""
_ASK_AGAIN_SECONDS = 20.0
"""After which a tool is asked again about a medium that seems to be the same."""
_ASKED_SECONDS = 30.0
"""So long somebody else's question to a drive is waited for."""
STAGED_SHARE = 0.2
"""Of the work until BURNT, for the progress that people see."""

_NO_MEDIUM, _EMPTY = Medium(Fill.ABSENT), Content(empty=True)


@dataclass
class Drives:
    """Which drive works for which ticket, in this process."""

    names: tuple[str, ...]
    locks: Path
    runs: Path
    claims: dict[str, str] = field(default_factory=dict)
    guard: threading.RLock = field(default_factory=threading.RLock)

    def lock_of(self, drive: str) -> Path:
        return self.locks / lock_name(drive)

    @contextmanager
    def asking(self, drive: str, *, patience: float) -> Iterator[bool]:
        """Have a drive for a question, alone: two tools at once get in each other's way, and a burn would fail."""
        self.locks.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = take(self.asked(drive), patience=patience)
        try:
            yield descriptor is not None
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def asked(self, drive: str) -> Path:
        """The lock of who asks it, or burns in it."""
        return self.locks / f"{lock_name(drive)}.asked"

    def busy(self, drive: str) -> bool:
        """A burn runs in it, be it of this service's time or from before."""
        return is_held(self.lock_of(drive))

    def claim(self, drive: str, mark: str) -> None:
        with self.guard:
            self.claims[drive] = mark

    def take(self, mark: str) -> str:
        """A drive for a ticket: the one that it has, else a free one, else one whose burn has ended; empty: none.

        A slot is given to no more orders than there are drives, so the last is one that was forgotten, not verified.
        """
        with self.guard:
            for drive, holder in self.claims.items():
                if holder == mark:
                    return drive
            idle = [drive for drive in self.names if not self.busy(drive)]
            free = [drive for drive in idle if drive not in self.claims]
            free = free or [drive for drive in idle if Run(self.runs / self.claims[drive]).read("end") is not None]
            if free:
                self.claims[free[0]] = mark
            return free[0] if free else ""

    def change(self, mark: str, drive: str) -> bool:
        """Give a ticket another drive, which must be free."""
        with self.guard:
            if drive in self.claims or self.busy(drive):
                return False
            self.leave(mark)
            self.claims[drive] = mark
            return True

    def others(self) -> list[str]:
        with self.guard:
            return [drive for drive in self.names if drive not in self.claims and not self.busy(drive)]

    def leave(self, mark: str) -> None:
        with self.guard:
            self.claims = {drive: holder for drive, holder in self.claims.items() if holder != mark}


def lock_name(drive: str) -> str:
    """Name of the file that is locked while a drive is written to, in the folder ``drives`` of the data folder."""
    return f"{drive.replace('%', '%25').replace('/', '%2F')[-200:]}.lock"


@dataclass
class Looked:
    """What was seen in a drive, and when."""

    sign: tuple[object, ...] = ("never",)
    at: float = 0.0
    medium: Medium = _NO_MEDIUM
    content: Content = _EMPTY


class _Given(Exception):
    """This thread is not wanted any more."""


class Preparation:
    """One disc on its way to the helper, by a thread of its own."""

    def __init__(
        self,
        order: BurnOrder,
        ticket: Ticket,
        options: Options,
        tool: Tool,
        drives: Drives,
        family: str,
        *,
        launch: Callable[[Run, str], None],
        after: Preparation | None,
    ) -> None:
        self.epoch = order.epoch
        self.report = BurnReport(BurnState.QUEUED)
        self.launched = False
        self._abandon = threading.Event()
        self._order = order
        self._ticket = ticket
        self._options = options
        self._tool = tool
        self._drives = drives
        self._family = family
        self._launch = launch
        self._after = after
        self._run = Run(Path(ticket["run"]))
        self._streams = False
        self._seen: dict[str, Looked] = {}
        self._thread = threading.Thread(target=self._work, name=f"drive-{order.disc}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def abandon(self) -> None:
        self._abandon.set()

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)

    def _work(self) -> None:
        report = BurnReport(BurnState.FAILED, message="it ended without a word", device_free=True)
        try:
            if self._after is not None:
                self._after.join(timeout=600)
            report = self._prepare()
        except _Given:
            report = BurnReport(BurnState.CANCELLED, message="cancelled before it was burnt", device_free=True)
        except (BurnRefused, ToolError) as error:
            report = BurnReport(BurnState.FAILED, message=str(error), device_free=True)
        except MediaError as error:
            state = BurnState.CANCELLED if self._abandon.is_set() else BurnState.FAILED
            report = BurnReport(state, message=str(error), device_free=True)
        except OSError as error:
            reason = f"{error.filename or self._run.folder}: {error.strerror or error}"
            report = BurnReport(BurnState.FAILED, message=reason, device_free=True)
        except Exception as error:  # noqa: BLE001 - the thread's last words must reach the workflow
            report = BurnReport(BurnState.FAILED, message=f"{type(error).__name__}: {error}", device_free=True)
        finally:
            if not self.launched:
                self._run.remove_bulk()
                self._drives.leave(self._ticket["mark"])
            self.report = report

    def _prepare(self) -> BurnReport:
        self._run.make()
        digest, head = self._stage()
        drive, seen = self._await_blank()
        if not self._order.may_publish(digest):
            return BurnReport(BurnState.UNKNOWN, message="another claim on this disc came meanwhile", device_free=True)
        if self._abandon.is_set():
            raise _Given
        token = secrets.token_hex(8)
        burn = self._burn(drive, seen)
        self._run.write(
            "order",
            {
                "token": token,
                "disc": self._order.disc,
                "tool": self._tool.name,
                "program": self._tool.program,
                "drive": drive,
                "locks": [str(self._drives.lock_of(drive)), str(self._drives.asked(drive))],
                "medium": {"profile": seen.medium.profile, "id": seen.medium.product, "before": seen.content.head},
                "burn": asdict(burn),
                "sha256": digest,
                "head": head,
                "at": time.time(),
            },
        )
        self.launched = True
        self._launch(self._run, token)
        return BurnReport(BurnState.BURNING, STAGED_SHARE, "starting")

    def _burn(self, drive: str, seen: Looked) -> Burn:
        return Burn(
            drive=drive,
            sectors=self._ticket["sectors"],
            source="-" if self._streams else str(self._run.image),
            speed=self._options.speed,
            close=self._options.close,
            blank=bool(is_written(seen.medium, seen.content)),
            simulate=self._options.simulate,
            cd=seen.medium.family == "CD",
        )

    # ------------------------------------------------------------------ the image

    def _stage(self) -> tuple[str, str]:
        """Make the image's file, or only read it through; SHA-256 of it and of its beginning."""
        self.report = BurnReport(BurnState.BURNING, 0.0, "making the image")
        image = planned_image(self._order, self._ticket["sectors"], self._ticket["volume_id"])
        head = bytearray()
        wanted = HEAD_SECTORS * SECTOR

        def progress(done: int) -> None:
            share = done / (self._ticket["sectors"] * SECTOR) * STAGED_SHARE
            self.report = BurnReport(BurnState.BURNING, min(STAGED_SHARE, share), "making the image")

        self._streams = self._options.stream and self._describe(image)
        if self._streams:

            def look_on(data: bytes) -> None:
                head.extend(data[: max(0, wanted - len(head))])

            return image.write(look_on, progress, self._abandon.is_set), head_digest(bytes(head))
        descriptor = os.open(self._run.image, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            digest = image.write(Sink(descriptor).write, progress, self._abandon.is_set)
        finally:
            os.close(descriptor)
        with self._run.image.open("rb") as file:
            return digest, head_digest(file.read(wanted))

    def _describe(self, image: ImageSource) -> bool:
        """Write down what the helper needs to stream the image; False: it is of a kind that must be made first."""
        try:
            self._run.source.write_bytes(pickle.dumps(image))
        except (pickle.PicklingError, TypeError, AttributeError):
            return False
        return True

    # ------------------------------------------------------------------ the blank

    def _await_blank(self) -> tuple[str, Looked]:
        """Until the right blank lies in a drive; a person is told which."""
        mark = self._ticket["mark"]
        while True:
            drive = self._drives.take(mark)
            reason = "no drive is free"
            if drive:
                reason, seen = self._look(drive)
                if not reason:
                    return drive, seen
                for other in self._drives.others():
                    other_reason, seen = self._look(other)
                    if not other_reason and self._drives.change(mark, other):
                        return other, seen
            self.report = BurnReport(BurnState.WAITING, STAGED_SHARE, self._wish(drive, reason))
            if self._abandon.wait(LOOK_SECONDS):
                raise _Given

    def _look(self, drive: str) -> tuple[str, Looked]:
        """Why what lies in a drive will not do, and what was seen there."""
        tray = drive_tray.state(drive)
        if tray is Tray.GONE:
            return f"there is no drive {drive}", Looked()
        if tray in (Tray.OPEN, Tray.EMPTY, Tray.NOT_READY):
            return {Tray.OPEN: "its tray is open", Tray.EMPTY: "there is no medium in it"}.get(
                tray, "not ready"
            ), Looked()
        sign = drive_tray.sign(drive)
        seen = self._seen.get(drive, Looked())
        if seen.sign != sign or time.monotonic() - seen.at > _ASK_AGAIN_SECONDS:
            try:
                with self._drives.asking(drive, patience=_ASKED_SECONDS) as alone:
                    if not alone:
                        return "it is asked by somebody else", Looked()
                    medium = self._tool.medium(drive)
            except ToolError as error:
                return str(error), Looked()
            seen = Looked(sign, time.monotonic(), medium, content_of(drive, medium))
            self._seen[drive] = seen
        reason = why_not(
            seen.medium,
            seen.content,
            wanted=self._family,
            sectors=self._ticket["sectors"],
            erase=self._options.erase,
            cd_rw=self._options.cd_rw,
        )
        return reason, seen

    def _wish(self, drive: str, reason: str) -> str:
        order = self._order
        kind = self._ticket["medium"] or self._family or "disc"
        which = f"{order.file_set_id}, volume {order.volume} of {order.volumes}, copy {order.copy}"
        where = f"into {drive}" if drive else "into a drive"
        hint = f" (a pseudo-drive's blank is an empty file {drive.removeprefix('stdio:')})" if is_pseudo(drive) else ""
        return f"load a blank {kind} of {order.sectors} sectors or more {where} for {which}: {reason}{hint}"


def content_of(drive: str, medium: Medium) -> Content:
    """What stands on a medium; a blank that is written once cannot be read and need not."""
    if medium.fill in (Fill.ABSENT, Fill.UNUSABLE) or (medium.fill is Fill.BLANK and not medium.overwritable):
        return Content(empty=True)
    return look(drive)


def start_helper(run: Run, token: str) -> subprocess.Popen[bytes]:
    """Start the process that burns, in a session of its own: it is no child to be killed with us."""
    with run.helper_log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "burners.drive_run", str(run.folder), token],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def family_of(medium: str) -> str:
    """``CD``, ``DVD`` or ``BD`` of a row of ``config/mediatypes.toml``; empty: any."""
    from media.mediatypes import media_types

    row = media_types().get(medium)
    return row.family if row is not None else ""
