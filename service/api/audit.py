"""Routes: the audit trail, and whether its chain holds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Query

from service.api import answers
from service.api.access import Actor, Ctx, needs
from service.auditing import anchor_of
from service.errors import UsageError
from store import audit, auditwhat
from store.auditmessage import codes
from store.auditwhat import Who
from store.models_audit import AuditRecord

router = answers.router()
Reader = Annotated[Actor, needs("audit.read")]


@router.get("/audit", summary="The audit trail, the newest record first")
def records(
    ctx: Ctx,
    actor: Reader,
    limit: answers.Limit = answers.DEFAULT_PAGE,
    cursor: answers.Cursor = None,
    event: Annotated[str, Query(max_length=16, description="a kind of event, e.g. export")] = "",
    user: Annotated[str, Query(max_length=255, description="who asked")] = "",
    since: datetime | None = None,
    until: datetime | None = None,
    oldest_first: bool = False,
) -> dict[str, Any]:
    """Each with the message as PS3.15 A.5.1 has it. That somebody read it is recorded, too."""
    at = answers.read_cursor(cursor, int)[0] if cursor else None
    with ctx.db.read() as session:
        found = audit.records(
            session,
            after=(at or 0) if oldest_first else 0,
            before=None if oldest_first else at,
            limit=limit + 1,
            event=event,
            user=user,
            since=aware(since),
            until=aware(until),
            newest_first=not oldest_first,
        )
    with ctx.db.begin() as session:
        ctx.audit.record(session, auditwhat.log_used(Who(actor.name, actor.address)))
    following = answers.cursor(found[limit - 1].number) if len(found) > limit else None
    return answers.listing([document(one) for one in found[:limit]], following)


@router.get("/audit/verification", summary="Whether a record was altered or removed")
def verification(ctx: Ctx, actor: Reader) -> dict[str, Any]:
    """Reads the whole chain, and compares it with the anchor that this node keeps outside the database: ``anchor`` is
    the number of its record, null where there is none.
    """
    anchor = audit.read_anchor(anchor_of(ctx.settings))
    with ctx.db.read() as session:
        found = audit.verify(session, anchor) | {"waiting": audit.waiting(session)}
    found["anchor"] = anchor[0] if anchor is not None else None
    with ctx.db.begin() as session:
        ctx.audit.record(session, auditwhat.log_used(Who(actor.name, actor.address)))
    return found


def aware(value: datetime | None) -> datetime | None:
    """A time without zone is one of the machine's zone. UsageError for one that is none in every zone."""
    if value is None:
        return None
    try:
        return value.astimezone(UTC)
    except (OverflowError, ValueError):
        raise UsageError("since and until must be after the year 1 and before the year 9999") from None


def document(row: AuditRecord) -> dict[str, Any]:
    """A record as documents tell it."""
    return {
        "number": row.number,
        "at": row.at.isoformat(timespec="milliseconds"),
        "event": row.event,
        "meaning": codes()["events"][row.event][2] if row.event in codes()["events"] else row.event,
        "outcome": row.outcome,
        "user": row.user,
        "node": row.node,
        "sent_at": row.sent_at.isoformat(timespec="seconds") if row.sent_at else None,
        "message": row.message,
        "digest": row.digest,
    }
