"""What drivers share that write a file-set into the file system: one writing thread for each disc, told by its ticket.

A driver of this kind writes to a temporary name, asks ``may_publish``, and gives the final name in one act. What a
crash leaves is told apart by what stands under the final name (``_found``), so a ticket never needs a change.
"""

from __future__ import annotations

import errno
import os
import string
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from burners.base import (
    BurnerOptionsError,
    BurnOrder,
    BurnRefused,
    BurnReport,
    BurnState,
    ImageSource,
    Outcome,
    Ticket,
)
from burners.publish import publish, start_writing_back
from media.problems import MediaError

SECTOR = 2048
SPARE_BYTES = 16 << 20
"""Kept free in the target folder beside the disc itself, for the file system's own needs."""
_FIELDS = ("file_set_id", "volume", "volumes", "copy", "job")
_WRITE_BACK_BYTES = 32 << 20


class Exporter(ABC):
    """``submit``, ``poll``, ``cancel``, ``finish`` and ``close`` of such a driver."""

    verified_by: ClassVar[str] = "read-back"
    shared = True

    def __init__(self, name: str, slots: int) -> None:
        self.name = name
        self.slots = slots
        self._writers: dict[str, Writer] = {}
        self._lock = threading.Lock()

    @abstractmethod
    def _found(self, ticket: Ticket) -> BurnReport:
        """What stands there of a ticket that nobody here works on; UNKNOWN where it may be written."""

    @abstractmethod
    def _write(self, order: BurnOrder, ticket: Ticket, writer: Writer) -> BurnReport:
        """Make the disc, in the writer's thread."""

    @abstractmethod
    def _remove_leftovers(self, ticket: Ticket) -> None:
        """Remove what earlier claims on this very disc left; a writer still at it cannot publish any more."""

    @abstractmethod
    def _put_away(self, ticket: Ticket, outcome: Outcome) -> str:
        """What ``finish`` returns, once nobody works on the disc."""

    def submit(self, order: BurnOrder, ticket: Ticket) -> None:
        with self._lock:
            before = self._writers.get(ticket["mark"])
            if before is not None:
                if before.epoch == order.epoch or before.report.state is BurnState.BURNT:
                    return
                before.abandon.set()  # the claim it works under is gone
            elif self._found(ticket).state is not BurnState.UNKNOWN:
                return  # poll tells whether it is ours
            writer = Writer(order, ticket, self._write, self._remove_leftovers, after=before)
            self._writers[ticket["mark"]] = writer
            writer.start()

    def poll(self, ticket: Ticket) -> BurnReport:
        with self._lock:
            writer = self._writers.get(ticket["mark"])
        return writer.report if writer is not None else self._found(ticket)

    def cancel(self, ticket: Ticket) -> None:
        with self._lock:
            writer = self._writers.get(ticket["mark"])
        if writer is not None:
            writer.abandon.set()
        else:
            self._remove_leftovers(ticket)

    def finish(self, ticket: Ticket, outcome: Outcome) -> str:
        with self._lock:
            self._writers.pop(ticket["mark"], None)
        self._remove_leftovers(ticket)
        return self._put_away(ticket, outcome)

    def close(self) -> None:
        with self._lock:
            writers = list(self._writers.values())
        for writer in writers:
            writer.abandon.set()
        for writer in writers:
            writer.join(timeout=10)


class Writer:
    """One disc on its way, by a thread of its own."""

    def __init__(
        self,
        order: BurnOrder,
        ticket: Ticket,
        write: Callable[[BurnOrder, Ticket, Writer], BurnReport],
        clean: Callable[[Ticket], None],
        *,
        after: Writer | None,
    ) -> None:
        self.epoch = order.epoch
        self.abandon = threading.Event()
        self.report = BurnReport(BurnState.QUEUED)
        self._order = order
        self._ticket = ticket
        self._write = write
        self._clean = clean
        self._after = after
        self._thread = threading.Thread(target=self._run, name=f"export-{order.disc}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def running(self) -> bool:
        """The thread has not ended; its last report may still come."""
        return self._thread.is_alive()

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)

    def progress(self, done: int) -> None:
        """So many bytes of the ticket's ``size`` are written."""
        self.report = BurnReport(BurnState.BURNING, min(1.0, done / max(1, self._ticket["size"])), "writing the files")

    def _run(self) -> None:
        final = Path(self._ticket["final"])
        report = BurnReport(BurnState.FAILED, message="the writer ended without a word", device_free=True)
        try:
            if self._after is not None:
                self._after.join(timeout=600)
            report = self._write(self._order, self._ticket, self)
        except MediaError as error:
            if self.abandon.is_set():
                report = BurnReport(BurnState.CANCELLED, message="cancelled", device_free=True)
            else:
                report = BurnReport(BurnState.FAILED, message=str(error), device_free=True)
        except BurnRefused as error:
            report = BurnReport(BurnState.FAILED, message=str(error), device_free=True)
        except FileExistsError:
            reason = f"{final} was made by somebody else meanwhile; nothing is ever overwritten"
            report = BurnReport(BurnState.FAILED, message=reason, device_free=True)
        except OSError as error:
            reason = f"writing {final}: {error.strerror or error}"
            if error.errno == errno.ENOSPC:
                reason = f"folder {final.parent} is full; the disc needs {self._ticket['size']} bytes"
            report = BurnReport(BurnState.FAILED, message=reason, device_free=True)
        except Exception as error:  # noqa: BLE001 - the thread's last words must reach the workflow
            report = BurnReport(BurnState.FAILED, message=f"{type(error).__name__}: {error}", device_free=True)
        finally:
            if report.state is not BurnState.BURNT:
                self._remove_own()
            self.report = report

    def _remove_own(self) -> None:
        with suppress(OSError):
            self._clean({**self._ticket, "epoch": self.epoch})


