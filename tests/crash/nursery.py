"""Services that need not load everything first: forked from a process that has. They die like any other.

A process does not start while others are loading: what it loads is most of the time and work of a start.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from store.processes import die_with_parent
from tests.waiting import wait_for

_ROOT = Path(__file__).parents[2]
_LOADED = ("service.app", "service.logs", "service.commands.common", "scp.server", "scp.courier", "numpy", "pydicom")


class Nursery:
    """The process that forks; one for all tests of a process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
        )
        atexit.register(self._close)

    def start(self, arguments: list[str], *, out: Path, log: Path) -> Child:
        """Run ``burnish`` with these arguments."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([arguments, str(out), str(log)]) + "\n")
        self._process.stdin.flush()
        return Child(int(self._process.stdout.readline()))

    def _close(self) -> None:
        self._process.kill()
        self._process.wait()


@functools.cache
def nursery() -> Nursery:
    return Nursery()


class Child:
    """As much of ``subprocess.Popen`` as tests need; how it ended is not known."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._born = started_at(pid)

    def poll(self) -> int | None:
        return None if self._born and started_at(self.pid) == self._born else 0

    def wait(self) -> None:
        wait_for(lambda: self.poll() is not None, f"process {self.pid} to end")

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


def started_at(pid: int) -> str:
    """When a process that lives was started, in the kernel's words; "" for none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries them
    for name in _LOADED:
        importlib.import_module(name)
    gc.freeze()
    parent = os.getpid()
    for line in sys.stdin:
        arguments, out, log = json.loads(line)
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            die_with_parent(parent)
            _serve(arguments, out, log)
        print(child, flush=True)


def _serve(arguments: list[str], out: str, log: str) -> None:
    from service.cli import main as burnish

    for fd, path in ((0, os.devnull), (1, out), (2, log)):
        opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(opened, fd)
        os.close(opened)
    sys.argv = ["burnish", *arguments]
    status = 1
    try:
        burnish()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
