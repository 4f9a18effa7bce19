"""Which instances are compressed and how: what the request says, and else the settings, within what the site protects.

A request's own word counts for all of its instances. Where it has none, the most particular setting does: SOP class,
modality, profile, default. Lossy compression needs the request's leave, and never touches what is protected.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from config.sections import Compress
from media.editing import top_values
from media.problems import NotDicom
from media.profiles import Profile, profiles
from media.recipes import Described, Quality, is_lossy, recipe_for

_LOSSY_IMAGE_COMPRESSION = 0x00282110
_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")
_MODALITY = re.compile(r"[A-Z0-9_ ]{1,16}")


def is_lossy_already(path: Path) -> bool:
    """Whether Lossy Image Compression (0028,2110) of a file is 01 (PS3.3 C.7.6.1.1.5); False for one not readable."""
    try:
        return top_values(path, frozenset((_LOSSY_IMAGE_COMPRESSION,))).get(_LOSSY_IMAGE_COMPRESSION, "") == "01"
    except NotDicom:
        return False


def problems(settings: Compress) -> list[str]:
    """What is wrong with the section, a line each: a key that nothing has protects and compresses nothing."""
    known = profiles()
    found = [f"compress.profiles: there is no profile {name!r}" for name in settings.profiles if name not in known]
    for name, uids in (
        ("sop_classes", tuple(settings.sop_classes)),
        ("protected_sop_classes", settings.protected_sop_classes),
    ):
        found += [f"compress.{name}: {uid!r} is no UID" for uid in uids if not _UID.fullmatch(uid)]
    for name, modalities in (
        ("modalities", tuple(settings.modalities)),
        ("quality", tuple(settings.quality)),
        ("protected_modalities", settings.protected_modalities),
    ):
        found += [f"compress.{name}: {one!r} is no modality" for one in modalities if not _MODALITY.fullmatch(one)]
    return found


class Imaged(Described, Protocol):
    """What a decision needs to know of an instance; a row of the spool will do."""

    @property
    def modality(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Decision:
    """What is done with an instance."""

    recipe: str | None
    """None: nothing, as far as its encoding goes."""
    instead: str | None = None
    """For a lossy recipe: the one to use where the pixel data turns out not to suit it."""
    note: str = ""
    """Why it is not compressed lossily, although that was wanted."""


@dataclass(frozen=True, slots=True)
class Compression:
    """The policy for one request."""

    settings: Compress
    wanted: str = ""
    """One of ``media.recipes.COMPRESS``; ``""``: the settings decide."""
    allow_lossy: bool = False

    def decide(
        self, row: Imaged, profile: Profile, *, is_lossy_already: Callable[[], bool], received_as: str = ""
    ) -> Decision:
        """InstanceRefused where the instance can be on no disc of this profile.

        ``is_lossy_already`` says whether Lossy Image Compression (0028,2110) is 01; it is asked only where that counts.
        ``received_as``: the modality, where that was corrected; its protection goes on.
        """
        mode = self.mode(row, profile)
        if mode != "lossy" or not row.has_pixel_data:
            return Decision(recipe_for(row, profile, mode))
        lossless = recipe_for(row, profile, "lossless")
        if reason := self._spared(row, (row.modality, received_as)):
            return Decision(lossless, note=reason)
        recipe = recipe_for(row, profile, "lossy", quality=self.quality(row.modality))
        if recipe is None or not is_lossy(recipe):
            return Decision(recipe)
        if not self.settings.lossy_again and is_lossy_already():
            return Decision(lossless, note="it was compressed lossily before, and once is enough")
        return Decision(recipe, instead=lossless)

    def mode(self, row: Imaged, profile: Profile) -> str:
        """What is wanted for an instance, allowed or not."""
        if self.wanted:
            return self.wanted
        settings = self.settings
        for table, key in (
            (settings.sop_classes, row.sop_class_uid),
            (settings.modalities, row.modality),
            (settings.profiles, profile.identifier),
        ):
            if key in table:
                return table[key]
        return settings.default

    def quality(self, modality: str) -> Quality:
        """Of a modality; what it does not say is as for all."""
        own = self.settings.quality.get(modality)
        jpeg, ratio = (own.jpeg, own.ratio) if own else (None, None)
        return Quality(jpeg or self.settings.jpeg_quality, ratio or self.settings.j2k_ratio)

    def _spared(self, row: Imaged, modalities: tuple[str, ...]) -> str:
        """Why an instance must not be compressed lossily; empty where it may."""
        if not self.allow_lossy:
            return "the request does not allow lossy compression"
        if row.sop_class_uid in self.settings.protected_sop_classes:
            return "its SOP class is protected from lossy compression (compress.protected_sop_classes)"
        for modality in modalities:
            if modality in self.settings.protected_modalities:
                return f"modality {modality} is protected from lossy compression (compress.protected_modalities)"
        return ""
