"""What dvdisaster prints, read right: texts of version 0.79.5."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from media import dvdisaster, ecc
from media.problems import MediaError

HEAD = """dvdisaster 0.79.5 build 10+b1, GNU/Linux 64bit
Copyright 2004-2015 Carsten Gnoerlich.
This software comes with  ABSOLUTELY NO WARRANTY.  This
is free software and you are welcome to redistribute it
under the conditions of the GNU GENERAL PUBLIC LICENSE.
See the file "COPYING" for further information.

x.iso: present, contains 387 medium sectors.
"""
METHOD = """
Error correction data: created by dvdisaster-0.79 (pl5)
- method           : RS02, 43 roots, 20.3% redundancy.
- requires         : dvdisaster-0.66 (good)
- medium sectors   : 387 / 292 (good)
"""
SUMS = """- data md5sum      : 6213e9fd6b3fb59102c128b537ac80b0 (good)
- crc md5sum       : 0f863be2bb35fbc6112ad6b8ed2bfbf7 (good)
- ecc md5sum       : 75af49dc1628fb58b89c4651dd500c42 (good)
"""
GOOD = "- testing sectors  :  99%" + "\b" * 25 + "- good image       : all sectors present\n"
DAMAGED = """* CRC error, sector: 97
* suspicious image : all sectors present, but 1 CRC errors
  ... data section   : 0 sectors missing; 1 CRC errors
"""
RS03 = """
x.iso present.
Error correction properties:
- type             : Augmented image
- method           : RS03, 170 roots, 200.0% redundancy.
Data integrity:
- medium sectors   : 359295 total / 292 data
"""


@pytest.mark.parametrize(
    ("text", "good", "recoverable", "word"),
    [
        (HEAD + GOOD + METHOD + SUMS, True, True, ""),
        (
            HEAD
            + DAMAGED
            + METHOD
            + SUMS.replace("- data md5sum", "* data md5sum").replace("b0 (good)", "b0 (BAD)")
            + "- prognosis        : 387 of 387 sectors recoverable (100.0%)\n",
            False,
            True,
            "CRC error, sector: 97",
        ),
        (
            HEAD + DAMAGED + METHOD + SUMS + "- prognosis        : 300 of 387 sectors recoverable (77.5%)\n",
            False,
            False,
            "suspicious image",
        ),
        (HEAD + GOOD + METHOD + SUMS.replace("- ecc", "* ecc"), False, True, "ecc md5sum"),
        (HEAD + GOOD + "\nmedium.ecc: not present\n", False, False, "no error-correction data was recognised"),
        (HEAD + METHOD + SUMS, False, True, "did not say"),
        ("", False, False, "no error-correction data was recognised"),
        (HEAD + RS03 + "- good image/file  : all sectors present\n- Ecc block test   : pass\n", True, True, ""),
        (
            HEAD + RS03 + DAMAGED + "* Ecc block test   : 1407 good, 2 bad; 6 bad sub blocks\n"
            "- prognosis        : 359295 of 359295 sectors recoverable (100.0%)\n",
            False,
            True,
            "Ecc block test",
        ),
    ],
)
def test_what_a_test_says(text: str, good: bool, recoverable: bool, word: str) -> None:
    tested = dvdisaster.judged(text)
    assert (tested.good, tested.recoverable) == (good, recoverable)
    assert word in " ".join(tested.faults)


def tool(folder: Path, monkeypatch: pytest.MonkeyPatch, does: str) -> None:
    path = folder / "bin" / "dvdisaster"
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{does}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("does", "says"),
    [
        ("exit 0", "where 792576 were planned: no word"),
        ("echo '* no space left'; exit 1", "status 1: no space left"),
        ("truncate -s 792576 $2", "no word"),
        ("kill -9 $$", "status -9"),
    ],
)
def test_a_program_that_does_not_do_its_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, says: str
) -> None:
    tool(tmp_path, monkeypatch, does)
    image = tmp_path / "x.iso"
    image.write_bytes(bytes(2048))
    with pytest.raises(dvdisaster.ToolFailed, match=says):
        dvdisaster.augment(image, ecc.layout(ecc.RS02, 292, 20))


@pytest.mark.parametrize(
    ("prints", "status", "complete"),
    [
        ("Repaired sectors: 9 (5 data, 4 ecc)\nGood! All sectors are repaired.", 1, True),
        ("Repaired sectors: 9 (5 data, 4 ecc)\nGood! All sectors are repaired.", 0, True),
        ("Good! All sectors are already present.", 0, True),
        ("Repaired sectors: 9 (5 data, 4 ecc)\n* Unrepaired sectors: 3", 1, False),
    ],
)
def test_a_repair_that_came_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prints: str, status: int, complete: bool
) -> None:
    """RS03 ends with status 1 when it has repaired everything."""
    tool(tmp_path, monkeypatch, f"printf '{prints}\\n'; exit {status}")
    found, words = dvdisaster.fix(tmp_path / "x.iso", ecc.RS03)
    assert found is complete and ("Repaired sectors" in words or "already present" in words)


def test_a_repair_that_did_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool(tmp_path, monkeypatch, "printf '* dvdisaster - can not continue:\\n* no data\\n'; exit 1")
    with pytest.raises(dvdisaster.ToolFailed, match="no data"):
        dvdisaster.fix(tmp_path / "x.iso", ecc.RS02)


def test_it_is_stopped_when_that_is_wanted_or_when_it_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool(tmp_path, monkeypatch, "echo 'Ecc generation:  12.5%'; exec sleep 60")
    image = tmp_path / "x.iso"
    image.write_bytes(bytes(2048))
    told: list[float] = []
    with pytest.raises(dvdisaster.ToolCancelled):
        dvdisaster.test(image, progress=told.append, cancelled=lambda: bool(told))
    assert told == [0.125]
    monkeypatch.setattr(dvdisaster, "_STALLED_SECONDS", 0.1)
    with pytest.raises(dvdisaster.ToolFailed, match="has said nothing"):
        dvdisaster.test(image)


def test_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert dvdisaster.installed() is None
    with pytest.raises(MediaError, match="apt install dvdisaster"):
        dvdisaster.require()
