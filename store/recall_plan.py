"""Which discs an open recall reads next, and what people are asked for.

A plan is made anew whenever something was read, and now and then: a disc may have been lost, or an image come back.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import case, exists, func, or_, select, update
from sqlalchemy.orm import Session

from store import recalls
from store.models import Derived, Instance, Patient, Series, Study
from store.models_archive import Recall, RecallInstance, RecallVolume
from store.models_base import now
from store.models_jobs import Disc, Volume, VolumeInstance
from store.presence import is_here
from store.recall_sources import Candidate, candidates, choose
from store.recalls import ACTIVE, InstanceState, RecallState, VolumeState
from store.whole import is_of_another, with_conformed


@dataclass(frozen=True, slots=True)
class Asking:
    """How a site asks for discs."""

    nearest: tuple[str, ...] = ()
    """Beginnings of the names of shelves, the nearest first."""
    drive: str = ""
    """Where discs are to be inserted, in words."""


def plan(session: Session, recall_id: int, asking: Asking) -> None:
    """Choose discs for all that a WAITING recall wants, and end it where nothing is left to wait for."""
    recall = recalls.lock(session, recall_id)
    if RecallState(recall.state) is not RecallState.WAITING:
        return
    _take_note_of_arrivals(session, recall_id)
    wanted = recalls.wanted(session, recall_id)
    choice = choose(
        session,
        wanted,
        tried=recalls.tried(recall),
        asked=_asked_volumes(session),
        nearest=asking.nearest,
        own_name=recall.destination is not None or recall.source.startswith(("c-move", "c-get")),
    )
    rows = {
        row.volume_id: row
        for row in session.scalars(
            select(RecallVolume)
            .where(RecallVolume.recall_id == recall_id)
            .with_for_update()
            .execution_options(populate_existing=True)
        )
    }
    for disc in choice.discs:
        _want(session, recall, rows.pop(disc.volume_id, None), disc, asking)
    for row in rows.values():
        if row.state in ACTIVE:
            row.state = VolumeState.SKIPPED
    session.flush()
    recalls.give_up(session, recall_id, choice.without)
    recalls.settle(session, recall)


def _want(session: Session, recall: Recall, row: RecallVolume | None, disc: Candidate, asking: Asking) -> None:
    state = VolumeState.ASKED if disc.image is None else VolumeState.ONLINE
    if row is not None and (row.state, row.disc_id) == (state, disc.disc_id):
        return
    if row is None:
        row = RecallVolume(recall_id=recall.id, volume_id=disc.volume_id)
        session.add(row)
    row.state, row.disc_id, row.answer = state, disc.disc_id, None
    row.place = str(disc.image) if disc.image is not None else asking.drive or None
    row.asked_at = now()
    if state is VolumeState.ASKED:
        words = disc.words(asking.drive)
        recalls.note(session, "asked", disc_id=disc.disc_id, recall=f"C{recall.id}", words=words)


def _take_note_of_arrivals(session: Session, recall_id: int) -> None:
    """What is wanted may have come by itself: received anew, or brought back for another recall."""
    session.execute(
        update(RecallInstance)
        .where(
            RecallInstance.recall_id == recall_id,
            RecallInstance.state == InstanceState.WANTED,
            RecallInstance.instance_id.in_(
                select(Instance.id)
                .join(RecallInstance, RecallInstance.instance_id == Instance.id)
                .where(RecallInstance.recall_id == recall_id, is_here())
            ),
        )
        .values(state=InstanceState.RESTORED, reason=None),
        execution_options={"synchronize_session": False},
    )


def _asked_volumes(session: Session) -> set[int]:
    return set(
        session.scalars(
            select(RecallVolume.volume_id)
            .join(Recall, Recall.id == RecallVolume.recall_id)
            .where(Recall.state == RecallState.WAITING, RecallVolume.state == VolumeState.ASKED)
            .distinct()
        )
    )


def wanted_of_volume(session: Session, volume_id: int) -> dict[int, set[int]]:
    """By recall: the instances that are wanted and that this volume holds, whichever volume was asked for.

    Files that name another patient there count only where the recall takes them, for want of a better disc.
    """
    found: dict[int, set[int]] = {}
    rows = session.execute(
        select(RecallInstance.recall_id, RecallInstance.instance_id)
        .join(Recall, Recall.id == RecallInstance.recall_id)
        .join(VolumeInstance, VolumeInstance.instance_id == RecallInstance.instance_id)
        .join(Instance, Instance.id == RecallInstance.instance_id)
        .outerjoin(Derived, Derived.id == VolumeInstance.derived_id)
        .outerjoin(Series, Series.id == Instance.series_id)
        .outerjoin(Study, Study.id == Series.study_id)
        .outerjoin(Patient, Patient.id == Study.patient_id)
        .where(
            VolumeInstance.volume_id == volume_id,
            Derived.new_sop_instance_uid.is_(None),
            or_(
                ~is_of_another(),
                exists().where(
                    RecallVolume.recall_id == Recall.id,
                    RecallVolume.volume_id == volume_id,
                    RecallVolume.state.in_(ACTIVE),
                ),
            ),
            RecallInstance.state == InstanceState.WANTED,
            Recall.state == RecallState.WAITING,
        )
    )
    for recall_id, instance_id in rows:
        found.setdefault(recall_id, set()).add(instance_id)
    return found


def next_online(session: Session, without: Collection[int] = ()) -> list[tuple[int, int, str]]:
    """``(volume, disc, image)`` of what can be read without anybody's help."""
    rows = session.execute(
        select(RecallVolume.volume_id, RecallVolume.disc_id, RecallVolume.place)
        .join(Recall, Recall.id == RecallVolume.recall_id)
        .where(Recall.state == RecallState.WAITING, RecallVolume.state == VolumeState.ONLINE)
        .order_by(RecallVolume.recall_id)
    )
    found = {volume: (volume, disc, place) for volume, disc, place in rows if disc is not None and place is not None}
    return [one for volume, one in found.items() if volume not in without]


