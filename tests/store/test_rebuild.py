"""The catalogue is lost, and is rebuilt from the discs: what was on them is as it was, column by column."""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from jobs.assemble import volume_image
from jobs.options import RequestOptions
from jobs.planning import create_request, make_plan
from media.discread import read_disc
from media.problems import MediaError
from media.trees import IsoTree
from media.verify import verify_path
from store import atrisk, migrate, rebuild, shelves
from store.catalogue import find
from store.db import Database, next_numbers
from store.instances import Provenance, Registrar, ingest_file
from store.models import Derived, Instance, Patient, Series, Study
from store.models_jobs import Disc, Job, Plan, Request, RequestInstance, Volume, VolumeInstance
from store.models_nodes import Counter
from store.rebuild_sets import missing_volumes
from store.selection import Selection
from tests.extracting import extracted
from tests.jobs.conftest import House
from tests.makers import IMPLICIT_LE, PATIENTS, Made, disc_image, file_set, make, study
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
        self.house = House(
            database, tmp_path / "data", {"site": {"institution": "St. Elsewhere"}, "plan": {"tell_corrected": True}}
        )
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
def site(tmp_path: Path) -> Iterator[Site]:
    database = Database(f"sqlite:///{tmp_path / 'site.db'}")
    migrate.upgrade(database)
    made = Site(database, tmp_path)
    yield made
    made.house.close()
    database.close()


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


@dataclass(frozen=True)
class Lost:
    """A database that is gone, but for what a test remembers of it."""

    discs: list[Path]
    content: dict[str, Any]
    number: int
    """The last running number of a File-set ID."""
    plans: int


@pytest.fixture(scope="module")
def lost(tmp_path_factory: pytest.TempPathFactory) -> Lost:
    folder = tmp_path_factory.mktemp("lost")
    database = Database(f"sqlite:///{folder / 'site.db'}")
    migrate.upgrade(database)
    site = Site(database, folder)
    discs = varied(site)
    with database.read() as session:
        content = snapshot(session)
        number = session.get_one(Counter, "file_set").value
        plans = len(set(session.scalars(select(Volume.plan_id))))
    site.house.close()
    database.close()
    (folder / "site.db").unlink()
    shutil.rmtree(folder / "data")
    return Lost(discs, content, number, plans)


def test_discs_of_many_kinds_are_right(lost: Lost) -> None:
    assert len(lost.discs) >= 8
    for path in lost.discs:
        assert verify_path(path).ok, verify_path(path).problems


def test_what_was_on_the_discs_is_as_it_was(lost: Lost, database: Database) -> None:
    discs, before, number = [*lost.discs], lost.content, lost.number
    random.Random(4).shuffle(discs)
    db = database
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
        assert len(set(session.scalars(select(Volume.plan_id)))) == lost.plans


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


def test_copies_are_discs_of_their_own_and_are_not_counted_twice(
    site: Site, fresh: Callable[[], Database], tmp_path: Path
) -> None:
    site.receive(*study("CT", 2, seed=1))
    (image,) = site.burn(copies=2)
    second = Path(shutil.copy(image, tmp_path / "second.iso"))
    db = fresh()
    one, two = run_of(db, [image, second])
    assert one.new_disc and two.new_disc and one.disc != two.disc and two.new_instances == 0
    with db.read() as session:
        (volume,) = session.scalars(select(Volume))
        assert (volume.good_copies, volume.wanted_copies) == (2, 2)
        assert [disc.copy for disc in session.scalars(select(Disc).order_by(Disc.id))] == [1, 2]
    # An image that was moved is the disc that it was; one beside it is another, if somebody says so.
    moved = second.rename(tmp_path / "moved.iso")
    (again,) = run_of(db, [moved])
    assert again.disc == two.disc and not again.new_disc
    with db.read() as session:
        assert session.get_one(Disc, int(two.disc[1:])).image == str(moved)
    third = Path(shutil.copy(image, tmp_path / "third.iso"))
    moved.unlink()
    (another,) = run_of(db, [third], rebuild.Run(options_of, another_copy=True))
    assert another.new_disc
    with db.read() as session:
        assert session.scalars(select(Volume)).one().good_copies == 3


