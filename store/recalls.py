"""Recalls as facts: instances that are wanted back from discs, and how far that is.

A Recall is WAITING while one of its instances is still WANTED; then what can be had is here, and it is RESTORED until
it was delivered, or has ended. Every change is a guarded UPDATE with its Event. What an open recall is about must not
be purged (``needed``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, exists, func, insert, or_, select, update
from sqlalchemy.orm import Session

from config.worded import Worded
from store.bulk import chunks
from store.guard import rows_changed
from store.models import Instance
from store.models_archive import Recall, RecallInstance, RecallVolume
from store.models_base import now
from store.models_nodes import Event
from store.presence import is_here

_TOLD = 5000
"""Instances that a document lists by UID, of those that did not come."""


class RecallState(StrEnum):
    WAITING = "WAITING"
    """Discs are to be read; people may have been asked for them."""
    RESTORED = "RESTORED"
    """What can be had is here, and is not delivered yet."""
    DONE = "DONE"
    PARTIAL = "PARTIAL"
    """Some of it could not be had, or was not taken by the destination."""
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"
    REFUSED = "REFUSED"
    """By an operator."""
    CANCELLED = "CANCELLED"
    """By whoever asked for it, or because they are gone."""


_ENDS = frozenset(
    {
        RecallState.DONE,
        RecallState.PARTIAL,
        RecallState.FAILED,
        RecallState.TIMED_OUT,
        RecallState.REFUSED,
        RecallState.CANCELLED,
    }
)
TRANSITIONS: Mapping[RecallState, frozenset[RecallState]] = {
    RecallState.WAITING: _ENDS | {RecallState.RESTORED},
    RecallState.RESTORED: _ENDS,
    **dict.fromkeys(_ENDS, frozenset()),
}
OPEN = (RecallState.WAITING, RecallState.RESTORED)


class InstanceState(StrEnum):
    HERE = "HERE"
    """It was there when the recall began."""
    WANTED = "WANTED"
    RESTORED = "RESTORED"
    FAILED = "FAILED"


class VolumeState(StrEnum):
    ONLINE = "ONLINE"
    """An image that can be read without anybody's help; its turn will come."""
    ASKED = "ASKED"
    """People are asked to insert a disc of it."""
    READ = "READ"
    SKIPPED = "SKIPPED"
    """Not needed any more."""


ACTIVE = (VolumeState.ONLINE, VolumeState.ASKED)


class RecallError(Exception):
    """A recall cannot do this as things are; the text says why."""


class UnknownRecall(RecallError):
    """There is no recall of this number."""


# --- Conditions -------------------------------------------------------------------------------------------------------


def needed(since: datetime) -> ColumnElement[bool]:
    """True for an Instance that is not to be purged: of an open recall, or of one that has ended after ``since``."""
    return exists().where(
        RecallInstance.instance_id == Instance.id,
        RecallInstance.state != InstanceState.FAILED,
        Recall.id == RecallInstance.recall_id,
        or_(Recall.state.in_(OPEN), Recall.finished_at > since),
    )


# --- Changes ----------------------------------------------------------------------------------------------------------


def add(
    session: Session,
    ids: Sequence[int],
    *,
    source: str,
    by: str,
    selection: Mapping[str, Any],
    destination: str | None = None,
    key: str | None = None,
    deadline: datetime | None = None,
) -> int:
    """Enter a recall of these instances; those that are here already are held for it. Returns its number.

    The same ``key`` gives the same recall. RecallError for an empty list.
    """
    if not ids:
        raise RecallError(Worded("nothing_known", "nothing that is selected is known here"))
    if key is not None:
        known = session.scalar(select(Recall.id).where(Recall.key == key))
        if known is not None:
            return known
    at = now()
    recall = Recall(
        source=source[:64],
        by=by[:64],
        selection=dict(selection),
        destination=destination,
        state=RecallState.WAITING,
        key=key,
        progress={},
        error=None,
        created_at=at,
        updated_at=at,
        deadline=deadline,
        finished_at=None,
        node=None,
    )
    session.add(recall)
    session.flush()
    for chunk in chunks(list(dict.fromkeys(ids))):
        here = set(session.scalars(select(Instance.id).where(Instance.id.in_(chunk), is_here())))
        session.execute(
            insert(RecallInstance),
            [
                {
                    "recall_id": recall.id,
                    "instance_id": each,
                    "state": InstanceState.HERE if each in here else InstanceState.WANTED,
                    "volume_id": None,
                    "reason": None,
                }
                for each in chunk
            ],
        )
    _note(session, recall.id, None, RecallState.WAITING, source=source, by=by, instances=len(ids))
    return recall.id


