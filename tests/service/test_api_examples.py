"""The examples of docs/api.md, pasted into a shell."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from tests.service.test_app import Served

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


@pytest.mark.peer("curl", "bash")
def test_the_examples_do_what_the_page_says(data: Path, tmp_path: Path) -> None:
    examples = PAGE.read_text().partition("## Examples")[2]
    script = "\n".join(re.findall(r"```sh\n(.*?)```", examples, re.DOTALL))
    folder = tmp_path / "work"
    folder.mkdir()
    shutil.copy(get_testdata_file("CT_small.dcm"), folder)
    served = Served(data, "--dicom-port", "0", "--http-port", "0")
    try:
        script = script.replace("127.0.0.1:11180", f"127.0.0.1:{served.http_port}")
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=folder,
            env={"BURNISH_DATA": str(data), "PATH": path},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        served.stop()
    for words in (
        '"outcome":"stored"',
        '"patient_id":"1CT1"',
        "event: job",
        '"new": "DONE"',
        "read-back",
        '"code":"NOT_FOUND"',
        '"7FE00010"',
    ):
        assert words in done.stdout, words
    image = (folder / "disc.iso").read_bytes()
    assert image[32769:32774] == b"CD001" and hashlib.sha256(image).hexdigest() in done.stdout
    assert dcmread(folder / "copy.dcm").PatientID == "1CT1"
    for picture in ("thumbnail.png", "label.png", "picture.png"):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG"), picture
