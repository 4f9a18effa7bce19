"""Auto-burn rules: quiet period, late arrivals, restarts, several nodes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update

from jobs import rules
from store.models import Instance
from store.models_base import now
from store.models_jobs import Job, Request, RequestInstance, RuleStudy
from store.models_nodes import Event
from tests.jobs.conftest import House

RULE = {"name": "er", "calling_ae": "CT_1", "quiet_seconds": 600.0, "copies": 2, "priority": "high"}


@pytest.fixture
def ruled(make_house: Callable[..., House]) -> House:
    house = make_house(rules=[RULE])
    assert rules.tick(house.ctx) == 0  # a rule begins with what comes after it was first seen
    return house


def quiet(house: House, seconds: float = 601) -> None:
    """Let time pass for everything that was received."""
    with house.db.begin() as session:
        for instance in session.scalars(select(Instance)):
            instance.received_at -= timedelta(seconds=seconds)


def requested(house: House) -> list[list[int]]:
    with house.db.read() as session:
        ids = session.scalars(select(Request.id).order_by(Request.id)).all()
        return [
            sorted(session.scalars(select(RequestInstance.instance_id).where(RequestInstance.request_id == one)))
            for one in ids
        ]


def test_a_study_is_burnt_after_its_quiet_period(ruled: House) -> None:
    study = ruled.receive(3)
    assert rules.tick(ruled.ctx) == 0
    quiet(ruled, 300)
    assert rules.tick(ruled.ctx) == 0
    quiet(ruled, 301)
    submitted: list[int] = []
    assert rules.tick(ruled.ctx, submitted.append) == 1
    assert rules.tick(ruled.ctx, submitted.append) == 0
    assert requested(ruled) == [[1, 2, 3]]
    with ruled.db.read() as session:
        job = session.scalars(select(Job)).one()
        assert ([job.id], job.copies, job.priority, job.state) == (submitted, 2, 1, "QUEUED")
        request = session.scalars(select(Request)).one()
        assert (request.source, request.selection) == ("rule:er", {"study": [study]})
        event = session.scalars(select(Event).where(Event.kind == "rule")).one()
        assert event.job_id == job.id and event.detail["study_instance_uid"] == study
        assert session.scalars(select(RuleStudy.last_instance_id)).one() == 3


def test_one_more_instance_begins_the_quiet_period_again(ruled: House) -> None:
    ruled.receive(2)
    quiet(ruled)
    ruled.receive(3)  # two of them are known already
    assert rules.tick(ruled.ctx) == 0
    quiet(ruled)
    assert rules.tick(ruled.ctx) == 1
    assert requested(ruled) == [[1, 2, 3]]


def test_late_arrivals_make_a_request_of_their_own(ruled: House) -> None:
    ruled.receive(2)
    quiet(ruled)
    assert rules.tick(ruled.ctx) == 1
    ruled.receive(5)
    quiet(ruled)
    assert rules.tick(ruled.ctx) == 1
    assert requested(ruled) == [[1, 2], [3, 4, 5]]


def test_other_senders_and_other_studies(ruled: House) -> None:
    ruled.receive(2, seed=1, calling="MR_9")
    ruled.receive(2, seed=2)
    ruled.receive(2, seed=3)
    quiet(ruled)
    assert rules.tick(ruled.ctx) == 2
    assert requested(ruled) == [[3, 4], [5, 6]]


def test_what_was_there_before_the_rule_is_not_burnt(make_house: Callable[..., House]) -> None:
    plain = make_house()
    plain.receive(2)
    quiet(plain, 3600)
    house = make_house(rules=[RULE])
    assert rules.tick(house.ctx) == 0
    assert rules.tick(house.ctx) == 0
    house.receive(4)
    quiet(house)
    assert rules.tick(house.ctx) == 1
    assert requested(house) == [[3, 4]]


def test_a_restart_forgets_nothing(make_house: Callable[..., House]) -> None:
    first = make_house(rules=[RULE])
    rules.tick(first.ctx)
    first.receive(2)
    quiet(first)
    after = make_house(rules=[RULE])
    assert rules.tick(after.ctx) == 1
    assert rules.tick(make_house(rules=[RULE]).ctx) == 0
    assert requested(after) == [[1, 2]]


def test_several_nodes_fire_once(make_house: Callable[..., House]) -> None:
    houses = [make_house(rules=[RULE]) for _ in range(4)]
    rules.tick(houses[0].ctx)
    houses[0].receive(2)
    quiet(houses[0])
    fired: list[int] = []
    threads = [threading.Thread(target=lambda h=house: fired.append(rules.tick(h.ctx))) for house in houses]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(fired) == 1 and len(fired) == 4
    assert requested(houses[0]) == [[1, 2]]


def test_the_mark_follows_so_that_old_instances_cost_nothing(ruled: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "_ADVANCE", 1)
    ruled.receive(3)
    quiet(ruled, 3600)
    assert rules.tick(ruled.ctx) == 1
    assert rules.tick(ruled.ctx) == 0
    with ruled.db.read() as session:
        mark = session.execute(select(rules.Counter.value).where(rules.Counter.name == "rule:er")).scalar_one()
    assert mark == 3
    ruled.receive(4)
    quiet(ruled)
    assert rules.tick(ruled.ctx) == 1
    assert requested(ruled) == [[1, 2, 3], [4]]


def test_conflicts_and_what_is_gone_do_not_fire(ruled: House) -> None:
    ruled.receive(2)
    with ruled.db.begin() as session:
        session.execute(update(Instance).where(Instance.id == 1).values(spool_path=None))
        session.execute(update(Instance).where(Instance.id == 2).values(conflict_of=1))
    quiet(ruled)
    assert rules.tick(ruled.ctx) == 0
    with ruled.db.read() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 0


@pytest.mark.parametrize(("wrong", "told"), [({"profile": "STD-XXX"}, "STD-XXX"), ({"medium": "FLOPPY"}, "FLOPPY")])
def test_a_rule_that_makes_no_sense_is_told_and_fires_nothing(
    make_house: Callable[..., House], wrong: dict[str, Any], told: str
) -> None:
    house = make_house(rules=[RULE | wrong])
    (problem,) = rules.problems(house.settings)
    assert "rule er" in problem and told in problem
    house.receive(1)
    quiet(house)
    assert rules.tick(house.ctx) == 0


def test_the_time_is_the_last_of_the_whole_study(ruled: House) -> None:
    """An instance of the study by another way shows that it is not complete yet."""
    ruled.receive(2)
    quiet(ruled)
    ruled.receive(3, calling="IMPORT")
    assert rules.tick(ruled.ctx) == 0
    with ruled.db.begin() as session:
        session.execute(update(Instance).values(received_at=now() - timedelta(seconds=1200)))
    assert rules.tick(ruled.ctx) == 1
    assert requested(ruled) == [[1, 2]]
