"""Application profiles of PS3.11 as rows of config/profiles.toml, and what they allow."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from media.problems import MediaError

_NO_INSTANCE = frozenset(("1.2.840.10008.1.3.10",))
"""Media Storage Directory Storage: the DICOMDIR itself, never an instance in the file-set."""


class ProfileError(MediaError):
    """An application profile that we do not know, or one that does not go with the medium; wrong usage."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One application profile."""

    identifier: str
    description: str
    annex: str
    """Of PS3.11."""
    media: tuple[str, ...]
    """Names of the media types that it allows; none where what carries it is not written yet."""
    default_medium: str
    """The one that is meant where a request names none."""
    writes: tuple[str, ...]
    """UIDs of the transfer syntaxes in which we write instances; the first is what others are conformed to."""
    reads: tuple[str, ...]
    """UIDs of the transfer syntaxes that a disc may hold and that its readers must read."""
    sop_classes: frozenset[str]
    """UIDs of the SOP classes that it allows; empty: every composite storage SOP class that has a directory record."""
    by_class: Mapping[str, tuple[str, ...]]
    """SOP classes whose instances are in these transfer syntaxes and no others."""
    rules: tuple[str, ...]
    """Sets of config/profile_rules.toml."""
    roles: tuple[str, ...]
    """FSC, FSR, FSU: those that the profile defines."""
    directory_keys: str
    """Table of PS3.11 with its additional DICOMDIR keys."""
    clauses: Mapping[str, str]
    """Clauses of PS3.11 for ``identification``, ``syntaxes``, ``medium`` and ``directory``."""
    status: str = "ready"
    """``ready``, or ``coming``: known, but not written yet."""
    reason: str = ""
    """Why it is not written yet."""
    security: str = ""
    """Media storage security profile of PS3.15 that it demands; empty: none."""
    random_file_ids: bool = False
    """File IDs have random numbers (PS3.11 C.3.3.2)."""

    def clause(self, what: str) -> str:
        """``PS3.11 D.3.1`` and the like, for a message."""
        return f"PS3.11 {self.clauses[what]}"

    def may_write(self, sop_class_uid: str) -> tuple[str, ...]:
        """Transfer syntaxes in which we put instances of this SOP class on such a disc."""
        return self.by_class.get(sop_class_uid, self.writes)

    def may_hold(self, sop_class_uid: str) -> tuple[str, ...]:
        """Transfer syntaxes in which instances of this SOP class may be on such a disc."""
        return self.by_class.get(sop_class_uid, self.reads)

    def class_violation(self, sop_class_uid: str) -> str | None:
        """Why instances of this SOP class may not be on a disc of this profile; None if they may."""
        if sop_class_uid in _NO_INSTANCE:
            return f"SOP class {sop_class_uid} (a DICOMDIR) is no composite instance ({self.clause('syntaxes')})"
        if self.sop_classes and sop_class_uid not in self.sop_classes:
            return f"SOP class {sop_class_uid} is not one of {self.identifier} ({self.clause('syntaxes')})"
        return None

    def syntax_violation(self, sop_class_uid: str, transfer_syntax_uid: str) -> str | None:
        """Why an instance may not be on a disc of this profile in this transfer syntax; None if it may."""
        allowed = self.may_hold(sop_class_uid)
        if transfer_syntax_uid in allowed:
            return None
        return (
            f"transfer syntax {transfer_syntax_uid or 'none'} is not one of {self.identifier} "
            f"({self.clause('syntaxes')}: {', '.join(allowed)})"
        )

    def violations(self, sop_class_uid: str, transfer_syntax_uid: str) -> tuple[str, ...]:
        """Why a file of this SOP class and transfer syntax may not be on a disc of this profile; empty if it may."""
        found = (self.class_violation(sop_class_uid), self.syntax_violation(sop_class_uid, transfer_syntax_uid))
        return tuple(violation for violation in found if violation is not None)


@cache
def profiles() -> Mapping[str, Profile]:
    """Every profile, by identifier, in the order of the table."""
    table: dict[str, dict[str, Any]] = {}
    rows = tomllib.loads(resources.files("config").joinpath("profiles.toml").read_text("utf-8"))
    for identifier, own in rows.items():
        table[identifier] = {**table[own["like"]], **own} if "like" in own else own
    return {
        identifier: Profile(
            identifier=identifier,
            description=row["description"],
            annex=row["annex"],
            media=tuple(row["media"]),
            default_medium=row["default_medium"],
            writes=tuple(row["writes"]),
            reads=tuple(row["reads"]),
            sop_classes=frozenset() if row["sop_classes"] == "composite" else frozenset(row["sop_classes"]),
            by_class={uid: tuple(syntaxes) for uid, syntaxes in row.get("by_class", {}).items()},
            rules=tuple(row.get("rules", ())),
            roles=tuple(row["roles"]),
            directory_keys=row["directory_keys"],
            clauses=dict(row["clauses"]),
            status=row.get("status", "ready"),
            reason=row.get("reason", ""),
            security=row.get("security", ""),
            random_file_ids=row.get("random_file_ids", False),
        )
        for identifier, row in table.items()
    }


def profile(identifier: str) -> Profile:
    """The profile of this identifier (in any case); ProfileError names those that are like it."""
    try:
        return profiles()[identifier.upper()]
    except KeyError:
        near = difflib.get_close_matches(identifier.upper(), profiles(), n=6, cutoff=0.7)
        like = f"like it are {', '.join(near)}; " if near else ""
        known = "`burnish profiles` lists all"
        raise ProfileError(f"There is no application profile {identifier[:64]!r}; {like}{known}") from None


def check_pair(identifier: str, medium: str) -> Profile:
    """The profile, if it allows this media type; ProfileError names the pairs that each of them allows otherwise."""
    row = profile(identifier)
    require_ready(row)
    if medium not in row.media:
        others = (other for other in profiles_for(medium) if other.status == "ready")
        pairs = "; ".join([_pair(row), *(_pair(other) for other in others)])
        raise ProfileError(
            f"Profile {row.identifier} does not go with medium {medium} ({row.clause('medium')}). Allowed are: {pairs}"
        )
    return row


def _pair(row: Profile) -> str:
    return f"{row.identifier} with {', '.join(row.media)}"


def require_ready(row: Profile) -> None:
    """ProfileError with the reason for a profile under which nothing is written yet."""
    if row.status != "ready":
        raise ProfileError(
            f"Profile {row.identifier} is not written yet: {row.reason} ({row.clause('identification')})"
        )


def profiles_for(medium: str) -> tuple[Profile, ...]:
    """The profiles that allow this media type, in the order of the table."""
    return tuple(row for row in profiles().values() if medium in row.media)
