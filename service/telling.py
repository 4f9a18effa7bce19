"""Telling the audit trail beside the work: who searches or looks does not wait for the disk.

What came, went or was made is not told this way, but in the transaction that makes it so.
"""

from __future__ import annotations

import threading
import weakref

from jobs.context import Context
from store.auditwriter import AuditWriter, Telling
from store.db import Database

_guard = threading.Lock()
_writers: weakref.WeakKeyDictionary[Database, AuditWriter] = weakref.WeakKeyDictionary()


def soon(ctx: Context, telling: Telling) -> None:
    """Record these messages within some tenths of a second."""
    with _guard:
        writer = _writers.get(ctx.db)
        if writer is None:
            writer = _writers[ctx.db] = AuditWriter(ctx.db, ctx.audit)
    writer.put(telling)


def finish(db: Database) -> None:
    """Record what is left, before the database is closed."""
    with _guard:
        writer = _writers.pop(db, None)
    if writer is not None:
        writer.close()
