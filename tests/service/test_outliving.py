"""The catalogue outlives the machine: spool and database are lost, and everything is there again from the discs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from store.db import Database
from store.models import Instance
from store.retrieval import held
from tests.service.test_cli import burnish


def test_from_the_discs_alone(data: Path, made: Path, tmp_path: Path) -> None:
    at = ("--data", data, "--json")
    burnish("import", made, *at)
    burnish("burn", "--all", "--wait", *at)
    studies, before = burnish("studies", *at), burnish("find", "--patient-name", "*", *at)
    shelf = Path(shutil.move(data / "discs", tmp_path / "shelf"))
    shutil.rmtree(data)

    tried = burnish("catalogue", "rebuild", shelf, "--dry-run", *at)
    assert tried["summary"]["entered"] == len(before) and burnish("studies", *at) == []
    done = burnish("catalogue", "rebuild", shelf, *at)
    assert done["summary"] == tried["summary"] and done["missing"] == []
    assert burnish("catalogue", "rebuild", shelf, *at)["summary"]["known"] == len(before)

    after = burnish("find", "--patient-name", "*", *at)
    kept = ("file_set_id", "file_set_uid", "volume", "of", "instances")
    assert [{key: one[key] for key in kept} for one in after] == [{key: one[key] for key in kept} for one in before]
    assert all(Path(one["location"]).is_file() for one in after)
    assert {one["study_instance_uid"] for one in burnish("studies", *at)} == {s["study_instance_uid"] for s in studies}
    images = [one["location"] for one in after]
    assert burnish("verify", *images, *at)["ok"]

    # Each instance can be read from an image; what comes in anew is the same, and may be purged at once.
    database = Database(f"sqlite:///{data / 'burnish.db'}")
    with database.read() as session:
        ids = [row.id for row in session.query(Instance)]
        assert ids and all(one.places and one.spool_path is None for one in held(session, ids))
    database.close()
    again = burnish("import", made, *at)
    assert (again["imported"], again["duplicates"], again["conflicts"]) == (0, len(ids), 0)
    assert burnish("purge", *at)["instances"] == len(ids)
    burnish("import", made, *at)

    # A new disc gets a number that no disc had.
    job = burnish("burn", "--all", "--wait", *at)
    assert not {one["file_set_id"] for one in before} & {disc["file_set_id"] for disc in job["discs"]}


def test_backups_are_what_is_left_of_an_archive(data: Path, made: Path, tmp_path: Path) -> None:
    at = ("--data", data, "--json")
    count = burnish("import", made, *at)["imported"]
    kept = [disc["location"] for disc in burnish("burn", "--all", "--wait", *at)["discs"]]
    spare = [disc["location"] for disc in burnish("burn", "--all", "--purpose", "backup", "--wait", *at)["discs"]]
    shelf = Path(shutil.move(data / "discs", tmp_path / "shelf"))
    shutil.rmtree(data)

    first = burnish("catalogue", "rebuild", *[shelf / Path(one).name for one in spare], *at)
    assert first["summary"]["purpose_unknown"] == len(spare) and "backup" in first["discs"][0]["notes"][0]
    assert len(burnish("find", "--patient-name", "*", *at)) == len(spare)  # so that it can be recalled from them
    assert "nobody" in burnish("at-risk", "--data", data, status=1)
    burnish("import", made, *at)
    assert burnish("purge", *at)["instances"] == 0

    # The archive's own discs are found after all: backups are what they were made as, and no place of the archive.
    again = burnish("catalogue", "rebuild", shelf, *at)
    assert again["summary"]["purpose_unknown"] == 0
    assert {one["file_set_id"] for one in burnish("find", "--patient-name", "*", *at)} == {
        Path(one).name.partition("_1.")[0] for one in kept
    }
    assert burnish("purge", *at)["instances"] == count


def test_an_export_is_read_in_another_place(data: Path, made: Path, tmp_path: Path) -> None:
    burnish("import", made, "--data", data)
    burnish("burn", "--all", "--wait", "--data", data)
    before = burnish("find", "--patient-name", "*", "--data", data, "--json")
    for number, (to, form) in enumerate(((tmp_path / "x.jsonl", "jsonl"), (tmp_path / "x", "csv"))):
        told = burnish("catalogue", "export", to, "--format", form, "--data", data, "--json")
        assert told["counts"]["disc"] == len(before)
        other = ("--data", tmp_path / f"other{number}", "--json")
        first, second = (burnish("catalogue", "import", to, *other)["counts"] for _ in range(2))
        assert all(one["new"] and not one["known"] for one in first.values())
        assert all(one["known"] and not one["new"] for one in second.values())
        assert burnish("find", "--patient-name", "*", *other) == before
        assert "the selection is empty" in burnish("plan", "--all", *other, status=2)  # nothing is in the spool
    lines = burnish("catalogue", "export", "-", "--data", data).splitlines()
    assert json.loads(lines[0])["format"] == "Burnish catalogue" and json.loads(lines[-1])["record"] == "end"


def test_what_is_wrong_is_one_clear_line(data: Path, made: Path, tmp_path: Path) -> None:
    at = ("--data", data)
    assert "there is no" in burnish("catalogue", "rebuild", tmp_path / "none.iso", *at, status=2)
    (tmp_path / "x.iso").write_bytes(bytes(50_000))
    told = burnish("catalogue", "rebuild", tmp_path / "x.iso", *at, "--json", status=1)
    assert told["discs"][0]["result"] == "NO DISC" and "not an ISO 9660 image" in told["discs"][0]["reason"]
    (tmp_path / "x.jsonl").write_text('{"record": "catalogue", "format": "Burnish catalogue", "version": 1}\n{}\n')
    assert "line 2" in burnish("catalogue", "import", tmp_path / "x.jsonl", *at, status=2)
    burnish("import", made, *at)
    burnish("burn", "--all", "--wait", *at)
    burnish("catalogue", "export", tmp_path / "good.jsonl", *at)
    lines = (tmp_path / "good.jsonl").read_text().splitlines()
    at_line = next(number for number, line in enumerate(lines) if '"record":"series"' in line)
    lines[at_line] = lines[at_line].replace('"series_number":', '"series_number":"x","was":')
    (tmp_path / "bad.jsonl").write_text("\n".join(lines) + "\n")
    told = burnish("catalogue", "import", tmp_path / "bad.jsonl", *at, status=2)
    assert f"bad.jsonl, line {at_line + 1}: " in told and "series_number" in told
    assert "jsonl or csv" in burnish("catalogue", "export", tmp_path / "y", "--format", "xml", *at, status=2)
    assert "is there already" in burnish("catalogue", "export", tmp_path / "x.jsonl", *at, status=2)
