"""Our IOD check beside dciodvfy: what we call an error of type 1 or 2 it names, too."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

import pydicom
import pytest

from media.iod import check_instance
from media.problems import MediaError

KNOWN = {
    ("secondary capture image", "Modality"): "The tool lets it go, as SC Equipment has it as type 3; General Series, a "
    "mandatory module, has it as type 1 (PS3.3 A.8.1.3, C.7.3.1).",
    ("rt dose", "OperatorsName"): "Type 2 in RT Series by a correction newer than the tool (PS3.3 C.8.8.1).",
}
"""IOD and attribute of errors that dciodvfy (dicom3tools 1.00~20220618093127) does not find, and why we are right."""

PACKAGED = sorted((Path(pydicom.__file__).parent / "data/test_files").glob("*.dcm"))


def named(path: Path) -> set[str]:
    """The attributes that dciodvfy names in lines of errors."""
    done = subprocess.run(["dciodvfy", path], check=False, capture_output=True, text=True, errors="replace", timeout=60)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]
    found = {name for line in lines for name in re.findall(r"Element=<(\w+)>", line)}
    return found | {name.replace(" ", "") for line in lines for name in re.findall(r"attribute <([^>]+)>", line)}


def compare(paths: list[Path]) -> tuple[int, int, Counter[tuple[str, str, str]]]:
    """Instances compared, errors on which both agree, and those that only we have: with the name of a file."""
    compared, agreed = 0, 0
    ours: Counter[tuple[str, str, str]] = Counter()
    for path in paths:
        try:
            report = check_instance(path)
        except MediaError:
            continue
        if report.iod is None:
            continue
        compared += 1
        errors = {finding.keyword for finding in report.errors if finding.type in ("1", "2")}
        theirs = named(path) if errors else set()
        agreed += len(errors & theirs)
        for keyword in errors - theirs:
            if (report.iod, keyword) not in KNOWN:
                ours[report.iod, keyword, path.name] += 1
    return compared, agreed, ours


@pytest.mark.peer("dciodvfy")
def test_dciodvfy_finds_what_we_find_in_packaged_files() -> None:
    compared, agreed, ours = compare(PACKAGED)
    assert not ours
    assert compared >= 50 and agreed >= 80


@pytest.mark.peer("dciodvfy")
@pytest.mark.shared_data
def test_dciodvfy_finds_what_we_find_in_real_files(shared_data: Path) -> None:
    compared, agreed, ours = compare([path for path in sorted(shared_data.rglob("*")) if path.is_file()])
    assert not ours
    assert compared >= 150 and agreed >= 500
