from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select

from store import purging, retention
from store.db import Database
from store.instances import Provenance, Registrar, ingest_file
from store.models import Derived, Instance, Patient, Series, Study
from store.models_base import now
from store.models_jobs import Disc, Job, Plan, Request, RequestInstance, Volume, VolumeInstance
from store.models_nodes import Event
from store.spool import Spool
from tests.makers import PATIENTS, make


@dataclass
class Held:
    """A store with four instances: three CT of one patient, one MR of another."""

    db: Database
    spool: Spool
    derived: Path
    ids: list[int]

    def path(self, number: int) -> Path | None:
        with self.db.read() as session:
            row = session.get(Instance, self.ids[number])
            return self.spool.path_of(row.spool_path) if row and row.spool_path else None

    def burnt(
        self, *numbers: int, job: str | None = "DONE", discs: tuple[str, ...] = ("VERIFIED",), derived: bool = False
    ) -> int:
        """A request and plan for these instances, with a job in this state and its discs; returns the plan."""
        with self.db.begin() as session:
            request = Request(created_at=now(), source="cli", selection={"all": True}, options={})
            session.add(request)
            session.flush()
            session.add_all(RequestInstance(request_id=request.id, instance_id=self.ids[n]) for n in numbers)
            plan = Plan(request_id=request.id, created_at=now(), profile="P", medium="M", capacity_sectors=1, report={})
            session.add(plan)
            session.flush()
            volume = Volume(
                plan_id=plan.id,
                number=1,
                of=1,
                file_set_id=f"F{plan.id}",
                file_set_uid=f"2.25.{plan.id}",
                created_at=now(),
                sectors=1,
                capacity_sectors=1,
                readme=b"",
            )
            session.add(volume)
            session.flush()
            for position, number in enumerate(numbers, 1):
                session.add(
                    VolumeInstance(
                        volume_id=volume.id,
                        position=position,
                        instance_id=self.ids[number],
                        derived_id=self.derive(session, number) if derived else None,
                        file_id=f"IM{position}",
                        size=1,
                        sha256="",
                        supplied=[],
                    )
                )
            if job is not None:
                made = Job(
                    request_id=request.id,
                    plan_id=plan.id,
                    state=job,
                    priority=2,
                    burner="iso",
                    copies=1,
                    attempt=1,
                    cancel_requested=False,
                    progress={},
                    created_at=now(),
                    updated_at=now(),
                )
                session.add(made)
                session.flush()
                for copy, state in enumerate(discs, 1):
                    session.add(
                        Disc(
                            job_id=made.id,
                            volume_id=volume.id,
                            copy=copy,
                            attempt=1,
                            state=state,
                            burner="iso",
                            progress=0.0,
                            created_at=now(),
                            updated_at=now(),
                        )
                    )
            return plan.id

    def derive(self, session: object, number: int) -> int:
        row = session.get(Instance, self.ids[number])  # type: ignore[attr-defined]
        path = f"{row.digest[:2]}/{row.digest}.dcm"
        (self.derived / path).parent.mkdir(parents=True, exist_ok=True)
        (self.derived / path).write_bytes(bytes(1000))
        made = Derived(
            source_digest=row.digest,
            sop_instance_uid=row.sop_instance_uid,
            recipe="r/1",
            path=path,
            size=1000,
            sha256="",
            transfer_syntax_uid="",
            changes=[],
            created_at=now(),
        )
        session.add(made)  # type: ignore[attr-defined]
        session.flush()  # type: ignore[attr-defined]
        return made.id

    def derived_files(self) -> int:
        return sum(1 for path in self.derived.rglob("*") if path.is_file())

    def purge(self, *, min_copies: int = 1, dry_run: bool = False) -> dict[str, object]:
        return purging.purge(self.db, self.spool, self.derived, purging.Policy(min_copies=min_copies), dry_run=dry_run)

    def delete(self, *numbers: int) -> dict[str, object]:
        return retention.delete(self.db, self.spool, self.derived, [self.ids[n] for n in numbers])

    def count(self, model: type) -> int:
        with self.db.read() as session:
            return session.scalar(select(func.count()).select_from(model)) or 0

    def events(self, kind: str) -> list[Event]:
        with self.db.read() as session:
            return list(session.scalars(select(Event).where(Event.kind == kind).order_by(Event.id)))


