"""Re-encoding what a plan's profile does not take as it is, in helper processes, through the derived-file cache."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from jobs.checking import Candidate, Checked, Refusal
from jobs.conform_pool import Conformed, Task, conform_all
from jobs.context import Context
from jobs.editing import is_another, recipe_of, references, spare_shown, with_edits
from jobs.sources import source_of
from media.edits import recipe_key
from media.profile_rules import rule_refusal
from media.profiles import Profile
from media.recipes import is_lossy, recipe_syntax
from store import derived
from store.models import Derived

Progress = Callable[[str, int, int, str], None]
"""Hears phase, done, total and unit of long work."""


def _derived_key(candidate: Candidate) -> tuple[str, str, str]:
    recipe = recipe_of(candidate)
    assert recipe is not None
    key = recipe_key(recipe, candidate.edits)
    if candidate.row.restored is not None:
        # Made of what a disc gave back, it need not be the same file as one made of what was received.
        key += f"@{hashlib.sha256(candidate.row.restored.recipe.encode()).hexdigest()[:8]}"
    return candidate.row.digest, candidate.row.sop_instance_uid, key


def conform(
    ctx: Context,
    profile: Profile,
    checked: Checked,
    progress: Progress,
    cancelled: Callable[[], bool],
    *,
    path_of: Callable[[Candidate], Path],
) -> dict[int, Derived]:
    """Edit and re-encode what must change and is not yet in the cache; the candidates then have their ``edits``.

    What cannot be re-encoded, or is not as the profile demands even then, moves to the refused. Where one that others
    refer to is refused, or turns out not to be compressible lossily, these are made anew without that reference.
    """
    refer = references(
        checked.candidates,
        path_of=path_of,
        progress=lambda done, total: progress("find references", done, total, "instances"),
        cancelled=cancelled,
    )
    checked.candidates = spare_shown(checked.candidates, refer)
    while True:
        checked.candidates = with_edits(checked.candidates, refer)
        others = {candidate.row.id for candidate in checked.candidates if is_another(candidate)}
        found = _conform(ctx, profile, checked, progress, cancelled)
        spared = {candidate.row.id for candidate in checked.candidates if _stayed_whole(candidate, found)}
        checked.candidates = [
            replace(candidate, recipe=candidate.instead, note=_why_whole(found[candidate.row.id]))
            if candidate.row.id in spared
            else candidate
            for candidate in checked.candidates
        ]
        if not spared and others <= {candidate.row.id for candidate in checked.candidates}:
            return found


def _stayed_whole(candidate: Candidate, found: dict[int, Derived]) -> bool:
    """Whether an instance that should be compressed lossily was not, because its pixel data does not suit."""
    if candidate.recipe is None or not is_lossy(candidate.recipe):
        return False
    return found[candidate.row.id].transfer_syntax_uid != recipe_syntax(candidate.recipe)


def _why_whole(derived: Derived) -> str:
    words = (str(change["new"]) for change in derived.changes)
    why = next((word for word in words if word.startswith("not compressed: ")), "its pixel data does not suit")
    return f"not lossy: {why.removeprefix('not compressed: ')}"


def _conform(
    ctx: Context, profile: Profile, checked: Checked, progress: Progress, cancelled: Callable[[], bool]
) -> dict[int, Derived]:
    wanted = [candidate for candidate in checked.candidates if recipe_of(candidate) is not None]
    found = _as_restored(ctx, checked)
    if not wanted:
        return found
    before = len(found)
    with ctx.db.read() as session:
        cached = derived.derived_of(session, [_derived_key(candidate) for candidate in wanted])
    todo: dict[int, tuple[Candidate, Path]] = {}
    for candidate in wanted:
        row = cached.get(_derived_key(candidate))
        if row is not None and is_whole(ctx.derived_path(row.path), row.size):
            found[candidate.row.id] = row
        else:
            todo[candidate.row.id] = (candidate, _derived_target(ctx, candidate))
    tasks = [_task(ctx, candidate, target) for candidate, target in todo.values()]
    refused: dict[int, tuple[str, str]] = {}
    progress("conform", len(found) - before, len(wanted), "instances")
    jobs = ctx.settings.jobs
    for result in conform_all(
        tasks, processes=jobs.conform_processes, megabytes=jobs.conform_memory_mb, cancelled=cancelled
    ):
        candidate, target = todo[result.task.key]
        if result.refused is not None:
            refused[candidate.row.id] = result.refused
        else:
            _publish(result.task.target, target)
            found[candidate.row.id] = _enter(ctx, candidate, target, result)
        progress("conform", len(found) - before + len(refused), len(wanted), "instances")
    for candidate in wanted:
        if candidate.row.id not in found or _stayed_whole(candidate, found):
            continue
        if unfit := _unfit(ctx, profile, candidate, found[candidate.row.id]):
            refused[candidate.row.id] = unfit
            del found[candidate.row.id]
    for candidate in checked.candidates:
        if candidate.row.id in refused:
            checked.refused.append(Refusal(candidate.row, *refused[candidate.row.id]))
    checked.candidates = [candidate for candidate in checked.candidates if candidate.row.id not in refused]
    return found


def _as_restored(ctx: Context, checked: Checked) -> dict[int, Derived]:
    """Files that came back from a disc and go on another as they are."""
    files = {
        candidate.row.id: candidate.row.restored.derived_id
        for candidate in checked.candidates
        if candidate.row.restored is not None and recipe_of(candidate) is None
    }
    with ctx.db.read() as session:
        return {row_id: session.get_one(Derived, derived_id) for row_id, derived_id in files.items()}


def _enter(ctx: Context, candidate: Candidate, target: Path, result: Conformed) -> Derived:
    # What is made of a file that came back from a disc differs from what was received by that file's changes, too.
    before = candidate.row.restored
    facts = {**((before.facts if before else None) or {}), **(result.facts or {})}
    keys = before.directory_keys if before is not None and result.directory_keys is None else result.directory_keys
    new = derived.NewDerived(
        str(target.relative_to(ctx.settings.derived_dir)),
        result.size,
        result.sha256,
        result.transfer_syntax_uid,
        (*(before.changes if before else ()), *result.changes),
        result.new_sop_instance_uid,
        keys,
        facts or result.facts,
    )
    with ctx.db.begin() as session:
        row, superfluous = derived.enter_derived(
            session,
            _derived_key(candidate),
            new,
            is_whole=lambda derived: is_whole(ctx.derived_path(derived.path), derived.size),
        )
    if superfluous is not None:
        ctx.derived_path(superfluous).unlink(missing_ok=True)
    return row


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
    """A name that no file had before: what a purge is about to remove by name is never what was made since."""
    digest, _, recipe = _derived_key(candidate)
    return ctx.derived_path(f"{digest[:2]}/{digest}.{recipe.replace('/', '-')}.{uuid.uuid4().hex[:12]}.dcm")


def _task(ctx: Context, candidate: Candidate, target: Path) -> Task:
    row, recipe = candidate.row, recipe_of(candidate)
    assert recipe is not None
    target.parent.mkdir(parents=True, exist_ok=True)
    # Another job may conform the same instance at this moment: each writes its own file, and one of them stays.
    temporary = target.with_name(f".{target.name}.part")
    source = source_of(ctx, row)
    return Task(row.id, row.sop_instance_uid, source, temporary, recipe, candidate.edits)


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
