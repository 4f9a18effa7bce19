"""Corrections on the way to a disc: in file, directory, README and volume, in the plan before and found after."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from sqlalchemy import select

from config.settings import load
from jobs.assemble import volume_image, volume_items
from jobs.context import Context
from jobs.options import OptionsError, RequestOptions
from jobs.plandocument import plan_document
from jobs.planning import create_request, make_plan
from media.verify import verify_path
from store import purging, retention
from store.catalogue import find
from store.db import Database
from store.derived import NewDerived, enter_derived
from store.instances import Provenance, Registrar, ingest_file
from store.models import Instance
from store.models_base import now
from store.models_jobs import Disc, Job, Request, Volume
from store.selection import Selection
from store.spool import Spool
from tests.makers import PATIENTS, Made, Patient, make, study


@pytest.fixture
def ctx(database: Database, tmp_path: Path) -> Iterator[Context]:
    settings = load(data=tmp_path / "data")
    yield Context(settings, database, Spool(settings.spool_dir, node="test", high_water_percent=100.0, max_bytes=0))


def ingest(ctx: Context, folder: Path, *made: Made) -> None:
    registrar = Registrar(ctx.db, ctx.spool)
    folder.mkdir(exist_ok=True)
    for number, one in enumerate(made):
        path = one.write(folder / f"{number}.dcm")
        ingest_file(registrar, path, provenance=Provenance("SCU", "BURNISH", "import"))


def plan(ctx: Context, selection: Selection | None = None, **options: Any) -> dict[str, Any]:
    given = RequestOptions.from_settings(ctx.settings, options)
    with ctx.db.begin() as session:
        request = create_request(session, selection=selection or Selection(all=True), options=given, source="test")
    made = make_plan(ctx, request)
    with ctx.db.read() as session:
        return plan_document(session, made)


def volumes(ctx: Context, document: dict[str, Any]) -> list[Volume]:
    with ctx.db.read() as session:
        ids = [volume["file_set_id"] for volume in document["volumes"]]
        return list(session.scalars(select(Volume).where(Volume.file_set_id.in_(ids)).order_by(Volume.number)))


def burnt(ctx: Context, document: dict[str, Any], folder: Path) -> list[Path]:
    """The images of a plan, each verified; the catalogue is told that they are discs."""
    paths = []
    for volume in volumes(ctx, document):
        out = io.BytesIO()
        volume_image(ctx, volume.id).write(out)
        path = folder / f"{volume.file_set_id}.iso"
        path.write_bytes(out.getvalue())
        assert [str(problem) for problem in verify_path(path).problems] == []
        paths.append(path)
        with ctx.db.begin() as session:
            request = session.scalars(select(Request.id).order_by(Request.id.desc())).first()
            common = {"created_at": now(), "updated_at": now()}
            job = Job(
                request_id=request, state="DONE", priority=2, burner="iso", copies=1, attempt=1,
                cancel_requested=False, progress={}, **common,
            )  # fmt: skip
            session.add(job)
            session.flush()
            session.add(
                Disc(job_id=job.id, volume_id=volume.id, copy=1, attempt=1, state="VERIFIED", burner="iso",
                     progress=1.0, **common)
            )  # fmt: skip
    return paths


def files(ctx: Context, document: dict[str, Any]) -> list[Dataset]:
    return [pydicom.dcmread(item.source) for v in volumes(ctx, document) for item, _ in volume_items(ctx, v.id)]


def found(ctx: Context, **criteria: Any) -> list[str]:
    with ctx.db.read() as session:
        return [disc["file_set_id"] for disc in find(session, **criteria)]


RENAME = {
    "name": "moved",
    "when": {"PatientID": "PAT-0001"},
    "set": {"PatientID": "NEW-7", "PatientName": "Rüdiger^Äneas", "StudyDescription": "Kopf"},
    "empty": ["PatientSex"],
}
STATION = {"name": "station", "set": {"StationName": "CT2"}}


def test_a_corrected_patient_is_so_everywhere(ctx: Context, tmp_path: Path) -> None:
    made = [*study("CT", 3), make("SR")]
    ingest(ctx, tmp_path / "in", *made)
    document = plan(ctx, coerce=[RENAME])
    assert document["refused"] == []
    (volume,) = document["volumes"]
    assert volume["patients"] == ["NEW-7"]
    for one, before in zip(files(ctx, document), made, strict=True):
        assert (one.PatientID, str(one.PatientName), one.StudyDescription) == ("NEW-7", "Rüdiger^Äneas", "Kopf")
        assert one.PatientSex == "" and one.SpecificCharacterSet == "ISO_IR 192"
        assert one.SOPInstanceUID in {m.sop_instance_uid for m in made} and before.sop_instance_uid
    (row,) = volumes(ctx, document)
    assert "Rüdiger" in row.readme.decode() or "Rudiger" in row.readme.decode() or b"NEW-7" in row.readme
    assert b"PAT-0001" not in row.readme
    groups = {group["tag"]: group for group in document["changed"]}
    assert groups["(0010,0020)"]["new"] == "NEW-7: rule moved" and groups["(0010,0020)"]["instances"] == 4
    assert groups["(0010,0010)"]["name"] == "Patient's Name"
    assert groups["(0010,0040)"]["new"] == "(empty): rule moved"
    (image,) = burnt(ctx, document, tmp_path)
    directory = image.read_bytes()
    assert b"NEW-7" in directory and b"PAT-0001" not in directory
    fsid = volume["file_set_id"]
    assert found(ctx, patient_id="NEW-7") == found(ctx, patient_id="PAT-0001") == [fsid]
    assert found(ctx, patient_name="rudiger") == found(ctx, patient_name="doe") == [fsid]
    assert found(ctx, patient_id="OTHER") == found(ctx, patient_name="nobody") == []
    # Again: nothing is made anew, and the bytes are the same.
    assert [i.source for i, _ in volume_items(ctx, row.id)] == [
        i.source for v in volumes(ctx, plan(ctx, coerce=[RENAME])) for i, _ in volume_items(ctx, v.id)
    ]


def test_a_corrected_file_that_was_lost_is_made_again_with_the_same_bytes(ctx: Context, tmp_path: Path) -> None:
    ingest(ctx, tmp_path / "in", *study("CT", 2))
    document = plan(ctx, coerce=[RENAME])
    (volume,) = volumes(ctx, document)
    before = [(item.source, item.sha256) for item, _ in volume_items(ctx, volume.id)]
    for source, _ in before:
        source.unlink()
    plan(ctx, coerce=[RENAME])
    after = [(item.source, item.sha256) for item, _ in volume_items(ctx, volume.id)]
    assert [digest for _, digest in after] == [digest for _, digest in before]
    assert not {path for path, _ in after} & {path for path, _ in before}  # a name is never used twice
    out = io.BytesIO()
    volume_image(ctx, volume.id).write(out)  # reads each with its digest


def test_a_corrected_id_joins_its_person_only_where_all_agree(ctx: Context, tmp_path: Path) -> None:
    right = Patient("0815", "Doe^Jane^A", "19610203", "F")
    wrong = Patient("4711", "DOE^JANE^A", "19610203", "F")
    other = Patient("4712", "Roe^Richard", "19450708", "M")
    ingest(ctx, tmp_path / "in", make("CT", patient=right), make("CT", patient=wrong), make("CT", patient=other))
    assert len(plan(ctx)["volumes"]) == 3
    rules = [
        {"name": "one", "when": {"PatientID": "4711"}, "set": {"PatientID": "0815"}},
        {"name": "two", "when": {"PatientID": "4712"}, "set": {"PatientID": "0815"}},
    ]
    document = plan(ctx, coerce=rules)
    # Two people are called 0815 now; they never share a volume, even where patients may.
    assert sorted(volume["instances"] for volume in document["volumes"]) == [1, 2]
    assert [volume["patients"] for volume in document["volumes"]] == [["0815"], ["0815"]]
    assert sorted(v["instances"] for v in plan(ctx, coerce=rules, patients_per_disc="many")["volumes"]) == [1, 2]
    for volume in volumes(ctx, document):
        assert len({item.patient for item, _ in volume_items(ctx, volume.id)}) == 1
    burnt(ctx, document, tmp_path)


def test_a_patient_from_the_catalogue(ctx: Context, tmp_path: Path) -> None:
    right = Patient("0815", "Doe^Jane^A", "19610203", "F")
    wrong = Patient("4711", "Unknown", "", "")
    ingest(ctx, tmp_path / "in", make("CT", patient=right), make("CT", patient=wrong))
    rule = {
        "name": "er",
        "when": {"PatientID": "4711"},
        "set": {"PatientID": "0815"},
        "from_catalogue": ["PatientName", "PatientBirthDate", "PatientSex"],
    }
    document = plan(ctx, coerce=[rule])
    (volume,) = document["volumes"]
    assert volume["instances"] == 2
    assert {(str(one.PatientName), one.PatientBirthDate, one.PatientSex) for one in files(ctx, document)} == {
        ("Doe^Jane^A", "19610203", "F")
    }
    refused = plan(ctx, coerce=[rule | {"set": {"PatientID": "0816"}}])["refused"]
    assert len(refused) == 1 and "knows no one with Patient ID '0816'" in refused[0]["reason"]
    ingest(ctx, tmp_path / "more", make("CT", patient=Patient("0815", "Roe^R", "19700101", "M")))
    refused = plan(ctx, coerce=[rule])["refused"]
    assert len(refused) == 1 and "knows 2 people with Patient ID '0815'" in refused[0]["reason"]


def test_study_attributes_as_the_catalogue_has_them(ctx: Context, tmp_path: Path) -> None:
    first = make("CT", StudyDescription="Head", AccessionNumber="A1")
    second = make("CT", number=2, StudyDescription="HEAD CT", AccessionNumber=None)
    ingest(ctx, tmp_path / "in", first, second)
    assert plan(ctx)["changes"] == []
    document = plan(ctx, coerce_catalogue=True)
    assert {(one.StudyDescription, one.AccessionNumber) for one in files(ctx, document)} == {("Head", "A1")}
    assert {(c["sop_instance_uid"], c["tag"], c["new"]) for c in document["changes"]} == {
        (second.sop_instance_uid, "(0008,0050)", "A1: as in the catalogue"),
        (second.sop_instance_uid, "(0008,1030)", "Head: as in the catalogue"),
    }


def test_two_instances_under_one_uid_are_both_kept(ctx: Context, tmp_path: Path) -> None:
    one, other = make("CT"), make("CT", change=lambda ds: setattr(ds, "ImageComments", "another"))
    ingest(ctx, tmp_path / "in", one, make("CT", number=2))
    ingest(ctx, tmp_path / "other", other)
    document = plan(ctx, conflicts="keep-both")
    assert document["refused"] == [] and document["volumes"][0]["instances"] == 3
    (conflict,) = document["conflicts"]
    assert len(conflict["renamed"]) == 1
    uids = [one.SOPInstanceUID for one in files(ctx, document)]
    assert len(set(uids)) == 3
    (change,) = document["changes"]
    assert (change["tag"], change["old"]) == ("(0008,0018)", one.sop_instance_uid) and change["new"] in uids
    burnt(ctx, document, tmp_path)
    fsid = document["volumes"][0]["file_set_id"]
    assert found(ctx, sop=change["new"]) == found(ctx, sop=one.sop_instance_uid) == [fsid]
    with ctx.db.read() as session:
        (disc,) = find(session, sop=change["new"])
        assert disc["originals"] == {change["new"]: one.sop_instance_uid} and disc["instances"] == [change["new"]]
    again = plan(ctx, conflicts="keep-both")
    assert again["changes"] == document["changes"]


def test_dental_attributes_of_type_2_are_supplied_empty_and_told(ctx: Context, tmp_path: Path) -> None:
    ingest(ctx, tmp_path / "in", make("IO", InstitutionName=None, DetectorID=None))
    document = plan(ctx, profile="STD-DEN-CD")
    assert document["refused"] == []
    (one,) = files(ctx, document)
    assert (one.InstitutionName == "" and one.DetectorID is None) or one.DetectorID == ""
    told = {change["tag"]: change for change in document["changes"]}
    assert told["(0008,0080)"]["old"] == "(absent)"
    assert told["(0008,0080)"]["new"].startswith("(empty): PS3.11 Table K.3-4 wants it to be there")


def test_private_attributes_and_samples_are_kept(ctx: Context, tmp_path: Path) -> None:
    def private(ds: Dataset) -> None:
        ds.private_block(0x0099, "MAKER", create=True).add_new(0x01, "OB", b"\x01\x02")

    (made,) = ones = [make("CT", change=private, patient=PATIENTS["japanese"])]
    ingest(ctx, tmp_path / "in", *ones)
    (one,) = files(ctx, plan(ctx, coerce=[{"name": "s", "set": {"StationName": "CT9"}}]))
    assert one[0x0099, 0x1001].value == b"\x01\x02" and one.PixelData == made.dataset.PixelData
    assert str(one.PatientName) == str(made.dataset.PatientName) and one.StationName == "CT9"


def test_former_values_go_on_no_disc_on_which_a_rule_hides_them(ctx: Context, tmp_path: Path) -> None:
    def reconciled(ds: Dataset) -> None:
        item = Dataset()
        item.ModifiedAttributesSequence = [Dataset()]
        item.ModifiedAttributesSequence[0].PatientName = "Secret^Name"
        ds.OriginalAttributesSequence = [item]

    ingest(ctx, tmp_path / "in", make("CT", change=reconciled))
    (one,) = files(ctx, plan(ctx, coerce=[{"name": "s", "set": {"StationName": "CT9"}}]))
    assert "OriginalAttributesSequence" in one
    for rule in ({"set": {"PatientID": "X"}}, {"empty": ["ReferringPhysicianName"], "set": {"PatientName": "A"}}):
        document = plan(ctx, coerce=[{"name": "s", **rule}])
        (one,) = files(ctx, document)
        assert "OriginalAttributesSequence" not in one
        assert "(0400,0561)" in [change["tag"] for change in document["changes"]]


def test_wrong_rules_are_wrong_usage(ctx: Context, tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="rule x changes nothing"):
        RequestOptions.from_settings(ctx.settings, {"coerce": [{"name": "x"}]})
    settings = load(data=tmp_path, overrides={"coerce": {"rules": "none.toml"}})
    with pytest.raises(OptionsError, match=r"none\.toml cannot be read"):
        RequestOptions.from_settings(settings, {})
    (tmp_path / "none.toml").write_text('[[rule]]\nname = "site"\nremove = ["PatientComments"]\n')
    own = {"name": "own", "set": {"StationName": "X"}}
    options = RequestOptions.from_settings(settings, {"coerce": [own]})
    assert [rule["name"] for rule in options.coerce] == ["site", "own"]
    assert RequestOptions.from_json(options.to_json()) == options


@pytest.mark.parametrize(("rule", "goes"), [(STATION, 2), (RENAME, 0)])
def test_nothing_is_purged_because_of_a_disc_that_names_another_patient(
    ctx: Context, tmp_path: Path, rule: dict[str, Any], goes: int
) -> None:
    ingest(ctx, tmp_path / "in", *study("CT", 2))
    burnt(ctx, plan(ctx, coerce=[rule]), tmp_path)
    policy = purging.Policy(min_copies=1)
    document = purging.purge(ctx.db, ctx.spool, ctx.settings.derived_dir, policy, dry_run=False)
    assert (document["instances"], document["kept"]) == (goes, 2 - goes)


def test_what_a_purge_is_about_to_remove_is_not_what_was_made_since(
    ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan comes between a purge's commit and the removal of its files."""
    ingest(ctx, tmp_path / "in", *study("CT", 2))
    document = plan(ctx, coerce=[STATION])
    burnt(ctx, document, tmp_path)
    made: list[dict[str, Any]] = []
    removes = retention.Files.remove

    def remove(self: Any, *where: Any) -> None:
        if self.derived and not made:
            for path in self.derived:
                ctx.derived_path(path).rename(tmp_path / Path(path).name)  # as if it were gone when the plan looks
            made.append(plan(ctx, coerce=[STATION]))
            for path in self.derived:
                (tmp_path / Path(path).name).rename(ctx.derived_path(path))
        removes(self, *where)

    monkeypatch.setattr(retention.Files, "remove", remove)
    monkeypatch.setattr(ctx.spool, "remove", lambda path: None)
    with ctx.db.begin() as session:
        spooled = dict(session.execute(select(Instance.id, Instance.spool_path)).tuples().all())
    monkeypatch.setattr(purging, "forget_spool_paths", lambda *_: None)
    assert (
        purging.purge(ctx.db, ctx.spool, ctx.settings.derived_dir, purging.Policy(min_copies=1), dry_run=False)[
            "derived"
        ]
        == 2
    )
    assert spooled and made
    for volume in volumes(ctx, made[0]):
        volume_image(ctx, volume.id).write(io.BytesIO())
    assert len(list(ctx.settings.derived_dir.rglob("*.dcm"))) == 2


