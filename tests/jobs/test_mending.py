"""What a person decides about a job that failed: another burner, without the refused, taken note of."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import select

from jobs import mending, workflow
from jobs.mending import MendingRefused
from jobs.options import RequestOptions
from jobs.planning import create_request, make_plan
from jobs.preparing import PlanRefused
from store import board
from store.jobs import JobError, refused_by
from store.models import Instance
from store.models_base import now
from store.models_jobs import Disc, Job, Request
from store.models_nodes import Event
from store.selection import Selection
from tests.jobs.conftest import House
from tests.rows import add_disc, add_instance


@pytest.fixture
def failed(make_sqlite_house: House) -> tuple[House, int]:
    house = make_sqlite_house
    with house.db.begin() as session:
        disc = add_disc(session, [add_instance(session, "1.2.3")], state="FAILED")
        job = session.get_one(Job, disc.job_id)
        job.state, job.finished_at = "FAILED", now()
        return house, job.id


@pytest.fixture
def make_sqlite_house(tmp_path: Path) -> House:
    from store import migrate
    from store.db import Database

    database = Database(f"sqlite:///{tmp_path / 'burnish.db'}")
    migrate.upgrade(database)
    second = {"driver": "iso", "folder": str(tmp_path / "second")}
    return House(database, tmp_path / "data", {"burners": {"second": second}})


def test_another_burner_makes_what_failed(failed: tuple[House, int]) -> None:
    house, job_id = failed
    mending.retry(house.ctx, job_id, burner="second")
    with house.db.read() as session:
        job = session.get_one(Job, job_id)
        discs = session.query(Disc).order_by(Disc.attempt).all()
        assert (job.state, job.burner) == ("READY", "second")
        assert [(disc.burner, disc.state) for disc in discs] == [("iso", "FAILED"), ("second", "PLANNED")]
        assert session.get_one(Request, job.request_id).options["burner"] == "second"


def test_a_burner_that_is_not_there_changes_nothing(failed: tuple[House, int]) -> None:
    house, job_id = failed
    with pytest.raises(MendingRefused, match="there is no burner 'third'; there are iso, second"):
        mending.retry(house.ctx, job_id, burner="third")
    with house.db.read() as session:
        assert session.get_one(Job, job_id).state == "FAILED"


def test_what_has_not_failed_is_let_be(failed: tuple[House, int]) -> None:
    house, job_id = failed
    mending.retry(house.ctx, job_id)
    for again in (lambda: mending.retry(house.ctx, job_id), lambda: mending.retry(house.ctx, job_id, burner="second")):
        with pytest.raises(JobError, match="is READY"):
            again()
    with pytest.raises(MendingRefused, match="has not failed"):
        mending.dismiss(house.ctx, job_id, by="maria")
    with house.db.read() as session:
        assert session.get_one(Job, job_id).burner == "iso"
        assert session.query(Disc).count() == 2


def test_the_refused_are_left_out_from_now_on(failed: tuple[House, int]) -> None:
    house, job_id = failed
    mending.retry(house.ctx, job_id, skip_refused=True)
    with house.db.read() as session:
        job = session.get_one(Job, job_id)
        assert session.get_one(Request, job.request_id).options == {"skip_refused": True}


def test_who_took_note_of_it_is_kept(failed: tuple[House, int]) -> None:
    house, job_id = failed
    mending.dismiss(house.ctx, job_id, by="maria")
    mending.dismiss(house.ctx, job_id, by="maria")
    with house.db.read() as session:
        events = session.query(Event).filter_by(kind=board.DISMISSED).all()
        assert {(event.job_id, event.detail["by"]) for event in events} == {(job_id, "maria")}
        assert session.get_one(Job, job_id).state == "FAILED"


def test_without_the_refused_there_must_be_something_left(house: House) -> None:
    house.receive(1)
    with house.db.begin() as session:
        options = RequestOptions.from_settings(house.settings, {"skip_refused": True})
        request = create_request(session, selection=Selection(all=True), options=options, source="test")
        (path,) = session.scalars(select(Instance.spool_path))
    house.ctx.spool.remove(str(path))
    plan_id = make_plan(house.ctx, request)
    work, job = SimpleNamespace(ctx=house.ctx), SimpleNamespace(request_id=request)
    with pytest.raises(PlanRefused, match=r"nothing is left that could be burnt: refused: .* no longer in the"):
        workflow._check_refused(cast(Any, work), cast(Any, job), plan_id)
    with house.db.begin() as session:
        session.get_one(Request, request).options = {}
        assert str(refused_by(session, plan_id)).count("--skip-refused") == 0
