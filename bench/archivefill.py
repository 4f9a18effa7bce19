"""A made-up archive, inserted by SQL alone: patients with four studies, 50 instances each, on two discs of each volume.

The newest ``SPOOLED`` studies are in the spool still, half of them on discs; of ten volumes one disc is lost. All of
this is the same however large the archive is, so that what is asked has answers of the same size. Left empty are
columns that nothing here asks for (directory keys, requests' lists of instances).
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text

from store.db import Database

INSTANCES = 50
"""Of a study, in two series."""
STUDIES = 80
"""Of a volume; each has two discs."""
SPOOLED = 1600
SHORT = 10
SIZE = 1_200_000
CORRECTED = 100
"""One study of so many had another Patient ID and Accession Number when it was received."""

_ROWS = {
    "patient": """INSERT INTO patient (id, identity, patient_id, issuer_of_patient_id, patient_name, name_search,
        patient_birth_date, patient_sex)
    SELECT n, {hex_n}, 'PID' || {number}, '', 'NAME' || {family} || '^F' || (n % 100),
        '=name' || {family} || ' f' || (n % 100) || '=', '19700101', 'O' FROM {range}""",
    "study": """INSERT INTO study (id, patient_id, study_instance_uid, study_date, study_time, study_id,
        study_description, accession_number, referring_physician_name, institution_name)
    SELECT n, (n - 1) / 4 + 1, '1.2.276.0.99.1.' || n, '20' || {year} || '0' || (n % 9 + 1) || '15', '101500', 'S' || n,
        'CT CHEST', 'ACC' || {number}, 'REFERRING^DOC', 'SITE' FROM {range}""",
    "series": """INSERT INTO series (id, study_id, series_instance_uid, modality, series_number, series_description,
        body_part_examined, station_name, manufacturer)
    SELECT n, (n - 1) / 2 + 1, '1.2.276.0.99.2.' || n, 'CT', 1, '', 'CHEST', '', '' FROM {range}""",
    "instance": """INSERT INTO instance (id, series_id, sop_class_uid, sop_instance_uid, transfer_syntax_uid, digest,
        dataset_bytes, file_sha256, file_bytes, photometric_interpretation, has_pixel_data, directory_keys, calling_ae,
        called_ae, source, received_at)
    SELECT n, (n - 1) / 25 + 1, '1.2.840.10008.5.1.4.1.1.2', '1.2.276.0.99.3.' || n, '1.2.840.10008.1.2.1', {hex_n},
        {size}, {hex_n}, {size}, 'MONOCHROME2', {true}, {empty}, 'BENCH', 'BURNISH', '127.0.0.1', {received}
    FROM {range}""",
    "request": """INSERT INTO request (id, created_at, source, selection, options)
    SELECT n, {now}, 'bench', {object}, {object} FROM {range}""",
    "plan": """INSERT INTO plan (id, request_id, created_at, profile, medium, capacity_sectors, report)
    SELECT n, n, {now}, 'STD-GEN-DVD-JPEG', 'DVD-R', 2295104, {object} FROM {range}""",
    "job": """INSERT INTO job (id, request_id, plan_id, state, priority, burner, copies, attempt, cancel_requested,
        progress, created_at, updated_at)
    SELECT n, n, n, 'DONE', 2, 'iso', 2, 1, {false}, {object}, {now}, {now} FROM {range}""",
    "volume": """INSERT INTO volume (id, plan_id, number, of, file_set_id, file_set_uid, created_at, sectors,
        capacity_sectors, readme, image_sha256, good_copies, wanted_copies)
    SELECT n, n, 1, 1, 'BURNISH_' || {number}, '1.2.276.0.99.4.' || n, {now}, 2200000, 2295104, {empty}, {hex_n}, 2, 2
    FROM {range}""",
    "disc": """INSERT INTO disc (id, job_id, volume_id, copy, attempt, state, burner, progress, sha256, location,
        verified_by, verified_at, created_at, updated_at)
    SELECT n, (n - 1) / 2 + 1, (n - 1) / 2 + 1, n % 2 + 1, 1, 'VERIFIED', 'iso', 1, {hex_n}, 'shelf', 'read-back',
        {now}, {now}, {now} FROM {range}""",
    "volume_instance": """INSERT INTO volume_instance (volume_id, position, instance_id, file_id, size, sha256,
        supplied)
    SELECT (n - 1) / {per_volume} + 1, (n - 1) % {per_volume} + 1, n,
        'DICOM/P0000001/ST000001/SE000001/IM' || {number}, {size}, {hex_n}, {list} FROM {range}""",
    "derived": """INSERT INTO derived (id, source_digest, sop_instance_uid, recipe, path, size, sha256,
        transfer_syntax_uid, changes, facts, created_at, purged_at)
    SELECT n, {hex_corrected}, '1.2.276.0.99.3.' || {corrected}, 'edit/1+0123456789abcdef', 'made-up/' || n, {size},
        {hex_corrected}, '1.2.840.10008.1.2.1', {list}, {facts}, {now}, {now} FROM {range}""",
}
_SQLITE = {
    "hex_n": "printf('%064x', n * 2654435761)",
    "hex_corrected": "printf('%064x', (n * {step} - 1) * 2654435761)",
    "number": "printf('%08d', n % 100000000)",
    "family": "printf('%06d', n / 100)",
    "year": "printf('%02d', n % 25)",
    "range": "(WITH RECURSIVE c(n) AS (SELECT :first UNION ALL SELECT n + 1 FROM c WHERE n < :last) SELECT n FROM c)",
    "true": "1",
    "false": "0",
    "empty": "x''",
    "object": "'{{}}'",
    "list": "'[]'",
    "now": "'2024-01-01 00:00:00.000000'",
    "received": "strftime('%Y-%m-%d %H:%M:%S.000000', 1262304000 + n * 8, 'unixepoch')",
    "facts": "json_object('patient_id', 'NEW' || {number}, 'accession_number', 'RIGHT' || {number}, "
    "'patient_name', 'NEW^NAME', 'name_search', '=new name=')",
}
_POSTGRESQL = {
    "hex_n": "lpad(to_hex(n::bigint * 2654435761), 64, '0')",
    "hex_corrected": "lpad(to_hex((n::bigint * {step} - 1) * 2654435761), 64, '0')",
    "number": "lpad((n % 100000000)::text, 8, '0')",
    "family": "lpad((n / 100)::text, 6, '0')",
    "year": "lpad((n % 25)::text, 2, '0')",
    "range": "generate_series(CAST(:first AS integer), CAST(:last AS integer)) AS n",
    "true": "true",
    "false": "false",
    "empty": "''::bytea",
    "object": "'{{}}'::json",
    "list": "'[]'::json",
    "now": "now()",
    "received": "timestamptz '2010-01-01 00:00:00+00' + n * interval '8 seconds'",
    "facts": "json_build_object('patient_id', 'NEW' || {number}, 'accession_number', 'RIGHT' || {number}, "
    "'patient_name', 'NEW^NAME', 'name_search', '=new name=')",
}
_BIG = ("instance", "volume_instance", "study", "series", "patient", "derived")


class Archive:
    """A growing archive in a migrated database that has nothing else in it."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.studies = 0

    def grow(self, studies: int) -> None:
        """Up to so many studies, a multiple of four and of what a volume holds."""
        assert studies % STUDIES == 0 and studies - self.studies > 2 * SPOOLED
        old, new = self.studies, studies
        per_study = INSTANCES
        on_discs_before, on_discs = max(0, old - SPOOLED // 2), new - SPOOLED // 2
        step = CORRECTED * per_study
        with self.db.engine.begin() as connection:
            indexes = self._without_indexes(connection)
            self._insert(connection, "patient", old // 4, new // 4)
            self._insert(connection, "study", old, new)
            self._insert(connection, "series", 2 * old, 2 * new)
            self._insert(connection, "instance", old * per_study, new * per_study)
            volumes = (on_discs_before // STUDIES, on_discs // STUDIES)
            for table in ("request", "plan", "job", "volume"):
                self._insert(connection, table, *volumes)
            self._insert(connection, "disc", 2 * volumes[0], 2 * volumes[1])
            derived = ((on_discs_before * per_study) // step, (on_discs * per_study) // step)
            self._insert(connection, "derived", *derived)
            self._insert(connection, "volume_instance", on_discs_before * per_study, on_discs * per_study)
            numbers = {"first": derived[0] + 1, "last": derived[1]}
            connection.execute(
                text(
                    f"UPDATE volume_instance SET derived_id = instance_id / {step} "
                    f"WHERE instance_id IN (SELECT n * {step} FROM {self._words()['range']})"
                ),
                numbers,
            )
            for statement in indexes:
                connection.execute(text(statement))
            self._newest(connection, old, new)
        self.studies = studies
        if not self.db.is_sqlite:  # which has no statistics in practice either
            with self.db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text("VACUUM ANALYZE"))

    def _newest(self, connection: Connection, old: int, new: int) -> None:
        """The spool holds the newest studies; a disc of some volumes is lost."""
        connection.execute(text("UPDATE instance SET spool_path = NULL WHERE spool_path IS NOT NULL"))
        first = (new - SPOOLED) * INSTANCES
        path = "'20240101/00/' || " + ("printf('%012d', id)" if self.db.is_sqlite else "lpad(id::text, 12, '0')")
        connection.execute(text(f"UPDATE instance SET spool_path = {path} || '.dcm' WHERE id > {first}"))
        connection.execute(text("UPDATE volume SET good_copies = 2 WHERE good_copies < wanted_copies"))
        connection.execute(text("UPDATE disc SET marked = NULL WHERE marked IS NOT NULL"))
        every = (new - 2 * SPOOLED) // STUDIES // SHORT
        short = ", ".join(str(1 + number * every) for number in range(SHORT))
        connection.execute(text(f"UPDATE volume SET good_copies = 1 WHERE id IN ({short})"))
        connection.execute(text(f"UPDATE disc SET marked = 'LOST' WHERE volume_id IN ({short}) AND copy = 1"))
        del old

    def _words(self) -> dict[str, Any]:
        words: dict[str, Any] = dict(_SQLITE if self.db.is_sqlite else _POSTGRESQL)
        step = CORRECTED * INSTANCES
        words |= {"size": SIZE, "per_volume": STUDIES * INSTANCES, "corrected": f"(n * {step})"}
        for name in ("facts", "hex_corrected", "object"):
            words[name] = words[name].format(number=words["number"], step=step)
        words["hex_corrected"] = words["hex_corrected"].replace("- 1)", ")")
        return words

    def _insert(self, connection: Connection, table: str, done: int, wanted: int) -> None:
        statement = text(_ROWS[table].format(**self._words()))
        step = 2_000_000
        for first in range(done + 1, wanted + 1, step):
            connection.execute(statement, {"first": first, "last": min(wanted, first + step - 1)})

    def _without_indexes(self, connection: Connection) -> list[str]:
        """Indexes of the large tables go while they are filled; the statements that make them again."""
        tables = ", ".join(f"'{name}'" for name in _BIG)
        if self.db.is_sqlite:
            query = (
                "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL "
                f"AND tbl_name IN ({tables})"
            )
        else:
            connection.execute(text("SET LOCAL maintenance_work_mem = '512MB'"))
            connection.execute(text("SET LOCAL session_replication_role = replica"))  # foreign keys are not asked
            query = (
                "SELECT i.indexname, i.indexdef FROM pg_indexes i WHERE i.schemaname = 'public' AND i.tablename IN "
                f"({tables}) AND NOT EXISTS (SELECT 1 FROM pg_constraint c WHERE c.conname = i.indexname)"
            )
        found = [(row[0], row[1]) for row in connection.execute(text(query))]
        for name, _ in found:
            connection.execute(text(f"DROP INDEX {name}"))
        return [statement for _, statement in found]
