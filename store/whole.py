"""What a disc holds of an instance: all of it, or what lossy compression left."""

from __future__ import annotations

from sqlalchemy import ColumnElement, or_, select

from media.encoders import lossy_encoders
from store.models import Derived, VolumeInstance


def holds_all() -> ColumnElement[bool]:
    """True for a VolumeInstance from which the pixel data as received can be had: its file is not a lossy one.

    Only such a disc is a copy of the instance: nothing is purged because of another.
    """
    lossy = or_(*(Derived.recipe.like(f"{encoder.name}-{encoder.letter}%") for encoder in lossy_encoders()))
    # Not NOT EXISTS: PostgreSQL would look through all conformed files for each instance, instead of at one of them.
    found = select(Derived.id).where(Derived.id == VolumeInstance.derived_id, lossy).correlate(VolumeInstance)
    return or_(VolumeInstance.derived_id.is_(None), found.scalar_subquery().is_(None))
