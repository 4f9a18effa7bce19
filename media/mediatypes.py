"""Media types: the rows of config/mediatypes.toml, and how much of a medium a plan may use."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from math import ceil
from types import MappingProxyType

from media.problems import MediaError

FAMILIES = ("CD", "DVD", "BD", "FOLDER")


@dataclass(frozen=True, slots=True)
class MediaType:
    """A kind of blank. Sectors have 2,048 bytes."""

    name: str
    family: str
    """``CD``, ``DVD``, ``BD``, or ``FOLDER``: a mounted file system that takes plain files."""
    sectors: int
    """What a plan counts on, before any reserve."""
    nominal_sectors: int
    """What the kind is specified with."""
    annex: str
    """Annex of PS3.12."""
    file_system: str
    note: str
    """What users must be told, e.g. in README.TXT; empty when nothing is missing."""

    def usable_sectors(self, *, reserve_percent: float, reserve_sectors: int) -> int:
        """Sectors of an image that may be put on it: a safety reserve of the larger of the two is kept free.

        Raises MediaError when the reserve leaves nothing.
        """
        reserve = max(ceil(self.sectors * reserve_percent / 100), reserve_sectors, 0)
        if reserve >= self.sectors:
            raise MediaError(f"A reserve of {reserve} sectors leaves nothing of a {self.name} of {self.sectors}.")
        return self.sectors - reserve


@cache
def media_types() -> Mapping[str, MediaType]:
    """Every media type by its name."""
    text = resources.files("config").joinpath("mediatypes.toml").read_text(encoding="utf-8")
    return MappingProxyType({name: MediaType(name=name, **row) for name, row in tomllib.loads(text).items()})


def media_type(name: str) -> MediaType:
    """The media type of this name, in any case. Raises MediaError that lists the names there are."""
    types = media_types()
    found = types.get(name.upper())
    if found is None:
        raise MediaError(f"There is no medium {name!r}; known are {', '.join(types)}.")
    return found
