"""Plans: what a dry run tells is what is built."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from sqlalchemy import select

from config.settings import load
from jobs.assemble import volume_image
from jobs.context import Context
from jobs.options import RequestOptions
from jobs.plandocument import plan_document
from jobs.planning import check_plan, create_request, make_plan
from jobs.preparing import PlanRefused
from media.problems import MediaError
from media.trees import open_tree
from media.verify import verify_path
from store.db import Database
from store.instances import Provenance, Registrar, ingest_file
from store.models import Instance
from store.models_jobs import Volume
from store.selection import Selection
from store.spool import Spool

_PROVENANCE = Provenance("TEST_SCU", "BURNISH", "import")


@pytest.fixture
def ctx(database: Database, tmp_path: Path) -> Iterator[Context]:
    settings = load(data=tmp_path / "data")
    spool = Spool(settings.spool_dir, node="test", high_water_percent=100.0, max_bytes=0)
    yield Context(settings, database, spool)


def _ingest(ctx: Context, *paths: Path) -> None:
    registrar = Registrar(ctx.db, ctx.spool)
    for path in paths:
        ingest_file(registrar, path, provenance=_PROVENANCE)


def _packaged(name: str) -> Path:
    path = get_testdata_file(name)
    assert isinstance(path, str)
    return Path(path)


def _varied(folder: Path, count: int, *, name: str = "CT_small.dcm", **elements: Any) -> list[Path]:
    """Copies of a real instance with UIDs of their own."""
    paths = []
    ds = dcmread(_packaged(name))
    root = f"1.2.826.0.1.3680043.8.498.{zlib.crc32(folder.name.encode())}"
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    for number in range(count):
        uid = f"{root}.{len(list(folder.iterdir()))}"
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid
        ds.InstanceNumber = number + 1
        path = folder / f"{name}.{len(list(folder.iterdir()))}"
        ds.save_as(path)
        paths.append(path)
    return paths


def _plan(ctx: Context, selection: Selection | None = None, **options: Any) -> dict[str, Any]:
    given = RequestOptions.from_settings(ctx.settings, options)
    with ctx.db.begin() as session:
        request = create_request(session, selection=selection or Selection(all=True), options=given, source="test")
    plan = make_plan(ctx, request)
    with ctx.db.read() as session:
        return plan_document(session, plan)


def _volume_ids(ctx: Context, plan: dict[str, Any]) -> list[int]:
    with ctx.db.read() as session:
        ids = [volume["file_set_id"] for volume in plan["volumes"]]
        return list(session.scalars(select(Volume.id).where(Volume.file_set_id.in_(ids)).order_by(Volume.number)))


def test_planned_size_is_built_size_and_the_disc_verifies(ctx: Context, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    _ingest(ctx, *_varied(folder, 12), _packaged("MR_small_implicit.dcm"), _packaged("JPEG2000.dcm"))
    _ingest(ctx, _packaged("rtplan.dcm"), _packaged("MR_small_RLE.dcm"))
    plan = _plan(ctx, patients_per_disc="many")
    assert plan["refused"] == []
    (volume,) = plan["volumes"]
    assert volume["instances"] == 15
    (volume_id,) = _volume_ids(ctx, plan)
    first, again = io.BytesIO(), io.BytesIO()
    assert volume_image(ctx, volume_id).write(first) == volume_image(ctx, volume_id).write(again)
    assert len(first.getvalue()) == volume["sectors"] * 2048
    path = tmp_path / "x.iso"
    path.write_bytes(first.getvalue())
    assert [str(problem) for problem in verify_path(path).problems] == []
    # MR_small in two syntaxes is one instance; the RT plan is implicit, the last one JPEG 2000.
    syntaxes = {
        change["sop_instance_uid"]: (change["old"], change["new"])
        for change in plan["changes"]
        if change["tag"] == "(0002,0010)"
    }
    assert len(syntaxes) == 3
    assert {new for _, new in syntaxes.values()} == {"Explicit VR Little Endian (1.2.840.10008.1.2.1)"}
    supplied = [(entry["record_type"], entry["tag"], entry["value"]) for entry in plan["supplied"]]
    assert ("RT PLAN", "(0020,0013)", "1") in supplied


def test_one_patient_a_volume_unless_many(ctx: Context, tmp_path: Path) -> None:
    _ingest(ctx, _packaged("CT_small.dcm"), _packaged("MR_small.dcm"))
    plan = _plan(ctx)
    assert [volume["patients"] for volume in plan["volumes"]] == [["1CT1"], ["4MR1"]]
    assert [(volume["number"], volume["of"]) for volume in plan["volumes"]] == [(1, 2), (2, 2)]
    plan = _plan(ctx, patients_per_disc="many")
    assert [volume["patients"] for volume in plan["volumes"]] == [["1CT1", "4MR1"]]
    path = tmp_path / "x.iso"
    with path.open("wb") as out:
        volume_image(ctx, _volume_ids(ctx, plan)[0]).write(out)
    with open_tree(path).open("README.TXT") as readme:
        text = readme.read().decode()
    assert "1CT1" in text and "4MR1" in text


def test_two_people_under_one_number_never_share_a_volume(ctx: Context, tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    one.mkdir(), two.mkdir()
    _ingest(ctx, *_varied(one, 1, PatientName="A^B", StudyInstanceUID="1.2.3"))
    _ingest(ctx, *_varied(two, 1, PatientName="C^D", StudyInstanceUID="1.2.4"))
    plan = _plan(ctx, patients_per_disc="many")
    assert [volume["patients"] for volume in plan["volumes"]] == [["1CT1"], ["1CT1"]]


def test_spanning_and_lower_bound(ctx: Context, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    _ingest(ctx, *_varied(folder, 30))
    plan = _plan(ctx, capacity_sectors=500)
    assert len(plan["volumes"]) >= 2
    assert plan["lower_bound"] <= len(plan["volumes"])
    assert all(volume["sectors"] <= 500 for volume in plan["volumes"])
    assert sum(volume["instances"] for volume in plan["volumes"]) == 30
    assert len({volume["file_set_id"] for volume in plan["volumes"]}) == len(plan["volumes"])


def test_too_large_is_refused_by_name(ctx: Context) -> None:
    _ingest(ctx, _packaged("CT_small.dcm"))
    plan = _plan(ctx, capacity_sectors=100)
    assert plan["volumes"] == []
    (refused,) = plan["refused"]
    assert refused["reason"].startswith("INST_OVERSIZED")


def test_splitting_forbidden_is_set_oversized(ctx: Context, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    _ingest(ctx, *_varied(folder, 30))
    with pytest.raises(PlanRefused, match="SET_OVERSIZED"):
        _plan(ctx, capacity_sectors=500, allow_splitting=False)


def test_conflicts(ctx: Context, tmp_path: Path) -> None:
    ds = dcmread(_packaged("CT_small.dcm"))
    ds.StudyDescription = "another"
    other = tmp_path / "other.dcm"
    ds.save_as(other)
    _ingest(ctx, _packaged("CT_small.dcm"), other)
    with ctx.db.read() as session:
        first, second = session.scalars(select(Instance).order_by(Instance.id)).all()
    assert second.conflict_of == first.id

    def used(plan: dict[str, Any]) -> tuple[list[str], int]:
        return [entry["reason"].split(":")[0] for entry in plan["refused"]], len(plan["conflicts"])

    plan = _plan(ctx)
    assert used(plan) == ([], 1) and plan["conflicts"][0]["used"] == first.id
    plan = _plan(ctx, conflicts="latest")
    assert used(plan) == ([], 1) and plan["conflicts"][0]["used"] == second.id
    plan = _plan(ctx, conflicts="refuse")
    assert used(plan) == (["DUPL_REF_INST", "DUPL_REF_INST"], 0)


def test_a_plan_whose_bytes_are_gone_is_stale(ctx: Context) -> None:
    _ingest(ctx, _packaged("CT_small.dcm"))
    plan = _plan(ctx)
    number = int(plan["plan"][1:])
    check_plan(ctx, number)
    with ctx.db.read() as session:
        path = session.scalar(select(Instance.spool_path))
    assert path is not None
    ctx.spool.path_of(path).unlink()
    with pytest.raises(PlanRefused, match="PLAN_STALE"):
        check_plan(ctx, number)
    with pytest.raises(PlanRefused, match="PLAN_STALE"):
        check_plan(ctx, number + 1)


def test_what_is_gone_from_the_spool_is_refused_by_name(ctx: Context) -> None:
    _ingest(ctx, _packaged("CT_small.dcm"), _packaged("MR_small.dcm"))
    with ctx.db.begin() as session:
        row = session.scalars(select(Instance).where(Instance.sop_class_uid.endswith(".1.4"))).one()
        row.spool_path = None
    plan = _plan(ctx, Selection(patient_id=("4MR1",)))
    assert [entry["reason"].split(":")[0] for entry in plan["refused"]] == ["NO_INSTANCE"]


def test_profile_and_medium_must_belong_together(ctx: Context) -> None:
    _ingest(ctx, _packaged("CT_small.dcm"))
    with pytest.raises(MediaError, match="CD-R-80"):
        _plan(ctx, profile="STD-GEN-CD", medium="DVD-R")
    with pytest.raises(PlanRefused, match="NO_INSTANCE"):
        _plan(ctx, Selection(patient_id=("nobody",)))


def test_bd_says_what_is_missing(ctx: Context) -> None:
    _ingest(ctx, _packaged("CT_small.dcm"))
    plan = _plan(ctx, profile="STD-GEN-BD")
    assert any("UDF" in note for note in plan["notes"])
    with ctx.db.read() as session:
        readme = session.get_one(Volume, _volume_ids(ctx, plan)[0]).readme
    assert b"UDF" in readme


def test_losslessly_compressed_images_go_on_a_disc_that_verifies(ctx: Context, tmp_path: Path) -> None:
    """The plan shows the change, the disc holds it, the directory says it."""
    _ingest(ctx, _packaged("CT_small.dcm"), _packaged("MR_small_implicit.dcm"), _packaged("rtplan.dcm"))
    document = _plan(ctx, profile="STD-GEN-DVD-JPEG", patients_per_disc="many", compress="lossless")
    syntaxes = [change["new"] for change in document["changes"] if change["tag"] == "(0002,0010)"]
    assert sorted("1.2.840.10008.1.2.4.70" in new for new in syntaxes) == [False, True, True]
    (volume,) = _volume_ids(ctx, document)
    image = tmp_path / "image.iso"
    with image.open("wb") as out:
        volume_image(ctx, volume).write(out)
    assert [str(problem) for problem in verify_path(image, profile="STD-GEN-DVD-JPEG").problems] == []
