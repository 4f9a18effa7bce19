"""What a disc holds of an instance: all of it, or what lossy compression left."""

from __future__ import annotations

from sqlalchemy import ColumnElement, exists, or_

from media.encoders import lossy_encoders
from store.models import Derived, VolumeInstance


def holds_all() -> ColumnElement[bool]:
    """True for a VolumeInstance from which the pixel data as received can be had: its file is not a lossy one.

    Only such a disc is a copy of the instance: nothing is purged because of another.
    """
    lossy = or_(*(Derived.recipe.like(f"{encoder.name}-{encoder.letter}%") for encoder in lossy_encoders()))
    return ~exists().where(Derived.id == VolumeInstance.derived_id, lossy)
