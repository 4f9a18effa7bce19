"""Roles and rights (``roles.toml``): which role may do what."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True, slots=True)
class Right:
    """What somebody may do."""

    name: str
    role: str
    """The least role that has it."""
    text: str


@cache
def _table() -> tuple[tuple[str, ...], dict[str, Right]]:
    values = tomllib.loads(resources.files("config").joinpath("roles.toml").read_text())
    rights = {name: Right(name, row["role"], row["text"]) for name, row in values["rights"].items()}
    return tuple(values["roles"]), rights


def roles() -> tuple[str, ...]:
    """All roles, the least first."""
    return _table()[0]


def rights() -> dict[str, Right]:
    """All rights by name."""
    return _table()[1]


def has(role: str, right: str) -> bool:
    """Whether a role has a right. KeyError for a right that is none; a role that is none has no rights."""
    least = rights()[right].role
    order = roles()
    return role in order and order.index(role) >= order.index(least)


def wrong_scopes(scopes: Iterable[str]) -> list[str]:
    """Those that are neither a right nor a role."""
    return [scope for scope in scopes if scope not in rights() and scope not in roles()]


def allows(scopes: Iterable[str], right: str) -> bool:
    """Whether a token's scopes (rights, or roles for all that a role may) hold a right."""
    return any(scope == right or (scope in roles() and has(scope, right)) for scope in scopes)
