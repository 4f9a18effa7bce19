"""Guarded changes of jobs and discs: claims, cancel, retry, settle, events. On both databases."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import select, update

from store import discs, jobs, nodes
from store.db import Database
from store.discs import ClaimLost
from store.jobs import JobError, JobNotFound
from store.models_base import now
from store.models_jobs import Disc, Job
from store.models_nodes import Event, Node
from store.nodes import Lease
from store.states import DISC_TRANSITIONS, JOB_TRANSITIONS, DiscState, IllegalTransition, JobState
from tests.rows import add_disc


def lease(db: Database, name: str = "n1") -> Lease:
    with db.begin() as session:
        return nodes.acquire(session, name, 60)


def planned(db: Database, *, copies: int = 1) -> tuple[int, list[int]]:
    """A READY job with its discs."""
    with db.begin() as session:
        first = add_disc(session, [], state="PLANNED")
        ids = [first.id]
        for copy in range(2, copies + 1):
            disc = discs.new_disc(session.get_one(Job, first.job_id), first.volume_id, copy, attempt=1)
            session.add(disc)
            session.flush()
            ids.append(disc.id)
        session.execute(update(Job).values(state="READY", copies=copies))
        return first.job_id, ids


def move(db: Database, disc_id: int, held: Lease | None, *states: DiscState) -> None:
    for state in states:
        with db.begin() as session:
            disc = session.get_one(Disc, disc_id)
            job = jobs.lock(session, disc.job_id)
            discs.move_disc(session, disc, state, lease=held)
            jobs.settle(session, job)


def job_state(db: Database, job_id: int) -> str:
    with db.read() as session:
        return session.get_one(Job, job_id).state


ALL = (
    DiscState.SUBMITTED,
    DiscState.BURNING,
    DiscState.BURNT,
    DiscState.VERIFYING,
    DiscState.VERIFIED,
)


def test_a_disc_goes_its_way_and_every_step_is_an_event(database: Database) -> None:
    job_id, (disc_id,) = planned(database)
    held = lease(database)
    with database.begin() as session:
        assert discs.claim_disc(session, disc_id, held)
    move(database, disc_id, held, *ALL)
    assert job_state(database, job_id) == "DONE"
    with database.read() as session:
        events = session.execute(select(Event.kind, Event.old, Event.new).order_by(Event.id)).all()
    steps = [(old, new) for kind, old, new in events if kind == "disc"]
    assert steps == list(zip(["PLANNED", *ALL], ALL, strict=False))
    assert [(old, new) for kind, old, new in events if kind == "job"] == [("READY", "BURNING"), ("BURNING", "DONE")]


def test_every_copy_must_be_verified(database: Database) -> None:
    job_id, (first, second) = planned(database, copies=2)
    held = lease(database)
    with database.begin() as session:
        assert discs.claim_disc(session, first, held) and discs.claim_disc(session, second, held)
    move(database, first, held, *ALL)
    assert job_state(database, job_id) == "BURNING"
    move(database, second, held, *ALL)
    assert job_state(database, job_id) == "DONE"


def test_two_that_end_at_once_end_the_job(database: Database) -> None:
    """Each transaction would see the other's disc unfinished, were the job not locked first."""
    for _ in range(5):
        job_id, ids = planned(database, copies=4)
        held = lease(database)
        with database.begin() as session:
            assert all(discs.claim_disc(session, disc, held) for disc in ids)
        for disc in ids:
            move(database, disc, held, *ALL[:-1])
        barrier = threading.Barrier(len(ids))

        def end(disc_id: int, held: Lease = held, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            with database.begin() as session:
                jobs.end_disc(session, session.get_one(Disc, disc_id), DiscState.VERIFIED, held, free=True)

        threads = [threading.Thread(target=end, args=(disc,)) for disc in ids]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert job_state(database, job_id) == "DONE"


def test_one_of_many_claims_a_disc(database: Database) -> None:
    _, (disc_id,) = planned(database)
    leases = [lease(database, f"n{number}") for number in range(6)]
    won: list[Lease] = []

    def claim(held: Lease) -> None:
        with database.begin() as session:
            if discs.claim_disc(session, disc_id, held):
                won.append(held)

    threads = [threading.Thread(target=claim, args=(held,)) for held in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    with database.begin() as session:
        assert discs.claim_disc(session, disc_id, won[0])  # again, by the same
        loser = next(held for held in leases if held != won[0])
        assert not discs.still_claimed(session, disc_id, loser)
        with pytest.raises(ClaimLost):
            discs.move_disc(session, session.get_one(Disc, disc_id), DiscState.SUBMITTED, lease=loser)


def test_a_node_taken_over_can_change_nothing(database: Database) -> None:
    _, (disc_id,) = planned(database)
    old, other = lease(database, "old"), lease(database, "other")
    with database.begin() as session:
        assert discs.claim_disc(session, disc_id, old)
    move(database, disc_id, old, DiscState.SUBMITTED)
    with database.begin() as session:
        session.execute(update(Node).where(Node.name == "old").values(lease_until=now().replace(year=2001)))
        assert nodes.take_over(session, "old", old.epoch, other)
    with database.begin() as session:  # before anybody else has claimed the disc
        assert not discs.still_claimed(session, disc_id, old)
        assert not discs.claim_disc(session, disc_id, old)
        with pytest.raises(ClaimLost):
            discs.move_disc(session, session.get_one(Disc, disc_id), DiscState.BURNING, lease=old)
    with database.begin() as session:
        assert discs.claim_disc(session, disc_id, other)
        assert not discs.still_claimed(session, disc_id, old)
    move(database, disc_id, other, DiscState.BURNING)


def test_illegal_steps_raise(database: Database) -> None:
    job_id, (disc_id,) = planned(database)
    with database.begin() as session:
        with pytest.raises(IllegalTransition):
            discs.move_disc(session, session.get_one(Disc, disc_id), DiscState.VERIFIED)
        with pytest.raises(IllegalTransition):
            jobs.move_job(session, jobs.lock(session, job_id), JobState.DONE)


def test_a_change_of_what_is_not_so_any_more_raises(database: Database) -> None:
    job_id, (disc_id,) = planned(database)
    with database.begin() as session:
        disc, job = session.get_one(Disc, disc_id), session.get_one(Job, job_id)
        session.expunge_all()
    with database.begin() as session:
        session.execute(update(Disc).values(state="CANCELLED"))
        session.execute(update(Job).values(state="CANCELLED"))
    with database.begin() as session, pytest.raises(ClaimLost):
        discs.move_disc(session, disc, DiscState.SUBMITTED)
    with database.begin() as session, pytest.raises(ClaimLost):
        jobs.move_job(session, job, JobState.BURNING)


def test_cancel_ends_what_has_not_begun_and_flags_the_rest(database: Database) -> None:
    job_id, (first, second) = planned(database, copies=2)
    held = lease(database)
    with database.begin() as session:
        assert discs.claim_disc(session, first, held)
    move(database, first, held, DiscState.SUBMITTED)
    for _ in range(2):  # harmless twice
        with database.begin() as session:
            jobs.request_cancel(session, job_id)
    with database.read() as session:
        assert session.get_one(Job, job_id).cancel_requested
        assert session.get_one(Disc, first).state == "SUBMITTED"
        assert session.get_one(Disc, second).state == "CANCELLED"
    assert job_state(database, job_id) == "BURNING"
    move(database, first, held, DiscState.CANCELLED)
    assert job_state(database, job_id) == "CANCELLED"
    with database.begin() as session:
        jobs.request_cancel(session, job_id)  # too late: no complaint
    assert job_state(database, job_id) == "CANCELLED"


def test_a_retry_makes_only_what_is_not_verified(database: Database) -> None:
    job_id, (first, second) = planned(database, copies=2)
    held = lease(database)
    with database.begin() as session:
        assert discs.claim_disc(session, first, held) and discs.claim_disc(session, second, held)
    move(database, first, held, *ALL)
    with database.begin() as session, pytest.raises(JobError, match="only a failed"):
        jobs.retry(session, job_id)
    move(database, second, held, DiscState.SUBMITTED, DiscState.FAILED)
    assert job_state(database, job_id) == "FAILED"
    with database.begin() as session:
        jobs.retry(session, job_id)
    with database.read() as session:
        latest = discs.latest_discs(session, job_id)
        assert [(disc.copy, disc.attempt, disc.state) for disc in latest] == [(1, 1, "VERIFIED"), (2, 2, "PLANNED")]
        assert session.get_one(Disc, second).state == "FAILED"  # a spoiled blank is a fact
        job = session.get_one(Job, job_id)
        assert (job.state, job.attempt, job.error, job.finished_at) == ("READY", 2, None, None)
    with database.begin() as session:
        assert discs.claim_disc(session, latest[1].id, held)
    move(database, latest[1].id, held, *ALL)
    assert job_state(database, job_id) == "DONE"


def test_unknown_jobs(database: Database) -> None:
    for act in (jobs.request_cancel, jobs.retry, jobs.lock):
        with database.begin() as session, pytest.raises(JobNotFound, match="J77"):
            act(session, 77)


def test_every_state_is_reachable() -> None:
    """The tables have no dead ends but the final states."""
    for table, start in ((JOB_TRANSITIONS, JobState.QUEUED), (DISC_TRANSITIONS, DiscState.PLANNED)):
        seen, todo = set(), [start]
        while todo:
            state = todo.pop()
            if state not in seen:
                seen.add(state)
                todo.extend(table[state])
        assert seen == set(table)
