"""Verified discs for tests of the archive, made without an engine: planned, written, entered in the catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select, update

from jobs.assemble import volume_image
from jobs.context import Context
from jobs.options import RequestOptions
from jobs.planning import create_request, make_plan
from store import copies, jobs
from store.models import Derived, Instance
from store.models_base import now
from store.models_jobs import Disc, Job, Volume
from store.selection import Selection
from store.states import DiscState


@dataclass
class Burnt:
    """A disc of the catalogue, and the image of what is on it."""

    disc_id: int
    volume_id: int
    file_set_id: str
    image: Path


def burn(ctx: Context, vault: Path, selection: Selection | None = None, *, discs: int = 1, **given: Any) -> list[Burnt]:
    """Discs of what is selected, each volume ``discs`` times; their images lie in ``vault`` and are not online."""
    options = RequestOptions.from_settings(ctx.settings, given)
    with ctx.db.begin() as session:
        request = create_request(session, selection=selection or Selection(all=True), options=options, source="test")
    plan_id = make_plan(ctx, request)
    with ctx.db.begin() as session:
        job_id = jobs.create_job(session, request, plan_id, options)
        session.execute(update(Job).where(Job.id == job_id).values(state="DONE"))
        volumes = list(session.scalars(select(Volume).where(Volume.plan_id == plan_id).order_by(Volume.number)))
    vault.mkdir(exist_ok=True)
    made = []
    for volume in volumes:
        image = vault / f"{volume.file_set_id}.iso"
        with image.open("wb") as out:
            volume_image(ctx, volume.id).write(out)
        with ctx.db.begin() as session:
            for copy in range(1, discs + 1):
                at = now()
                disc = Disc(
                    job_id=job_id,
                    volume_id=volume.id,
                    copy=copy,
                    attempt=1,
                    state=DiscState.VERIFIED,
                    burner="iso",
                    progress=1.0,
                    shelf=f"shelf {volume.number}-{copy}",
                    verified_by="read-back",
                    verified_at=at,
                    created_at=at,
                    updated_at=at,
                )
                session.add(disc)
                session.flush()
                made.append(Burnt(disc.id, volume.id, volume.file_set_id, image))
            copies.recount(session, volume.id)
    return made


def put_online(ctx: Context, burnt: Burnt, image: Path | None = None) -> None:
    """The disc's image can be read at once."""
    with ctx.db.begin() as session:
        session.execute(update(Disc).where(Disc.id == burnt.disc_id).values(image=str(image or burnt.image)))


def purge(ctx: Context) -> None:
    """Empty the spool and the cache, as after years."""
    with ctx.db.begin() as session:
        paths = [path for path in session.scalars(select(Instance.spool_path)) if path]
        derived = list(session.scalars(select(Derived.path)))
        session.execute(update(Instance).values(spool_path=None))
        session.execute(update(Derived).values(restored_at=None))
    for path in paths:
        ctx.spool.remove(path)
    for path in derived:
        ctx.derived_path(path).unlink(missing_ok=True)


def in_spool(ctx: Context) -> int:
    """How many instances are in the spool, each with its file as the row tells it."""
    with ctx.db.read() as session:
        rows = list(session.execute(select(Instance.spool_path, Instance.file_bytes)))
    found = [(path, size) for path, size in rows if path]
    assert all(ctx.spool.path_of(path).stat().st_size == size for path, size in found)
    return len(found)
