"""Discs in local drives by the commands: side by side, read back, bad ones told, sessions on those left open."""

from __future__ import annotations

from pathlib import Path

import pytest

from media.verify import verify_path
from tests.makers import make
from tests.service.test_cli import burnish

pytestmark = pytest.mark.peer("xorriso")

_BREAKS_ONE_BYTE = """#!/bin/sh
xorriso "$@" || exit
case " $* " in *" cdrecord "*) ;; *) exit 0 ;; esac
for word; do case $word in dev=stdio:*) drive=${word#dev=stdio:} ;; esac; done
printf '?' | dd of="$drive" bs=1 seek=60000 conv=notrunc 2>/dev/null
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    files = tmp_path / "files"
    files.mkdir()
    for number in (1, 2):
        make("CT", number=number, size=100_000).write(files)
    make("MR", seed=3).write(files)
    burnish("import", files, "--data", tmp_path / "data")
    return tmp_path


def settings(site: Path, *lines: str) -> tuple[object, ...]:
    config = site / "burnish.toml"
    config.write_text("\n".join(["[burn]", 'burner = "dvd"', "[burners.dvd]", 'driver = "drive"', *lines]) + "\n")
    return ("--config", config, "--data", site / "data")


def test_two_drives_make_two_copies_and_an_open_disc_takes_a_session(site: Path) -> None:
    at = settings(site, f'drives = ["stdio:{site}/a", "stdio:{site}/b"]', "close = false")
    for name in ("a", "b"):
        (site / name).touch()
    listed = {one["name"]: one for one in burnish("burners", *at, "--json")}
    assert (listed["dvd"]["state"], listed["dvd"]["supplies"]) == ("READY", {"blanks": 2})
    done = burnish("burn", "--modality", "CT", "--copies", "2", "--wait", *at, "--json")
    assert done["state"] == "DONE" and done["needs"] == []
    assert {disc["image"] for disc in done["discs"]} == {str(site / "a"), str(site / "b")}
    for disc in done["discs"]:
        assert (disc["state"], disc["verified_by"], disc["attempt"]) == ("VERIFIED", "read-back", 1)
        assert disc["location"] == disc["image"]
    assert (site / "a").read_bytes() == (site / "b").read_bytes()
    assert burnish("verify", site / "a", site / "b", *at, "--json")["ok"]
    listed = {one["name"]: one for one in burnish("burners", *at, "--json")}
    assert {drive["status"] for drive in listed["dvd"]["drives"]} == {"written"}

    told = burnish("update", site / "a", "add", "--modality", "MR", "--session", "--copy", *at, status=1)
    assert "the catalogue counts on" in told
    taken = (site / "a").rename(site / "taken")
    told = burnish("update", taken, "add", "--modality", "MR", "--session", "--copy", *at, "--json")
    assert told["instances"] == 3 and told["file_set_uid"] == done["discs"][0]["file_set_uid"]
    assert verify_path(taken).ok


def test_a_disc_that_reads_back_wrong_has_failed_and_is_made_again_only_when_asked(site: Path) -> None:
    program = site / "breaks"
    program.write_text(_BREAKS_ONE_BYTE)
    program.chmod(0o755)
    (site / "disc").touch()
    line = f'drive = "stdio:{site}/disc"'
    at = settings(site, line, f'program = "{program}"')
    told = burnish("burn", "--modality", "CT", "--wait", *at, "--json", status=1)
    (disc,) = told["discs"]
    assert told["state"] == "FAILED" and disc["state"] == "FAILED" and "read back with" in disc["error"]
    assert "burnish retry J1" in told["needs"][0]["what"]
    assert "NEEDS A PERSON: D1" in burnish("job", "J1", *at)
    bad = (site / "disc").rename(site / "bad").read_bytes()
    (site / "disc").touch()
    at = settings(site, line)
    done = burnish("retry", "J1", "--wait", *at, "--json")
    assert (done["state"], done["discs"][0]["attempt"]) == ("DONE", 2)
    good = (site / "disc").read_bytes()
    assert [place for place, (one, other) in enumerate(zip(good, bad, strict=True)) if one != other] == [60_000]


def test_a_simulation_ends_cancelled_and_says_why(site: Path) -> None:
    (site / "disc").touch()
    at = settings(site, f'drive = "stdio:{site}/disc"', "simulate = true")
    told = burnish("burn", "--modality", "CT", "--wait", *at, "--json", status=1)
    assert told["state"] == "CANCELLED" and "nothing was written" in told["discs"][0]["error"]
    assert (site / "disc").stat().st_size == 0