@pytest.fixture
def held(database: Database, tmp_path: Path) -> Held:
    spool = Spool(tmp_path / "spool", node="test")
    registrar = Registrar(database, spool)
    ids = []
    instances = [make("CT", number=number) for number in (1, 2, 3)] + [make("MR", patient=PATIENTS["ascii2"])]
    for number, one in enumerate(instances):
        path = one.write(tmp_path / f"{number}.dcm")
        ids.append(ingest_file(registrar, path, provenance=Provenance("", "", "import")).instance_id)
    return Held(database, spool, tmp_path / "derived", ids)


def test_only_what_is_on_verified_discs_and_in_no_open_job_is_purged(held: Held) -> None:
    held.burnt(0, 1)
    held.burnt(1, job="BURNING", discs=("VERIFIED", "BURNING"))
    held.burnt(2, job="FAILED", discs=("FAILED", "BURNT"))
    before = [held.path(number) for number in range(4)]
    size = before[0].stat().st_size if before[0] else 0
    told = held.purge()
    assert (told["instances"], told["bytes"], told["kept"]) == (1, size, 3)
    assert [held.path(number) is None for number in range(4)] == [True, False, False, False]
    assert [path is not None and path.exists() for path in before] == [False, True, True, True]
    (event,) = held.events("purge")
    assert event.instance_id == held.ids[0] and event.detail["instances"] == [held.ids[0]]
    assert held.purge()["instances"] == 0


def test_copies_are_counted_over_discs_and_jobs(held: Held) -> None:
    held.burnt(0, discs=("VERIFIED", "VERIFIED"))
    held.burnt(1, discs=("VERIFIED", "FAILED"))
    held.burnt(1)
    held.burnt(2)
    assert held.purge(min_copies=3)["instances"] == 0
    assert held.purge(min_copies=2)["instances"] == 2
    assert [held.path(number) is None for number in range(4)] == [True, True, False, False]


def test_a_dry_run_tells_the_same_and_changes_nothing(held: Held) -> None:
    held.burnt(0, 1, derived=True)
    dry = held.purge(dry_run=True)
    assert not held.events("purge") and held.path(0) is not None and held.derived_files() == 2
    wet = held.purge()
    assert {**dry, "dry_run": False} == wet
    assert (wet["instances"], wet["derived"], wet["kept"]) == (2, 2, 2)


def test_conformed_copies_go_when_nothing_needs_them(held: Held) -> None:
    held.burnt(0, derived=True)
    held.burnt(1, job="CONFORMING", discs=(), derived=True)
    held.burnt(3, job=None, derived=True)
    assert held.purge()["derived"] == 1
    assert held.derived_files() == 2
    assert held.count(Derived) == 3, "the catalogue still names the one whose file is gone"
    assert held.purge()["derived"] == 0


