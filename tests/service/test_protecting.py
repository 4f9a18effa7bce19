"""`--protect`: planned, refused where it cannot be, burnt, recorded, verified, repaired; as a user does it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from media.device import SECTOR
from media.trees import IsoTree
from tests.makers import PATIENTS, study
from tests.service.test_cli import burnish


@pytest.fixture
def at(data: Path, made: Path) -> tuple[Any, ...]:
    burnish("import", made, "--data", data)
    return ("--data", data, "--json")


@pytest.mark.peer("dvdisaster")
def test_the_whole_way(data: Path, at: tuple[Any, ...], tmp_path: Path) -> None:
    plain = burnish("plan", "--all", "--patients-per-disc", "many", "--capacity-sectors", "1000", *at)["volumes"][0]
    options = ("--all", "--patients-per-disc", "many", "--capacity-sectors", "1000", "--protect", "rs02")
    plan = burnish("plan", *options, "--protect-percent", "33", *at)
    assert plan["protection"] == {"method": "rs02", "percent": 33.0}
    (volume,) = plan["volumes"]
    assert (volume["protection"], volume["capacity_sectors"]) == ("rs02", 1000)
    assert volume["redundancy"] >= 33 and volume["iso_sectors"] < volume["sectors"] <= 1000
    # README.TXT says what the data is for, so the file system is a little larger.
    assert volume["iso_sectors"] - plain["sectors"] in range(3)
    assert "error-correction data of volume 1: RS02, 33" in burnish(
        "plan", *options, "--protect-percent", "33", *at[:2]
    )

    done = burnish("burn", "--plan", plan["plan"], "--copies", "2", "--wait", *at)
    assert done["state"] == "DONE"
    first, second = done["discs"]
    assert first["sha256"] == second["sha256"] and first["protection"] == "rs02"
    assert Path(first["image"]).stat().st_size == volume["sectors"] * SECTOR
    assert Path(first["image"]).read_bytes() == Path(second["image"]).read_bytes()
    assert not [path for path in (data / "staging").iterdir() if not path.name.endswith(".lock")], (
        "it went with the job"
    )
    found = burnish("find", *at)
    assert {(one["protection"], one["redundancy"]) for one in found} == {("rs02", volume["redundancy"])}
    with IsoTree(Path(first["image"])) as tree, tree.open("README.TXT") as readme:
        assert tree.volume.volume_size == volume["iso_sectors"] * SECTOR
        assert "dvdisaster" in readme.read().decode()
    (verified,) = burnish("verify", first["image"], *at)["discs"]
    assert (verified["result"], verified["protection"], verified["known"]) == ("GOOD", "rs02", True)
    told = burnish("update", second["image"], "remove", "--modality", "CT", "--copy", *at[:2], status=1)
    assert "error-correction data" in told or "catalogue" in told

    damaged = bytearray(Path(first["image"]).read_bytes())
    count = len(damaged) // SECTOR
    for sector in random.Random(1).sample(range(count), count // 10):
        damaged[sector * SECTOR : (sector + 1) * SECTOR] = bytes(SECTOR)
    (tmp_path / "old.iso").write_bytes(damaged)
    told = burnish("update", tmp_path / "old.iso", "remove", "--modality", "CT", "--copy", *at[:2], status=1)
    mended = burnish("repair", tmp_path / "old.iso", "--out", tmp_path / "new.iso", *at)
    assert mended["ok"] and mended["repaired"] and mended["protection"] == "rs02" and mended["lost"] == []
    assert (tmp_path / "new.iso").read_bytes() == Path(first["image"]).read_bytes()
    assert "exists already" in burnish("repair", tmp_path / "old.iso", "--out", tmp_path / "new.iso", *at, status=2)


@pytest.mark.peer("dvdisaster")
def test_less_goes_on_a_volume(data: Path, tmp_path: Path) -> None:
    """What fits on one volume needs two where correction data takes its part."""
    made = [*study("CT", 3, seed=1, size=100_000), *study("MR", 3, seed=2, patient=PATIENTS["german"], size=100_000)]
    for number, one in enumerate(made):
        one.write(tmp_path / "large" / f"{number}.dcm")
    at = ("--data", data, "--json")
    burnish("import", tmp_path / "large", *at)
    base = ("--all", "--patients-per-disc", "many", "--capacity-sectors", "600")
    (whole,) = burnish("plan", *base, *at)["volumes"]
    parts = burnish("plan", *base, "--protect", "rs02", "--protect-percent", "20", *at)["volumes"]
    assert len(parts) == 2 and sum(part["instances"] for part in parts) == whole["instances"] == 6
    assert all(part["iso_sectors"] < part["sectors"] <= 600 for part in parts)


@pytest.mark.peer("dvdisaster")
def test_an_image_with_correction_data_is_not_updated(at: tuple[Any, ...], tmp_path: Path) -> None:
    done = burnish("burn", "--modality", "CT", "--protect", "rs02", "--wait", *at)
    copy = tmp_path / "copy.iso"
    copy.write_bytes(Path(done["discs"][0]["image"]).read_bytes())
    for extra in ((), ("--session",)):
        told = burnish("update", copy, "add", "--modality", "MR", "--copy", *extra, *at[:2], status=1)
        assert "error-correction data" in told
    assert copy.read_bytes() == Path(done["discs"][0]["image"]).read_bytes()


def refused(*arguments: Any) -> str:
    document = burnish("plan", "--all", *arguments, status=1)
    text: str = document["error"]["detail"]
    assert document["error"]["code"] == "NOT_SUPPORTED"
    return text


def test_where_the_program_is_not_installed(
    at: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "dvdisaster is not installed here" in refused("--protect", "rs02", *at)
    assert burnish("plan", "--all", "--protect", "none", *at)["volumes"]
    job = burnish("burn", "--all", "--protect", "rs02", "--wait", *at, status=1)
    assert job["state"] == "FAILED" and "dvdisaster is not installed" in job["error"]


@pytest.mark.peer("dvdisaster")
def test_media_and_burners_that_take_files(at: tuple[Any, ...], data: Path, tmp_path: Path) -> None:
    usb = ("--profile", "STD-GEN-USB-JPEG", "--medium", "USB", "--protect", "rs02")
    assert "USB takes files, not an image" in refused(*usb, *at)
    (tmp_path / "stick").mkdir()
    config = tmp_path / "burnish.toml"
    config.write_text(f'[burners.stick]\ndriver = "folder"\nfolder = "{tmp_path / "stick"}"\n')
    told = (*at, "--config", config)
    job = burnish("burn", "--all", "--burner", "stick", "--protect", "rs02", "--wait", *told, status=1)
    assert (job["state"], job["reason"]) == ("FAILED", "NOT_SUPPORTED")
    assert "burner stick writes files" in job["error"]
    plan = burnish("plan", "--all", "--protect", "rs02", *told)["plan"]
    job = burnish("burn", "--plan", plan, "--burner", "stick", "--wait", *told, status=1)
    assert {disc["state"] for disc in job["discs"]} == {"FAILED"}
    assert all("burner stick writes files" in disc["error"] for disc in job["discs"])
    assert list((tmp_path / "stick").iterdir()) == []


@pytest.mark.peer("dvdisaster")
def test_media_that_rs03_cannot_fill(at: tuple[Any, ...]) -> None:
    assert "RS03 needs a medium of at least 359295 sectors" in refused("--protect", "rs03", "--medium", "CD-R-74", *at)
    plan = burnish("plan", "--all", "--protect", "rs03", *at)
    # The reserve of the medium is given up: RS03 fills it to its end.
    assert {(one["sectors"], one["capacity_sectors"]) for one in plan["volumes"]} == {(359_295, 359_424)}


@pytest.mark.parametrize(
    "options", [("--protect", "rs01"), ("--protect", "rs02", "--protect-percent", "2"), ("--protect-percent", "201")]
)
def test_values_that_make_no_sense(at: tuple[Any, ...], options: tuple[str, ...]) -> None:
    assert "protect" in burnish("plan", "--all", *options, *at[:2], status=2)


def test_repair_says_what_is_wrong_with_its_arguments(data: Path, tmp_path: Path) -> None:
    image = tmp_path / "x.iso"
    assert "there is no" in burnish("repair", image, "--out", tmp_path / "y.iso", "--data", data, status=2)
    image.write_bytes(json.dumps({}).encode())
    assert "there is no folder" in burnish("repair", image, "--out", tmp_path / "a/y.iso", "--data", data, status=2)


@pytest.mark.parametrize(("said", "wanted"), [("", "rs02"), ("none", "none"), ("rs03", "rs03")])
def test_rules_may_say_it_for_what_they_burn(data: Path, said: str, wanted: str) -> None:
    from config.sections import Rule
    from config.settings import load
    from jobs.rules import options_of

    settings = load(data=data, overrides={"plan": {"protect": "rs02", "protect_percent": 25.0}})
    options = options_of(Rule(name="archive", protect=said), settings)  # type: ignore[arg-type]
    assert (options.protect, options.protect_percent) == (wanted, 25.0)
