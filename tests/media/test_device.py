"""Discs in a drive: exactly their sectors are read, and what cannot be read is named, sector by sector."""

from __future__ import annotations

from pathlib import Path

import pytest

from media.device import SECTOR, add_range, ranges_text
from media.trees import IsoTree
from media.verify import Expected, VerifyResult, verify_path, verify_tree
from tests.faulty import FaultyDrive
from tests.makers import make, our_disc


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return our_disc(tmp_path / "disc.iso", [make("CT", number=n, size=40_000) for n in range(1, 6)])


def place(image: Path, name: str) -> range:
    """The sectors of a file."""
    with IsoTree(image) as tree:
        ((start, length),) = tree.extents(name)
    return range(start // SECTOR, -(-(start + length) // SECTOR))


def read(drive: FaultyDrive, **expected: object) -> VerifyResult:
    with IsoTree(drive.path, drive) as tree:
        return verify_tree(tree, expect=Expected(**expected))  # type: ignore[arg-type]


def instances(image: Path) -> list[str]:
    with IsoTree(image) as tree:
        return sorted(name for name in tree.files if name.startswith("DICOM/"))


def test_a_drive_that_shows_more_sectors_than_the_disc_has(image: Path) -> None:
    """What lies behind the volume (run-out blocks of a CD) cannot be read and need not be."""
    drive = FaultyDrive(image, run_out=2)
    result = read(drive)
    assert result.problems == ()
    assert result.image_sha256 == verify_path(image).image_sha256
    assert max(offset + length for offset, length in drive.tries) == image.stat().st_size


def test_planned_sectors_are_read_where_they_are_known(image: Path) -> None:
    planned = image.stat().st_size
    with image.open("ab") as out:
        out.write(b"more" * SECTOR)
    drive = FaultyDrive(image)
    assert read(drive, image_bytes=planned).problems == ()
    assert max(offset + length for offset, length in drive.tries) == planned


def test_each_unreadable_sector_is_named_and_all_others_are_read(image: Path) -> None:
    first, second, third, *others = instances(image)
    bad = [place(image, first)[3], place(image, second)[-1], place(image, third)[0], place(image, third)[2]]
    result = read(FaultyDrive(image, bad))
    assert [(problem.kind.value, problem.file) for problem in result.problems] == [
        ("UNREADABLE", name) for name in (first, second, third)
    ]
    assert f"sector {bad[0]} of the medium: Input/output error" in result.problems[0].detail
    assert f"sectors {bad[2]}, {bad[3]} of" in result.problems[2].detail
    assert result.unreadable == ((bad[0], bad[0]), (bad[1], bad[2]), (bad[3], bad[3]))
    assert {instance.file for instance in result.instances} == set(others)
    assert {
        name: digest for name, digest in verify_path(image).digests.items() if name not in (first, second, third)
    } == (result.digests)
    assert result.image_sha256 is None


def test_after_a_scratch_the_rest_of_its_file_is_not_tried_and_the_next_file_is(tmp_path: Path) -> None:
    image = our_disc(tmp_path / "big.iso", [make("CT", number=1, size=4_000_000), make("CT", number=2)])
    large, small = instances(image)
    sectors = place(image, large)
    drive = FaultyDrive(image, sectors[100:])
    result = read(drive)
    assert [problem.file for problem in result.problems] == [large]
    assert f"sectors {sectors[100]} to {sectors[115]} of" in result.problems[0].detail
    assert result.unreadable == ((sectors[100], sectors[-1]),)
    assert small in result.digests
    tried = [offset for offset, length in drive.tries if length <= SECTOR and offset // SECTOR in drive.bad]
    assert 16 <= len(tried) <= 17


def test_unreadable_directories_of_every_kind_are_told(image: Path) -> None:
    for sector in range(16, place(image, instances(image)[0])[0]):
        result = read_or_refused(image, sector)
        assert result is None or not result.ok, sector


def read_or_refused(image: Path, sector: int) -> VerifyResult | None:
    from media.problems import FileSetInvalid

    try:
        return read(FaultyDrive(image, [sector]))
    except FileSetInvalid as error:
        assert "cannot be read" in str(error)
        return None


def test_ranges() -> None:
    ranges: list[tuple[int, int]] = []
    for first, last in ((3, 3), (4, 6), (5, 5), (9, 9)):
        add_range(ranges, first, last)
    assert ranges == [(3, 6), (9, 9)]
    assert ranges_text(ranges) == "sectors 3 to 6, 9"
    assert ranges_text([(7, 7)]) == "sector 7"
    assert ranges_text([(n, n) for n in range(0, 30, 2)], 2) == "sectors 0, 2 and 13 further stretches"
