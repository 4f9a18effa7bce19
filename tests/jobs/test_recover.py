"""Lost enqueues, stranded and ended workflows, leases that come and go."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from dbos import DBOS
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError

from burners import registry
from jobs import leases as leases_module
from jobs.documents import job_document
from jobs.engine import Engine
from jobs.leases import Abandoned, LeaseKeeper
from jobs.recover import Reconciler, job_workflow
from jobs.work import RealRooms
from store import jobs, migrate, nodes
from store.db import Database
from store.models_base import now
from store.models_jobs import Job
from store.models_nodes import Node
from store.nodes import Lease
from store.states import JobState
from tests.conftest import Reused
from tests.jobs.conftest import House
from tests.waiting import wait_for


def state(house: House, job_id: int) -> str:
    with house.db.read() as session:
        return session.get_one(Job, job_id).state


def test_a_job_that_nobody_submitted_is_found(any_house: House) -> None:
    engine = any_house.engine()
    engine.start()
    any_house.receive(1)
    job_id = any_house.order()
    assert engine.wait(job_id, timeout=120) is JobState.DONE


def test_without_the_engines_own_database_nothing_is_lost(house: House) -> None:
    """Its file thrown away between two lives: the facts are ours."""
    house.receive(2)
    held, go = threading.Event(), threading.Event()

    class Slow(RealRooms):
        def volume_image(self, ctx: Any, volume_id: int) -> Any:
            held.set()
            go.wait(120)
            return super().volume_image(ctx, volume_id)

    job_id = house.order(copies=2)
    engine = house.engine(rooms=Slow())
    engine.start()
    assert held.wait(120)
    engine.stop()
    go.set()
    house.burners.close()
    house.burners = registry.load(house.settings.burners, data=house.data)
    for path in house.data.glob("engine.db*"):
        path.unlink()
    assert state(house, job_id) == "BURNING"
    engine = house.engine()
    engine.start()
    assert engine.wait(job_id, timeout=120) is JobState.DONE


def test_a_database_that_does_not_answer_only_delays(house: House) -> None:
    house.receive(1)
    failures = iter([True, False])

    class Flaky(RealRooms):
        def make_plan(self, ctx: Any, request_id: int, **hooks: Any) -> int:
            if next(failures, False):
                raise OperationalError("SELECT", {}, Exception("the connection is gone"))
            return super().make_plan(ctx, request_id, **hooks)

    job_id = house.order()
    engine = house.engine(rooms=Flaky())
    engine.start()
    assert engine.wait(job_id, timeout=120) is JobState.DONE
    with house.db.read() as session:
        assert job_document(session, job_id)["attempt"] == 1


def test_our_database_thrown_away_does_not_confuse_the_engine(house: House, tmp_path: Path) -> None:
    """IDs begin anew, and the engine remembers workflows of jobs that had them."""
    house.receive(1)
    job_id = house.order()
    engine = house.engine()
    engine.start()
    assert engine.wait(job_id, timeout=120) is JobState.DONE
    engine.stop()
    for path in (house.data / "discs").iterdir():
        path.unlink()
    old = house.data / "engine.db"
    database = Database(f"sqlite:///{tmp_path / 'again.db'}")
    migrate.upgrade(database)
    other = House(database, house.data)
    assert old.exists()
    other.receive(1, seed=9)
    time.sleep(1.1 - time.time() % 1)  # the IDs tell seconds apart
    assert other.order() == job_id
    engine = other.engine()
    engine.start()
    assert engine.wait(job_id, timeout=120) is JobState.DONE
    other.close()
    database.close()


def test_ended_workflows_are_forgotten_after_a_while(house: House) -> None:
    house.receive(1)
    job_id = house.order()
    engine = house.engine()
    engine.start()
    assert engine.wait(job_id, timeout=120) is JobState.DONE
    names = ["job-1-", "disc-1-"]

    def known() -> int:
        return len(DBOS.list_workflows(workflow_id_prefix=names, status="SUCCESS"))

    wait_for(lambda: known() == 2, "the workflows to end")
    engine.forget(1)
    assert known() == 2
    engine.forget(-1)
    assert known() == 0


class FakeQueues:
    """What DBOS would say."""

    def __init__(self) -> None:
        self.jobs: list[str] = []
        self.discs: list[str] = []
        self.of_node: dict[str, list[str]] = {}
        self.resumed: list[str] = []
        self.over: dict[str, str] = {}
        self.here: set[str] = set()

    def enqueue_job(self, workflow: str, job_id: int, priority: int) -> None:
        self.jobs.append(workflow)

    def enqueue_disc(self, workflow: str, disc_id: int, burner: str, priority: int) -> None:
        self.discs.append(workflow)

    def pending(self, node: str) -> list[str]:
        return self.of_node.get(node, [])

    def resume(self, workflows: Collection[str]) -> None:
        self.resumed.extend(sorted(workflows))

    def ended(self, workflows: Collection[str]) -> dict[str, str]:
        return {name: error for name, error in self.over.items() if name in workflows}

    def running(self) -> Collection[str]:
        return self.here

    def forget(self, days: int) -> None:
        raise NotImplementedError


@pytest.fixture
def parts(any_house: House) -> Any:
    """A reconciler that is called by hand, on an engine that was never started."""
    engine: Engine = any_house.engine()
    queues = FakeQueues()
    engine._leases.start()
    made = Reconciler(engine._work, queues, engine._leases, 5.0)
    yield any_house, made, queues
    engine._leases.release()


def workflow_of(house: House, job_id: int) -> str:
    with house.db.read() as session:
        jobs_open, _ = jobs.work_to_do(session)
    return next(job_workflow(job) for job in jobs_open if job.id == job_id)


def test_each_workflow_is_enqueued_once(parts: Any) -> None:
    house, reconciler, queues = parts
    house.receive(1)
    job_id = house.order()
    reconciler._enqueue()
    reconciler._enqueue()
    assert queues.jobs == [workflow_of(house, job_id)] and queues.discs == []


def test_a_dead_nodes_workflows_go_on_here_once(parts: Any) -> None:
    house, reconciler, queues = parts
    with house.db.begin() as session:
        nodes.acquire(session, "dead", 60)
    queues.of_node["dead"] = ["disc-7", "job-3-1"]
    reconciler._take_over_dead()
    assert queues.resumed == []
    with house.db.begin() as session:
        session.execute(update(Node).where(Node.name == "dead").values(lease_until=now().replace(year=2001)))
    reconciler._take_over_dead()
    reconciler._take_over_dead()
    assert queues.resumed == ["disc-7", "job-3-1"]


def test_a_workflow_that_runs_nowhere_is_resumed_when_seen_twice(parts: Any) -> None:
    _, reconciler, queues = parts
    queues.of_node["n1"] = ["disc-1", "disc-2"]
    queues.here = {"disc-2"}
    reconciler._resume_stranded()
    assert queues.resumed == []
    reconciler._resume_stranded()
    assert queues.resumed == ["disc-1"]


def test_a_workflow_that_ended_too_early_fails_its_job(parts: Any) -> None:
    house, reconciler, queues = parts
    house.receive(1)
    job_id = house.order()
    queues.over = {workflow_of(house, job_id): "nobody knows", "disc-99-1": "of no concern"}
    reconciler._fail_ended()
    assert state(house, job_id) == "QUEUED"  # it may be ending just now
    reconciler._fail_ended()
    with house.db.read() as session:
        found = job_document(session, job_id)
    assert found["state"] == "FAILED" and "ended too early: nobody knows" in found["error"]


def keeper(database: Database, said: list[str], name: str = "n1") -> LeaseKeeper:
    return LeaseKeeper(database, name, 1.0, on_fatal=said.append)


def valid_lease(leases: LeaseKeeper, but: Lease | None = None) -> Lease:
    """The lease that is held, another than ``but``; a machine that is slow for a second renews it later."""

    def found() -> Lease | None:
        try:
            return lease if (lease := leases.current()) != but else None
        except Abandoned:
            return None

    lease = wait_for(found, "a lease that holds")
    assert lease is not None
    return lease


def test_a_lease_is_renewed(database: Database) -> None:
    leases = keeper(database, [])
    leases.start()
    first = valid_lease(leases)
    with database.read() as session:
        until = session.scalars(select(Node.lease_until)).one()

    def renewed() -> bool:
        with database.read() as session:
            return session.scalars(select(Node.lease_until)).one() > until

    wait_for(renewed, "the renewal")
    assert valid_lease(leases) == first
    leases.release()
    with pytest.raises(Abandoned):
        leases.check(first)


def test_a_node_that_was_taken_over_joins_again_and_its_old_work_may_not_go_on(database: Database) -> None:
    said: list[str] = []
    leases = keeper(database, said)
    leases.start()
    old = valid_lease(leases)
    with database.begin() as session:
        other = nodes.acquire(session, "other", 600)
        session.execute(update(Node).where(Node.name == "n1").values(lease_until=now().replace(year=2001)))
        assert nodes.take_over(session, "n1", old.epoch, other)
    assert valid_lease(leases, but=old).epoch > other.epoch and said == []
    with pytest.raises(Abandoned):
        leases.check(old)
    leases.release()


def test_another_process_under_our_name_ends_this_one(database: Database) -> None:
    said: list[str] = []
    leases = keeper(database, said)
    leases.start()
    old = valid_lease(leases)
    with database.begin() as session:
        nodes.acquire(session, "n1", 600)
    wait_for(lambda: said, "the end")
    assert "node.name" in said[0] and not leases.valid(old)
    leases.release()


@pytest.mark.postgres
def test_a_node_that_cannot_renew_stops_before_its_lease_ends(
    reused_postgres: Reused, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(reused_postgres.url())
    leases = LeaseKeeper(database, "n1", 3600.0, on_fatal=pytest.fail)
    leases.start()
    held = leases.current()
    later = leases_module._clock() + 0.95 * 3600
    with monkeypatch.context() as patch:
        patch.setattr(leases_module, "_clock", lambda: later)
        assert not leases.valid(held)
    with database.read() as session:
        assert session.scalar(select(nodes.holds(session, held)))  # the database still holds it for alive
    leases.release()
    database.close()


def test_a_renewal_that_fails_is_tried_again(database: Database) -> None:
    leases = keeper(database, [])
    leases.start()
    held = valid_lease(leases)
    failed: list[int] = []
    renew = leases._renew

    def fails() -> bool:
        if len(failed) < 2:
            failed.append(1)
            raise OperationalError("UPDATE", {}, Exception("no connection"))
        return renew()

    leases._renew = fails  # type: ignore[method-assign]
    wait_for(lambda: len(failed) == 2, "two failures")
    with database.read() as session:
        until = session.scalars(select(Node.lease_until)).one()

    def renewed() -> bool:
        with database.read() as session:
            return session.scalars(select(Node.lease_until)).one() > until

    wait_for(renewed, "the renewal")
    assert valid_lease(leases) == held
    leases.release()
    database.close()
