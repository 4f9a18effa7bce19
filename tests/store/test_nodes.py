"""Leases, epochs, take-over; slots. On both databases."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import DBAPIError

from store import migrate, nodes, slots
from store.db import Database
from store.models_base import now
from store.models_jobs import BurnerSlot
from store.models_nodes import Node
from store.nodes import Lease
from tests.rows import add_disc


def lapse(db: Database, name: str) -> None:
    with db.begin() as session:
        session.execute(update(Node).where(Node.name == name).values(lease_until=now().replace(year=2001)))


def acquire(db: Database, name: str, seconds: float = 60) -> Lease:
    with db.begin() as session:
        return nodes.acquire(session, name, seconds)


def test_no_two_lives_have_one_epoch(database: Database) -> None:
    found = [acquire(database, name).epoch for name in ("a", "b", "a", "c")]
    assert sorted(set(found)) == found


def test_a_new_life_fences_the_old_one(database: Database) -> None:
    old = acquire(database, "a")
    new = acquire(database, "a")
    with database.begin() as session:
        assert not nodes.renew(session, old, 60)
        assert nodes.renew(session, new, 60)
        assert session.scalar(select(nodes.holds(session, new)))
        assert not session.scalar(select(nodes.holds(session, old)))


def test_only_the_dead_are_taken_over_and_only_once(database: Database) -> None:
    dead, first, second = acquire(database, "dead"), acquire(database, "first"), acquire(database, "second")
    with database.read() as session:
        assert nodes.dead(session, first) == []
    with database.begin() as session:
        assert not nodes.take_over(session, "dead", dead.epoch, first)
    lapse(database, "dead")
    with database.read() as session:
        assert nodes.dead(session, first) == [("dead", dead.epoch)]
    with database.begin() as session:
        assert nodes.take_over(session, "dead", dead.epoch, first)
        assert not nodes.take_over(session, "dead", dead.epoch, second)
    with database.begin() as session:
        assert not nodes.renew(session, dead, 60)
        assert nodes.owner_of(session, "dead") == "first"
    with database.read() as session:
        assert nodes.dead(session, second) == []


def test_who_looks_after_the_dead_may_die_too(database: Database) -> None:
    dead, first, second = acquire(database, "dead"), acquire(database, "first"), acquire(database, "second")
    lapse(database, "dead")
    with database.begin() as session:
        assert nodes.take_over(session, "dead", dead.epoch, first)
    lapse(database, "first")
    with database.read() as session:
        assert {name for name, _ in nodes.dead(session, second)} == {"dead", "first"}


def test_a_lease_given_back_may_be_taken_over_at_once(database: Database) -> None:
    gone, other = acquire(database, "gone"), acquire(database, "other")
    with database.begin() as session:
        nodes.release(session, gone)
    with database.read() as session:
        assert nodes.dead(session, other) == [("gone", gone.epoch)]


def test_slots_are_never_given_twice(database: Database) -> None:
    with database.begin() as session:
        discs = [add_disc(session, [], state="PLANNED").id for _ in range(8)]
        slots.ensure(session, "iso", slots.EVERY_NODE, 3)
    got: dict[int, int | None] = {}

    def claim(disc: int) -> None:
        with database.begin() as session:
            got[disc] = slots.claim(session, "iso", slots.EVERY_NODE, disc)

    threads = [threading.Thread(target=claim, args=(disc,)) for disc in discs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    given = [slot for slot in got.values() if slot is not None]
    assert len(given) == len(set(given)) <= 3
    with database.begin() as session:
        for disc in discs:  # who lost a race asks again
            got[disc] = slots.claim(session, "iso", slots.EVERY_NODE, disc)
        given = [slot for slot in got.values() if slot is not None]
        assert sorted(given) == [1, 2, 3]
        holder = next(disc for disc, slot in got.items() if slot == 2)
        assert slots.claim(session, "iso", slots.EVERY_NODE, holder) == 2  # the one it has already
        assert slots.release(session, holder) and not slots.release(session, holder)
        waiting = next(disc for disc, slot in got.items() if slot is None)
        assert slots.claim(session, "iso", slots.EVERY_NODE, waiting) == 2


def test_a_slot_in_use_is_never_taken_away(database: Database) -> None:
    with database.begin() as session:
        disc = add_disc(session, [], state="PLANNED").id
        slots.ensure(session, "iso", "n1", 2)
        assert slots.claim(session, "iso", "n1", disc) == 1
    with database.begin() as session:
        slots.ensure(session, "iso", "n1", 1)
        assert list(session.scalars(select(BurnerSlot.slot))) == [1]
        slots.ensure(session, "iso", "n1", 4)
    with database.begin() as session:
        slots.ensure(session, "iso", "n1", 1)
        assert list(session.scalars(select(BurnerSlot.slot))) == [1]


@pytest.mark.postgres
def test_who_is_stopped_in_a_transaction_does_not_keep_its_locks(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Database(postgres_url)
    migrate.upgrade(other)
    held = acquire(other, "n1")
    monkeypatch.setattr("store.db.IDLE_TRANSACTION_SECONDS", 1)
    stopped = Database(postgres_url)  # and none but this is ended so early
    with pytest.raises(DBAPIError), stopped.begin() as session:
        assert nodes.renew(session, held, 60)
        with other.begin() as second:  # waits for the row until PostgreSQL has ended the idle one
            assert nodes.renew(second, held, 60)
        session.execute(select(Node.name))
    stopped.close()
    other.close()
