"""The schema is what Alembic makes of it, up and down, on both databases."""

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, select, text

from store import migrate
from store.db import Database, next_numbers
from store.models import Derived, Patient
from store.models_archive import Pool, PoolInstance
from store.models_base import Base, now
from store.models_jobs import Disc, Job, Volume
from store.models_nodes import Counter, RemoteNode
from tests.rows import add_disc, add_instance


def test_migrated_schema_is_the_models(database: Database) -> None:
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    assert migrate.current(database) == migrate.head(database)


def test_down_and_up_again(database: Database) -> None:
    with database.begin() as session:
        session.add(Counter(name="file_set", value=7))
    migrate.downgrade(database, "base")
    assert inspect(database.engine).get_table_names() == ["alembic_version"]
    migrate.upgrade(database)
    with database.begin() as session:
        assert next_numbers(session, "file_set", 3) == 1
        assert next_numbers(session, "file_set") == 4


def test_a_volume_of_before_signatures_stays_and_is_not_signed(database: Database) -> None:
    migrate.downgrade(database, "0001")
    with database.engine.begin() as connection:
        for statement in (
            "INSERT INTO request (id, created_at, source, selection, options) VALUES (1, :at, 'cli', '{}', '{}')",
            """INSERT INTO plan (id, request_id, created_at, profile, medium, capacity_sectors, report)
            VALUES (1, 1, :at, 'STD-GEN-CD', 'CD-R-80', 1000, '{}')""",
            """INSERT INTO volume (id, plan_id, number, of, file_set_id, file_set_uid, created_at, sectors,
            capacity_sectors, readme) VALUES (1, 1, 1, 1, 'A', '1.2', :at, 10, 1000, :readme)""",
        ):
            connection.execute(text(statement), {"at": now().replace(tzinfo=None), "readme": b"R"})
    migrate.upgrade(database)
    with database.read() as session:
        volume = session.get_one(Volume, 1)
        assert (volume.file_set_id, volume.readme) == ("A", b"R")
        assert volume.signing_key is None and volume.signature is None
    with database.begin() as session:
        session.get_one(Volume, 1).signature = b"S"
    migrate.downgrade(database, "0001")
    with database.engine.connect() as connection:
        assert connection.execute(text("SELECT file_set_id FROM volume")).scalar() == "A"


def test_a_derived_file_of_before_edits_stays_and_has_changed_nothing_else(database: Database) -> None:
    migrate.downgrade(database, "0003")
    columns = "source_digest, sop_instance_uid, recipe, path, size, sha256, transfer_syntax_uid, changes, created_at"
    with database.engine.begin() as connection:
        values = "'d', '1.2', 'explicit-le/1', 'd/d.dcm', 10, 'f', '1.2.840.10008.1.2.1', '[]', :at"
        insert = f"INSERT INTO derived (id, {columns}) VALUES (1, {values})"
        connection.execute(text(insert), {"at": now().replace(tzinfo=None)})
    migrate.upgrade(database)
    with database.begin() as session:
        row = session.get_one(Derived, 1)
        assert (row.path, row.new_sop_instance_uid, row.directory_keys, row.facts) == ("d/d.dcm", None, None, None)
        row.new_sop_instance_uid, row.directory_keys, row.facts = "2.25.1", b"K", {"patient_id": "P"}
    migrate.downgrade(database, "0003")
    with database.engine.connect() as connection:
        assert connection.execute(text("SELECT path FROM derived")).scalar() == "d/d.dcm"
    migrate.upgrade(database)
    with database.read() as session:
        assert session.get_one(Derived, 1).facts is None


def test_names_of_before_component_groups_had_columns_get_them(database: Database) -> None:
    migrate.downgrade(database, "0005")
    with database.engine.begin() as connection:
        for row_id, name in enumerate(("=doe john=", "=yamada tarou=山田 太郎=やまだ たろう=", "="), 1):
            connection.execute(
                text(
                    "INSERT INTO patient (id, identity, patient_id, issuer_of_patient_id, patient_name, name_search, "
                    "patient_birth_date, patient_sex) VALUES (:id, :identity, 'P', '', '', :name, '', '')"
                ),
                {"id": row_id, "identity": str(row_id), "name": name},
            )
        connection.execute(
            text(
                "INSERT INTO study (id, patient_id, study_instance_uid, study_date, study_time, study_id, "
                "study_description, accession_number, referring_physician_name, institution_name) "
                "VALUES (1, 2, '1.2', '', '', '', '', 'A', '', '')"
            )
        )
    migrate.upgrade(database)
    with database.begin() as session:
        rows = session.execute(select(Patient.name_search_2, Patient.name_search_3).order_by(Patient.id)).all()
        assert [tuple(row) for row in rows] == [(None, None), ("山田 太郎", "やまだ たろう"), (None, None)]
        session.add(RemoteNode(name="pacs", ae_title="ORTHANC", host="pacs", port=4242, created_at=now()))
    migrate.downgrade(database, "0005")
    with database.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM patient")).scalar() == 3
        assert connection.execute(text("SELECT accession_number FROM study")).scalar() == "A"
    migrate.upgrade(database)
    with database.read() as session:
        assert session.scalars(select(RemoteNode)).all() == []
        assert session.scalars(select(Patient.name_search_2).order_by(Patient.id)).all() == [None, "山田 太郎", None]


