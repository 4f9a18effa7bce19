"""How full the spool is: by its file system, as ``df`` counts, and by the bytes that it may hold."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select

from store.db import Database
from store.models import Instance
from store.spool import Spool


@dataclass(frozen=True, slots=True)
class Level:
    """How much of what is used."""

    used: int
    """Bytes of the file system, whoever has them."""
    usable: int
    held: int
    """Bytes that the spool holds by our tables; 0 where no limit wants to know."""
    limit: int
    """Bytes that it may hold; 0: no limit."""

    @property
    def percent(self) -> float:
        """Of the file system or of the limit, whichever is nearer to being full."""
        of_disk = 100 * self.used / self.usable if self.usable else 100.0
        return max(of_disk, 100 * self.held / self.limit if self.limit else 0.0)

    def above(self, percent: float) -> int:
        """Bytes to be freed until both are at ``percent``."""
        return max(0, int(self.used - self.usable * percent / 100), int(self.held - self.limit * percent / 100))


def level(db: Database, spool: Spool) -> Level:
    """How full the spool is now."""
    folder = spool.root
    while not folder.exists():  # nothing was received yet
        folder = folder.absolute().parent
    used, usable = _disk(folder)
    held = 0
    if spool.max_bytes:
        with db.read() as session:
            query = select(func.sum(Instance.file_bytes)).where(Instance.spool_path.is_not(None))
            held = int(session.scalar(query) or 0)
    return Level(used, usable, held, spool.max_bytes)


def _disk(folder: Path) -> tuple[int, int]:
    """Bytes used, and bytes that we could use at all."""
    fs = os.statvfs(folder)
    used = fs.f_blocks - fs.f_bfree
    return used * fs.f_frsize, (used + fs.f_bavail) * fs.f_frsize
