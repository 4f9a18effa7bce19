"""Routes: the studies that were received, in the spool or on discs only."""

from __future__ import annotations

from typing import Any

from service.api import answers
from service.api.access import Ops, needs

router = answers.router()


@router.get("/studies", summary="What was received, a study each", dependencies=[needs("studies.read")])
def studies(ops: Ops, limit: answers.Limit = answers.DEFAULT_PAGE, cursor: answers.Cursor = None) -> dict[str, Any]:
    return answers.page_of(ops.studies(), limit, cursor)