def test_files_that_a_crash_left_are_swept_by_the_event(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    held.burnt(0, derived=True)
    path = held.path(0)
    assert path is not None
    with monkeypatch.context() as patched:
        patched.setattr(retention.Files, "remove", lambda *_: None)
        held.purge()
        held.delete(3)
    assert path.exists() and held.path(0) is None
    assert retention.sweep(held.db, held.spool, held.derived) == 2, "one purged, one deleted"
    assert not path.exists()
    assert held.derived_files() == 1, "a row names it: it may have been made anew"
    assert retention.sweep(held.db, held.spool, held.derived) == 0


def test_many_are_purged_in_batches(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_BATCH", 2)
    monkeypatch.setattr(purging, "_BATCH", 2)
    held.burnt(0, 1, 2, 3)
    assert held.purge(dry_run=True)["instances"] == 4
    assert held.purge()["instances"] == 4
    assert [len(event.detail["instances"]) for event in held.events("purge")] == [2, 2]


def test_what_is_deleted_leaves_nothing_of_its_patient(held: Held) -> None:
    path = held.path(3)
    assert path is not None
    told = held.delete(3)
    assert (told["instances"], path.exists()) == (1, False)
    assert (held.count(Instance), held.count(Series), held.count(Study), held.count(Patient)) == (3, 1, 1, 1)
    (event,) = held.events("delete")
    assert event.detail["instances"] == [held.ids[3]]


def test_what_an_open_job_needs_is_not_deleted_nor_anything_beside_it(held: Held) -> None:
    plan = held.burnt(1, job="QUEUED", discs=())
    with held.db.read() as session:
        job = session.scalar(select(Job.id).where(Job.plan_id == plan))
    with pytest.raises(retention.NeededByJob, match=f"J{job} "):
        held.delete(0, 1)
    assert held.path(0) is not None and held.path(1) is not None


def test_what_is_on_a_disc_stays_in_the_catalogue(held: Held) -> None:
    held.burnt(0, derived=True)
    assert held.delete(0, 1)["instances"] == 2
    assert held.path(0) is None
    assert held.count(Instance) == 3 and held.count(VolumeInstance) == 1
    assert held.derived_files() == 0


def test_plans_that_nobody_burnt_fall_with_their_instances(held: Held) -> None:
    held.burnt(0, 1, job=None, derived=True)
    kept = held.burnt(2, job=None)
    held.delete(0)
    with held.db.read() as session:
        assert list(session.scalars(select(Plan.id))) == [kept]
        assert list(session.scalars(select(Derived.source_digest))) == [session.get_one(Instance, held.ids[1]).digest]
    assert held.count(Volume) == 1 and held.count(VolumeInstance) == 1


def test_when_the_first_of_conflicting_instances_goes_the_next_takes_its_place(held: Held, tmp_path: Path) -> None:
    registrar = Registrar(held.db, held.spool)
    others = []
    for comment in ("second", "third"):
        path = make("CT", number=1, PatientComments=comment).write(tmp_path / f"{comment}.dcm")
        others.append(ingest_file(registrar, path, provenance=Provenance("", "", "import")).instance_id)
    held.delete(0)
    with held.db.read() as session:
        assert [session.get_one(Instance, i).conflict_of for i in others] == [None, others[0]]


def test_plans_expire_unless_they_have_a_job(held: Held) -> None:
    old, burnt, young = held.burnt(0, job=None), held.burnt(1), held.burnt(2, job=None)
    with held.db.begin() as session:
        for plan in (old, burnt):
            session.get_one(Plan, plan).created_at = now() - timedelta(days=31)
    assert retention.expire_plans(held.db, keep_days=30) == 1
    with held.db.read() as session:
        assert list(session.scalars(select(Plan.id).order_by(Plan.id))) == [burnt, young]


def test_what_a_killed_helper_was_writing_goes_after_a_day(held: Held) -> None:
    folder = held.derived / "ab"
    folder.mkdir(parents=True)
    old = [
        folder / ".abcd.j2k-1.dcm.0123.part",
        folder / ".abcd.j2k-1.dcm.0123.part.77.part.frames",
        held.derived / ".9.part",
    ]
    young, finished = folder / ".abcd.rle-1.dcm.4567.part", folder / "abcd.rle-1.dcm"
    for path in (*old, young, finished):
        path.write_bytes(b"x")
    for path in (*old, finished):
        os.utime(path, (0, 0))
    with held.db.begin() as session:
        entered = {"sop_instance_uid": "1.2", "recipe": "rle/1", "size": 1, "sha256": "f", "changes": []}
        session.add(
            Derived(
                source_digest="abcd", path="ab/abcd.rle-1.dcm", transfer_syntax_uid="1.2", created_at=now(), **entered
            )
        )
    assert retention.sweep(held.db, held.spool, held.derived) == 3
    assert young.exists() and finished.exists() and not any(path.exists() for path in old)
