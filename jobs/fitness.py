"""Whether instances can be on a disc of a profile, asked before any plan: nothing is conformed, nothing is kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.orm import Session

from jobs.checking import Refusal, check, refuse_unfit
from jobs.compression import is_lossy_already
from jobs.context import Context
from jobs.correcting import correct
from jobs.iodcheck import check_iods
from jobs.options import AUTO, RequestOptions
from jobs.preparing import profile_and_medium, require_pair, settle
from jobs.sources import has_source, source_of
from store import plans
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
        request = plans.add_request(
            session,
            instance_ids(session, selection),
            selection=selection.to_json(),
            options=options.to_json(),
            source="check",
            idempotency_key=None,
        )
        rows = plans.requested(session, request)
        conflicts = plans.conflicts_of_request(session, request)
    corrected = correct(
        ctx,
        rows,
        options,
        path_of=lambda row: source_of(ctx, row),
        has_source=lambda row: has_source(ctx, row),
    )
    rows = corrected.rows
    chosen = None
    if options.profile == AUTO:
        profile, _, chosen = settle(ctx, rows, conflicts, options)
    else:
        profile, _ = profile_and_medium(options)
    checked = check(
        rows,
        profile=profile,
        conflicts=conflicts,
        policy=options.conflicts,
        compression=options.compression(ctx.settings),
        has_source=lambda row: has_source(ctx, row),
        is_lossy_already=lambda row: is_lossy_already(source_of(ctx, row)),
        values=corrected.values,
        modalities=corrected.modalities,
    )
    checked.refused += [Refusal(*refused) for refused in corrected.refused]
    refuse_unfit(
        checked,
        profile=profile,
        path_of=lambda candidate: source_of(ctx, candidate.row),
        progress=lambda *_: None,
        cancelled=lambda: False,
    )
    iod = check_iods(
        checked,
        options.iod,
        path_of=lambda candidate: source_of(ctx, candidate.row),
        processes=ctx.settings.jobs.conform_processes,
        progress=lambda *_: None,
        cancelled=lambda: False,
    )
    conformed = sum(candidate.changes for candidate in checked.candidates)
    return {
        "profile": profile.identifier,
        "chosen": chosen,
        "instances": len(rows),
        "fit": len(checked.candidates) - conformed,
        "conform": conformed,
        "refused": [refusal.as_json() for refusal in checked.refused],
        "conflicts": checked.conflicts,
        "iod": iod,
    }


@contextmanager
def _undone(session: Session) -> Iterator[None]:
    """What is written within is taken back."""
    savepoint = session.begin_nested()
    try:
        yield
    finally:
        savepoint.rollback()