def test_missing_discs_are_told_with_what_is_on_them(site: Site, fresh: Callable[[], Database]) -> None:
    for number, patient in enumerate(("ascii", "german", "greek", "korean", "unicode")):
        site.receive(*study("CT", 4, seed=number, patient=PATIENTS[patient]), calling=f"CT_{number}")
    discs = site.burn(patients_per_disc="many", capacity_sectors=200)
    assert len(discs) >= 3
    db = fresh()
    entered = run_of(db, [discs[2], discs[0]])
    ids = {one.volume_id for one in entered if one.volume_id is not None}
    with db.read() as session:
        (told,) = missing_volumes(session, ids)
        assert len(set(session.scalars(select(Volume.plan_id)))) == 1
    assert told["of"] == len(discs) and told["there"] == [discs[0].stem, discs[2].stem]
    assert told["missing"][0]["file_set_id"] == discs[1].stem
    assert all(one["studies"] and one["studies"][0]["patient_name"] for one in told["missing"])
    with db.begin() as session:  # nor does a new disc get the ID of one that is missing
        assert next_numbers(session, "file_set") == len(discs) + 1
    run_of(db, discs[1:2])
    with db.read() as session:
        there = {volume.number for volume in session.scalars(select(Volume))}
        assert there >= {1, 2, 3} and len(set(session.scalars(select(Volume.plan_id)))) == 1


def test_one_patient_a_disc_tells_of_no_other_patient(site: Site) -> None:
    site.receive(*study("CT", 2, seed=1), *study("CT", 2, seed=2, patient=PATIENTS["ascii2"]))
    first, second = site.burn(patients_per_disc="one")
    assert b"PAT-0002" not in first.read_bytes() and b"PAT-0001" not in second.read_bytes()
    assert second.stem.encode() in first.read_bytes()


def test_people_without_a_number_are_not_one_patient(site: Site) -> None:
    nobody = Person("", "Anonymized", "", "")
    made = [list(study("CT", 2, seed=seed, patient=nobody)) for seed in (1, 2)]
    site.receive(*made[0], *made[1])
    images = [image.read_bytes() for image in site.burn(patients_per_disc="one")]
    uids = [one[0].study_instance_uid.encode() for one in made]
    assert sorted([uid in image for uid in uids] for image in images) == [[False, True], [True, False]]


def _break(image: Path, name: str, where: int = 700) -> None:
    with IsoTree(image) as tree:
        ((offset, _),) = tree.extents(name)
    data = bytearray(image.read_bytes())
    data[offset + where] ^= 0xFF
    image.write_bytes(bytes(data))


def test_what_can_be_read_of_a_damaged_disc_is_entered_and_a_good_copy_completes_it(
    site: Site, fresh: Callable[[], Database], tmp_path: Path
) -> None:
    site.receive(*study("CT", 3, seed=1))
    (image,) = site.burn()
    with site.db.read() as session:
        before = snapshot(session)
        broken_name = session.scalars(select(VolumeInstance.file_id).where(VolumeInstance.position == 2)).one()
    good = Path(shutil.copy(image, tmp_path / "good.iso"))
    _break(image, broken_name)
    db = fresh()
    (damaged,) = run_of(db, [image])
    assert damaged.lost.keys() == {broken_name} and damaged.instances == 2
    with db.read() as session:
        (disc,) = session.scalars(select(Disc))
        (volume,) = session.scalars(select(Volume))
        assert disc.checked_result == "DAMAGED" and volume.good_copies == 0 and volume.image_sha256 is None
        assert disc.sha256 is None, "what a damaged image has is not the disc's"
    (whole,) = run_of(db, [good])
    assert not whole.lost and whole.instances == 3 and whole.new_instances == 1
    with db.read() as session:
        assert snapshot(session) == before
        assert session.scalars(select(Volume)).one().good_copies == 1
    shutil.copy(good, image)
    run_of(db, [image])
    with db.read() as session:
        (volume,) = session.scalars(select(Volume))
        assert set(session.scalars(select(Disc.sha256))) == {volume.image_sha256}


