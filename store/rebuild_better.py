"""What a damaged disc told wrongly, or not at all, gives way to a better copy of it that is read later.

So the catalogue does not depend on the order in which discs come.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from media.discread import DiscFound
from store import entering
from store.bulk import chunks
from store.checks import GOOD, WORN
from store.models import Derived, Instance, Patient, Series, Study
from store.models_archive import RecallInstance
from store.models_jobs import Disc, Plan, RequestInstance, Volume, VolumeInstance

_UNSEEN = {"synchronize_session": False}
"""No row that is removed here is held as an object."""


def is_better(session: Session, volume: Volume, found: DiscFound) -> bool:
    """Whether a volume is known from damaged discs alone, and this medium's manifest vouches for what is on it."""
    if volume.origin != "rebuilt" or volume.image_sha256 is not None or _was_whole_once(session, volume):
        return False
    return any(one.vouched for one in found.files)


def worse_rows(volume: Volume, found: DiscFound, kept: Mapping[str, tuple[str, int]]) -> list[str]:
    """The files of a volume whose rows are worth less than what this better medium says.

    Those that its manifest vouches for, where the rows have others bytes or another place, or came from a disc without
    its ``VOLUMES.TXT``, which tells how instances were received. ``kept``: SHA-256 and position by File ID, as the
    catalogue has them.
    """
    tells_more = volume.set_catalogue is None and found.set_catalogue is not None
    return [
        one.name
        for one in found.files
        if one.vouched and one.name in kept and (tells_more or kept[one.name] != (one.sha256, one.position))
    ]


def _was_whole_once(session: Session, volume: Volume) -> bool:
    sound = (Disc.volume_id == volume.id, Disc.checked_result.in_((GOOD, WORN)))
    return session.scalars(select(Disc.id).where(*sound).limit(1)).first() is not None


def take_back(session: Session, volume: Volume, names: Sequence[str]) -> None:
    """Take these files of a volume out of the catalogue, and whatever nothing else in it knows of then."""
    for chunk in chunks(names):
        of_these = (VolumeInstance.volume_id == volume.id, VolumeInstance.file_id.in_(chunk))
        rows = session.execute(select(VolumeInstance.instance_id, VolumeInstance.derived_id).where(*of_these)).all()
        session.execute(delete(VolumeInstance).where(*of_these), execution_options=_UNSEEN)
        instances = {row.instance_id for row in rows}
        _forget_made(session, {row.derived_id for row in rows if row.derived_id is not None}, instances)
        _forget_instances(session, volume, instances)


def _forget_made(session: Session, ids: Collection[int], made_of: Collection[int]) -> None:
    """Conformed files that are on no other disc, and of which there is no file. ``made_of``: the instances that they
    were made of, by which (and not by themselves) discs with them are found without looking through all.
    """
    by_instance = VolumeInstance.instance_id.in_(made_of)
    used = select(VolumeInstance.volume_id).where(by_instance, VolumeInstance.derived_id == Derived.id).exists()
    no_file = (Derived.path.like(f"%{entering.ABSENT}"), Derived.restored_at.is_(None))
    session.execute(delete(Derived).where(Derived.id.in_(ids), ~used, *no_file), execution_options=_UNSEEN)


def _forget_instances(session: Session, volume: Volume, ids: Collection[int]) -> None:
    """Instances that are nowhere but on this volume, with the series, studies and patients that have nothing else."""
    in_set = select(VolumeInstance.volume_id).join(Volume, Volume.id == VolumeInstance.volume_id)
    in_set = in_set.where(Volume.plan_id == volume.plan_id, VolumeInstance.instance_id == RequestInstance.instance_id)
    asked = RequestInstance.request_id == session.get_one(Plan, volume.plan_id).request_id
    session.execute(
        delete(RequestInstance).where(asked, RequestInstance.instance_id.in_(ids), ~in_set.exists()),
        execution_options=_UNSEEN,
    )
    known_by = (VolumeInstance.instance_id, RequestInstance.instance_id, RecallInstance.instance_id)
    nowhere = (~select(column).where(column == Instance.id).exists() for column in known_by)
    found = session.execute(
        select(Instance.id, Instance.sop_instance_uid, Instance.series_id).where(
            Instance.id.in_(ids), Instance.spool_path.is_(None), *nowhere
        )
    ).all()
    gone = [row.id for row in found]
    session.execute(
        update(Instance).where(Instance.conflict_of.in_(gone)).values(conflict_of=None), execution_options=_UNSEEN
    )
    _remove(session, Instance.id, gone)
    entering.settle_conflicts(session, {row.sop_instance_uid for row in found})
    studies = _forget_empty(session, Series.id, Series.study_id, Instance.series_id, {row.series_id for row in found})
    patients = _forget_empty(session, Study.id, Study.patient_id, Series.study_id, studies)
    _forget_empty(session, Patient.id, Patient.id, Study.patient_id, patients)


def _forget_empty(
    session: Session,
    number: InstrumentedAttribute[int],
    above: InstrumentedAttribute[int],
    below: InstrumentedAttribute[Any],
    ids: Collection[int | None],
) -> set[int]:
    """Remove the rows that none refers to by ``below`` any more; what they belonged to (``above``)."""
    empty = session.execute(
        select(number, above).where(number.in_(ids), ~select(below).where(below == number).exists())
    )
    found = [(row_id, parent) for row_id, parent in empty]
    _remove(session, number, [row_id for row_id, _ in found])
    return {parent for _, parent in found}


def _remove(session: Session, number: InstrumentedAttribute[int], ids: Sequence[int]) -> None:
    session.execute(delete(number.class_).where(number.in_(ids)), execution_options=_UNSEEN)