def finish_volume(
    session: Session, recall_id: int, volume_id: int, *, disc_id: int | None, place: str, answer: str
) -> None:
    """A disc of this volume was read for a recall, which may have asked for another volume; its row must be locked."""
    row = session.get(RecallVolume, (recall_id, volume_id), populate_existing=True)
    if row is None:
        row = RecallVolume(recall_id=recall_id, volume_id=volume_id, asked_at=None)
        session.add(row)
    row.state, row.disc_id, row.place, row.answer = VolumeState.READ, disc_id, place, answer
    session.flush()


def asks(session: Session, asking: Asking) -> list[dict[str, Any]]:
    """The discs that people are asked for, each once however many recalls need it, the longest waiting first."""
    rows = session.execute(
        select(RecallVolume.volume_id, RecallVolume.disc_id, RecallVolume.recall_id, RecallVolume.asked_at)
        .join(Recall, Recall.id == RecallVolume.recall_id)
        .where(Recall.state == RecallState.WAITING, RecallVolume.state == VolumeState.ASKED)
        .order_by(RecallVolume.asked_at, RecallVolume.recall_id)
    ).all()
    discs: dict[int, list[Candidate]] = candidates(session, {row.volume_id for row in rows}, nearest=asking.nearest)
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for volume_id, disc_id, recall_id, asked_at in rows:
        one = next((disc for disc in discs.get(volume_id, ()) if disc.disc_id == disc_id), None)
        if one is None:
            continue
        document = found.setdefault((volume_id, one.disc_id), _ask(one, asked_at, asking.drive))
        document["recalls"].append(f"C{recall_id}")
    for (volume_id, _), document in found.items():
        document["instances"] = len(set().union(*wanted_of_volume(session, volume_id).values()))
    return list(found.values())


def _ask(disc: Candidate, asked_at: datetime | None, drive: str) -> dict[str, Any]:
    return {
        "file_set_id": disc.file_set_id,
        "disc": f"D{disc.disc_id}",
        "copy": disc.copy,
        "shelf": disc.shelf,
        "location": disc.location,
        "checked_out_to": disc.checked_out_to,
        "drive": drive,
        "asked_at": asked_at.isoformat() if asked_at else None,
        "recalls": [],
        "instances": 0,
        "words": disc.words(drive),
    }


