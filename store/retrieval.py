"""What a C-MOVE or C-GET means: which instances, and where the bytes of each are (PS3.4 C.4.2, C.4.3).

The spool has an instance as received. Where it was purged, a conformed file of it may be back from a disc, or the image
file of a verified disc may have it (NEARLINE); one made of it under a new UID is another instance. A file that names
another patient than the instance was received for is never given out as that instance: who receives it would file it
under somebody else. Of several with one SOP Instance UID the first received is meant.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from store.models import Derived, Instance, Patient, Series, Study
from store.models_jobs import VolumeInstance
from store.query_facts import first_of_its_uid, on_disc, verified_volumes
from store.query_keys import Level
from store.whole import is_of_another, names_its_patient, with_conformed

_COLUMNS: Mapping[Level, Any] = {
    "PATIENT": Patient.patient_id,
    "STUDY": Study.study_instance_uid,
    "SERIES": Series.series_instance_uid,
    "IMAGE": Instance.sop_instance_uid,
}
Wanted = Mapping[Level, Sequence[str]]
"""Values of the unique keys of the levels that were given."""


@dataclass(frozen=True, slots=True)
class Place:
    """A file of a disc's image that is the instance."""

    image: Path
    """An image file, or a folder with the disc's files."""
    file_id: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Restored:
    """A conformed file that came back from a disc."""

    path: str
    """Relative to the derived folder."""
    size: int
    transfer_syntax_uid: str


@dataclass(slots=True)
class Held:
    """An instance that is to be sent."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    """As received; a disc may have it in another."""
    spool_path: str | None
    file_bytes: int
    dataset_bytes: int
    restored: Restored | None = None
    """Its conformed file, if it is not in the spool."""
    places: list[Place] = field(default_factory=list)
    """Where else it can be read now, if it is not in the spool."""
    file_sets: list[str] = field(default_factory=list)
    """File-set IDs of verified discs that hold it, if it is not in the spool."""
    renamed: bool = False
    """Whether there are files of it that name another patient. None of them is in ``restored``, ``places`` or
    ``file_sets``."""

    @property
    def only_renamed(self) -> bool:
        """Whether it is there under another patient's name or number, and no other way."""
        return self.renamed and self.spool_path is None and self.restored is None and not self.file_sets


def wanted_ids(session: Session, wanted: Wanted) -> array[int]:
    """Primary keys of the instances, series by series in the order of receipt. 8 bytes each is all that is held."""
    return wanted_and_purged(session, wanted)[0]


def wanted_and_purged(session: Session, wanted: Wanted) -> tuple[array[int], array[int]]:
    """The same, and beside it those of them that are not in the spool."""
    statement = (
        select(Instance.id, Instance.spool_path.is_(None))
        .select_from(Patient)
        .join(Study, Study.patient_id == Patient.id)
        .join(Series, Series.study_id == Study.id)
        .join(Instance, Instance.series_id == Series.id)
        .where(*_conditions(wanted))
        .order_by(Series.id, Instance.id)
        .execution_options(yield_per=1000)
    )
    ids, purged = array("q"), array("q")
    for row_id, is_purged in session.execute(statement):
        ids.append(row_id)
        if is_purged:
            purged.append(row_id)
    return ids, purged


def wanted_contexts(session: Session, wanted: Wanted) -> list[tuple[str, str]]:
    """SOP class and transfer syntax of what would be sent, the most frequent first."""
    syntax = func.coalesce(Derived.transfer_syntax_uid, Instance.transfer_syntax_uid)
    base = (
        select(Instance.sop_class_uid, syntax, func.count())
        .select_from(Patient)
        .join(Study, Study.patient_id == Patient.id)
        .join(Series, Series.study_id == Study.id)
        .join(Instance, Instance.series_id == Series.id)
        .outerjoin(VolumeInstance, (VolumeInstance.instance_id == Instance.id) & Instance.spool_path.is_(None))
        .outerjoin(Derived, Derived.id == VolumeInstance.derived_id)
        .where(*_conditions(wanted), or_(Instance.spool_path.is_not(None), VolumeInstance.volume_id.is_not(None)))
        .group_by(Instance.sop_class_uid, syntax)
        .order_by(func.count().desc(), Instance.sop_class_uid, syntax)
    )
    return [(sop_class, uid) for sop_class, uid, _ in session.execute(base)]


def _conditions(wanted: Wanted) -> list[ColumnElement[bool]]:
    given = [_COLUMNS[level].in_(values) for level, values in wanted.items() if values]
    assert given, "a retrieve of everything"
    return [first_of_its_uid(), *given]


def held(session: Session, ids: Sequence[int]) -> list[Held]:
    """Some hundred instances with where they are, in the order of ``ids``; those deleted meanwhile are left out."""
    return list(held_by_id(session, ids).values())


def held_by_id(session: Session, ids: Sequence[int]) -> dict[int, Held]:
    """The same by their ids."""
    rows = {
        row.id: row
        for row in session.execute(
            select(
                Instance.id,
                Instance.sop_class_uid,
                Instance.sop_instance_uid,
                Instance.transfer_syntax_uid,
                Instance.spool_path,
                Instance.file_bytes,
                Instance.dataset_bytes,
            ).where(Instance.id.in_(list(ids)))
        )
    }
    found = {row_id: Held(*row[1:]) for row_id, row in rows.items()}
    purged = [row_id for row_id, row in rows.items() if row.spool_path is None]
    if purged:
        _add_restored(session, found, purged)
        _add_places(session, found, purged)
    return {row_id: found[row_id] for row_id in ids if row_id in found}


def _add_restored(session: Session, found: Mapping[int, Held], purged: Sequence[int]) -> None:
    rows = session.execute(
        with_conformed(
            select(
                Instance.id, Derived.path, Derived.size, Derived.transfer_syntax_uid, is_of_another().label("another")
            )
        )
        .where(Instance.id.in_(list(purged)), Derived.restored_at.is_not(None), Derived.new_sop_instance_uid.is_(None))
        .order_by(Derived.facts.is_(None), Derived.restored_at.desc())  # the last counts: as little changed as can be
    )
    for row_id, path, size, syntax, another in rows:
        if another:
            found[row_id].renamed = True
        else:
            found[row_id].restored = Restored(path, size, syntax)


def _add_places(session: Session, found: Mapping[int, Held], purged: Sequence[int]) -> None:
    columns: Any = select(
        Instance.id,
        VolumeInstance.volume_id,
        VolumeInstance.file_id,
        VolumeInstance.sha256,
        names_its_patient().label("own"),
    )
    statement = on_disc(columns).where(Instance.id.in_(list(purged)))
    # What is on the disc as it was received is better than what was made of it.
    rows = list(session.execute(statement.order_by(VolumeInstance.derived_id.is_not(None), VolumeInstance.volume_id)))
    volumes = verified_volumes(session, {row.volume_id for row in rows})
    for row_id, volume_id, file_id, sha256, own in rows:
        volume = volumes.get(volume_id)
        if volume is None:
            continue
        if not own:
            found[row_id].renamed = True
            continue
        found[row_id].file_sets.append(volume.file_set_id)
        if volume.image is not None:
            found[row_id].places.append(Place(volume.image, file_id, sha256))
