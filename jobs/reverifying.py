"""Reading discs again: those that are due, oldest first; what is worn or fails is flagged, and made anew if so wished.

Read by itself is what lies on this machine: images and folders of discs. Discs on shelves are named, for people to
insert (``burnish verify PATH --record``). (A kind of ``jobs.schedules``.)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from config.settings import Settings
from config.worded import Worded, field
from jobs import reburning
from jobs.context import Context
from jobs.options import OptionsError
from jobs.schedules import Firing
from media.loss import lost_by_catalogue
from media.problems import MediaError, ProblemKind
from media.verify import Expected, VerifyCancelled, VerifyResult, verify_path
from store import checks, rereading
from store.checks import GOOD
from store.duediscs import DueDisc, due, sound_copies, unrefreshed
from store.models_base import now
from store.reburns import ReburnError
from store.spool import SpoolFull

_log = logging.getLogger("burnish.jobs")
_SECTOR = 2048
_DAYS_A_MONTH = 30.44
_LISTED = 200
"""Discs on shelves that a run names."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a schedule reads discs again."""

    months: int = 12
    """A disc that was not read for so long is due."""
    at_most: int = 20
    """Discs that one run reads."""
    refresh: bool = False
    """Order another copy in place of a disc that is worn or damaged."""
    pool: str = ""
    """Only discs of this pool."""

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Options:
        """Raises OptionsError naming what is wrong."""
        unknown = set(given) - {one.name for one in fields(cls)}
        if unknown:
            raise OptionsError(f"unknown option {', '.join(sorted(unknown))}")
        options = cls(**given)
        for name, most in (("months", 1200), ("at_most", 100_000)):
            value = getattr(options, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
                raise OptionsError(
                    Worded(
                        "up_to",
                        "{field} is {value!r}; it may be 1 to {most}",
                        field=field(name),
                        value=value,
                        most=most,
                    )
                )
        if not isinstance(options.refresh, bool):
            raise OptionsError(f"refresh is {options.refresh!r}; it may be true or false")
        if not isinstance(options.pool, str):
            raise OptionsError(f"pool is {options.pool!r}; it is the name of one")
        return options

    def before(self, at: datetime) -> datetime:
        """What was last read before this is due."""
        return at - timedelta(days=self.months * _DAYS_A_MONTH)


def values_of(
    settings: Settings, rules: Mapping[str, Any], options: Mapping[str, Any], pool: str | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Rules and options as they are kept. Raises OptionsError."""
    if rules:
        raise OptionsError(f"{', '.join(sorted(rules))}: a schedule that reads discs again has no rules")
    kept = asdict(Options.from_json(options))
    if pool is not None and kept.pop("pool") not in ("", pool):
        raise OptionsError(f"two pools are named: {pool}, and {options['pool']} as an option")
    return {}, kept


def _options(firing: Firing) -> Options:
    """The pool may be the schedule's own, or an option."""
    return Options.from_json({**firing.options, **({"pool": firing.pool} if firing.pool else {})})


def run(ctx: Context, firing: Firing) -> dict[str, Any]:
    """Read what is due. Run again after a crash it goes on: what was read is due no more."""
    options = _options(firing)
    reachable, to_insert, waiting = _due(ctx, options, now())
    results: list[dict[str, Any]] = []
    refreshed = _make_up(ctx, options, firing) if options.refresh else []
    for one, path in reachable:
        if firing.cancelled():
            break
        try:
            result = check(ctx, one.disc_id, path, cancelled=firing.cancelled)
        except VerifyCancelled:
            break
        if options.refresh and result["checked_result"] != GOOD:
            result["refresh"] = _refresh(ctx, one, firing)
        results.append(result)
    return {
        "read": len(results),
        "good": sum(one["checked_result"] == GOOD for one in results),
        "flagged": [one for one in results if one["checked_result"] != GOOD],
        "insert": to_insert,
        "due": waiting + len(reachable) - len(results),
        **({"made_up": refreshed} if refreshed else {}),
    }


def _make_up(ctx: Context, options: Options, firing: Firing) -> list[dict[str, Any]]:
    """Copies in place of discs that were flagged before, where none could be ordered then, or a crash came between."""
    with ctx.db.read() as session:
        found = unrefreshed(session, pool=options.pool)
    return [{**_named(one), "refresh": _refresh(ctx, one, firing)} for one in found if not firing.cancelled()]


def preview(ctx: Context, firing: Firing) -> dict[str, Any]:
    """Which discs would be read now, and which are due but on shelves."""
    options = _options(firing)
    reachable, to_insert, waiting = _due(ctx, options, now())
    read = [{**_named(one), "words": f"is read at {path}", "path": str(path)} for one, path in reachable]
    return {"read": read, "insert": to_insert, "due": waiting + len(reachable)}


def due_document(ctx: Context, *, months: int, pool: str = "", limit: int = 1000) -> list[dict[str, Any]]:
    """Discs that were not read for so long, oldest first: which can be read here, which are to be inserted."""
    options = Options(months=months, pool=pool)
    with ctx.db.read() as session:
        found = due(session, options.before(now()), pool=pool)[:limit]
    return [{**_named(one), "path": str(path) if (path := one.online()) else None} for one in found]


def _due(ctx: Context, options: Options, at: datetime) -> tuple[list[tuple[DueDisc, Path]], list[dict[str, Any]], int]:
    """Those to be read now; the first of those on shelves; how many are due besides."""
    reachable: list[tuple[DueDisc, Path]] = []
    to_insert: list[dict[str, Any]] = []
    waiting = 0
    with ctx.db.read() as session:
        found = due(session, options.before(at), pool=options.pool)
    for one in found:
        path = one.online() if len(reachable) < options.at_most else None
        if path is not None:
            reachable.append((one, path))
            continue
        waiting += 1
        if len(to_insert) < _LISTED and one.online() is None:
            to_insert.append(_named(one))
    return reachable, to_insert, waiting


def _named(one: DueDisc) -> dict[str, Any]:
    return {
        "disc": f"D{one.disc_id}",
        "file_set_id": one.file_set_id,
        "copy": one.copy,
        "last_read": one.last_read.isoformat(),
        "shelf": one.shelf,
        "checked_out_to": one.checked_out_to,
        "words": one.words,
    }


def check(ctx: Context, disc_id: int, path: Path, *, cancelled: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """Read all of a disc's image or folder, past the page cache, and keep what was found. Raises VerifyCancelled."""
    with ctx.db.read() as session:
        known = checks.volume_of_disc(session, disc_id)
    folder = path.is_dir()
    begun = time.monotonic()
    result = verify_path(
        path,
        profile=known["profile"] or None,
        expect=Expected(
            image_sha256=None if folder else known["image_sha256"],
            image_bytes=None if folder or not known["sectors"] else known["sectors"] * _SECTOR,
            file_set_id=known["file_set_id"],
            file_set_uid=known["file_set_uid"],
            files={one["file"]: one["sha256"] for one in known["instances"]},
        ),
        cancelled=cancelled,
        drop_cache=True,
    )
    seconds = time.monotonic() - begun
    lost = lost_by_catalogue(known["instances"], result.digests, result.problems)
    unreadable = sum(last - first + 1 for first, last in result.unreadable)
    with ctx.db.begin() as session:
        document = rereading.record_check(
            session,
            disc_id,
            good=_sound(result, known["image_sha256"]),
            how=f"{'folder' if folder else 'image'} {path}",
            detail={
                "problems": len(result.problems),
                "lost": len(lost),
                "first": [problem.as_json() for problem in result.problems[:5]],
                "unreadable_sectors": unreadable,
            },
            sectors=None if folder else known["sectors"],
            unreadable=unreadable,
            seconds=round(seconds, 3),
        )
    return {
        **document,
        "file_set_id": known["file_set_id"],
        "lost": len(lost),
        "unreadable": unreadable,
        "seconds": round(seconds, 3),
    }


def _sound(result: VerifyResult, image_sha256: str | None) -> bool:
    """Whether all of its bytes are as they were made."""
    if image_sha256 and result.image_sha256:
        return image_sha256 == result.image_sha256
    return all(problem.kind is ProblemKind.PROFILE for problem in result.problems)


def _refresh(ctx: Context, one: DueDisc, firing: Firing) -> dict[str, Any]:
    """Order a copy in place of a disc; what came of that, for people."""
    with ctx.db.read() as session:
        sound, wanted = sound_copies(session, one.volume_id)
    if sound >= wanted:
        return {"job": None, "words": f"{sound} other discs are sound, and {wanted} are wanted"}
    try:
        ordered = reburning.order(ctx, f"D{one.disc_id}", by=f"schedule:{firing.schedule}", cancelled=firing.cancelled)
    except (ReburnError, MediaError, OptionsError, SpoolFull) as error:
        _log.warning("D%d is to be refreshed, and cannot be: %s", one.disc_id, error)
        return {"job": None, "words": str(error)}
    firing.submit(ordered.job_id)
    return {"job": f"J{ordered.job_id}", "words": f"another copy is made from {ordered.source}"}
