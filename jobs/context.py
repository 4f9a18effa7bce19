"""What the work of jobs needs, handed down by the composition root."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from config.settings import Settings
from store.db import Database
from store.spool import Spool


@dataclass(frozen=True, slots=True)
class Context:
    """The settings in force, the open database, the spool."""

    settings: Settings
    db: Database
    spool: Spool

    def derived_path(self, relative: str) -> Path:
        """Absolute path of a file of the derived cache."""
        return self.settings.derived_dir / relative