def late_words(session: Session, recall_id: int, asking: Asking) -> str:
    """What a recall waited for in vain."""
    names = [ask["file_set_id"] for ask in asks(session, asking) if f"C{recall_id}" in ask["recalls"]]
    if not names:
        return "timed out"
    return f"timed out: {', '.join(names[:5])} {'was' if len(names) == 1 else 'were'} not inserted"


def volume_of(session: Session, *, file_set_uid: str, file_set_id: str) -> Volume | None:
    """The volume that a medium says it is: by File-set UID, and by File-set ID only where it has no UID."""
    if file_set_uid:
        return session.scalar(select(Volume).where(Volume.file_set_uid == file_set_uid))
    return session.scalar(select(Volume).where(Volume.file_set_id == file_set_id)) if file_set_id else None


def discs_asked(session: Session, volume_id: int) -> list[int]:
    """Discs of a volume that recalls wait for."""
    return list(
        session.scalars(
            select(RecallVolume.disc_id)
            .join(Recall, Recall.id == RecallVolume.recall_id)
            .where(
                RecallVolume.volume_id == volume_id,
                RecallVolume.state.in_(ACTIVE),
                RecallVolume.disc_id.is_not(None),
                Recall.state == RecallState.WAITING,
            )
            .order_by(RecallVolume.asked_at)
        )
    )


def recalls_of_volume(session: Session, volume_id: int) -> list[int]:
    """WAITING recalls that want a disc of this volume."""
    return list(
        session.scalars(
            select(RecallVolume.recall_id)
            .join(Recall, Recall.id == RecallVolume.recall_id)
            .where(
                RecallVolume.volume_id == volume_id,
                RecallVolume.state.in_(ACTIVE),
                Recall.state == RecallState.WAITING,
            )
        )
    )


def note_read(session: Session, disc_id: int) -> None:
    """A disc was read (and is a little older)."""
    session.execute(
        update(Disc).where(Disc.id == disc_id).values(times_read=Disc.times_read + 1, updated_at=now()),
        execution_options={"synchronize_session": False},
    )


def document(session: Session, recall: Recall, asking: Asking) -> dict[str, Any]:
    """A recall with the discs that it needs, or has read."""
    rows = session.execute(
        select(Volume.file_set_id, RecallVolume.state, RecallVolume.disc_id, RecallVolume.place, RecallVolume.answer)
        .join(Volume, Volume.id == RecallVolume.volume_id)
        .where(RecallVolume.recall_id == recall.id)
        .order_by(RecallVolume.asked_at)
    )
    return recalls.document(session, recall) | {
        "volumes": [
            {
                "file_set_id": file_set_id,
                "state": state,
                "disc": f"D{disc_id}" if disc_id else None,
                "place": place,
                "answer": answer,
            }
            for file_set_id, state, disc_id, place, answer in rows
        ],
        "asks": [ask for ask in asks(session, asking) if f"C{recall.id}" in ask["recalls"]],
        "as_on_disc": as_on_disc(session, recall.id),
    }


def as_on_disc(session: Session, recall_id: int) -> dict[str, int]:
    """How many of a recall's instances are here not as received, but as they were changed for their disc; and how many
    of these bear another patient's name or number there."""
    changed = (
        with_conformed(
            select(RecallInstance.instance_id, func.min(case((is_of_another(), 1), else_=0)).label("another")).join(
                Instance, Instance.id == RecallInstance.instance_id
            )
        )
        .where(
            RecallInstance.recall_id == recall_id,
            Instance.spool_path.is_(None),
            Derived.restored_at.is_not(None),
            Derived.new_sop_instance_uid.is_(None),
        )
        .group_by(RecallInstance.instance_id)
        .subquery()
    )
    row = session.execute(
        select(func.count(), func.coalesce(func.sum(changed.c.another), 0)).select_from(changed)
    ).one()
    return {"instances": int(row[0]), "another_patient": int(row[1])}


def plan_all(session: Session, ids: Sequence[int], asking: Asking) -> None:
    """Plan several recalls, in the order of their numbers (so that two who do it never wait for each other)."""
    for recall_id in sorted(ids):
        plan(session, recall_id, asking)