def lock(session: Session, recall_id: int) -> Recall:
    """The recall as it is now; nobody else changes it until the end of the transaction. Raises UnknownRecall."""
    recall = session.execute(
        select(Recall).where(Recall.id == recall_id).with_for_update().execution_options(populate_existing=True)
    ).scalar_one_or_none()
    if recall is None:
        raise UnknownRecall(f"there is no recall C{recall_id}")
    return recall


def move(session: Session, recall: Recall, new: RecallState, *, error: str | None = None, by: str = "") -> bool:
    """Change the state of a recall as it was seen; False where it is not so any more. RecallError: no such step."""
    old = RecallState(recall.state)
    if new not in TRANSITIONS[old]:
        raise RecallError(f"recall C{recall.id} is {old} already")
    at = now()
    values: dict[str, Any] = {"state": new, "updated_at": at}
    if error is not None:
        values["error"] = error[:2000]
    if new in _ENDS:
        values["finished_at"] = at
        if recall.key and not recall.source.startswith("prefetch:"):
            values["key"] = None  # what is asked for again later is another recall
    statement = update(Recall).where(Recall.id == recall.id, Recall.state == old)
    if rows_changed(session, statement.values(values)) != 1:
        return False
    if new in _ENDS:
        session.execute(
            update(RecallVolume)
            .where(RecallVolume.recall_id == recall.id, RecallVolume.state.in_(ACTIVE))
            .values(state=VolumeState.SKIPPED),
            execution_options={"synchronize_session": False},
        )
    detail = {"error": error} if error else {}
    _note(session, recall.id, old, new, **detail, **({"by": by} if by else {}))
    session.refresh(recall)
    return True


def end(session: Session, recall_id: int, new: RecallState, *, error: str, by: str = "") -> bool:
    """End an open recall: what it still wants is not waited for any more. False where it had ended before."""
    recall = lock(session, recall_id)
    if RecallState(recall.state) not in OPEN:
        return False
    session.execute(
        update(RecallInstance)
        .where(RecallInstance.recall_id == recall_id, RecallInstance.state == InstanceState.WANTED)
        .values(state=InstanceState.FAILED, reason=func.coalesce(RecallInstance.reason, error[:500])),
        execution_options={"synchronize_session": False},
    )
    return move(session, recall, new, error=error, by=by)


def mark_restored(session: Session, volume_id: int, ids: Collection[int]) -> None:
    """These instances came back from a volume: every open recall that wants them knows it."""
    for chunk in chunks(list(ids)):
        session.execute(
            update(RecallInstance)
            .where(RecallInstance.instance_id.in_(chunk), RecallInstance.state == InstanceState.WANTED)
            .values(state=InstanceState.RESTORED, volume_id=volume_id, reason=None),
            execution_options={"synchronize_session": False},
        )


def note_reasons(session: Session, recall_id: int, reasons: Mapping[int, str]) -> None:
    """Why instances, which are still wanted, did not come from a disc: added to what is known already."""
    before = func.coalesce(RecallInstance.reason.concat("; "), "")
    for reason, chunk in _by_reason(reasons):
        _change_wanted(session, recall_id, chunk, reason=func.substr(before.concat(reason[:300]), 1, 2000))


def give_up(session: Session, recall_id: int, reasons: Mapping[int, str]) -> None:
    """There is no (further) disc for these instances; ``reasons`` stand where nothing is known of a reading."""
    for reason, chunk in _by_reason(reasons):
        known = func.coalesce(RecallInstance.reason, reason[:500])
        _change_wanted(session, recall_id, chunk, state=InstanceState.FAILED, reason=known)


