"""Icons of a plan's directory records: made in helper processes, kept in the derived-file cache, made again if lost.

A plan pins each icon by its digest, so that the directory which is written is the one that was planned.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from jobs.checking import Candidate, Checked, Refusal
from jobs.conform_pool import FAILED, Conformed, Task, conform_all
from jobs.context import Context
from jobs.sources import source_of
from media.iconforms import ICON_IMAGE_SEQUENCE
from media.items import Icon, Item, Supplied
from media.part10 import EXPLICIT_LE
from media.problems import MediaError
from media.profile_keys import ICON_RECORD, IconRule, key_set
from media.profiles import Profile
from store import derived

Progress = Callable[[str, int, int, str], None]
_PINNED = f"({ICON_IMAGE_SEQUENCE >> 16:04X},{ICON_IMAGE_SEQUENCE & 0xFFFF:04X})"
_BATCH = 200
"""Icons that are entered in one transaction."""


def make_icons(
    ctx: Context, profile: Profile, checked: Checked, progress: Progress, cancelled: Callable[[], bool]
) -> dict[int, Icon]:
    """The icons of a plan's candidates by Instance id, for a profile that has any; those in the cache are not made
    again.

    An image of which none can be made moves to the refused where the profile demands one, and else goes without.
    Raises ``Cancelled``.
    """
    rule = key_set(profile.directory_keys).icon
    if rule is None:
        return {}
    wanted = [one for one in checked.candidates if one.record_type == ICON_RECORD]
    found = _cached(ctx, wanted, rule)
    todo = {one.row.id: one for one in wanted if one.row.id not in found}
    failed: dict[int, str] = {}
    progress("icons", len(found), len(wanted), "instances")
    tasks = [
        _task(ctx, one.row.id, one.row.sop_instance_uid, source_of(ctx, one.row), rule.recipe) for one in todo.values()
    ]
    made: list[tuple[tuple[str, str, str], Icon]] = []
    jobs = ctx.settings.jobs
    for result in conform_all(
        tasks, processes=jobs.conform_processes, megabytes=jobs.conform_memory_mb, cancelled=cancelled
    ):
        row = todo[result.task.key].row
        if result.refused is not None:
            failed[row.id] = result.refused[1].removeprefix(FAILED)
        else:
            found[row.id] = _publish(result, _path(ctx, row.digest, rule.recipe))
            made.append(((row.digest, row.sop_instance_uid, rule.recipe), found[row.id]))
        if len(made) >= _BATCH:
            _enter(ctx, made)
            made.clear()
        progress("icons", len(found) + len(failed), len(wanted), "instances")
    _enter(ctx, made)
    if rule.required:
        _refuse(checked, failed, rule)
    return found


def _refuse(checked: Checked, failed: dict[int, str], rule: IconRule) -> None:
    for one in checked.candidates:
        if one.row.id in failed:
            reason = (
                f"its {ICON_RECORD} record must have an icon {_PINNED} (PS3.11 {rule.clause}), "
                f"and none can be made: {failed[one.row.id]}"
            )
            checked.refused.append(Refusal(one.row, "INST_AP_CONFLICT", reason))
    checked.candidates = [one for one in checked.candidates if one.row.id not in failed]


def _cached(ctx: Context, wanted: list[Candidate], rule: IconRule) -> dict[int, Icon]:
    """Those that are in the cache as they were made."""
    with ctx.db.read() as session:
        rows = derived.derived_of(session, [(one.row.digest, one.row.sop_instance_uid, rule.recipe) for one in wanted])
        kept = {key: (row.path, row.size, row.sha256) for key, row in rows.items()}
    found = {}
    for one in wanted:
        key = (one.row.digest, one.row.sop_instance_uid, rule.recipe)
        if key in kept:
            path, size, sha256 = kept[key]
            icon = Icon(ctx.derived_path(path), size, sha256)
            if _is_there(icon):
                found[one.row.id] = icon
    return found


def _is_there(icon: Icon) -> bool:
    try:
        return hashlib.sha256(icon.source.read_bytes()).hexdigest() == icon.sha256
    except OSError:
        return False


def _path(ctx: Context, digest: str, recipe: str) -> Path:
    return ctx.derived_path(f"{digest[:2]}/{digest}.{recipe.replace('/', '-')}.icon")


def _task(ctx: Context, key: int, sop_instance_uid: str, source: Path, recipe: str) -> Task:
    name = f".{uuid.uuid4().hex}.part"
    return Task(key, sop_instance_uid, source, ctx.settings.derived_dir / name, recipe)


def _publish(result: Conformed, target: Path) -> Icon:
    """An icon is not synced: its digest is checked whenever it is read, and it can be made again."""
    target.parent.mkdir(parents=True, exist_ok=True)
    result.task.target.rename(target)
    return Icon(target, result.size, result.sha256)


def _enter(ctx: Context, made: Iterable[tuple[tuple[str, str, str], Icon]]) -> None:
    """The rows by which a purge finds the files."""
    with ctx.db.begin() as session:
        for key, icon in made:
            path = str(icon.source.relative_to(ctx.settings.derived_dir))
            derived.add_derived(
                session, key, path=path, size=icon.size, sha256=icon.sha256, syntax=EXPLICIT_LE, changes=[]
            )


# -- icons of a plan that exists -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pinned:
    """An icon as a plan wants it, and what it was made of."""

    digest: str
    """Of the instance."""
    sop_instance_uid: str
    spool_path: str | None
    recipe: str
    size: int
    sha256: str

    def icon(self, ctx: Context) -> Icon:
        """Where it is, if it is."""
        return Icon(_path(ctx, self.digest, self.recipe), self.size, self.sha256)


def pins(item: Item, recipe: str) -> tuple[Supplied, ...]:
    """What a plan keeps with the keys that it supplies to an item's records: the icon's recipe, size and digest."""
    if item.icon is None:
        return ()
    return (Supplied(ICON_RECORD, _PINNED, "SQ", f"{recipe} {item.icon.size} {item.icon.sha256}"),)


def unpinned(
    kept: Iterable[Iterable[str]], *, digest: str, sop_instance_uid: str, spool_path: str | None
) -> tuple[tuple[Supplied, ...], Pinned | None]:
    """The keys that were supplied, and the icon, of what a plan keeps with an instance."""
    keys = tuple(Supplied(*key) for key in kept)
    pinned = None
    for key in keys:
        if key.tag == _PINNED:
            recipe, size, sha256 = key.value.split(" ")
            pinned = Pinned(digest, sop_instance_uid, spool_path, recipe, int(size), sha256)
    return tuple(key for key in keys if key.tag != _PINNED), pinned


def restore(ctx: Context, pinned: Iterable[Pinned], *, cancelled: Callable[[], bool] = lambda: False) -> None:
    """Make those icons again that are gone from the cache. MediaError for one that is not what it was any more."""
    lost = {number: one for number, one in enumerate(pinned) if not _is_there(one.icon(ctx))}
    for one in lost.values():
        if one.spool_path is None or not ctx.spool.path_of(one.spool_path).is_file():
            raise MediaError(
                f"The icon of instance {one.sop_instance_uid} is gone, and so is the instance from the spool"
            )
    tasks = [
        _task(ctx, number, one.sop_instance_uid, ctx.spool.path_of(one.spool_path or ""), one.recipe)
        for number, one in sorted(lost.items())
    ]
    made = []
    jobs = ctx.settings.jobs
    for result in conform_all(
        tasks, processes=jobs.conform_processes, megabytes=jobs.conform_memory_mb, cancelled=cancelled
    ):
        one = lost[result.task.key]
        if result.sha256 != one.sha256:
            result.task.target.unlink(missing_ok=True)
            why = result.refused[1].removeprefix(FAILED) if result.refused else "another decoder gives another picture"
            raise MediaError(
                f"The icon of instance {one.sop_instance_uid} is gone and cannot be made again as it was: {why}"
            )
        made.append(((one.digest, one.sop_instance_uid, one.recipe), _publish(result, one.icon(ctx).source)))
    if made:
        _enter(ctx, made)
