"""Error-correction data of dvdisaster: made as planned, read by all as before, and good for what it is there for."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from media import dvdisaster, ecc
from media.device import SECTOR
from media.ecc import RS02, RS03, Layout
from media.iso9660 import IsoImage, WriteCancelled
from media.items import DiscFile
from media.problems import MediaError, ProblemKind
from media.protection import ProtectedImage, forget
from media.repair import Repaired, repair
from media.trees import IsoTree
from media.verify import verify_path
from service.verification import examine
from tests import soak
from tests.faulty import FaultyDrive
from tests.makers import PATIENTS, our_disc, study
from tests.media.discs import CREATED
from tests.waiting import wait_for

pytestmark = pytest.mark.peer("dvdisaster")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disc of ours without error-correction data: 16 instances of two patients, some 700 sectors."""
    made = [*study("CT", 9, seed=1, size=60_000), *study("MR", 7, seed=2, patient=PATIENTS["german"], size=60_000)]
    return our_disc(tmp_path_factory.mktemp("plain") / "disc.iso", made)


def image_of(path: Path) -> IsoImage:
    """The same image once more, as a plan describes it."""
    with IsoTree(path) as tree:
        files = []
        for name in tree.order:
            with tree.open(name) as stream:
                data = stream.read()
            files.append(DiscFile(tuple(name.split("/")), len(data), hashlib.sha256(data).hexdigest(), data))
        return IsoImage(files, tree.volume_id or "", CREATED)


def protected(plain: Path, staging: Path, percent: float = 20, method: str = RS02) -> ProtectedImage:
    image = image_of(plain)
    return ProtectedImage(image, ecc.layout(method, image.sectors, percent), staging, "DISC-V1")


def written(image: ProtectedImage, path: Path) -> str:
    with path.open("xb") as out:
        return image.write(out)