def _change_wanted(session: Session, recall_id: int, ids: Sequence[int], **values: Any) -> None:
    session.execute(
        update(RecallInstance)
        .where(
            RecallInstance.recall_id == recall_id,
            RecallInstance.instance_id.in_(ids),
            RecallInstance.state == InstanceState.WANTED,
        )
        .values(**values),
        execution_options={"synchronize_session": False},
    )


def _by_reason(reasons: Mapping[int, str]) -> Iterator[tuple[str, Sequence[int]]]:
    groups: dict[str, list[int]] = {}
    for instance_id, reason in reasons.items():
        groups.setdefault(reason, []).append(instance_id)
    for reason, ids in groups.items():
        for chunk in chunks(ids):
            yield reason, chunk


def settle(session: Session, recall: Recall) -> None:
    """Let a WAITING recall go on if none of its instances is wanted any more; its row must be locked."""
    if RecallState(recall.state) is not RecallState.WAITING:
        return
    found = counts(session, recall.id)
    if found[InstanceState.WANTED]:
        return
    here, failed = found[InstanceState.HERE] + found[InstanceState.RESTORED], found[InstanceState.FAILED]
    error = f"{failed} of {here + failed} instances could not be had" if failed else None
    if not here:
        move(session, recall, RecallState.FAILED, error=error)
    elif must_deliver(recall):
        move(session, recall, RecallState.RESTORED, error=error)
    else:
        move(session, recall, RecallState.PARTIAL if failed else RecallState.DONE, error=error)


def must_deliver(recall: Recall) -> bool:
    """Whether somebody still has to send what is here: to a node, or to who asked over the network."""
    return recall.destination is not None or is_network(recall.source)


def is_network(source: str) -> bool:
    """Whether a C-MOVE or C-GET waits for the recall; it is delivered by who serves that."""
    return source.startswith(("c-move:", "c-get:"))


def delivered(session: Session, recall_id: int, *, problem: str = "") -> bool:
    """A RESTORED recall has reached who asked for it, ``problem`` aside. False where it had ended before."""
    recall = lock(session, recall_id)
    if RecallState(recall.state) is not RecallState.RESTORED:
        return False
    failed = counts(session, recall_id)[InstanceState.FAILED]
    words = "; ".join(text for text in (recall.error if failed else "", problem) if text)
    return move(session, recall, RecallState.PARTIAL if words else RecallState.DONE, error=words or None)


def touch(session: Session, recall_id: int) -> None:
    """Who waits for it is still there."""
    rows_changed(session, update(Recall).where(Recall.id == recall_id).values(updated_at=now()))


def postpone(session: Session, recall_id: int, *, error: str | None) -> None:
    """Keep in words why a recall does not go on just now."""
    rows_changed(
        session,
        update(Recall).where(Recall.id == recall_id, Recall.state.in_(OPEN)).values(error=error and error[:2000]),
    )


def tried(recall: Recall) -> dict[int, str]:
    """Discs that were read for a recall without giving all that was wanted, and what was wrong with them."""
    return {int(disc): str(reason) for disc, reason in recall.progress.get("tried", {}).items()}


def note_tried(session: Session, recall: Recall, disc_id: int, reason: str) -> None:
    """The recall's row must be locked."""
    known = dict(recall.progress.get("tried", {})) | {str(disc_id): reason[:500]}
    recall.progress = {**recall.progress, "tried": known}
    session.flush()


# --- Questions --------------------------------------------------------------------------------------------------------


def counts(session: Session, recall_id: int) -> dict[InstanceState, int]:
    """How many of a recall's instances are in each state."""
    found = dict.fromkeys(InstanceState, 0)
    rows = session.execute(
        select(RecallInstance.state, func.count())
        .where(RecallInstance.recall_id == recall_id)
        .group_by(RecallInstance.state)
    )
    for state, count in rows:
        found[InstanceState(state)] = count
    return found


