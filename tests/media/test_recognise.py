"""What is told of a medium by little reading, and that nothing put there makes it fail."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from media.device import Device
from media.recognise import FILE_SET, FILE_SYSTEM, NOTHING, recognise
from tests import makers


@pytest.fixture(scope="module")
def disc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what is on a disc of ours."""
    folder = tmp_path_factory.mktemp("ours")
    made = list(makers.study("CT", 3, patient=makers.PATIENTS["ascii"]))
    return makers.our_disc(folder / "disc.iso", made)


def test_an_image_of_ours_is_known_by_its_file_set(disc: Path) -> None:
    found = recognise(disc)
    assert (found.kind, found.ours) == (FILE_SET, True)
    assert found.file_set_uid == makers.uid("ours", "BURN000001")
    assert (found.file_set_id, found.number, found.of) == ("BURN000001", 1, 1)
    assert found.whose.startswith(found.patients[0][1])
    assert found.file_set_id in found.says


def test_a_folder_says_the_same_as_the_image(disc: Path, tmp_path: Path) -> None:
    from media.trees import open_tree

    with open_tree(disc) as tree:
        for name in tree.files:
            target = tmp_path / name.lower()
            target.parent.mkdir(parents=True, exist_ok=True)
            with tree.open(name) as stream:
                target.write_bytes(stream.read())
    image, folder = recognise(disc), recognise(tmp_path)
    assert folder == image
    assert recognise(tmp_path / "dicomdir") == image


def test_little_is_read(disc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = 0
    before = Device.read_into

    def counted(self: Device, room: memoryview, offset: int) -> int:
        nonlocal read
        count = before(self, room, offset)
        read += count
        return count

    monkeypatch.setattr(Device, "read_into", counted)
    assert recognise(disc).file_set_uid
    assert read < 512 << 10


def test_of_another_maker(tmp_path: Path) -> None:
    made = list(makers.study("CT", 2, patient=makers.PATIENTS["ascii"]))
    makers.file_set(tmp_path / "set", made, file_set_id="THEIRS")
    found = recognise(tmp_path / "set")
    assert (found.kind, found.ours, found.number) == (FILE_SET, False, None)
    assert "made by" in found.says


def test_a_medium_without_dicomdir_keeps_its_name(disc: Path, tmp_path: Path) -> None:
    (tmp_path / "README.TXT").write_bytes(b"File-set ID:   ABC_0042        \r\nVolume:           1 of    2\r\n")
    found = recognise(tmp_path)
    assert (found.kind, found.file_set_id, found.file_set_uid) == (FILE_SYSTEM, "ABC_0042", "")
    (tmp_path / "DICOMDIR").write_bytes(b"no directory at all" * 100)
    assert recognise(tmp_path).kind == FILE_SYSTEM


@pytest.mark.parametrize(
    "make",
    [
        lambda path: None,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"text"),
        lambda path: path.write_bytes(bytes(100_000)),
        os.mkfifo,
        lambda path: path.symlink_to(path),
    ],
    ids=["absent", "empty", "text", "zeros", "pipe", "loop"],
)
def test_what_is_none_is_said(tmp_path: Path, make: object) -> None:
    path = tmp_path / "thing"
    make(path)  # type: ignore[operator]
    found = recognise(path)
    assert found.kind == NOTHING
    assert found.says


def test_an_empty_folder_is_a_medium_without_dicomdir(tmp_path: Path) -> None:
    assert recognise(tmp_path).kind == FILE_SYSTEM


def test_links_are_not_followed(disc: Path, tmp_path: Path) -> None:
    (tmp_path / "DICOMDIR").symlink_to(disc)
    assert recognise(tmp_path).kind == FILE_SYSTEM


def test_damage_anywhere_never_raises(disc: Path, tmp_path: Path) -> None:
    dice = random.Random(7)
    data = disc.read_bytes()
    head = min(len(data), 80 * 2048)
    kinds = set()
    for _ in range(150):
        broken = bytearray(data[: dice.choice((len(data), dice.randrange(len(data))))])
        for _ in range(dice.randrange(1, 40)):
            if broken:
                broken[dice.randrange(min(head, len(broken)))] = dice.randrange(256)
        path = tmp_path / "broken"
        path.write_bytes(broken)
        kinds.add(recognise(path).kind)
    assert kinds >= {FILE_SET, NOTHING}


def test_a_file_that_cannot_be_read(disc: Path, tmp_path: Path) -> None:
    (tmp_path / "DICOMDIR").mkdir()
    shutil.copy(disc, tmp_path / "README.TXT")
    assert recognise(tmp_path).kind == FILE_SYSTEM
