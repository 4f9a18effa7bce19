"""What shall be changed in an instance's data set besides its encoding: corrected values, a new UID, references.

An Edits is a value: equal edits of equal bytes give equal bytes, so that its digest is part of a cache key.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Edit:
    """An element of the data set itself (not of an item) is given a value, or is taken out."""

    tag: int
    vr: str
    value: str | None
    """As text, several values parted by a backslash; ``""`` leaves it empty, None takes the element out."""
    why: str = ""
    """Where the value comes from, in words that stand in the change list."""


@dataclass(frozen=True, slots=True)
class Original:
    """How the former values of edited elements are kept in the instance: an item of its Original Attributes Sequence
    (0400,0561) (PS3.3 C.12.1.1.9). ASCII."""

    at: str
    """Attribute Modification DateTime, of VR DT."""
    system: str
    """Modifying System."""
    reason: str = "COERCE"
    """COERCE, CORRECT ..."""


@dataclass(frozen=True, slots=True)
class Edits:
    """All that is edited in one instance; ``Edits()`` changes nothing."""

    values: tuple[Edit, ...] = ()
    new_sop_instance_uid: str = ""
    """``""``: the SOP Instance UID stays."""
    uid_map: Mapping[str, str] = field(default_factory=dict)
    """Old to new SOP Instance UID of those changed instances that this one refers to."""
    original: Original | None = None
    """None: former values are not kept in it."""

    def __bool__(self) -> bool:
        return bool(self.values or self.new_sop_instance_uid or self.uid_map)

    @property
    def digest(self) -> str:
        """16 hex digits; part of the recipe under which what comes of it is kept."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """Equal edits give equal documents."""
        return {
            "values": [[edit.tag, edit.vr, edit.value, edit.why] for edit in sorted(self.values, key=_tag)],
            "new_sop_instance_uid": self.new_sop_instance_uid,
            "uid_map": dict(sorted(self.uid_map.items())),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Edits:
        return cls(
            tuple(Edit(*values) for values in document["values"]),
            document["new_sop_instance_uid"],
            document["uid_map"],
        )


NO_EDITS = Edits()


def _tag(edit: Edit) -> int:
    return edit.tag


def derived_uid(source_digest: str, sop_instance_uid: str, recipe: str) -> str:
    """A SOP Instance UID for what is made of an instance by a recipe: the same each time (PS3.5 B.2, ``2.25.``).

    ``source_digest`` is that of the data set as received, so that two instances under one UID get different ones.
    """
    digest = hashlib.sha256("\0".join((source_digest, sop_instance_uid, recipe)).encode()).digest()
    number = int.from_bytes(digest[:16], "big")
    # An RFC 9562 UUID of version 8 (vendor's own derivation), as 2.25 demands a valid UUID.
    number = number & ~(0xF << 76) | (8 << 76)
    number = number & ~(3 << 62) | (2 << 62)
    return f"2.25.{number}"


def recipe_key(recipe: str, edits: Edits | None) -> str:
    """The name under which what a recipe and edits make of an instance is kept."""
    return f"{recipe}+{edits.digest}" if edits else recipe