def wanted(session: Session, recall_id: int) -> list[int]:
    """Instances that a recall still wants, in order of receipt."""
    return list(
        session.scalars(
            select(RecallInstance.instance_id)
            .where(RecallInstance.recall_id == recall_id, RecallInstance.state == InstanceState.WANTED)
            .order_by(RecallInstance.instance_id)
        )
    )


def available(session: Session, recall_id: int) -> list[int]:
    """Those of a recall's instances that are here, in order of receipt."""
    return list(
        session.scalars(
            select(RecallInstance.instance_id)
            .where(
                RecallInstance.recall_id == recall_id,
                RecallInstance.state.in_((InstanceState.HERE, InstanceState.RESTORED)),
            )
            .order_by(RecallInstance.instance_id)
        )
    )


def settled(session: Session, recall_id: int) -> list[tuple[int, InstanceState, str]]:
    """Instances of a recall that are not wanted any more, with their states, and reasons of those that failed."""
    rows = session.execute(
        select(RecallInstance.instance_id, RecallInstance.state, RecallInstance.reason)
        .where(RecallInstance.recall_id == recall_id, RecallInstance.state != InstanceState.WANTED)
        .order_by(RecallInstance.instance_id)
    )
    return [(instance, InstanceState(state), reason or "") for instance, state, reason in rows]


def open_ids(session: Session, *states: RecallState) -> list[int]:
    """Recalls in these states (none given: open ones), the oldest first."""
    return list(session.scalars(select(Recall.id).where(Recall.state.in_(states or OPEN)).order_by(Recall.id)))


def open_recalls(session: Session) -> list[Recall]:
    """Open recalls, the oldest first."""
    return list(session.scalars(select(Recall).where(Recall.state.in_(OPEN)).order_by(Recall.id)))


def document(session: Session, recall: Recall) -> dict[str, Any]:
    """A recall as API and command line tell it."""
    found = counts(session, recall.id)
    failed = session.execute(
        select(Instance.sop_instance_uid, RecallInstance.reason)
        .join(Instance, Instance.id == RecallInstance.instance_id)
        .where(RecallInstance.recall_id == recall.id, RecallInstance.state == InstanceState.FAILED)
        .order_by(Instance.id)
        .limit(_TOLD)
    )
    return {
        "recall": f"C{recall.id}",
        "state": recall.state,
        "source": recall.source,
        "by": recall.by,
        "selection": recall.selection,
        "destination": recall.destination,
        "instances": sum(found.values()),
        "here": found[InstanceState.HERE],
        "wanted": found[InstanceState.WANTED],
        "restored": found[InstanceState.RESTORED],
        "failed": found[InstanceState.FAILED],
        "missing": [{"sop_instance_uid": uid, "reason": reason or ""} for uid, reason in failed],
        "error": recall.error,
        "created_at": recall.created_at.isoformat(),
        "deadline": recall.deadline.isoformat() if recall.deadline else None,
        "finished_at": recall.finished_at.isoformat() if recall.finished_at else None,
    }


def documents(
    session: Session, *, all_: bool = False, before: int | None = None, limit: int = 500
) -> list[dict[str, Any]]:
    """Open recalls, or all of them, the latest first; ``before``: those with a lower number."""
    query = select(Recall).order_by(Recall.id.desc()).limit(limit)
    if before is not None:
        query = query.where(Recall.id < before)
    if not all_:
        query = query.where(Recall.state.in_(OPEN))
    return [document(session, recall) for recall in session.scalars(query)]


def get(session: Session, recall_id: int) -> Recall:
    """Raises UnknownRecall."""
    recall = session.get(Recall, recall_id)
    if recall is None:
        raise UnknownRecall(f"there is no recall C{recall_id}")
    return recall


def _note(session: Session, recall_id: int, old: str | None, new: str | None, **detail: Any) -> None:
    session.add(Event(at=now(), kind="recall", old=old, new=new, detail={"recall": f"C{recall_id}", **detail}))


def note(session: Session, what: str, *, disc_id: int | None = None, **detail: Any) -> None:
    """An Event about recalls that changes the state of none: a disc was asked for, read, or was a wrong one."""
    session.add(Event(at=now(), kind="recall", disc_id=disc_id, new=what, detail=detail))
