"""The catalogue is lost, and is rebuilt from the discs: what was on them is as it was, column by column."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from jobs.assemble import volume_image
from jobs.options import RequestOptions
from jobs.planning import create_request, make_plan
from media.discread import read_disc
from media.verify import verify_path
from store import migrate, rebuild
from store.db import Database, next_numbers
from store.instances import Provenance, Registrar, ingest_file
from store.models import (
    Counter,
    Derived,
    Disc,
    Instance,
    Job,
    Patient,
    Plan,
    Request,
    RequestInstance,
    Series,
    Study,
    Volume,
    VolumeInstance,
)
from store.rebuild_sets import missing_volumes
from store.selection import Selection
from tests.jobs.conftest import House
from tests.makers import IMPLICIT_LE, PATIENTS, Made, study
from tests.makers import Patient as Person

HOSTILE = Person("=1+1<script>", "O'Brien^\u202eevil\"; DROP TABLE patient;--", "19991231", "", "ISO_IR 192")
RENAME = {
    "name": "right",
    "when": {"PatientID": "PAT-0002"},
    "set": {"PatientID": "PAT-0099", "PatientName": "Roe^Rick"},
}


def options_of(given: Any) -> dict[str, Any]:
    return dict(given)


class Site:
    """A site that makes images of discs, loses its database and gets a new one."""

    def __init__(self, database: Database, tmp_path: Path) -> None:
        self.house = House(database, tmp_path / "data", {"site": {"institution": "St. Elsewhere"}})
        self.discs = tmp_path / "discs"
        self.discs.mkdir()
        self.incoming = tmp_path / "in"
        self.incoming.mkdir()
        self.registrar = Registrar(self.house.db, self.house.ctx.spool)

    @property
    def db(self) -> Database:
        return self.house.db

    def receive(self, *made: Made, calling: str = "CT_1") -> None:
        for number, one in enumerate(made):
            path = self.incoming / f"{calling}-{number}.dcm"
            one.write(path)
            ingest_file(self.registrar, path, provenance=Provenance(calling, "BURNISH", "10.0.0.9"))

    def burn(self, selection: Selection | None = None, **given: Any) -> list[Path]:
        """The images of a request's volumes."""
        options = RequestOptions.from_settings(self.house.settings, given)
        with self.db.begin() as session:
            request = create_request(
                session, selection=selection or Selection(all=True), options=options, source="test"
            )
        plan = make_plan(self.house.ctx, request)
        with self.db.read() as session:
            assert session.get_one(Plan, plan).report["refused"] == []
            volumes = list(session.scalars(select(Volume).where(Volume.plan_id == plan).order_by(Volume.number)))
        paths = []
        for volume in volumes:
            path = self.discs / f"{volume.file_set_id}.iso"
            with path.open("wb") as out:
                digest = volume_image(self.house.ctx, volume.id).write(out)
            assert path.stat().st_size == volume.sectors * 2048
            with self.db.begin() as session:
                session.get_one(Volume, volume.id).image_sha256 = digest
            paths.append(path)
        return paths


@pytest.fixture
def site(database: Database, tmp_path: Path) -> Iterator[Site]:
    made = Site(database, tmp_path)
    yield made
    made.house.close()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Callable[[], Database]]:
    """Makes empty catalogues."""
    made: list[Database] = []

    def make_one() -> Database:
        made.append(Database(f"sqlite:///{tmp_path / f'fresh{len(made)}.db'}"))
        migrate.upgrade(made[-1])
        return made[-1]

    yield make_one
    for one in made:
        one.close()


def run_of(db: Database, paths: list[Path], run: rebuild.Run | None = None) -> list[rebuild.Entered]:
    run = run or rebuild.Run(options_of)
    entered = []
    for path in paths:
        found = read_disc(path)
        try:
            entered.append(rebuild.enter(db, found, run))
        finally:
            found.close()
    return entered


def columns(row: Any, *without: str) -> dict[str, Any]:
    return {c.key: getattr(row, c.key) for c in row.__table__.columns if c.key not in ("id", *without)}


