"""Noticing that a folder's file system is not mounted: its mount point is an empty folder then, as good as any other.

What is written there fills the wrong disk, and is hidden as soon as the right one is mounted again. So it is remembered
below the data folder where the file system of a folder was mounted when it was first used.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

_MEMORY = "places"


class Place:
    """A folder that may lie on a file system of its own. ``data`` is the data folder."""

    def __init__(self, folder: Path, data: Path) -> None:
        self._folder = folder
        self._data = data
        self._file = data / _MEMORY / f"{hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:16]}.json"
        self._known: Path | None = None

    def trouble(self) -> str:
        """Why the folder is not to be used now; empty where nothing speaks against it."""
        try:
            self.require()
        except OSError as error:
            return f"{self._folder}: {error.strerror}"
        return ""

    def require(self) -> None:
        """Raises OSError (ENODEV) where the file system that the folder was on is not mounted."""
        real, mount = Path(os.path.realpath(self._folder)), mount_of(self._folder)
        known = self._known or self._remembered()
        if known is not None and known in (real, *real.parents) and mount in known.parents:
            words = f"the file system that was mounted at {known} is not (if that is meant, remove {self._file})"
            raise OSError(errno.ENODEV, words, str(self._folder))
        if known != mount:
            self._remember(mount)
        self._known = mount

    def _remembered(self) -> Path | None:
        with suppress(OSError, ValueError, KeyError, TypeError):
            return Path(json.loads(self._file.read_text("utf-8"))["mount"])
        return None

    def _remember(self, mount: Path) -> None:
        """Not what lies where the data folder does: were that gone, so would be the memory."""
        if mount == mount_of(self._data):
            with suppress(OSError):
                self._file.unlink(missing_ok=True)
            return
        part = self._file.with_name(f".{self._file.name}.{os.getpid()}")
        with suppress(OSError):  # a data folder that cannot be written to is others' to tell of
            self._file.parent.mkdir(exist_ok=True)
            part.write_text(json.dumps({"folder": str(self._folder), "mount": str(mount)}) + "\n", "utf-8")
            part.replace(self._file)


def mount_of(folder: Path) -> Path:
    """Where the file system is mounted that holds a folder, or that would hold it."""
    place = Path(os.path.realpath(folder))
    while not os.path.ismount(place) and place != place.parent:
        place = place.parent
    return place
