"""Rows that are entered many at a time are those that the ORM would have made, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import Table, insert, select
from sqlalchemy.exc import IntegrityError

from store.bulk import insert_rows, rows_with
from store.db import Database
from store.models import Derived, Instance

AT = datetime(2026, 11, 21, 14, 5, 6, 789, tzinfo=UTC)
INSTANCES: Table = Instance.__table__  # type: ignore[assignment]


def instance(number: int, **values: Any) -> dict[str, Any]:
    """Every column that has no default."""
    return {
        "sop_class_uid": "1.2",
        "sop_instance_uid": f"1.2.{number}",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "instance_number": None,
        "rows": 512,
        "columns": 512,
        "number_of_frames": None,
        "photometric_interpretation": "MONOCHROME2",
        "has_pixel_data": True,
        "directory_keys": b"\0\xff'\"",
        "calling_ae": "=1+1",
        "called_ae": "'; DROP TABLE--",
        "source": "日本 \u202e?%s:x",
        "series_id": None,
        "digest": "0" * 64,
        "dataset_bytes": 1 << 40,
        "file_sha256": "1" * 64,
        "file_bytes": 7,
        "spool_path": None,
        "conflict_of": None,
        "received_at": AT,
        **values,
    }


def derived(number: int) -> dict[str, Any]:
    return {
        "source_digest": f"{number:064}",
        "sop_instance_uid": "1.2",
        "recipe": "r",
        "path": "p",
        "size": 1,
        "sha256": "2" * 64,
        "transfer_syntax_uid": "1.2",
        "changes": [{"tag": "(0010,0010)", "old": "Ä", "new": ""}],
        "new_sop_instance_uid": None,
        "directory_keys": b"",
        "facts": None if number % 2 else {"rows": 3},
        "created_at": AT.astimezone(timezone(timedelta(hours=2))),
        "restored_at": None,
        "purged_at": None,
    }


def test_rows_are_as_the_orm_makes_them(database: Database) -> None:
    found = []
    for model, make in ((Instance, instance), (Derived, derived)):
        rows = [make(number) for number in range(5)]
        for how in ("orm", "bulk"):
            with database.begin() as session:
                if how == "orm":
                    session.execute(insert(model), rows)
                else:
                    insert_rows(session.connection(), model.__table__, rows)  # type: ignore[arg-type]
                    insert_rows(session.connection(), model.__table__, [])  # type: ignore[arg-type]
                made = session.scalars(select(model).order_by(model.id)).all()
                found.append([{key: getattr(one, key) for key in rows[0]} for one in made])
                session.rollback()
        assert found[-1] == found[-2]
        assert len(found[-1]) == 5
    assert found[0][0]["received_at"] == AT


def test_a_row_that_is_there_is_refused(database: Database) -> None:
    with pytest.raises(IntegrityError), database.begin() as session:
        insert_rows(session.connection(), INSTANCES, [instance(1), instance(1)])
    with database.read() as session:
        assert session.scalars(select(Instance)).all() == []


def test_rows_are_looked_up(database: Database) -> None:
    hostile = "1.2' OR '1'='1"
    with database.begin() as session:
        connection, column = session.connection(), INSTANCES.c
        insert_rows(connection, INSTANCES, [instance(number, instance_number=number) for number in range(1500)])
        wanted = {f"1.2.{number}" for number in range(500, 2500)} | {hostile}
        rows = rows_with(connection, (column.instance_number, column.digest), column.sop_instance_uid, wanted)
        assert sorted(number for number, _ in rows) == list(range(500, 1500))
        assert {digest for _, digest in rows} == {"0" * 64}
        assert rows_with(connection, (column.id,), column.sop_instance_uid, {hostile}) == []
