"""Whether instances can be on a disc of a profile, asked before any plan: nothing is conformed, nothing is kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.orm import Session

from jobs.context import Context
from jobs.options import RequestOptions
from jobs.preparing import examine, require_pair
from store import requested
from store.selection import Selection, instance_ids


def fitness(ctx: Context, selection: Selection, options: RequestOptions) -> dict[str, Any]:
    """How many instances were asked for, ``fit`` as they are, and fit once they were conformed; which do not, and why.

    ``{"profile", "chosen", "instances", "fit", "conform", "refused", "conflicts", "iod"}``: ``chosen`` tells why this
    profile, where the request says ``auto``; ``iod`` is as in a plan. What a codec finds in the pixel data may still
    refuse one that is to be conformed; and where icons are demanded, an image of which none can be made.
    """
    require_pair(options)
    # The request is rolled back: nobody sees it, and a crash leaves none.
    with ctx.db.begin() as session, _undone(session):
        request = requested.add_request(
            session,
            instance_ids(session, selection),
            selection=selection.to_json(),
            options=options.to_json(),
            source="check",
            idempotency_key=None,
        )
        rows = requested.instances_of(session, request)
        conflicts = requested.conflicts_of_request(session, request)
    examined = examine(ctx, rows, conflicts, options)
    checked = examined.checked
    conformed = sum(candidate.changes for candidate in checked.candidates)
    return {
        "profile": examined.profile.identifier,
        "chosen": examined.chosen,
        "instances": len(examined.rows),
        "fit": len(checked.candidates) - conformed,
        "conform": conformed,
        "refused": [refusal.as_json() for refusal in checked.refused],
        "conflicts": checked.conflicts,
        "iod": examined.iod,
    }


@contextmanager
def _undone(session: Session) -> Iterator[None]:
    """What is written within is taken back."""
    savepoint = session.begin_nested()
    try:
        yield
    finally:
        savepoint.rollback()
