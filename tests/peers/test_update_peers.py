"""Updated file-sets as other programs see them."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from media.update import contents, update
from tests import makers
from tests.makers import file_set, make, our_disc

NOW = datetime(2025, 6, 7, tzinfo=UTC)


def run(*command: str | Path) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.peer("dcmdump")
def test_pydicom_and_dcmtk_follow_the_offsets(tmp_path: Path) -> None:
    from pydicom.fileset import FileSet

    folder, new = tmp_path / "medium", tmp_path / "new"
    new.mkdir()
    file_set(folder, [make("CT", number=number) for number in (1, 2, 3)])
    items = [makers.item_of(make(kind, series=5, number=9), new, key)[0] for key, kind in enumerate(("MR", "SR"))]
    update(folder, add=items, now=NOW)
    update(folder, remove=[contents(folder)[0].sop_instance_uid], now=NOW)
    found = FileSet(folder / "DICOMDIR")
    assert {str(one.SOPInstanceUID) for one in found} == {held.sop_instance_uid for held in contents(folder)}
    assert len(found) == 4 and all(Path(one.path).is_file() for one in found)
    assert run("dcmdump", "-q", "+P", "0004,1500", folder / "DICOMDIR").count("0004,1500") == 4


@pytest.mark.peer("xorriso", "dcmdump")
def test_xorriso_reads_an_updated_image(tmp_path: Path) -> None:
    image, new, out = our_disc(tmp_path / "disc.iso", [make("CT")]), tmp_path / "new", tmp_path / "out"
    new.mkdir()
    item, _ = makers.item_of(make("CT", number=2), new, 7)
    done = update(image, add=[item], now=NOW)
    run("xorriso", "-osirrox", "on", "-indev", image, "-extract", "/", out)
    assert (out / done.added[0]).read_bytes() == item.source.read_bytes()
    subprocess.run(["sha256sum", "--quiet", "-c", "MANIFEST.TXT"], cwd=out, check=True)
    run("dcmdump", "-q", out / "DICOMDIR")
