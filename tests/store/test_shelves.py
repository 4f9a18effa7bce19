"""Discs as things: moved, taken out, brought back, lost, damaged, found; each with its Event."""

from __future__ import annotations

import pytest
from sqlalchemy import select, update

from store import atrisk, catalogue, copies, discviews, rereading, shelves
from store.db import Database
from store.models import Instance
from store.models_jobs import Disc, Volume
from store.models_nodes import Event
from tests.rows import add_disc, add_instance


@pytest.fixture
def disc(database: Database) -> int:
    """A disc of two studies that left the spool."""
    with database.begin() as session:
        one = add_instance(session, "1.1", in_spool=False, study="1.2.8")
        other = add_instance(session, "1.2", in_spool=False, study="1.2.9", series="1.2.9.1")
        made = add_disc(session, [one, other])
        rereading.record_check(session, made.id, good=True, how="image", detail={})  # counted from now on
        return made.id


def _events(db: Database, kind: str) -> list[tuple[str | None, str | None, str]]:
    with db.read() as session:
        rows = session.scalars(select(Event).where(Event.kind == kind).order_by(Event.id))
        return [(row.old, row.new, row.detail["by"]) for row in rows]


def test_a_disc_is_moved(database: Database, disc: int) -> None:
    with database.begin() as session:
        assert shelves.move(session, disc, " room 3 / shelf 12 ", by="ada").shelf == "room 3 / shelf 12"
    with database.begin() as session:
        shelves.move(session, disc, "room 3 / shelf 12", by="bob")  # it is there: nothing happens
        shelves.move(session, disc, "", by="bob")
    assert _events(database, "shelf") == [(None, "room 3 / shelf 12", "ada"), ("room 3 / shelf 12", None, "bob")]


def test_a_disc_is_with_one_person_at_a_time(database: Database, disc: int) -> None:
    with database.begin() as session:
        shelves.move(session, disc, "A/1")
        shelves.check_out(session, disc, "Dr Grün", by="ada")
    with database.begin() as session, pytest.raises(shelves.DiscError, match="is with Dr Grün since"):
        shelves.check_out(session, disc, "Dr Blau")
    with database.read() as session:
        (row,) = discviews.discs(session, out=True)
        assert (row["shelf"], row["checked_out_to"], row["counts"]) == ("A/1", "Dr Grün", True)
    with database.begin() as session:
        back = shelves.check_in(session, disc, by="ada")
        assert (back.shelf, back.checked_out_to, back.checked_out_at) == ("A/1", None, None)
    with database.begin() as session, pytest.raises(shelves.DiscError, match="nobody has"):
        shelves.check_in(session, disc)
    assert _events(database, "shelf")[1:] == [("A/1", "Dr Grün", "ada"), ("Dr Grün", "A/1", "ada")]


def test_nobody_takes_what_is_lost(database: Database, disc: int) -> None:
    with database.begin() as session:
        shelves.check_out(session, disc, "Dr Grün")
        shelves.mark(session, disc, "LOST", reason="")
    with database.begin() as session:
        back = shelves.check_in(session, disc)
        assert (back.checked_out_to, back.marked) == (None, "LOST"), "being back does not make it count"
    with database.begin() as session:
        for refused in (
            lambda: shelves.check_out(session, disc, "Dr Blau"),
            lambda: shelves.move(session, disc, "B/2"),
        ):
            with pytest.raises(shelves.DiscError, match=f"marked as lost since .* found D{disc}") as told:
                refused()
            assert told.value.code == "LOST"
        shelves.mark(session, disc, "DAMAGED", reason="")
        assert shelves.check_out(session, disc, "who reads it").checked_out_to, "what is damaged can be carried"
        shelves.check_in(session, disc)
        shelves.mark(session, disc, "LOST", reason="")
        shelves.found(session, disc)
        assert shelves.check_out(session, disc, "Dr Blau").checked_out_to == "Dr Blau"


