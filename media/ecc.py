"""The layout of error-correction data behind an image: RS02 and RS03 of the program dvdisaster, counted to the sector.

Both spread Reed-Solomon code words of 255 bytes over the whole image, each byte in another place, so that what is lost
of any one place can be computed from the others. Of the 255 ``roots`` are for correction: so many sectors of 255 that
lie on one code word may be unreadable. RS02 makes an image of any size; RS03 always fills one of five sizes.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from media.device import SECTOR
from media.problems import MediaError

RS02 = "rs02"
RS03 = "rs03"
METHODS = (RS02, RS03)
LEAST_ROOTS, MOST_ROOTS = 8, 170
RS03_MEDIA = (359_424, 2_295_104, 4_171_712, 11_826_176, 23_652_352)
"""Sectors of the media that RS03 fills: CD, DVD, DVD of two layers, BD, BD of two layers (dvdisaster 0.79.5)."""

_WORD = 255
_HEADER_SECTORS = 2
_HEADERS_AT_MOST = 64
_LEAST_RS03_LAYERS = 84
_MOST_SECTORS = 62_500_864
"""Of the largest medium, BD of four layers."""
_COOKIE = {RS02: b"*dvdisaster*RS02", RS03: b"*dvdisaster*RS03"}
_CRC_BLOCK = 1024
"""Where the cookie stands in the checksum sectors of RS03."""
_SEED = 0x004C5047
"""What stands for the header's own CRC while that is computed."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How an image with error-correction data is made up."""

    method: str
    iso_sectors: int
    """Of the image without it, as in its volume descriptor."""
    roots: int
    sectors: int
    """Of the whole."""

    @property
    def redundancy(self) -> float:
        """Percent of correction data to data."""
        return redundancy(self.roots)

    @property
    def text(self) -> str:
        """For people, e.g. ``RS02, 20.3 % redundancy``."""
        return f"{self.method.upper()}, {self.redundancy:.1f} % redundancy"


def redundancy(roots: int) -> float:
    """Percent of correction data to data."""
    return 100.0 * roots / (_WORD - roots)


def roots_of(percent: float) -> int:
    """The fewest roots that give at least this redundancy. Raises MediaError where there are none."""
    for roots in range(LEAST_ROOTS, MOST_ROOTS + 1):
        if redundancy(roots) >= percent:
            return roots
    raise MediaError(f"A redundancy of {percent:g} % cannot be had; 3.3 to 200 % can.")