def snapshot(session: Session, uids: set[str] | None = None) -> dict[str, Any]:
    """Everything that is on discs, with natural keys instead of numbers."""
    found: dict[str, Any] = {
        name: {} for name in ("patient", "study", "series", "instance", "derived", "file", "volume")
    }
    patients = {row.id: row for row in session.scalars(select(Patient))}
    studies = {row.id: row for row in session.scalars(select(Study))}
    series = {row.id: row for row in session.scalars(select(Series))}
    instances = {row.id: row for row in session.scalars(select(Instance))}
    derived = {row.id: row for row in session.scalars(select(Derived))}

    def instance_key(row: Instance) -> tuple[str, str]:
        return row.sop_instance_uid, row.digest

    for volume in session.scalars(select(Volume)):
        if uids is not None and volume.file_set_uid not in uids:
            continue
        plan = session.get_one(Plan, volume.plan_id)
        request = session.get_one(Request, plan.request_id)
        found["volume"][volume.file_set_uid] = {
            **columns(volume, "plan_id", "origin", "good_copies", "wanted_copies"),
            "plan": (plan.profile, plan.medium, plan.capacity_sectors),
            "pool": request.pool,
            "options": {k: v for k, v in request.options.items() if k not in ("coerce", "pull_from")},
        }
        for file in session.scalars(select(VolumeInstance).where(VolumeInstance.volume_id == volume.id)):
            one = instances[file.instance_id]
            of = derived.get(file.derived_id or 0)
            key = (of.source_digest, of.sop_instance_uid, of.recipe) if of else None
            found["file"][volume.file_set_uid, file.position] = {
                **columns(file, "volume_id", "instance_id", "derived_id"),
                "instance": instance_key(one),
                "derived": key,
            }
            if of is not None:
                found["derived"][key] = columns(of, "path", "created_at", "restored_at")
            first = instances.get(one.conflict_of or 0)
            place = None
            if one.series_id is not None:
                in_series = series[one.series_id]
                in_study = studies[in_series.study_id]
                person = patients[in_study.patient_id]
                place = (person.identity, in_study.study_instance_uid, in_series.series_instance_uid)
                found["patient"][person.identity] = columns(person)
                found["study"][place[:2]] = columns(in_study, "patient_id")
                found["series"][place] = columns(in_series, "study_id")
            found["instance"][instance_key(one)] = {
                **columns(one, "series_id", "spool_path", "conflict_of"),
                "place": place,
                "conflict": instance_key(first) if first else None,
            }
    return found


def varied(site: Site) -> list[Path]:
    """Discs of many kinds."""
    site.receive(*study("CT", 3, seed=1), *study("MR", 2, seed=1, patient=PATIENTS["japanese"]), calling="CT_1")
    site.receive(*study("US", 1, seed=2, patient=HOSTILE), *study("SR", 1, seed=2, patient=HOSTILE), calling="US_1")
    site.receive(*study("CT", 2, seed=3, patient=PATIENTS["ascii2"], study=4, transfer_syntax_uid=IMPLICIT_LE))
    site.receive(*study("XA", 1, seed=3, patient=PATIENTS["german"], study=7, PatientID=None), calling="XA")
    discs = site.burn(patients_per_disc="many")
    discs += site.burn(
        Selection(modality=("CT", "MR")), profile="STD-GEN-DVD-JPEG", compress="lossless", patients_per_disc="one"
    )
    discs += site.burn(Selection(patient_id=("PAT-0002",)), coerce=[RENAME], copies=2)
    discs += site.burn(Selection(modality=("CT",)), profile="STD-GEN-DVD-JPEG", compress="lossy", allow_lossy=True)
    discs += site.burn(Selection(patient_id=("PAT-0001",)), capacity_sectors=260, purpose="backup")
    return discs


def test_what_was_on_the_discs_is_as_it_was(site: Site, fresh: Callable[[], Database]) -> None:
    discs = varied(site)
    assert len(discs) >= 8
    for path in discs:
        assert verify_path(path).ok, verify_path(path).problems
    with site.db.read() as session:
        before = snapshot(session)
        number = session.get_one(Counter, "file_set").value
    random.Random(4).shuffle(discs)
    db = fresh()
    entered = run_of(db, discs)
    assert [one.lost for one in entered] == [{}] * len(discs)
    assert all(one.new_disc and not one.known for one in entered)
    with db.read() as session:
        after = snapshot(session)
        assert missing_volumes(session, {one.volume_id for one in entered if one.volume_id}) == []
    for table, rows in before.items():
        assert after[table].keys() == rows.keys(), table
        for key, row in rows.items():
            assert after[table][key] == row, (table, key)
    with db.begin() as session:
        assert next_numbers(session, "file_set") == number + 1
    with db.read() as session:
        assert {job.state for job in session.scalars(select(Job))} == {"DONE"}
        assert {request.source for request in session.scalars(select(Request))} == {"rebuild"}
        frozen = set(session.execute(select(RequestInstance.request_id, RequestInstance.instance_id)).tuples())
        named = (
            select(Plan.request_id, VolumeInstance.instance_id)
            .select_from(VolumeInstance)
            .join(Volume, Volume.id == VolumeInstance.volume_id)
            .join(Plan, Plan.id == Volume.plan_id)
        )
        assert frozen == set(session.execute(named).tuples())
        plans = len(set(session.scalars(select(Volume.plan_id))))
    with site.db.read() as session:
        assert plans == len(set(session.scalars(select(Volume.plan_id))))


def test_doing_it_again_adds_nothing(site: Site, fresh: Callable[[], Database]) -> None:
    site.receive(*study("CT", 3, seed=1))
    discs = site.burn()
    db = fresh()
    (first,) = run_of(db, discs)
    with db.read() as session:
        before = snapshot(session)
    (second,) = run_of(db, discs)
    assert second.known and not second.new_disc and second.disc == first.disc and second.new_instances == 0
    with db.read() as session:
        assert snapshot(session) == before
        assert len(session.scalars(select(Disc)).all()) == 1
        (disc,) = session.scalars(select(Disc))
        assert disc.times_read == 2 and disc.checked_result == "GOOD"
