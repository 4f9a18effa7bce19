"""Discs that are checked again: what is recorded, who is told, and what nobody counts on any more."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select, text

from store import catalogue, checks, migrate, purging, rereading
from store.db import Database
from store.models_base import now
from store.models_jobs import Disc, Volume
from store.models_nodes import Event
from store.selection import Selection, instance_ids
from store.spool import Spool
from tests.rows import add_disc, add_instance


def test_discs_and_volumes_of_before_checks_and_protection_stay(database: Database) -> None:
    migrate.downgrade(database, "0004")
    at = {"at": now().replace(tzinfo=None), "readme": b"R"}
    with database.engine.begin() as connection:
        for statement in (
            "INSERT INTO request (id, created_at, source, selection, options) VALUES (1, :at, 'cli', '{}', '{}')",
            """INSERT INTO plan (id, request_id, created_at, profile, medium, capacity_sectors, report)
            VALUES (1, 1, :at, 'STD-GEN-CD', 'CD-R-80', 1000, '{}')""",
            """INSERT INTO volume (id, plan_id, number, of, file_set_id, file_set_uid, created_at, sectors,
            capacity_sectors, readme) VALUES (1, 1, 1, 1, 'A', '1.2', :at, 10, 1000, :readme)""",
            """INSERT INTO job (id, request_id, plan_id, state, priority, burner, copies, attempt, cancel_requested,
            progress, created_at, updated_at) VALUES (1, 1, 1, 'DONE', 2, 'iso', 1, 1, :no, '{}', :at, :at)""",
            """INSERT INTO disc (id, job_id, volume_id, copy, attempt, state, burner, progress, created_at, updated_at)
            VALUES (1, 1, 1, 1, 1, 'VERIFIED', 'iso', 1.0, :at, :at)""",
        ):
            connection.execute(text(statement), at | {"no": False})
    migrate.upgrade(database)
    with database.begin() as session:
        disc, volume = session.get_one(Disc, 1), session.get_one(Volume, 1)
        assert (disc.state, disc.checked_at, disc.checked_result, disc.checked_how) == ("VERIFIED", None, None, None)
        assert (volume.protection, volume.protection_roots, volume.iso_sectors) == (None, None, None)
        disc.checked_at, disc.checked_result, disc.checked_how = now(), "DAMAGED", "image"
        volume.protection, volume.protection_roots, volume.iso_sectors = "rs02", 43, 8
    migrate.downgrade(database, "0004")
    with database.engine.connect() as connection:
        assert connection.execute(text("SELECT state FROM disc")).scalar() == "VERIFIED"
        assert connection.execute(text("SELECT sectors FROM volume")).scalar() == 10


@pytest.fixture
def disc(database: Database) -> int:
    with database.begin() as session:
        patient = {"patient_id": "P1", "patient_name": "Doe^Jane", "study": "1.2.9"}
        made = [add_instance(session, f"1.{n}", in_spool=True, **patient) for n in (1, 2)]
        return add_disc(session, made).id


def test_what_the_catalogue_knows_of_a_medium(database: Database, disc: int) -> None:
    with database.read() as session:
        volume = session.scalars(select(Volume)).one()
        found = checks.volume_document(session, file_set_uid=volume.file_set_uid)
        assert found == checks.volume_document(session, file_set_id=volume.file_set_id)
        assert checks.volume_document(session, file_set_uid="1.2.3.4.5") is None
        assert checks.volume_document(session, file_set_id="") is None
    assert found is not None
    assert (found["profile"], found["sectors"], found["protection"]) == ("STD-GEN-CD", 1, None)
    assert [(one["disc"], one["state"], one["checked_at"]) for one in found["discs"]] == [
        (f"D{disc}", "VERIFIED", None)
    ]
    first, second = found["instances"]
    assert (first["file"], first["sop_instance_uid"], first["sha256"]) == ("DICOM/IM000001", "1.1", "0" * 64)
    assert (second["patient_id"], second["patient_name"], second["study_instance_uid"]) == ("P1", "Doe^Jane", "1.2.9")


def test_a_check_is_recorded_with_its_event(database: Database, disc: int) -> None:
    with database.begin() as session:
        told = rereading.record_check(session, disc, good=False, how="image x.iso", detail={"lost": 2})
    assert (told["disc"], told["checked_result"], told["checked_how"]) == (f"D{disc}", "DAMAGED", "image x.iso")
    with database.begin() as session:
        rereading.record_check(session, disc, good=True, how="image y.iso", detail={"lost": 0})
    with database.read() as session:
        events = session.scalars(select(Event).where(Event.kind == "check").order_by(Event.id)).all()
        assert [(event.disc_id, event.old, event.new) for event in events] == [
            (disc, None, "DAMAGED"),
            (disc, "DAMAGED", "GOOD"),
        ]
        assert events[0].detail == {"lost": 2, "how": "image x.iso"}
        (found,) = catalogue.find(session)
        assert (found["state"], found["checked_result"], found["disc"]) == ("VERIFIED", "GOOD", f"D{disc}")
    with database.begin() as session, pytest.raises(rereading.NoSuchDisc, match="D99"):
        rereading.record_check(session, 99, good=True, how="", detail={})


@pytest.mark.parametrize("good", [True, False])
def test_nobody_counts_on_a_damaged_disc(database: Database, disc: int, tmp_path: Path, good: bool) -> None:
    with database.begin() as session:
        rereading.record_check(session, disc, good=good, how="image", detail={})
    with database.read() as session:
        not_on_disc = instance_ids(session, Selection(not_on_disc=True))
    spool = Spool(tmp_path / "spool", node="n", high_water_percent=100, max_bytes=0)
    purged = purging.purge(database, spool, tmp_path / "derived", purging.Policy(min_copies=1), dry_run=True)
    assert (len(not_on_disc), purged["instances"]) == ((0, 2) if good else (2, 0))
