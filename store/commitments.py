"""Storage Commitment transactions (PS3.4 Annex J) in SQL: what was asked, what is fixed, what is still to be told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from store.bulk import chunks
from store.checks import counts
from store.guard import rows_changed
from store.models import Derived, Instance
from store.models_base import now
from store.models_jobs import Disc, Volume, VolumeInstance
from store.models_nodes import Commitment

# Failure Reason (0008,1197), PS3.3 C.14.1.1.
NO_SUCH_INSTANCE = 0x0112
CLASS_INSTANCE_CONFLICT = 0x0119
_BACK_OFF = (5, 15, 60, 300, 900, 3600)
"""Seconds until the result is told again; the last one for ever after."""
_WAIT = timedelta(seconds=30)
"""Until it is looked again for discs."""


class DuplicateTransaction(Exception):
    """The Transaction UID was used before, for other instances."""


@dataclass(frozen=True, slots=True)
class Pair:
    """An instance by SOP class and UID."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Committed:
    """An instance that is safe here."""

    sop_class_uid: str
    sop_instance_uid: str
    file_set_id: str = ""
    """Of a verified disc that holds it, where there is one."""
    file_set_uid: str = ""


@dataclass(frozen=True, slots=True)
class NotCommitted:
    sop_class_uid: str
    sop_instance_uid: str
    reason: int
    """Failure Reason."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the Storage Commitment Result tells."""

    committed: tuple[Committed, ...]
    failed: tuple[NotCommitted, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "committed": [
                [each.sop_class_uid, each.sop_instance_uid, each.file_set_id, each.file_set_uid]
                for each in self.committed
            ],
            "failed": [[each.sop_class_uid, each.sop_instance_uid, each.reason] for each in self.failed],
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Outcome:
        return cls(
            tuple(Committed(*row) for row in values["committed"]), tuple(NotCommitted(*row) for row in values["failed"])
        )


def enter(
    session: Session,
    role: str,
    transaction_uid: str,
    pairs: Iterable[Pair],
    *,
    ae_title: str,
    source: str,
    at: datetime | None = None,
) -> int:
    """Enter a transaction, to be looked at ``at`` (now); returns its id. Asked again, it is told again.

    Raises DuplicateTransaction.
    """
    references = [[pair.sop_class_uid, pair.sop_instance_uid] for pair in dict.fromkeys(pairs)]
    known = session.execute(
        select(Commitment).where(
            Commitment.role == role,
            Commitment.ae_title == ae_title,
            Commitment.transaction_uid == transaction_uid,
        )
    ).scalar_one_or_none()
    if known is not None:
        if known.references != references:
            raise DuplicateTransaction(transaction_uid)
        known.next_at, known.attempts, known.reported_at, known.error = at or now(), 0, None, None
        known.result, known.settled_at = None, None
        return known.id
    row = Commitment(
        role=role,
        transaction_uid=transaction_uid,
        ae_title=ae_title,
        source=source,
        created_at=now(),
        references=references,
        result=None,
        settled_at=None,
        reported_at=None,
        attempts=0,
        next_at=at or now(),
        error=None,
    )
    session.add(row)
    session.flush()
    return row.id


def due(session: Session, *, limit: int = 20) -> list[int]:
    """Transactions asked of us of which something is to be done now, longest waiting first."""
    return list(
        session.scalars(
            select(Commitment.id)
            .where(Commitment.role == "scp", Commitment.next_at.is_not(None), Commitment.next_at <= now())
            .order_by(Commitment.next_at)
            .limit(limit)
        )
    )


def take(session: Session, commitment_id: int, *, seconds: float) -> bool:
    """Have one for oneself for so long; False where somebody else has it (another node, another thread)."""
    at = now()
    statement = (
        update(Commitment)
        .where(Commitment.id == commitment_id, Commitment.next_at.is_not(None), Commitment.next_at <= at)
        .values(next_at=at + timedelta(seconds=seconds))
    )
    return rows_changed(session, statement) == 1


def settle(session: Session, commitment_id: int, *, discs: int, patience: timedelta) -> Outcome | None:
    """Fix the result; None where instances still wait for their discs, and ``patience`` since the request is not over.

    ``discs``: verified discs that must hold an instance; 0: to be in the spool, or on one, will do.
    """
    row = session.get_one(Commitment, commitment_id)
    if row.result is not None:
        return Outcome.from_json(row.result)
    outcome = _outcome(session, [Pair(*each) for each in row.references], discs=discs)
    if discs and outcome.failed and now() - row.created_at < patience and _may_still_come(session, outcome.failed):
        row.next_at = now() + _WAIT
        return None
    row.result, row.settled_at = outcome.as_json(), now()
    return outcome


def reported(session: Session, commitment_id: int) -> None:
    """The other side has acknowledged the result."""
    row = session.get_one(Commitment, commitment_id)
    row.reported_at, row.next_at, row.error = now(), None, None


def not_reported(session: Session, commitment_id: int, reason: str, *, give_up_after: timedelta) -> None:
    """Try again later, more seldom each time; no more ``give_up_after`` the request."""
    row = session.get_one(Commitment, commitment_id)
    row.attempts += 1
    row.error = reason[:2000]
    over = now() - row.created_at > give_up_after
    row.next_at = None if over else now() + timedelta(seconds=_BACK_OFF[min(row.attempts, len(_BACK_OFF)) - 1])


def answered(session: Session, transaction_uid: str, ae_title: str, outcome: Outcome) -> bool:
    """The result of what we asked of another has come; False where we did not ask that."""
    statement = (
        update(Commitment)
        .where(Commitment.role == "scu", Commitment.ae_title == ae_title, Commitment.transaction_uid == transaction_uid)
        .values(result=outcome.as_json(), settled_at=now(), reported_at=now(), next_at=None)
    )
    return rows_changed(session, statement) == 1


def result_of(session: Session, commitment_id: int) -> Outcome | None:
    row = session.get_one(Commitment, commitment_id)
    return None if row.result is None else Outcome.from_json(row.result)


def waiting(session: Session) -> int:
    """How many results are still to be told."""
    return session.execute(
        select(func.count()).where(Commitment.role == "scp", Commitment.next_at.is_not(None))
    ).scalar_one()


def bound_instances(session: Session, *, hours: float) -> set[str]:
    """SOP Instance UIDs of transactions that are not over, so that their instances must stay as they are: asked of us
    and not settled or not told yet; or asked by us at most so many ``hours`` ago, and not answered."""
    ours = or_(Commitment.role == "scp", Commitment.created_at > now() - timedelta(hours=hours))
    rows = session.scalars(select(Commitment.references).where(Commitment.next_at.is_not(None), ours))
    return {uid for references in rows for _, uid in references}


def _outcome(session: Session, pairs: Sequence[Pair], *, discs: int) -> Outcome:
    held: dict[str, set[str]] = {}
    in_spool: set[Pair] = set()
    on_discs: dict[Pair, tuple[int, str, str]] = {}
    for chunk in chunks(sorted({pair.sop_instance_uid for pair in pairs})):
        for uid, sop_class, spooled in session.execute(
            select(Instance.sop_instance_uid, Instance.sop_class_uid, Instance.spool_path.is_not(None)).where(
                Instance.sop_instance_uid.in_(chunk)
            )
        ):
            held.setdefault(uid, set()).add(sop_class)
            if spooled:
                in_spool.add(Pair(sop_class, uid))
        for sop_class, uid, count, file_set_id, file_set_uid in session.execute(
            select(
                Instance.sop_class_uid,
                Instance.sop_instance_uid,
                func.count(Disc.id.distinct()),
                func.min(Volume.file_set_id),
                func.min(Volume.file_set_uid),
            )
            .join(VolumeInstance, VolumeInstance.instance_id == Instance.id)
            .join(Volume, Volume.id == VolumeInstance.volume_id)
            .join(Disc, (Disc.volume_id == Volume.id) & counts())
            .outerjoin(Derived, Derived.id == VolumeInstance.derived_id)
            # What was changed so that it has a UID of its own is not the instance that shall be safe.
            .where(Instance.sop_instance_uid.in_(chunk), Derived.new_sop_instance_uid.is_(None))
            .group_by(Instance.sop_class_uid, Instance.sop_instance_uid, Volume.id)
            .order_by(Volume.id)
        ):
            before = on_discs.get(Pair(sop_class, uid))
            on_discs[Pair(sop_class, uid)] = (
                (before[0] if before else 0) + count,
                before[1] if before else file_set_id,
                before[2] if before else file_set_uid,
            )
    committed, failed = [], []
    for pair in pairs:
        copies, file_set_id, file_set_uid = on_discs.get(pair, (0, "", ""))
        safe = copies >= discs if discs else pair in in_spool or copies
        if safe:
            committed.append(Committed(pair.sop_class_uid, pair.sop_instance_uid, file_set_id, file_set_uid))
        elif pair.sop_instance_uid in held and pair.sop_class_uid not in held[pair.sop_instance_uid]:
            failed.append(NotCommitted(pair.sop_class_uid, pair.sop_instance_uid, CLASS_INSTANCE_CONFLICT))
        else:
            failed.append(NotCommitted(pair.sop_class_uid, pair.sop_instance_uid, NO_SUCH_INSTANCE))
    return Outcome(tuple(committed), tuple(failed))


def _may_still_come(session: Session, failed: Sequence[NotCommitted]) -> bool:
    """All of them are in the spool and lack nothing but discs."""
    for chunk in chunks(sorted({each.sop_instance_uid for each in failed})):
        there = set(
            session.scalars(
                select(Instance.sop_instance_uid).where(
                    Instance.sop_instance_uid.in_(chunk), Instance.spool_path.is_not(None)
                )
            )
        )
        if set(chunk) - there:
            return False
    return all(each.reason == NO_SUCH_INSTANCE for each in failed)
