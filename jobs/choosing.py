"""The automatic choice of profile and medium (``--profile auto``): the least changing one that all instances fit.

The order is: fewest instances refused, then fewest changed, then fewest discs, then the order of the tables. What rows
tell gives a bound for each profile, and only those whose bound is good enough are examined in full, so that few or no
files are opened.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from burners import registry
from jobs.checking import Checked, check, refuse_unfit, without_conflicts
from jobs.compression import Compression, is_lossy_already
from jobs.context import Context
from jobs.options import RequestOptions
from jobs.protecting import ProtectionRefused, protection_of
from media import mediatypes, profiles
from media.problems import InstanceRefused
from media.profiles import Profile, ProfileError
from store.requested import InstanceRow

_SECTOR = 2048
_OTHERS = 5
"""Runner-ups that are told."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen, and why."""

    profile: Profile
    medium: mediatypes.MediaType
    document: dict[str, Any]
    """``{"profile", "medium", "reason", "refused", "changed", "discs", "others": [...]}`` for plan and report."""


@dataclass(frozen=True, slots=True, order=True)
class _Offer:
    """A profile with a medium; the smaller the better."""

    refused: int
    changed: int
    discs: int
    place: tuple[int, int]
    """In the tables: the profile's, and its medium's with the default one first."""


_Kind = tuple[str, str, bool, str]
"""SOP class, transfer syntax, whether it has pixel data, modality."""
_Pair = tuple[_Offer, Profile, mediatypes.MediaType]


def require_choice(options: RequestOptions) -> None:
    """ProfileError where no profile could be chosen because of the medium, MediaError for an unknown one."""
    if options.medium:
        medium = mediatypes.media_type(options.medium)
        if not any(row.status == "ready" for row in profiles.profiles_for(medium.name)):
            raise ProfileError(f"There is no profile that goes with medium {medium.name}")


def choose(
    ctx: Context,
    rows: Sequence[InstanceRow],
    conflicts: Mapping[str, list[int]],
    options: RequestOptions,
    *,
    has_source: Callable[[InstanceRow], bool],
    path_of: Callable[[InstanceRow], Path],
    cancelled: Callable[[], bool] = lambda: False,
) -> Choice:
    """Choose among the ready profiles whose media the request's burner makes; the same rows give the same choice.

    ProfileError where there is none. Discs are estimated from the instances' sizes as received. Raises ``Cancelled``.
    """
    kept = list(without_conflicts(rows, conflicts, options.conflicts, Checked()))
    there = {row.id for row in kept if has_source(row)}
    sizes = _Sizes(kept, many_patients=options.patients_per_disc == "many")
    compression = options.compression(ctx.settings)
    kinds: Counter[_Kind] = Counter()
    examples: dict[_Kind, InstanceRow] = {}
    for row in kept:
        kind = (row.sop_class_uid, row.transfer_syntax_uid, row.has_pixel_data, row.modality)
        kinds[kind] += 1
        examples.setdefault(kind, row)

    bounds: list[_Pair] = []
    for place, profile, media in _pairs(ctx, options):
        refused, changed = _bound(profile, kinds, examples, compression)
        for second, medium in enumerate(media):
            oversized, discs = sizes.on(capacity(ctx, options, medium))
            bounds.append((_Offer(max(refused, oversized), changed, discs, (place, second)), profile, medium))
    bounds.sort(key=_offer)

    exact: dict[str, tuple[int, int]] = {}
    found: list[_Pair] = []
    for bound, profile, medium in bounds:
        if found and min(map(_offer, found)) < bound:
            break
        name = profile.identifier
        if name not in exact:
            exact[name] = _examined(profile, kept, there, options, compression, path_of, cancelled)
        refused, changed = exact[name]
        found.append((_Offer(max(refused, bound.refused), changed, bound.discs, bound.place), profile, medium))
    best, profile, medium = min(found, key=_offer)
    others = _others(profile, [*((*pair, True) for pair in found), *((*pair, False) for pair in bounds[len(found) :])])
    return Choice(profile, medium, _document(best, profile, medium, len(kept), others))


def _offer(pair: _Pair) -> _Offer:
    return pair[0]


def _pairs(ctx: Context, options: RequestOptions) -> list[tuple[int, Profile, list[mediatypes.MediaType]]]:
    """The profiles that may be chosen, with their place in the table, and the media of each, its default first."""
    section = ctx.settings.burners.get(options.burner)
    families = registry.families(section.driver) if section else registry.DISCS
    wanted = mediatypes.media_type(options.medium).name if options.medium else ""
    pairs = []
    for place, row in enumerate(profiles.profiles().values()):
        if row.status != "ready":
            continue
        names = sorted(row.media, key=lambda name: name != row.default_medium)
        media = [mediatypes.media_type(name) for name in names if not wanted or name == wanted]
        if usable := [medium for medium in media if medium.family in families]:
            pairs.append((place, row, usable))
    if not pairs:
        made = ", ".join(sorted(families))
        of = f" on medium {wanted}" if wanted else ""
        raise ProfileError(f"No profile can be chosen{of} for burner {options.burner!r}, which makes {made}")
    return pairs


