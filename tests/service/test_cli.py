from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from media.signing import SiteKey
from service.cli import app
from service.lock import DataLock
from tests.makers import make
from tests.service.test_lock import hold


def burnish(*arguments: object, status: int = 0) -> Any:
    """Run a command; its standard output parsed as JSON (with ``--json``) or as text."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == status, f"{done.exit_code}\n{done.stdout}\n{done.stderr}\n{done.exception!r}"
    assert "Traceback" not in done.stderr
    if "--json" in arguments and status != 2:
        return json.loads(done.stdout)
    return done.stdout if status == 0 else done.stderr


def test_the_whole_way_without_a_service(data: Path, made: Path) -> None:
    at = ("--data", data, "--json")
    assert burnish("studies", *at) == []
    assert burnish("import", made, *at) == {"imported": 5, "duplicates": 0, "conflicts": 0, "refused": []}
    studies = burnish("studies", *at)
    contract = {"study_instance_uid", "patient_id", "patient_name", "study_date", "series", "instances", "bytes"}
    assert len(studies) == 2 and all(contract <= set(one) for one in studies)

    plan = burnish("plan", "--all", *at)
    assert {"plan", "volumes", "changes", "supplied", "refused"} <= set(plan)
    assert sorted(one["instances"] for one in plan["volumes"]) == [2, 3]
    queued = burnish("burn", "--plan", plan["plan"], "--copies", "2", *at)
    assert (queued["job"], queued["state"], queued["discs"]) == ("J1", "QUEUED", [])
    assert burnish("cancel", "J1", *at)["state"] == "CANCELLED"
    done = burnish("retry", "1", "--wait", *at)
    assert done["state"] == "DONE" and len(done["discs"]) == 4
    for disc in done["discs"]:
        assert {"volume", "copy", "file_set_id", "file_set_uid", "image", "sha256", "state", "verified_by"} <= set(disc)
        assert (disc["state"], disc["verified_by"]) == ("VERIFIED", "read-back")
        assert Path(disc["image"]).is_absolute()
        assert Path(disc["image"]).stat().st_size == 2048 * plan["volumes"][disc["volume"] - 1]["sectors"]
        assert disc["file_set_id"] == plan["volumes"][disc["volume"] - 1]["file_set_id"]
    job = burnish("job", "J1", *at)
    assert job["discs"] == done["discs"] and {"progress", "report"} <= set(job)
    (listed,) = burnish("jobs", *at)
    assert (listed["job"], listed["state"], listed["profile"]) == ("J1", "DONE", "STD-GEN-CD")

    images = [disc["image"] for disc in done["discs"]]
    assert burnish("verify", *images, "--json") == {"ok": True, "problems": []}
    site = SiteKey.open(data / "site-key.pem")
    (data / "public.pem").write_bytes(site.public_key)
    signed = burnish("verify", images[0], "--key", data / "public.pem", "--json")
    assert signed == {"ok": True, "problems": [], "signed_by": [site.fingerprint]}
    assert site.fingerprint in burnish("doctor", *at)["state"]["signing key"]
    (data / "other.pem").write_bytes(SiteKey.open(data / "other-key.pem").public_key)
    signed = burnish("verify", images[0], "--key", data / "other.pem", "--json", status=1)
    assert [problem["kind"] for problem in signed["problems"]] == ["SIGNATURE"]
    found = burnish("find", "--patient-name", "äneas*", *at)
    assert [one["copy"] for one in found] == [1, 2] and len(found[0]["instances"]) == 2
    keys = {"volume", "copy", "file_set_id", "file_set_uid", "state", "verified_by", "verified_at", "location"}
    assert keys <= set(found[0])

    assert burnish("purge", "--min-copies", "3", *at)["instances"] == 0
    assert burnish("purge", "--dry-run", *at)["instances"] == 5
    assert burnish("purge", *at)["instances"] == 5
    assert len(burnish("find", *at)) == 4, "the catalogue outlives the spool"
    burnish("burn", "--not-on-disc", *at, status=2)
    assert burnish("doctor", *at)["ok"]


def test_people_get_tables(data: Path, made: Path) -> None:
    burnish("import", made, "--data", data)
    assert "Rüdiger" in burnish("studies", "--data", data)
    shown = burnish("plan", "--all", "--data", data)
    assert "1 of 2" in shown and "\N{FULL BLOCK}" in shown
    shown = burnish("burn", "--all", "--wait", "--data", data)
    assert "DONE" in shown and "BURNISH_0000003" in shown and ".iso" in shown
    assert "DONE" in burnish("jobs", "--data", data)
    assert "VERIFIED" in burnish("job", "J1", "--data", data)
    assert "VERIFIED" in burnish("find", "--data", data)
    assert "Nothing is wrong." in burnish("doctor", "--data", data)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plan"], "--study"),
        (["burn"], "--study"),
        (["burn", "--all", "--plan", "P1"], "either SELECT or --plan"),
        (["plan", "--study", "1.2.3"], "selection is empty"),
        (["plan", "--all", "--profile", "STD-GEN-CD", "--medium", "BD-25"], "STD-GEN-BD with BD-25"),
        (["plan", "--all", "--medium", "FLOPPY"], "CD-R-80"),
        (["plan", "--all", "--profile", "STD-GEN-DV"], "STD-GEN-DVD-JPEG"),
        (["plan", "--all", "--profile", "NONE"], "`burnish profiles`"),
        (["plan", "--all", "--capacity-sectors", "0"], "positive"),
        (["plan", "--all", "--capacity-sectors", "many"], "capacity-sectors"),
        (["burn", "--all", "--copies", "100"], "1 to 99"),
        (["burn", "--all", "--priority", "urgent"], "high, med, low"),
        (["burn", "--all", "--burner", "oven"], "there are iso"),
        (["plan", "--all", "--patients-per-disc", "two"], "one, many"),
        (["burn", "--plan", "P7"], "no plan P7"),
        (["job", "J9"], "no job J9"),
        (["job", "X"], "look like J12"),
        (["cancel", "9"], "no job J9"),
        (["retry", "J9"], "no job J9"),
        (["import", "/nowhere/at/all"], "/nowhere/at/all"),
        (["verify", "/nowhere/at/all"], "/nowhere/at/all"),
        (["delete", "--all"], "--yes"),
        (["delete", "--yes"], "nothing is selected"),
        (["purge", "--min-copies", "0"], "at least 1"),
        (["find", "--date-range", "x"], "date range"),
        (["frobnicate"], "frobnicate"),
        (["plan", "--all", "--frobnicate"], "--frobnicate"),
    ],
)
def test_wrong_usage_is_2_with_one_clear_line(data: Path, made: Path, arguments: list[str], words: str) -> None:
    if arguments[:2] in (["plan", "--all"], ["burn", "--all"]):
        burnish("import", made, "--data", data)
    at = () if arguments[0] == "frobnicate" else ("--data", data)
    assert words in burnish(*arguments, *at, status=2)


def test_what_a_terminal_obeys_is_not_printed(data: Path) -> None:
    said = burnish("import", "/none/\x9b2J\x07x", "--data", data, status=2)
    assert said.startswith("error: there is no /none/\N{REPLACEMENT CHARACTER}2J\N{REPLACEMENT CHARACTER}x")


def test_wrong_settings_are_wrong_usage_and_all_are_listed(data: Path, tmp_path: Path) -> None:
    config = tmp_path / "burnish.toml"
    config.write_text('[dicom]\nport = 99999\n[plan]\nconflicts = "maybe"\nwarp = 9\n')
    told = burnish("studies", "--data", data, "--config", config, status=2)
    assert "dicom.port" in told and "plan.conflicts" in told and "plan.warp" in told
    assert "no-such.toml" in burnish("studies", "--config", tmp_path / "no-such.toml", status=2)


@pytest.mark.parametrize(
    ("url", "status", "words"),
    [
        ("nonsense", 2, "database.url is no URL"),
        ("mysql://root@localhost/x", 2, "SQLite and PostgreSQL"),
        ("postgresql+psycopg://me:hunter7@127.0.0.1:1/x", 1, "Connection refused"),
    ],
)
def test_a_database_that_cannot_be_used_is_said_in_one_line(
    data: Path, monkeypatch: pytest.MonkeyPatch, url: str, status: int, words: str
) -> None:
    monkeypatch.setenv("BURNISH_DATABASE__URL", url)
    told = burnish("studies", "--data", data, status=status)
    assert words in told and len(told.splitlines()) == 1 and "hunter7" not in told
    document = burnish("doctor", "--data", data, "--json", status=1)
    assert words in document["problems"][0]["what"] and "hunter7" not in json.dumps(document)


def test_a_file_that_is_no_database_is_said_in_one_line(data: Path) -> None:
    data.mkdir()
    (data / "burnish.db").write_bytes(b"not what it seems" * 500)
    assert "file is not a database" in burnish("studies", "--data", data, status=1)


def test_data_comes_from_the_environment_too(data: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURNISH_DATA", str(data))
    burnish("import", made)
    assert (data / "burnish.db").exists()
    assert len(burnish("studies", "--json")) == 2


def test_what_is_refused_fails_a_job_unless_it_may_be_skipped(data: Path, tmp_path: Path) -> None:
    bad = make("CT", number=2, StudyDate=None, SeriesDate=None, ContentDate=None, AcquisitionDate=None)
    at = ("--data", data, "--json")
    burnish("import", make("CT", seed=1).write(tmp_path / "good.dcm"), *at)
    private = make("CT", seed=5, number=2, SOPClassUID="1.2.3.4").write(tmp_path / "private.dcm")
    burnish("import", private, bad.write(tmp_path / "bad.dcm"), *at)
    plan = burnish("plan", "--all", *at)
    refused = {one["sop_instance_uid"]: one["reason"] for one in plan["refused"]}
    assert refused and all(refused.values())
    failed = burnish("burn", "--all", "--wait", *at, status=1)
    assert failed["state"] == "FAILED" and failed["error"] and not failed["discs"]
    assert burnish("burn", "--all", "--skip-refused", "--wait", *at)["state"] == "DONE"


def test_a_plan_fixes_its_options_but_not_who_may_be_left_out(data: Path, tmp_path: Path) -> None:
    at = ("--data", data, "--json")
    burnish("import", make("CT", seed=1).write(tmp_path / "good.dcm"), *at)
    burnish("import", make("CT", seed=2, study=2, SOPClassUID="1.2.3.4").write(tmp_path / "bad.dcm"), *at)
    plan = burnish("plan", "--all", "--medium", "CD-R-74", *at)
    assert len(plan["refused"]) == 1 and len(plan["volumes"]) == 1
    told = burnish("burn", "--plan", plan["plan"], "--medium", "CD-R-80", "--data", data, status=2)
    assert "medium: a plan fixes this" in told
    done = burnish(
        "burn", "--plan", plan["plan"], "--medium", "CD-R-74", "--skip-refused", "--copies", "2", "--wait", *at
    )
    assert done["state"] == "DONE" and len(done["discs"]) == 2
    again = burnish("burn", "--plan", plan["plan"], *at, status=1)
    assert again["error"]["code"] == "PLAN_USED"


def test_a_problem_found_is_1_and_the_file_is_named(data: Path, made: Path) -> None:
    burnish("import", made, "--data", data)
    (disc, _) = burnish("burn", "--all", "--wait", "--data", data, "--json")["discs"]
    image = Path(disc["image"])
    content = bytearray(image.read_bytes())
    at = content.rindex(b"DICM") + 700
    content[at] ^= 1
    image.chmod(0o644)
    image.write_bytes(content)
    told = burnish("verify", image, "--json", status=1)
    assert not told["ok"] and all(set(one) == {"kind", "file", "detail"} for one in told["problems"])
    assert any(one["kind"] == "DIGEST" and one["file"].startswith("DICOM/") for one in told["problems"])
    human = CliRunner().invoke(app, ["verify", str(image)])
    assert human.exit_code == 1 and "DIGEST" in human.stdout and "DICOM/" in human.stdout


def test_reading_works_beside_another_command_and_making_waits_for_it(data: Path, made: Path) -> None:
    burnish("import", made, "--data", data)
    other = hold(data, "burn")
    try:
        assert len(burnish("studies", "--data", data, "--json")) == 2
        assert burnish("burn", "--all", "--data", data, "--json")["state"] == "QUEUED"
        waiting = subprocess.Popen(
            [sys.executable, "-m", "service", "plan", "--all", "--data", data, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert waiting.stderr is not None
        assert f"waiting for burnish burn (process {other.pid})" in waiting.stderr.readline()
        other.kill()
        out, _ = waiting.communicate(timeout=200)
        assert waiting.returncode == 0 and json.loads(out)["volumes"]
    finally:
        other.kill()
        other.wait()
    DataLock(data).acquire("test")


def test_a_queued_job_says_that_no_service_runs(data: Path, made: Path) -> None:
    burnish("import", made, "--data", data)
    done = CliRunner().invoke(app, ["burn", "--all", "--data", str(data)])
    assert done.exit_code == 0
    assert "J1 is queued" in done.stderr and "burnish serve" in done.stderr


def test_a_newer_database_is_not_touched(data: Path) -> None:
    import sqlite3

    burnish("studies", "--data", data)
    with sqlite3.connect(data / "burnish.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    assert "newer version" in burnish("studies", "--data", data, status=1)
    told = burnish("doctor", "--data", data, "--json", status=1)
    assert any("9999" in problem["what"] for problem in told["problems"])


def test_names_that_are_no_utf8_do_not_break_the_output(data: Path, tmp_path: Path) -> None:
    import os

    folder = tmp_path / "in"
    folder.mkdir()
    path = os.fsencode(folder) + b"/caf\xe9.dcm"
    with open(path, "wb") as out:
        out.write(make("CT").part10())
    with open(path + b".txt", "wb") as out:
        out.write(b"some text")
    done = subprocess.run(
        [sys.executable, "-m", "service", "import", folder, "--data", data, "--json"],
        stdout=subprocess.PIPE,
        check=True,
    )
    told = json.loads(done.stdout)
    assert told["imported"] == 1 and len(told["refused"]) == 1


HEAVY = ("sqlalchemy", "alembic", "dbos", "fastapi", "uvicorn", "numpy", "pydicom", "pynetdicom", "structlog")


def test_verify_starts_fast_because_nothing_heavy_is_imported(data: Path, made: Path) -> None:
    burnish("import", made, "--data", data)
    (disc, _) = burnish("burn", "--all", "--wait", "--data", data, "--json")["discs"]
    code = (
        "import sys, runpy; sys.argv[0] = 'burnish'\n"
        "try: runpy.run_module('service', run_name='__main__')\n"
        f"except SystemExit as end: print(end.code, [m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "verify", disc["image"]], stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "0 []"
