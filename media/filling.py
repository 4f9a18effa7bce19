"""Fill media as full as they get, the oldest pieces first: for discs that wait until there is enough to fill them.

The oldest piece of all is always on the first medium, so nothing waits for ever. Behind it pieces follow in order of
age until one does not fit, then the largest that still fit, and at last single pieces are exchanged for larger ones
where that closes a gap. n log n steps.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Hashable, Sequence
from heapq import heapify, heappop, heappush
from operator import attrgetter
from typing import Any

from media.isolayout import SECTOR
from media.packing import lower_bound, pack_pieces
from media.sizing import Fill, Piece, Sizing

_GAP = 0.002
"""Part of a medium that may stay empty without further trials."""
_TRIALS = 6
"""Pieces that are tried for one gap, and exchanges on one medium."""


def fill_media(
    pieces: Sequence[Piece], sizing: Sizing, capacity: int, *, age: Callable[[Piece], Any] = attrgetter("position")
) -> list[Fill]:
    """Media that hold each piece once, the one with the oldest first; the last one may be far from full.

    ``age``: what sorts the oldest piece first (equal ones go by size); pieces of one study should have one age. Every
    piece must fit on a medium of its own. Two patients who share a Patient ID never share one.
    """
    waiting = _Waiting(pieces, age)
    media: list[Fill] = []
    while (first := waiting.oldest()) is not None:
        medium = _Medium(sizing, capacity)
        while first is not None and medium.put(first):
            waiting.take(first)
            first = waiting.oldest()
        if first is not None:
            _close_gap(medium, waiting)
            medium = _exchanged(medium, waiting)
        media.append(medium.fill)
    return media


def fewest(pieces: Sequence[Piece], sizing: Sizing, capacity: int) -> list[Fill]:
    """``pack_pieces``, or ``fill_media`` where that gives fewer volumes: for what was found to fill them together."""
    packed = pack_pieces(pieces, sizing, capacity)
    if len(packed) <= lower_bound(pieces, sizing, capacity):
        return packed
    filled = fill_media(pieces, sizing, capacity)
    return filled if len(filled) < len(packed) else packed


def _close_gap(medium: _Medium, waiting: _Waiting) -> None:
    """Put on the medium the largest pieces that fit into what is left."""
    while True:
        for piece in waiting.largest(medium.free, _TRIALS):
            if medium.put(piece):
                waiting.take(piece)
                break
        else:
            return


def _exchanged(medium: _Medium, waiting: _Waiting) -> _Medium:
    """The medium with single pieces exchanged for larger ones, until hardly anything is free."""
    for _ in range(_TRIALS):
        if medium.free <= _GAP * medium.capacity:
            break
        best: tuple[int, Piece, Piece] | None = None
        for placed in medium.fill.pieces[1:]:
            size = size_of(placed)
            for other in waiting.largest(size + medium.free, 1):
                gain = size_of(other) - size
                if gain > 0 and (best is None or gain > best[0]):
                    best = gain, placed, other
        if best is None:
            break
        _, out, into = best
        changed = _Medium(medium.sizing, medium.capacity)
        if not all(changed.put(into if piece is out else piece) for piece in medium.fill.pieces):
            break
        medium = changed
        waiting.take(into)
        waiting.give_back(out)
        _close_gap(medium, waiting)
    return medium


def size_of(piece: Piece) -> int:
    """Sectors that a piece takes beside others, about: its files, directories and records."""
    load = piece.load
    generated = load.record_bytes + load.manifest_bytes + piece.study_lines
    return load.data_sectors + load.directory_sectors + piece.roots.data_sectors + generated // SECTOR


class _Medium:
    """A medium being filled."""

    def __init__(self, sizing: Sizing, capacity: int) -> None:
        self.sizing = sizing
        self.capacity = capacity
        self.fill = Fill(sizing)
        self._owners: dict[str, Hashable] = {}

    @property
    def free(self) -> int:
        return self.capacity - self.fill.sectors

    def put(self, piece: Piece) -> bool:
        """Put a piece on it if there is room, and no other patient of the same Patient ID; the first always."""
        patient = piece.patient
        if self._owners.get(patient.directory_patient_id, patient.patient) != patient.patient:
            return False
        if not self.fill.add(piece, self.capacity if self.fill.pieces else None):
            return False
        self._owners[patient.directory_patient_id] = patient.patient
        return True


class _Waiting:
    """Pieces that are on no medium yet, by age and by size."""

    def __init__(self, pieces: Sequence[Piece], age: Callable[[Piece], Any]) -> None:
        self._pieces = sorted(pieces, key=lambda piece: (size_of(piece), piece.position))
        self._sizes = [size_of(piece) for piece in self._pieces]
        self._number = {id(piece): number for number, piece in enumerate(self._pieces)}
        self._next_smaller = list(range(-1, len(pieces)))
        """One more than the pieces: what ``[n + 1]`` leads to is piece n, or the nearest smaller one that waits."""
        self._age = age
        self._by_age = [(age(piece), number) for number, piece in enumerate(self._pieces)]
        heapify(self._by_age)
        self._taken: set[int] = set()

    def oldest(self) -> Piece | None:
        while self._by_age and self._by_age[0][1] in self._taken:
            heappop(self._by_age)
        return self._pieces[self._by_age[0][1]] if self._by_age else None

    def largest(self, sectors: int, count: int) -> list[Piece]:
        """At most ``count`` pieces of at most so many sectors, the largest first."""
        found: list[Piece] = []
        number = self._find(bisect_right(self._sizes, sectors) - 1)
        while number >= 0 and len(found) < count:
            found.append(self._pieces[number])
            number = self._find(number - 1)
        return found

    def take(self, piece: Piece) -> None:
        number = self._number[id(piece)]
        self._taken.add(number)
        self._next_smaller[number + 1] = number - 1

    def give_back(self, piece: Piece) -> None:
        """It is found by its age again, by its size no more."""
        number = self._number[id(piece)]
        self._taken.discard(number)
        heappush(self._by_age, (self._age(piece), number))

    def _find(self, number: int) -> int:
        """This piece, or the nearest smaller one that waits; -1: none does."""
        path = []
        while number >= 0 and (further := self._next_smaller[number + 1]) != number:
            path.append(number)
            number = further
        for each in path:
            self._next_smaller[each + 1] = number
        return number
