"""A request that names studies which are still on a PACS: they are fetched first, then the request is frozen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import select

from jobs.context import Context
from jobs.options import OptionsError
from store import requested
from store.models_jobs import Request, RequestInstance
from store.selection import Selection, instance_ids

CRITERIA = ("study", "patient_id", "accession", "date_range")
"""What a node can be asked for; other criteria of SELECT mean what is here."""
_NAMED = 5

Fetch = Callable[
    [str, Mapping[str, Any], Callable[[dict[str, Any]], None], Callable[[], bool]],
    dict[str, Any],
]
"""``service.exchange.Exchange.pull``: node, criteria, whom to tell the progress, whether to stop; what came."""


class FetchFailed(Exception):
    """Not everything came; the text names what."""


def require_fetchable(selection: Selection) -> None:
    """Raise ``OptionsError`` for criteria that no node can be asked for."""
    other = sorted(set(selection.to_json()) - set(CRITERIA))
    if other or selection.is_empty:
        given = f", not by {', '.join(other)}" if other else ""
        raise OptionsError(f"studies of a node are selected by {', '.join(CRITERIA)}{given}")


def fetch(
    ctx: Context,
    request_id: int,
    pull: Fetch | None,
    *,
    progress: Callable[[str, int, int, str], None],
    cancelled: Callable[[], bool],
) -> None:
    """Bring the studies of a request and freeze its list; does nothing for one that is frozen.

    May be run again after a crash: what is here is not fetched again. Raises ``FetchFailed``.
    """
    with ctx.db.read() as session:
        request = session.get_one(Request, request_id)
        node = request.options.get("pull_from") or ""
        selection = Selection.from_json(request.selection) if node else Selection()
        frozen = session.execute(
            select(RequestInstance.request_id).where(RequestInstance.request_id == request_id).limit(1)
        ).first()
    if not node or frozen is not None:
        return
    if pull is None:
        raise FetchFailed(f"nothing can be fetched from {node} here: start the service")
    document = pull(
        node,
        {key: value for key, value in selection.to_json().items() if key in CRITERIA},
        lambda told: progress(told["phase"], told["done"], told["total"], told["unit"]),
        cancelled,
    )
    if cancelled():
        return
    missing = [one for study in document["studies"] for one in study["missing"]]
    if missing:
        named = "; ".join(f"{one['sop_instance_uid']}: {one['reason']}" for one in missing[:_NAMED])
        raise FetchFailed(f"{len(missing)} of {document['instances']} instances did not come from {node}: {named}")
    with ctx.db.begin() as session:
        requested.freeze(session, request_id, instance_ids(session, selection))
