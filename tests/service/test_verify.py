"""`burnish verify`: against the catalogue, one disc or a shelf of them, and what is recorded of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from media import isoread
from media.trees import IsoTree
from service import bulk
from service.cli import app
from service.operations import StoreOperations
from tests.extracting import extracted
from tests.faulty import FaultyDrive
from tests.makers import file_set, make
from tests.service.test_cli import burnish


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with two discs of two patients in two copies; tests work on copies of it."""
    from tests.makers import PATIENTS, study

    folder = tmp_path_factory.mktemp("shelf")
    for number, one in enumerate([*study("CT", 3, seed=1), *study("MR", 2, seed=2, patient=PATIENTS["german"])]):
        one.write(folder / "made" / f"{number}.dcm")
    burnish("import", folder / "made", "--data", folder / "data", "--json")
    done = burnish("burn", "--all", "--copies", "2", "--wait", "--data", folder / "data", "--json")
    assert done["state"] == "DONE"
    return folder


@pytest.fixture
def data(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("BURNISH_DATA", raising=False)
    shutil.copytree(shelf / "data", tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def discs(shelf: Path, data: Path) -> list[dict[str, Any]]:
    """The discs, volume by volume; their images lie in a folder that the catalogue does not know."""
    found = burnish("job", "J1", "--data", data, "--json")["discs"]
    folder = data.parent / "box"
    folder.mkdir()
    for disc in found:
        disc["path"] = folder / Path(disc["image"]).name
        shutil.copy(disc["image"], disc["path"])
    return found


def spoil(image: Path, number: int = 0, of: int = 1) -> list[str]:
    """Change a byte in some instances of an image; returns their names."""
    with IsoTree(image) as tree:
        names = sorted(name for name in tree.files if name.startswith("DICOM/"))[number : number + of]
        places = [tree.extents(name)[0] for name in names]
    with image.open("r+b") as file:
        for start, length in places:
            file.seek(start + length - 5)
            file.write(b"\xa5")
    return names


def test_a_sound_disc_is_compared_with_the_catalogue(data: Path, discs: list[dict[str, Any]]) -> None:
    image = discs[0]["path"]
    told = burnish("verify", image, "--data", data, "--json")
    assert (told["ok"], told["problems"]) == (True, [])
    (disc,) = told["discs"]
    assert (disc["known"], disc["result"], disc["lost"]) == (True, "GOOD", [])
    assert (disc["discs"], disc["file_set_uid"]) == (["D1", "D2"], discs[0]["file_set_uid"])
    assert disc["recorded"] is None
    assert burnish("verify", image, "--data", data, "--no-catalogue", "--json") == {"ok": True, "problems": []}
    # Nothing is recorded unless it is asked for.
    assert {one["checked_at"] for one in burnish("find", "--data", data, "--json")} == {None}


def test_a_disc_whose_manifest_was_made_anew_is_found_by_the_catalogue_alone(
    data: Path, discs: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Somebody changed an image and wrote a manifest that fits: by itself the copy seems right."""
    from tests.makers import our_disc, study

    forged = our_disc(tmp_path / "forged.iso", [*study("CT", 3, seed=9)])
    known = burnish("verify", forged, "--data", data, "--json")
    assert known["discs"][0]["known"] is False
    image = discs[0]["path"]
    copy = tmp_path / "copy"
    extracted(image, copy)
    (copy / "README.TXT").write_bytes(b"other")
    assert burnish("verify", copy, "--no-catalogue", "--data", data, "--json", status=1)["ok"] is False


def test_what_is_lost_is_told_by_patient_study_series_and_instance(data: Path, discs: list[dict[str, Any]]) -> None:
    (disc,) = [one for one in discs if (one["volume"], one["copy"]) == (2, 1)]
    names = spoil(disc["path"], of=2)
    told = burnish("verify", disc["path"], "--data", data, "--json", status=1)
    (one,) = told["discs"]
    assert one["result"] == "DAMAGED" and one["instances"] == 3
    assert [lost["file"] for lost in one["lost"]] == names
    studies = {study["study_instance_uid"]: study for study in burnish("studies", "--data", data, "--json")}
    for lost in one["lost"]:
        study = studies[lost["study_instance_uid"]]
        assert (lost["patient_id"], lost["patient_name"]) == (study["patient_id"], study["patient_name"])
        assert lost["modality"] in study["modalities"] and lost["sop_instance_uid"] and lost["instance_number"]
    shown = CliRunner().invoke(app, ["verify", str(disc["path"]), "--data", str(data)])
    assert shown.exit_code == 1
    assert "Lost: 2 of 3 instances" in shown.stdout
    assert one["lost"][0]["patient_name"] in shown.stdout and one["lost"][1]["sop_instance_uid"] in shown.stdout


def test_a_folder_that_holds_the_files_of_a_disc(data: Path, discs: list[dict[str, Any]], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    extracted(discs[0]["path"], copy)
    assert burnish("verify", copy, "--data", data, "--json")["discs"][0]["known"] is True
    gone = sorted(path for path in (copy / "DICOM").rglob("IM*"))[1]
    gone.unlink()
    told = burnish("verify", copy, "--data", data, "--json", status=1)
    assert [(one["kind"], one["file"]) for one in told["discs"][0]["lost"]] == [
        ("MISSING", gone.relative_to(copy).as_posix())
    ]


def test_a_folder_without_directory_is_known_by_its_readme(
    data: Path, discs: list[dict[str, Any]], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    extracted(discs[0]["path"], copy)
    (copy / "DICOMDIR").unlink()
    (one,) = burnish("verify", copy, "--data", data, "--json", status=1)["discs"]
    assert (one["known"], one["file_set_id"], one["lost"]) == (True, discs[0]["file_set_id"], [])
    assert one["result"] == "DAMAGED"


@pytest.mark.parametrize("lost", ["DICOMDIR", "both"])
def test_a_disc_in_a_drive_with_scratches(
    data: Path, discs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """Run-out sectors behind the disc, no directory and no manifest any more: the catalogue knows it by its label."""
    image = discs[0]["path"]
    with IsoTree(image) as tree:
        names = sorted(name for name in tree.files if name.startswith("DICOM/"))
        bad = {tree.extents(name)[0][0] // 2048 for name in ("DICOMDIR", names[0])}
        if lost == "both":
            bad.add(tree.extents("MANIFEST.TXT")[0][0] // 2048)
    monkeypatch.setattr(isoread, "Device", partial(FaultyDrive, bad=bad, run_out=300))
    told = burnish("verify", image, "--data", data, "--json", status=1)
    (one,) = told["discs"]
    assert one["medium"] == "drive" and one["known"] is True
    assert one["file_set_id"] == discs[0]["file_set_id"]
    assert [(instance["kind"], instance["file"]) for instance in one["lost"]] == [("UNREADABLE", names[0])]
    assert one["lost"][0]["patient_name"] and one["lost"][0]["sop_instance_uid"]
    assert sorted(sector for first, last in one["unreadable_sectors"] for sector in range(first, last + 1)) == (
        sorted(bad)
    )
    assert any("volume identifier" in note for note in one["notes"])


def test_record_keeps_the_result_and_flags_the_disc(data: Path, discs: list[dict[str, Any]]) -> None:
    (in_place,) = [Path(one["image"]) for one in discs if (one["volume"], one["copy"]) == (1, 2)]
    at = ("--data", data, "--json")
    # The copied store still names the images of the first one as their places.
    told = burnish("verify", in_place, "--record", *at)
    assert told["discs"][0]["recorded"] == discs[1]["disc"]
    copy = discs[0]["path"]
    assert "say --disc" in burnish("verify", copy, "--record", *at, status=2)
    assert "is no disc of" in burnish("verify", copy, "--record", "--disc", "D77", *at, status=2)
    spoil(copy)
    burnish("verify", copy, "--record", "--disc", discs[0]["disc"], *at, status=1)
    found = {one["disc"]: one for one in burnish("find", *at)}
    assert found[discs[0]["disc"]]["checked_result"] == "DAMAGED"
    assert found[discs[0]["disc"]]["state"] == "VERIFIED"
    assert str(copy) in found[discs[0]["disc"]]["checked_how"]
    assert found[discs[1]["disc"]]["checked_result"] == "GOOD"
    assert found[discs[2]["disc"]]["checked_result"] is None
    assert "found DAMAGED" in burnish("find", "--data", data)
    # One good copy is left of volume 1, two of volume 2.
    assert burnish("purge", "--min-copies", "2", "--dry-run", *at)["instances"] == len(
        burnish("verify", discs[2]["path"], *at)["discs"][0]["discs"]
    ) + (1 if discs[2]["volume"] == 2 else 0)


def test_a_disc_that_the_catalogue_does_not_know_cannot_be_recorded(
    data: Path, discs: list[dict[str, Any]], tmp_path: Path
) -> None:
    folder = file_set(tmp_path / "set", [make("CT")])
    told = burnish("verify", folder, "--record", "--data", data, "--json", status=1)
    assert told["ok"] and any("not recorded" in note for note in told["discs"][0]["notes"])


@pytest.mark.parametrize(
    "options",
    [
        ["--watch", "1"],
        ["--eject"],
        ["--disc", "D1"],
        ["--record", "--no-catalogue"],
        ["--record", "--bulk", "--disc", "D1"],
    ],
)
def test_options_that_make_no_sense_together(data: Path, discs: list[dict[str, Any]], options: list[str]) -> None:
    assert burnish("verify", discs[0]["path"], *options, "--data", data, status=2).startswith("error: ")


def test_without_a_data_folder_none_is_made(discs: list[dict[str, Any]], tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert burnish("verify", discs[0]["path"], "--data", nowhere, "--json") == {"ok": True, "problems": []}
    assert not nowhere.exists()


def test_a_catalogue_that_cannot_be_asked_is_told_and_a_demanded_one_is_an_error(
    discs: list[dict[str, Any]], tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "burnish.db").write_bytes(b"no database at all, but more than a hundred bytes of something else " * 3)
    done = CliRunner().invoke(app, ["verify", str(discs[0]["path"]), "--data", str(broken)])
    assert done.exit_code == 0 and "cannot be asked" in done.stderr
    assert "error" in burnish("verify", discs[0]["path"], "--catalogue", "--data", broken, status=1)


# --------------------------------------------------------------------------------------------------- a whole shelf


def test_bulk_tells_each_disc_by_its_file_set_uid(data: Path, discs: list[dict[str, Any]], tmp_path: Path) -> None:
    box = discs[0]["path"].parent
    for number, disc in enumerate(discs):
        disc["path"] = disc["path"].rename(box / f"slot{number}.img")  # names say nothing
    names = spoil(discs[3]["path"], 1)
    (box / "batch").mkdir()
    file_set(box / "batch" / "other", [make("CT", number=7)])
    extracted(discs[0]["path"], box / "batch" / "mounted")
    (box / "junk.iso").write_bytes(b"no image")
    (box / "notes.txt").write_text("not a disc")
    (box / ".half.iso").write_bytes(b"being written")
    told = burnish("verify", "--bulk", box, "--data", data, "--json", status=1)
    by_name = {Path(one["path"]).name: one for one in told["discs"]}
    assert set(by_name) == {"slot0.img", "slot1.img", "slot2.img", "slot3.img", "other", "mounted", "junk.iso"}
    for number, disc in enumerate(discs):
        assert by_name[f"slot{number}.img"]["file_set_uid"] == disc["file_set_uid"]
    assert {name: one["result"] for name, one in by_name.items()} == {
        "slot0.img": "GOOD",
        "slot1.img": "GOOD",
        "slot2.img": "GOOD",
        "slot3.img": "DAMAGED",
        "other": "GOOD",
        "mounted": "GOOD",
        "junk.iso": "NO DISC",
    }
    assert [lost["file"] for lost in by_name["slot3.img"]["lost"]] == names
    assert (by_name["other"]["known"], by_name["other"]["maker"] != "Burnish") == (False, True)
    summary = {
        "discs": 7,
        "good": 5,
        "damaged": 1,
        "no_disc": 1,
        "known": 5,
        "unknown": 1,
        "other_makers": 1,
        "lost": 1,
    }
    assert summary.items() <= told["summary"].items()
    lines = burnish_lines("verify", "--bulk", box, "--data", data)
    assert sum(line.startswith(("GOOD ", "DAMAGED ", "NO DISC ")) for line in lines) == 7
    assert any("made by another" in line and "other" in line for line in lines)
    assert lines[-1].startswith("7 discs: 5 good, 1 damaged")


def burnish_lines(*arguments: object) -> list[str]:
    return CliRunner().invoke(app, [str(argument) for argument in arguments]).stdout.splitlines()


def test_bulk_records_the_discs_that_are_in_their_places(data: Path, discs: list[dict[str, Any]]) -> None:
    places = Path(discs[0]["image"]).parent
    told = burnish("verify", "--bulk", places, "--record", "--data", data, "--json")
    assert [one["recorded"] for one in told["discs"]] == [one["disc"] for one in discs]
    box = discs[0]["path"].parent
    told = burnish("verify", "--bulk", box, "--record", "--data", data, "--json", status=1)
    assert told["ok"] and all("say --disc" in one["notes"][0] for one in told["discs"])


def test_bulk_without_any_disc(data: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert burnish("verify", "--bulk", tmp_path / "empty", "--json", "--data", tmp_path / "no", status=1)["discs"] == []


def test_media_without_dicomdir_are_named_as_such(data: Path, discs: list[dict[str, Any]], tmp_path: Path) -> None:
    from tests.media.discs import image_of, written

    path = tmp_path / "music.iso"
    path.write_bytes(written(image_of({"TRACK1.WAV": b"music"})))
    (one,) = burnish("verify", "--bulk", path, "--data", data, "--json", status=1)["discs"]
    assert one["result"] == "NOT DICOM"


class Operator:
    """Somebody at a drive: each call of ``sleep`` is a moment in which the next thing happens."""

    def __init__(self, acts: Iterator[Any]) -> None:
        self.acts = acts
        self.time = 0.0

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        act = next(self.acts, None)
        if act:
            act()

    def clock(self) -> float:
        return self.time


def test_watching_a_place_whose_disc_is_changed(discs: list[dict[str, Any]], tmp_path: Path) -> None:
    drive = tmp_path / "drive"
    first, second = discs[0]["path"], discs[2]["path"]

    def load(image: Path) -> Any:
        return lambda: shutil.copy(image, drive)

    operator = Operator(
        iter([None, load(first), None, None, drive.unlink, load(second), None, drive.unlink, None, load(second), None])
    )
    seen = []
    for path in bulk.discs([drive], watch=5, sleep=operator.sleep, clock=operator.clock):
        with IsoTree(path) as tree:
            seen.append(tree.volume_id)
    assert seen == [discs[0]["file_set_id"], discs[2]["file_set_id"], discs[2]["file_set_id"]]
    assert operator.time < 30


def test_watching_a_folder_takes_images_that_are_complete(discs: list[dict[str, Any]], tmp_path: Path) -> None:
    folder = tmp_path / "autoloader"
    folder.mkdir()
    content = discs[0]["path"].read_bytes()
    image = folder / "a.iso"

    def grow(count: int) -> Any:
        return lambda: image.write_bytes(content[:count])

    operator = Operator(iter([grow(100_000), grow(200_000), grow(300_000), grow(len(content)), None, None]))
    sizes = [path.stat().st_size for path in bulk.discs([folder], watch=4, sleep=operator.sleep, clock=operator.clock)]
    assert sizes == [len(content)]


def test_through_the_api(data: Path, discs: list[dict[str, Any]], settings: Any) -> None:
    """The same through a running service; the routes are the operations of the store."""
    from starlette.testclient import TestClient

    from service import opening
    from service.api.application import build
    from service.shutdown import Stopping

    context = opening.open_context(settings)
    try:
        guard = build(StoreOperations(context, source="api"), token="t", hosts=("testserver",), stopping=Stopping())
        client = TestClient(guard, headers={"Authorization": "Bearer t"})
        unknown = client.post("/api/v1/catalogue/medium", json={"file_set_uid": "1.2.3"})
        assert unknown.json() == {"known": False}
        known = client.post("/api/v1/catalogue/medium", json={"file_set_uid": discs[0]["file_set_uid"]}).json()
        assert known["known"] and len(known["instances"]) in (2, 3)
        check = {"disc": "D1", "good": False, "how": "drive", "detail": {"lost": 1}}
        assert client.post("/api/v1/catalogue/checks", json=check).json()["checked_result"] == "DAMAGED"
        assert client.post("/api/v1/catalogue/checks", json=check | {"disc": "D99"}).status_code == 404
    finally:
        opening.close_context(context)


def test_through_a_running_service(data: Path, discs: list[dict[str, Any]]) -> None:
    from tests.service.test_app import Served

    served = Served(data, "--dicom-port", "0", "--http-port", "0")
    try:
        spoil(discs[0]["path"])
        told = burnish("verify", discs[0]["path"], "--record", "--disc", "D1", "--data", data, "--json", status=1)
        assert (told["discs"][0]["recorded"], len(told["discs"][0]["lost"])) == ("D1", 1)
        found = {one["disc"]: one["checked_result"] for one in burnish("find", "--data", data, "--json")}
        assert found["D1"] == "DAMAGED" and found["D2"] is None
    finally:
        served.stop()


def test_json_is_one_document(data: Path, discs: list[dict[str, Any]]) -> None:
    done = CliRunner().invoke(app, ["verify", "--bulk", str(discs[0]["path"].parent), "--data", str(data), "--json"])
    assert json.loads(done.stdout)["ok"] is True
