"""Conformed files that are kept in the cache: entered, and found again by source and recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from media.items import Change
from store.bulk import chunks
from store.models import Derived
from store.models_base import now
from store.search import folded


def derived_of(session: Session, keys: Sequence[tuple[str, str, str]]) -> dict[tuple[str, str, str], Derived]:
    """Rows of the derived cache by (source digest, SOP Instance UID, recipe)."""
    found: dict[tuple[str, str, str], Derived] = {}
    wanted = set(keys)
    for chunk in chunks(sorted({digest for digest, _, _ in keys})):
        for row in session.scalars(select(Derived).where(Derived.source_digest.in_(chunk))):
            key = (row.source_digest, row.sop_instance_uid, row.recipe)
            if key in wanted:
                found[key] = row
    return found


def add_derived(
    session: Session,
    key: tuple[str, str, str],
    *,
    path: str,
    size: int,
    sha256: str,
    syntax: str,
    changes: list[Change],
) -> Derived:
    """Enter a conformed file in the cache, once."""
    digest, uid, recipe = key
    row = session.scalar(
        select(Derived).where(
            Derived.source_digest == digest, Derived.sop_instance_uid == uid, Derived.recipe == recipe
        )
    )
    if row is None:
        row = Derived(source_digest=digest, sop_instance_uid=uid, recipe=recipe, created_at=now())
        session.add(row)
    row.path, row.size, row.sha256, row.transfer_syntax_uid, row.purged_at = path, size, sha256, syntax, None
    row.changes = [{"tag": change.tag, "old": change.old, "new": change.new} for change in changes]
    session.flush()
    return row


@dataclass(frozen=True, slots=True)
class NewDerived:
    """A conformed file to be entered; see ``store.models.Derived``."""

    path: str
    size: int
    sha256: str
    transfer_syntax_uid: str
    changes: Sequence[Change]
    new_sop_instance_uid: str = ""
    directory_keys: bytes | None = None
    facts: Mapping[str, Any] | None = None


def enter_derived(
    session: Session, key: tuple[str, str, str], new: NewDerived, *, is_whole: Callable[[Derived], bool]
) -> tuple[Derived, str | None]:
    """Enter a conformed file in the cache, once; returns its row, and the path of a file that no row names now.

    Where another job has entered the same at this moment, and ``is_whole`` says that its file is there, that one stays.
    """
    digest, uid, recipe = key
    wanted = (
        select(Derived)
        .where(Derived.source_digest == digest, Derived.sop_instance_uid == uid, Derived.recipe == recipe)
        .with_for_update()
    )
    row = session.scalar(wanted)
    if row is None:
        row = Derived(source_digest=digest, sop_instance_uid=uid, recipe=recipe, created_at=now())
        _fill(row, new)
        try:
            with session.begin_nested():
                session.add(row)
            return row, None
        except IntegrityError:  # another has entered it since
            row = session.scalars(wanted).one()
    if row.path != new.path and is_whole(row):
        return row, new.path
    old = row.path if row.path != new.path else None
    _fill(row, new)
    session.flush()
    return row, old


def _fill(row: Derived, new: NewDerived) -> None:
    row.purged_at = None
    row.path, row.size, row.sha256, row.transfer_syntax_uid = new.path, new.size, new.sha256, new.transfer_syntax_uid
    row.changes = [{"tag": change.tag, "old": change.old, "new": change.new} for change in new.changes]
    row.new_sop_instance_uid = new.new_sop_instance_uid or None
    row.directory_keys = new.directory_keys
    row.facts = dict(new.facts) if new.facts else None
    if row.facts and "patient_name" in row.facts:
        row.facts["name_search"] = folded(row.facts["patient_name"])
