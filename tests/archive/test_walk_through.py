"""docs/archive.md can be pasted, block by block, and tells the truth."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "archive.md"


def blocks() -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.timeout(900)  # some forty commands, each of which loads its libraries anew
def test_the_walk_through_can_be_pasted(tmp_path: Path) -> None:
    assert len(blocks()) > 8
    # Each block stands for itself in the output, so that what follows can be looked for in the right one.
    script = "set -e\n" + "\n".join(f"echo '== {number}'\n{block}" for number, block in enumerate(blocks()))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BURNISH_")}
    environment["BURNISH_DICOM__ACCEPTORS"] = "1"
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    process = subprocess.Popen(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=840)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 15)
        output, _ = process.communicate()
        pytest.fail(f"it does not come to its end:\n{output}")
    assert process.returncode == 0, output
    said = re.split(r"^== \d+$", output, flags=re.MULTILINE)[1:]
    told = dict(enumerate(said))

    def block_with(command: str) -> str:
        (number,) = [number for number, block in enumerate(blocks()) if command in block]
        return told[number]

    assert "2 imported" in block_with("burnish import studies")
    assert "would wait for more" in block_with("schedule preview")
    assert block_with("burn-now").count("VERIFIED") == 2
    assert "shelf A/1" in told[4] and "shelf vault/1" in told[4]
    assert "2 instances and 0 conformed copies freed" in block_with("burnish purge\n")
    assert "something is at risk" in block_with("discs lost") and "nothing is at risk" in block_with("discs lost")
    assert "2 entered" in block_with("catalogue rebuild") and "BURNISH_0000001" in block_with("catalogue rebuild")
    assert "please insert BURNISH_0000001" in block_with("burnish recall --")
    assert "shelf A/1" in block_with("burnish recall --")
    assert "1 instances restored" in block_with("burnish insert") and "DONE" in block_with("burnish insert")
    assert "GOOD" in block_with("burnish watch list inbox --config burnish.toml\n")
    assert (tmp_path / "walk-through/inbox/done/BURNISH_0000001_2.iso").exists()