def layout(method: str, iso_sectors: int, percent: float) -> Layout:
    """The layout of an image of ``iso_sectors`` with at least this redundancy.

    Raises MediaError where RS03 has no medium for it: RS03 takes the smallest medium that it finds at all large enough,
    and that may leave less than ``percent``.
    """
    if method == RS02:
        wanted = roots_of(percent)
        size = rs02(iso_sectors, wanted).sectors
        if size > _MOST_SECTORS:  # not with so few roots
            size = iso_sectors
        while True:
            roots, made = rs02_within(iso_sectors, size)
            if roots >= wanted:
                return Layout(RS02, iso_sectors, roots, made.sectors)
            size += 1
    per_layer = next((size // _WORD for size in RS03_MEDIA if _rs03_roots(iso_sectors, size) >= LEAST_ROOTS), 0)
    if not per_layer:
        raise MediaError(f"RS03 has no medium for {iso_sectors} sectors of data; it ends at {RS03_MEDIA[-1]}.")
    roots = min(MOST_ROOTS, _rs03_roots(iso_sectors, per_layer * _WORD))
    found = Layout(RS03, iso_sectors, roots, per_layer * _WORD)
    if found.redundancy < percent:
        raise MediaError(
            f"RS03 would fill {found.sectors} sectors and leave {found.redundancy:.1f} % of redundancy for "
            f"{iso_sectors} sectors of data, less than {percent:g} %; RS02 has no such steps."
        )
    return found


def room(method: str, capacity: int, percent: float) -> int:
    """Sectors of an image that fits with its correction data on ``capacity`` sectors; 0: none does."""
    if method == RS02:
        roots = roots_of(percent)
        low, high = 0, capacity
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if _rs02_at_most(middle, roots) <= capacity else (low, middle - 1)
        return low
    size = max((size for size in RS03_MEDIA if size // _WORD * _WORD <= capacity), default=0)
    per_layer = size // _WORD
    return max(0, (_WORD - 1 - roots_of(percent)) * per_layer - _HEADER_SECTORS)


def _rs03_roots(iso_sectors: int, medium: int) -> int:
    per_layer = medium // _WORD
    layers = -(-(iso_sectors + _HEADER_SECTORS) // per_layer)
    return _WORD - 1 - max(layers, _LEAST_RS03_LAYERS)  # one layer is for checksums


# ------------------------------------------------------------------ RS02


@dataclass(frozen=True, slots=True)
class Rs02:
    """Where the parts of an RS02 image lie, in sectors."""

    iso_sectors: int
    protected: int
    """Image, header and checksums: what the correction data covers."""
    modulo: int
    """Behind that a copy of the header begins at each multiple of this."""
    sectors: int

    def headers(self) -> Iterator[int]:
        """The first sector of each copy of the header."""
        yield self.iso_sectors
        yield from range(-(-self.protected // self.modulo) * self.modulo, self.sectors, self.modulo)


def rs02(iso_sectors: int, roots: int, modulo: int = 0) -> Rs02:
    """The layout of RS02; ``modulo``: as an image has it, 0: as it is chosen when one is made."""
    protected = _protected(iso_sectors)
    correction = roots * _per_layer(protected, roots)
    modulo = modulo or _modulo(correction)
    first = -(-protected // modulo) * modulo
    headers = (correction + protected - first) // (modulo - _HEADER_SECTORS) + 1
    if correction + protected < first:
        # So little correction data ends before the first copy of the header would begin. The program counts without
        # sign: it finds so many copies that no size is enough.
        headers = _MOST_SECTORS
    return Rs02(iso_sectors, protected, modulo, protected + correction + _HEADER_SECTORS * headers)


def rs02_within(iso_sectors: int, size: int) -> tuple[int, Rs02]:
    """Roots and layout that the program chooses when it may make an image of so many sectors.

    (It can be told the roots, too, but version 0.79.5 does not always take the number that it is given.)
    """
    protected = _protected(iso_sectors)
    roots = max(0, min(MOST_ROOTS, _WORD * (size - protected) // size))
    modulo = _modulo(roots * _per_layer(protected, roots))
    while roots >= LEAST_ROOTS and rs02(iso_sectors, roots, modulo).sectors > size:
        roots -= 1
    return roots, rs02(iso_sectors, roots, modulo)


def rs02_request(wanted: Layout) -> int:
    """The number of sectors to tell the program so that it makes exactly this layout. MediaError: there is none."""
    for size in range(wanted.sectors, wanted.sectors + _HEADER_SECTORS * _HEADERS_AT_MOST + _WORD):
        roots, made = rs02_within(wanted.iso_sectors, size)
        if (roots, made.sectors) == (wanted.roots, wanted.sectors):
            return size
    raise MediaError(f"RS02 with {wanted.roots} roots in {wanted.sectors} sectors cannot be made.")


def _modulo(correction: int) -> int:
    """How far apart copies of the header are, so that there are some 20 to 40 of them."""
    modulo = 32
    while correction // modulo > 40:
        modulo *= 2
    return modulo


def _protected(iso_sectors: int) -> int:
    return iso_sectors + _HEADER_SECTORS + -(-4 * iso_sectors // SECTOR)


def _per_layer(protected: int, roots: int) -> int:
    return -(-protected // (_WORD - roots))


def _rs02_at_most(iso_sectors: int, roots: int) -> int:
    """An upper bound that grows with the image; the exact number has steps down where headers become rarer."""
    protected = _protected(iso_sectors)
    return protected + roots * _per_layer(protected, roots) + _HEADER_SECTORS * _HEADERS_AT_MOST


# ------------------------------------------------------------------ what an image has


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a header or checksum sector in an image says of its correction data."""

    layout: Layout
    fingerprint: bytes
    """MD5 of sector 16, by which the data is known to belong to this image."""
    header: bytes = field(default=b"", repr=False)
    """The header itself, two sectors; empty where a checksum sector told this."""
    rs02: Rs02 | None = None


def first_correction_sector(recorded: Recorded) -> int:
    """Where the correction data proper begins, of whose sectors there are no checksums."""
    if recorded.rs02 is not None:
        return recorded.rs02.protected
    return (_WORD - recorded.layout.roots) * (recorded.layout.sectors // _WORD)


FINGERPRINT_SECTOR = 16


def fingerprint_of(sector: bytes) -> bytes:
    """As ``Recorded.fingerprint`` has it."""
    return hashlib.md5(sector, usedforsecurity=False).digest()


def parse(sectors: bytes) -> Recorded | None:
    """Read a header (two sectors) or a checksum sector (the first is enough). None: it is none, or damaged."""
    if sectors[:16] in _COOKIE.values() and len(sectors) >= 2 * SECTOR:
        return _parse_header(sectors[: 2 * SECTOR])
    if sectors[_CRC_BLOCK : _CRC_BLOCK + 16] == _COOKIE[RS03]:
        return _parse_checksums(sectors[:SECTOR])
    return None


def _parse_header(header: bytes) -> Recorded | None:
    data_bytes, roots = struct.unpack_from("<ii", header, 76)
    fp_sector, own = struct.unpack_from("<iI", header, 92)
    per_layer, added = struct.unpack_from("<QQ", header, 120)
    iso_sectors = int.from_bytes(header[68:76], "little")
    seeded = header[:96] + struct.pack("<I", _SEED) + header[100:]
    if _crc(seeded) != own or not _plausible(iso_sectors, data_bytes, roots, fp_sector):
        return None
    print_ = header[20:36]
    if header[12:16] == b"RS03":
        return _believed(Recorded(Layout(RS03, iso_sectors, roots, per_layer * _WORD), print_, header))
    for made in (rs02(iso_sectors, roots), *(rs02(iso_sectors, roots, 32 << shift) for shift in range(20))):
        # The modulo is not recorded; since dvdisaster 0.79.5 the size is.
        if not added or made.sectors == iso_sectors + added:
            return _believed(Recorded(Layout(RS02, iso_sectors, roots, made.sectors), print_, header, made))
    return None


def _parse_checksums(sector: bytes) -> Recorded | None:
    fp_sector = int.from_bytes(sector[1052:1056], "little")
    iso_sectors = int.from_bytes(sector[1088:1096], "little")
    data_bytes, roots = struct.unpack_from("<ii", sector, 1100)
    per_layer, own = struct.unpack_from("<QI", sector, 1112)
    seeded = sector[:1120] + struct.pack("<I", _SEED) + sector[1124:]
    if _crc(seeded) != own or not _plausible(iso_sectors, data_bytes, roots, fp_sector):
        return None
    return _believed(Recorded(Layout(RS03, iso_sectors, roots, per_layer * _WORD), sector[1056:1072]))


def _believed(found: Recorded) -> Recorded | None:
    """A layout that fits on a medium; anybody can write a header that claims more."""
    return found if found.layout.iso_sectors < found.layout.sectors <= _MOST_SECTORS else None


def _crc(data: bytes) -> int:
    """CRC-32 without the usual inversion at its end."""
    return zlib.crc32(data) ^ 0xFFFFFFFF


def _plausible(iso_sectors: int, data_bytes: int, roots: int, fp_sector: int) -> bool:
    right = data_bytes + roots == _WORD and 0 < roots < _WORD and fp_sector == FINGERPRINT_SECTOR
    return right and 0 < iso_sectors < 1 << 32


def recorded(read_at: Callable[[int, int], bytes], iso_sectors: int) -> Recorded | None:
    """What an image says of its correction data right behind its file system, where the header is. OSError: unread."""
    found = parse(read_at(iso_sectors * SECTOR, 2 * SECTOR))
    return found if found is not None and found.layout.iso_sectors == iso_sectors else None


# ------------------------------------------------------------------ sectors that are no more

_DEAD_BEGIN = (
    b"dvdisaster dead sector marker\nThis sector could not be read from the image.\n"
    b"Its contents have been substituted by the dvdisaster read routine.\n"
)
_DEAD_END = b"dvdisaster dead sector end marker\n"
DEAD = _DEAD_BEGIN + bytes(SECTOR - 2 - len(_DEAD_BEGIN) - len(_DEAD_END)) + _DEAD_END + bytes(2)
"""What stands in an image for a sector that could not be read, so that the program knows that it is lost."""
