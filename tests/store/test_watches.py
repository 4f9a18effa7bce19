"""What watched places brought is kept once for each disc, on either database."""

from __future__ import annotations

from sqlalchemy import func, select

from store import nodes, watches
from store.db import Database
from store.models_archive import WatchSeen
from store.models_nodes import Event
from tests.rows import add_instance


def test_a_disc_is_kept_once_with_an_event_for_each_time(database: Database) -> None:
    first = watches.keep(database, "inbox", "a" * 64, "/in/disc.iso", {"complete": False, "signature": "s1"})
    again = watches.keep(database, "inbox", "a" * 64, "/in/other.iso", {"complete": True, "signature": "s2"})
    other = watches.keep(database, "drive", "a" * 64, "/dev/sr0", {"complete": True, "unsent": [1, 2]})
    assert first == again != other
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(WatchSeen)) == 2
        assert session.scalar(select(func.count()).where(Event.kind == "watch")) == 3
        assert watches.at_paths(session, "inbox", ["/in/disc.iso", "/in/other.iso"]) == {
            "/in/other.iso": {"complete": True, "signature": "s2"}
        }
        assert watches.counts(session, ["inbox", "drive", "none"]) == {"inbox": 1, "drive": 1}
        assert [row.id for row in watches.unsent(session, "drive")] == [other]
        (listed,) = watches.listed(session, "drive", 10)
        assert listed["result"] == {"complete": True, "to_send": 2}
        assert watches.listed(session, "drive", 10, before=other) == []
    with database.begin() as session:
        assert not watches.forget(session, "inbox", other)
        assert watches.forget(session, "drive", other)
        assert not watches.forget(session, "drive", other)


def test_uids_of_numbers(database: Database) -> None:
    with database.begin() as session:
        made = [add_instance(session, f"1.{number}").id for number in range(3)]
    with database.read() as session:
        assert dict(watches.uids_of(session, [*made, 999])) == {number: f"1.{at}" for at, number in enumerate(made)}


def test_a_disc_is_claimed_by_one_living_node(database: Database) -> None:
    with database.begin() as session:
        nodes.acquire(session, "n1", 60.0)
        nodes.acquire(session, "n2", 60.0)
    one = ("inbox", "a" * 64, "/in/disc.iso")
    assert watches.claim(database, *one, "n1").by == ""
    assert watches.claim(database, *one, "n1").result == {}
    assert watches.claim(database, *one, "n2").by == "n1"
    with database.read() as session:
        assert watches.listed(session, "inbox", 9)[0]["result"] == {"complete": False, "busy": "n1", "to_send": 0}
    watches.release(database, "inbox", "a" * 64, "n2")  # it is not that one's
    assert watches.claim(database, *one, "n2").by == "n1"
    with database.begin() as session:
        nodes.acquire(session, "n1", 60.0)  # another life: what it had begun is begun again by whoever is first
    assert watches.claim(database, *one, "n2").by == ""
    watches.keep(database, *one, {"complete": True, "signature": "s"})
    kept = watches.claim(database, *one, "n1")
    assert (kept.by, kept.result, kept.path) == ("", {"complete": True, "signature": "s"}, "/in/disc.iso")
    watches.release(database, "inbox", "a" * 64, "n1")
    with database.read() as session:
        (row,) = session.scalars(select(WatchSeen))
        assert row.result == {"complete": True, "signature": "s"}
