"""Routes: the catalogue rebuilt from discs, written out, read in again."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from service import rebuilding
from service.api import answers
from service.api.access import Actor, Ctx, needs
from service.api.streaming import answer

router = answers.router()


class RebuildBody(BaseModel):
    model_config = ConfigDict(extra="forbid")
    paths: list[Annotated[str, Field(min_length=1, max_length=4096)]] = Field(min_length=1, max_length=10_000)
    """Absolute, on the machine of the service: images, drives, mounted discs, folders full of these."""
    dry_run: bool = False
    another_copy: bool = False


@router.post(
    "/catalogue/rebuild",
    summary="Enter what discs hold, from the discs alone",
    response_model=None,
    responses=answers.problems(409),
)
def rebuild(
    ctx: Ctx, body: RebuildBody, request: Request, actor: Annotated[Actor, needs("catalogue.import")]
) -> dict[str, Any] | Response:
    """What became of each medium, and which volumes of their sets are missing; with ``Accept: application/x-ndjson``
    progress line by line, at last ``{"rebuild": ...}``."""
    return answer(
        request,
        "rebuild",
        lambda progress, cancelled: rebuilding.run(
            ctx,
            body.paths,
            dry_run=body.dry_run,
            another_copy=body.another_copy,
            by=actor.name,
            progress=progress,
            cancelled=cancelled,
        ),
    )
