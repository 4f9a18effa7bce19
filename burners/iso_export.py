"""ISO export: each copy of a volume becomes an image file of its own in a folder. Also the worked minimum of a driver.

An image is streamed to ``.NAME.DISC.EPOCH.part`` in the target folder, fsynced and renamed without ever replacing a
file, so a name without the dot is always a complete image. What a crash leaves is told apart by the ticket: the final
name exists with the volume's label and size, then it is ours; else the rest is thrown away and written anew.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import string
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
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
from burners.publish import publish, start_writing_back, sync_folder
from media.problems import MediaError

SECTOR = 2048
_FIELDS = ("file_set_id", "volume", "volumes", "copy", "job")
_KNOWN = ("folder", "pattern", "slots")
_WRITE_BACK_BYTES = 32 << 20
_SPARE_BYTES = 16 << 20
"""Kept free in the target folder beside the image itself, for the file system's own needs."""


@dataclass(frozen=True, slots=True)
class _Options:
    folder: Path
    pattern: str
    slots: int


class IsoExport:
    """The driver ``iso``. Options: ``folder``, ``pattern`` (of file_set_id, volume, volumes, copy, job), ``slots``."""

    verified_by: ClassVar[str] = "read-back"
    shared = True

    def __init__(self, name: str, options: Mapping[str, Any], *, data: Path) -> None:
        checked = _check(options, data)
        self.name = name
        self.slots = checked.slots
        self._folder = checked.folder
        self._pattern = checked.pattern
        self._writers: dict[str, _Writer] = {}
        self._lock = threading.Lock()

    @classmethod
    def example(cls, folder: Path) -> dict[str, Any]:
        return {"folder": str(folder), "pattern": "{file_set_id}_{copy}.iso"}

    def probe(self) -> DriverStatus:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self._folder).free
        except OSError as error:
            return DriverStatus(self.name, "iso", DriverState.OFFLINE, f"folder {self._folder}: {error.strerror}")
        if not os.access(self._folder, os.W_OK | os.X_OK):
            return DriverStatus(self.name, "iso", DriverState.OFFLINE, f"folder {self._folder} cannot be written to")
        return DriverStatus(
            self.name, "iso", DriverState.READY, f"folder {self._folder}", {"free_bytes": free, "slots": self.slots}
        )

    def prepare(self, order: BurnOrder) -> Ticket:
        final = self._folder / self._file_name(order)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self._folder).free
        except OSError as error:
            raise BurnRefused(f"folder {self._folder}: {error.strerror}") from error
        if os.path.lexists(final):
            raise BurnRefused(f"{final} exists already and is not ours; nothing is ever overwritten")
        need = order.sectors * SECTOR
        if free < need + _SPARE_BYTES:
            raise BurnRefused(f"folder {self._folder} has {free} bytes free; the image needs {need}")
        return {
            "final": str(final),
            # The UID keeps installations apart that share a folder and happen to use the same names.
            "mark": f"{hashlib.sha256(order.file_set_uid.encode()).hexdigest()[:12]}-{order.disc}",
            "volume_id": order.file_set_id,
            "size": need,
        }

    def submit(self, order: BurnOrder, ticket: Ticket) -> None:
        with self._lock:
            before = self._writers.get(ticket["mark"])
            if before is not None:
                if before.epoch == order.epoch or before.report.state is BurnState.BURNT:
                    return
                before.abandon.set()  # the claim it works under is gone
            elif os.path.lexists(ticket["final"]):
                return  # poll tells whether it is ours
            writer = _Writer(order, ticket, after=before)
            self._writers[ticket["mark"]] = writer
            writer.start()

    def poll(self, ticket: Ticket) -> BurnReport:
        with self._lock:
            writer = self._writers.get(ticket["mark"])
        if writer is not None:
            return writer.report
        final = Path(ticket["final"])
        if not os.path.lexists(final):
            return BurnReport(BurnState.UNKNOWN, device_free=True)
        if not _is_ours(final, ticket):
            reason = f"{final} exists and is not the image of {ticket['volume_id']}; nothing is ever overwritten"
            return BurnReport(BurnState.FAILED, message=reason, device_free=True)
        return BurnReport(BurnState.BURNT, 1.0, image=final, device_free=True)

    def cancel(self, ticket: Ticket) -> None:
        with self._lock:
            writer = self._writers.get(ticket["mark"])
        if writer is not None:
            writer.abandon.set()
        else:
            _remove_leftovers(ticket)

    def finish(self, ticket: Ticket, outcome: Outcome) -> str:
        with self._lock:
            self._writers.pop(ticket["mark"], None)
        _remove_leftovers(ticket)
        final = Path(ticket["final"])
        if outcome is Outcome.GOOD:
            return str(final)
        if not (os.path.lexists(final) and _is_ours(final, ticket)):
            return ""
        if outcome is Outcome.CANCELLED:
            final.unlink(missing_ok=True)
            sync_folder(final.parent)
            return ""
        return str(_set_aside(final))

    def close(self) -> None:
        with self._lock:
            writers = list(self._writers.values())
        for writer in writers:
            writer.abandon.set()
        for writer in writers:
            writer.join(timeout=10)

    def _file_name(self, order: BurnOrder) -> str:
        name = self._pattern.format(
            file_set_id=order.file_set_id, volume=order.volume, volumes=order.volumes, copy=order.copy, job=order.job
        )
        if order.attempt > 1:
            path = Path(name)
            name = f"{path.stem}-a{order.attempt}{path.suffix}"
        return name


