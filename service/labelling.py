"""Which label is meant by the ID of a plan, job or disc, and what it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from config.settings import Settings
from jobs import labelling
from service.contract import Document, number
from service.errors import NotFound, UsageError
from store.models_jobs import Disc, Job, Plan, Volume

if TYPE_CHECKING:
    from media.labelfacts import LabelFacts


def document(session: Session, settings: Settings, of: str, *, volume: int | None, printer: str) -> Document:
    """The label's text. Raises UsageError, NotFound, MediaError."""
    meant, facts = _meant(session, settings, of, volume)
    return labelling.label_document(session, settings, facts, meant, printer=printer)


def picture(
    session: Session,
    settings: Settings,
    of: str,
    kind: str,
    *,
    volume: int | None,
    printer: str,
    dpi: int | None,
    guides: bool,
) -> tuple[bytes, int]:
    """The label as a ``png``, ``pdf`` or ``svg`` file, and the key of its volume. Raises as above."""
    if dpi is not None and not 72 <= dpi <= 1200:
        raise UsageError(f"{dpi} dpi: a label is drawn with 72 to 1200 dots per inch, for printers 300 or 600")
    meant, facts = _meant(session, settings, of, volume)
    label = labelling.draw(session, settings, facts, meant, printer=printer)
    return label.drawn(kind, dpi=dpi or settings.label.dpi, guides=guides), meant.id


def _meant(session: Session, settings: Settings, of: str, volume: int | None) -> tuple[Volume, LabelFacts]:
    letter = of.strip()[:1].upper()
    if letter == "D":
        disc = session.get(Disc, number("D", of))
        if disc is None:
            raise NotFound(f"there is no disc {of}")
        found = session.get_one(Volume, disc.volume_id)
        if volume not in (None, found.number):
            raise UsageError(f"{of} is a copy of volume {found.number}")
        return found, labelling.facts_of_disc(session, settings, disc, found)
    if letter == "J":
        job = session.get(Job, number("J", of))
        if job is None:
            raise NotFound(f"there is no job {of}")
        plan_id = job.plan_id
        if plan_id is None:
            raise NotFound(f"{of} has no plan yet")
    elif letter == "P":
        plan_id = number("P", of)
        if session.get(Plan, plan_id) is None:
            raise NotFound(f"there is no plan {of}")
    else:
        raise UsageError(f"{of!r} is no ID of a plan, job or disc; they look like P12, J12, D12")
    volumes = session.scalars(select(Volume).where(Volume.plan_id == plan_id).order_by(Volume.number)).all()
    if volume is None and len(volumes) > 1:
        raise UsageError(f"{of} has {len(volumes)} volumes; say which one by --volume")
    chosen = next((each for each in volumes if volume in (None, each.number)), None)
    if chosen is None:
        raise NotFound(f"{of} has no volume {volume or 1}; it has {len(volumes)}")
    return chosen, labelling.facts_of(session, settings, chosen)
