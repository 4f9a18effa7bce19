"""Corrections and lossy compression by command line: asked for, shown in a few lines, on the disc and in updates."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pydicom
import pytest

from config.sections import Rule
from config.settings import load
from jobs.options import OptionsError
from jobs.rules import options_of
from media.problems import MediaError
from media.trees import open_tree
from media.verify import verify_path
from tests.jobs.test_lossy import smooth
from tests.makers import PATIENTS, make
from tests.service.test_cli import burnish

RULES = """
[[rule]]
name = "moved"
when = { PatientID = "PAT-0001" }
set = { PatientID = "NEW-1", PatientName = "Müller^Änne" }
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    return path


@pytest.fixture
def images(data: Path, tmp_path: Path) -> Path:
    """Forty CT of one patient, one of another."""
    folder = tmp_path / "images"
    for number in range(1, 41):
        make("CT", number=number, change=smooth).write(folder / f"{number}.dcm")
    make("CT", patient=PATIENTS["german"], change=smooth).write(folder / "other.dcm")
    burnish("import", folder, "--data", data)
    return folder


def test_a_plan_tells_it_in_ten_lines_and_the_disc_has_it(data: Path, images: Path, rules: Path) -> None:
    lossy = ("--profile", "STD-GEN-DVD-JPEG", "--compress", "lossy")
    assert "allow_lossy must say so" in burnish("plan", "--all", *lossy, "--data", data, status=2)
    asked = ("--all", *lossy, "--allow-lossy", "--coerce", rules, "--data", data)
    told = burnish("plan", *asked)
    assert "pixel data of 41 instances: lossy, JPEG Extended" in told
    assert "(0010,0020) Patient ID of 40 instances: PAT-0001 -> NEW-1: rule moved" in told
    changed = told[told.index("changed: ") :].splitlines()
    assert 1 < len([line for line in changed if line.startswith("  (")]) <= 10
    done = burnish("burn", *asked, "--patients-per-disc", "many", "--wait", "--json")
    assert (done["state"], [disc["state"] for disc in done["discs"]]) == ("DONE", ["VERIFIED"])
    assert "Patient ID of 40 instances" in burnish("job", done["job"], "--data", data)
    (found,) = burnish("find", "--patient-id", "NEW-1", "--data", data, "--json")
    assert (len(found["instances"]), len(found["originals"])) == (40, 40)
    assert burnish("find", "--sop", found["instances"][0], "--data", data, "--json")
    assert burnish("verify", found["location"], "--data", data, "--json")["ok"] is True
    assert burnish("purge", "--min-copies", "1", "--dry-run", "--data", data, "--json")["instances"] == 0


def test_wrong_rules_are_told_before_anything_is_done(data: Path, images: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('[[rule]]\nname = "x"\nset = { SOPInstanceUID = "1.2" }')
    told = burnish("plan", "--all", "--coerce", wrong, "--data", data, status=2)
    assert "wrong.toml: rule x: 'SOPInstanceUID' is not corrected by rules" in told
    assert "cannot be read" in burnish("burn", "--all", "--coerce", tmp_path / "none", "--data", data, status=2)


def test_an_update_adds_what_was_corrected(data: Path, images: Path, rules: Path, tmp_path: Path) -> None:
    done = burnish("burn", "--patient-id", "DE-17", "--wait", "--data", data, "--json")
    image = tmp_path / "copy.iso"
    shutil.copy(done["discs"][0]["image"], image)
    add = ("--patient-id", "PAT-0001", "--coerce", rules, "--copy", "--data", data)
    added = burnish("update", image, "add", *add, "--json")
    assert (len(added["added"]), added["instances"]) == (40, 41)
    assert not verify_path(image).problems
    with open_tree(image) as tree:
        ids = {pydicom.dcmread(io.BytesIO(tree.open(name).read())).PatientID for name in added["added"]}
    assert ids == {"NEW-1"} and b"PAT-0001" not in image.read_bytes()
    assert "belong to add" in burnish("update", image, "remove", *add, status=2)


def test_auto_burn_rules_and_settings_say_it_too(data: Path, rules: Path) -> None:
    settings = load(data=data, overrides={"compress": {"modalities": {"CT": "lossy"}}})
    rule = Rule(name="er", compress="lossless", coerce=rules)
    options = options_of(rule, settings)
    assert (options.compress, options.allow_lossy, options.coerce[0]["name"]) == ("lossless", False, "moved")
    with pytest.raises(OptionsError, match="allow_lossy"):
        options_of(Rule(name="er", compress="lossy"), settings)
    assert options_of(Rule(name="er", compress="lossy", allow_lossy=True), settings).allow_lossy
    with pytest.raises(MediaError, match="cannot be read"):
        options_of(Rule(name="er", coerce=Path("none.toml")), settings)
