"""``burnish update``: a disc of ours, and another maker's, get more and less."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from media.signing import SiteKey
from media.verify import verify_path
from tests.makers import PATIENTS, file_set, make
from tests.service.test_cli import burnish


@pytest.fixture
def disc(data: Path, made: Path, tmp_path: Path) -> Path:
    """An image with the three CT instances; the others are in the spool."""
    burnish("import", made, "--data", data)
    done = burnish("burn", "--modality", "CT", "--wait", "--data", data, "--json")
    image = tmp_path / "copy.iso"
    shutil.copy(done["discs"][0]["image"], image)
    return image


def test_an_image_gets_more_and_less(data: Path, disc: Path) -> None:
    added = burnish("update", disc, "add", "--modality", "MR", "--copy", "--data", data, "--json")
    assert (len(added["added"]), added["instances"], added["refused"]) == (2, 5, [])
    assert added["added"][0].startswith("DICOM/P0000002/")
    assert not verify_path(disc).problems
    again = burnish("update", disc, "add", "--all", "--copy", "--data", data, "--json")
    assert (again["added"], len(again["already"]), again["instances"]) == ([], 5, 5)
    gone = burnish("update", disc, "remove", "--modality", "CT", "--copy", "--data", data, "--json")
    assert (len(gone["removed"]), gone["instances"], gone["plan"]) == (3, 2, None)
    assert gone["file_set_uid"] == added["file_set_uid"]
    found = verify_path(disc)
    assert not found.problems and found.signer == SiteKey.open(data / "site-key.pem").public_key


def test_a_profile_without_updater_is_not_updated(data: Path, made: Path, tmp_path: Path) -> None:
    burnish("import", made, "--data", data)
    plan = ("--profile", "STD-GEN-DVD-JPEG", "--wait", "--data", data, "--json")
    done = burnish("burn", "--modality", "CT", *plan)
    image = tmp_path / "copy.iso"
    shutil.copy(done["discs"][0]["image"], image)
    for action in ("add", "remove"):
        told = burnish("update", image, action, "--all", "--copy", "--data", data, status=1)
        assert "STD-GEN-DVD-JPEG defines no File-set Updater (PS3.11 H.1)" in told


def test_a_disc_of_the_catalogue_is_never_changed(data: Path, disc: Path) -> None:
    (found,) = burnish("find", "--patient-name", "*", "--data", data, "--json")
    before = Path(found["location"]).read_bytes()
    told = burnish("update", found["location"], "remove", "--all", "--copy", "--data", data, status=1)
    assert "catalogue" in told
    assert Path(found["location"]).read_bytes() == before


def test_another_makers_folder(data: Path, made: Path, tmp_path: Path) -> None:
    burnish("import", made, "--data", data)
    folder = tmp_path / "other"
    file_set(folder, [make("CT", seed=5, patient=PATIENTS["ascii2"])])
    assert burnish("update", folder, "add", "--all", "--data", data, "--json")["instances"] == 6
    assert not verify_path(folder).problems
    patient = PATIENTS["ascii2"].patient_id
    assert burnish("update", folder, "remove", "--patient-id", patient, "--data", data, "--json")["instances"] == 5
    assert not verify_path(folder).problems


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["nowhere", "add", "--all"], 2, "there is no nowhere"),
        (["DISC", "mend", "--all"], 2, "neither add nor remove"),
        (["DISC", "remove"], 2, "nothing is selected"),
        (["DISC", "remove", "--not-on-disc"], 2, "not_on_disc"),
        (["DISC", "remove", "--sop", "1.2.3"], 2, "no instance of"),
        (["DISC", "remove", "--all"], 1, "catalogue"),
        (["DISC", "add", "--all"], 1, "catalogue"),
        (["DISC", "remove", "--all", "--profile", "STD-GEN-CD"], 2, "belong to add"),
        (["DISC", "add", "--sop", "1.2.3", "--copy"], 2, "selection is empty"),
        (["EMPTY", "add", "--all"], 1, "DICOMDIR"),
        (["EMPTY", "remove", "--all"], 1, "DICOMDIR"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    data: Path, disc: Path, tmp_path: Path, arguments: list[str], status: int, words: str
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"DISC": disc, "EMPTY": tmp_path / "empty"}
    before = disc.read_bytes()
    told = burnish("update", *(places.get(word, word) for word in arguments), "--data", data, status=status)
    assert words in told and told.strip().count("\n") == 0
    assert disc.read_bytes() == before
