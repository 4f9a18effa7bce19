"""Media made to hurt, or hurt themselves: always a result that names the file, never a traceback, never a hang."""

from __future__ import annotations

import errno
import os
import random
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from media import device, verify
from media.problems import ProblemKind
from media.trees import FolderTree, IsoTree
from media.verify import Expected, VerifyResult, verify_path, verify_tree
from tests.makers import (
    DEFLATED,
    EXPLICIT_BE,
    EXPLICIT_LE,
    IMPLICIT_LE,
    PATIENTS,
    disc_image,
    file_set,
    make,
    our_disc,
    study,
)
from tests.soak import SEED, size, told

ROUNDS = size(60, 1000)

pytestmark = pytest.mark.timeout(size(120, 3600))


def found(result: VerifyResult) -> set[tuple[str, str]]:
    return {(problem.kind.value, problem.file) for problem in result.problems}


def instances(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("PT*/**/*") if path.is_file())


@pytest.fixture
def medium(tmp_path: Path) -> Path:
    return file_set(tmp_path / "set", study("CT", 4))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return our_disc(tmp_path / "disc.iso", [*study("CT", 4), make("SR", patient=PATIENTS["korean"])])


# --------------------------------------------------------------------------------------------------- the DICOMDIR


def offsets_at(data: bytes, element: bytes) -> list[int]:
    """Where the values of an element of four bytes stand."""
    found, at = [], data.find(element)
    while at >= 0:
        found.append(at + 8)
        at = data.find(element, at + 1)
    return found


NEXT, LOWER, FIRST = b"\x04\0\x00\x14UL\x04\0", b"\x04\0\x20\x14UL\x04\0", b"\x04\0\x00\x12UL\x04\0"


@pytest.mark.parametrize("element", [NEXT, LOWER, FIRST])
@pytest.mark.parametrize("target", ["itself", "first", "beyond", "inside", "odd", "zero", "largest"])
def test_offsets_bent(medium: Path, element: bytes, target: str) -> None:
    directory = medium / "DICOMDIR"
    data = bytearray(directory.read_bytes())
    places = offsets_at(data, element)
    first = struct.unpack_from("<L", data, offsets_at(data, FIRST)[0])[0]
    place = places[min(1, len(places) - 1)]
    value = {
        "itself": place - 16,
        "first": first,
        "beyond": len(data) + 1000,
        "inside": first + 2,
        "odd": 7,
        "zero": 0,
        "largest": 0xFFFFFFFF,
    }[target]
    before = bytes(data)
    struct.pack_into("<L", data, place, value)
    directory.write_bytes(data)
    result = verify_path(medium)
    if bytes(data) == before:
        assert result.ok
    else:
        assert any(kind == "STRUCTURE" and file == "DICOMDIR" for kind, file in found(result)), result.problems


@pytest.mark.parametrize(
    "file_id",
    [
        "..\\..\\..\\..\\..\\ETC\\PASSWD",
        "\\ETC\\PASSWD",
        "C:\\WINDOWS\\SYSTEM",
        "A\\..\\DICOMDIR",
        ".\\DICOMDIR",
        "A/B/C/../../../../ETC/PASSWD",
        "pt000000\\st000000",
        "TOOLONGNAME\\X",
        "A\\B\\C\\D\\E\\F\\G\\H\\I\\J",
        "CON\\NUL",
        "\x01\x02\x03",
        "DICOMDIR",
        "PT000000",
        "",
    ],
)
def test_hostile_file_ids(medium: Path, file_id: str) -> None:
    directory = medium / "DICOMDIR"
    data = directory.read_bytes()
    real = b"PT000000\\ST000000\\SE000000\\IM000001 "
    assert real in data or real[:-1] in data
    real = real if real in data else real[:-1]
    directory.write_bytes(data.replace(real, file_id.encode().ljust(len(real))))
    result = verify_path(medium)
    assert not result.ok
    assert ("UNREFERENCED", "PT000000/ST000000/SE000000/IM000001") in found(result)
    assert len(result.instances) == 3


