"""Instances that are not as their profile's rules demand are refused in the plan, with the clause that says so."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select

from jobs.checking import Candidate, Checked, refuse_unfit
from jobs.conform_pool import Cancelled
from jobs.plandocument import plan_document
from jobs.planning import make_plan
from media.profiles import profile
from store.instances import Provenance, Registrar, ingest_file
from store.models_jobs import Job
from tests.jobs.conftest import House
from tests.makers import EXPLICIT_LE, IMPLICIT_LE, Made, make


def planned(house: House, made: list[Made], **options: Any) -> dict[str, Any]:
    registrar = Registrar(house.db, house.ctx.spool)
    folder = house.data / "in"
    folder.mkdir(parents=True)
    for one in made:
        ingest_file(registrar, one.write(folder), provenance=Provenance("CT_1", "BURNISH", "test"))
    job = house.order(**options)
    with house.db.read() as session:
        request = session.scalars(select(Job.request_id).where(Job.id == job)).one()
    plan = make_plan(house.ctx, request)
    with house.db.read() as session:
        return plan_document(session, plan)


@pytest.mark.parametrize("syntax", [EXPLICIT_LE, IMPLICIT_LE])
def test_the_plan_refuses_what_breaks_a_rule_as_received_and_as_conformed(house: House, syntax: str) -> None:
    good = make("CT", number=1, transfer_syntax_uid=syntax)
    bad = make("CT", number=2, transfer_syntax_uid=syntax, PhotometricInterpretation="MONOCHROME1")
    plan = planned(house, [good, bad], profile="STD-CTMR-CD")
    (volume,) = plan["volumes"]
    assert volume["instances"] == 1
    (refused,) = plan["refused"]
    assert refused["sop_instance_uid"] == bad.sop_instance_uid
    assert refused["reason"].startswith("INST_AP_CONFLICT: ")
    assert "Photometric Interpretation (0028,0004)" in refused["reason"]
    assert "PS3.11 Table E.3-3" in refused["reason"]
    assert plan["reasons"] == ["INST_AP_CONFLICT"]


def test_what_conforming_cannot_mend_is_refused_before_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("conformed in vain")

    monkeypatch.setattr("jobs.conforming.conform_all", lambda tasks, **_: [never() for _ in tasks])
    made = make("US", transfer_syntax_uid=IMPLICIT_LE)
    plan = planned(house, [made], profile="STD-US-SC-MF-CDR")
    assert plan["volumes"] == []
    (refused,) = plan["refused"]
    assert "Sequence of Ultrasound Regions (0018,6011) is missing" in refused["reason"]
    assert "PS3.11 C.4" in refused["reason"]


def test_profiles_without_rules_take_it(house: House) -> None:
    plan = planned(house, [make("CT", PhotometricInterpretation="MONOCHROME1")], profile="STD-GEN-CD")
    assert plan["refused"] == []


def checked(path: Path, count: int) -> Checked:
    rows: Any = [SimpleNamespace(id=number, path=path) for number in range(count)]
    return Checked(candidates=[Candidate(row, "IMAGE", None, ()) for row in rows])


def path_of(candidate: Any) -> Path:
    path: Path = candidate.row.path
    return path


def test_judging_can_be_cancelled_and_tells_how_far_it_is(tmp_path: Path) -> None:
    made = checked(make("CT").write(tmp_path), 450)
    told: list[tuple[int, int]] = []
    asked = iter([False, False, True])
    with pytest.raises(Cancelled):
        refuse_unfit(
            made,
            profile=profile("STD-CTMR-CD"),
            path_of=path_of,
            progress=lambda done, total: told.append((done, total)),
            cancelled=lambda: next(asked),
        )
    assert told == [(0, 450), (200, 450), (400, 450)]


def test_a_thousand_files_are_judged_in_seconds(tmp_path: Path) -> None:
    made = checked(make("CT").write(tmp_path), 1000)
    before = time.thread_time()
    refuse_unfit(
        made,
        profile=profile("STD-CTMR-CD"),
        path_of=path_of,
        progress=lambda *_: None,
        cancelled=lambda: False,
    )
    assert len(made.candidates) == 1000 and not made.refused
    assert time.thread_time() - before < 5  # 0.25 s on the machine on which it was written
