"""Where the file of an instance is that is to go on a disc: in the spool, or as a disc gave it back."""

from __future__ import annotations

from pathlib import Path

from jobs.context import Context
from store.requested import InstanceRow


def has_source(ctx: Context, row: InstanceRow) -> bool:
    """Whether an instance's bytes are here."""
    if row.spool_path is None and row.restored is None:
        return False
    try:
        return source_of(ctx, row).stat().st_size == row.file_bytes
    except OSError:
        return False


def source_of(ctx: Context, row: InstanceRow) -> Path:
    """Where they are."""
    if row.spool_path is not None:
        return ctx.spool.path_of(row.spool_path)
    assert row.restored is not None
    return ctx.derived_path(row.restored.path)
