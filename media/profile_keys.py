"""Additional DICOMDIR keys of the application profiles, as named sets from config/profile_keys.toml (PS3.11)."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import config
from media.iconforms import recipe_of
from media.problems import MediaError


@dataclass(frozen=True, slots=True)
class AddedKey:
    """A key that a profile adds to a record type; see the head of config/profile_keys.toml."""

    tag: int
    keyword: str
    type: str
    sop_class: frozenset[str]
    image_type_3: frozenset[str]

    @property
    def conditional(self) -> bool:
        """Whether ``holds`` depends on the instance."""
        return bool(self.sop_class or self.image_type_3)

    def holds(self, sop_class_uid: str, image_type: bytes) -> bool:
        """Whether its condition holds for an instance; ``image_type``: the value of Image Type (0008,0008)."""
        if self.sop_class and sop_class_uid not in self.sop_class:
            return False
        if not self.image_type_3:
            return True
        values = image_type.decode("latin_1").split("\\")
        return len(values) > 2 and values[2].strip(" \0") in self.image_type_3


@dataclass(frozen=True, slots=True)
class IconRule:
    """What a profile says of the icons of its IMAGE records."""

    clause: str
    size: int
    """Rows and Columns."""
    photometric: tuple[str, ...]
    """Photometric Interpretations that they may have."""
    bits_stored: int | None
    required: bool
    """Whether each IMAGE record must have one."""

    @property
    def recipe(self) -> str:
        """How ours are made (``media.icons``)."""
        return recipe_of(self.size, colour="PALETTE COLOR" in self.photometric)


ICON_RECORD = "IMAGE"
"""The type of the records to which we add icons."""


@dataclass(frozen=True, eq=False)
class KeySet:
    """The additional keys of the profiles of one table; ``keys``: by record type, then by tag."""

    name: str
    clause: str
    keys: Mapping[str, Mapping[int, AddedKey]]
    icon: IconRule | None
    """None: the profile does not speak of icons."""


def _set(name: str, row: Mapping[str, object]) -> KeySet:
    keys: dict[str, dict[int, AddedKey]] = {}
    listed = row["keys"]
    assert isinstance(listed, list)
    for key in listed:
        when = key.get("when", {})
        added = AddedKey(
            tag=int(key["tag"], 16),
            keyword=key["keyword"],
            type=key["type"],
            sop_class=frozenset(when.get("sop_class", ())),
            image_type_3=frozenset(when.get("image_type_3", ())),
        )
        for record_type in key["records"]:
            keys.setdefault(record_type, {})[added.tag] = added
    icon = row.get("icon")
    return KeySet(name, str(row["clause"]), keys, _icon_rule(icon) if isinstance(icon, dict) else None)


def _icon_rule(row: Mapping[str, Any]) -> IconRule:
    return IconRule(
        row["clause"], row["size"], tuple(row["photometric"]), row.get("bits_stored"), bool(row["required"])
    )


@functools.cache
def key_sets() -> Mapping[str, KeySet]:
    """Every set by its name."""
    table = tomllib.loads(Path(config.__file__).with_name("profile_keys.toml").read_text(encoding="utf-8"))
    return {name: _set(name, row) for name, row in table["set"].items()}


def key_set(name: str) -> KeySet:
    """The set of this name; MediaError where there is none."""
    try:
        return key_sets()[name]
    except KeyError:
        raise MediaError(f"There is no set {name!r} of additional DICOMDIR keys") from None


@functools.cache
def is_added(record_type: str, tag: int) -> bool:
    """Whether any profile adds this key to this record type."""
    return any(tag in one.keys.get(record_type, {}) for one in key_sets().values())
