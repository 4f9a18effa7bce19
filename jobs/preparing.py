"""What goes on discs, made ready: checked against the profile, corrected, conformed; nothing is put on volumes yet.

Doing it again costs little: what was conformed is in the derived cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.checking import Candidate, Checked, Refusal, check, refuse_unfit
from jobs.choosing import choose, require_choice
from jobs.compression import is_lossy_already
from jobs.conform_pool import Cancelled
from jobs.conforming import Progress, conform
from jobs.context import Context
from jobs.correcting import correct
from jobs.iconing import make_icons
from jobs.iodcheck import check_iods
from jobs.options import AUTO, RequestOptions
from jobs.sources import has_source, source_of
from media import mediatypes, profiles
from media.items import Icon
from store.models import Derived
from store.requested import InstanceRow


class PlanRefused(Exception):
    """There is no plan for this request; ``code`` is a defined term (PS3.3 C.22.2) or one of ours."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Prepared:
    """What can go on discs, and what was found out about the rest."""

    profile: profiles.Profile
    medium: mediatypes.MediaType
    checked: Checked
    derived: Mapping[int, Derived]
    """By Instance id: the conformed files."""
    icons: Mapping[int, Icon]
    told: Mapping[str, Any]
    """For the plan's report: ``iod`` and ``chosen``."""


@dataclass(frozen=True, slots=True)
class Examined:
    """What can go on discs as it is or conformed, and what not."""

    rows: Sequence[InstanceRow]
    """What was asked for, as it is corrected."""
    profile: profiles.Profile
    medium: mediatypes.MediaType
    checked: Checked
    iod: Mapping[str, Any] | None
    """What the IOD check found, as a plan tells it."""
    chosen: Mapping[str, Any] | None
    """Why this profile, where the request says ``auto``."""


def require_pair(options: RequestOptions) -> None:
    """Raise ``MediaError`` that lists what is allowed, where profile and medium do not exist or belong together."""
    if options.profile == AUTO:
        require_choice(options)
    else:
        profile_and_medium(options)


def profile_and_medium(options: RequestOptions) -> tuple[profiles.Profile, mediatypes.MediaType]:
    """The rows that the options name; raises ``MediaError`` that lists what is allowed."""
    profile = profiles.profile(options.profile)
    medium = mediatypes.media_type(options.medium or profile.default_medium)
    profiles.check_pair(profile.identifier, medium.name)
    return profile, medium


def prepare(
    ctx: Context,
    rows: Sequence[InstanceRow],
    conflicts: Mapping[str, list[int]],
    options: RequestOptions,
    *,
    progress: Progress = lambda *_: None,
    cancelled: Callable[[], bool] = lambda: False,
    on_phase: Callable[[str], None] = lambda _: None,
) -> Prepared:
    """Check, correct and conform instances. ``conflicts``: see ``store.requested.conflicts_of_request``.

    Raises ``PlanRefused``, ``Cancelled``.
    """
    examined = examine(ctx, rows, conflicts, options, progress=progress, cancelled=cancelled)
    profile, checked = examined.profile, examined.checked
    on_phase("CONFORMING")

    def path_of(candidate: Candidate) -> Path:
        return source_of(ctx, candidate.row)

    derived = conform(ctx, profile, checked, progress, cancelled, path_of=path_of)
    there = len(checked.candidates)
    icons = make_icons(ctx, profile, checked, progress, cancelled)
    if len(checked.candidates) < there:  # nothing may refer to what is not on the discs under its new UID
        derived = conform(ctx, profile, checked, progress, cancelled, path_of=path_of)
    if cancelled():
        raise Cancelled
    return Prepared(profile, examined.medium, checked, derived, icons, {"iod": examined.iod, "chosen": examined.chosen})


def examine(
    ctx: Context,
    rows: Sequence[InstanceRow],
    conflicts: Mapping[str, list[int]],
    options: RequestOptions,
    *,
    progress: Progress = lambda *_: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Examined:
    """Correct instances, settle profile and medium, and hold the one against the other; nothing is conformed.

    Raises ``PlanRefused``, ``Cancelled``.
    """
    corrected = correct(
        ctx,
        list(rows),
        options,
        path_of=lambda row: source_of(ctx, row),
        has_source=lambda row: has_source(ctx, row),
        progress=lambda done, total: progress("correct", done, total, "instances"),
        cancelled=cancelled,
    )
    rows = corrected.rows
    chosen = None
    if options.profile == AUTO:
        progress("choose a profile", 0, len(rows), "instances")
        profile, medium, chosen = settle(ctx, corrected.rows, conflicts, options, cancelled=cancelled)
    else:
        profile, medium = profile_and_medium(options)
    progress("check", 0, len(rows), "instances")
    checked = check(
        rows,
        profile=profile,
        conflicts=conflicts,
        policy=options.conflicts,
        compression=options.compression(ctx.settings),
        has_source=lambda row: has_source(ctx, row),
        is_lossy_already=lambda row: is_lossy_already(source_of(ctx, row)),
        values=corrected.values,
        modalities=corrected.modalities,
    )
    checked.refused += [Refusal(*refused) for refused in corrected.refused]
    refuse_unfit(
        checked,
        profile=profile,
        path_of=lambda candidate: source_of(ctx, candidate.row),
        progress=lambda done, total: progress("check", done, total, "instances"),
        cancelled=cancelled,
    )
    iod = check_iods(
        checked,
        options.iod,
        path_of=lambda candidate: source_of(ctx, candidate.row),
        processes=ctx.settings.jobs.conform_processes,
        progress=lambda done, total: progress("iod check", done, total, "instances"),
        cancelled=cancelled,
    )
    return Examined(rows, profile, medium, checked, iod, chosen)


def settle(
    ctx: Context,
    rows: list[InstanceRow],
    conflicts: Mapping[str, list[int]],
    options: RequestOptions,
    *,
    cancelled: Callable[[], bool] = lambda: False,
) -> tuple[profiles.Profile, mediatypes.MediaType, dict[str, Any]]:
    """Profile and medium of a request that says ``auto``, and why. Raises ``PlanRefused``, ``Cancelled``."""
    try:
        choice = choose(
            ctx,
            rows,
            conflicts,
            options,
            has_source=lambda row: has_source(ctx, row),
            path_of=lambda row: source_of(ctx, row),
            cancelled=cancelled,
        )
    except profiles.ProfileError as error:
        raise PlanRefused("NOT_SUPPORTED", str(error)) from error
    return choice.profile, choice.medium, choice.document