def capacity(ctx: Context, options: RequestOptions, medium: mediatypes.MediaType) -> int:
    """Sectors of a medium for a file system: without the reserve, without error-correction data."""
    plan = ctx.settings.plan
    usable = options.capacity_sectors or medium.usable_sectors(
        reserve_percent=plan.reserve_percent, reserve_sectors=plan.reserve_sectors
    )
    try:
        protection = protection_of(options, medium, ctx.settings, usable)
    except ProtectionRefused:
        return usable  # the plan says why
    return protection.iso_sectors if protection else usable


def _bound(
    profile: Profile,
    kinds: Mapping[_Kind, int],
    examples: Mapping[_Kind, InstanceRow],
    compression: Compression,
) -> tuple[int, int]:
    """At least so many instances are refused, or at least so many changed where no more are refused."""
    refused = changed = 0
    for kind, count in kinds.items():
        row = examples[kind]
        if profile.class_violation(row.sop_class_uid) is not None:
            refused += count
            continue
        try:
            decision = compression.decide(row, profile, is_lossy_already=lambda: False)
            changed += count if decision.recipe is not None else 0
        except InstanceRefused:
            refused += count
    return refused, changed


def _examined(
    profile: Profile,
    rows: Sequence[InstanceRow],
    there: set[int],
    options: RequestOptions,
    compression: Compression,
    path_of: Callable[[InstanceRow], Path],
    cancelled: Callable[[], bool],
) -> tuple[int, int]:
    """How many are refused and how many changed, as a plan would."""
    checked = check(
        rows,
        profile=profile,
        conflicts={},
        policy=options.conflicts,
        compression=compression,
        has_source=lambda row: row.id in there,
        is_lossy_already=lambda row: is_lossy_already(path_of(row)),
    )
    refuse_unfit(
        checked,
        profile=profile,
        path_of=lambda candidate: path_of(candidate.row),
        progress=lambda *_: None,
        cancelled=cancelled,
    )
    return len(checked.refused), sum(candidate.changes for candidate in checked.candidates)


class _Sizes:
    """How many discs instances need, about: their sizes as received, without directory."""

    def __init__(self, rows: Sequence[InstanceRow], *, many_patients: bool) -> None:
        self._sizes = sorted(ceil(row.file_bytes / _SECTOR) for row in rows)
        by_patient: Counter[int | None] = Counter()
        for row in rows:
            by_patient[None if many_patients else row.patient] += ceil(row.file_bytes / _SECTOR)
        self._groups = list(by_patient.values())

    def on(self, capacity: int) -> tuple[int, int]:
        """Instances that are larger than a disc, and discs for the patients."""
        oversized = len(self._sizes) - bisect_right(self._sizes, capacity)
        return oversized, sum(max(1, ceil(sectors / capacity)) for sectors in self._groups)


def _others(
    chosen: Profile, offers: Sequence[tuple[_Offer, Profile, mediatypes.MediaType, bool]]
) -> list[dict[str, Any]]:
    """The next best profiles, each once; ``examined`` is false where the numbers are the least that they can be."""
    told: dict[str, dict[str, Any]] = {}
    for offer, row, medium, examined in sorted(offers, key=lambda each: each[0]):
        if row.identifier != chosen.identifier and row.identifier not in told and len(told) < _OTHERS:
            told[row.identifier] = {
                "profile": row.identifier,
                "medium": medium.name,
                "refused": offer.refused,
                "changed": offer.changed,
                "discs": offer.discs,
                "examined": examined,
            }
    return list(told.values())


def _document(
    best: _Offer, row: Profile, medium: mediatypes.MediaType, count: int, others: list[dict[str, Any]]
) -> dict[str, Any]:
    fit = "all instances fit" if not best.refused else f"{count - best.refused} of {count} instances fit, most of all"
    change = f"{best.changed or 'none'} {'are' if best.changed > 1 else 'is'} changed"
    numbers = (best.refused, best.changed, best.discs)
    equal = any((other["refused"], other["changed"], other["discs"]) == numbers for other in others)
    first = "; the first of its equals in the table" if equal else ""
    return {
        "profile": row.identifier,
        "medium": medium.name,
        "reason": f"{fit}, {change}, about {best.discs} disc{'s' if best.discs != 1 else ''}{first}",
        "refused": best.refused,
        "changed": best.changed,
        "discs": best.discs,
        "others": others,
    }
