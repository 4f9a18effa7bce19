"""Recipes: names for what is done to an instance so that a profile allows it.

A recipe's name and version are a cache key: the same source and recipe give the same bytes. ``explicit-le/1`` decodes
the pixel data, ``edit/1`` leaves it alone, the others compress it (config/codecs.toml); a lossy one carries its quality
or ratio, as in ``jpeg-extended-q95/1``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from media.encoders import encoder_of, encoders, lossy_encoders
from media.part10 import EXPLICIT_LE
from media.pixellimits import pixel_limits
from media.problems import InstanceRefused, MediaError
from media.profiles import Profile
from media.syntaxes import TransferSyntax, require_decodable, transfer_syntax

EXPLICIT_LE_RECIPE = "explicit-le/1"
EDIT_RECIPE = "edit/1"
"""Attributes are changed, pixel data and transfer syntax stay."""

COMPRESS = ("none", "lossless", "lossy", "keep")
"""Uncompressed throughout; compressed where the profile has a syntax for it; as received where it may be."""


class Described(Protocol):
    """What ``recipe_for`` needs to know of an instance; a Header or a row of the spool will do."""

    @property
    def transfer_syntax_uid(self) -> str: ...
    @property
    def sop_class_uid(self) -> str: ...
    @property
    def sop_instance_uid(self) -> str: ...
    @property
    def photometric_interpretation(self) -> str: ...
    @property
    def has_pixel_data(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Quality:
    """How much a lossy compression may lose."""

    jpeg: int = 95
    """Of JPEG, 50 to 100, on the scale of the Independent JPEG Group."""
    ratio: int = 8
    """Of JPEG 2000, 2 to 100: one part of so many."""


DEFAULT_QUALITY = Quality()


def recipe_syntax(recipe: str) -> str:
    """UID of the transfer syntax that a recipe writes; ``""`` where it keeps the instance's own.

    MediaError for a recipe that does not exist.
    """
    if recipe == EXPLICIT_LE_RECIPE:
        return EXPLICIT_LE
    if recipe == EDIT_RECIPE:
        return ""
    encoder = encoder_of(recipe)
    if encoder is None:
        raise MediaError(f"There is no recipe {recipe!r}")
    return encoder.syntax


def is_lossy(recipe: str) -> bool:
    """Whether samples may change, so that the instance needs a new SOP Instance UID. False for what is no recipe."""
    encoder = encoder_of(recipe)
    return encoder is not None and encoder.lossy


def may_shift(recipe: str) -> bool:
    """Whether stored values may be shifted or divided, with rescaling that makes up for it: lossy JPEG only."""
    encoder = encoder_of(recipe)
    return encoder is not None and encoder.codec == "jpeg"


def recipe_for(
    instance: Described, profile: Profile, compress: str = "none", *, quality: Quality = DEFAULT_QUALITY
) -> str | None:
    """How this instance must be changed for this profile; None: it goes on the disc byte for byte.

    ``compress`` is one of ``COMPRESS``; whether lossy may be asked for is the caller's to know, and where no lossy
    syntax is allowed a lossless one does. What is compressed already, in a syntax that the profile allows, is not
    compressed again, except losslessly compressed images where lossy is asked for. InstanceRefused, without looking
    into any file, for a transfer syntax that the profile does not allow and that we cannot decode, and where we cannot
    make any that it allows.
    """
    syntax = transfer_syntax(instance.transfer_syntax_uid)
    writes, holds = profile.may_write(instance.sop_class_uid), profile.may_hold(instance.sop_class_uid)
    if compress == "keep" and syntax.uid in holds:
        return None
    may_lose = instance.has_pixel_data and pixel_limits(instance.sop_class_uid).may_lose
    if compress == "lossy" and may_lose and not syntax.refused and _has_all(syntax):
        for recipe in _lossy(instance, quality):
            if recipe_syntax(recipe) in holds:
                return recipe
    if compress in ("lossless", "lossy") and instance.has_pixel_data:
        if syntax.codec not in ("", "none") and syntax.uid in holds:
            return None
        for recipe, encoder in encoders().items():
            if encoder.syntax in holds and not syntax.refused:
                return recipe
    if syntax.uid in writes:
        return None
    makes = {EXPLICIT_LE, *(encoder.syntax for encoder in encoders().values())}
    if not makes.intersection((*writes, *holds)):
        reason = f"{profile.syntax_violation(instance.sop_class_uid, syntax.uid)}, and none of these is encoded here"
        raise InstanceRefused("INST_AP_CONFLICT", reason)
    require_decodable(syntax, instance.sop_instance_uid)
    if EXPLICIT_LE in writes:
        return EXPLICIT_LE_RECIPE
    for recipe, encoder in encoders().items():
        if encoder.syntax in writes and instance.has_pixel_data:
            return recipe
    reason = f"{profile.syntax_violation(instance.sop_class_uid, EXPLICIT_LE)}, and it has no pixel data to compress"
    raise InstanceRefused("INST_AP_CONFLICT", reason)


def _has_all(syntax: TransferSyntax) -> bool:
    """Whether nothing was lost by this syntax: what a lossy codec has had already is spared a second one."""
    return syntax.lossless or syntax.codec in ("", "none", "deflate")


def _lossy(instance: Described, quality: Quality) -> Iterator[str]:
    """Lossy recipes that suit the instance, the best first."""
    grey = not instance.photometric_interpretation or instance.photometric_interpretation.startswith("MONOCHROME")
    ranked = ((encoder.grey if grey else encoder.colour, encoder) for encoder in lossy_encoders())
    for rank, encoder in sorted(ranked, key=lambda each: each[0]):
        wanted = quality.jpeg if encoder.letter == "q" else quality.ratio
        if rank:
            yield replace(encoder, parameter=min(max(wanted, encoder.least), encoder.most)).recipe
