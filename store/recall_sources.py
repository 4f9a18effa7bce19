"""Where instances can be read back from: which volumes hold them, which disc of each is the best one to read.

Best is an image that is online, then the nearest shelf, then the disc that was read least. A disc that is checked out,
a backup, one of which nobody said what it is for, or one that was found damaged is taken only where there is no better;
a lost one, or one that was handed out, never.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from store.bulk import chunks
from store.checks import DAMAGED, HANDOUT, UNKNOWN, counts
from store.models import Instance
from store.models_jobs import Disc, Volume, VolumeInstance
from store.query_facts import on_disc
from store.states import DiscState
from store.whole import names_its_patient

_RENAMED = "discs hold it only under another patient's name or number, and such a file is not sent"

LOST = "LOST"


class Rank(IntEnum):
    """How good a disc is to be read, best first."""

    ONLINE = 0
    SHELF = 1
    CHECKED_OUT = 2
    BACKUP = 3
    UNKNOWN = 4
    """Nobody said that it is kept here."""
    DAMAGED = 5


@dataclass(frozen=True, slots=True)
class Candidate:
    """A disc that can be read for a volume."""

    disc_id: int
    volume_id: int
    file_set_id: str
    rank: Rank
    nearness: int
    """Place of its shelf among those that the site calls near."""
    times_read: int
    copy: int
    copies: int
    """So many discs of the volume could be read."""
    image: Path | None
    """An image file, or a folder of the disc's files, that is online."""
    shelf: str
    location: str
    """Where it was made, as far as that is known."""
    checked_out_to: str

    @property
    def order(self) -> tuple[int, int, int, int]:
        """The smaller the better."""
        return self.rank, self.nearness, self.times_read, self.disc_id

    def words(self, drive: str = "") -> str:
        """How people are asked for it."""
        name = f"{self.file_set_id} (copy {self.copy})" if self.copies > 1 else self.file_set_id
        where = f", {shelf_words(self.shelf)}" if self.shelf else f", last at {self.location}" if self.location else ""
        out = f", checked out to {self.checked_out_to}" if self.checked_out_to else ""
        bad = ", although it was found damaged" if self.rank is Rank.DAMAGED else ""
        unsure = ", if it is kept here (nobody said what it is for)" if self.rank is Rank.UNKNOWN else ""
        return f"please insert {name}{where}{out}{bad}{unsure}{f', {drive}' if drive else ''}"


def candidates(
    session: Session, volume_ids: Collection[int], *, nearest: Sequence[str] = ()
) -> dict[int, list[Candidate]]:
    """The discs of some volumes that can be read, the best first.

    ``nearest``: beginnings of shelf names, the nearest first.
    """
    found: dict[int, list[Candidate]] = {}
    for chunk in chunks(sorted(volume_ids)):
        rows = session.execute(
            select(Disc, Volume.file_set_id, counts())
            .join(Volume, Volume.id == Disc.volume_id)
            .where(
                Disc.volume_id.in_(chunk),
                Disc.state == DiscState.VERIFIED,
                Disc.purpose != HANDOUT,
                or_(Disc.marked.is_(None), Disc.marked != LOST),
            )
            .order_by(Disc.id)
        ).all()
        of: dict[int, int] = {}
        for disc, _, _ in rows:
            of[disc.volume_id] = of.get(disc.volume_id, 0) + 1
        for disc, file_set_id, sound in rows:
            image = _online(disc.image)
            found.setdefault(disc.volume_id, []).append(
                Candidate(
                    disc_id=disc.id,
                    volume_id=disc.volume_id,
                    file_set_id=file_set_id,
                    rank=_rank(disc, image, bool(sound)),
                    nearness=_nearness(disc.shelf, nearest),
                    times_read=disc.times_read,
                    copy=disc.copy,
                    copies=of[disc.volume_id],
                    image=image,
                    shelf=disc.shelf or "",
                    location=disc.location or "",
                    checked_out_to=disc.checked_out_to or "",
                )
            )
    for discs in found.values():
        discs.sort(key=lambda one: one.order)
    return found


def shelf_words(shelf: str) -> str:
    """``shelf 3-12``; what says itself what it is stays as it is."""
    named = any(word in shelf.casefold() for word in ("shelf", "robot", "bin", "room", "drawer", "box", "vault"))
    return shelf if named else f"shelf {shelf}"


def _online(image: str | None) -> Path | None:
    path = Path(image) if image else None
    # Not a device: which disc lies in a drive now nobody knows.
    return path if path is not None and (path.is_file() or path.is_dir()) else None


def _rank(disc: Disc, image: Path | None, sound: bool) -> Rank:
    if disc.marked or disc.checked_result == DAMAGED:
        return Rank.DAMAGED
    if image is not None:
        return Rank.ONLINE
    if disc.purpose == UNKNOWN:
        return Rank.UNKNOWN
    if disc.checked_out_to:
        return Rank.CHECKED_OUT
    return Rank.SHELF if sound else Rank.BACKUP


def _nearness(shelf: str | None, nearest: Sequence[str]) -> int:
    name = (shelf or "").casefold()
    for place, beginning in enumerate(nearest):
        if name.startswith(beginning.casefold()):
            return place
    return len(nearest)


