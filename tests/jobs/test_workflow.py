"""A job from QUEUED to DONE, and everything that may come between."""

from __future__ import annotations

from pathlib import Path

from jobs.documents import job_document, jobs_list
from media.verify import verify_path
from store.states import JobState
from tests.jobs.conftest import House


def document(house: House, job_id: int) -> dict:
    with house.db.read() as session:
        return job_document(session, job_id)


def test_a_job_ends_done_with_verified_discs(house: House) -> None:
    house.receive(3)
    job_id = house.order(copies=2)
    engine = house.engine()
    engine.start()
    assert engine.wait(job_id, timeout=60) is JobState.DONE
    found = document(house, job_id)
    assert [(disc["volume"], disc["copy"], disc["state"], disc["verified_by"]) for disc in found["discs"]] == [
        (1, 1, "VERIFIED", "read-back"),
        (1, 2, "VERIFIED", "read-back"),
    ]
    first, second = found["discs"]
    assert first["sha256"] == second["sha256"] and first["image"] != second["image"]
    for disc in found["discs"]:
        result = verify_path(Path(disc["image"]))
        assert result.ok and result.image_sha256 == disc["sha256"]
    assert found["progress"]["fraction"] == 1.0
    assert [event["new"] for event in found["report"]["events"] if event["of"] == f"J{job_id}"] == [
        "QUEUED", "PLANNING", "CONFORMING", "READY", "BURNING", "DONE",
    ]
    with house.db.read() as session:
        (listed,) = jobs_list(session)
    assert (listed["job"], listed["state"], listed["discs"], listed["verified"]) == (f"J{job_id}", "DONE", 2, 2)
