"""Conforming many instances on all cores, in helper processes that may crash without harm.

Decoders are C code fed with bytes from anywhere: one that crashes or hangs takes its process with it, and the instance
it had in hand is refused by name. Helpers live for one batch; they end when their standard input does, so none
outlives the service.
"""

from __future__ import annotations

import base64
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from media.bounds import Bounds, bounds_of, keep_within
from media.edits import NO_EDITS, Edits
from media.items import Change
from media.problems import MediaError

HELPER = (sys.executable, "-m", "jobs.conform_pool")
FAILED = "cannot be re-encoded: "
"""How a reason begins that a helper itself, or its end, gives."""
_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 25),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 28),
    "OPENBLAS_NUM_THREADS": "1",
}
"""Helpers keep the memory of one frame for the next (else a third of their time goes to page faults), and use one core
each."""
_STALLED_SECONDS = 900.0
"""A helper that says nothing for so long is stuck in a decoder; the largest real frames take seconds."""


@dataclass(frozen=True, slots=True)
class Task:
    """Make ``target`` out of ``source`` by ``recipe`` (``media.conform``, or ``media.icons`` for an icon); ``key`` is
    the caller's handle."""

    key: int
    sop_instance_uid: str
    source: Path
    target: Path
    recipe: str
    edits: Edits = NO_EDITS
    """Made before the recipe."""


@dataclass(frozen=True, slots=True)
class Conformed:
    """What came of a task: the facts of the new file, or why the instance is refused."""

    task: Task
    size: int = 0
    sha256: str = ""
    transfer_syntax_uid: str = ""
    changes: tuple[Change, ...] = ()
    directory_keys: bytes | None = None
    new_sop_instance_uid: str = ""
    facts: dict[str, Any] | None = None
    """These three as of ``media.conform.ConformResult``."""
    refused: tuple[str, str] | None = None
    """Failure code and reason."""
    document: dict[str, Any] | None = None
    """What a helper says that makes no file (``jobs.iodcheck``)."""


class Cancelled(Exception):
    """The caller asked to stop."""


class ConformFailed(Exception):
    """Nothing is wrong with the instance, but its new file cannot be written (disk full, folder gone)."""