def test_two_jobs_that_make_the_same_keep_one_file(ctx: Context) -> None:
    key = ("d" * 64, "1.2.3", "edit/1+0")

    def enter(path: str, *, whole: bool) -> tuple[str, str | None]:
        new = NewDerived(path, 10, "f" * 64, "1.2.840.10008.1.2.1", (), "2.25.1", b"K", {"patient_name": "Ä^B"})
        with ctx.db.begin() as session:
            row, gone = enter_derived(session, key, new, is_whole=lambda _: whole)
            assert row.facts == {"patient_name": "Ä^B", "name_search": "=a b="} and row.directory_keys == b"K"
            return row.path, gone

    assert enter("a", whole=True) == ("a", None)
    assert enter("b", whole=True) == ("a", "b")
    assert enter("c", whole=False) == ("c", "a")
    assert enter("c", whole=True) == ("c", None)


def test_files_that_a_crash_left_unnamed_are_swept_after_a_day(ctx: Context, tmp_path: Path) -> None:
    ingest(ctx, tmp_path / "in", *study("CT", 2))
    plan(ctx, coerce=[RENAME])
    files_there = set(ctx.settings.derived_dir.rglob("*.dcm"))
    new, old = ctx.derived_path("aa/new.dcm"), ctx.derived_path("aa/old.dcm")
    new.parent.mkdir(exist_ok=True)
    for path in (new, old):
        path.write_bytes(b"x")
    for path in (old, *files_there):
        os.utime(path, (1, 1))
    assert retention.sweep(ctx.db, ctx.spool, ctx.settings.derived_dir) == 1
    assert set(ctx.settings.derived_dir.rglob("*.dcm")) == files_there | {new}
