"""What may leave the spool: enough discs, nobody's need, the longest there first; and nothing lost to a race."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from store import atrisk, commitments, copies, holds, purging, recalls, retention, shelves
from store.commitments import Pair
from store.db import Database
from store.models import Instance
from store.models_archive import Pool, PoolInstance
from store.models_base import now
from store.models_jobs import Disc, Job, Request, RequestInstance, Volume
from store.purging import Policy
from store.recalls import RecallState
from store.spool import Spool
from tests.rows import add_disc, add_instance

CT = "1.2.840.10008.5.1.4.1.1.2"


@dataclass
class Store:
    db: Database
    spool: Spool
    derived: Path

    def add(self, session: Session, number: int, *, study: int = 1, day: int = 1, size: int = 1000) -> Instance:
        """An instance with its file; ``day``: when it came into the spool."""
        path = f"202601{day:02}/00/2026{day:02}0100-{number:020x}.dcm"
        file = self.spool.path_of(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(size))
        uids = {"study": f"1.2.{study}", "series": f"1.2.{study}.1"}
        return add_instance(session, f"1.{number}", **uids, spool_path=path, file_bytes=size)

    def on_disc(self, session: Session, *instances: Instance) -> int:
        disc = add_disc(session, list(instances))
        copies.recount(session, disc.volume_id)
        return disc.id

    def purge(self, dry_run: bool = False, **policy: Any) -> dict[str, Any]:
        return purging.purge(self.db, self.spool, self.derived, Policy(**policy), dry_run=dry_run)

    def left(self) -> list[str]:
        with self.db.read() as session:
            rows = session.execute(select(Instance.sop_instance_uid, Instance.spool_path).order_by(Instance.id)).all()
        for uid, path in rows:
            assert path is None or self.spool.path_of(path).exists(), uid
        return [uid for uid, path in rows if path is not None]


@pytest.fixture
def store(database: Database, tmp_path: Path) -> Store:
    return Store(database, Spool(tmp_path / "spool", node="n"), tmp_path / "derived")


def test_a_volume_that_wants_more_copies_has_its_way(store: Store) -> None:
    with store.db.begin() as session:
        disc = store.on_disc(session, store.add(session, 1))
        session.execute(update(Job).values(copies=2))
        copies.recount(session, session.get_one(Disc, disc).volume_id)
    assert store.purge()["instances"] == 0
    with store.db.begin() as session:
        session.execute(update(Job).values(copies=1))
        copies.recount(session, 1)
    assert store.purge()["instances"] == 1


def test_the_pool_says_how_many_discs_there_must_be(store: Store) -> None:
    with store.db.begin() as session:
        one = store.add(session, 1)
        first, second = store.on_disc(session, one), store.on_disc(session, one)
        _pool(session, required=2)
        session.get_one(Disc, first).pool = "vault"
        session.flush()
        copies.recount_pool(session, "vault")
        shelves.mark(session, second, "LOST", reason="")
    assert store.purge()["instances"] == 0
    with store.db.begin() as session:
        shelves.found(session, second)
    assert store.purge()["instances"] == 1
    with store.db.read() as session:
        assert atrisk.volumes(session) == []


def test_a_disc_that_only_its_robot_vouches_for_is_no_reason(store: Store) -> None:
    with store.db.begin() as session:
        disc = store.on_disc(session, store.add(session, 1))
        session.get_one(Disc, disc).verified_by = "robot"
    assert store.purge(dry_run=True)["instances"] == 0
    assert store.purge(dry_run=True, count_robots=True)["instances"] == 1
    with store.db.begin() as session:
        session.get_one(Disc, disc).checked_result = "GOOD"  # we have read it
    assert store.purge()["instances"] == 1


@pytest.mark.parametrize("purpose", ["backup", "handout", "unknown"])
def test_discs_of_no_archive_are_no_reason(store: Store, purpose: str) -> None:
    with store.db.begin() as session:
        session.get_one(Disc, store.on_disc(session, store.add(session, 1))).purpose = purpose
    assert store.purge()["instances"] == 0


def test_what_is_held_stays(store: Store) -> None:
    with store.db.begin() as session:
        store.on_disc(session, store.add(session, 1, study=1), store.add(session, 2, study=2))
        (hold,) = holds.keep(session, ["1.2.1"], reason="x")
    assert [one["study_instance_uid"] for one in store.purge(dry_run=True)["studies"]] == ["1.2.2"]
    store.purge()
    assert store.left() == ["1.1"]
    with store.db.begin() as session:
        holds.release(session, [hold])
    store.purge()
    assert store.left() == []


def test_what_is_held_is_not_deleted(store: Store) -> None:
    with store.db.begin() as session:
        held, free = store.add(session, 1, study=1).id, store.add(session, 2, study=2).id
        holds.keep(session, ["1.2.1"], reason="x")
    with pytest.raises(retention.NeededByJob, match="H1 holds instances"):
        retention.delete(store.db, store.spool, store.derived, [held, free])
    retention.delete(store.db, store.spool, store.derived, [free])
    assert store.left() == ["1.1"]


def test_what_an_open_job_or_a_waiting_pool_needs_stays(store: Store) -> None:
    with store.db.begin() as session:
        made = [store.add(session, number) for number in (1, 2, 3)]
        store.on_disc(session, *made)
        request = Request(created_at=now(), source="cli", selection={}, options={})
        session.add(request)
        session.flush()
        session.add(RequestInstance(request_id=request.id, instance_id=made[0].id))
        job = session.scalars(select(Job)).one()
        session.add(
            Job(
                request_id=request.id,
                plan_id=None,
                state="QUEUED",
                priority=2,
                burner="iso",
                copies=1,
                attempt=1,
                cancel_requested=False,
                progress={},
                created_at=job.created_at,
                updated_at=job.updated_at,
            )
        )
        _pool(session)
        session.add(PoolInstance(pool="vault", instance_id=made[1].id, added_at=now()))
    store.purge()
    assert store.left() == ["1.1", "1.2"]
    with store.db.begin() as session:
        session.execute(update(PoolInstance).values(refused="no room"))
    store.purge()
    assert store.left() == ["1.1"]


def test_what_a_recall_needs_stays_and_for_a_while_after(store: Store) -> None:
    with store.db.begin() as session:
        one = store.add(session, 1)
        store.on_disc(session, one)
        recalls.add(session, [one.id], source="cli", by="ada", selection={})
    assert store.purge(recalled_hours=1.0)["instances"] == 0
    with store.db.begin() as session:
        table = recalls.Recall
        session.execute(update(table).values(state=RecallState.DONE, finished_at=now() - timedelta(minutes=30)))
    assert store.purge(recalled_hours=1.0)["instances"] == 0
    assert store.purge(recalled_hours=0.25)["instances"] == 1


@pytest.mark.parametrize("role", ["scp", "scu"])
def test_what_an_open_commitment_is_about_stays(store: Store, role: str) -> None:
    with store.db.begin() as session:
        store.on_disc(session, store.add(session, 1), store.add(session, 2))
        number = commitments.enter(session, role, "1.2.3", [Pair(CT, "1.1")], ae_title="X", source="x")
    store.purge()
    assert store.left() == ["1.1"]
    with store.db.begin() as session:
        commitments.settle(session, number, discs=1, patience=timedelta(0))
        commitments.reported(session, number)
    store.purge()
    assert store.left() == []


def test_the_longest_in_the_spool_goes_first_and_a_study_as_a_whole(store: Store) -> None:
    with store.db.begin() as session:
        late = [store.add(session, number, study=2, day=20) for number in (1, 2)]
        back = store.add(session, 3, study=3, day=25)
        early = [store.add(session, number, study=1, day=10) for number in (4, 5, 6)]
        store.on_disc(session, *late, back, *early)
    dry = store.purge(dry_run=True, to_free=1500)
    assert [(one["study_instance_uid"], one["instances"], one["bytes"]) for one in dry["studies"]] == [
        ("1.2.1", 3, 3000)
    ]
    wet = store.purge(to_free=1500)
    assert {**dry, "dry_run": False} == wet and store.left() == ["1.1", "1.2", "1.3"]
    assert store.purge(to_free=0)["instances"] == 0
    assert [one["study_instance_uid"] for one in store.purge()["studies"]] == ["1.2.2", "1.2.3"]


def test_what_a_pool_keeps_goes_only_for_want_of_room(store: Store) -> None:
    with store.db.begin() as session:
        kept, old = store.add(session, 1, study=1, day=1), store.add(session, 2, study=2, day=2)
        old.received_at = now() - timedelta(days=31)
        disc = store.on_disc(session, kept, old)
        _pool(session, keep_days=30)
        session.get_one(Disc, disc).pool = "vault"
    assert [one["study_instance_uid"] for one in store.purge(dry_run=True)["studies"]] == ["1.2.2"]
    both = store.purge(to_free=2000)
    assert [one["study_instance_uid"] for one in both["studies"]] == ["1.2.2", "1.2.1"]


def test_only_what_is_old(store: Store) -> None:
    with store.db.begin() as session:
        new, old = store.add(session, 1), store.add(session, 2)
        old.received_at = now() - timedelta(days=8)
        store.on_disc(session, new, old)
    store.purge(received_before=now() - timedelta(days=7))
    assert store.left() == ["1.1"]


def test_many_batches(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purging, "_BATCH", 3)
    with store.db.begin() as session:
        made = [store.add(session, number, study=number // 4, day=1 + number) for number in range(10)]
        store.on_disc(session, *made[:8])
    told = store.purge(dry_run=True)
    assert (told["instances"], told["kept"], len(told["studies"])) == (8, 2, 2)
    assert store.purge(to_free=4500)["instances"] == 8  # the fifth opens the second study, which goes as a whole
    assert store.left() == ["1.8", "1.9"]


def _pool(session: Session, *, required: int = 1, keep_days: int = 0) -> None:
    session.add(
        Pool(
            name="vault",
            kind="archive",
            options={},
            copies=required,
            required_copies=required,
            min_fill=90.0,
            latest_days=None,
            keep_days=keep_days,
            shelves=[],
            created_at=now(),
        )
    )
    session.flush()


# ------------------------------------------------------------------ at one moment


@pytest.fixture
def racing(postgres_url: str, tmp_path: Path) -> Any:
    from store import migrate

    db = Database(postgres_url)
    migrate.upgrade(db)
    yield Store(db, Spool(tmp_path / "spool", node="n"), tmp_path / "derived")
    db.close()


def _while_waiting(db: Database, act: Any) -> threading.Thread:
    """Begin something in a thread; returns when it waits for a lock, or has ended."""
    thread = threading.Thread(target=act)
    thread.start()
    while thread.is_alive():
        with db.engine.connect() as connection:
            if connection.execute(
                text(
                    "SELECT count(*) FROM pg_stat_activity "
                    "WHERE wait_event_type = 'Lock' AND datname = current_database()"
                )
            ).scalar():
                break
    return thread


def test_a_disc_marked_as_lost_while_a_purge_begins_is_seen(racing: Store) -> None:
    with racing.db.begin() as session:
        disc = racing.on_disc(session, racing.add(session, 1))
    told: list[dict[str, Any]] = []
    with racing.db.begin() as session:
        shelves.mark(session, disc, "LOST", reason="")  # not committed yet: others still see a good disc
        thread = _while_waiting(racing.db, lambda: told.append(racing.purge()))
        assert thread.is_alive()
    thread.join()
    assert told[0]["instances"] == 0 and racing.left() == ["1.1"]


def test_a_purge_that_is_deciding_is_waited_for(racing: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with racing.db.begin() as session:
        disc = racing.on_disc(session, racing.add(session, 1))
    forget = purging.forget_spool_paths
    marking: list[threading.Thread] = []

    def mark() -> None:
        with racing.db.begin() as other:
            shelves.mark(other, disc, "LOST", reason="")

    def forget_slowly(session: Session, ids: Any) -> None:
        marking.append(_while_waiting(racing.db, mark))
        assert marking[0].is_alive()
        forget(session, ids)

    monkeypatch.setattr(purging, "forget_spool_paths", forget_slowly)
    assert racing.purge()["instances"] == 1
    marking[0].join()
    with racing.db.read() as session:  # it was lost after all: that is told
        assert atrisk.volumes(session)[0]["gone"]


def test_what_a_request_takes_in_at_this_moment_is_left_alone(racing: Store) -> None:
    with racing.db.begin() as session:
        one = racing.add(session, 1)
        racing.on_disc(session, one)
    with racing.db.begin() as session:
        request = Request(created_at=now(), source="cli", selection={}, options={})
        session.add(request)
        session.flush()
        session.add(RequestInstance(request_id=request.id, instance_id=one.id))
        session.flush()
        assert racing.purge()["instances"] == 0
    with racing.db.begin() as session:
        holds.keep(session, ["1.2.1"], reason="x")
        assert racing.purge()["instances"] == 0
    assert racing.left() == ["1.1"]
    with racing.db.read() as session:
        assert session.scalar(select(Volume.good_copies)) == 1
