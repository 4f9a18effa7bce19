"""Whether the bytes of an instance can be read at once: as received, or as a disc gave them back."""

from __future__ import annotations

from sqlalchemy import ColumnElement, exists, or_
from sqlalchemy.orm import aliased

from store.models import Derived, Instance
from store.whole import made_for_another


def is_here() -> ColumnElement[bool]:
    """True for an Instance whose bytes can be read at once: in the spool, or back from a disc as it lies there.

    A file that came back naming another patient does not count: it is not given out (``store.retrieval``).
    """
    return or_(Instance.spool_path.is_not(None), has_restored())


def has_restored() -> ColumnElement[bool]:
    """True for an Instance of which a conformed file came back from a disc, under its own UID and patient."""
    file = aliased(Derived)
    return exists().where(
        or_(file.facts.is_(None), ~made_for_another(file)),
        file.source_digest == Instance.digest,
        file.sop_instance_uid == Instance.sop_instance_uid,
        file.restored_at.is_not(None),
        file.new_sop_instance_uid.is_(None),
    )
