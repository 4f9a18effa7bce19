"""A job with refused instances fails as a whole, unless somebody said that it may leave them out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from typer.testing import CliRunner

from service.cli import app


def _run(data: Path, *arguments: str) -> tuple[int, Any]:
    result = CliRunner().invoke(app, [*arguments, "--data", str(data), "--json"])
    return result.exit_code, json.loads(result.stdout)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A store with a patient of two instances, one of which no directory record can reference."""
    good = get_testdata_file("CT_small.dcm")
    assert isinstance(good, str)
    ds = dcmread(good)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.3.4.5"
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.5.6"
    private = tmp_path / "private.dcm"
    ds.save_as(private)
    code, document = _run(tmp_path / "data", "import", good, str(private))
    assert (code, document["imported"]) == (0, 2)
    return tmp_path / "data"


def test_fails_as_a_whole(data: Path) -> None:
    code, job = _run(data, "burn", "--all", "--wait")
    assert (code, job["state"], job["discs"]) == (1, "FAILED", [])
    assert "1.2.3.4.5.6" in job["error"]


def test_a_given_plan_fails_too(data: Path) -> None:
    code, plan = _run(data, "plan", "--all")
    assert [entry["sop_instance_uid"] for entry in plan["refused"]] == ["1.2.3.4.5.6"]
    code, job = _run(data, "burn", "--plan", plan["plan"], "--wait")
    assert (code, job["state"], job["discs"]) == (1, "FAILED", [])


def test_skip_refused_names_what_is_missing_on_the_disc(data: Path) -> None:
    _, plan = _run(data, "plan", "--all")
    code, job = _run(data, "burn", "--plan", plan["plan"], "--skip-refused", "--wait")
    assert (code, job["state"]) == (0, "DONE")
    assert b"1.2.3.4.5.6" in Path(job["discs"][0]["image"]).read_bytes()
    _, told = _run(data, "job", job["job"])
    assert [entry["sop_instance_uid"] for entry in told["report"]["refused"]] == ["1.2.3.4.5.6"]
