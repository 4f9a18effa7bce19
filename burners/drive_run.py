"""The process that sees one burn through: ``python -m burners.drive_run FOLDER TOKEN``.

The service starts it in a session of its own, and it outlives the service: a disc that is being written when the
service dies becomes a whole disc. It needs nothing but its folder. It gives the tool the image that lies there, or
streams one from the instances itself (``image.pickle`` is the image's description); it keeps the tool's words and exit
status, has the tray opened and closed for the read-back, and says how all ended.

It begins only if ``order.json`` bears its token and nothing was started before, and it holds the folder's lock and the
drive's: whatever happens around it, a folder is burnt once.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from burners import drive_tray
from burners.drive_media import look
from burners.drive_programs import tool_of
from burners.drive_record import Run, boot_id, start_time, take
from burners.drive_tools import Burn, environment

_LOCK_SECONDS = 120.0
"""A question to the drive is waited for; a disc with scratches makes it slow."""


def main(arguments: list[str]) -> int:
    folder, token = Path(arguments[0]), arguments[1]
    os.chdir(folder)
    return Helper(Run(Path.cwd()), token).run()


class Helper:
    """One burn."""

    def __init__(self, run: Run, token: str) -> None:
        self._run = run
        self._token = token
        self._process: subprocess.Popen[bytes] | None = None
        self._cancelled = False
        self._feed_error = ""

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        lock = take(self._run.folder / "lock", patience=_LOCK_SECONDS)
        order = self._run.read("order")
        if lock is None or order is None or order["token"] != self._token or self._run.read("started") is not None:
            return 1
        locks = [lock]
        for path in order["locks"]:
            held = take(Path(path), patience=_LOCK_SECONDS)
            if held is None:
                self._end("failed", f"{order['drive']} is used by another process; nothing was burnt", began=False)
                return 1
            locks.append(held)
        me = os.getpid()
        self._run.write(
            "started",
            {
                "pid": me,
                "start": start_time(me),
                "boot": boot_id(),
                "drive": order["drive"],
                "medium": order["medium"],
                "at": time.time(),
            },
        )
        try:
            self._burn(order, locks)
        except Exception as error:
            self._end("unknown", f"{type(error).__name__}: {error}")
            raise
        finally:
            self._run.remove_bulk()
        return 0

    def _burn(self, order: dict[str, Any], locks: list[int]) -> None:
        tool = tool_of(order["tool"], order["program"])
        burn = Burn(**order["burn"])
        if self._wanted_no_more() or (self._run.folder / "cancel").exists():
            self._end("cancelled", "cancelled before the tool began; the blank is still one", began=False)
            return
        streamed = burn.source == "-"
        with self._run.transcript.open("ab") as transcript:
            try:
                self._process = subprocess.Popen(
                    tool.command(burn),
                    stdin=subprocess.PIPE if streamed else subprocess.DEVNULL,
                    stdout=transcript,
                    stderr=subprocess.STDOUT,
                    env=environment(),
                    pass_fds=locks,  # so that the locks last as long as the tool, should this process be killed
                )
            except OSError as error:
                self._end("failed", f"{tool.program}: {error.strerror or error}; nothing was burnt", began=False)
                return
        if self._wanted_no_more():
            self._process.terminate()
        feeder = threading.Thread(target=self._feed, args=(order,), daemon=True) if streamed else None
        if feeder is not None:
            feeder.start()
        status = self._process.wait()
        if feeder is not None:
            feeder.join(timeout=30)
        said = self._run.transcript.read_text("utf-8", "replace")
        self._judge(order, burn, tool.failure(said, status), status, began=tool.progress(said).began)

    def _judge(self, order: dict[str, Any], burn: Burn, trouble: str, status: int, *, began: bool) -> None:
        trouble = self._feed_error or trouble
        if self._cancelled and trouble:
            spoilt = "; the blank is spoilt, take it out" if began and not burn.simulate else ""
            self._end("cancelled", f"cancelled{spoilt}", status=status, began=began)
        elif trouble:
            self._end("failed", trouble, status=status, began=began)
        elif burn.simulate:
            self._end("simulated", "the simulation went well; nothing was written", status=status, began=False)
        else:
            todo = drive_tray.reload(order["drive"])
            self._end("burnt", todo, status=status, head="" if todo else look(order["drive"]).head)

    def _feed(self, order: dict[str, Any]) -> None:
        """Stream the image into the tool. A source that is not what it was ends the burn, and that is the reason."""
        assert self._process is not None and self._process.stdin is not None
        pipe = self._process.stdin
        try:
            with self._run.source.open("rb") as file:
                image = pickle.load(file)
            digest = image.write(pipe, None, lambda: self._cancelled)
            pipe.close()
            if digest != order["sha256"]:
                self._feed_error = f"the image became {digest} while it was burnt; {order['sha256']} was planned"
        except BrokenPipeError:
            pass  # the tool has ended, and says why
        except Exception as error:  # noqa: BLE001 - the last words of this thread
            if not self._cancelled:
                self._feed_error = str(error)
        finally:
            with suppress(OSError):
                pipe.close()

    def _wanted_no_more(self) -> bool:
        """A signal may have come at any moment."""
        return self._cancelled

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        """An orderly end: libburn's programs let go of the drive themselves, and never must be killed."""
        self._cancelled = True
        if self._process is not None:
            with suppress(OSError):
                self._process.terminate()

    def _end(self, outcome: str, reason: str, **more: Any) -> None:
        self._run.write("end", {"outcome": outcome, "reason": reason, "at": time.time(), **more})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
