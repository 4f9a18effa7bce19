"""From a request to a plan: select, check, conform what must change, pack by real sizes.

A plan is a value that can be shown before any disc is spent. Making it again after a crash costs little: what was
conformed is in the derived cache.
"""

from __future__ import annotations

import os
import uuid
from collections import defaultdict
from collections.abc import Callable, Hashable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from jobs.checking import Candidate, Checked, Refusal, check
from jobs.conform_pool import Cancelled, Task, conform_all
from jobs.context import Context
from jobs.options import RequestOptions
from media import mediatypes, profiles
from media.items import Item
from media.problems import MediaError
from store import plans
from store.models import Derived, Instance, Plan, Request, Volume, VolumeInstance
from store.plans import InstanceRow
from store.selection import Selection, instance_ids

Progress = Callable[[str, int, int, str], None]
"""Hears phase, done, total and unit of long work."""


class PlanRefused(Exception):
    """There is no plan for this request; ``code`` is a defined term (PS3.3 C.22.2) or one of ours."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


def create_request(
    session: Session,
    *,
    selection: Selection,
    options: RequestOptions,
    source: str,
    idempotency_key: str | None = None,
) -> int:
    """Freeze what is selected now; returns the Request's id.

    Raises ``PlanRefused`` (NO_INSTANCE) where nothing is selected, ``SelectionError``, and ``MediaError`` for a profile
    and medium that do not belong together: better told now than by a failed job.
    """
    profile_and_medium(options)
    ids = instance_ids(session, selection)
    if not ids:
        raise PlanRefused("NO_INSTANCE", "nothing that was received matches the selection")
    return plans.add_request(
        session,
        ids,
        selection=selection.to_json(),
        options=options.to_json(),
        source=source,
        idempotency_key=idempotency_key,
    )


def profile_and_medium(options: RequestOptions) -> tuple[profiles.Profile, mediatypes.MediaType]:
    """The rows that the options name; raises ``MediaError`` that lists what is allowed."""
    profile = profiles.profile(options.profile)
    medium = mediatypes.media_type(options.medium or profile.default_medium)
    profiles.check_pair(profile.name, medium.name)
    return profile, medium


def make_plan(
    ctx: Context,
    request_id: int,
    *,
    progress: Progress = lambda *_: None,
    cancelled: Callable[[], bool] = lambda: False,
    on_phase: Callable[[str], None] = lambda _: None,
) -> int:
    """Plan a request; returns the Plan's id. Raises ``PlanRefused``, ``Cancelled``.

    A plan with refused instances is entered all the same, without them: whether that will do is for the job to decide.
    """
    with ctx.db.read() as session:
        request = session.get_one(Request, request_id)
        options = RequestOptions.from_json(request.options)
        rows = plans.requested(session, request_id)
        conflicts = plans.conflicts_of_request(session, request_id)
    profile, medium = profile_and_medium(options)
    progress("check", 0, len(rows), "instances")
    checked = check(
        rows,
        profile=profile,
        conflicts=conflicts,
        policy=options.conflicts,
        has_source=lambda row: _has_source(ctx, row),
    )
    on_phase("CONFORMING")
    derived = _conform(ctx, checked, progress, cancelled)
    if cancelled():
        raise Cancelled
    progress("pack", 0, len(checked.candidates), "instances")
    return _pack(ctx, request_id, options, profile, medium, checked, derived)


def _has_source(ctx: Context, row: InstanceRow) -> bool:
    if row.spool_path is None:
        return False
    try:
        return ctx.spool.path_of(row.spool_path).stat().st_size == row.file_bytes
    except OSError:
        return False


def _derived_key(candidate: Candidate) -> tuple[str, str, str]:
    assert candidate.recipe is not None
    return candidate.row.digest, candidate.row.sop_instance_uid, candidate.recipe


def _conform(ctx: Context, checked: Checked, progress: Progress, cancelled: Callable[[], bool]) -> dict[int, Derived]:
    """Re-encode what must change and is not yet in the cache; what cannot be re-encoded moves to the refused."""
    wanted = [candidate for candidate in checked.candidates if candidate.recipe is not None]
    if not wanted:
        return {}
    with ctx.db.read() as session:
        cached = plans.derived_of(session, [_derived_key(candidate) for candidate in wanted])
    found: dict[int, Derived] = {}
    todo: dict[int, tuple[Candidate, Path]] = {}
    for candidate in wanted:
        row = cached.get(_derived_key(candidate))
        if row is not None and _is_whole(ctx.derived_path(row.path), row.size):
            found[candidate.row.id] = row
        else:
            todo[candidate.row.id] = (candidate, _derived_target(ctx, candidate))
    tasks = [_task(ctx, candidate, target) for candidate, target in todo.values()]
    refused: dict[int, tuple[str, str]] = {}
    progress("conform", len(found), len(wanted), "instances")
    for result in conform_all(tasks, processes=ctx.settings.jobs.conform_processes, cancelled=cancelled):
        candidate, target = todo[result.task.key]
        if result.refused is not None:
            refused[candidate.row.id] = result.refused
        else:
            _publish(result.task.target, target)
            with ctx.db.begin() as session:
                found[candidate.row.id] = plans.add_derived(
                    session,
                    _derived_key(candidate),
                    path=str(target.relative_to(ctx.settings.derived_dir)),
                    size=result.size,
                    sha256=result.sha256,
                    syntax=result.transfer_syntax_uid,
                    changes=list(result.changes),
                )
        progress("conform", len(found) + len(refused), len(wanted), "instances")
    for candidate in checked.candidates:
        if candidate.row.id in refused:
            checked.refused.append(Refusal(candidate.row, *refused[candidate.row.id]))
    checked.candidates = [candidate for candidate in checked.candidates if candidate.row.id not in refused]
    return found


def _is_whole(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _derived_target(ctx: Context, candidate: Candidate) -> Path:
    digest, _, recipe = _derived_key(candidate)
    return ctx.derived_path(f"{digest[:2]}/{digest}.{recipe.replace('/', '-')}.dcm")


def _task(ctx: Context, candidate: Candidate, target: Path) -> Task:
    row = candidate.row
    assert row.spool_path is not None and candidate.recipe is not None
    target.parent.mkdir(parents=True, exist_ok=True)
    # Another job may conform the same instance at this moment: each writes its own file, the last rename stays.
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    return Task(row.id, row.sop_instance_uid, ctx.spool.path_of(row.spool_path), temporary, candidate.recipe)


def _publish(temporary: Path, target: Path) -> None:
    """The file is durable before the row that names it."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.rename(target)
    directory = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _item(ctx: Context, candidate: Candidate, derived: Derived | None) -> Item:
    row = candidate.row
    assert row.spool_path is not None
    return Item(
        key=row.id,
        sop_class_uid=row.sop_class_uid,
        sop_instance_uid=row.sop_instance_uid,
        transfer_syntax_uid=derived.transfer_syntax_uid if derived else row.transfer_syntax_uid,
        study_instance_uid=row.study_instance_uid,
        series_instance_uid=row.series_instance_uid,
        patient=row.patient,
        patient_id=row.patient_id,
        record_type=candidate.record_type,
        directory_keys=row.directory_keys,
        source=ctx.derived_path(derived.path) if derived else ctx.spool.path_of(row.spool_path),
        size=derived.size if derived else row.file_bytes,
        sha256=derived.sha256 if derived else row.file_sha256,
        supplied=candidate.supplied,
    )
