"""What lies in a folder or drive, whether it has come to rest there, and which medium it is.

A unit is what is dealt with as one: a disc image, a file-set in a folder, any other folder, a single file, the disc in
a drive. What is still being written is told by its signature, which changes; which medium it is, by its identity, which
does not change with name, place and time.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from media.device import SECTOR, Device
from media.isoread import IsoVolume
from media.problems import MediaError
from media.trees import FileTree, canonical, of_the_system

_DIRECTORY = "DICOMDIR"
_UNFINISHED = (".part", ".partial", ".tmp", ".temp", ".filepart", ".crdownload", ".download", ".swp", "~")
"""Names under which programs write what they rename when it is whole."""
_SUFFIXES = (".iso", ".img", ".udf", ".bin")
_DEPTH = 16
_MANY = 500_000
_DESCRIPTORS = 16 * SECTOR
_HEAD = 1 << 20


class Unreadable(Exception):
    """A unit is there but cannot be looked at; the text says why."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Something that lies at a watched place."""

    path: Path
    kind: str
    """``image``, ``folder``, ``file`` or ``drive``."""
    signature: str
    """Another one as soon as anything of it was written, by size and time; of a drive's disc by its descriptors."""
    bytes: int


def units(place: Path, ignored: Collection[str] = ()) -> Iterator[Unit]:
    """What lies at a place, in the order of names; ``ignored``: names in it that are passed over.

    A folder with a DICOMDIR is one unit itself (a mounted disc). Of another folder each image, folder and file is one;
    images further below are units of their own. Hidden names, those of unfinished downloads and links are passed over.
    Raises Unreadable where the place itself cannot be looked at; a place that is not there has no unit.
    """
    try:
        mode = place.stat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise Unreadable(f"{place}: {error.strerror or error}") from error
    if not stat.S_ISDIR(mode):
        if (unit := _drive(place)) is not None:
            yield unit
        return
    try:
        with os.scandir(place) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise Unreadable(f"{place}: {error.strerror or error}") from error
    if any(canonical(entry.name) == _DIRECTORY and entry.is_file(follow_symlinks=False) for entry in entries):
        yield from _folder(place)
        return
    for entry in entries:
        if entry.name in ignored or _passed_over(entry.name) or of_the_system(entry.name):
            continue
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from _folder(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                yield _file(Path(entry.path), entry.stat(follow_symlinks=False))
        except FileNotFoundError:
            continue  # it went away while we looked


def _passed_over(name: str) -> bool:
    return name.startswith(".") or name.lower().endswith(_UNFINISHED)


def _file(path: Path, status: os.stat_result) -> Unit:
    kind = "image" if is_image(path) or path.suffix.lower() in _SUFFIXES else "file"
    return Unit(path, kind, _digest([(path.name, status)]), status.st_size)


def _folder(folder: Path) -> Iterator[Unit]:
    """The images in a folder and below, and the folder with all that is left, if anything is."""
    left: list[tuple[str, os.stat_result]] = []
    unfinished = False
    pending = [(folder, 0)]
    while pending:
        current, depth = pending.pop()
        try:
            with os.scandir(current) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            left.append((f"{current.relative_to(folder)}/?", folder.stat()))
            continue
        for entry in entries:
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                if depth < _DEPTH and not entry.name.startswith("."):
                    pending.append((path, depth + 1))
            elif entry.is_file(follow_symlinks=False):
                if _passed_over(entry.name):
                    unfinished |= not entry.name.startswith(".")
                    continue
                status = entry.stat(follow_symlinks=False)
                if path.suffix.lower() in _SUFFIXES and is_image(path):
                    yield _file(path, status)
                elif len(left) < _MANY:
                    left.append((path.relative_to(folder).as_posix(), status))
    if left:
        # A file that is to get its name yet is part of what comes: the folder is not at rest before.
        signature = _digest(left) + ("+" if unfinished else "")
        yield Unit(folder, "folder", signature, sum(status.st_size for _, status in left))


def _drive(path: Path) -> Unit | None:
    """The disc in a drive; None: there is none. A file that stands for one is treated alike."""
    try:
        device = Device(path)
    except MediaError:
        return None
    try:
        if not device.size:
            return None
        descriptors = device.read_at(device.session_start * SECTOR + _DESCRIPTORS, 4 * SECTOR)
        status = path.stat()
        of = (device.size, 0, 0) if device.is_drive else (device.size, status.st_ino, status.st_mtime_ns)
        return Unit(path, "drive", hashlib.sha256(repr(of).encode() + descriptors).hexdigest(), device.size)
    except OSError:
        return None  # no medium, or one that cannot be read at all
    finally:
        device.close()


def is_image(path: Path) -> bool:
    """Whether a file has a volume descriptor where ISO 9660 or UDF want one, and no DICOM prefix."""
    try:
        with path.open("rb") as file:
            file.seek(128)
            if file.read(6) == b"DICM\x02\x00":
                return False
            file.seek(_DESCRIPTORS)
            return file.read(6)[1:] in (b"CD001", b"BEA01")
    except OSError:
        return False


def _digest(files: list[tuple[str, os.stat_result]]) -> str:
    digest = hashlib.sha256()
    for name, status in sorted(files, key=lambda pair: pair[0]):
        of = (name, status.st_size, status.st_mtime_ns, status.st_ino)
        digest.update(repr(of).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def why_not_yet(unit: Unit) -> str:
    """Why a unit that does not change any more cannot be whole all the same; empty: nothing says so.

    An image is as long as its volume says; all of it must be there to be opened.
    """
    if unit.signature.endswith("+"):
        return "a file in it still has the name of an unfinished one"
    try:
        if unit.kind == "image":
            with IsoVolume(unit.path) as volume:
                if volume.volume_size > volume.image_size:
                    return f"it has {volume.image_size} bytes, and its volume says {volume.volume_size}"
        elif unit.kind == "file":
            unit.path.open("rb").close()
        elif unit.kind == "folder":
            for folder, _, names in os.walk(unit.path):
                for name in names:
                    if not os.access(file := Path(folder) / name, os.R_OK):
                        return f"{file} may not be read"
    except MediaError:
        return ""  # what is wrong with it is for others to say
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"
    return ""


def identity_of(tree: FileTree) -> str:
    """64 hex digits that tell this medium from others whatever its name, place and time: its files' names and sizes,
    and its directory. Copies of one volume have the same.
    """
    digest = hashlib.sha256()
    for name in sorted(tree.files):
        digest.update(repr((name, tree.files[name].size)).encode())
    for name in (_DIRECTORY, *sorted(tree.files)[:8]):
        if name in tree.files:
            try:
                with tree.open(name) as stream:
                    digest.update(stream.read(_HEAD))
            except OSError:
                digest.update(b"?")
    return digest.hexdigest()


def identity_of_file(path: Path) -> str:
    """The same of a single file, by its size, beginning and end. Raises OSError."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        digest = hashlib.sha256(repr(size).encode())
        for start in (0, max(0, size - _HEAD)):
            file.seek(start)
            digest.update(file.read(_HEAD))
    return digest.hexdigest()