def test_a_disc_whose_catalogue_or_manifest_is_broken_says_so(
    site: Site, fresh: Callable[[], Database], tmp_path: Path
) -> None:
    site.receive(*study("CT", 2, seed=1))
    (image,) = site.burn()
    for name in ("VOLUMES.TXT", "MANIFEST.TXT"):
        broken = Path(shutil.copy(image, tmp_path / f"{name}.iso"))
        _break(broken, name, 30)
        (entered,) = run_of(fresh(), [broken])
        assert entered.instances == 2, name
        found = read_disc(broken)
        assert found.damaged and name in {problem.file for problem in found.problems}
        found.close()


def _overwrite(image: Path, name: str, what: bytes, by: bytes) -> None:
    """Put other bytes of the same length into a file of an image, where ``what`` stands first."""
    with IsoTree(image) as tree:
        ((offset, length),) = tree.extents(name)
    data = image.read_bytes()
    at = data.index(what, offset, offset + length)
    image.write_bytes(data[:at] + by + data[at + len(by) :])


@pytest.mark.parametrize(
    "broken",
    ["MANIFEST.TXT", "VOLUMES.TXT", "MANIFEST.TXT VOLUMES.TXT", "MANIFEST.TXT VOLUMES.TXT README.TXT"],
)
def test_a_damaged_disc_that_is_read_first_changes_nothing_in_the_end(
    broken: str, site: Site, database: Database, tmp_path: Path
) -> None:
    site.receive(*study("CT", 3, seed=1), *study("MR", 2, seed=2, patient=PATIENTS["ascii2"], PatientID="PAT-0002"))
    (image,) = site.burn(
        patients_per_disc="many", coerce=[RENAME], profile="STD-GEN-DVD-JPEG", compress="lossless", copies=2
    )
    with site.db.read() as session:
        before = snapshot(session)
        names = list(session.scalars(select(VolumeInstance.file_id).order_by(VolumeInstance.position)))
    damaged = Path(shutil.copy(image, tmp_path / "damaged.iso"))
    for name in broken.split():
        _break(damaged, name, 30)
    for name in names[1::2]:  # another patient, another series: nobody may file by that
        _overwrite(damaged, name, b"PAT-00", b"PAT-77")
        _overwrite(damaged, name, b"1.2.", b"1.3.")
    (first,) = run_of(database, [damaged])
    assert first.origin == "rebuilt" and first.instances + len(first.lost) == len(names)
    for _ in range(2):
        (second,) = run_of(database, [image])
        assert (second.instances, second.lost) == (len(names), {})
    run_of(database, [damaged])
    with database.read() as session:
        after = snapshot(session)
        for table, rows in before.items():
            assert after[table] == rows, table
        for table in (Patient, Study, Series, Instance, Derived):
            rows_ = session.scalars(select(table)).all()
            assert len(rows_) == len(before[table.__tablename__]), table
        frozen = set(session.scalars(select(RequestInstance.instance_id)))
        assert frozen == set(session.scalars(select(VolumeInstance.instance_id)))
        (volume,) = session.scalars(select(Volume))
        assert (volume.good_copies, volume.wanted_copies) == (1, 2)
        assert {disc.checked_result for disc in session.scalars(select(Disc))} == {"GOOD", "DAMAGED"}
        assert set(session.scalars(select(Disc.purpose))) == {"archive"}


