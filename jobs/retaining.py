"""Purges: by hand, by a schedule, and by the clock when the spool is above its high-water mark."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from config.settings import Settings
from config.worded import Worded, field
from jobs.context import Context
from jobs.options import OptionsError
from jobs.schedules import Firing
from store import purging, watermarks
from store.models_base import now
from store.purging import Policy

_log = logging.getLogger("burnish.jobs")
_stuck: set[str] = set()
"""Spools above their mark of which nothing could be purged; it is told once."""


def policy(
    ctx: Context, *, min_copies: int | None = None, older_than_days: int | None = None, to_low_mark: bool = False
) -> Policy:
    """What may go by the settings, and by who asks: ``to_low_mark``: no more than brings the spool down to it.

    Raises OptionsError where no mark is set.
    """
    section = ctx.settings.retention
    low = section.low_percent or section.high_percent
    if to_low_mark and not low:
        raise OptionsError("there is no low-water mark: set retention.high_percent and retention.low_percent")
    to_free = watermarks.level(ctx.db, ctx.spool).above(low) if to_low_mark else None
    return Policy(
        min_copies=section.min_copies if min_copies is None else min_copies,
        count_robots=section.count_robots,
        to_free=to_free,
        received_before=None if older_than_days is None else now() - timedelta(days=older_than_days),
        recalled_hours=ctx.settings.recall.keep_hours,
        commitment_hours=ctx.settings.commitment.give_up_hours,
    )


def purge(ctx: Context, chosen: Policy, *, dry_run: bool) -> dict[str, Any]:
    """``store.purging.purge`` of this store, and how full the spool was before: ``level_percent``."""
    percent = watermarks.level(ctx.db, ctx.spool).percent
    if chosen.to_free is not None and chosen.to_free <= 0:
        chosen = replace(chosen, to_free=0)
    document = purging.purge(ctx.db, ctx.spool, ctx.settings.derived_dir, chosen, dry_run=dry_run)
    return {**document, "level_percent": round(percent, 1)}


def tick(ctx: Context) -> dict[str, Any] | None:
    """Above the high-water mark: purge down to the low one. None: there was nothing to do."""
    section = ctx.settings.retention
    if not section.high_percent:
        return None
    before = watermarks.level(ctx.db, ctx.spool)
    if before.percent < section.high_percent:
        _stuck.discard(str(ctx.spool.root))
        return None
    document = purge(ctx, policy(ctx, to_low_mark=True), dry_run=False)
    after = watermarks.level(ctx.db, ctx.spool)
    _tell(ctx, document, before.percent, after.percent)
    return document


def _tell(ctx: Context, document: dict[str, Any], before: float, after: float) -> None:
    high = ctx.settings.retention.high_percent
    freed = document["instances"] + document["derived"]
    if freed:
        _log.info(
            "the spool was %.1f %% full: %d instances and %d conformed copies purged, %d bytes; it is %.1f %% full",
            before,
            document["instances"],
            document["derived"],
            document["bytes"],
            after,
        )
    if after < high:
        _stuck.discard(str(ctx.spool.root))
    elif str(ctx.spool.root) not in _stuck:
        _stuck.add(str(ctx.spool.root))
        _log.warning(
            "the spool is %.1f %% full, above retention.high_percent %g, and nothing more of it may be purged: "
            "see `burnish purge --dry-run`, `burnish at-risk --in-spool`, `burnish keep --list`",
            after,
            high,
        )


# --- As a schedule ----------------------------------------------------------------------------------------------------

_OPTIONS = {"min_copies": 99, "older_than_days": 36_500, "to_low_mark": None}
"""What a schedule of kind ``purge`` may say, with the greatest number."""


def values_of(
    settings: Settings, rules: Mapping[str, Any], options: Mapping[str, Any], pool: str | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Rules and options as they are kept. Raises OptionsError."""
    if rules or pool is not None:
        raise OptionsError("a schedule that purges has neither rules nor a pool: what may go is settled by the discs")
    unknown = set(options) - set(_OPTIONS)
    if unknown:
        raise OptionsError(f"unknown option {', '.join(sorted(unknown))}")
    for name, value in options.items():
        most = _OPTIONS[name]
        if most is None:
            if not isinstance(value, bool):
                raise OptionsError(f"{name} is {value!r}; it may be true or false")
        elif not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise OptionsError(
                Worded(
                    "up_to", "{field} is {value!r}; it may be 1 to {most}", field=field(name), value=value, most=most
                )
            )
    if options.get("to_low_mark") and not settings.retention.high_percent:
        raise OptionsError(
            Worded("no_low_mark", "to_low_mark: there is none; set retention.high_percent and retention.low_percent")
        )
    return {}, dict(options)


def run(ctx: Context, firing: Firing) -> dict[str, Any]:
    """Purge. Run twice it does nothing more."""
    document = purge(ctx, policy(ctx, **firing.options), dry_run=False)
    return {key: value for key, value in document.items() if key != "studies"} | {"studies": len(document["studies"])}


def preview(ctx: Context, firing: Firing) -> dict[str, Any]:
    """What would go now."""
    return purge(ctx, policy(ctx, **firing.options), dry_run=True)
