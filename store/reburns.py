"""Another copy of a volume that exists: a job of its own with new discs of the same volume, equal to the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from store import jobs, requested
from store.atrisk import disc_counts
from store.discs import new_disc, record
from store.models import Derived, Instance
from store.models_jobs import Disc, Job, Plan, Request, Volume, VolumeInstance
from store.rereading import NoSuchDisc
from store.states import DISC_FINAL, DiscState, JobState

SOURCE = "reburn"
"""``Request.source`` of such a job."""


class ReburnError(Exception):
    """No copy can be made as things are; the text says why, ``code`` is for scripts."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class NoSuchVolume(Exception):
    """There is no such volume, or there are several."""


@dataclass(frozen=True, slots=True)
class Meant:
    """What is to be made again."""

    volume: Volume
    replaces: Disc | None
    """The disc that was named."""
    discs: tuple[Disc, ...]
    """Every disc of the volume, the newest last."""

    @property
    def pattern(self) -> Disc | None:
        """The disc whose purpose and pool the new one has."""
        made = [disc for disc in self.discs if disc.state == DiscState.VERIFIED]
        archive = [disc for disc in made if disc.purpose == "archive"]
        return self.replaces or next(iter([*archive[::-1], *made[::-1], *self.discs[::-1]]), None)

    @property
    def coming(self) -> list[Disc]:
        """Discs that are still being made."""
        return [disc for disc in self.discs if disc.state not in DISC_FINAL]


def meant(session: Session, of: str) -> Meant:
    """What ``D12``, a File-set ID or a File-set UID means. Raises NoSuchDisc, NoSuchVolume."""
    name = of.strip()
    replaces = None
    if name[:1] in "Dd" and name[1:].isascii() and name[1:].isdigit() and len(name) < 20:
        replaces = session.get(Disc, int(name[1:]))
        if replaces is None:
            raise NoSuchDisc(f"there is no disc {name.upper()}")
        volume = session.get_one(Volume, replaces.volume_id)
    else:
        found = session.scalars(
            select(Volume).where(or_(Volume.file_set_id == name, Volume.file_set_uid == name)).limit(2)
        ).all()
        if len(found) != 1:
            raise NoSuchVolume(
                f"there are several volumes {name}: say which by File-set UID or disc"
                if found
                else f"there is no volume {name!r}; name a disc (D12), a File-set ID or a File-set UID"
            )
        volume = found[0]
    discs = session.scalars(select(Disc).where(Disc.volume_id == volume.id).order_by(Disc.copy, Disc.attempt)).all()
    return Meant(volume, replaces, tuple(discs))


def files(session: Session, volume_id: int) -> Any:
    """Each file of a volume: where it should lie, and what it is."""
    return session.execute(
        select(
            VolumeInstance.instance_id,
            VolumeInstance.derived_id,
            VolumeInstance.file_id,
            VolumeInstance.size,
            VolumeInstance.sha256,
            VolumeInstance.supplied,
            Instance.sop_instance_uid,
            Instance.digest,
            Instance.spool_path,
            Derived.path.label("derived_path"),
        )
        .join(Instance, Instance.id == VolumeInstance.instance_id)
        .outerjoin(Derived, Derived.id == VolumeInstance.derived_id)
        .where(VolumeInstance.volume_id == volume_id)
        .order_by(VolumeInstance.position)
    )


@dataclass(frozen=True, slots=True)
class _Options:
    """As ``store.jobs.create_job`` takes them."""

    burner: str
    copies: int
    priority: str
    skip_refused: bool = False


def order(
    session: Session,
    what: Meant,
    *,
    copies: int,
    burner: str,
    priority: str,
    source: str,
    by: str,
    idempotency_key: str | None = None,
) -> int:
    """Enter the job, READY to be burnt, its discs with the next copy numbers; returns its id.

    ``source``: the path of an image that is copied, ``""``: the volume is put together from the spool. What it is made
    of is not purged until the job has ended.
    """
    if idempotency_key is not None:
        requested.key_is_ours(session)
        known = session.scalar(select(Request.id).where(Request.idempotency_key == idempotency_key))
        made = jobs.job_of_request(session, known) if known is not None else None
        if made is not None:
            return made
    volume, pattern = what.volume, what.pattern
    asked = session.get_one(Request, session.get_one(Plan, volume.plan_id).request_id)
    instances: Sequence[int] = session.scalars(
        select(VolumeInstance.instance_id)
        .where(VolumeInstance.volume_id == volume.id)
        .distinct()
        .order_by(VolumeInstance.instance_id)
    ).all()
    values = {"burner": burner, "copies": copies, "priority": priority, "pull_from": ""}
    request_id = requested.add_request(
        session,
        instances,
        selection={SOURCE: {"volume": volume.id, "file_set_id": volume.file_set_id, "image": source, "by": by}},
        options=asked.options | values,
        source=SOURCE,
        idempotency_key=idempotency_key,
    )
    session.get_one(Request, request_id).pool = pattern.pool if pattern else None
    job_id = jobs.create_job(session, request_id, None, _Options(burner, copies, priority))
    job = jobs.lock(session, job_id)
    last = session.scalar(select(func.max(Disc.copy)).where(Disc.volume_id == volume.id)) or 0
    free = _free_shelves(what)
    discs = [
        new_disc(
            job,
            volume.id,
            last + number,
            attempt=1,
            purpose=pattern.purpose if pattern else "archive",
            pool=pattern.pool if pattern else None,
            shelf=free[number - 1] if number <= len(free) else None,
        )
        for number in range(1, copies + 1)
    ]
    session.add_all(discs)
    session.flush()
    for disc in discs:
        record(session, job_id, disc.id, None, DiscState.PLANNED, action=SOURCE, by=by, image=source or None)
    jobs.move_job(session, job, JobState.PLANNING)
    jobs.move_job(session, job, JobState.READY, progress={})
    return job_id


def _free_shelves(what: Meant) -> list[str]:
    """Where discs go that take the place of others which count no more: of the one that was named, else of any."""
    free = (disc for disc in ([what.replaces] if what.replaces else what.discs) if disc.state in DISC_FINAL)
    held = {disc.shelf for disc in (*what.coming, *(disc for disc in what.discs if disc_counts(disc)))}
    return list(dict.fromkeys(disc.shelf for disc in free if disc.shelf and disc.shelf not in held))


def image_wanted(session: Session, volume_id: int) -> Path | None:
    """The image that discs of a volume which are being made are copied from; None: they are not."""
    rows = session.scalars(
        select(Request.selection)
        .join(Job, Job.request_id == Request.id)
        .join(Disc, Disc.job_id == Job.id)
        .where(Disc.volume_id == volume_id, Disc.state.not_in(DISC_FINAL), Request.source == SOURCE)
        .order_by(Request.id.desc())
        .limit(1)
    ).all()
    image = rows[0].get(SOURCE, {}).get("image") if rows else ""
    return Path(image) if image else None


def images_wanted(session: Session) -> set[str]:
    """Every image that discs which are being made are copied from."""
    rows = session.scalars(
        select(Request.selection)
        .join(Job, Job.request_id == Request.id)
        .join(Disc, Disc.job_id == Job.id)
        .where(Disc.state.not_in(DISC_FINAL), Request.source == SOURCE)
    )
    return {str(selection.get(SOURCE, {}).get("image") or "") for selection in rows} - {""}
