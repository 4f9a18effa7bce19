"""Media types are rows of a table; the table is what PS3.12 and the media's specifications say."""

import pytest

from media.mediatypes import FAMILIES, media_type, media_types
from media.problems import MediaError


def test_every_medium_of_the_table_is_sound() -> None:
    assert list(media_types()) == [
        *("CD-R-74", "CD-R-80", "DVD-R", "DVD+R", "DVD-R-DL", "DVD+R-DL", "DVD-RAM"),
        *("BD-25", "BD-50", "BD-100", "BD-128"),
        *("USB", "MMC", "CF", "SD", "MOD-2.3GB", "MOD-4.1GB"),
    ]
    for name, medium in media_types().items():
        assert medium.name == name
        assert medium.family in FAMILIES
        assert 300_000 < medium.sectors <= medium.nominal_sectors


@pytest.mark.parametrize(
    ("name", "sectors"),
    [("CD-R-80", 359_424), ("DVD+R", 2_295_104), ("DVD-R", 2_295_104), ("BD-25", 11_826_176), ("BD-128", 60_403_712)],
)
def test_plans_count_on_the_smaller_capacity(name: str, sectors: int) -> None:
    assert media_type(name).sectors == sectors


def test_users_are_told_what_a_blu_ray_lacks() -> None:
    for medium in media_types().values():
        assert ("UDF as PS3.12 X asks is missing" in medium.note) == (medium.family == "BD")


def test_reserve_is_the_larger_of_percent_and_sectors() -> None:
    medium = media_type("cd-r-80")
    assert medium.usable_sectors(reserve_percent=1, reserve_sectors=0) == 359_424 - 3_595
    assert medium.usable_sectors(reserve_percent=1, reserve_sectors=4_000) == 355_424
    assert medium.usable_sectors(reserve_percent=0, reserve_sectors=0) == 359_424
    with pytest.raises(MediaError, match="leaves nothing"):
        medium.usable_sectors(reserve_percent=100, reserve_sectors=0)


def test_unknown_medium_lists_the_known_ones() -> None:
    with pytest.raises(MediaError, match=r"no medium 'FLOPPY'; known are CD-R-74, .*BD-128.*SD"):
        media_type("FLOPPY")
