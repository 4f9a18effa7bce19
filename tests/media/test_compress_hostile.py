"""Damaged and hostile images: refused by name, left uncompressed, or compressed; never another exception."""

from __future__ import annotations

import random
import struct
import warnings
from collections import Counter
from pathlib import Path

import pydicom
import pytest

from media.conform import conform
from media.edits import Edits
from media.problems import MediaError
from media.recipes import is_lossy, recipe_syntax
from tests import soak
from tests.media.images import Kind, data_set, pixels, write

RECIPES = ("jpeg-lossless/1", "j2k/1", "rle/1", "jpeg-extended-q90/1", "jpeg-baseline-q90/1", "j2k-lossy-r8/1")
NEW = Edits(new_sop_instance_uid="1.2.826.0.1.3680043.10.2")


@pytest.fixture(autouse=True)
def _quiet() -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def attempt(source: Path, tmp_path: Path, recipe: str) -> str:
    """``refused``, or the transfer syntax that came of it; whatever was written can be read."""
    target = tmp_path / "target"
    target.unlink(missing_ok=True)
    try:
        result = conform(source, target, recipe, edits=NEW if is_lossy(recipe) else None)
    except MediaError as error:
        assert str(error)
        assert not target.exists()
        return "refused"
    finally:
        assert {path.name for path in tmp_path.iterdir()} <= {"source", "target"}
    assert target.stat().st_size == result.size
    pydicom.dcmread(target)
    return result.transfer_syntax_uid


KINDS = (Kind(), Kind(stored=16, signed=True, frames=2), Kind("RGB", 8, 8, planar=1), Kind("PALETTE COLOR", 8, 8))


@pytest.mark.timeout(soak.size(300, 3600))
@pytest.mark.soak
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_bytes_at_random(kind: Kind, recipe: str, tmp_path: Path) -> None:
    """Of the header, where every byte steers something; pixel data may be anything anyway."""
    source = tmp_path / "source"
    whole = write(data_set(kind, pixels(kind)), source).read_bytes()
    head = len(whole) - kind.frames * kind.rows * kind.columns * kind.samples * kind.allocated // 8
    choice = random.Random(f"{soak.SEED} {kind} {recipe}")
    found: Counter[str] = Counter()
    for _ in range(soak.size(12, 2000)):
        data = bytearray(whole)
        for _ in range(choice.randint(1, 4)):
            at = choice.randrange(132, head)
            data[at] = choice.choice((0, 1, 8, 16, 0x7F, 0xFF, choice.randrange(256)))
        if choice.random() < 0.2:
            del data[choice.randrange(head, len(data)) :]
        source.write_bytes(data)
        found[attempt(source, tmp_path, recipe)] += 1
    soak.told(
        f"mutated headers, {recipe}",
        f"{kind}: {found.total()} attempts, {found['refused']} refused, "
        f"{found[recipe_syntax(recipe)]} compressed, no exception",
    )


NUMBERS = {
    "Rows": 0x00280010, "Columns": 0x00280011, "BitsAllocated": 0x00280100, "BitsStored": 0x00280101,
    "HighBit": 0x00280102, "PixelRepresentation": 0x00280103, "SamplesPerPixel": 0x00280002,
}  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("attribute", NUMBERS)
def test_numbers_that_make_no_sense(attribute: str, recipe: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    whole = write(data_set(Kind(), pixels(Kind())), source).read_bytes()
    tag = NUMBERS[attribute]
    at = whole.index(struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, b"US", 2)) + 8
    for number in (0, 1, 7, 9, 17, 33, 255, 4096, 65535):
        if struct.unpack_from("<H", whole, at)[0] == number or (attribute, number) == ("PixelRepresentation", 1):
            continue
        source.write_bytes(whole[:at] + struct.pack("<H", number) + whole[at + 2 :])
        outcome = attempt(source, tmp_path, recipe)
        if attribute != "PixelRepresentation":
            assert outcome in ("refused", "1.2.840.10008.1.2.1")


@pytest.mark.parametrize("frames", ["0", "-1", "4294967297", "99999999999", "1e3", "ten", "5\\\\5"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_numbers_of_frames(recipe: str, frames: str, tmp_path: Path) -> None:
    data = write(data_set(Kind(), pixels(Kind())), tmp_path / "source").read_bytes()
    at = data.index(b"\x28\x00\x10\x00US")
    value = frames.encode("ascii") + b" " * (len(frames) % 2)
    element = struct.pack("<HH2sH", 0x0028, 0x0008, b"IS", len(value)) + value
    (tmp_path / "source").write_bytes(data[:at] + element + data[at:])
    outcome = attempt(tmp_path / "source", tmp_path, recipe)
    plain = outcome in ("refused", "1.2.840.10008.1.2.1")
    assert plain == (frames != "0" or "baseline" in recipe)  # 0 frames are read as one; 12 bits are too many


@pytest.mark.parametrize("recipe", ["jpeg-lossless/1", "jpeg-extended-q90/1"])
def test_every_cut(recipe: str, tmp_path: Path) -> None:
    """However short the file is, it is refused and not half of it is written."""
    whole = write(data_set(Kind(), pixels(Kind())), tmp_path / "source").read_bytes()
    for length in range(0, len(whole) - 1, 97):
        (tmp_path / "source").write_bytes(whole[:length])
        assert attempt(tmp_path / "source", tmp_path, recipe) in ("refused", "1.2.840.10008.1.2.1")
