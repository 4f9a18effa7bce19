"""The layout of error-correction data, counted without the program that makes it (the peer tests compare the two)."""

from __future__ import annotations

import struct
import zlib

import pytest

from media import ecc
from media.problems import MediaError


@pytest.mark.parametrize(
    ("percent", "roots"), [(3.3, 9), (10, 24), (20, 43), (33, 64), (50, 85), (100, 128), (200, 170)]
)
def test_roots_give_at_least_the_redundancy(percent: float, roots: int) -> None:
    assert ecc.roots_of(percent) == roots
    assert 100 * roots / (255 - roots) >= percent
    assert roots == 8 or 100 * (roots - 1) / (256 - roots) < percent


def test_no_such_redundancy() -> None:
    with pytest.raises(MediaError, match="cannot be had"):
        ecc.roots_of(201)


def test_a_layout_that_the_program_made() -> None:
    """292 sectors and 20 %, as dvdisaster 0.79.5 made it."""
    made = ecc.layout(ecc.RS02, 292, 20)
    assert (made.roots, made.sectors, round(made.redundancy, 1)) == (43, 387, 20.3)
    assert list(ecc.rs02(292, 43).headers()) == [292, 320, 352, 384]
    assert made.text == "RS02, 20.3 % redundancy"


def test_a_layout_that_the_program_cannot_make() -> None:
    """605 sectors and 10 roots would end before the first copy of the header begins; 639 to 643 sectors are refused."""
    made = ecc.layout(ecc.RS02, 605, 4)
    assert (made.roots, made.sectors) == (11, 644)
    assert [ecc.rs02_within(605, size)[0] for size in (639, 643, 644)] == [7, 7, 11]


@pytest.mark.parametrize("percent", [5, 20, 33, 100])
@pytest.mark.parametrize("capacity", [400, 2000, 10_000, 359_424, 2_295_104, 11_826_176])
def test_what_fits_fits_with_its_correction_data(capacity: int, percent: float) -> None:
    room = ecc.room(ecc.RS02, capacity, percent)
    assert 0 < room < capacity
    for iso in range(max(1, room - 150), room + 1):
        made = ecc.layout(ecc.RS02, iso, percent)
        assert made.sectors <= capacity and made.redundancy >= percent
        assert ecc.rs02_within(iso, ecc.rs02_request(made))[1].sectors == made.sectors
    wasted = capacity - ecc.layout(ecc.RS02, room, percent).sectors
    assert wasted < 300


@pytest.mark.parametrize("medium", ecc.RS03_MEDIA)
def test_rs03_fills_its_medium(medium: int) -> None:
    room = ecc.room(ecc.RS03, medium, 20)
    made = ecc.layout(ecc.RS03, room, 20)
    assert made.sectors == medium // 255 * 255
    assert made.redundancy >= 20
    assert ecc.room(ecc.RS03, medium // 255 * 255, 20) == room


def test_rs03_has_steps_and_an_end() -> None:
    assert ecc.room(ecc.RS03, 333_000, 20) == 0
    assert ecc.layout(ecc.RS03, 300, 20).redundancy == 200
    # So much still goes on a CD for the program, but leaves too little.
    with pytest.raises(MediaError, match=r"leave 5\.8 % of redundancy.*RS02"):
        ecc.layout(ecc.RS03, 338_000, 20)
    with pytest.raises(MediaError, match="no medium"):
        ecc.layout(ecc.RS03, 30_000_000, 20)


def test_what_is_no_header_is_none() -> None:
    assert ecc.parse(bytes(4096)) is None
    assert ecc.parse(b"*dvdisaster*RS02" + bytes(4080)) is None
    assert ecc.parse(b"*dvdisaster*RS03" + b"\xff" * 4080) is None
    assert ecc.parse(b"*dvdisaster*RS02") is None
    assert ecc.parse(bytes(1024) + b"*dvdisaster*RS03" + bytes(1008)) is None
    assert len(ecc.DEAD) == 2048


def header(iso_sectors: int, roots: int, *, method: bytes = b"RS02", per_layer: int = 0, added: int = 0) -> bytes:
    """A header as dvdisaster writes it, with its own checksum."""
    data = bytearray(4096)
    data[:16] = b"*dvdisaster*" + method
    data[20:36] = bytes(range(16))
    data[68:76] = iso_sectors.to_bytes(8, "little")
    struct.pack_into("<ii", data, 76, 255 - roots, roots)
    struct.pack_into("<iI", data, 92, 16, 0x4C5047)
    struct.pack_into("<QQ", data, 120, per_layer, added)
    struct.pack_into("<I", data, 96, zlib.crc32(data) ^ 0xFFFFFFFF)
    return bytes(data)


def test_headers_are_read_and_not_believed_blindly() -> None:
    found = ecc.parse(header(292, 43, added=95))
    assert found is not None and found.layout == ecc.layout(ecc.RS02, 292, 20) and found.fingerprint == bytes(range(16))
    old = ecc.parse(header(292, 43))
    assert old is not None and old.layout == found.layout, "before version 0.79.5 the size was not recorded"
    rs03 = ecc.parse(header(292, 170, method=b"RS03", per_layer=1409))
    assert rs03 is not None and rs03.layout == ecc.layout(ecc.RS03, 292, 20)
    for wrong in (
        header(292, 43, added=94),
        header(292, 170, method=b"RS03", per_layer=1 << 40),
        header(292, 170, method=b"RS03", per_layer=1),
        header((1 << 32) - 1, 43),
        header(292, 0),
        header(292, 255),
        header(292, 43, added=95)[:-1] + b"x",
    ):
        assert ecc.parse(wrong) is None
