"""What watched places brought is kept once for each disc, on either database."""

from __future__ import annotations

from sqlalchemy import func, select

from store import watches
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
