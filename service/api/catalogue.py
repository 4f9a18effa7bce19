"""Routes: catalogue search, and what leaves the spool."""

from __future__ import annotations

from typing import Any

from jobs import retaining
from service.api import answers
from service.api.access import Ops, needs
from service.api.documents import CheckDoc, Deleted, FoundList, MediumDoc, Purged
from service.api.models import CheckBody, DeleteBody, FindBody, MediumBody, PurgeBody

router = answers.router()


@router.post(
    "/catalogue/search",
    summary="Which discs hold what is looked for",
    dependencies=[needs("discs.read")],
    **answers.returns(FoundList),
)
def search(ops: Ops, body: FindBody) -> dict[str, Any]:
    return answers.page_of(ops.find(body.criteria()), body.limit, body.cursor)


@router.post(
    "/catalogue/medium",
    summary="What should be on a medium, file by file",
    dependencies=[needs("discs.read")],
    **answers.returns(MediumDoc),
)
def medium(ops: Ops, body: MediumBody) -> dict[str, Any]:
    return ops.medium(file_set_uid=body.file_set_uid, file_set_id=body.file_set_id)


@router.post(
    "/catalogue/checks",
    summary="Record what came of reading a disc again",
    dependencies=[needs("discs.handle")],
    **answers.returns(CheckDoc, 200, 404, 409),
)
def record_check(ops: Ops, body: CheckBody) -> dict[str, Any]:
    return ops.record_check(body.disc, good=body.good, how=body.how, detail=body.detail)


@router.post(
    "/spool/purge",
    summary="Free the spool of what is on enough verified discs",
    dependencies=[needs("spool.purge")],
    **answers.returns(Purged, 200, 409),
)
def purge(ops: Ops, body: PurgeBody) -> dict[str, Any]:
    """The document of ``burnish purge``; ``studies``: what goes of each, the one longest in the spool at first."""
    context = ops.context
    chosen = retaining.policy(
        context, min_copies=body.min_copies, older_than_days=body.older_than_days, to_low_mark=body.to_low_mark
    )
    return retaining.purge(context, chosen, dry_run=body.dry_run)


@router.post(
    "/spool/delete",
    summary="Remove instances from the spool for good",
    dependencies=[needs("studies.delete")],
    **answers.returns(Deleted, 200, 409),
)
def delete(ops: Ops, body: DeleteBody) -> dict[str, Any]:
    return ops.delete(body.selection.given())
