"""Folder target: a volume as plain files on a USB stick, memory card, MOD or DVD-RAM that the system has mounted.

A volume in a folder of its own is written beside it under a hidden name, fsynced file by file, and renamed as a whole.
In the root of a medium that cannot be; there the top-level names are renamed one by one out of a hidden folder, and
the DICOMDIR last of all, so that no moment shows a file-set that can be read and is not complete (PS3.10 8.6). A list
of the names, kept beside until the end, lets a later run take back what a crash left.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from burners.base import BurnOrder, BurnRefused, BurnReport, BurnState, DriverState, DriverStatus, Outcome, Ticket
from burners.exporting import (
    SECTOR,
    SPARE_BYTES,
    Exporter,
    Sink,
    Writer,
    check_common,
    file_name,
    leftovers,
    raise_faults,
    set_aside,
    temporary_name,
)
from burners.publish import file_system_of, publish, sync_folder
from media.iso9660 import IsoImage, WriteCancelled
from media.items import DiscFile
from media.mounts import Place
from media.problems import MediaError
from media.trees import FolderTree, of_the_system

_KNOWN = ("folder", "root", "file_system", "pattern", "slots")
_PATTERN = "{file_set_id}_{copy}"
_DIRECTORY = "DICOMDIR"
_MANIFEST = "MANIFEST.TXT"
_CHUNK = 1 << 20
_FAT_HOSTILE = re.compile(r'[\x00-\x1f"*/:<>?\\|]|[. ]$')
_DEVICE = re.compile(r"(CON|PRN|AUX|NUL|COM[0-9]|LPT[0-9])(\..*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Options:
    folder: Path
    root: bool
    file_system: str
    pattern: str
    slots: int


class FolderTarget(Exporter):
    """The driver ``folder``. Options: ``folder``, ``root``, ``file_system``, ``pattern``, ``slots``."""

    families: ClassVar[frozenset[str]] = frozenset(("FOLDER",))

    def __init__(self, name: str, options: Mapping[str, Any], *, data: Path) -> None:
        self._options = _check(options, data)
        self._medium = Place(self._options.folder, data)
        super().__init__(name, self._options.slots)

    @classmethod
    def example(cls, folder: Path) -> dict[str, Any]:
        folder.mkdir(parents=True, exist_ok=True)
        return {"folder": str(folder)}

    def probe(self) -> DriverStatus:
        folder = self._options.folder
        try:
            free = self._free()
        except BurnRefused as error:
            return DriverStatus(self.name, "folder", DriverState.OFFLINE, str(error))
        supplies = {"free_bytes": free, "slots": self.slots, "file_system": file_system_of(folder)}
        return DriverStatus(self.name, "folder", DriverState.READY, f"folder {folder}", supplies)

    def prepare(self, order: BurnOrder) -> Ticket:
        folder, need = self._options.folder, order.sectors * SECTOR
        free = self._free()
        if self._options.root:
            final = folder / _DIRECTORY
            foreign = _foreign(folder)
            if foreign:
                raise BurnRefused(f"{folder} is not empty ({foreign[0]}); put in an empty medium and retry")
        else:
            final = folder / file_name(self._options.pattern, order)
            if os.path.lexists(final):
                raise BurnRefused(f"{final} exists already and is not ours; nothing is ever overwritten")
        if free < need + SPARE_BYTES:
            raise BurnRefused(f"folder {folder} has {free} bytes free; the disc needs {need}")
        return {
            "final": str(final),
            "root": self._options.root,
            # The UID keeps installations apart that share a folder and happen to use the same names.
            "mark": f"{hashlib.sha256(order.file_set_uid.encode()).hexdigest()[:12]}-{order.disc}",
            "volume_id": order.file_set_id,
            "file_set_uid": order.file_set_uid,
            "size": need,
        }

    def _free(self) -> int:
        """Bytes free in the target; BurnRefused where it is not there, or not what the settings say."""
        folder, wanted = self._options.folder, self._options.file_system
        try:
            if not self._options.root:  # else a medium comes and goes
                self._medium.require()
            free = shutil.disk_usage(folder).free
        except OSError as error:
            raise BurnRefused(f"folder {folder}: {error.strerror}") from error
        if wanted and (found := file_system_of(folder)) != wanted:
            raise BurnRefused(f"folder {folder} is on {found or 'an unknown file system'}, not on {wanted}")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise BurnRefused(f"folder {folder} cannot be written to")
        return free

    def _found(self, ticket: Ticket) -> BurnReport:
        final = Path(ticket["final"])
        if not ticket["root"] and (trouble := self._medium.trouble()):
            return BurnReport(BurnState.WAITING, message=f"folder {trouble}")
        if not os.path.lexists(final):
            return BurnReport(BurnState.UNKNOWN, device_free=True)
        if not _is_ours(ticket):
            reason = f"{final} exists and is not that of {ticket['volume_id']}; nothing is ever overwritten"
            return BurnReport(BurnState.FAILED, message=reason, device_free=True)
        if ticket["root"]:  # what a crash after the last rename left would count as a part of the file-set
            with suppress(OSError):
                self._remove_leftovers(ticket)
        return BurnReport(BurnState.BURNT, 1.0, image=_place(ticket), device_free=True)

    def _put_away(self, ticket: Ticket, outcome: Outcome) -> str:
        final = Path(ticket["final"])
        if outcome is Outcome.GOOD:
            return str(_place(ticket))
        if not (os.path.lexists(final) and _is_ours(ticket)):
            return ""
        if outcome is Outcome.BAD:
            return str(set_aside(final))
        _remove(ticket)
        return ""

    def _remove_leftovers(self, ticket: Ticket) -> None:
        if ticket["root"] and "epoch" not in ticket and not os.path.lexists(ticket["final"]):
            waiting = {name for path in leftovers(ticket) for name in os.listdir(path)}  # noqa: PTH208
            for name in _listed(ticket):
                if name not in waiting:  # else what has this name in the root is not ours
                    _remove_tree(_place(ticket) / name)
        for path in leftovers(ticket):
            _remove_tree(path)
        if ticket["root"] and "epoch" not in ticket:
            _list_of(ticket).unlink(missing_ok=True)

    def _write(self, order: BurnOrder, ticket: Ticket, writer: Writer) -> BurnReport:
        final, temporary = Path(ticket["final"]), temporary_name(ticket, order.epoch)
        self._remove_leftovers(ticket)
        if os.path.lexists(final) and _is_ours(ticket):
            return BurnReport(BurnState.BURNT, 1.0, image=_place(ticket), device_free=True)
        image = order.open_image()
        if image.sectors * SECTOR != ticket["size"] or image.volume_id != ticket["volume_id"]:
            raise BurnRefused(
                f"the volume became {image.volume_id} with {image.sectors} sectors; "
                f"planned were {ticket['volume_id']} with {ticket['size'] // SECTOR}"
            )
        files = image.files
        _check_names(files)
        free, need = self._free(), _need(self._options.folder, files)
        if free < need:
            raise BurnRefused(f"folder {self._options.folder} has {free} bytes free; {len(files)} files need {need}")
        self._write_files(files, temporary, writer)
        if not order.may_publish(None):  # an image's digest means nothing here
            return BurnReport(BurnState.UNKNOWN, message="another claim on this disc came meanwhile", device_free=True)
        try:
            if ticket["root"]:
                try:
                    _publish_root(ticket, temporary)
                except OSError:
                    self._remove_leftovers(ticket)
                    raise
            else:
                publish(temporary, final)
        except FileExistsError:
            # A node that was thought dead published the same volume a moment before.
            if not _is_ours(ticket):
                raise
            _remove_tree(temporary)
        return BurnReport(BurnState.BURNT, 1.0, image=_place(ticket), sha256=_digest(files), device_free=True)

    def _write_files(self, files: Sequence[DiscFile], temporary: Path, writer: Writer) -> None:
        """Write all files below ``temporary`` and make them durable."""
        temporary.mkdir(mode=0o750)
        done = 0
        for file in files:
            done = _copy(file, temporary.joinpath(*file.file_id), writer, done)
        for file in files:  # most of their pages are on their way by now
            if writer.abandon.is_set():
                raise WriteCancelled("Writing the files was cancelled.")
            descriptor = os.open(temporary.joinpath(*file.file_id), os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        for folder, _, _ in os.walk(temporary, topdown=False):
            sync_folder(Path(folder))
        if writer.abandon.is_set():
            raise WriteCancelled("Writing the files was cancelled.")


def _copy(file: DiscFile, target: Path, writer: Writer, done: int) -> int:
    """Write one file, checking its size and digest; returns the bytes written so far. MediaError names the file."""
    target.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    digest, left = hashlib.sha256(), file.size
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
    try:
        sink = Sink(descriptor)
        for chunk in _chunks(file):
            if writer.abandon.is_set():
                raise WriteCancelled("Writing the files was cancelled.")
            digest.update(chunk)
            left -= len(chunk)
            done += sink.write(chunk)
            writer.progress(done)
    finally:
        os.close(descriptor)
    if left or (file.sha256 and digest.hexdigest() != file.sha256):
        raise MediaError(
            f"{file.path}: its source has changed: {file.size - left} bytes with SHA-256 {digest.hexdigest()}, "
            f"not {file.size} with {file.sha256}."
        )
    return done


def _chunks(file: DiscFile) -> Iterator[bytes]:
    if isinstance(file.source, bytes):
        yield file.source
        return
    try:
        with file.source.open("rb", buffering=0) as source:
            while chunk := source.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise MediaError(f"{file.path}: cannot read its source {file.source}: {error.strerror or error}.") from error


def _check_names(files: Sequence[DiscFile]) -> None:
    """BurnRefused for a name that FAT cannot hold, or means a device by on some systems."""
    for file in files:
        for component in file.file_id:
            if not component or _FAT_HOSTILE.search(component) or _DEVICE.fullmatch(component):
                raise BurnRefused(f"{file.path}: {component!r} cannot be a file's name on FAT")


def _need(folder: Path, files: Sequence[DiscFile]) -> int:
    """Bytes that the files take, each rounded up to clusters, with one cluster or more for each folder."""
    cluster = max(512, os.statvfs(folder).f_frsize)
    entries: dict[tuple[str, ...], int] = {}
    for file in files:
        for depth in range(1, len(file.file_id) + 1):
            entries.setdefault(file.file_id[: depth - 1], 0)
        entries[file.file_id[:-1]] += 1
    folders = sum(-(-(count + 2) * 64 // cluster) for count in entries.values())
    return (folders + sum(-(-file.size // cluster) for file in files)) * cluster


def _digest(files: Sequence[DiscFile]) -> str | None:
    return next((file.sha256 for file in files if file.path == _MANIFEST), None)


def _place(ticket: Ticket) -> Path:
    """The folder that is the file-set's root."""
    final = Path(ticket["final"])
    return final.parent if ticket["root"] else final


