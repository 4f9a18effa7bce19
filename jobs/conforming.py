"""Re-encoding what a plan's profile does not take as it is, in helper processes, through the derived-file cache."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path

from jobs.checking import Candidate, Checked, Refusal
from jobs.conform_pool import Task, conform_all
from jobs.context import Context
from media.profile_rules import rule_refusal
from media.profiles import Profile
from store import plans
from store.models import Derived

Progress = Callable[[str, int, int, str], None]
"""Hears phase, done, total and unit of long work."""


def _derived_key(candidate: Candidate) -> tuple[str, str, str]:
    assert candidate.recipe is not None
    return candidate.row.digest, candidate.row.sop_instance_uid, candidate.recipe


def conform(
    ctx: Context, profile: Profile, checked: Checked, progress: Progress, cancelled: Callable[[], bool]
) -> dict[int, Derived]:
    """Re-encode what must change and is not yet in the cache.

    What cannot be re-encoded, or is not as the profile demands even then, moves to the refused.
    """
    wanted = [candidate for candidate in checked.candidates if candidate.recipe is not None]
    if not wanted:
        return {}
    with ctx.db.read() as session:
        cached = plans.derived_of(session, [_derived_key(candidate) for candidate in wanted])
    found: dict[int, Derived] = {}
    todo: dict[int, tuple[Candidate, Path]] = {}
    for candidate in wanted:
        row = cached.get(_derived_key(candidate))
        if row is not None and is_whole(ctx.derived_path(row.path), row.size):
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
    for candidate in wanted:
        if candidate.row.id in found and (unfit := _unfit(ctx, profile, candidate, found[candidate.row.id])):
            refused[candidate.row.id] = unfit
            del found[candidate.row.id]
    for candidate in checked.candidates:
        if candidate.row.id in refused:
            checked.refused.append(Refusal(candidate.row, *refused[candidate.row.id]))
    checked.candidates = [candidate for candidate in checked.candidates if candidate.row.id not in refused]
    return found


def _unfit(ctx: Context, profile: Profile, candidate: Candidate, derived: Derived) -> tuple[str, str] | None:
    """Why what came of an instance may not be on a disc of this profile: code and reason."""
    violation = profile.syntax_violation(candidate.row.sop_class_uid, derived.transfer_syntax_uid)
    if violation is None:
        return rule_refusal(profile, ctx.derived_path(derived.path))
    why = [change["new"] for change in derived.changes if str(change["new"]).startswith("not compressed")]
    return "INST_AP_CONFLICT", "; ".join([violation, *why])


def is_whole(path: Path, size: int) -> bool:
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
