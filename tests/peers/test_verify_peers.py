"""What other programs make is judged fairly: images by three masterers, directories by DCMTK."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from media.verify import verify_path
from tests.makers import KINDS, PATIENTS, Made, file_set, make, our_disc


def everything() -> list[Made]:
    """Instances of every kind and script; a patient has one name only, as dcmmkdir insists."""
    made = [make(kind, number=n) for n, kind in enumerate(KINDS, 1)]
    return made + [make("CT", patient=patient) for name, patient in PATIENTS.items() if name != "ascii"]


MASTERERS = {
    "xorriso": ["xorriso", "-as", "mkisofs", "-quiet"],
    "xorriso with Rock Ridge and Joliet": ["xorriso", "-as", "mkisofs", "-quiet", "-R", "-J"],
    "genisoimage": ["genisoimage", "-quiet", "-iso-level", "1"],
    "genisoimage bridge": ["genisoimage", "-quiet", "-iso-level", "1", "-udf", "-J", "-R"],
}


@pytest.mark.peer("xorriso", "genisoimage")
@pytest.mark.parametrize("program", MASTERERS)
def test_images_by_other_programs(program: str, tmp_path: Path) -> None:
    folder = file_set(tmp_path / "set", everything())
    image = tmp_path / "disc.iso"
    subprocess.run([*MASTERERS[program], "-V", "TESTDISC", "-o", image, folder], check=True, capture_output=True)
    result = verify_path(image)
    assert result.problems == ()
    assert len(result.instances) == len(everything())


@pytest.mark.peer("dcmmkdir")
def test_directory_by_dcmtk(tmp_path: Path) -> None:
    """Its records are ours, key by key, whatever it leaves out or adds."""
    for number, made in enumerate(everything()):
        made.write(tmp_path / "DICOM" / f"F{number:05d}")
    options = ["-W", "-Nxc", "--invent", "+r", "--no-backup", "--fileset-id", "PEER", "--output-file", "DICOMDIR"]
    subprocess.run(["dcmmkdir", *options, "DICOM"], cwd=tmp_path, check=True, capture_output=True)
    result = verify_path(tmp_path)
    refused = {problem.file for problem in result.problems if problem.kind == "UNREFERENCED"}
    assert [problem for problem in result.problems if problem.file not in refused] == []
    assert len(result.instances) + len(refused) == len(everything())
    assert len(refused) <= 2


@pytest.mark.peer("7z", "xorriso")
@pytest.mark.parametrize("program", ["7z", "xorriso"])
def test_copies_of_our_disc_by_other_programs(program: str, tmp_path: Path) -> None:
    image = our_disc(tmp_path / "disc.iso", everything())
    copy = tmp_path / "copy"
    if program == "7z":
        subprocess.run(["7z", "x", f"-o{copy}", image], check=True, capture_output=True)
    else:
        subprocess.run(
            ["xorriso", "-osirrox", "on", "-indev", image, "-extract", "/", copy], check=True, capture_output=True
        )
        subprocess.run(["chmod", "-R", "u+w", copy], check=True)
    result = verify_path(copy)
    assert result.problems == ()
    assert result.profile == "STD-GEN-CD"
