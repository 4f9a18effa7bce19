"""Guarded UPDATEs: what was seen stands in the WHERE, and the number of rows tells whether it was still so."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CursorResult, Update
from sqlalchemy.orm import Session


def rows_changed(session: Session, statement: Update) -> int:
    """Run an UPDATE and say how many rows met its condition. Objects that the session holds are not refreshed."""
    result: Any = session.execute(statement.execution_options(synchronize_session=False))
    assert isinstance(result, CursorResult)
    return int(result.rowcount)
