"""A made-up catalogue of many studies, inserted by SQL alone: one patient, study, series and CT instance each."""

from __future__ import annotations

from sqlalchemy import text

from store.db import Database

FAMILY_SIZE = 100
"""So many patients share a family name: ``NAME00042^F17``."""

_ROWS = (
    """INSERT INTO patient (id, identity, patient_id, issuer_of_patient_id, patient_name, name_search,
        patient_birth_date, patient_sex)
    SELECT n, 'identity' || n, 'PID' || {number}, '', 'NAME' || {family} || '^F' || (n % 100),
        '=name' || {family} || ' f' || (n % 100) || '=', '19700101', 'O' FROM {numbers}""",
    """INSERT INTO study (id, patient_id, study_instance_uid, study_date, study_time, study_id, study_description,
        accession_number, referring_physician_name, institution_name)
    SELECT n, n, '1.2.276.0.99.1.' || n, '20' || {year} || '0' || (n % 9 + 1) || '15', '101500', 'S' || n, 'CT CHEST',
        'ACC' || {number}, 'REFERRING^DOC', 'SITE' FROM {numbers}""",
    """INSERT INTO series (id, study_id, series_instance_uid, modality, series_number, series_description,
        body_part_examined, station_name, manufacturer)
    SELECT n, n, '1.2.276.0.99.2.' || n, 'CT', 1, '', 'CHEST', '', '' FROM {numbers}""",
    """INSERT INTO instance (id, series_id, sop_class_uid, sop_instance_uid, transfer_syntax_uid, digest, dataset_bytes,
        file_sha256, file_bytes, spool_path, photometric_interpretation, has_pixel_data, directory_keys, calling_ae,
        called_ae, source, received_at)
    SELECT n, n, '1.2.840.10008.5.1.4.1.1.2', '1.2.276.0.99.3.' || n, '1.2.840.10008.1.2.1', 'digest' || n, 1000,
        'digest' || n, 1336, 'made-up/' || n, 'MONOCHROME2', {true}, {empty}, 'BENCH', 'BURNISH', '127.0.0.1', {now}
    FROM {numbers}""",
)
_SQLITE = {
    "number": "printf('%08d', n)",
    "family": "printf('%06d', n / 100)",
    "year": "printf('%02d', n % 25)",
    "numbers": "(WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < :count) SELECT n FROM c)",
    "true": "1",
    "empty": "x''",
    "now": "'2024-01-01 00:00:00'",
}
_POSTGRESQL = {
    "number": "lpad(n::text, 8, '0')",
    "family": "lpad((n / 100)::text, 6, '0')",
    "year": "lpad((n % 25)::text, 2, '0')",
    "numbers": "generate_series(1, :count) AS n",
    "true": "true",
    "empty": "''::bytea",
    "now": "now()",
}


def fill(database: Database, count: int) -> None:
    """``count`` studies in an empty, migrated database."""
    words = _SQLITE if database.is_sqlite else _POSTGRESQL
    with database.begin() as session:
        for statement in _ROWS:
            session.execute(text(statement.format(**words)), {"count": count})
    if not database.is_sqlite:
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("ANALYZE"))


def family(number: int) -> str:
    """The name of ``FAMILY_SIZE`` patients, as a wildcard pattern."""
    return f"NAME{number:06}*"
