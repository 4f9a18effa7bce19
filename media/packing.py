"""Put pieces on as few volumes as first-fit-decreasing would need, or fewer, in a sensible order where that is free.

Several heuristics are tried, the most orderly first; the first of those with the fewest volumes wins. All are
deterministic and take n log n steps.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from operator import attrgetter

from media.sizing import Fill, Piece, Sizing


class Shelf:
    """Volumes in the order in which they were begun; the first with room is found in logarithmic time."""

    def __init__(self, sizing: Sizing, capacity: int) -> None:
        self._sizing = sizing
        self._capacity = capacity
        self.fills: list[Fill] = []
        self._owners: list[dict[str, Hashable]] = []
        self._leaves = 1
        self._free = [-1, -1]
        """A tree of maxima: ``_free[_leaves + n]`` is what volume n has left, each node above is the larger of two."""

    def _grow(self) -> None:
        leaves = self._free[self._leaves :]
        self._leaves *= 2
        self._free = [-1] * self._leaves + leaves + [-1] * len(leaves)
        for node in range(self._leaves - 1, 0, -1):
            self._free[node] = max(self._free[2 * node], self._free[2 * node + 1])

    def _set(self, index: int, free: int) -> None:
        node = self._leaves + index
        self._free[node] = free
        while node := node // 2:
            self._free[node] = max(self._free[2 * node], self._free[2 * node + 1])

    def _next(self, start: int, wanted: int) -> int | None:
        """The first volume from ``start`` on that has at least ``wanted`` sectors left."""
        if start >= self._leaves:
            return None
        node = self._leaves + start
        while self._free[node] < wanted:
            # Up to the next subtree on the right...
            while node % 2:
                node //= 2
                if not node:
                    return None
            node += 1
        while node < self._leaves:
            # ...and down to its first leaf with room.
            node = 2 * node if self._free[2 * node] >= wanted else 2 * node + 1
        return node - self._leaves

    def put(self, index: int, piece: Piece) -> bool:
        """Put the piece on that volume if there is room, and no other patient of the same Patient ID."""
        patient = piece.patient
        owners = self._owners[index]
        if owners.get(patient.directory_patient_id, patient.patient) != patient.patient:
            return False
        if not self.fills[index].add(piece, self._capacity):
            return False
        owners[patient.directory_patient_id] = patient.patient
        self._set(index, self._capacity - self.fills[index].sectors)
        return True

    def begin(self, piece: Piece) -> None:
        """A new volume with the piece; it has been made sure before that the piece fits on one."""
        if len(self.fills) == self._leaves:
            self._grow()
        self.fills.append(Fill(self._sizing))
        self._owners.append({})
        self.fills[-1].add(piece)
        self._owners[-1][piece.patient.directory_patient_id] = piece.patient.patient
        self._set(len(self.fills) - 1, self._capacity - self.fills[-1].sectors)

    def put_first(self, piece: Piece) -> None:
        """Put the piece on the first volume that takes it, or on a new one."""
        wanted = _certain(piece)
        index = self._next(0, wanted)
        while index is not None:
            if self.put(index, piece):
                return
            index = self._next(index + 1, wanted)
        self.begin(piece)

    def put_last(self, piece: Piece) -> None:
        """Put the piece on the last volume if it takes it, else on a new one: the order stays as it is."""
        if not (self.fills and self.put(len(self.fills) - 1, piece)):
            self.begin(piece)


def pack_pieces(pieces: Sequence[Piece], sizing: Sizing, capacity: int) -> list[Fill]:
    """Volumes that hold each piece once. Every piece must fit on a volume of its own."""
    floor = lower_bound(pieces, sizing, capacity)
    ordered = sorted(pieces, key=attrgetter("position"))
    orders: list[Callable[[], tuple[Callable[[Shelf, Piece], None], Iterable[Piece]]]] = [
        lambda: (Shelf.put_last, ordered),
        lambda: (Shelf.put_first, ordered),
        lambda: (Shelf.put_first, sorted(ordered, key=lambda piece: -piece.load.data_sectors)),
        lambda: (Shelf.put_first, sorted(ordered, key=lambda piece: -alone(piece, sizing).sectors)),
    ]
    best: list[Fill] | None = None
    for order in orders:
        put, sequence = order()
        shelf = Shelf(sizing, capacity)
        for piece in sequence:
            put(shelf, piece)
        if best is None or len(shelf.fills) < len(best):
            best = shelf.fills
        if len(best) <= floor:
            break
    return best or []


def alone(piece: Piece, sizing: Sizing) -> Fill:
    """The piece on a volume of its own."""
    fill = Fill(sizing)
    fill.add(piece)
    return fill


def _certain(piece: Piece) -> int:
    """Sectors that a piece takes on any volume: its files and the directories inside it."""
    return piece.load.data_sectors + piece.load.directory_sectors + piece.roots.data_sectors


def lower_bound(pieces: Sequence[Piece], sizing: Sizing, capacity: int) -> int:
    """A number of volumes below which no packing of these pieces can come.

    Counted are: sectors of files and their directories against what a volume can hold beside its own structure; pieces
    of which no two fit together; patients who share a Patient ID.
    """
    if not pieces:
        return 0
    room = capacity - Fill(sizing).sectors
    sectors = [_certain(piece) for piece in pieces]
    by_size = -(-sum(sectors) // room) if room > 0 else 1
    large = sum(1 for size in sectors if 2 * size > room)
    sharing: dict[str, set[Hashable]] = {}
    for piece in pieces:
        sharing.setdefault(piece.patient.directory_patient_id, set()).add(piece.patient.patient)
    return max(1, by_size, large, *map(len, sharing.values()))