def holdings(session: Session, ids: Sequence[int], *, own_name: bool = False) -> dict[int, set[int]]:
    """Volumes that were ever made with these instances, each with those that it holds.

    ``own_name``: those only that name the patient whom an instance was received for.
    """
    found: dict[int, set[int]] = {}
    for chunk in chunks(ids):
        columns: Any = select(Instance.id, VolumeInstance.volume_id).select_from(Instance)
        statement = on_disc(columns)
        if own_name:
            statement = statement.where(names_its_patient())
        for instance_id, volume_id in session.execute(statement.where(Instance.id.in_(chunk))):
            found.setdefault(volume_id, set()).add(instance_id)
    return found


@dataclass(frozen=True, slots=True)
class Choice:
    """Which discs to read for some instances."""

    discs: tuple[Candidate, ...]
    without: dict[int, str]
    """Instances that no disc can give back, and why."""


def choose(
    session: Session,
    ids: Sequence[int],
    *,
    tried: Mapping[int, str],
    asked: Collection[int] = (),
    nearest: Sequence[str] = (),
    own_name: bool = False,
) -> Choice:
    """Few and good discs that hold these instances; where rules gave an instance another patient's name on a disc, only
    if there is no other, and with ``own_name`` not even then.

    ``tried``: discs that were read without giving them. ``asked``: volumes that somebody is to insert anyway.
    """
    held = holdings(session, ids, own_name=True)
    chosen, missing = _few(session, set(ids), held, tried=tried, asked=asked, nearest=nearest)
    if missing and own_name:
        others = set().union(*holdings(session, sorted(missing)).values()) - set().union(*held.values())
        without = _why_none(session, missing, held)
        return Choice(tuple(chosen), {one: _RENAMED if one in others else why for one, why in without.items()})
    if missing:
        held = holdings(session, sorted(missing))
        more, missing = _few(session, missing, held, tried=tried, asked=asked, nearest=nearest)
        known = {one.volume_id for one in chosen}
        chosen += [one for one in more if one.volume_id not in known]
    return Choice(tuple(chosen), _why_none(session, missing, held))


def _few(
    session: Session,
    missing: set[int],
    held: Mapping[int, set[int]],
    *,
    tried: Mapping[int, str],
    asked: Collection[int],
    nearest: Sequence[str],
) -> tuple[list[Candidate], set[int]]:
    """Discs of volumes that hold what is missing, and what is so even then."""
    discs = {
        volume: left[0]
        for volume, found in candidates(session, held, nearest=nearest).items()
        if (left := [one for one in found if one.disc_id not in tried])
    }
    missing = set(missing)
    chosen: list[Candidate] = []
    # Each volume by rank of its best disc, those that are asked for anyway first, then by what it adds.
    heap = [(_cost(one, asked), -len(held[volume]), one.order, volume) for volume, one in discs.items()]
    heapq.heapify(heap)
    while heap and missing:
        cost, gain, order, volume = heapq.heappop(heap)
        adds = len(held[volume] & missing)
        if not adds:
            continue
        if adds != -gain:
            heapq.heappush(heap, (cost, -adds, order, volume))
            continue
        chosen.append(discs[volume])
        missing -= held[volume]
    return chosen, missing


def _cost(disc: Candidate, asked: Collection[int]) -> tuple[int, int]:
    if disc.rank is Rank.ONLINE:
        return (0, 0)
    return (1, 0) if disc.volume_id in asked else (1 + disc.rank, disc.nearness)


def _why_none(session: Session, missing: Collection[int], held: Mapping[int, set[int]]) -> dict[int, str]:
    """In words, by instance."""
    if not missing:
        return {}
    of: dict[int, list[int]] = {}
    for volume, instances in held.items():
        for instance_id in instances & set(missing):
            of.setdefault(instance_id, []).append(volume)
    names: dict[int, str] = {}
    for chunk in chunks(sorted({volume for volumes in of.values() for volume in volumes})):
        rows = session.execute(
            select(Volume.id, Volume.file_set_id, Disc.marked, Disc.state, Disc.purpose)
            .outerjoin(Disc, Disc.volume_id == Volume.id)
            .where(Volume.id.in_(chunk))
        )
        for volume, file_set_id, marked, state, purpose in rows:
            if state == DiscState.VERIFIED and purpose != HANDOUT:
                names[volume] = (
                    f"{file_set_id} is {str(marked).lower()}" if marked else f"{file_set_id} did not give it"
                )
    renamed = _renamed(session, [each for each in missing if each not in of])
    reasons = {}
    for instance_id in missing:
        told = [names[volume] for volume in of.get(instance_id, ()) if volume in names]
        if instance_id in renamed:
            told = [f"{renamed[instance_id]} holds it only as another instance, with a UID of its own"]
        reasons[instance_id] = "; ".join(sorted(set(told))) or "no verified disc holds it"
    return reasons


def _renamed(session: Session, ids: Sequence[int]) -> dict[int, str]:
    """File-set IDs of volumes that hold instances under another UID (after lossy compression, for example)."""
    found: dict[int, str] = {}
    for chunk in chunks(ids):
        rows = session.execute(
            select(VolumeInstance.instance_id, Volume.file_set_id)
            .join(Volume, Volume.id == VolumeInstance.volume_id)
            .join(Disc, Disc.volume_id == Volume.id)
            .where(VolumeInstance.instance_id.in_(chunk), Disc.state == DiscState.VERIFIED)
        )
        found |= dict(rows.tuples().all())
    return found