@pytest.mark.soak
def test_dicomdir_mutated_at_random(medium: Path) -> None:
    dice = random.Random(SEED)
    directory = medium / "DICOMDIR"
    sound = directory.read_bytes()
    problems = 0
    for _ in range(ROUNDS * 2):
        data = bytearray(sound)
        for _ in range(dice.choice([1, 1, 3, 20])):
            at = dice.randrange(128, len(data))
            action = dice.randrange(4)
            if action == 0:
                data[at] = dice.randrange(256)
            elif action == 1:
                data[at : at + 4] = dice.choice(
                    [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"]
                )
            elif action == 2:
                del data[at : at + dice.randrange(1, 40)]
            else:
                data[at:at] = dice.randbytes(dice.randrange(1, 40))
        directory.write_bytes(data)
        problems += not verify_path(medium).ok
    told("mutated DICOMDIRs", f"{ROUNDS * 2} read, {problems} found faulty, no exception")


@pytest.mark.parametrize("data", [b"", b"\0", b"DICM", b"\0" * 128 + b"DICM", b"\0" * 5000, b"hello" * 1000])
def test_no_dicomdir_at_all(medium: Path, data: bytes) -> None:
    (medium / "DICOMDIR").write_bytes(data)
    result = verify_path(medium)
    assert ("STRUCTURE", "DICOMDIR") in found(result)
    assert result.instances == ()


# --------------------------------------------------------------------------------------------- what is not a file


def test_links_are_not_followed(medium: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    make("CT", number=1).write(secret)
    first, second, *_ = instances(medium)
    first.unlink()
    first.symlink_to(secret)
    second.unlink()
    second.symlink_to("../../../../../../../../dev/zero")
    (medium / "LOOP").symlink_to(medium)
    result = verify_path(medium)
    names = [path.relative_to(medium).as_posix() for path in (first, second)]
    assert {("MISSING", name) for name in names} <= found(result)
    assert {("STRUCTURE", name) for name in [*names, "LOOP"]} <= found(result)
    assert len(result.instances) == 2


def test_pipes_sockets_devices_and_folders_in_place_of_files(medium: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, device, folder, listener = instances(medium)
    for path in (pipe, device, folder, listener):
        path.unlink()
    os.mkfifo(pipe)
    folder.mkdir()
    monkeypatch.chdir(listener.parent)  # the name of a socket must be short
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(listener.name)
    try:
        os.mknod(device, 0o600 | 0o020000, os.makedev(1, 5))
    except PermissionError:
        os.mkfifo(device)
    result = verify_path(medium)
    bound.close()
    for path in (pipe, device, folder, listener):
        assert ("MISSING", path.relative_to(medium).as_posix()) in found(result)
    assert result.instances == ()


@pytest.mark.parametrize("name", ["DICOMDIR", "MANIFEST.TXT", "README.TXT"])
def test_pipe_in_place_of_our_own_files(image: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "copy"
    with IsoTree(image) as tree:
        for file in tree.files:
            target = folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            with tree.open(file) as stream:
                target.write_bytes(stream.read())
    assert verify_path(folder).ok
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert {("STRUCTURE", name)} <= found(verify_path(folder))


def test_empty_files_everywhere(image: Path, tmp_path: Path) -> None:
    with IsoTree(image) as tree:
        names = list(tree.files)
    for name in names:
        target = tmp_path / "copy" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    assert not verify_path(tmp_path / "copy").ok


# ------------------------------------------------------------------------------------------------- what cannot be read


class Scratched(FolderTree):
    """A folder on a medium with a scratch: one file cannot be opened, or not read to its end."""

    def __init__(self, path: Path, bad: str, at: str) -> None:
        self.bad, self.at = bad, at
        super().__init__(path)

    def open(self, name: str) -> BinaryIO:
        if name != self.bad:
            return super().open(name)
        if self.at == "open":
            raise PermissionError(errno.EACCES, "Permission denied")
        return ScratchedFile(super().open(name))  # type: ignore[return-value]


class ScratchedFile:
    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.taken = 0

    def readinto(self, room: memoryview) -> int:
        if self.taken:
            raise OSError(errno.EIO, "Input/output error")
        self.taken = self.stream.readinto(room[:700])  # type: ignore[attr-defined]
        return self.taken

    def read(self, count: int = -1) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    def fileno(self) -> int:
        return self.stream.fileno()

    def seek(self, offset: int) -> int:
        return self.stream.seek(offset)

    def __enter__(self) -> ScratchedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()


@pytest.mark.parametrize("at", ["open", "read"])
@pytest.mark.parametrize("which", ["instance", "DICOMDIR"])
def test_scratch_in_a_folder(medium: Path, at: str, which: str) -> None:
    bad = "DICOMDIR" if which == "DICOMDIR" else instances(medium)[1].relative_to(medium).as_posix()
    result = verify_tree(Scratched(medium, bad, at))
    assert ("UNREADABLE", bad) in found(result)
    if which == "instance":
        assert found(result) == {("UNREADABLE", bad)}
        assert len(result.instances) == 3


def scratch(monkeypatch: pytest.MonkeyPatch, ranges: list[tuple[int, int]]) -> list[int]:
    """Have these bytes of an image fail; returns where reads were tried."""
    tried: list[int] = []
    preadv, pread = os.preadv, os.pread

    def checked(offset: int, length: int) -> None:
        tried.append(offset)
        if any(offset < end and start < offset + length for start, end in ranges):
            raise OSError(errno.EIO, "Input/output error")

    def bad_preadv(descriptor: int, rooms: list[memoryview], offset: int) -> int:
        checked(offset, len(rooms[0]))
        return preadv(descriptor, rooms, offset)

    def bad_pread(descriptor: int, length: int, offset: int) -> bytes:
        checked(offset, length)
        return pread(descriptor, length, offset)

    monkeypatch.setattr(device.os, "preadv", bad_preadv)
    monkeypatch.setattr(device.os, "pread", bad_pread)
    return tried


def test_scratch_in_an_image(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with IsoTree(image) as tree:
        places = {name: tree.extents(name)[0] for name in tree.files}
    bad = sorted(name for name in places if name.startswith("DICOM/"))[1:3]
    scratch(monkeypatch, [(places[name][0] + 100, places[name][0] + 101) for name in bad])
    result = verify_path(image, expect=Expected(image_sha256="0" * 64))
    assert found(result) == {("UNREADABLE", name) for name in bad}
    assert result.image_sha256 is None
    assert len(result.instances) == 3


def test_scratch_beside_the_files(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = image.stat().st_size
    scratch(monkeypatch, [(size - 5000, size - 4000)])
    result = verify_path(image)
    assert found(result) == {("UNREADABLE", "")}
    assert len(result.instances) == 5


def test_scratch_over_a_large_file_costs_few_tries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = our_disc(tmp_path / "big.iso", [make("CT", number=1, size=8_000_000), make("CT", number=2)])
    with IsoTree(image) as tree:
        (bad, (start, length)) = max(((n, tree.extents(n)[0]) for n in tree.files), key=lambda found: found[1][1])
    tried = scratch(monkeypatch, [(start + 1_000_000, start + length)])
    assert found(verify_path(image)) == {("UNREADABLE", bad)}
    assert len(tried) < 60


def test_files_that_change_while_they_are_read(medium: Path) -> None:
    tree = FolderTree(medium)
    grown, shrunk, gone, _ = instances(medium)
    with grown.open("ab") as out:
        out.write(b"more")
    shrunk.write_bytes(shrunk.read_bytes()[:100])
    gone.unlink()
    result = verify_tree(tree)
    assert found(result) == {("UNREADABLE", path.relative_to(medium).as_posix()) for path in (grown, shrunk, gone)}


# ----------------------------------------------------------------------------------------------------------- images


def test_files_that_share_bytes_are_read_once(image: Path) -> None:
    """A thousand records that all claim the whole disc must not make a verification of a thousand discs."""
    data = bytearray(image.read_bytes())
    records = [at for at in range(len(data) - 8) if data[at : at + 3] == b"IM0" and data[at + 8 : at + 11] == b".;1"]
    assert len(records) >= 4
    for at in records[:2]:
        place = at - 33 + 2
        data[place : place + 8] = struct.pack("<L", 30) + struct.pack(">L", 30)
        data[place + 8 : place + 16] = struct.pack("<L", 40_000) + struct.pack(">L", 40_000)
    # one more that begins inside of those
    place = records[2] - 33 + 2
    data[place : place + 8] = struct.pack("<L", 31) + struct.pack(">L", 31)
    image.write_bytes(data)
    progress: list[int] = []
    result = verify_path(image, progress=lambda done, total: progress.append(done))
    assert progress[-1] == len(data)
    assert any(problem.kind is ProblemKind.STRUCTURE and "middle" in problem.detail for problem in result.problems)


def test_two_names_for_the_same_bytes(image: Path) -> None:
    """Mastering programs store equal files once; that is no fault, but here the digests tell."""
    data = bytearray(image.read_bytes())
    first, second = [
        at - 31 for at in range(len(data) - 8) if data[at : at + 8] in (b"IM000001", b"IM000002") and data[at + 8] == 46
    ][:2]
    data[second : second + 16] = data[first : first + 16]
    image.write_bytes(data)
    kinds = {kind for kind, _ in found(verify_path(image))}
    assert {"DIGEST", "UID"} <= kinds
    assert "STRUCTURE" not in kinds


def mutated(data: bytes, dice: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(dice.choice([1, 2, 8])):
        # the metadata of the image is small: hit it as often as everything behind it
        at = dice.randrange(16 * 2048, min(len(out), 40 * 2048)) if dice.random() < 0.6 else dice.randrange(len(out))
        length = dice.choice([1, 2, 4, 40, 2048])
        out[at : at + length] = dice.choice([dice.randbytes(length), b"\0" * length, b"\xff" * length])
    if dice.random() < 0.2:
        del out[dice.randrange(len(out)) :]
    return bytes(out)


@pytest.mark.soak
def test_images_mutated_at_random(image: Path, tmp_path: Path) -> None:
    dice = random.Random(SEED)
    sound = image.read_bytes()
    digest = verify_path(image).image_sha256
    target = tmp_path / "mutated.iso"
    for turn in range(ROUNDS * 2):
        data = mutated(sound, dice)
        target.write_bytes(data)
        result = verify_path(target, expect=Expected(image_sha256=digest))
        assert data == sound or not result.ok, f"turn {turn} of seed {SEED}"
    told("mutated images", f"{ROUNDS * 2} verified, none taken for the sound one")


@pytest.mark.soak
def test_instances_mutated_at_random(medium: Path) -> None:
    dice = random.Random(SEED)
    victim = instances(medium)[0]
    syntaxes = (EXPLICIT_LE, EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE, DEFLATED)
    sound = [make(kind, transfer_syntax_uid=syntax).part10() for kind in ("SEG", "SR") for syntax in syntaxes]
    problems = 0
    for _ in range(ROUNDS * 2):
        data = bytearray(dice.choice(sound))
        for _ in range(dice.choice([1, 3, 10])):
            at = dice.randrange(128, len(data))
            length = dice.choice([1, 2, 4, 8])
            data[at : at + length] = dice.choice([dice.randbytes(length), b"\xff" * length, b"\xfe\xff\x00\xe0"])
        victim.write_bytes(data)
        problems += not verify_path(medium).ok
    told("mutated instances", f"{ROUNDS * 2} verified, {problems} found faulty, no exception")


def test_sequences_nested_without_end(medium: Path) -> None:
    victim = instances(medium)[0]
    made = make("CT", number=1)
    nest = b"\x40\x00\x30\xa7SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 50_000
    for tail in (
        nest,
        b"\x99\x00\x10\x10UN\0\0\xff\xff\xff\xff"
        + b"\xfe\xff\x00\xe0\xff\xff\xff\xff\x40\x00\x30\xa7\xff\xff\xff\xff" * 50_000,
    ):
        victim.write_bytes(made.meta() + tail)
        result = verify_path(medium)
        assert ("STRUCTURE", victim.relative_to(medium).as_posix()) in found(result)
        assert any("nested" in problem.detail for problem in result.problems)


# ------------------------------------------------------------------------------------------------------ many of them


def test_problems_do_not_fill_the_memory(medium: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(50):
        make("MR", number=number).write(medium / f"X{number:07d}")
    monkeypatch.setattr(verify, "PROBLEM_LIMIT", 20)
    result = verify_path(medium)
    assert len(result.problems) == 21
    assert "30 further" in result.problems[-1].detail


def test_names_that_are_no_text(medium: Path) -> None:
    Path(os.fsdecode(os.fsencode(medium) + b"/\xff\xfe")).mkdir()
    Path(os.fsdecode(os.fsencode(medium) + b"/\xff\xfe/\x80\n")).write_bytes(b"x")
    Path(medium / "LINE\nBREAK").write_bytes(make("MR").part10())
    result = verify_path(medium)
    for problem in result.problems:
        problem.detail.encode("utf-8")
        assert "\n" not in problem.file


@pytest.mark.parametrize("spell", [str.lower, str.upper])
def test_names_that_differ_in_case_only(medium: Path, spell: Callable[[str], str]) -> None:
    first = instances(medium)[0]
    twin = first.with_name("im000000" if first.name != "im000000" else "IM000000")
    twin.write_bytes(first.read_bytes())
    name = first.relative_to(medium).as_posix().upper()
    assert {("STRUCTURE", name), ("MISSING", name)} <= found(verify_path(medium))


def test_an_image_of_nothing(tmp_path: Path) -> None:
    image = disc_image(tmp_path / "empty.iso", tmp_path)
    assert ("MISSING", "DICOMDIR") in found(verify_path(image))


def test_records_nested_without_end(medium: Path) -> None:
    """Twenty thousand records, each below the one before: climbing from each to the root would take minutes."""
    directory = medium / "DICOMDIR"
    data = directory.read_bytes()
    sequence = data.index(b"\x04\0\x20\x12SQ")
    file_id = b"PT000000\\ST000000\\SE000000\\IM000001"
    body = b"\x04\0\x30\x14CS\x08\0PRIVATE " + b"\x04\0\0\x15CS" + struct.pack("<H", len(file_id) + 1) + file_id + b" "
    size = 8 + 12 + 10 + 12 + len(body)
    first = sequence + 12
    records = []
    for number in range(20_000):
        below = first + (number + 1) * size if number < 19_999 else 0
        unique = body.replace(b"IM000001", b"I%07d" % number)
        pointers = NEXT + bytes(4) + b"\x04\0\x10\x14US\x02\0\xff\xff" + LOWER + struct.pack("<L", below)
        records.append(b"\xfe\xff\x00\xe0" + struct.pack("<L", size - 8) + pointers + unique)
    head = bytearray(data[: sequence + 8])
    for element in (FIRST, b"\x04\0\x02\x12UL\x04\0"):
        struct.pack_into("<L", head, offsets_at(head, element)[0], first)
    directory.write_bytes(head + struct.pack("<L", size * 20_000) + b"".join(records))
    result = verify_path(medium)
    assert any("levels deep" in problem.detail for problem in result.problems)
