"""What the IOD of a SOP class does not leave to a codec, as rows of config/pixels.toml."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True, slots=True)
class PixelLimits:
    """The limits of one SOP class."""

    never_lossy: bool
    """Its samples are measures or labels."""
    original_only: bool
    """It has attributes that only ORIGINAL images may have."""
    fixed_rescale: bool
    """Its samples are neither shifted nor divided."""
    sixteen_bits: bool
    """Bits Allocated is 16."""
    filled_cells: bool
    """Bits Stored is Bits Allocated."""

    @property
    def may_lose(self) -> bool:
        """Whether lossy compression is possible at all."""
        return not self.never_lossy and not self.original_only


@cache
def _table() -> dict[str, frozenset[str]]:
    rows = tomllib.loads(resources.files("config").joinpath("pixels.toml").read_text("utf-8"))
    return {name: frozenset(classes) for name, classes in rows.items()}


@cache
def pixel_limits(sop_class_uid: str) -> PixelLimits:
    """The limits of a SOP class; none for one that the table does not name."""
    return PixelLimits(**{name: sop_class_uid in classes for name, classes in _table().items()})
