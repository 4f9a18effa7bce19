"""What the work of jobs needs, handed down by the composition root."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from config.settings import Settings
from store.audit import Trail
from store.db import Database
from store.spool import Spool


@dataclass(frozen=True, slots=True)
class Context:
    """The settings in force, the open database, the spool."""

    settings: Settings
    db: Database
    spool: Spool

    @property
    def audit(self) -> Trail:
        """Where what people and programs do is told."""
        return Trail(self.spool.node, self.settings.site.institution)

    def derived_path(self, relative: str) -> Path:
        """Absolute path of a file of the derived cache."""
        return self.settings.derived_dir / relative
