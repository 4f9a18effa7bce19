"""Storage Commitment in the conformance statement (PS3.4 J.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scp import statuses
from scp.commitment import SOP_CLASS
from service.conformance_text import table

_ACTION = (
    statuses.SUCCESS,
    statuses.INVALID_ATTRIBUTE,
    statuses.PROCESSING_FAILURE,
    statuses.NO_SUCH_COMMITMENT,
    statuses.MISSING_ATTRIBUTE,
    statuses.NO_SUCH_ACTION,
    statuses.DUPLICATE_TRANSACTION,
)
_REPORT = (statuses.SUCCESS, statuses.PROCESSING_FAILURE, statuses.NO_SUCH_COMMITMENT)


def commitment(values: Mapping[str, Any]) -> str:
    """The whole section; ``values``: of ``[commitment]``."""
    discs = values["discs"]
    what = (
        "that is in the spool (its file synced, its row committed), or on a verified disc"
        if not discs
        else f"that is on {discs} verified discs; until then a request waits, at most {values['wait_hours']:g} hours"
    )
    rows = [
        (operation, f"{answer.status:04X}H", answer.comment or "Success")
        for operation, answers in (("N-ACTION", _ACTION), ("N-EVENT-REPORT to us", _REPORT))
        for answer in answers
    ]
    return f"""#### 4.2.5 Storage Commitment

As SCP of the Storage Commitment Push Model ({SOP_CLASS}). Committed is an instance {what} (setting
`commitment.discs`). Copies that were given another SOP Instance UID do not count. What is committed is not removed but
by an operator's `delete` or `purge`, which frees only what is on verified discs.

The result is told by N-EVENT-REPORT: over a new association, where the AE title of the asker is a node of ours, with
role selection (we are SCP); else over the association it asked on, right after the response to its N-ACTION. Items
that a verified disc holds name its File-set (Storage Media File-Set ID and UID). A result that is not acknowledged is
told again after 5 s, 15 s, 1, 5 and 15 minutes and then every hour, over restarts, for
{values["give_up_hours"]:g} hours (setting `commitment.give_up_hours`). The same Transaction UID with the same instances
is answered anew.

Failure Reasons: 0112H not here, or not on enough discs; 0119H held under another SOP class.

{table(("Operation", "Status", "When (Error Comment)"), rows)}"""