def _foreign(folder: Path) -> list[str]:
    """What lies in the root of a medium, apart from what systems put there and from hidden names of ours."""
    with os.scandir(folder) as entries:
        return sorted(
            entry.name
            for entry in entries
            if not of_the_system(entry.name) and not entry.name.startswith(f".{_DIRECTORY}.")
        )


def _is_ours(ticket: Ticket) -> bool:
    """A folder with this file-set's UID whose files would fill an image of exactly the planned size.

    The name was free when the ticket was made. Whether every byte is right is for the verification to say.
    """
    place = _place(ticket)
    if place.is_symlink() and not ticket["root"]:
        return False
    try:
        with FolderTree(place) as tree:
            files = [
                DiscFile(tuple(name.split("/")), file.size, "", b"")
                for name, file in tree.files.items()
                if not (ticket["root"] and name.startswith(f".{_DIRECTORY}."))
            ]
            if _DIRECTORY in tree.files:
                with tree.open(_DIRECTORY) as stream:
                    # The Media Storage SOP Instance UID stands within the first elements (PS3.10 7.1, 8.6).
                    if ticket["file_set_uid"].encode("ascii") not in stream.read(1024):
                        return False
        image = IsoImage(files, ticket["volume_id"], datetime(2000, 1, 1, tzinfo=UTC))
    except (MediaError, OSError):
        return False
    return bool(image.sectors * SECTOR == ticket["size"])