@pytest.mark.parametrize("bad", ["x" * 256, "two\nlines", "\x1b[31m"])
def test_a_place_is_a_line_of_text(database: Database, disc: int, bad: str) -> None:
    with database.begin() as session, pytest.raises(shelves.BadPlace):
        shelves.move(session, disc, bad)
    with database.begin() as session, pytest.raises(shelves.BadPlace, match="empty"):
        shelves.check_out(session, disc, "  ")


def test_only_what_was_made_is_kept(database: Database, disc: int) -> None:
    with database.begin() as session:
        failed = add_disc(session, [session.get_one(Instance, 1)], state="FAILED").id
    with database.begin() as session, pytest.raises(shelves.DiscError, match="FAILED"):
        shelves.move(session, failed, "A")
    with database.begin() as session, pytest.raises(shelves.DiscError, match="FAILED"):
        shelves.mark(session, failed, "LOST", reason="")
    with database.begin() as session, pytest.raises(rereading.NoSuchDisc, match="D99"):
        shelves.found(session, 99)


@pytest.mark.parametrize("what", ["LOST", "DAMAGED"])
def test_nobody_counts_on_a_marked_disc(database: Database, disc: int, what: str) -> None:
    with database.begin() as session:
        shelves.mark(session, disc, what, reason="the lorry burnt", by="ada")
    with database.read() as session:
        assert session.execute(select(Volume.good_copies, Volume.wanted_copies)).one() == (0, 1)
        assert session.get_one(Disc, disc).state == "VERIFIED"  # how it was made stays true
        (volume,) = atrisk.volumes(session)
        assert (volume["gone"], volume["reburn"]["from"]) == (True, "nothing" if what == "LOST" else "damaged disc")
        (row,) = discviews.discs(session, marked=True)
        assert (row["counts"], row["marked"], row["marked_reason"]) == (False, what, "the lorry burnt")
    with database.begin() as session:
        shelves.found(session, disc, by="bob")
    with database.read() as session:
        assert (session.scalar(select(Volume.good_copies)), atrisk.volumes(session)) == (1, [])
    assert _events(database, "mark") == [(None, what, "ada"), (what, None, "bob")]


def test_a_found_disc_that_reads_badly_does_not_count(database: Database, disc: int) -> None:
    with database.begin() as session:
        rereading.record_check(session, disc, good=False, how="drive", detail={})
        shelves.mark(session, disc, "LOST", reason="")
        shelves.found(session, disc)
    with database.read() as session:
        assert session.scalar(select(Volume.good_copies)) == 0
        assert discviews.discs(session, flagged=True)[0]["checked_result"] == "DAMAGED"


def test_a_list_goes_on_where_it_ended(database: Database, disc: int) -> None:
    with database.begin() as session:
        for number in range(3):
            add_disc(session, [add_instance(session, f"2.{number}")]).shelf = f"B_{number}"
    with database.read() as session:
        first = discviews.discs(session, limit=2)
        rest = discviews.discs(session, after=int(first[-1]["disc"][1:]), limit=10)
        assert [one["disc"] for one in first + rest] == ["D1", "D2", "D3", "D4"]
        assert [one["disc"] for one in discviews.discs(session, shelf="B_")] == ["D2", "D3", "D4"]
        assert discviews.discs(session, shelf="B%") == []  # no wildcard


def test_all_that_is_known_of_a_disc(database: Database, disc: int) -> None:
    with database.begin() as session:
        shelves.move(session, disc, "A/1")
    with database.read() as session:
        found = discviews.disc(session, disc)
    assert (found["instances"], found["studies"], found["times_read"]) == (2, ["1.2.8", "1.2.9"], 1)
    assert [event["kind"] for event in found["events"]] == ["check", "shelf"]
    assert [check["result"] for check in found["checks"]] == ["GOOD"]


