"""What a disc holds of an instance: all of it, or what lossy compression left."""

from __future__ import annotations

from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, and_, false, func, or_, select
from sqlalchemy.orm import aliased

from media.encoders import lossy_encoders
from store.models import Derived, Instance, Patient, Series, Study
from store.models_jobs import VolumeInstance

_Query = TypeVar("_Query", bound="Select[*tuple[Any, ...]]")
_WHO = ("patient_id", "issuer_of_patient_id", "name_search", "patient_birth_date")


def holds_all() -> ColumnElement[bool]:
    """True for a VolumeInstance from which the pixel data as received can be had: its file is not a lossy one.

    Only such a disc is a copy of the instance: nothing is purged because of another.
    """
    # Not NOT EXISTS: PostgreSQL would look through all conformed files for each instance, instead of at one of them.
    found = select(Derived.id).where(Derived.id == VolumeInstance.derived_id, is_lossy()).correlate(VolumeInstance)
    return or_(VolumeInstance.derived_id.is_(None), found.scalar_subquery().is_(None))


def is_lossy() -> ColumnElement[bool]:
    """True for a Derived that has lost some of the pixel data."""
    return or_(*(Derived.recipe.like(f"{encoder.name}-{encoder.letter}%") for encoder in lossy_encoders()))


def names_its_patient() -> ColumnElement[bool]:
    """True for a VolumeInstance whose file names the patient whom the instance was received for.

    Rules may give a file on a disc another name or number, or none: such a file is not burnt again as the instance
    received, and nothing is purged because of it.
    """
    received = aliased(Instance)
    found = (
        select(Derived.id)
        .join(received, received.id == VolumeInstance.instance_id)
        .join(Series, Series.id == received.series_id)
        .join(Study, Study.id == Series.study_id)
        .join(Patient, Patient.id == Study.patient_id)
        .where(Derived.id == VolumeInstance.derived_id, _names_another())
        .correlate(VolumeInstance)
    )
    return or_(VolumeInstance.derived_id.is_(None), found.scalar_subquery().is_(None))


def is_made_of() -> ColumnElement[bool]:
    """Joins an Instance with each Derived that was made of it."""
    return and_(Derived.source_digest == Instance.digest, Derived.sop_instance_uid == Instance.sop_instance_uid)


def with_conformed(query: _Query) -> _Query:
    """A statement that has Instance, with its conformed files and its patient: what ``is_of_another`` looks at."""
    return (
        query.join(Derived, is_made_of())
        .outerjoin(Series, Series.id == Instance.series_id)
        .outerjoin(Study, Study.id == Series.study_id)
        .outerjoin(Patient, Patient.id == Study.patient_id)
    )


def is_of_another() -> ColumnElement[bool]:
    """The opposite of ``names_its_patient`` for a Derived, in a statement that ``with_conformed`` made."""
    return func.coalesce(_names_another(), false())


def _names_another() -> ColumnElement[bool]:
    return or_(*(Derived.facts[name].as_string() != getattr(Patient, name) for name in _WHO))


def made_for_another(file: type[Derived]) -> ColumnElement[bool]:
    """True for a conformed file (an alias) that names another patient than its Instance, which the statement has."""
    own = (
        select(Patient.id)
        .join(Study, Study.patient_id == Patient.id)
        .join(Series, Series.study_id == Study.id)
        .where(
            Series.id == Instance.series_id,
            or_(*(file.facts[name].as_string() != getattr(Patient, name) for name in _WHO)),
        )
        .correlate(Instance, file)
    )
    return own.exists()
