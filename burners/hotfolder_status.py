"""Whether a robot lives: its status, and since when that has not changed."""

from __future__ import annotations

import errno
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from burners.hotfolder_dialect import Dialect, RobotState, RobotStatus, StatusFolder
from burners.hotfolder_options import Options
from media.mounts import Place

_KEPT_SECONDS = 0.2
_CLOCK_SECONDS = 60.0
_LOOKS = 4
_LOOK_AGAIN_SECONDS = 0.03


@dataclass(frozen=True, slots=True)
class Seen:
    status: RobotStatus
    offline: str
    """Why the robot cannot be reached; empty: it can."""
    garbled: str = ""
    """Why the status cannot be understood now; ``status`` may be an earlier one then."""

    @property
    def holds(self) -> str:
        """Why no new order is given to it now; empty: it may be given one."""
        if self.offline:
            return self.offline
        return "" if self.status.state is RobotState.READY else self.status.reason or "the robot waits"


class StatusWatch:
    """Reads the status at most five times a second, whoever asks."""

    def __init__(self, options: Options, dialect: Dialect, share: Place) -> None:
        self._share = share
        self._options = options
        self._dialect = dialect
        self._lock = threading.Lock()
        self._seen: Seen | None = None
        self._at = 0.0
        self._beat = ""
        self._beat_at = 0.0
        """When, by the monotonic clock, the beat was last seen to change."""
        self._understood: Seen | None = None
        self._understood_at = 0.0
        self._looked_at = float("-inf")
        self._ahead = 0.0
        """How far the file server's clock is ahead of ours."""
        self._ahead_at: float | None = None

    def now(self) -> Seen:
        """How the robot stands; what is wrong with the folder is told as OFFLINE."""
        with self._lock:
            at = time.monotonic()
            if self._seen is None or at - self._at >= _KEPT_SECONDS:
                self._seen = self._look(at)
                self._at = at
            return self._seen

    def _look(self, at: float) -> Seen:
        folder = self._options.folder
        try:
            self._share.require()
            folder.stat()
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, "it cannot be written to", str(folder))
            self._set_clock(at)
            reader = StatusFolder(folder, code_page=self._options.code_page, clock=self._server_time)
            status = self._dialect.status(reader)
            for _ in range(_LOOKS - 1):
                if status.state is not RobotState.UNKNOWN or self._understood is not None:
                    break
                time.sleep(_LOOK_AGAIN_SECONDS)  # perhaps it was being written; the first look must not mislead
                status = self._dialect.status(reader)
        except OSError as error:
            why = f"folder {folder}: {error.strerror or error}"
            return Seen(RobotStatus(RobotState.OFFLINE, why), why)
        if status.state is RobotState.OFFLINE:
            return Seen(status, status.reason or "the robot is off")
        seen = Seen(status, self._too_old(status, at))
        if status.state is not RobotState.UNKNOWN:
            self._understood, self._understood_at = seen, at
            return seen
        garbled = status.reason or "its status cannot be understood"
        if self._understood is not None and at - self._understood_at <= self._options.stale_seconds:
            return replace(self._understood, garbled=garbled)  # read while it was being written
        return replace(seen, garbled=garbled)

    def _too_old(self, status: RobotStatus, at: float) -> str:
        """Two clocks may differ, so the status is old when we saw no change for so long; it is as old as its time says
        where nobody has looked for a while (since when it changed is not known then), and at first."""
        if not status.beat:
            return ""
        if status.beat != self._beat:
            self._beat = status.beat
            self._beat_at = max(self._looked_at, at - max(0.0, status.age or 0.0))
        self._looked_at = at
        longest = self._options.stale_seconds
        if at - self._beat_at <= longest:
            return ""
        return f"the robot's status has not changed for more than {in_words(longest)}: is its program running?"

    def _server_time(self) -> float:
        return time.time() + self._ahead

    def _set_clock(self, at: float) -> None:
        """What time it is for the file server: that of a file made just now."""
        if self._ahead_at is not None and at - self._ahead_at < _CLOCK_SECONDS:
            return
        images: Path = self._options.images
        with suppress(OSError):
            images.mkdir(exist_ok=True)
            probe = images / f".clock-{id(self)}"
            try:
                probe.touch()
                self._ahead = probe.stat().st_mtime - time.time()
            finally:
                probe.unlink(missing_ok=True)
        self._ahead_at = at


def in_words(seconds: float) -> str:
    """A duration for people."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"