@pytest.fixture(scope="module")
def discs(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[float, Path]:
    """The disc with 20 % and with 33 % of redundancy."""
    folder = tmp_path_factory.mktemp("discs")
    made = {}
    for percent in (20, 33):
        made[percent] = folder / f"{percent}.iso"
        written(protected(plain, folder / f"staging{percent}", percent), made[percent])
    return made


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


# --------------------------------------------------------------------------------------------------- made as planned


@pytest.mark.timeout(soak.size(300, 3600))
@pytest.mark.soak
def test_images_get_the_size_that_was_planned(plain: Path, tmp_path: Path) -> None:
    draw = random.Random(soak.SEED)
    path = tmp_path / "x.iso"
    with plain.open("rb") as file:
        head = file.read(40 * SECTOR)
    rounds = soak.size(8, 300)
    for _ in range(rounds):
        sectors, percent = draw.randint(180, 4000), draw.choice([4.0, 10.0, 20.0, 33.0, 100.0, 200.0])
        data = bytearray(head) + bytes((sectors - 40) * SECTOR)
        place = 16 * SECTOR + 80
        data[place : place + 8] = sectors.to_bytes(4, "little") + sectors.to_bytes(4, "big")
        path.write_bytes(data)
        layout = ecc.layout(RS02, sectors, percent)
        dvdisaster.augment(path, layout)
        made = path.read_bytes()
        recorded = ecc.recorded(lambda offset, count, made=made: made[offset : offset + count], sectors)  # type: ignore[misc]
        assert recorded is not None and recorded.layout == layout, (sectors, percent)
        assert recorded.rs02 is not None and len(made) == layout.sectors * SECTOR
        for header in recorded.rs02.headers():
            assert made[header * SECTOR :][:16] == b"*dvdisaster*RS02"
        assert recorded.fingerprint == ecc.fingerprint_of(made[16 * SECTOR : 17 * SECTOR])
        assert made[: len(data)] == data
    soak.told("sizes of protected images", f"{rounds} images, each of the size that was planned")


def test_copies_are_equal_whenever_and_wherever_they_are_made(plain: Path, tmp_path: Path) -> None:
    first, other = protected(plain, tmp_path / "one"), protected(plain, tmp_path / "two")
    told: list[int] = []
    with (tmp_path / "a").open("xb") as out:
        digest = first.write(out, told.append)
    data = (tmp_path / "a").read_bytes()
    assert hashlib.sha256(data).hexdigest() == digest
    assert told[-1] == len(data) == first.size == first.sectors * SECTOR
    inode = next((tmp_path / "one").glob("DISC-V1.*")).stat().st_ino
    assert written(first, tmp_path / "b") == digest
    assert next((tmp_path / "one").glob("DISC-V1.*")).stat().st_ino == inode, "staged only once"
    assert written(other, tmp_path / "c") == digest
    assert (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes() == data
    assert forget(tmp_path / "one", lambda key: key == "DISC-V1") == 0
    assert forget(tmp_path / "one", lambda key: False) == 1
    assert list((tmp_path / "one").iterdir()) == []


def test_the_file_system_is_as_it_was_and_verification_knows_what_is_behind_it(
    plain: Path, discs: dict[float, Path]
) -> None:
    image = image_of(plain)
    with discs[20].open("rb") as file:
        head = file.read(image.sectors * SECTOR)
    chunks: list[bytes] = []
    image.write(lambda data: chunks.append(bytes(data)))
    assert b"".join(chunks) == head
    result = verify_path(discs[20])
    assert result.problems == () and len(result.instances) == 16
    found = examine(discs[20])
    assert found.problems == () and found.protection is not None
    assert found.protection.method == RS02 and found.protection.redundancy >= 20
    assert found.notes == ("RS02, 20.3 % redundancy, tested",)
    assert examine(plain).protection is None


@pytest.mark.peer("isoinfo")
@pytest.mark.peer("xorriso")
@pytest.mark.peer("7z")
@pytest.mark.peer("dcmdump")
def test_other_readers_read_the_disc_as_before(plain: Path, discs: dict[float, Path], tmp_path: Path) -> None:
    with IsoTree(plain) as tree:
        names = set(tree.files)
    listed = run("isoinfo", "-i", discs[20], "-f")
    assert {line.strip("/").removesuffix(";1").removesuffix(".") for line in listed.splitlines()} >= names
    run("xorriso", "-osirrox", "on", "-indev", discs[20], "-extract", "/", tmp_path / "xorriso")
    # 7z ends with 1: there are data after the end.
    done = subprocess.run(["7z", "x", f"-o{tmp_path / '7z'}", discs[20]], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1) and "Errors" not in done.stdout
    for folder in ("xorriso", "7z"):
        assert verify_path(tmp_path / folder).problems == (), folder
        directory = subprocess.run(["dcmdump", tmp_path / folder / "DICOMDIR"], capture_output=True, check=True).stdout
        assert directory.count(b"[IMAGE ]") + directory.count(b"[IMAGE]") == 16


def test_what_goes_wrong_while_an_image_is_staged(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    staging = tmp_path / "staging"
    image = protected(plain, staging)
    with pytest.raises(WriteCancelled):
        image.write(lambda _data: None, cancelled=lambda: True)
    digest = image.write(lambda _data: None)
    (staged,) = staging.glob("DISC-V1.*")
    data = bytearray(staged.read_bytes())
    data[-100] ^= 1
    staged.write_bytes(data)
    with pytest.raises(MediaError, match="has changed since it was made"):
        image.write(lambda _data: None)
    staging_was = {path.name for path in staging.iterdir() if not path.name.endswith(".lock")}
    assert staging_was == set()
    assert image.write(lambda _data: None) == digest
    forget(staging, lambda _key: False)
    monkeypatch.setattr("media.protection.SPARE_BYTES", 1 << 60)
    with pytest.raises(MediaError, match="bytes free; the image needs"):
        image.write(lambda _data: None)
    monkeypatch.setattr("media.protection.SPARE_BYTES", 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(dvdisaster.ToolMissing, match="apt install dvdisaster"):
        image.write(lambda _data: None)
    assert {path.suffix for path in staging.iterdir()} <= {".lock"}


@pytest.mark.parametrize("does", ["nothing", "less", "fails", "changes the data"])
def test_a_program_that_says_all_is_well_is_not_believed(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str
) -> None:
    real = dvdisaster.require()
    act = {
        "nothing": "exit 0",
        "less": f'"{real}" "$@"; truncate -s -2048 "$2"',
        "fails": "echo no luck today; exit 3",
        "changes the data": f'"{real}" "$@"; printf XX | dd of="$2" bs=1 seek=400000 conv=notrunc 2>/dev/null',
    }[does]
    tool = tmp_path / "bin" / "dvdisaster"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\n{act}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    with pytest.raises(MediaError):
        protected(plain, tmp_path / "staging").write(lambda _data: None)
    assert not list((tmp_path / "staging").glob("DISC-V1.*"))


_STAGE = """
import sys
from pathlib import Path
from tests.peers.test_protection_peers import protected
protected(Path(sys.argv[1]), Path(sys.argv[2]), 100).write(lambda data: None)
print("done")
"""


def begun(staging: Path, least: int) -> bool:
    """Whether so many bytes of an image are staged already."""
    return any(path.stat().st_size >= least for path in staging.glob(".DISC-V1.*.part"))


def killed_while(plain: Path, staging: Path, least: int) -> bool:
    """Stage an image and kill who does it once so many bytes are there; False: it was complete before."""
    with subprocess.Popen([sys.executable, "-c", _STAGE, plain, staging], stdout=subprocess.PIPE) as child:
        wait_for(lambda: child.poll() is not None or begun(staging, least), "the staging to come so far")
        child.send_signal(signal.SIGSTOP)  # so that it is not through between our look and its death
        stopped = Path(f"/proc/{child.pid}/stat")
        wait_for(lambda: stopped.read_text().rpartition(")")[2].split()[0] in "TZX", "it to stand still")
        hit = any(staging.glob(".DISC-V1.*.part"))
        child.send_signal(signal.SIGKILL)
        assert child.wait() in (0, -signal.SIGKILL)
    return hit


def test_killed_while_the_data_is_made_it_is_made_anew(tmp_path: Path) -> None:
    plain = our_disc(tmp_path / "disc.iso", study("CT", 24, seed=5, size=600_000))
    digest = protected(plain, tmp_path / "undisturbed", 100).write(lambda _data: None)
    staging = tmp_path / "staging"
    size = plain.stat().st_size
    for least in (1, size + 1):  # the image is written; dvdisaster is at work on it
        while not killed_while(plain, staging, least):
            forget(staging, lambda _key: False)  # it was through before we looked: again
        assert not list(staging.glob("DISC-V1.*")), "what is not complete has no name"
    assert protected(plain, staging, 100).write(lambda _data: None) == digest
    assert not list(staging.glob(".DISC-V1.*.part"))


# ----------------------------------------------------------------------------------------------- what it is there for


def sound(path: Path) -> bool:
    return not verify_path(path).problems


def contents(path: Path) -> dict[str, bytes]:
    with IsoTree(path) as tree:
        return {name: tree.open(name).read() for name in tree.files}


def sectors_of(path: Path) -> int:
    return path.stat().st_size // SECTOR


def mended(damaged: Path, original: Path, tmp_path: Path, **device: FaultyDrive) -> Repaired:
    """Repair, and demand every file and the whole image bit for bit."""
    done = repair(damaged, tmp_path / "mended.iso", check=sound, **device)
    assert done.good and done.complete and done.path == tmp_path / "mended.iso"
    assert contents(done.path) == contents(original)
    assert done.path.read_bytes() == original.read_bytes()
    assert not list(tmp_path.glob(".mended*"))
    return done


def scattered(count: int) -> set[int]:
    """A tenth of the sectors, anywhere."""
    return set(random.Random(soak.SEED).sample(range(count), -(-count // 10)))


def scratch(count: int) -> set[int]:
    """A tenth of the sectors, one behind the other, over the volume descriptors, directories and first files."""
    return set(range(5, 5 + -(-count // 10)))


@pytest.mark.parametrize("which", [scattered, scratch])
def test_a_tenth_of_the_sectors_unreadable_and_every_file_recovered(
    discs: dict[float, Path], tmp_path: Path, which: Callable[[int], set[int]]
) -> None:
    """With 20 % of redundancy."""
    original = discs[20]
    bad = which(sectors_of(original))
    assert len(bad) >= sectors_of(original) / 10
    done = mended(original, original, tmp_path, device=FaultyDrive(original, bad, run_out=2))
    assert {sector for first, last in done.unreadable for sector in range(first, last + 1)} - bad <= {
        sectors_of(original),
        sectors_of(original) + 1,
    }


@pytest.mark.parametrize("which", [scattered, scratch])
@pytest.mark.parametrize("by", ["noise", "zeros"])
def test_a_tenth_of_the_sectors_overwritten_and_every_file_recovered(
    discs: dict[float, Path], tmp_path: Path, which: Callable[[int], set[int]], by: str
) -> None:
    """Nothing says where: with 33 % of redundancy, or 20 % where what is lost can be seen."""
    original = discs[33 if by == "noise" else 20]
    data = bytearray(original.read_bytes())
    draw = random.Random(soak.SEED)
    for sector in which(sectors_of(original)):
        data[sector * SECTOR : (sector + 1) * SECTOR] = draw.randbytes(SECTOR) if by == "noise" else bytes(SECTOR)
    damaged = tmp_path / "damaged.iso"
    damaged.write_bytes(data)
    assert not sound(damaged)
    mended(damaged, original, tmp_path)


def test_the_end_cut_off(discs: dict[float, Path], tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.iso"
    damaged.write_bytes(discs[20].read_bytes()[: -(discs[20].stat().st_size // 10) - 77])
    mended(damaged, discs[20], tmp_path)


def test_all_headers_but_one_and_the_volume_descriptor_gone(discs: dict[float, Path], tmp_path: Path) -> None:
    data = bytearray(discs[20].read_bytes())
    with IsoTree(discs[20]) as tree:
        header = tree.volume.volume_size // SECTOR
    places = [at for at in range(0, len(data), SECTOR) if data[at : at + 16] == b"*dvdisaster*RS02"]
    assert places[0] == header * SECTOR and len(places) > 5
    for place in (*places[:3], *places[4:], 16 * SECTOR):
        data[place : place + SECTOR] = b"\x55" * SECTOR
    damaged = tmp_path / "damaged.iso"
    damaged.write_bytes(data)
    mended(damaged, discs[20], tmp_path)


def test_too_much_destroyed_is_told_and_not_taken_for_right(discs: dict[float, Path], tmp_path: Path) -> None:
    original = discs[20]
    count = sectors_of(original)
    bad = set(range(count // 4, count * 6 // 10))
    done = repair(original, tmp_path / "x.iso", check=sound, device=FaultyDrive(original, bad))
    assert not done.good and done.path == tmp_path / "x.iso.bad" and done.path.exists()
    assert not (tmp_path / "x.iso").exists()
    result = verify_path(done.path)
    assert 0 < len(result.lost) < 16
    assert {lost.patient_name for lost in result.lost} <= {PATIENTS["ascii"].name, PATIENTS["german"].name}
    with pytest.raises(MediaError, match="exists already"):
        repair(original, tmp_path / "x.iso", check=sound)


def test_images_without_error_correction_data(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="No error-correction data"):
        repair(plain, tmp_path / "x.iso", check=sound)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["data", "header", "correction"])
def test_damage_is_found_by_verification_alone(discs: dict[float, Path], tmp_path: Path, place: str) -> None:
    data = bytearray(discs[20].read_bytes())
    headers = [at for at in range(0, len(data), SECTOR) if data[at : at + 16] == b"*dvdisaster*RS02"]
    data[{"data": 300_000, "header": headers[-1] + 100, "correction": headers[-1] - 100}[place]] ^= 0xFF
    damaged = tmp_path / "damaged.iso"
    damaged.write_bytes(data)
    found = examine(damaged)
    (problem,) = [problem for problem in found.problems if problem.kind is ProblemKind.PROTECTION]
    assert "RS02, 20.3 % redundancy: dvdisaster says" in problem.detail
    assert "expects that all of it can be repaired" in problem.detail
    assert found.state == "DAMAGED" and bool(found.lost) == (place == "data")
    mended(damaged, discs[20], tmp_path)


def test_more_damage_than_can_be_repaired_is_told_as_such(discs: dict[float, Path], tmp_path: Path) -> None:
    data = bytearray(discs[20].read_bytes())
    count = len(data) // SECTOR
    data[count // 3 * SECTOR : count * 2 // 3 * SECTOR] = bytes((count * 2 // 3 - count // 3) * SECTOR)
    damaged = tmp_path / "damaged.iso"
    damaged.write_bytes(data)
    (problem,) = [one for one in examine(damaged).problems if one.kind is ProblemKind.PROTECTION]
    assert "expects that not all of it can be repaired" in problem.detail


def test_without_the_program_nothing_is_tested_and_that_is_said(
    discs: dict[float, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = examine(discs[20])
    assert found.problems == () and "dvdisaster is not installed" in found.notes[0]
    with pytest.raises(dvdisaster.ToolMissing):
        repair(discs[20], tmp_path / "x.iso", check=sound)


@pytest.mark.timeout(7200)
@pytest.mark.soak
@pytest.mark.skipif(not soak.FULL, reason="RS03 fills a whole CD; BURNISH_SOAK=full")
def test_rs03_fills_a_cd_and_recovers_a_tenth_of_it(plain: Path, tmp_path: Path) -> None:
    image = image_of(plain)
    layout = ecc.layout(RS03, image.sectors, 20)
    assert layout == Layout(RS03, image.sectors, 170, 359_295)
    original = tmp_path / "rs03.iso"
    written(ProtectedImage(image, layout, tmp_path / "staging", "DISC-V1"), original)
    again = tmp_path / "again.iso"
    with again.open("xb") as out:
        image.write(out)
    dvdisaster.augment(again, layout)
    assert again.read_bytes() == original.read_bytes()
    bad = scattered(sectors_of(original)) | scratch(2000)
    mended(original, original, tmp_path, device=FaultyDrive(original, bad))
    soak.told("RS03 on a CD", f"{len(bad)} of {sectors_of(original)} sectors unreadable, every file recovered")
