"""Every real file: nothing crashes, what is accepted can be burnt and verified, what is refused has a reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import func, select

from config.settings import load
from jobs.assemble import volume_image
from jobs.context import Context
from jobs.options import RequestOptions
from jobs.plandocument import plan_document
from jobs.planning import create_request, make_plan
from media.problems import MediaError
from media.verify import verify_path
from store import migrate
from store.db import Database
from store.instances import Provenance, Registrar, ingest_file
from store.models import Instance
from store.models_jobs import Volume
from store.selection import Selection
from store.spool import Spool


@pytest.mark.shared_data
def test_all_real_files(shared_data: Path, tmp_path: Path) -> None:
    settings = load(data=tmp_path / "data")
    db = Database(settings.database_url)
    migrate.upgrade(db)
    spool = Spool(settings.spool_dir, node="test", high_water_percent=100.0, max_bytes=0)
    ctx = Context(settings, db, spool)
    registrar = Registrar(db, spool)
    accepted, refused = 0, {}
    for path in sorted(path for path in shared_data.rglob("*") if path.is_file()):
        try:
            ingest_file(registrar, path, provenance=Provenance("", "BURNISH", "import"))
            accepted += 1
        except MediaError as error:
            refused[path.name] = str(error)
        except Exception as error:
            # Only these have a reason that a person understands; anything else is a crash of ours.
            assert type(error).__name__ == "BadIdentity", (path, error)
            refused[path.name] = str(error)
    assert accepted > 200
    assert all(len(reason) > 10 and "Traceback" not in reason for reason in refused.values())

    options = RequestOptions.from_settings(settings, {"patients_per_disc": "many", "profile": "STD-GEN-DVD-JPEG"})
    with db.begin() as session:
        request = create_request(session, selection=Selection(all=True), options=options, source="test")
    plan_id = make_plan(ctx, request)
    with db.read() as session:
        plan = plan_document(session, plan_id)
        volumes = session.scalars(select(Volume).where(Volume.plan_id == plan_id)).all()
        held = session.scalar(select(func.count()).select_from(Instance))
    on_disc = sum(volume["instances"] for volume in plan["volumes"])
    left_out = sum(len(conflict["left_out"]) for conflict in plan["conflicts"])
    assert held == on_disc + len(plan["refused"]) + left_out
    # Some of the files are images without pixels and Rows, which this profile's directory must have (Table H.3-2).
    without_rows = [entry for entry in plan["refused"] if "Rows of its IMAGE record" in entry["reason"]]
    assert all(entry["reason"].startswith("INST_AP_CONFLICT: ") for entry in without_rows)
    assert on_disc > 140
    assert on_disc + len(without_rows) > 180
    assert all(len(entry["reason"]) > 10 for entry in plan["refused"])
    for volume in volumes:
        image = tmp_path / f"{volume.file_set_id}.iso"
        with image.open("wb") as out:
            volume_image(ctx, volume.id).write(out)
        assert image.stat().st_size == volume.sectors * 2048
        result = verify_path(image)
        assert [problem.as_json() for problem in result.problems] == []
    db.close()