class _Writer:
    """One image on its way into its file, by a thread of its own."""

    def __init__(self, order: BurnOrder, ticket: Ticket, *, after: _Writer | None) -> None:
        self.epoch = order.epoch
        self.abandon = threading.Event()
        self.report = BurnReport(BurnState.QUEUED)
        self._order = order
        self._ticket = ticket
        self._after = after
        self._thread = threading.Thread(target=self._run, name=f"iso-{order.disc}", daemon=True)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)

    def _run(self) -> None:
        temporary = _temporary(self._ticket, self.epoch)
        try:
            if self._after is not None:
                self._after.join(timeout=600)
            self.report = self._write(temporary)
        except MediaError as error:
            if self.abandon.is_set():
                self.report = BurnReport(BurnState.CANCELLED, message="cancelled", device_free=True)
            else:
                self.report = BurnReport(BurnState.FAILED, message=str(error), device_free=True)
        except BurnRefused as error:
            self.report = BurnReport(BurnState.FAILED, message=str(error), device_free=True)
        except FileExistsError:
            reason = f"{self._ticket['final']} was made by somebody else meanwhile; nothing is ever overwritten"
            self.report = BurnReport(BurnState.FAILED, message=reason, device_free=True)
        except OSError as error:
            reason = f"writing {temporary.parent / Path(self._ticket['final']).name}: {error.strerror or error}"
            if error.errno == errno.ENOSPC:
                reason = f"folder {temporary.parent} is full; the image needs {self._ticket['size']} bytes"
            self.report = BurnReport(BurnState.FAILED, message=reason, device_free=True)
        except Exception as error:  # noqa: BLE001 - the thread's last words must reach the workflow
            reason = f"{type(error).__name__}: {error}"
            self.report = BurnReport(BurnState.FAILED, message=reason, device_free=True)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            if not self.report.device_free:
                self.report = BurnReport(BurnState.FAILED, message="the writer ended without a word", device_free=True)

    def _write(self, temporary: Path) -> BurnReport:
        _remove_leftovers(self._ticket)
        final = Path(self._ticket["final"])
        if os.path.lexists(final) and _is_ours(final, self._ticket):
            return BurnReport(BurnState.BURNT, 1.0, image=final, device_free=True)
        image = self._order.open_image()
        size: int = self._ticket["size"]
        if image.sectors * SECTOR != size or image.volume_id != self._ticket["volume_id"]:
            raise BurnRefused(
                f"the image became {image.volume_id} with {image.sectors} sectors; "
                f"planned were {self._ticket['volume_id']} with {size // SECTOR}"
            )
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        try:
            digest = image.write(_Sink(descriptor).write, self._progress, self.abandon.is_set)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if self.abandon.is_set():
            return BurnReport(BurnState.CANCELLED, message="cancelled", device_free=True)
        if not self._order.may_publish(digest):
            return BurnReport(BurnState.UNKNOWN, message="another claim on this disc came meanwhile", device_free=True)
        try:
            publish(temporary, final)
        except FileExistsError:
            # A node that was thought dead published the same image, byte for byte, a moment before.
            if not _is_ours(final, self._ticket):
                raise
        return BurnReport(BurnState.BURNT, 1.0, image=final, sha256=digest, device_free=True)

    def _progress(self, done: int) -> None:
        self.report = BurnReport(BurnState.BURNING, min(1.0, done / self._ticket["size"]), "writing the image")


