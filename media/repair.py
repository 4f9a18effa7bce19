"""Repairing a damaged disc or image by its error-correction data: copied as far as it can be read, then mended.

The original is only read. The program that repairs finds the error-correction data by its header and by the volume
descriptor; both may be what is damaged, so they are looked for in the whole image and put right first.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from media import dvdisaster, ecc
from media.device import SECTOR, Device, Ranges, add_range, count_of
from media.ecc import Layout, Recorded
from media.problems import MediaError

_CHUNK = 512 * SECTOR
_COOKIE = b"*dvdisaster*RS0"
_PLACES = 200
"""Headers and checksum sectors that are looked at."""
_SPARE_BYTES = 16 << 20


class RepairCancelled(MediaError):
    """The caller's ``cancelled`` said so."""


@dataclass(frozen=True, slots=True)
class Repaired:
    """What came of it."""

    path: Path
    """Where the copy is now: the wanted name if ``good``, else that name with ``.bad`` behind it."""
    good: bool
    """What ``check`` said of the copy."""
    layout: Layout
    unreadable: Ranges
    """Sectors of the original that could not be read."""
    complete: bool
    """Whether the program says that every sector is repaired."""
    words: str
    """Its words."""


@dataclass(slots=True)
class _Copy:
    """What was seen while copying."""

    unreadable: Ranges = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    """Sectors that look like a header or checksums."""


def repair(
    source: Path,
    target: Path,
    *,
    check: Callable[[Path], bool],
    device: Device | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Repaired:
    """Copy an image or the disc in a drive to ``target`` and repair the copy; ``check`` says whether it is right now.

    ``target`` is never overwritten, and gets its name only when it is right. Raises MediaError: the program is not
    installed, no error-correction data is found, no space; OSError for what is wrong with the target's folder.
    """
    dvdisaster.require()
    for name in (target, _bad(target)):
        if os.path.lexists(name):
            raise MediaError(f"{name} exists already; nothing is overwritten.")
    device = device or Device(source)
    part = target.with_name(f".{target.name}.part")
    try:
        free = shutil.disk_usage(target.parent).free
        if free < device.size + _SPARE_BYTES:
            raise MediaError(f"{target.parent} has {free} bytes free; the copy needs {device.size}.")
        part.unlink(missing_ok=True)  # of a repair that was cut off
        with part.open("x+b", buffering=0) as file:
            seen = _copy(device, file, progress, cancelled)
            recorded = _recorded(file, seen.places)
            missing = recorded.layout.sectors * SECTOR - device.size
            if missing > 0 and shutil.disk_usage(target.parent).free < missing + _SPARE_BYTES:
                raise MediaError(f"{target.parent} has no room for {missing} bytes that the image lacks at its end.")
            _put_right(file, recorded, seen)
        complete, words = dvdisaster.fix(part, recorded.layout.method, cancelled=cancelled)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        good = check(part)
        final = target if good else _bad(target)
        os.link(part, final)
        return Repaired(final, good, recorded.layout, seen.unreadable, complete, words)
    except dvdisaster.ToolCancelled as error:
        raise RepairCancelled(str(error)) from error
    finally:
        device.close()
        part.unlink(missing_ok=True)


def _bad(target: Path) -> Path:
    return target.with_name(f"{target.name}.bad")


def _copy(device: Device, out: BinaryIO, progress: Callable[[int, int], None], cancelled: Callable[[], bool]) -> _Copy:
    """Every sector that can be read; what stands for the others tells the program that they are lost."""
    seen = _Copy()
    position = 0
    while position < device.size:
        if cancelled():
            raise RepairCancelled("The repair was cancelled.")
        count = min(_CHUNK, device.size - position)
        try:
            chunk = device.read_at(position, count)
            if len(chunk) < count:
                raise OSError("it ends early")
        except OSError:
            chunk = _sector_by_sector(device, position, count, seen)
        at = chunk.find(_COOKIE)
        while at >= 0 and len(seen.places) < _PLACES:
            sector, within = divmod(position + at, SECTOR)
            if within in (0, 1024):
                seen.places.append(sector)
            at = chunk.find(_COOKIE, at + 1)
        out.write(chunk)
        position += len(chunk)
        progress(position, device.size)
    return seen


def _sector_by_sector(device: Device, position: int, count: int, seen: _Copy) -> bytes:
    pieces = []
    for start in range(position, position + count, SECTOR):
        size = min(SECTOR, position + count - start)
        try:
            piece = device.read_at(start, size)
        except OSError:
            piece = b""
        if len(piece) < size:
            piece = ecc.DEAD
            add_range(seen.unreadable, start // SECTOR, start // SECTOR)
        pieces.append(piece)
    return b"".join(pieces)


def _recorded(image: BinaryIO, places: list[int]) -> Recorded:
    """The header that the image has, by the most of its copies; by checksum sectors where all of them are gone."""
    found: list[Recorded] = []
    for sector in places:
        image.seek(sector * SECTOR)
        one = ecc.parse(image.read(2 * SECTOR))
        if one is not None:
            found.append(one)
    if not found:
        raise MediaError("No error-correction data of dvdisaster was found (RS02 or RS03), so nothing can be repaired.")
    common, _ = Counter((one.layout, one.fingerprint) for one in found).most_common(1)[0]
    same = [one for one in found if (one.layout, one.fingerprint) == common]
    return next((one for one in same if one.header), same[0])


def _put_right(image: BinaryIO, recorded: Recorded, seen: _Copy) -> None:
    """Have the image the size that it had, its headers where they were, and everything lost marked as such."""
    layout = recorded.layout
    size = image.seek(0, os.SEEK_END)
    if size % SECTOR:
        size -= size % SECTOR
        image.truncate(size)
    if size > layout.sectors * SECTOR:
        image.truncate(layout.sectors * SECTOR)
    image.seek(min(size, layout.sectors * SECTOR))
    for sector in range(size // SECTOR, layout.sectors):
        image.write(ecc.DEAD)
        add_range(seen.unreadable, sector, sector)
    _mark_filled(image, ecc.first_correction_sector(recorded), layout.sectors)
    if recorded.header:
        places = recorded.rs02.headers() if recorded.rs02 else iter((layout.iso_sectors,))
        for sector in places:
            image.seek(sector * SECTOR)
            image.write(recorded.header)
    image.seek(ecc.FINGERPRINT_SECTOR * SECTOR)
    if ecc.fingerprint_of(image.read(SECTOR)) != recorded.fingerprint:
        # Else the program would take the correction data for that of another image.
        image.seek(ecc.FINGERPRINT_SECTOR * SECTOR)
        image.write(ecc.DEAD)


def _mark_filled(image: BinaryIO, first: int, end: int) -> None:
    """Mark sectors of correction data that were filled with one byte, as programs do that copy damaged discs.

    There are no checksums of these sectors; a lost one costs half as much as one that is wrong.
    """
    for start in range(first, end, _CHUNK // SECTOR):
        image.seek(start * SECTOR)
        chunk = image.read(min(_CHUNK, (end - start) * SECTOR))
        for at in range(0, len(chunk), SECTOR):
            if chunk.count(chunk[at : at + 1], at, at + SECTOR) == SECTOR:
                image.seek(start * SECTOR + at)
                image.write(ecc.DEAD)


def lost_sectors(repaired: Repaired) -> int:
    """How many sectors of the original could not be read."""
    return count_of(repaired.unreadable)
