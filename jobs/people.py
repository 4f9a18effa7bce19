"""Whose instance it is after its attributes were corrected.

A corrected instance joins a person only where Patient ID, issuer, name and birth date agree, as any other does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy.orm import Session

from media.conform import IDENTITY
from media.items import Header
from store import plans
from store.registration import patient_identity

_STRANGERS = 1 << 48
"""Keys of people whom the catalogue does not know; its own never get so high."""


class People:
    """Keys of people, for grouping: those of the catalogue where it knows them."""

    def __init__(self, session: Session, corrected: Iterable[Mapping[str, Any] | None]) -> None:
        """``corrected``: ``Derived.facts`` of all the instances that will be asked for."""
        identities = {found for facts in corrected if (found := identity_of(facts))}
        self._known = plans.patients_by_identity(session, identities) if identities else {}

    def key(self, patient: int | None, facts: Mapping[str, Any] | None) -> int | None:
        """``patient``: the key of the person as received; ``facts``: what was corrected."""
        identity = identity_of(facts)
        if not identity:
            return patient
        return self._known.get(identity, _STRANGERS | int(identity[:11], 16))


def identity_of(facts: Mapping[str, Any] | None) -> str:
    """Who an instance's patient is by ``Derived.facts``; empty where that was not corrected."""
    if not facts or "patient_id" not in facts:
        return ""
    return patient_identity(Header("", "", "", **{name: facts[name] for name in IDENTITY}))
