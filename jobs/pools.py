"""Pools as people decide about them, and as documents show them. How they are filled: ``jobs.filling``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session, aliased

from config.settings import Settings
from config.worded import Worded, field
from jobs.choosing import capacity
from jobs.context import Context
from jobs.options import AUTO, OptionsError, RequestOptions
from jobs.preparing import profile_and_medium, require_pair
from media.problems import MediaError
from store import pools, waiting
from store.models_archive import Pool
from store.models_jobs import Job, Request, RequestInstance
from store.states import JobState

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,31}")
KINDS = ("archive", "backup")
SECTOR = 2048
_OF_THE_POOL = {"copies", "purpose", "pool", "pull_from"}
"""Options of a request that a pool decides by values of its own."""
_LONGEST_SHELF = 255
_REFUSED_SHOWN = 100
_JOBS_SHOWN = 50


def values_of(settings: Settings, given: Mapping[str, Any], before: Pool | None = None) -> dict[str, Any]:
    """All that is decided about a pool (``store.pools.COLUMNS``); what ``given`` leaves open is as before, or default.

    Raises OptionsError naming the value that is wrong, and MediaError for a profile and medium that do not belong
    together.
    """
    unknown = set(given) - set(pools.COLUMNS)
    if unknown:
        raise OptionsError(f"unknown value {', '.join(sorted(unknown))}")
    values: dict[str, Any] = {
        "kind": "archive",
        "options": {},
        "copies": settings.burn.copies,
        "min_fill": 97.0,
        "latest_days": None,
        "keep_days": 0,
        "shelves": [],
        "quiet_minutes": 10,
    }
    if before is not None:
        values = {column: getattr(before, column) for column in pools.COLUMNS}
    values |= given
    if values["kind"] not in KINDS:
        raise OptionsError(f"kind is {values['kind']!r}; it may be {', '.join(KINDS)}")
    if before is not None and values["kind"] != before.kind:
        raise OptionsError(f"pool {before.name} is for {before.kind}; make another pool for {values['kind']}")
    for name, least, most in (
        ("copies", 1, 99),
        ("keep_days", 0, 36_500),
        ("quiet_minutes", 0, 10_080),
        ("latest_days", 1, 36_500),
    ):
        value = values[name]
        if name == "latest_days" and value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise OptionsError(
                Worded(
                    "whole_between",
                    "{field} is {value!r}; it may be a whole number from {least} to {most}",
                    field=field(name),
                    value=value,
                    least=least,
                    most=most,
                )
            )
    values["min_fill"] = _min_fill(values["min_fill"])
    values["required_copies"] = _required(values)
    values["shelves"] = _shelves(values["shelves"], values["copies"])
    values["options"] = dict(values["options"])
    options = request_options(settings, "", values)
    if options.profile == AUTO:
        raise OptionsError(
            Worded("pool_profile", "a pool needs a profile of its own; auto chooses one for each request")
        )
    require_pair(options)
    return values


def _min_fill(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 1 <= value <= 100:
        raise OptionsError(
            Worded("percent", "{field} is {value!r}; it may be 1 to 100 percent", field=field("min_fill"), value=value)
        )
    return float(value)


def _required(values: Mapping[str, Any]) -> int:
    """A pool that makes no places of the archive has none to demand."""
    if values["kind"] == "backup":
        if values.get("required_copies"):
            raise OptionsError("backup discs are no places of the archive: required_copies is not for them")
        return 0
    required = values.get("required_copies")
    required = values["copies"] if required is None else required
    if not isinstance(required, int) or isinstance(required, bool) or not 1 <= required <= values["copies"]:
        raise OptionsError(
            Worded(
                "required_copies",
                "required_copies is {value!r}; it may be 1 to {copies}, the copies that are made",
                value=required,
                copies=values["copies"],
            )
        )
    return required


def _shelves(value: Any, copies: int) -> list[str]:
    if not isinstance(value, list) or len(value) > copies:
        raise OptionsError(
            Worded(
                "shelves", "shelves must be a list with a place for each of {copies} copies, or fewer", copies=copies
            )
        )
    for shelf in value:
        if not isinstance(shelf, str) or not 0 < len(shelf.strip()) <= _LONGEST_SHELF or not shelf.isprintable():
            raise OptionsError(
                Worded(
                    "shelf",
                    "a shelf is text of 1 to {longest} printable characters, not {given!r}",
                    longest=_LONGEST_SHELF,
                    given=str(shelf)[:40],
                )
            )
    return [shelf.strip() for shelf in value]


def request_options(settings: Settings, name: str, values: Mapping[str, Any]) -> RequestOptions:
    """The options of a pool's requests. Raises OptionsError."""
    given = dict(values["options"])
    own = sorted(_OF_THE_POOL & set(given))
    if own:
        raise OptionsError(f"{', '.join(own)}: the pool has values of its own for this")
    given.setdefault("patients_per_disc", "many")
    return RequestOptions.from_settings(
        settings, given | {"copies": values["copies"], "purpose": values["kind"], "pool": name}
    )


