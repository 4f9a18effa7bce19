"""How many discs of a volume are counted on, and how many there should be: ``Volume.good_copies``, ``.wanted_copies``.

Both stand with the volume, so that what is on too few copies is found without looking at the rest. Whoever changes what
a disc counts for (its state, a check, a mark, its purpose or pool) calls ``recount`` in the same transaction; the truth
is in the discs, and ``wrong`` compares.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ScalarSelect, Select, func, or_, select, update
from sqlalchemy.orm import Session

from store.bulk import chunks
from store.checks import ARCHIVE, counts
from store.guard import rows_changed
from store.models_archive import Pool
from store.models_jobs import Disc, Job, Volume
from store.states import DiscState


def good_copies() -> ScalarSelect[int]:
    """Discs of a Volume that count, as the discs have it."""
    return select(func.count()).where(Disc.volume_id == Volume.id, counts()).correlate(Volume).scalar_subquery()


def wanted_copies() -> ScalarSelect[int]:
    """Discs of a Volume that there should be, as the discs have it: what the pool demands, else what was ordered.

    Of discs that were verified once, whatever became of them: a loss does not lessen what is wanted. 0: none is a place
    of the archive.
    """
    wanted = func.max(func.coalesce(Pool.required_copies, Job.copies))
    return (
        select(func.coalesce(wanted, 0))
        .select_from(Disc)
        .join(Job, Job.id == Disc.job_id)
        .outerjoin(Pool, Pool.name == Disc.pool)
        .where(Disc.volume_id == Volume.id, Disc.state == DiscState.VERIFIED, Disc.purpose == ARCHIVE)
        .correlate(Volume)
        .scalar_subquery()
    )


def recount(session: Session, volume_id: int) -> None:
    """Bring a volume's numbers into agreement with its discs, as this transaction leaves them.

    The volume stays locked until its end: a purge that counts on the volume waits, and sees what came of it.
    """
    lock(session, [volume_id])
    # A statement of its own after the lock: it sees the discs that others have changed meanwhile.
    statement = update(Volume).where(Volume.id == volume_id)
    rows_changed(session, statement.values(good_copies=good_copies(), wanted_copies=wanted_copies()))


def recount_pool(session: Session, pool: str) -> None:
    """The same for every volume that has a disc of a pool: the pool demands another number of copies."""
    recount_many(session, session.scalars(select(Disc.volume_id).where(Disc.pool == pool)))


def recount_many(session: Session, volume_ids: Iterable[int]) -> None:
    """The same for these volumes."""
    volumes = sorted(set(volume_ids))
    for chunk in chunks(volumes):
        lock(session, chunk)
        statement = update(Volume).where(Volume.id.in_(chunk))
        rows_changed(session, statement.values(good_copies=good_copies(), wanted_copies=wanted_copies()))


def wanted_of(session: Session, volume_id: int) -> int:
    """How many discs of a volume there should be."""
    return session.execute(select(Volume.wanted_copies).where(Volume.id == volume_id)).scalar_one()


def lock(session: Session, volume_ids: Iterable[int]) -> None:
    """Keep volumes for this transaction, in one order for all who do so; SQLite has one writer anyway."""
    wanted = sorted(set(volume_ids))
    session.execute(
        select(Volume.id).where(Volume.id.in_(wanted)).order_by(Volume.id).with_for_update(key_share=True)
    ).all()


def wrong(session: Session, *, limit: int = 100) -> list[dict[str, Any]]:
    """Volumes whose numbers are not what their discs say: a fault of the program, or of who changed the tables.

    ``[{"volume", "file_set_id", "good_copies", "wanted_copies", "counted", "wanted"}]``. Looks at every volume.
    """
    return [dict(row._mapping) for row in session.execute(_wrong().limit(limit))]


def recount_all(session: Session) -> int:
    """Bring every volume's numbers into agreement with its discs; returns how many were not."""
    found = [row.volume for row in session.execute(_wrong())]
    for volume_id in found:
        recount(session, volume_id)
    return len(found)


def _wrong() -> Select[int, str, int, int, int, int]:
    good, wanted = good_copies(), wanted_copies()
    return (
        select(
            Volume.id.label("volume"),
            Volume.file_set_id,
            Volume.good_copies,
            Volume.wanted_copies,
            good.label("counted"),
            wanted.label("wanted"),
        )
        .where(or_(Volume.good_copies != good, Volume.wanted_copies != wanted))
        .order_by(Volume.id)
    )
