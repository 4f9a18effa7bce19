"""The keys of Query/Retrieve, from config/query.toml, and what is asked for by them (PS3.4 C.2.2)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import config
from media.attributes import Attribute, Attributes

Level = Literal["PATIENT", "STUDY", "SERIES", "IMAGE"]
LEVELS: tuple[Level, ...] = ("PATIENT", "STUDY", "SERIES", "IMAGE")
FIRST, COMPUTED = "first", "computed"
RETRIEVE_AE_TITLE, INSTANCE_AVAILABILITY = 0x00080054, 0x00080056
FILE_SET_ID, FILE_SET_UID = 0x00880130, 0x00880140


@dataclass(frozen=True, slots=True)
class Key:
    """A key; see the head of config/query.toml for the meaning of each field."""

    level: Level
    tag: int
    keyword: str
    vr: bytes
    source: str
    type: str
    matched: bool
    items: tuple[int, ...]


def _keys(level: Level, rows: list[dict[str, object]]) -> list[Key]:
    return [
        Key(
            level,
            int(str(row["tag"]), 16),
            str(row["keyword"]),
            str(row["vr"]).encode("ascii"),
            str(row["source"]),
            str(row.get("type", "O")),
            row["source"] != COMPUTED or bool(row.get("matched")),
            tuple(int(tag, 16) for tag in row.get("items", ())),  # type: ignore[attr-defined]
        )
        for row in rows
    ]


_TABLE = tomllib.loads(Path(config.__file__).with_name("query.toml").read_text(encoding="utf-8"))
KEYS: Mapping[int, Key] = {key.tag: key for level in LEVELS for key in _keys(level, _TABLE[level])}
"""Every key by its tag."""
UNIQUE: Mapping[Level, Key] = {key.level: key for key in KEYS.values() if key.type == "U"}
"""The unique key of each level."""
FACTS: Mapping[int, bytes] = {
    RETRIEVE_AE_TITLE: b"AE",
    INSTANCE_AVAILABILITY: b"CS",
    FILE_SET_ID: b"SH",
    FILE_SET_UID: b"UI",
}
"""What a response tells whether or not it is asked for (PS3.4 C.4.1.1.3.2), with VRs."""


def keys_at(level: Level) -> list[Key]:
    """What can be asked for at a level: its keys, and those of the levels above that are not computed."""
    above = LEVELS[: LEVELS.index(level)]
    return [key for key in KEYS.values() if key.level == level or (key.level in above and key.source != COMPUTED)]


@dataclass(frozen=True, slots=True)
class Query:
    """What a C-FIND asks for: at which level, by which keys."""

    level: Level
    keys: Mapping[int, Attribute]
    """Keys by tag; those without a value are to be returned only."""
    combined_datetime: bool = False
    """Date and time ranges are one range each (PS3.4 C.2.2.2.5.1), as was negotiated."""

    def supported(self) -> list[Key]:
        """The keys that are ours, at their places."""
        return [key for key in keys_at(self.level) if key.tag in self.keys]

    def values(self, tag: int) -> tuple[str, ...]:
        """The values that a key is to match; none for universal matching."""
        attribute = self.keys.get(tag)
        return text_values(attribute) if attribute is not None else ()


def text_values(attribute: Attribute) -> tuple[str, ...]:
    """Values without padding and empty ones; none where nothing narrows the search."""
    vr, value = attribute
    if isinstance(value, tuple):
        return ()
    if isinstance(value, bytes):
        words = [str(int.from_bytes(value[at : at + 2], "little")) for at in range(0, len(value), 2)]
        return tuple(words) if vr == b"US" else ()
    values = tuple(text for part in value.replace("\0", "").split("\\") if (text := part.strip()))
    return () if any(not text.strip("*") for text in values) else values


def item_of(attribute: Attribute) -> Attributes:
    """The one item of a sequence that is to be matched; empty for universal matching (PS3.4 C.2.2.2.6)."""
    return attribute.value[0] if isinstance(attribute.value, tuple) and attribute.value else {}