def options_of(settings: Settings, pool: Pool) -> RequestOptions:
    """The same for a pool as it stands. Raises OptionsError where the settings have no longer what it names."""
    return request_options(settings, pool.name, {column: getattr(pool, column) for column in pools.COLUMNS})


def capacity_bytes(ctx: Context, options: RequestOptions) -> int:
    """What goes on a medium of the pool."""
    _, medium = profile_and_medium(options)
    return capacity(ctx, options, medium) * SECTOR


# --- Documents --------------------------------------------------------------------------------------------------------


def pool_document(session: Session, pool: Pool) -> dict[str, Any]:
    """A pool as lists show it: what was decided, what waits, which discs it has."""
    waits = waiting.summary(session, pool.name)
    due = None
    if waits.oldest is not None and pool.latest_days is not None:
        due = waits.oldest + timedelta(days=pool.latest_days)
    return {
        "pool": pool.name,
        "kind": pool.kind,
        "options": pool.options,
        "copies": pool.copies,
        "required_copies": pool.required_copies,
        "min_fill": pool.min_fill,
        "latest_days": pool.latest_days,
        "keep_days": pool.keep_days,
        "quiet_minutes": pool.quiet_minutes,
        "shelves": pool.shelves,
        "created": pool.created_at.isoformat(),
        "closed": pool.closed_at.isoformat() if pool.closed_at else None,
        "waiting": {
            "instances": waits.instances,
            "studies": waits.studies,
            "bytes": waits.file_bytes,
            "oldest": waits.oldest.isoformat() if waits.oldest else None,
            "due": due.isoformat() if due else None,
        },
        "discs": pools.disc_counts(session, pool.name),
    }


def full_document(ctx: Context, session: Session, pool: Pool) -> dict[str, Any]:
    """The same with what the pool's discs cannot hold, its jobs that have not become discs, and how full one would be.

    ``fill``: percent of a medium, by sizes as received; None where the settings do not have its profile or burner.
    """
    document = pool_document(session, pool)
    try:
        size = capacity_bytes(ctx, options_of(ctx.settings, pool))
        fill: float | None = round(100 * document["waiting"]["bytes"] / size, 1)
        problem = None
    except (OptionsError, MediaError) as error:
        fill, problem = None, str(error)
    count, refused = waiting.refused(session, pool.name, limit=_REFUSED_SHOWN)
    return document | {
        "waiting": document["waiting"] | {"fill": fill},
        "problem": problem,
        "refused": {"instances": count, "items": refused},
        "open_jobs": _open_jobs(session, pool.name),
    }


def _open_jobs(session: Session, name: str) -> list[dict[str, Any]]:
    """Jobs that have not made the discs of what they took, the newest first."""
    later = aliased(Job)
    rows = session.execute(
        select(Job.id, Job.state, Job.error, Job.request_id)
        .join(Request, Request.id == Job.request_id)
        .where(
            Request.pool == name,
            Job.state.in_([state for state in JobState if state is not JobState.DONE]),
            ~exists().where(later.request_id == Job.request_id, later.id > Job.id),
        )
        .order_by(Job.id.desc())
        .limit(_JOBS_SHOWN)
    ).all()
    counts: dict[int, int] = dict(
        session.execute(
            select(RequestInstance.request_id, func.count())
            .where(RequestInstance.request_id.in_([row.request_id for row in rows]))
            .group_by(RequestInstance.request_id)
        )
        .tuples()
        .all()
    )
    return [
        {"job": f"J{row.id}", "state": row.state, "error": row.error, "instances": counts.get(row.request_id, 0)}
        for row in rows
    ]
