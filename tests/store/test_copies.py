"""How many discs count, and how many there should be: kept with the volume in the transaction that changes a disc."""

from __future__ import annotations

from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from store import copies, discs, rereading
from store.db import Database
from store.models_archive import Pool
from store.models_base import now
from store.models_jobs import Disc, Job, Volume
from store.states import DiscState
from tests.rows import add_disc, add_instance


def _numbers(db: Database) -> tuple[int, int]:
    with db.read() as session:
        row = session.execute(select(Volume.good_copies, Volume.wanted_copies)).one()
        return row.good_copies, row.wanted_copies


def _pool(session: Session, name: str, required: int) -> None:
    session.add(
        Pool(
            name=name,
            kind="archive",
            options={},
            copies=required,
            required_copies=required,
            min_fill=90.0,
            latest_days=None,
            keep_days=0,
            shelves=[],
            created_at=now(),
        )
    )
    session.flush()


def _volume(session: Session, *, ordered: int = 1) -> list[Disc]:
    """A volume with so many discs that are being verified."""
    first = add_disc(session, [add_instance(session, "1.1")], state="VERIFYING")
    session.execute(update(Job).values(copies=ordered))
    made = [first]
    for copy in range(2, ordered + 1):
        disc = discs.new_disc(session.get_one(Job, first.job_id), first.volume_id, copy, attempt=1)
        disc.state = DiscState.VERIFYING
        session.add(disc)
        session.flush()
        made.append(disc)
    return made


def test_a_disc_counts_from_the_moment_it_is_verified(database: Database) -> None:
    with database.begin() as session:
        first, second = _volume(session, ordered=2)
    assert _numbers(database) == (0, 0)
    with database.begin() as session:
        discs.move_disc(session, session.get_one(Disc, first.id), DiscState.VERIFIED)
    assert _numbers(database) == (1, 2)  # two were ordered, one is there
    with database.begin() as session:
        discs.move_disc(session, session.get_one(Disc, second.id), DiscState.VERIFIED)
    assert _numbers(database) == (2, 2)
    with database.begin() as session:
        rereading.record_check(session, first.id, good=False, how="drive /dev/sr0", detail={})
    assert _numbers(database) == (1, 2)
    with database.begin() as session:
        rereading.record_check(session, first.id, good=True, how="drive /dev/sr1", detail={})
    assert _numbers(database) == (2, 2)


def test_a_failed_disc_changes_nothing(database: Database) -> None:
    with database.begin() as session:
        (disc,) = _volume(session)
        discs.move_disc(session, disc, DiscState.FAILED)
    assert _numbers(database) == (0, 0)


def test_a_pool_says_how_many_there_should_be(database: Database) -> None:
    with database.begin() as session:
        (disc,) = _volume(session)
        _pool(session, "vault", 3)
        disc.pool = "vault"
        session.flush()
        discs.move_disc(session, disc, DiscState.VERIFIED)
    assert _numbers(database) == (1, 3)
    with database.begin() as session:
        session.execute(update(Pool).values(required_copies=2))
        copies.recount_pool(session, "vault")
    assert _numbers(database) == (1, 2)


def test_a_disc_of_a_backup_or_for_a_patient_is_not_counted(database: Database) -> None:
    for purpose in ("backup", "handout", "unknown"):
        with database.begin() as session:
            disc = add_disc(session, [add_instance(session, f"1.{purpose}")], state="VERIFYING")
            disc.purpose = purpose
            session.flush()
            discs.move_disc(session, disc, DiscState.VERIFIED)
    with database.read() as session:
        found = session.execute(select(Volume.good_copies, Volume.wanted_copies)).tuples().all()
        assert found == [(0, 0), (0, 0), (0, 0)]
        assert copies.wrong(session) == []


def test_the_truth_is_in_the_discs(database: Database) -> None:
    with database.begin() as session:
        disc = add_disc(session, [add_instance(session, "1.1")])  # nobody has counted it
    with database.begin() as session:
        (found,) = copies.wrong(session)
        assert (found["volume"], found["good_copies"], found["counted"], found["wanted"]) == (disc.volume_id, 0, 1, 1)
        assert copies.recount_all(session) == 1
    assert _numbers(database) == (1, 1)
    with database.begin() as session:
        assert (copies.wrong(session), copies.recount_all(session)) == ([], 0)


def test_two_copies_verified_at_one_moment_are_both_counted(postgres_url: str) -> None:
    """Neither transaction sees the other's disc before it waits for the volume."""
    import threading

    from store import migrate

    db = Database(postgres_url)
    migrate.upgrade(db)
    try:
        with db.begin() as session:
            first, second = _volume(session, ordered=2)
            add_disc(session, [add_instance(session, "1.2")])
        with db.begin() as session:
            discs.move_disc(session, session.get_one(Disc, first.id), DiscState.VERIFIED)

            def other() -> None:
                with db.begin() as mine:
                    discs.move_disc(mine, mine.get_one(Disc, second.id), DiscState.VERIFIED)

            thread = threading.Thread(target=other)
            thread.start()
            waiting = (
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
            while thread.is_alive():
                with db.engine.connect() as connection:
                    if connection.execute(text(waiting)).scalar():
                        break
        thread.join()
        with db.read() as session:
            counted = session.execute(select(Volume.good_copies).where(Volume.id == first.volume_id)).scalar_one()
            assert counted == 2
    finally:
        db.close()
