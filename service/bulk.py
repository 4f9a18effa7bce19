"""Many discs one after the other: folders of images, mounted discs, and drives whose disc somebody changes."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from media.device import SECTOR, Device
from media.problems import MediaError
from media.trees import canonical, of_the_system

_SUFFIXES = (".iso", ".img", ".udf", ".bin")
_DEPTH = 4
"""Folders in folders that are looked through; an autoloader has a folder for each batch."""
_LOOK_SECONDS = 1.0

Signature = tuple[object, ...]


def media_in(path: Path) -> Iterator[Path]:
    """The media at a path: itself, where it is an image, a device or a file-set, else those in the folder and below.

    Files that are no image are passed over, unless their name says that they should be one. Links to folders are not
    followed.
    """
    if not path.is_dir() or _has_directory(path):
        yield path
        return
    yield from _below(path, _DEPTH)


def _below(folder: Path, depth: int) -> Iterator[Path]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        path = Path(entry.path)
        if entry.name.startswith("."):
            continue  # what is being written, as our own driver iso names it
        if entry.is_dir(follow_symlinks=False):
            if _has_directory(path):
                yield path
            elif depth > 1 and not of_the_system(entry.name):
                yield from _below(path, depth - 1)
        elif entry.is_file() and (path.suffix.lower() in _SUFFIXES or _is_image(path)):
            yield path


def _has_directory(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(canonical(entry.name) == "DICOMDIR" for entry in entries)
    except OSError:
        return False


def _is_image(path: Path) -> bool:
    """Whether a file has a volume descriptor of ISO 9660 where one belongs."""
    try:
        with path.open("rb") as file:
            file.seek(16 * SECTOR)
            return file.read(6)[1:] == b"CD001"
    except OSError:
        return False


def discs(
    paths: Sequence[Path],
    *,
    watch: float = 0.0,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Path]:
    """Each medium at the paths, once. ``watch``: go on until no new one has come for so many seconds.

    A drive's disc is a new one when its volume descriptors are others, or when the drive was empty meanwhile; an image
    when its file is another. While watching, a file is taken only when it has stopped growing.
    """
    if not watch:
        for path in paths:
            yield from media_in(path)
        return
    done: dict[Path, Signature] = {}
    growing: dict[Path, Signature] = {}
    last = clock()
    while clock() - last < watch:
        now: dict[Path, Signature] = {}
        for path in _all(paths):
            signature = _signature(path)
            if signature is None:
                done.pop(path, None)  # taken out: the next one is new, even if it is the same
                continue
            now[path] = signature
            if done.get(path) == signature:
                continue
            if not stat.S_ISBLK(path.stat().st_mode) and growing.get(path) != signature:
                last = clock()
                continue
            done[path] = signature
            yield path
            last = clock()
        growing = now
        sleep(min(_LOOK_SECONDS, watch / 4))


def _all(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        yield from media_in(path)


def _signature(path: Path) -> Signature | None:
    """What tells one medium at a place from the next; None: there is none now."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            with os.scandir(path) as entries:
                for entry in entries:
                    if canonical(entry.name) == "DICOMDIR":
                        of = entry.stat()
                        return (of.st_dev, of.st_ino, of.st_size, of.st_mtime_ns)
            return None
        if stat.S_ISREG(status.st_mode):
            return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        device = Device(path)
        try:
            if not device.size:
                return None  # a drive or card reader without a medium
            device.drop_cache()
            return (device.size, hashlib.sha256(device.read_at(16 * SECTOR, 4 * SECTOR)).digest())
        finally:
            device.close()
    except (OSError, MediaError):
        return None
