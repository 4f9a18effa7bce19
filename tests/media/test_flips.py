"""A single flipped bit is found, and the file that it lies in is named. ``BURNISH_SOAK`` sets how many are tried."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest

from media.problems import ProblemKind
from media.trees import IsoTree
from media.verify import Expected, verify_path
from tests.makers import KINDS, PATIENTS, make, our_disc
from tests.soak import SEED, size, told

FLIPS = size(60, 1000)


@pytest.fixture(scope="module")
def disc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disc of ours with every kind of instance, several scripts and supplied keys."""
    instances = [make(kind, number=n) for n, kind in enumerate(KINDS, 1)]
    instances += [make("CT", patient=PATIENTS[name]) for name in ("japanese", "korean", "greek", "arabic")]
    instances += [make("MR", seed=2, study=5, StudyID=None, InstanceNumber=None)]
    return our_disc(tmp_path_factory.mktemp("disc") / "disc.iso", instances)


class Flipper:
    """Turns single bits of an image over, and back again."""

    def __init__(self, image: Path) -> None:
        self.image = image
        self.data = bytearray(image.read_bytes())
        with IsoTree(image) as tree:
            self.places = {name: tree.extents(name)[0] for name in tree.files}

    def problems(self, position: int, bit: int, expect: Expected | None = None) -> dict[str, set[ProblemKind]]:
        """Kinds of problems by file, with that bit turned over."""
        self._flip(position, bit)
        try:
            result = verify_path(self.image, expect=expect)
        finally:
            self._flip(position, bit)
        found: dict[str, set[ProblemKind]] = {}
        for problem in result.problems:
            found.setdefault(problem.file, set()).add(problem.kind)
        return found

    def _flip(self, position: int, bit: int) -> None:
        self.data[position] ^= 1 << bit
        with self.image.open("r+b") as out:
            out.seek(position)
            out.write(self.data[position : position + 1])


@pytest.fixture(scope="module")
def flipper(disc: Path) -> Flipper:
    assert verify_path(disc).problems == ()
    return Flipper(disc)


@pytest.mark.timeout(size(300, 3600))
@pytest.mark.soak
def test_a_bit_of_any_file(flipper: Flipper) -> None:
    """Files are drawn first, so that small ones (README, manifest) are hit as often as large ones."""
    dice = random.Random(SEED)
    names = sorted(flipper.places)
    for turn in range(FLIPS):
        name = names[turn] if turn < len(names) else dice.choice(names)
        start, length = flipper.places[name]
        position, bit = start + dice.randrange(length), dice.randrange(8)
        found = flipper.problems(position, bit)
        assert name in found, f"bit {bit} of byte {position - start} of {name} (seed {SEED}): {found}"
        if name != "MANIFEST.TXT":
            assert ProblemKind.DIGEST in found[name]
    told("flipped bits in files", f"{FLIPS} flips in {len(names)} files, each found and its file named")


def test_a_bit_of_any_file_of_another_makers_medium_in_its_header(tmp_path: Path, disc: Path) -> None:
    """Without a manifest only what is said twice can be checked: the UIDs and keys of records and files."""
    image = tmp_path / "other.iso"
    image.write_bytes(disc.read_bytes())
    flipper = Flipper(image)
    start, length = flipper.places["MANIFEST.TXT"]
    flipper.data[start : start + length] = b"x" * length
    image.write_bytes(flipper.data)
    dice = random.Random(SEED)
    with IsoTree(image) as tree:
        name = next(name for name in tree.files if name.startswith("DICOM/"))
        with tree.open(name) as stream:
            data = stream.read()
    for needle in (b"\x08\x00\x18\x00UI", b"\x10\x00\x20\x00LO", b"\x20\x00\x0d\x00UI", b"\x02\x00\x03\x00UI"):
        value = flipper.places[name][0] + data.index(needle) + 8 + dice.randrange(4)
        assert name in flipper.problems(value, dice.randrange(7))


@pytest.mark.timeout(size(300, 3600))
@pytest.mark.soak
def test_a_bit_between_the_files(flipper: Flipper) -> None:
    """Descriptors, path tables, directories, padding: the image's own digest, and where it can be told, the cause."""
    dice = random.Random(SEED)
    sound = verify_path(flipper.image)
    expect = Expected(image_sha256=sound.image_sha256)
    taken = sorted((start, start + length) for start, length in flipper.places.values())
    first, last = taken[0][0], taken[-1][1]
    gaps = [(0, first)] * 4 + [(end, other) for (_, end), (other, _) in pairwise(taken) if other > end]
    gaps.append((last, len(flipper.data)))
    flips = max(10, FLIPS // 3)
    for _ in range(flips):
        start, end = dice.choice(gaps)
        position, bit = dice.randrange(start, end), dice.randrange(8)
        found = flipper.problems(position, bit, expect)
        assert found, f"bit {bit} of byte {position} (seed {SEED})"
        if not {ProblemKind.STRUCTURE, ProblemKind.MISSING} & set().union(*found.values()):
            assert ProblemKind.DIGEST in found[""]
    told("flipped bits between files", f"{flips} flips, each found")


def test_a_bit_of_a_directory_record(flipper: Flipper) -> None:
    """Name, place and size of a file: told even without knowing the image's digest."""
    name = b"IM000001.;1"
    record = flipper.data.index(name) - 33
    # place and size in both byte orders, the name
    for offset in [*range(2, 18), *range(33, 33 + len(name) - 3)]:
        for bit in (0, 3, 6):
            assert flipper.problems(record + offset, bit), f"bit {bit} of byte {offset} of a directory record"


def test_a_bit_of_what_an_image_says_twice(flipper: Flipper) -> None:
    """Path tables and the primary descriptor's numbers: told even without knowing the image's digest."""
    primary = 16 * 2048
    little = int.from_bytes(flipper.data[primary + 140 : primary + 144], "little") * 2048
    big = int.from_bytes(flipper.data[primary + 148 : primary + 152], "big") * 2048
    size = int.from_bytes(flipper.data[primary + 132 : primary + 136], "little")
    descriptor = [*range(primary + 40, primary + 50), *range(primary + 80, primary + 88)]
    descriptor += [*range(primary + 120, primary + 144), *range(primary + 148, primary + 152)]
    dice = random.Random(SEED)
    for place in [*descriptor, *(dice.randrange(at, at + size) for at in (little, big) for _ in range(20))]:
        bit = dice.randrange(8)
        padding = flipper.data[place] == 0 and place >= little
        assert padding or flipper.problems(place, bit), f"bit {bit} of byte {place} (seed {SEED})"