def test_a_whole_disc_is_not_overruled(site: Site, fresh: Callable[[], Database], tmp_path: Path) -> None:
    site.receive(*study("CT", 2, seed=1))
    (image,) = site.burn()
    with site.db.read() as session:
        before = snapshot(session)
    forged = extracted(image, tmp_path / "forged")
    changed = next(path for path in forged.rglob("IM*"))
    changed.write_bytes(changed.read_bytes().replace(b"PAT-0001", b"PAT-7777"))
    lines = (forged / "MANIFEST.TXT").read_bytes().splitlines(keepends=True)[:-1]
    name = changed.relative_to(forged).as_posix()
    digest = hashlib.sha256(changed.read_bytes()).hexdigest()
    body = b"".join(f"{digest}  {name}\n".encode() if name.encode() in line else line for line in lines)
    seal = f"# sha256 of the lines above: {hashlib.sha256(body).hexdigest()}\n"
    (forged / "MANIFEST.TXT").write_bytes(body + seal.encode())
    found = read_disc(forged)
    assert all(one.vouched for one in found.files) and name in {one.name for one in found.files}
    found.close()
    db = fresh()
    run_of(db, [image])
    (entered,) = run_of(db, [forged])
    assert [*entered.lost] == [name]
    with db.read() as session:
        assert snapshot(session) == before


def test_other_makers_discs_are_entered_as_theirs(fresh: Callable[[], Database], tmp_path: Path) -> None:
    made = [*study("CT", 2, seed=5), make("SR", seed=5)]
    folder = file_set(tmp_path / "theirs", made, file_set_id="PATIENT")
    (folder / "VIEWER.EXE").write_bytes(b"MZ" + bytes(100))
    (folder / "EXTRA.DCM").write_bytes(make("MR", seed=6).part10())
    other = file_set(tmp_path / "other", [make("US", seed=7)], file_set_id="PATIENT")  # the same UID, other content
    db = fresh()
    first, second = run_of(db, [folder, other])
    assert first.origin == second.origin == "foreign" and not first.lost
    assert (first.instances, second.instances) == (4, 1)
    assert first.file_set_uid != second.file_set_uid
    with db.read() as session:
        digests = {row.sop_instance_uid: row.digest for row in session.scalars(select(Instance))}
        assert {volume.file_set_id for volume in session.scalars(select(Volume))} == {"PATIENT"}
        found = find(session, patient_id="PAT-0001")
    assert {disc["file_set_id"] for disc in found} == {"PATIENT"}
    assert len(digests) == 5
    again = run_of(db, [folder, other])
    assert all(one.known and not one.new_disc and not one.new_instances for one in again)


def test_a_copy_of_what_the_spool_has_is_the_same_instance(site: Site, tmp_path: Path) -> None:
    made = list(study("CT", 2, seed=5))
    site.receive(*made)
    folder = tmp_path / "theirs"
    folder.mkdir()
    with site.db.read() as session:
        paths = [site.house.ctx.spool.path_of(path) for path in session.scalars(select(Instance.spool_path)) if path]
    for number, path in enumerate(paths):
        shutil.copy(path, folder / f"IM{number}")
    image = disc_image(tmp_path / "plain.iso", folder)
    (entered,) = run_of(site.db, [image])
    assert entered.instances == 2 and entered.new_instances == 0 and entered.origin == "foreign"
    with site.db.read() as session:
        assert all(row.spool_path for row in session.scalars(select(Instance)))


