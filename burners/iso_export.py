"""ISO export: each copy of a volume becomes an image file of its own in a folder. Also the worked minimum of a driver.

An image is streamed to ``.NAME.DISC.EPOCH.part`` in the target folder, fsynced and renamed without ever replacing a
file, so a name without the dot is always a complete image. What a crash leaves is told apart by the ticket: the final
name exists with the volume's label and size, then it is ours; else the rest is thrown away and written anew.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from burners.exporting import (
    SECTOR,
    SPARE_BYTES,
    Exporter,
    Sink,
    Writer,
    check_common,
    file_name,
    leftovers,
    planned_image,
    raise_faults,
    set_aside,
    temporary_name,
)
from burners.publish import publish, sync_folder
from media.mounts import Place

_KNOWN = ("folder", "must_exist", "pattern", "slots")
_PATTERN = "{file_set_id}_{copy}.iso"


@dataclass(frozen=True, slots=True)
class _Options:
    folder: Path
    must_exist: bool
    pattern: str
    slots: int


class IsoExport(Exporter):
    """The driver ``iso``. Options: ``folder``, ``must_exist``, ``slots`` and ``pattern`` (of file_set_id, volume,
    volumes, copy, job)."""

    def __init__(self, name: str, options: Mapping[str, Any], *, data: Path) -> None:
        checked = _check(options, data)
        super().__init__(name, checked.slots)
        self._folder = checked.folder
        self._place = Place(checked.folder, data)
        self._must_exist = checked.must_exist
        self._pattern = checked.pattern

    @classmethod
    def example(cls, folder: Path) -> dict[str, Any]:
        return {"folder": str(folder), "pattern": "{file_set_id}_{copy}.iso"}

    def probe(self) -> DriverStatus:
        try:
            self._place.require()
            if not self._must_exist:
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
        final = self._folder / file_name(self._pattern, order)
        try:
            self._place.require()
            if not self._must_exist:
                self._folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self._folder).free
        except OSError as error:
            raise BurnRefused(f"folder {self._folder}: {error.strerror}") from error
        if os.path.lexists(final):
            raise BurnRefused(f"{final} exists already and is not ours; nothing is ever overwritten")
        need = order.sectors * SECTOR
        if free < need + SPARE_BYTES:
            raise BurnRefused(f"folder {self._folder} has {free} bytes free; the image needs {need}")
        return {
            "final": str(final),
            # The UID keeps installations apart that share a folder and happen to use the same names.
            "mark": f"{hashlib.sha256(order.file_set_uid.encode()).hexdigest()[:12]}-{order.disc}",
            "volume_id": order.file_set_id,
            "size": need,
        }

    def _found(self, ticket: Ticket) -> BurnReport:
        final = Path(ticket["final"])
        if trouble := self._place.trouble():
            return BurnReport(BurnState.WAITING, message=f"folder {trouble}")
        if not os.path.lexists(final):
            return BurnReport(BurnState.UNKNOWN, device_free=True)
        if not _is_ours(final, ticket):
            reason = f"{final} exists and is not the image of {ticket['volume_id']}; nothing is ever overwritten"
            return BurnReport(BurnState.FAILED, message=reason, device_free=True)
        return BurnReport(BurnState.BURNT, 1.0, image=final, device_free=True)

    def _put_away(self, ticket: Ticket, outcome: Outcome) -> str:
        final = Path(ticket["final"])
        if outcome is Outcome.GOOD:
            return str(final)
        if not (os.path.lexists(final) and _is_ours(final, ticket)):
            return ""
        if outcome is Outcome.CANCELLED:
            final.unlink(missing_ok=True)
            sync_folder(final.parent)
            return ""
        return str(set_aside(final))

    def _remove_leftovers(self, ticket: Ticket) -> None:
        for path in leftovers(ticket):
            path.unlink(missing_ok=True)

    def _write(self, order: BurnOrder, ticket: Ticket, writer: Writer) -> BurnReport:
        self._place.require()
        self._remove_leftovers(ticket)
        final, temporary = Path(ticket["final"]), temporary_name(ticket, order.epoch)
        if os.path.lexists(final) and _is_ours(final, ticket):
            return BurnReport(BurnState.BURNT, 1.0, image=final, device_free=True)
        size: int = ticket["size"]
        image = planned_image(order, size // SECTOR, ticket["volume_id"])
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        try:
            digest = image.write(Sink(descriptor).write, writer.progress, writer.abandon.is_set)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if writer.abandon.is_set():
            return BurnReport(BurnState.CANCELLED, message="cancelled", device_free=True)
        if not order.may_publish(digest):
            return BurnReport(BurnState.UNKNOWN, message="another claim on this disc came meanwhile", device_free=True)
        try:
            publish(temporary, final)
        except FileExistsError:
            # A node that was thought dead published the same image, byte for byte, a moment before.
            if not _is_ours(final, ticket):
                raise
            temporary.unlink(missing_ok=True)
        return BurnReport(BurnState.BURNT, 1.0, image=final, sha256=digest, device_free=True)


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


def _check(options: Mapping[str, Any], data: Path) -> _Options:
    """Check all options; raises BurnerOptionsError that lists every fault."""
    faults = check_common(options, known=_KNOWN, pattern=_PATTERN, what="images")
    must_exist = options.get("must_exist", False)
    if not isinstance(must_exist, bool):
        faults.append(f"must_exist: {must_exist!r} is neither true nor false")
    raise_faults(faults)
    folder = data / Path(options["folder"]).expanduser()
    return _Options(folder, must_exist, str(options.get("pattern", _PATTERN)), int(options.get("slots", 1)))
