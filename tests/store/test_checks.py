"""Discs that are checked again: what is recorded, who is told, and what nobody counts on any more."""

from __future__ import annotations

from sqlalchemy import text

from store import migrate
from store.db import Database
from store.models import Disc, Volume, now


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
