"""What a disc of ours tells of itself for people: README.TXT, its dates, and VOLUMES.TXT where it has one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from media.ecc import Layout
from media.problems import MediaError
from media.setcatalogue_read import SetCatalogue
from media.trees import FileTree, IsoTree

_VOLUME = re.compile(r"^Volume: +(\d{1,4}) of +(\d{1,4})$", re.MULTILINE)
_CREATED = re.compile(r"^Created: +(\d{4}-\d\d-\d\d \d\d:\d\d) UTC$", re.MULTILINE)
_NAMED = r"^{}: +(.*(?:\n {{15}}.*)*)$"


@dataclass(slots=True)
class DiscFacts:
    """What a disc says; empty where it does not."""

    number: int = 1
    of: int = 1
    created: datetime | None = None
    profile: str = ""
    medium: str = ""
    site: str = ""
    iso_sectors: int = 0
    sectors: int = 0
    """With error-correction data."""
    protection: Layout | None = None


def volume_date(tree: FileTree) -> datetime | None:
    """Volume Creation Date and Time of an image (ECMA-119 8.4.26.1)."""
    if not isinstance(tree, IsoTree):
        return None
    try:
        field_ = tree.volume.read_at(tree.volume.first_descriptor + 813, 17)
        digits = field_[:14].decode("ascii")
        made = datetime.strptime(digits, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
        return made if len(field_) == 17 and field_[16] == 0 else None
    except (OSError, ValueError, MediaError):
        return None


def from_set(found: DiscFacts, catalogue: SetCatalogue) -> None:
    facts = catalogue.facts
    found.number, found.of, found.created = catalogue.volume.number, catalogue.of, facts.created
    found.profile, found.medium, found.site = facts.profile, facts.medium, facts.site
    found.iso_sectors = catalogue.sectors
    found.sectors = catalogue.sectors
    if catalogue.protection is not None:
        by = catalogue.protection
        found.protection = Layout(by.method, catalogue.sectors, by.roots, by.sectors)
        found.sectors = by.sectors


def from_readme(found: DiscFacts, readme: bytes, made: datetime | None) -> None:
    """What README.TXT says, which is written for people: its times have no seconds."""
    text = readme.decode("utf-8", "replace").replace("\r\n", "\n")
    text = text.partition("\nCONTENTS\n")[0]
    if volume := _VOLUME.search(text):
        found.number, found.of = max(1, int(volume[1])), max(1, int(volume[2]))
        found.number = min(found.number, found.of)
    found.created = made
    if found.created is None and (created := _CREATED.search(text)):
        try:
            found.created = datetime.strptime(created[1], "%Y-%m-%d %H:%M").replace(tzinfo=UTC)
        except ValueError:
            found.created = None
    found.profile, found.medium, found.site = (_said(text, name)[:64] for name in ("Profile", "Medium", "Institution"))


def _said(text: str, label: str) -> str:
    said = re.search(_NAMED.format(label), text, re.MULTILINE)
    return " ".join(said[1].split()) if said else ""