def conform_all(
    tasks: Sequence[Task],
    *,
    processes: int,
    cancelled: Callable[[], bool],
    megabytes: int = 0,
    helper: Sequence[str] = HELPER,
) -> Iterator[Conformed]:
    """Run the tasks on up to ``processes`` helpers (0: one for each core); results come as they are done.

    ``megabytes``: of memory for one instance (``media.bounds``). ``helper`` is the command of a helper process.
    Raises ``Cancelled`` soon after ``cancelled()`` turns true, and
    ``ConformFailed``; helpers are ended in every case.
    """
    if not tasks:
        return
    todo: queue.SimpleQueue[Task] = queue.SimpleQueue()
    for task in tasks:
        todo.put(task)
    done: queue.SimpleQueue[Conformed | BaseException] = queue.SimpleQueue()
    stop = threading.Event()
    count = min(processes or os.cpu_count() or 1, len(tasks))

    def bounds(task: Task) -> Bounds:
        try:
            size = task.source.stat().st_size
        except OSError:  # the helper says what is wrong with it
            size = 0
        return bounds_of(size, helpers=count, megabytes=megabytes)

    arguments = (todo, done, stop, helper, bounds)
    threads = [threading.Thread(target=_work, args=arguments, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        for _ in tasks:
            while True:
                if cancelled():
                    raise Cancelled
                try:
                    result = done.get(timeout=0.2)
                    break
                except queue.Empty:
                    continue
            if isinstance(result, BaseException):
                raise result
            yield result
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _work(
    todo: queue.SimpleQueue[Task],
    done: queue.SimpleQueue[Conformed | BaseException],
    stop: threading.Event,
    command: Sequence[str],
    bounds: Callable[[Task], Bounds],
) -> None:
    """One helper after another on the tasks that are left; a new one only after the last has died."""
    helper: _Helper | None = None
    try:
        while not stop.is_set():
            try:
                task = todo.get_nowait()
            except queue.Empty:
                return
            if helper is None:
                helper = _Helper(command)
            result = helper.run(task, bounds(task), stop)
            if result is None:  # stopped
                return
            done.put(result)
            if not helper.alive:
                helper.end()
                helper = None
    except BaseException as error:  # noqa: BLE001 - whatever it is, the caller must hear of it
        done.put(error)
    finally:
        if helper is not None:
            helper.end()


class _Helper:
    def __init__(self, command: Sequence[str]) -> None:
        self.alive = True
        environment = _ENVIRONMENT | os.environ
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)

    def run(self, task: Task, bounds: Bounds, stop: threading.Event) -> Conformed | None:
        """Have one task done within bounds; None where ``stop`` was set before it ended."""
        assert self._process.stdin is not None and self._process.stdout is not None
        order: dict[str, Any] = {"source": str(task.source), "target": str(task.target), "recipe": task.recipe}
        order["bounds"] = [bounds.memory, bounds.seconds]
        if task.edits:
            order["edits"] = task.edits.to_json()
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            return self._lost(task, "the helper process ended before it began")
        patience = max(_STALLED_SECONDS, 2 * bounds.seconds)
        deadline = time.monotonic() + patience
        while not select.select([self._process.stdout], [], [], 0.1)[0]:
            if stop.is_set():
                self._process.kill()
                return None
            if time.monotonic() > deadline:
                self._process.kill()
                return self._lost(task, f"its decoder did not end within {patience:.0f} s")
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            status = self._process.wait()
            return self._lost(task, _death(status, bounds))
        answer = json.loads(line)
        if "beyond" in answer:
            self.alive = False  # what it still holds is its own to free: by its end
            return Conformed(task, refused=("PROC_FAILURE", f"{FAILED}{_too_much(bounds)}"))
        if "failed" in answer:
            raise ConformFailed(answer["failed"])
        if "refused" in answer:
            return Conformed(task, refused=(answer["refused"][0], answer["refused"][1]))
        if "document" in answer:
            return Conformed(task, document=answer["document"])
        changes = tuple(Change(task.sop_instance_uid, *change) for change in answer["changes"])
        keys = answer["directory_keys"]
        return Conformed(
            task,
            answer["size"],
            answer["sha256"],
            answer["transfer_syntax_uid"],
            changes,
            directory_keys=None if keys is None else base64.b64decode(keys),
            new_sop_instance_uid=answer["new_sop_instance_uid"],
            facts=answer["facts"],
        )

    def _lost(self, task: Task, why: str) -> Conformed:
        self.alive = False
        task.target.unlink(missing_ok=True)
        return Conformed(task, refused=("PROC_FAILURE", f"{FAILED}{why}"))

    def end(self) -> None:
        if self._process.stdin is not None:
            try:
                self._process.stdin.close()
            except OSError:
                self._process.kill()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def _death(status: int, bounds: Bounds) -> str:
    """What the end of a helper means."""
    if status == -signal.SIGXCPU:
        return f"its decoder did not end within {bounds.seconds} s of processor time"
    why = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    if status in (-signal.SIGABRT, -signal.SIGKILL):  # what C++ does without memory, and the system where it has none
        return f"its decoder crashed ({why}); perhaps {_too_much(bounds)}"
    return f"its decoder crashed ({why})"


def _too_much(bounds: Bounds) -> str:
    return f"it needs more than {bounds.memory >> 20} MB of memory (jobs.conform_memory_mb)"


def _serve_orders() -> None:
    """The helper's own main: one order a line in, one answer a line out, until the input ends."""
    from media.conform import ConformResult, conform
    from media.iconforms import is_recipe
    from media.icons import write_icon
    from media.problems import InstanceRefused

    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a decoder prints must not get among the answers
    orders: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin.buffer:
            orders.put(line)
        os._exit(0)  # the service is gone or done with us, even in the middle of a frame

    threading.Thread(target=listen, daemon=True).start()
    while True:
        order = json.loads(orders.get())
        target = Path(order["target"])
        answer: dict[str, object]
        try:
            keep_within(Bounds(*order["bounds"]))
            if is_recipe(order["recipe"]):
                icon = write_icon(Path(order["source"]), target, order["recipe"])
                result = ConformResult(icon.changes, icon.size, icon.sha256, icon.transfer_syntax_uid)
            else:
                edits = Edits.from_json(order["edits"]) if "edits" in order else None
                result = conform(Path(order["source"]), target, order["recipe"], edits=edits)
            keys = result.directory_keys
            answer = {
                "size": result.size,
                "sha256": result.sha256,
                "transfer_syntax_uid": result.transfer_syntax_uid,
                "changes": [[change.tag, change.old, change.new] for change in result.changes],
                "directory_keys": None if keys is None else base64.b64encode(keys).decode("ascii"),
                "new_sop_instance_uid": result.new_sop_instance_uid,
                "facts": result.facts,
            }
        except InstanceRefused as error:
            answer = {"refused": [error.code, error.reason]}
        except MemoryError:
            answer = {"beyond": True}
        except (MediaError, OSError) as error:
            answer = {"failed": str(error)}
        except Exception as error:  # noqa: BLE001 - hostile bytes: any decoder error refuses this instance only
            answer = {"refused": ["PROC_FAILURE", f"{FAILED}{type(error).__name__}: {error}"[:500]]}
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    _serve_orders()