class Sink:
    """Whole writes to a descriptor, and dirty pages sent to the disk early so that the fsync at the end is short."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._written = 0
        self._sent = 0

    def write(self, data: bytes | bytearray | memoryview) -> int:
        view = memoryview(data)
        total = len(view)
        while view:
            view = view[os.write(self._descriptor, view) :]
        self._written += total
        if self._written - self._sent >= _WRITE_BACK_BYTES:
            start_writing_back(self._descriptor, self._sent, self._written - self._sent)
            self._sent = self._written
        return total


def planned_image(order: BurnOrder, sectors: int, volume_id: str) -> ImageSource:
    """The image of an order. BurnRefused where it is not what the ticket was made for."""
    image = order.open_image()
    if image.sectors != sectors or image.volume_id != volume_id:
        raise BurnRefused(
            f"the image became {image.volume_id} with {image.sectors} sectors; planned were {volume_id} with {sectors}"
        )
    return image


def leftovers(ticket: Ticket) -> list[Path]:
    """Temporary names of this very disc; with ``epoch`` in the ticket, those of that claim only."""
    final = Path(ticket["final"])
    if "epoch" in ticket:
        own = temporary_name(ticket, ticket["epoch"])
        return [own] if os.path.lexists(own) else []
    start, end = f".{final.name}.{ticket['mark']}.", ".part"
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(final.parent) as entries:
        return [Path(entry.path) for entry in entries if entry.name.startswith(start) and entry.name.endswith(end)]
    return []


def temporary_name(ticket: Ticket, epoch: int) -> Path:
    """Where the disc is written under a claim; a sibling of the final name."""
    final = Path(ticket["final"])
    return final.parent / f".{final.name}.{ticket['mark']}.{epoch}.part"


def set_aside(final: Path) -> Path:
    """Rename to ``NAME.bad`` (``NAME.bad2`` ... where taken), so that nobody takes it for a good disc."""
    for number in range(1, 1000):
        target = final.with_name(f"{final.name}.bad{number if number > 1 else ''}")
        with suppress(FileExistsError):
            publish(final, target)
            return target
    return final


def file_name(pattern: str, order: BurnOrder) -> str:
    """The name that a pattern gives; a retry has its attempt in it."""
    name = pattern.format(
        file_set_id=order.file_set_id, volume=order.volume, volumes=order.volumes, copy=order.copy, job=order.job
    )
    if order.attempt > 1:
        path = Path(name)
        name = f"{path.stem}-a{order.attempt}{path.suffix}"
    return name


def check_common(options: Mapping[str, Any], *, known: tuple[str, ...], pattern: str, what: str) -> list[str]:
    """Faults of the options ``folder``, ``pattern`` and ``slots``, and options that nobody knows."""
    faults = [f"unknown option {key!r}; known are {', '.join(known)}" for key in options if key not in known]
    folder, given, slots = options.get("folder"), options.get("pattern", pattern), options.get("slots", 1)
    if not isinstance(folder, str | Path) or not str(folder):
        faults.append(f"folder: the folder for {what} is missing")
    if isinstance(given, str):
        faults += [f"pattern {given!r}: {fault}" for fault in _pattern_faults(given)]
    else:
        faults.append(f"pattern: {given!r} is no text")
    if not isinstance(slots, int) or isinstance(slots, bool) or not 1 <= slots <= 64:
        faults.append(f"slots: {slots!r} is not a number from 1 to 64")
    return faults


def raise_faults(faults: list[str]) -> None:
    """BurnerOptionsError that lists every fault, if there is one."""
    if faults:
        raise BurnerOptionsError("; ".join(faults))


def _pattern_faults(pattern: str) -> list[str]:
    try:
        parts = list(string.Formatter().parse(pattern))
    except ValueError as error:
        return [str(error)]
    used = {name for _, name, _, _ in parts if name is not None}
    faults = [f"unknown field {{{name}}}; known are {', '.join(_FIELDS)}" for name in sorted(used - set(_FIELDS))]
    if any(conversion or spec for _, _, spec, conversion in parts):
        faults.append("a field has a format; fields are used plain, like {copy}")
    if faults:
        return faults
    if "copy" not in used:
        faults.append("{copy} is missing, so copies would have one name")
    if "file_set_id" not in used and not {"job", "volume"} <= used:
        faults.append("{file_set_id}, or {job} and {volume}, is missing, so volumes would have one name")
    name = pattern.format(file_set_id="X" * 16, volume=999, volumes=999, copy=99, job="J" + "9" * 12)
    if "/" in name or "\0" in name or "\n" in name:
        faults.append("a file name has no slash")
    if name.startswith("."):
        faults.append("a file name that begins with a dot would be hidden")
    if len(os.fsencode(name)) > 180:
        faults.append("the file name becomes too long")
    return faults
