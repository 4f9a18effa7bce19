"""Discs that are to be read again: which were not read for how long."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import and_, exists, func, or_, select
from sqlalchemy.orm import Session, aliased

from store.checks import ARCHIVE, DAMAGED, WORN, counts
from store.models_jobs import Disc, Volume
from store.states import DISC_FINAL, DiscState


@dataclass(frozen=True, slots=True)
class DueDisc:
    """A disc that was not read for long."""

    disc_id: int
    volume_id: int
    file_set_id: str
    copy: int
    last_read: datetime
    image: str | None
    shelf: str | None
    checked_out_to: str | None

    def online(self) -> Path | None:
        """Its image file or folder, where that can be reached. Not a drive: which disc lies in it now nobody knows."""
        path = Path(self.image) if self.image else None
        return path if path is not None and (path.is_file() or path.is_dir()) else None

    @property
    def words(self) -> str:
        """How people are asked for it."""
        where = f"shelf {self.shelf}" if self.shelf else ""
        out = f"checked out to {self.checked_out_to}" if self.checked_out_to else ""
        places = ", ".join(filter(None, (f"{self.file_set_id} (copy {self.copy}, D{self.disc_id})", where, out)))
        return f"please insert {places}; `burnish verify DRIVE --record --disc D{self.disc_id}`"


def due(session: Session, before: datetime, *, pool: str = "") -> list[DueDisc]:
    """Verified discs last read before this, oldest first; neither those marked as lost or damaged, nor those found
    damaged (it is known of them), nor those that were handed out."""
    last = func.coalesce(Disc.checked_at, Disc.verified_at, Disc.created_at)
    query = (
        select(Disc, Volume.file_set_id)
        .join(Volume, Volume.id == Disc.volume_id)
        .where(
            Disc.state == DiscState.VERIFIED,
            Disc.marked.is_(None),
            Disc.purpose != "handout",
            or_(Disc.checked_result.is_(None), Disc.checked_result != DAMAGED),
            last < before,
        )
        .order_by(last, Disc.id)
    )
    if pool:
        query = query.where(Disc.pool == pool)
    return [_due_disc(disc, file_set_id) for disc, file_set_id in session.execute(query)]


def _due_disc(disc: Disc, file_set_id: str) -> DueDisc:
    return DueDisc(
        disc_id=disc.id,
        volume_id=disc.volume_id,
        file_set_id=file_set_id,
        copy=disc.copy,
        last_read=disc.checked_at or disc.verified_at or disc.created_at,
        image=disc.image,
        shelf=disc.shelf,
        checked_out_to=disc.checked_out_to,
    )


def unrefreshed(session: Session, *, pool: str = "") -> list[DueDisc]:
    """Discs found worn or damaged whose volume has too few sound ones and none that is being made; one a volume."""
    other = aliased(Disc)
    query = (
        select(Disc, Volume.file_set_id)
        .join(Volume, Volume.id == Disc.volume_id)
        .where(
            Disc.checked_result.in_((WORN, DAMAGED)),
            Disc.state == DiscState.VERIFIED,
            Disc.purpose == ARCHIVE,
            ~exists().where(other.volume_id == Disc.volume_id, other.state.not_in(DISC_FINAL)),
        )
        .order_by(Disc.checked_at, Disc.id)
    )
    if pool:
        query = query.where(Disc.pool == pool)
    found: dict[int, DueDisc] = {}
    for disc, file_set_id in session.execute(query):
        sound, wanted = sound_copies(session, disc.volume_id)
        if sound < wanted:
            found.setdefault(disc.volume_id, _due_disc(disc, file_set_id))
    return list(found.values())


def sound_copies(session: Session, volume_id: int) -> tuple[int, int]:
    """Discs of a volume that count and are not worn, and how many are wanted."""
    unworn = and_(counts(), or_(Disc.checked_result.is_(None), Disc.checked_result != WORN))
    sound = session.scalar(select(func.count()).where(Disc.volume_id == volume_id, unworn)) or 0
    return sound, session.get_one(Volume, volume_id).wanted_copies
