"""Routes: rule sets by which instances are reconciled on their way in, and what they changed."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

from media.coercion import RulesError
from service.api import answers
from service.api.access import Actor, Ctx, needs
from service.errors import UsageError
from store.auditwhat import Who, configured
from store.reconcile import changes_of, keep_rules

router = answers.router()


class RulesBody(BaseModel):
    """Rules as docs/coercion.md has them."""

    model_config = ConfigDict(extra="forbid")
    rules: list[dict[str, Any]] = Field(min_length=1, max_length=1000)


@router.post(
    "/reconciliations",
    summary="Keep a rule set by which instances are corrected on their way in",
)
def keep(ctx: Ctx, body: RulesBody, actor: Annotated[Actor, needs("studies.receive")]) -> dict[str, Any]:
    """``{"reconcile": DIGEST}``, for ``POST /instances?reconcile=DIGEST``; equal rules have the same digest."""
    try:
        digest = keep_rules(ctx.settings.data, body.rules)
    except RulesError as error:
        raise UsageError(str(error), "RULES") from error
    names = ", ".join(str(one.get("name")) for one in body.rules)
    words = f"{len(body.rules)} rules are kept, to correct what comes in: {names}"
    with ctx.db.begin() as session:
        ctx.audit.record(session, configured(Who(actor.name, actor.address), "rules", digest, words[:2000]))
    return {"reconcile": digest}


@router.get(
    "/reconciliations/{study}",
    summary="What rules changed in a study's instances on their way in",
    dependencies=[needs("studies.read")],
)
def changes(
    ctx: Ctx,
    study: Annotated[str, Path(max_length=64, pattern="^[0-9.]+$")],
    limit: answers.Limit = answers.DEFAULT_PAGE,
    cursor: answers.Cursor = None,
) -> dict[str, Any]:
    """By instance: when it came, by which rule set, digest as it came, and each change with old and new value."""
    after = answers.read_cursor(cursor, int)[0] if cursor else 0
    with ctx.db.read() as session:
        found = changes_of(session, study, after=after, limit=limit + 1)
    more = answers.cursor(found[limit - 1][0]) if len(found) > limit else None
    return answers.listing([one for _, one in found[:limit]], more)
