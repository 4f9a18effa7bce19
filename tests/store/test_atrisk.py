"""What is on too few discs, and what of that nothing else holds."""

from __future__ import annotations

from sqlalchemy import event, update
from sqlalchemy.orm import Session

from store import atrisk, copies, shelves
from store.db import Database
from store.discs import new_disc
from store.models import Instance
from store.models_jobs import Disc, Job
from store.states import DiscState
from tests.rows import add_disc, add_instance


def _on_discs(session: Session, instances: list[Instance], ordered: int) -> list[int]:
    """So many verified discs of a volume; they are counted."""
    first = add_disc(session, instances)
    session.execute(update(Job).where(Job.id == first.job_id).values(copies=ordered))
    made = [first.id]
    for copy in range(2, ordered + 1):
        disc = new_disc(session.get_one(Job, first.job_id), first.volume_id, copy, attempt=1)
        disc.state = DiscState.VERIFIED
        session.add(disc)
        session.flush()
        made.append(disc.id)
    copies.recount(session, first.volume_id)
    return made


def test_a_study_in_the_spool_is_not_at_risk_but_can_be_burnt_again(database: Database) -> None:
    with database.begin() as session:
        first, _ = _on_discs(session, [add_instance(session, "1.1"), add_instance(session, "1.2")], 2)
        shelves.mark(session, first, "LOST", reason="")
    with database.read() as session:
        assert (atrisk.volumes(session), atrisk.instances(session)) == ([], [])
        (short,) = atrisk.volumes(session, in_spool_too=True)
    assert (short["good_copies"], short["wanted_copies"], short["at_risk"]) == (1, 2, False)
    assert (short["in_spool"], short["reburn"]["from"]) == ("all", "spool")
    assert [(study["instances"], study["in_spool"], study["at_risk"]) for study in short["studies"]] == [(2, 2, 0)]


def test_what_left_the_spool_and_is_on_too_few_discs_is_at_risk(database: Database) -> None:
    with database.begin() as session:
        gone = [add_instance(session, f"1.{n}", in_spool=False, study="1.2.7", series="1.2.7.1") for n in (1, 2)]
        here = add_instance(session, "1.3", study="1.2.8", series="1.2.8.1")
        first, second = _on_discs(session, [*gone, here], 2)
        assert atrisk.volumes(session) == []
        shelves.mark(session, first, "LOST", reason="")
    with database.read() as session:
        (short,) = atrisk.volumes(session)
        assert atrisk.instances(session) == [one.id for one in gone]
    assert (short["at_risk"], short["gone"], short["in_spool"]) == (True, False, "some")
    assert short["reburn"] == {
        "from": "disc",
        "disc": f"D{second}",
        "command": f"burnish reburn {short['file_set_id']}",
    }
    assert {one["study_instance_uid"]: (one["at_risk"], one["copies"]) for one in short["studies"]} == {
        "1.2.7": (2, 1),
        "1.2.8": (0, None),
    }
    with database.begin() as session:
        shelves.mark(session, second, "DAMAGED", reason="")
        assert atrisk.volumes(session)[0]["gone"]
        assert atrisk.summary(session) == {"short": 1, "at_risk": 1, "gone": 1}
        shelves.found(session, first)
        shelves.found(session, second)
        assert atrisk.summary(session) == {"short": 0, "at_risk": 0, "gone": 0}


def test_discs_of_other_volumes_are_copies_too(database: Database) -> None:
    with database.begin() as session:
        one = add_instance(session, "1.1", in_spool=False)
        (lost,) = _on_discs(session, [one], 1)
        _on_discs(session, [one], 1)
        shelves.mark(session, lost, "LOST", reason="")
        assert atrisk.volumes(session) == []
        assert len(atrisk.volumes(session, in_spool_too=True)) == 1


def test_a_disc_that_was_for_somebody_else_is_no_copy(database: Database) -> None:
    with database.begin() as session:
        one = add_instance(session, "1.1", in_spool=False)
        archive = _on_discs(session, [one], 1)
        handed = _on_discs(session, [one], 1)
        session.get_one(Disc, handed[0]).purpose = "handout"
        session.flush()
        copies.recount(session, session.get_one(Disc, handed[0]).volume_id)
        shelves.mark(session, archive[0], "LOST", reason="")
        (short,) = atrisk.volumes(session)
        assert short["gone"] and [disc["disc"] for disc in short["discs"]] == [f"D{archive[0]}"]


def test_volumes_with_all_their_copies_are_not_looked_at(database: Database) -> None:
    """The answer comes from the index of volumes that are short."""
    with database.begin() as session:
        for number in range(30):
            discs = _on_discs(session, [add_instance(session, f"1.{number}", in_spool=False)], 1)
        shelves.mark(session, discs[0], "LOST", reason="")
    plans: list[str] = []
    explain = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "

    def note(connection, cursor, statement, parameters, context, many):  # type: ignore[no-untyped-def]
        if statement.startswith("SELECT volume."):
            shown = connection.connection.cursor()
            if not database.is_sqlite:
                shown.execute("SET enable_seqscan = off")
            shown.execute(explain + statement, parameters)
            plans.append(" ".join(str(part) for row in shown.fetchall() for part in row))

    event.listen(database.engine, "before_cursor_execute", note)
    with database.read() as session:
        assert len(atrisk.volumes(session)) == 1
    event.remove(database.engine, "before_cursor_execute", note)
    assert plans and "ix_volume_short" in plans[0]


def test_pages(database: Database) -> None:
    with database.begin() as session:
        for number in range(3):
            discs = _on_discs(session, [add_instance(session, f"1.{number}", in_spool=False)], 1)
            shelves.mark(session, discs[0], "LOST", reason="")
    with database.read() as session:
        first = atrisk.volumes(session, limit=2)
        rest = atrisk.volumes(session, after=first[-1]["volume_id"])
    assert [len(first), len(rest)] == [2, 1] and rest[0]["volume_id"] > first[1]["volume_id"]