def test_a_handed_out_disc_and_one_of_before_are_entered_from_readme_and_directory(
    site: Site, fresh: Callable[[], Database]
) -> None:
    for number, patient in enumerate(("ascii", "german")):
        site.receive(*study("CT", 3, seed=number, patient=PATIENTS[patient]), calling=f"CT_{number}")
    discs = site.burn(patients_per_disc="one", purpose="handout")
    db = fresh()
    entered = run_of(db, discs[::-1])
    assert [one.instances for one in entered] == [3, 3]
    unknown = ("plan_id", "origin", "good_copies", "wanted_copies", "capacity_sectors")

    def told(database: Database) -> tuple[Any, Any]:
        with database.read() as session:
            volumes = {row.file_set_uid: columns(row, *unknown) for row in session.scalars(select(Volume))}
            rows = session.scalars(select(Instance))
            return volumes, {(row.sop_instance_uid, row.digest, row.directory_keys) for row in rows}

    assert told(db) == told(site.db)
    assert [one.purpose for one in entered] == ["unknown"] * 2  # nothing on them says that they are kept
    with db.read() as session:
        assert set(session.execute(select(Volume.good_copies, Volume.wanted_copies)).tuples()) == {(0, 0)}
        assert len(find(session)) == 2
        assert atrisk.volumes(session) == [] and atrisk.unconfirmed(session) == {"discs": 2, "volumes": 2}
    with db.begin() as session:
        assert len(shelves.dedicate_unknown(session, "archive", by="ada")) == 2
        assert set(session.execute(select(Volume.good_copies, Volume.wanted_copies)).tuples()) == {(1, 1)}
    with db.read() as session:
        assert len(set(session.scalars(select(Volume.plan_id)))) == 1
        assert missing_volumes(session, {one.volume_id for one in entered if one.volume_id}) == []
        assert {plan.profile for plan in session.scalars(select(Plan))} == {"STD-GEN-CD"}


def test_a_disc_that_was_handed_out_is_no_place_of_the_archive_because_it_was_read(site: Site) -> None:
    site.receive(*study("CT", 2))
    run_of(site.db, site.burn(purpose="handout"))
    with site.db.read() as session:
        assert session.scalars(select(Disc.purpose)).one() == "handout"
        assert session.scalars(select(Volume.good_copies)).one() == 0


def test_a_database_that_has_a_part_keeps_what_it_has(site: Site, tmp_path: Path) -> None:
    site.receive(*study("CT", 2, seed=1))
    (image,) = site.burn()
    with site.db.read() as session:
        before = snapshot(session)
    (entered,) = run_of(site.db, [image])
    assert entered.known and entered.origin == "own" and entered.new_instances == 0 and entered.new_disc
    with site.db.read() as session:
        assert snapshot(session) == before
        assert session.scalars(select(Volume)).one().origin == "own"
        assert all(row.spool_path for row in session.scalars(select(Instance)))


def test_instances_in_conflict_are_so_again_in_whatever_order(site: Site, fresh: Callable[[], Database]) -> None:
    site.receive(make("CT", seed=1))
    site.receive(make("CT", seed=1, SeriesDescription="other"))
    discs = site.burn(conflicts="keep-both")
    with site.db.read() as session:
        before = snapshot(session)
    assert sum(one["conflict"] is not None for one in before["instance"].values()) == 1
    db = fresh()
    run_of(db, discs)
    with db.read() as session:
        assert snapshot(session) == before


def test_what_is_no_medium_is_refused(tmp_path: Path) -> None:
    for name, data in (("a.iso", b""), ("b.iso", bytes(100_000)), ("c.iso", random.Random(1).randbytes(80_000))):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(MediaError):
            read_disc(tmp_path / name)


def test_any_damage_is_told_and_nothing_wrong_is_entered(
    site: Site, fresh: Callable[[], Database], tmp_path: Path
) -> None:
    site.receive(*study("CT", 2, seed=1), *study("US", 1, seed=1))
    (image,) = site.burn()
    with site.db.read() as session:
        sound = snapshot(session)["instance"]
    data = image.read_bytes()
    dice = random.Random(9)
    db = fresh()
    for number in range(25):
        broken = bytearray(data)
        for _ in range(dice.choice((1, 3, 300))):
            broken[dice.randrange(16 * 2048, len(broken))] = dice.randrange(256)
        if dice.random() < 0.2:
            del broken[dice.randrange(40_000, len(broken)) :]
        path = tmp_path / f"{number}.iso"
        path.write_bytes(bytes(broken))
        try:
            run_of(db, [path])
        except Exception as error:
            assert isinstance(error, MediaError), error
    with db.read() as session:
        for key, one in snapshot(session)["instance"].items():
            assert sound[key]["file_sha256"] == one["file_sha256"]
            assert sound[key]["directory_keys"] == one["directory_keys"]