def test_discs_of_before_the_archive_are_counted(database: Database) -> None:
    migrate.downgrade(database, "0008")
    at = now().replace(tzinfo=None)
    with database.engine.begin() as connection:
        for statement in (
            "INSERT INTO request (id, created_at, source, selection, options) VALUES (1, :at, 'cli', '{}', '{}')",
            """INSERT INTO plan (id, request_id, created_at, profile, medium, capacity_sectors, report)
            VALUES (1, 1, :at, 'STD-GEN-CD', 'CD-R-80', 1000, '{}')""",
            """INSERT INTO job (id, request_id, plan_id, state, priority, burner, copies, attempt, cancel_requested,
            progress, created_at, updated_at) VALUES (1, 1, 1, 'DONE', 2, 'iso', 3, 1, :no, '{}', :at, :at)""",
        ):
            connection.execute(text(statement), {"at": at, "no": False})
        for number in (1, 2):
            connection.execute(
                text(
                    """INSERT INTO volume (id, plan_id, number, of, file_set_id, file_set_uid, created_at, sectors,
                    capacity_sectors, readme) VALUES (:n, 1, :n, 2, :id, :uid, :at, 10, 1000, :readme)"""
                ),
                {"n": number, "id": f"A{number}", "uid": f"1.2.{number}", "at": at, "readme": b"R"},
            )
        for copy, state, found in ((1, "VERIFIED", None), (2, "VERIFIED", "DAMAGED"), (3, "VERIFIED", "GOOD")):
            connection.execute(
                text(
                    """INSERT INTO disc (job_id, volume_id, copy, attempt, state, burner, progress, checked_result,
                    created_at, updated_at) VALUES (1, 1, :copy, 1, :state, 'iso', 1, :found, :at, :at)"""
                ),
                {"copy": copy, "state": state, "found": found, "at": at},
            )
    migrate.upgrade(database)
    with database.read() as session:
        volumes = [session.get_one(Volume, number) for number in (1, 2)]
        assert [(one.good_copies, one.wanted_copies, one.origin) for one in volumes] == [(2, 3, "own"), (0, 0, "own")]
        assert {disc.purpose for disc in session.scalars(select(Disc))} == {"archive"}
    migrate.downgrade(database, "0008")
    with database.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM disc")).scalar() == 3
        assert connection.execute(text("SELECT count(*) FROM volume")).scalar() == 2
        assert connection.execute(text("SELECT count(*) FROM job")).scalar() == 1


def test_pools_and_what_waits_in_them_stay(database: Database) -> None:
    migrate.downgrade(database, "0011")
    at = now().replace(tzinfo=None)
    with database.engine.begin() as connection:
        connection.execute(
            text(
                """INSERT INTO pool (name, kind, options, copies, required_copies, min_fill, latest_days, keep_days,
                shelves, created_at) VALUES ('p', 'archive', '{}', 2, 1, 97, NULL, 0, '[]', :at)"""
            ),
            {"at": at},
        )
    migrate.upgrade(database)
    with database.begin() as session:
        pool = session.get_one(Pool, "p")
        assert (pool.quiet_minutes, pool.look_at, pool.seen_instance) == (10, None, 0)
        instance = add_instance(session, "1.2.3")
        session.add(PoolInstance(pool="p", instance_id=instance.id, added_at=now(), refused="too large"))
    migrate.downgrade(database, "0011")
    with database.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM pool_instance")).scalar() == 1
    migrate.upgrade(database)
    with database.read() as session:
        assert session.scalars(select(PoolInstance.refused)).all() == [None]


def test_volumes_of_before_pools_want_as_many_copies_as_were_ordered(database: Database) -> None:
    from tests.rows import add_disc

    with database.begin() as session:
        disc = add_disc(session, [add_instance(session, "1.1")])
        failed = add_disc(session, [add_instance(session, "1.2")], state="FAILED")
        session.get_one(Job, disc.job_id).copies = 2
    migrate.downgrade(database, "0012")
    migrate.upgrade(database)
    with database.read() as session:
        volumes = [session.get_one(Volume, one.volume_id) for one in (disc, failed)]
        assert [volume.wanted_copies for volume in volumes] == [2, 0]


def test_other_makers_may_have_the_same_file_set_id(database: Database) -> None:
    with database.begin() as session:
        disc = add_disc(session, [add_instance(session, "1.2")])
        session.flush()
        plan = session.get_one(Volume, disc.volume_id).plan_id
        for number in (2, 3):
            session.add(
                Volume(
                    plan_id=plan,
                    number=number,
                    of=3,
                    file_set_id="PATIENT",
                    file_set_uid=f"1.9.{number}",
                    created_at=now(),
                    sectors=0,
                    capacity_sectors=0,
                    readme=b"",
                    origin="foreign",
                )
            )
    migrate.downgrade(database, "0013")
    with database.engine.begin() as connection:
        ids = connection.execute(text("SELECT file_set_id FROM volume")).scalars().all()
        assert len(set(ids)) == 3
        assert connection.execute(text("SELECT count(*) FROM disc")).scalar_one() == 1
    migrate.upgrade(database)
    assert migrate.current(database) == migrate.head(database)


def test_a_new_database_is_its_owners_to_read(tmp_path: Path) -> None:
    path = tmp_path / "made/burnish.db"
    database = Database(f"sqlite:///{path}")
    with database.begin() as session:
        session.execute(text("CREATE TABLE one (a INTEGER)"))
        modes = {one.name: one.stat().st_mode & 0o777 for one in path.parent.iterdir()}
    database.close()
    assert set(modes.values()) == {0o600}, modes
    path.chmod(0o640)  # as somebody wants it
    Database(f"sqlite:///{path}").close()
    assert path.stat().st_mode & 0o777 == 0o640
