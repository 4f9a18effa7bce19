"""Discs with corrected and lossily compressed instances before other programs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from jobs.assemble import volume_image
from media.dicomdir_reader import read
from media.trees import open_tree
from media.verify import verify_path
from tests.jobs.conftest import House, house
from tests.jobs.test_correcting import ingest, plan, volumes
from tests.jobs.test_lossy import clinic
from tests.peers.test_conform_peers import run, spoken

__all__ = ["house"]

RULE = {"name": "moved", "set": {"PatientID": "NEW-1", "PatientName": "Müller^Änne", "StationName": "CT2"}}


@pytest.mark.peer("dcmmkdir")
@pytest.mark.parametrize(
    ("profile", "option"), [("STD-GEN-DVD-J2K", "-Pd2"), ("STD-GEN-DVD-JPEG", "-Pdv"), ("STD-GEN-BD-JPEG", "-Pbd")]
)
def test_dcmmkdir_takes_it_and_dciodvfy_finds_no_new_error(
    profile: str, option: str, house: House, tmp_path: Path
) -> None:
    made = clinic()
    ingest(house.ctx, tmp_path / "in", *made.values())
    document = plan(house.ctx, profile=profile, compress="lossy", allow_lossy=True, coerce=[RULE])
    assert document["refused"] == []
    new = {change["old"]: change["new"] for change in document["changes"] if change["tag"] == "(0008,0018)"}
    assert len(new) == (3 if profile.endswith("J2K") else 2)  # JPEG spares what the presentation state shows
    (volume,) = volumes(house.ctx, document)
    image, root = tmp_path / "disc.iso", tmp_path / "copy"
    with image.open("wb") as out:
        volume_image(house.ctx, volume.id).write(out)
    assert verify_path(image, profile=profile).problems == ()
    with open_tree(image) as tree:
        ours = read(tree.open("DICOMDIR").read())
        paths = {
            record.referenced_sop_instance_uid: "/".join(record.file_id) for record in ours.records if record.file_id
        }
        for name in paths.values():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            with (root / name).open("wb") as target:
                shutil.copyfileobj(tree.open(name), target)
    command = ["dcmmkdir", option, "-nb", "+D", "THEIRS", "+id", ".", *paths.values()]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, errors="replace", check=False)
    assert [line for line in (done.stdout + done.stderr).splitlines() if line[:2] in ("E:", "W:", "F:")] == []
    theirs = read((root / "THEIRS").read_bytes())
    assert sum(bool(record.file_id) for record in theirs.records) == len(made) == len(paths)

    def errors(path: Path) -> set[str]:
        return {line for line in spoken("dciodvfy", path)[0].splitlines() if line.startswith("Error")}

    for number, one in enumerate(made.values()):
        path = root / paths[new.get(one.sop_instance_uid, one.sop_instance_uid)]
        assert errors(path) - errors(tmp_path / "in" / f"{number}.dcm") == set()
        assert "NEW-1" in run("dcmdump", "-q", "+P", "0010,0020", path)