@pytest.mark.parametrize(
    ("earlier", "now_", "worse"),
    [
        ((1000, 0, 10.0), (1000, 0, 29.0), ""),
        ((1000, 0, 10.0), (1000, 0, 31.0), "3.1 times"),
        ((1000, 0, 10.0), (1000, 4, 10.0), "4 sectors"),
        ((1000, 4, 10.0), (1000, 4, 10.0), "4 sectors"),  # it was worn, and is no better
        ((1000, 4, 10.0), (1000, 0, 10.0), ""),
    ],
)
def test_a_disc_that_reads_worse_than_before_is_flagged(
    database: Database, disc: int, earlier: tuple[int, int, float], now_: tuple[int, int, float], worse: str
) -> None:
    told = {}
    for sectors, unreadable, seconds in (earlier, now_):
        with database.begin() as session:
            told = rereading.record_check(
                session,
                disc,
                good=True,
                how="drive /dev/sr0",
                detail={},
                sectors=sectors,
                unreadable=unreadable,
                seconds=seconds,
            )
    assert told["checked_result"] == ("WORN" if worse else "GOOD")
    assert worse in str(told.get("worse", ""))
    with database.read() as session:
        assert session.scalar(select(Volume.good_copies)) == 1  # it can be read: it still counts


def test_a_disc_that_is_handed_out_is_no_place_of_the_archive(database: Database, disc: int) -> None:
    with pytest.raises(shelves.DiscError, match="2 instances are on D1 alone"), database.begin() as session:
        shelves.dedicate(session, disc, "handout", by="ada")
    with database.begin() as session:
        assert session.execute(select(Volume.good_copies, Volume.wanted_copies)).one() == (1, 1)
        session.execute(update(Instance).values(spool_path=Instance.sop_instance_uid))
    with database.begin() as session:
        shelves.dedicate(session, disc, "handout", by="ada")
        assert session.execute(select(Volume.good_copies, Volume.wanted_copies)).one() == (0, 0)
        shelves.dedicate(session, disc, "archive", by="ada")
        assert session.execute(select(Volume.good_copies, Volume.wanted_copies)).one() == (1, 1)
    assert _events(database, "mark") == [("archive", "handout", "ada"), ("handout", "archive", "ada")]
    with database.begin() as session, pytest.raises(shelves.BadPlace, match="no purpose"):
        shelves.dedicate(session, disc, "gift")


def test_what_nobody_said_of_a_disc_can_be_said_of_all(database: Database, disc: int) -> None:
    with database.begin() as session:
        others = [add_disc(session, [add_instance(session, f"1.{n}", in_spool=n == 5)]).id for n in (3, 4, 5)]
        session.execute(update(Disc).where(Disc.id.in_([disc, *others])).values(purpose="unknown"))
        session.execute(update(Volume).where(Volume.id == 2).values(file_set_id="A%B_1"))
        copies.recount_all(session)
        assert session.scalar(select(Volume.good_copies)) == 0
        assert atrisk.volumes(session) == [] and atrisk.unconfirmed(session) == {"discs": 4, "volumes": 3}
        assert [one["purpose"] for one in catalogue.find(session, sop="1.3")] == ["unknown"]
    for pattern, found in (("X*", []), ("A?B_1", [others[0]])):
        with database.begin() as session:
            assert shelves.dedicate_unknown(session, "backup", file_set_id=pattern, by="ada") == found
    with database.begin() as session:  # the patient has it: that is so, whatever it alone holds
        assert shelves.dedicate(session, others[1], "handout", by="ada").purpose == "handout"
    with database.begin() as session:
        shelves.mark(session, others[2], "LOST", reason="")
        assert shelves.dedicate_unknown(session, "archive", by="ada") == [disc]
        assert atrisk.unconfirmed(session) == {"discs": 0, "volumes": 0}
        first = select(Volume.good_copies, Volume.wanted_copies).order_by(Volume.id)
        assert session.execute(first).first() == (1, 1)
        assert copies.wrong(session) == []
    assert _events(database, "mark")[-1] == ("unknown", "archive", "ada")
    with database.begin() as session, pytest.raises(shelves.BadPlace, match="no purpose"):
        shelves.dedicate_unknown(session, "unknown")
