"""The skeleton of an ISO 9660 image: what says the same thing twice must say the same (ECMA-119; PS3.12 Annex F).

``isoread`` follows the directories, as most systems do; some go by the path tables. Both must lead to the same places.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from media.isoread import IsoEntry, IsoVolume
from media.problems import ProblemKind
from media.trees import IsoTree
from media.verify_values import quoted

Report = Callable[[ProblemKind, str, str], None]

_SECTOR = 2048
_DESCRIPTORS = 64
_TABLE_LIMIT = 4 * 1024 * 1024
"""Bytes of a path table: 65,535 directories of level 1 need a quarter of it."""
_DIRECTORY_LIMIT = 65_535
_LEVEL_1 = re.compile(r"[A-Z0-9_]{1,8}(\.[A-Z0-9_]{0,3})?;1")
_BOTH_16 = {120: "volume set size", 124: "volume sequence number", 128: "logical block size"}


class _Folder(NamedTuple):
    """A directory as a path table or the tree has it."""

    block: int
    parent: int
    """Number of the directory above it, counted from 1."""
    name: str


def check_image(tree: IsoTree, referenced: Iterable[str], report: Report) -> None:
    """Report what contradicts itself in the image's own structures, and ``referenced`` names beyond level 1."""
    try:
        _check_descriptors(tree.volume, report)
        _check_path_tables(tree.volume, report)
    except OSError as error:
        report(ProblemKind.UNREADABLE, "", f"The volume descriptors or path tables cannot be read: {error}.")
    wrong = [name for name in referenced if name in tree.files and not _is_level_1(tree.files[name].raw)]
    if wrong:
        detail = f"{len(wrong)} file names of the file-set are not of ISO 9660 level 1 (PS3.12 F), first"
        report(ProblemKind.PROFILE, wrong[0], f"{detail} {quoted(tree.files[wrong[0]].raw)}.")


def _is_level_1(raw: str) -> bool:
    *_, last = raw.split("/")
    return _LEVEL_1.fullmatch(last) is not None


def _check_descriptors(volume: IsoVolume, report: Report) -> None:
    primary = volume.read_at(volume.first_descriptor, _SECTOR)
    for offset, what in _BOTH_16.items():
        if primary[offset : offset + 2] != primary[offset + 2 : offset + 4][::-1]:
            report(ProblemKind.STRUCTURE, "", f"The {what} differs between its two byte orders.")
    if primary[132:136] != primary[136:140][::-1]:
        report(ProblemKind.STRUCTURE, "", "The path table's size differs between its two byte orders.")
    if primary[6] != 1 or primary[881] != 1:
        report(ProblemKind.STRUCTURE, "", "The primary volume descriptor is not of version 1.")
    for index in range(_DESCRIPTORS):
        descriptor = volume.read_at(volume.first_descriptor + index * _SECTOR, 7)
        if descriptor[:6] == b"\xffCD001":
            return
        if descriptor[1:6] != b"CD001":
            break
    report(ProblemKind.STRUCTURE, "", "The volume descriptors have no terminator.")


def _check_path_tables(volume: IsoVolume, report: Report) -> None:
    primary = volume.read_at(volume.first_descriptor, _SECTOR)
    size = int.from_bytes(primary[132:136], "little")
    if size > _TABLE_LIMIT:
        report(ProblemKind.STRUCTURE, "", f"The path table claims {size} bytes.")
        return
    places = (("<", int.from_bytes(primary[140:144], "little")), (">", int.from_bytes(primary[148:152], "big")))
    tables = [
        list(_table(volume.read_at(place * volume.block_size, size), size, order)) for order, place in places if place
    ]
    folders = sorted(_folders(volume), key=lambda folder: (folder.block, folder.name))
    for table, order in zip(tables, ("little endian", "big endian"), strict=False):
        if sorted(_resolved(table), key=lambda folder: (folder.block, folder.name)) != folders:
            report(
                ProblemKind.STRUCTURE, "", f"The {order} path table does not lead to the directories that there are."
            )


def _table(data: bytes, size: int, order: str) -> Iterator[_Folder]:
    """The records of a path table (ECMA-119 9.4), as far as they can be read."""
    at = 0
    while at + 8 <= min(len(data), size):
        length, extended, block, parent = struct.unpack_from(order + "BBLH", data, at)
        if not length:
            return
        yield _Folder(block + extended, parent, data[at + 8 : at + 8 + length].decode("latin-1"))
        at += 8 + length + length % 2


def _resolved(table: list[_Folder]) -> Iterator[_Folder]:
    """The same with the block of the directory above in place of its number, which depends on an order."""
    for folder in table:
        above = table[folder.parent - 1].block if 0 < folder.parent <= len(table) else -1
        yield _Folder(folder.block, above, folder.name)


def _folders(volume: IsoVolume) -> Iterator[_Folder]:
    """The directories that the directory records lead to; ``parent`` is the block of the one above."""
    pending: list[tuple[IsoEntry, int, str]] = [(volume.root, -1, "\0")]
    seen: set[int] = set()
    while pending and len(seen) < _DIRECTORY_LIMIT:
        entry, above, name = pending.pop()
        block = entry.extents[0][0] // volume.block_size if entry.extents else 0
        if block in seen:
            continue
        seen.add(block)
        yield _Folder(block, above if above >= 0 else block, name)
        pending.extend((child, block, child.identifier) for child in volume.entries(entry, "") if child.is_directory)
