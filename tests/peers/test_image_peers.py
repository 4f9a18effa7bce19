"""Our images read by other programs, and theirs read by us."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pycdlib
import pytest

from media.contents import arrange
from media.fileset import build, sizing
from media.manifest import parse
from media.readme import DiscText
from media.signing import SiteKey
from media.trees import FolderTree, IsoTree, open_tree
from media.volumes import pack
from tests.makers import our_disc, study
from tests.media.discs import CREATED, contents, entry, image_of, sha256, written

FILES = contents(11, 300) | {"DICOM/P0000002/ST000001/SR000001": bytes(5_000_000), "EMPTY": b""}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "disc.iso"
    path.write_bytes(written(image_of(FILES, "DISC_0011")))
    return path


def run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def tree_contents(path: Path) -> dict[str, bytes]:
    with open_tree(path) as tree:
        assert tree.problems == []
        return {name: tree.open(name).read() for name in tree.order}


@pytest.mark.peer("xorriso")
def test_xorriso_extracts_what_was_put_in(image: Path, tmp_path: Path) -> None:
    run("xorriso", "-osirrox", "on", "-indev", image, "-extract", "/", tmp_path / "out")
    assert tree_contents(tmp_path / "out") == FILES


@pytest.mark.peer("xorriso")
def test_xorriso_sees_a_plain_level_1_volume_without_complaint(image: Path) -> None:
    text = run("xorriso", "-indev", image, "-pvd_info", "-toc", "-find", "/", "-exec", "report_lba")
    assert "Volume Id    : DISC_0011" in text
    assert "Creation Time: 2024050607080900" in text
    assert not [line for line in text.splitlines() if "WARNING" in line or "SORRY" in line or "FAILURE" in line]


@pytest.mark.peer("7z")
def test_7z_extracts_what_was_put_in(image: Path, tmp_path: Path) -> None:
    assert "Everything is Ok" in run("7z", "t", image)
    run("7z", "x", "-y", f"-o{tmp_path / 'out'}", image)
    assert tree_contents(tmp_path / "out") == FILES


@pytest.mark.peer("isoinfo")
def test_isoinfo_lists_and_reads_every_file(image: Path) -> None:
    listed = run("isoinfo", "-f", "-i", image).split()
    names = {name.removeprefix("/").removesuffix(";1").removesuffix("."): name for name in listed if ";" in name}
    assert set(names) == set(FILES)
    for name in list(FILES)[::25]:
        data = subprocess.run(["isoinfo", "-i", image, "-x", names[name]], capture_output=True, check=True).stdout
        assert data == FILES[name]
    facts = run("isoinfo", "-d", "-i", image)
    assert "NO Joliet present" in facts
    assert "NO Rock Ridge present" in facts


@pytest.mark.peer("isovfy")
def test_isovfy_finds_no_error(image: Path) -> None:
    assert "No errors found" in run("isovfy", image)


def test_pycdlib_reads_what_was_put_in(image: Path) -> None:
    iso = pycdlib.PyCdlib()
    iso.open(str(image))
    found = {}
    for folder, _, names in iso.walk(iso_path="/"):
        for name in names:
            out = io.BytesIO()
            path = f"{folder.rstrip('/')}/{name}"
            iso.get_file_from_iso_fp(out, iso_path=path)
            found[path.lstrip("/").removesuffix(";1").removesuffix(".")] = out.getvalue()
    assert iso.pvd.volume_identifier == b"DISC_0011".ljust(32)
    assert iso.pvd.space_size * 2048 == image.stat().st_size
    iso.close()
    assert found == FILES


@pytest.mark.peer("7z")
def test_a_lower_cased_tree_is_the_same_file_set(image: Path, tmp_path: Path) -> None:
    run("7z", "x", "-y", f"-o{tmp_path / 'out'}", image)
    for path in sorted((tmp_path / "out").rglob("*"), reverse=True):
        path.rename(path.with_name(path.name.lower()))
    assert (tmp_path / "out" / "dicom" / "p0000001").is_dir()
    assert tree_contents(tmp_path / "out") == FILES


@pytest.mark.peer("7z")
def test_sha256sum_checks_an_extracted_disc(tmp_path: Path) -> None:
    entries = []
    for number in range(12):
        source = tmp_path / f"spooled{number}"
        source.write_bytes(bytes([number]) * (number * 1000))
        entries.append(entry(number, series=number % 3, size=number * 1000, source=source, sha256=sha256(source)))
    text = DiscText("Burnish 0.1.0", "STD-GEN-CD", "CD-R-80")
    (volume,) = pack(arrange(entries), capacity_sectors=1000, sizing=sizing(text, file_set_id_length=9)).volumes
    file_set = build(volume, text=text, file_set_id="DISC_0001", file_set_uid="2.25." + "1" * 39, created=CREATED)
    path = tmp_path / "disc.iso"
    path.write_bytes(written(file_set.image))
    run("7z", "x", "-y", f"-o{tmp_path / 'out'}", path)
    run("sha256sum", "--check", "--strict", "--quiet", "MANIFEST.TXT", cwd=tmp_path / "out")
    with FolderTree(tmp_path / "out") as tree:
        listed = parse((tmp_path / "out" / "MANIFEST.TXT").read_bytes()).digests
        assert set(listed) == set(tree.files) - {"MANIFEST.TXT"}


def _folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


SMALL = {"DICOMDIR": b"directory" * 999, "DICOM/PA1/ST1/IM1": b"1" * 5000, "DICOM/PA1/ST1/IM2": b"", "README.TXT": b"x"}


@pytest.mark.peer("xorriso")
@pytest.mark.parametrize(
    "options",
    [
        ["--norock", "-iso-level", "1"],
        ["-iso-level", "3", "-r", "-J"],
        ["-iso-level", "3", "--norock", "-allow-lowercase"],
        ["-iso-level", "4", "-relaxed-filenames", "-U"],
    ],
)
def test_images_of_xorriso_are_read(tmp_path: Path, options: list[str]) -> None:
    folder = _folder(tmp_path / "in", SMALL)
    run("xorriso", "-as", "mkisofs", *options, "-V", "OTHER", "-o", tmp_path / "other.iso", folder)
    with IsoTree(tmp_path / "other.iso") as tree:
        assert tree.volume_id == "OTHER"
    assert tree_contents(tmp_path / "other.iso") == SMALL


@pytest.mark.peer("genisoimage")
@pytest.mark.parametrize(
    "options",
    [
        ["-iso-level", "1"],
        ["-iso-level", "3", "-R", "-J"],
        ["-iso-level", "4", "-allow-lowercase", "-N", "-d"],
        ["-udf", "-J"],
        ["-R", "-D", "-no-pad"],
    ],
)
def test_images_of_genisoimage_are_read(tmp_path: Path, options: list[str]) -> None:
    folder = _folder(tmp_path / "in", SMALL)
    run("genisoimage", "-quiet", *options, "-V", "OTHER", "-o", tmp_path / "other.iso", folder)
    assert tree_contents(tmp_path / "other.iso") == SMALL


@pytest.mark.peer("genisoimage")
def test_lower_cased_names_inside_an_image_are_canonical(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "in", {name.lower(): data for name, data in SMALL.items()})
    run("genisoimage", "-quiet", "-allow-lowercase", "-o", tmp_path / "other.iso", folder)
    assert tree_contents(tmp_path / "other.iso") == SMALL


@pytest.mark.peer("7z", "openssl", "sha256sum")
def test_a_stranger_checks_a_signed_disc_as_its_own_page_says(tmp_path: Path) -> None:
    key = SiteKey.open(tmp_path / "site-key.pem")
    disc = our_disc(tmp_path / "signed.iso", study("CT", 2), seal=key.seal)
    out = tmp_path / "out"
    run("7z", "x", "-y", f"-o{out}", disc)
    assert "FAILED" not in run("sha256sum", "-c", "MANIFEST.TXT", cwd=out)
    (command,) = [line for line in (out / "VERIFY.TXT").read_text().splitlines() if "openssl" in line and " -" in line]
    assert "Signature Verified Successfully" in run(*command.split(), cwd=out)
    (out / "MANIFEST.TXT").write_bytes((out / "MANIFEST.TXT").read_bytes().replace(b"a", b"b", 1))
    assert subprocess.run(command.split(), cwd=out, capture_output=True, check=False).returncode != 0
