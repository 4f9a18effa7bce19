"""File IDs on our discs, counted or random and never hashed (PS3.10 section 8.2 and 8.5), and checks of others'."""

from __future__ import annotations

import random
import re
from collections.abc import Hashable, Iterator

from media.items import Item
from media.problems import MediaError
from media.records import ROOT_RECORDS, TYPES

FOLDER = "DICOM"
"""The folder that holds every instance, as IHE PDI has it."""
MAX_COMPONENTS = 8
_COMPONENT = re.compile(r"[A-Z0-9_]{1,8}")
# What no file system name on a medium may hold, whoever wrote it: separators, device names, control characters.
_HOSTILE = re.compile(r"[\x00-\x1f\x7f-\x9f/\\:*?\"<>|]")


def check_component(component: str) -> bool:
    """Whether it is a File ID component: 1 to 8 of A-Z, 0-9 and underscore (PS3.10 8.2, 8.5)."""
    return _COMPONENT.fullmatch(component) is not None


def hostile_component(component: str) -> bool:
    """Whether a name from a medium must never become part of a path, conforming or not."""
    return not component or component.strip(". ") == "" or _HOSTILE.search(component) is not None


class FileIds:
    """Gives the instances of one volume their File IDs, in the order in which they are asked for.

    ``DICOM/P0000001/ST000001/SE000001/IM000001``: numbers count within the folder above, so the same items in the same
    order always have the same names. Instances whose records stand under the root lie in ``DICOM`` itself.

    ``seed``, the File-set UID, makes the numbers random ones (PS3.11 C.3.3.2): the same seed the same numbers. Names
    are equally long either way.
    """

    def __init__(self, seed: str = "") -> None:
        self._dice = random.Random(seed) if seed else None
        self._taken: set[tuple[str, ...]] = set()
        self._folders: dict[Hashable, tuple[str, ...]] = {(): (FOLDER,)}
        self._counts: dict[Hashable, int] = {}

    def allocate(self, item: Item) -> tuple[str, ...]:
        """The next File ID. MediaError where a folder has no number left."""
        place: tuple[Hashable, ...] = ()
        if item.record_type not in ROOT_RECORDS:
            for level, key in (
                ("PATIENT", item.patient),
                ("STUDY", item.study_instance_uid),
                ("SERIES", item.series_instance_uid),
            ):
                above, place = place, (*place, key)
                if place not in self._folders:
                    self._folders[place] = self._next(above, level)
        return self._next(place, item.record_type)

    def _next(self, place: Hashable, record_type: str) -> tuple[str, ...]:
        folder, prefix = self._folders[place], TYPES[record_type].prefix
        number = self._counts.get(place, 0) + 1
        self._counts[place] = number
        if not may_number(prefix, number):
            raise MediaError(f"{'/'.join(folder)} would hold more entries than File IDs can number")
        if self._dice is None:
            return (*folder, numbered(prefix, number))
        found = next(path for name in random_names(prefix, self._dice) if (path := (*folder, name)) not in self._taken)
        self._taken.add(found)
        return found


def numbered(prefix: str, number: int) -> str:
    """A component of 8 characters: ``IM000001``."""
    return f"{prefix}{number:0{8 - len(prefix)}d}"


def may_number(prefix: str, number: int) -> bool:
    """Whether so many entries of one kind can have names."""
    return len(f"{prefix}{number}") <= 8


def random_names(prefix: str, dice: random.Random) -> Iterator[str]:
    """Names of this kind in no order, without end; some come again."""
    while True:
        yield numbered(prefix, dice.randrange(1, 10 ** (8 - len(prefix))))


def length_of(record_type: str) -> int:
    """Characters of a Referenced File ID (0004,1500) as ``FileIds`` makes them, separators included."""
    names = 1 if record_type in ROOT_RECORDS else 4
    return len(FOLDER) + 9 * names
