"""The bytes of a disc image or block device, read by their place: the one door through which media are read.

A test, or a drive that wants other calls than these, puts a class of its own behind it: whatever raises OSError for a
place cannot be read there, and reading goes on behind it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

from media.problems import FileSetInvalid

SECTOR = 2048
_MULTISESSION = 0x5310
_BY_SECTOR = 1


class Device:
    """An image file or block device, open for reading. Raises FileSetInvalid where it is neither."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            mode = path.stat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
                raise FileSetInvalid(f"{path}: is neither a file nor a block device")  # a pipe would be waited for
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise FileSetInvalid(f"{path}: cannot be opened: {error.strerror or error}") from error
        self.is_drive = stat.S_ISBLK(mode)
        """A drive may show more than the image that was burnt."""
        self.session_start = last_session(self._file.fileno()) if self.is_drive else 0
        """Sector at which the last session of the disc in a drive begins; its volume is the one that counts."""
        try:
            self.size = self._file.seek(0, os.SEEK_END)
            """Bytes that can be read, as far as the system says."""
        except OSError as error:
            self._file.close()
            raise FileSetInvalid(f"{path}: cannot be read: {error.strerror or error}") from error

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to ``count`` bytes; fewer at the end. Raises OSError where the device cannot read."""
        return os.pread(self._file.fileno(), count, offset)

    def read_into(self, room: memoryview, offset: int) -> int:
        """Fill ``room`` from ``offset``; returns how many bytes that were, 0 at the end. Raises OSError as above."""
        return os.preadv(self._file.fileno(), [room], offset)

    def drop_cache(self) -> None:
        """Have later reads come from the medium. Does nothing where the system has no such advice."""
        drop_from_cache(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def last_session(descriptor: int) -> int:
    """First sector of a disc's last session (``CDROMMULTISESSION``, linux/cdrom.h); 0: there is one, or no drive."""
    question = bytearray(struct.pack("=iBBxx", 0, 0, _BY_SECTOR))
    try:
        fcntl.ioctl(descriptor, _MULTISESSION, question)
    except OSError:
        return 0
    start, is_multisession, _ = struct.unpack("=iBBxx", question)
    return max(0, int(start)) if is_multisession else 0


def drop_from_cache(descriptor: int) -> None:
    """Have later reads of an open file come from its device. Does nothing where the system has no such advice."""
    with contextlib.suppress(OSError):
        os.fsync(descriptor)  # pages that are still to be written cannot be dropped
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)


Ranges = list[tuple[int, int]]
"""Sector numbers, the first and the last of each stretch, ascending."""


def add_range(ranges: Ranges, first: int, last: int) -> None:
    """Put sectors at the end of ``ranges``, as part of its last stretch where they follow on it."""
    if ranges and first <= ranges[-1][1] + 1:
        ranges[-1] = (ranges[-1][0], max(last, ranges[-1][1]))
    else:
        ranges.append((first, last))


def count_of(ranges: Iterable[tuple[int, int]]) -> int:
    """How many sectors they are."""
    return sum(last - first + 1 for first, last in ranges)


def ranges_text(ranges: Ranges, limit: int = 10) -> str:
    """``sectors 5, 7 to 9``; after ``limit`` of them how many more there are."""
    shown = ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in ranges[:limit])
    more = f" and {len(ranges) - limit} further stretches" if len(ranges) > limit else ""
    return f"{'sector' if count_of(ranges) == 1 else 'sectors'} {shown}{more}"