class _Sink:
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


def _temporary(ticket: Ticket, epoch: int) -> Path:
    final = Path(ticket["final"])
    return final.parent / f".{final.name}.{ticket['mark']}.{epoch}.part"


def _remove_leftovers(ticket: Ticket) -> None:
    """Remove what earlier claims on this very disc left; a writer that still has it open cannot publish any more."""
    final = Path(ticket["final"])
    start, end = f".{final.name}.{ticket['mark']}.", ".part"
    with suppress(FileNotFoundError), os.scandir(final.parent) as entries:
        for entry in entries:
            if entry.name.startswith(start) and entry.name.endswith(end):
                Path(entry.path).unlink(missing_ok=True)


def _is_ours(final: Path, ticket: Ticket) -> bool:
    """A regular file with the size and the volume identifier of this volume (ECMA-119 8.4.6, sector 16).

    The name was free when the ticket was made. Whether every byte is right is for the verification to say.
    """
    try:
        descriptor = os.open(final, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    with os.fdopen(descriptor, "rb") as file:
        if os.fstat(descriptor).st_size != ticket["size"]:
            return False
        file.seek(16 * SECTOR)
        header = file.read(72)
    return header[1:6] == b"CD001" and header[40:72].decode("ascii", "replace").rstrip() == ticket["volume_id"]


def _set_aside(final: Path) -> Path:
    """Rename to ``NAME.bad`` (``NAME.bad2`` ... where taken), so that nobody takes it for a good image."""
    for number in range(1, 1000):
        target = final.with_name(f"{final.name}.bad{number if number > 1 else ''}")
        with suppress(FileExistsError):
            publish(final, target)
            return target
    return final


def _check(options: Mapping[str, Any], data: Path) -> _Options:
    """Check all options; raises BurnerOptionsError that lists every fault."""
    faults = [f"unknown option {key!r}; known are {', '.join(_KNOWN)}" for key in options if key not in _KNOWN]
    folder, pattern, slots = options.get("folder"), options.get("pattern", "{file_set_id}_{copy}.iso"), 1
    if not isinstance(folder, str | Path) or not str(folder):
        faults.append("folder: the folder for images is missing")
        folder = "."
    if isinstance(pattern, str):
        faults += [f"pattern {pattern!r}: {fault}" for fault in _pattern_faults(pattern)]
    else:
        faults.append(f"pattern: {pattern!r} is no text")
    slots = options.get("slots", slots)
    if not isinstance(slots, int) or isinstance(slots, bool) or not 1 <= slots <= 64:
        faults.append(f"slots: {slots!r} is not a number from 1 to 64")
    if faults:
        raise BurnerOptionsError("; ".join(faults))
    return _Options(data / Path(folder).expanduser(), str(pattern), int(slots))


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