def _list_of(ticket: Ticket) -> Path:
    """Holds the top-level names while a file-set is brought into the root of a medium."""
    return _place(ticket) / f".{_DIRECTORY}.{ticket['mark']}.names"


def _listed(ticket: Ticket) -> list[str]:
    try:
        names = _list_of(ticket).read_text("ascii").split("\n")
    except (OSError, UnicodeDecodeError):
        return []
    # Without the last line it was not complete, and nothing was renamed yet.
    return [name for name in names[:-2] if name and "/" not in name] if names[-2:] == ["end", ""] else []


def _publish_root(ticket: Ticket, temporary: Path) -> None:
    root = _place(ticket)
    foreign = _foreign(root)
    if foreign:
        raise FileExistsError(foreign[0])
    names = sorted(os.listdir(temporary), key=lambda name: (name == _DIRECTORY, name))  # noqa: PTH208
    descriptor = os.open(_list_of(ticket), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
    try:
        Sink(descriptor).write(("\n".join([*names, "end"]) + "\n").encode("ascii"))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_folder(root)
    for name in names:
        publish(temporary / name, root / name)
    temporary.rmdir()
    _list_of(ticket).unlink()
    sync_folder(root)


def _remove(ticket: Ticket) -> None:
    """Remove a complete file-set of ours, its DICOMDIR first: nothing half removed looks like one."""
    final = Path(ticket["final"])
    if ticket["root"]:
        names = _foreign(final.parent)
        final.unlink()
        sync_folder(final.parent)
        for name in names:
            _remove_tree(final.parent / name)
    else:
        hidden = temporary_name(ticket, 0)
        publish(final, hidden)
        _remove_tree(hidden)
    sync_folder(final.parent)


def _remove_tree(path: Path) -> None:
    with suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _check(options: Mapping[str, Any], data: Path) -> _Options:
    """Check all options; raises BurnerOptionsError that lists every fault."""
    faults = check_common(options, known=_KNOWN, pattern=_PATTERN, what="files")
    root, file_system = options.get("root", False), options.get("file_system", "")
    pattern = options.get("pattern", _PATTERN)
    if not isinstance(root, bool):
        faults.append(f"root: {root!r} is neither true nor false")
    if root and ("pattern" in options or options.get("slots", 1) != 1):
        faults.append("root: the root of a medium has no name and takes one volume; leave out pattern and slots")
    if not isinstance(file_system, str) or not re.fullmatch(r"[a-z0-9._-]*", file_system):
        faults.append(f"file_system: {file_system!r} is no type of a file system, such as vfat")
    if isinstance(pattern, str) and (_FAT_HOSTILE.search(pattern) or _DEVICE.fullmatch(pattern)):
        faults.append(f"pattern {pattern!r}: FAT does not take such a name")
    raise_faults(faults)
    folder = data / Path(options["folder"]).expanduser()
    return _Options(folder, root, file_system, pattern, int(options.get("slots", 1)))
