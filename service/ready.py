"""Whether this node can do its work: for load balancers and supervisors, who need a yes or no."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Any

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

if TYPE_CHECKING:
    from service.operations import StoreOperations


def examine(operations: StoreOperations) -> dict[str, Any]:
    """``{"status": "ready" | "not ready", "checks": {name: bool}}``; all may read it, so it says no more."""
    checks = {
        "database": _database(operations),
        "spool": _spool(operations),
        "engine": operations.healthy(),
        "dicom": operations.receiving,
    }
    return {"status": "ready" if all(checks.values()) else "not ready", "checks": checks}


def _database(operations: StoreOperations) -> bool:
    try:
        with operations.context.db.read() as session:
            session.execute(text("SELECT 1"))
    except SQLAlchemyError:
        return False
    return True


def _spool(operations: StoreOperations) -> bool:
    """Whether there is room, and something can be written."""
    spool = operations.context.spool
    if spool.is_gone():
        return False
    try:
        spool.root.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=spool.root, prefix=".ready-") as file:
            file.write(b"\0")
            file.flush()
            os.fsync(file.fileno())
        return not spool.is_full()
    except OSError:
        return False
