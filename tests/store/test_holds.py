"""Studies that a person keeps in the spool."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from store import holds
from store.db import Database
from store.models import Instance
from store.models_base import now
from store.models_nodes import Event
from tests.rows import add_instance


@pytest.fixture
def studies(database: Database) -> list[str]:
    with database.begin() as session:
        add_instance(session, "1.1", study="1.2.8", series="1.2.8.1")
        add_instance(session, "1.2", study="1.2.9", series="1.2.9.1", in_spool=False)
    return ["1.2.8", "1.2.9"]


def _held(db: Database) -> list[str]:
    with db.read() as session:
        return sorted(session.scalars(select(Instance.sop_instance_uid).where(holds.held())))


def test_held_until_released(database: Database, studies: list[str]) -> None:
    with database.begin() as session:
        first, second = holds.keep(session, studies, reason="second opinion", by="ada")
    assert _held(database) == ["1.1", "1.2"]
    with database.begin() as session:
        add_instance(session, "1.3", study="1.2.8", series="1.2.8.1")  # comes later
        assert holds.not_in_spool(session, studies) == 1
    assert _held(database) == ["1.1", "1.2", "1.3"]
    with database.begin() as session:
        assert holds.release(session, [first, first], by="bob") == 1
        assert holds.release(session, [first], by="bob") == 0
    assert _held(database) == ["1.2"]
    with database.read() as session:
        assert [one["hold"] for one in holds.holds(session)] == [f"H{second}"]
        every = holds.holds(session, all_=True)
        assert [(one["hold"], one["patient_id"], one["by"]) for one in every] == [
            (f"H{second}", "P1", "ada"),
            (f"H{first}", "P1", "ada"),
        ]
        assert every[1]["released_at"] is not None
        assert holds.holds(session, all_=True, after=second) == every[1:]
        rows = session.scalars(select(Event).where(Event.kind == "hold").order_by(Event.id)).all()
        told: list[Any] = [(row.new, row.detail["by"], row.detail["hold"]) for row in rows]
        assert told == [("HELD", "ada", "H1"), ("HELD", "ada", "H2"), ("RELEASED", "bob", "H1")]
        assert holds.of_studies(session, studies) == [second]


def test_a_hold_ends_by_itself(database: Database, studies: list[str]) -> None:
    with database.begin() as session:
        holds.keep(session, studies[:1], reason="x", until=now() - timedelta(seconds=1))
        holds.keep(session, studies[1:], reason="x", until=now() + timedelta(days=1))
    assert _held(database) == ["1.2"]


def test_there_is_no_such_hold(database: Database) -> None:
    with database.begin() as session, pytest.raises(holds.NoSuchHold, match="no hold H7"):
        holds.release(session, [7])
