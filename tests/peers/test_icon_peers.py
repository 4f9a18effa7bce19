"""Icons of ours beside those that dcmmkdir makes of the same files; read by dcmdump, dciodvfy and pydicom."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet

from media.icons import make_icon
from media.items import Icon, Item
from media.profile_keys import key_set
from tests.makers import make
from tests.peers.test_dicomdir_peers import errors_of_dciodvfy, files_as_items, write_file_set

TEXT: dict[str, Any] = {"capture_output": True, "text": True, "errors": "replace"}
SIDE = 256


def shapes(folder: Path) -> list[Path]:
    """CT and MR images in which something can be seen: a disc, off the centre, on a slope."""
    rows, columns = numpy.indices((SIDE, SIDE))
    paths = []
    for number, (kind, row, column) in enumerate((("CT", 80, 80), ("MR", 160, 90), ("CT", 128, 200)), 1):
        disc = (rows - row) ** 2 + (columns - column) ** 2 < 50**2
        stored = (rows * 2 + disc * 2000).astype("<u2")

        def change(ds: Dataset, stored: Any = stored) -> None:
            ds.Rows = ds.Columns = SIDE
            ds.PixelData = stored.tobytes()
            for keyword in ("WindowCenter", "WindowWidth"):
                if keyword in ds:
                    delattr(ds, keyword)

        paths.append(make(kind, series=number, change=change).write(folder))
    return paths


def with_icons(items: list[Item], folder: Path, name: str) -> list[Item]:
    rule = key_set(name).icon
    assert rule is not None
    found = []
    for number, item in enumerate(items):
        content = make_icon(item.source, rule.recipe)
        path = folder / f"{number}.icon"
        path.write_bytes(content)
        found.append(replace(item, icon=Icon(path, len(content), sha256(content).hexdigest())))
    return found


def icons_in(dicomdir: Path) -> list[Dataset]:
    records = dcmread(BytesIO(dicomdir.read_bytes())).DirectoryRecordSequence
    return [record.IconImageSequence[0] for record in records if "IconImageSequence" in record]


@pytest.mark.peer("dcmmkdir")
def test_icons_look_like_those_of_dcmmkdir(tmp_path: Path) -> None:
    items = with_icons(list(files_as_items(shapes(tmp_path))), tmp_path, "E.3-2")
    files = write_file_set(items, tmp_path / "fs", "E.3-2")
    ours = icons_in(tmp_path / "fs/DICOMDIR")
    (tmp_path / "fs/DICOMDIR").rename(tmp_path / "ours")
    names = [str(file) for file in files]
    done = subprocess.run(["dcmmkdir", "-Pcm", "+id", ".", "+X", *names], cwd=tmp_path / "fs", check=False, **TEXT)
    assert [line for line in done.stderr.splitlines() if line[:2] in ("E:", "W:", "F:")] == []
    theirs = icons_in(tmp_path / "fs/DICOMDIR")
    assert len(ours) == len(theirs) == 3
    for mine, other in zip(ours, theirs, strict=True):
        for keyword in (
            *("SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns"),
            *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
        ):
            assert mine[keyword].value == other[keyword].value, keyword
        one, two = (numpy.frombuffer(icon.PixelData, "u1").astype(float) for icon in (mine, other))
        assert numpy.corrcoef(one, two)[0, 1] > 0.98


@pytest.mark.peer("dcmdump", "dciodvfy")
@pytest.mark.parametrize("name", ["A.3-2", "B.3-2", "E.3-2"])
def test_a_directory_with_icons_is_read(name: str, tmp_path: Path) -> None:
    items = list(files_as_items(shapes(tmp_path)))
    write_file_set(items, tmp_path / "bare", name)
    write_file_set(with_icons(items, tmp_path, name), tmp_path / "fs", name)
    dicomdir = tmp_path / "fs/DICOMDIR"
    done = subprocess.run(["dcmdump", "+E", "+P", "0088,0200", dicomdir], check=False, **TEXT)
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.count("IconImageSequence") == 3
    assert errors_of_dciodvfy(dicomdir) == errors_of_dciodvfy(tmp_path / "bare/DICOMDIR")
    assert len(list(FileSet(dicomdir))) == 3
    size = {"E.3-2": 64}.get(name, 128)
    for icon in icons_in(dicomdir):
        icon.file_meta = dcmread(dicomdir).file_meta
        assert icon.pixel_array.shape == (size, size)
