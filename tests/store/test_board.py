"""What the board shows: jobs by what they need, with their discs, patients and time left."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from store import board, migrate
from store.board import DISMISSED
from store.db import Database
from store.models_base import now
from store.models_jobs import Disc, Job, RequestInstance
from store.models_nodes import Event
from tests.rows import add_disc, add_instance

DAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("board") / "burnish.db"
    made = Database(f"sqlite:///{path}")
    migrate.upgrade(made)
    made.close()
    return path


@pytest.fixture
def quick(template: Path, tmp_path: Path) -> Iterator[Database]:
    """A new SQLite database, without migrating it again."""
    made = Database(f"sqlite:///{shutil.copy(template, tmp_path / 'burnish.db')}")
    yield made
    made.close()


def job(session: Session, state: str, *, number: int = 1, disc: str = "", **values: object) -> Job:
    """A job of one disc about one patient."""
    instance = add_instance(
        session, f"1.2.{number}.1.1", patient_id=f"P{number}", patient_name=f"Doe{number}^J", study=f"1.2.{number}",
        series=f"1.2.{number}.1",
    )  # fmt: skip
    made = add_disc(session, [instance], state=disc or {"DONE": "VERIFIED"}.get(state, "PLANNED"))
    row = session.get_one(Job, made.job_id)
    row.state = state
    row.finished_at = now() if state in ("DONE", "FAILED", "CANCELLED") else None
    session.add(RequestInstance(request_id=row.request_id, instance_id=instance.id))
    for name, value in values.items():
        setattr(row, name, value)
    session.flush()
    return row


def shown(database: Database, **more: int) -> board.Board:
    with database.read() as session:
        return board.board(session, day=DAY, **more)


def test_jobs_stand_where_their_need_is(database: Database) -> None:
    with database.begin() as session:
        job(session, "WAITING", number=1, progress={"waiting": {"D1": "change the ink"}})
        job(session, "BURNING", number=2, disc="BURNING")
        job(session, "READY", number=3)
        job(session, "FAILED", number=4, disc="FAILED", error="D4: spoilt")
        job(session, "DONE", number=5)
        job(session, "CANCELLED", number=6)
        job(session, "DONE", number=7, finished_at=DAY - timedelta(hours=1))
        job(session, "FAILED", number=8, finished_at=now() - timedelta(days=board.FAILED_DAYS + 1))
    found = shown(database)
    groups = {name: [one.id for one in getattr(found, name)] for name in found.counts}
    assert groups == {"needs": [1], "running": [2], "queued": [3], "failed": [4], "done": [5]}
    assert found.needs[0].waits == [("D1", "change the ink")]
    assert found.needs[0].people == (("Doe1^J", "P1"),)
    assert found.counts == {"needs": 1, "running": 1, "queued": 1, "failed": 1, "done": 1}


def test_refused_instances_are_a_decision_and_no_failure(quick: Database) -> None:
    with quick.begin() as session:
        row = job(session, "FAILED", error="refused: 1.2.3: it does not fit; --skip-refused burns the others")
        session.query(Disc).filter_by(job_id=row.id).delete()
    found = shown(quick)
    assert [one.refuses_instances for one in found.needs] == [True]
    assert (found.failed, found.counts["failed"], found.counts["needs"]) == ([], 0, 1)


def test_what_was_taken_note_of_is_gone_until_it_fails_again(quick: Database) -> None:
    with quick.begin() as session:
        row = job(session, "FAILED", disc="FAILED")
        session.add(Event(at=now(), kind=DISMISSED, job_id=row.id, old="FAILED", new="FAILED", detail={}))
    assert shown(quick).failed == []
    with quick.begin() as session:
        session.get_one(Job, row.id).finished_at = now() + timedelta(seconds=1)
    assert len(shown(quick).failed) == 1


def test_only_the_latest_attempt_of_a_copy_is_shown(quick: Database) -> None:
    with quick.begin() as session:
        row = job(session, "BURNING", disc="FAILED")
        first = session.query(Disc).one()
        session.add(
            Disc(
                job_id=row.id, volume_id=first.volume_id, copy=1, attempt=2, state="BURNING", burner="iso",
                progress=0.5, purpose="archive", times_read=0, created_at=now(), updated_at=now(),
            )
        )  # fmt: skip
    (only,) = shown(quick).running
    assert [(one.attempt, one.state, one.done) for one in only.discs] == [(2, "BURNING", 0.25)]


def test_time_left_goes_on_as_it_went(quick: Database) -> None:
    at = now()
    with quick.begin() as session:
        row = job(session, "BURNING", disc="BURNING")
        disc = session.query(Disc).one()
        disc.progress = 0.5
        session.add(
            Event(
                at=at - timedelta(seconds=60), kind="disc", job_id=row.id, disc_id=disc.id, new="SUBMITTED", detail={}
            )
        )
    (only,) = shown(quick).running
    assert only.fraction == 0.25
    assert only.seconds_left(at) == pytest.approx(180)


def test_time_left_is_not_made_up(quick: Database) -> None:
    with quick.begin() as session:
        job(session, "BURNING", disc="BURNING")
    assert shown(quick).running[0].seconds_left(now()) is None


def test_the_lists_are_short_and_the_counts_are_right(quick: Database) -> None:
    with quick.begin() as session:
        for number in range(5):
            job(session, "DONE", number=number)
    found = shown(quick, limit=2)
    assert (len(found.done), found.counts["done"]) == (2, 5)


def test_all_jobs_come_page_by_page(quick: Database) -> None:
    with quick.begin() as session:
        for number in range(5):
            job(session, "DONE" if number % 2 else "FAILED", number=number)
    with quick.read() as session:
        first = board.page_of_jobs(session, before=None, limit=2)
        second = board.page_of_jobs(session, before=first[-1].id, limit=2)
        failed = board.page_of_jobs(session, before=None, state="FAILED")
    assert [one.id for one in first + second] == [5, 4, 3, 2]
    assert [one.id for one in failed] == [5, 3, 1]


def test_the_signature_changes_with_whatever_the_board_shows(database: Database) -> None:
    def signature() -> object:
        with database.read() as session:
            return board.signature(session)

    seen = [signature()]

    def changed() -> None:
        seen.append(signature())
        assert seen[-1] != seen[-2]

    with database.begin() as session:
        row = job(session, "BURNING", disc="BURNING")
    changed()
    with database.begin() as session:
        session.query(Disc).one().updated_at = now() + timedelta(seconds=1)
    changed()
    with database.begin() as session:
        session.get_one(Job, row.id).updated_at = now() + timedelta(seconds=1)
    changed()
    with database.begin() as session:
        session.add(Event(at=now(), kind="job", job_id=row.id, old="BURNING", new="WAITING", detail={}))
    changed()
    with database.begin() as session:
        add_instance(session, "1.9.9")
    changed()
    assert signature() == seen[-1]


def test_people_are_called_for_what_fails_or_waits(quick: Database) -> None:
    with quick.begin() as session:
        waits = {"waiting": {"D1": "change the ink"}}
        row = job(session, "WAITING", progress=waits, reason="PROC_FAILURE", error="D1: Doe^Jane")
        for old, new in (("READY", "BURNING"), ("BURNING", "WAITING"), ("WAITING", "WAITING"), ("WAITING", "FAILED")):
            session.add(Event(at=now(), kind="job", job_id=row.id, old=old, new=new, detail={}))
    with quick.read() as session:
        last = board.last_event(session)
        found = board.alarms(session, 0)
        assert board.alarms(session, last) == []
    assert [(one.job, one.state, one.reason, one.waits) for one in found] == [
        (row.id, "WAITING", "PROC_FAILURE", "change the ink"),
        (row.id, "FAILED", "PROC_FAILURE", "change the ink"),
    ]
    assert "Doe" not in str(found)


def test_a_job_about_several_people_says_so(quick: Database) -> None:
    with quick.begin() as session:
        row = job(session, "READY")
        other = add_instance(session, "1.8.1", patient_id="P9", patient_name="Roe^R", study="1.8", series="1.8.1")
        session.add(RequestInstance(request_id=row.request_id, instance_id=other.id))
    with quick.read() as session:
        found = board.one(session, row.id)
        assert board.one(session, 999) is None
    assert found is not None
    assert [patient for _, patient in found.people] == ["P1", "P9"]
