"""A drive with scratched discs: what a real one answers for sectors that it cannot read."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from pathlib import Path

from media.device import SECTOR, Device


class FaultyDrive(Device):
    """An image as a drive shows it: these sectors cannot be read, and some sectors come behind the image."""

    def __init__(self, path: Path, bad: Iterable[int] = (), *, run_out: int = 0) -> None:
        super().__init__(path)
        self.bad = frozenset(bad)
        self.is_drive = True
        self.tries: list[tuple[int, int]] = []
        """Offset and length of each read."""
        self._image = self.size
        self.size += run_out * SECTOR

    def _check(self, offset: int, length: int) -> None:
        self.tries.append((offset, length))
        sectors = range(offset // SECTOR, -(-(offset + length) // SECTOR))
        if any(sector in self.bad for sector in sectors) or offset + length > self._image:
            raise OSError(errno.EIO, "Input/output error")

    def read_at(self, offset: int, count: int) -> bytes:
        self._check(offset, count)
        return super().read_at(offset, count)

    def read_into(self, room: memoryview, offset: int) -> int:
        self._check(offset, len(room))
        return super().read_into(room, offset)
