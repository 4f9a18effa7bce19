"""Recalls: begun, refused, told, and served by whatever somebody inserts.

All facts are rows (``store.recalls``). Everything may be done twice: a file that is back already, after a crash or by
another node, is not entered again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from config.worded import Worded
from jobs.context import Context
from jobs.recallreading import Medium, Progress, asking_of, read
from jobs.recallwork import RecallWork, Send
from jobs.restoring import DiscGone, Reading
from media.recognise import NOTHING, Recognised, recognise
from store import atrisk, recall_plan, recalls
from store.models_base import now
from store.models_jobs import Volume
from store.recall_sources import candidates
from store.recalls import RecallState

__all__ = ["RecallWork", "Send", "asking_of", "begin", "document", "listing", "offer", "refuse"]
READ, NOT_WANTED, UNKNOWN, NOT_A_DISC, TAKEN_OUT = "READ", "NOT WANTED", "UNKNOWN", "NOT A DISC", "TAKEN OUT"
"""What became of something that was inserted."""


def begin(
    ctx: Context,
    ids: Sequence[int],
    *,
    source: str,
    by: str,
    selection: dict[str, Any],
    destination: str | None = None,
    key: str | None = None,
) -> int:
    """Start a recall of these instances; returns its number. RecallError where there is nothing."""
    hours = ctx.settings.recall.timeout_hours
    with ctx.db.begin() as session:
        number = recalls.add(
            session,
            ids,
            source=source,
            by=by,
            selection=selection,
            destination=destination,
            key=key,
            deadline=now() + timedelta(hours=hours) if hours else None,
        )
        recall_plan.plan(session, number, asking_of(ctx))
    return number


def refuse(ctx: Context, recall_id: int, *, reason: str, by: str) -> dict[str, Any]:
    """An operator will not bring the discs. RecallError where the recall has ended."""
    with ctx.db.begin() as session:
        words = f"refused by {by}: {reason}" if reason else f"refused by {by}"
        if not recalls.end(session, recall_id, RecallState.REFUSED, error=words, by=by):
            raise recalls.RecallError(Worded("recall_ended", "recall C{recall} has ended already", recall=recall_id))
        return recall_plan.document(session, recalls.get(session, recall_id), asking_of(ctx))


# --- What somebody has inserted ---------------------------------------------------------------------------------------


def offer(
    ctx: Context,
    path: Path,
    place: str = "",
    *,
    disc_id: int | None = None,
    by: str = "cli",
    progress: Progress = lambda _done, _total: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """What a disc, image or folder that was put somewhere does for open recalls: it is recognised, and read if wanted.

    ``place`` names the drive in messages; ``disc_id`` says which copy it is (else the one that was asked for is meant).
    Returns ``{"result", "words", "recognised", "file_set_id", "disc", "recalls", "restored", "failed", "asks",
    "too_few"}``; ``result`` is one of the words above, ``too_few`` the volume (``store.atrisk``) where the disc was
    found damaged and too few are left. Never raises for what lies there, but SpoolFull.
    """
    found = recognise(path)
    if found.kind == NOTHING:
        return _answer(ctx, found, NOT_A_DISC, f"{found.says}; nothing was read")
    with ctx.db.read() as session:
        volume = recall_plan.volume_of(session, file_set_uid=found.file_set_uid, file_set_id=found.file_set_id)
        wanted = recall_plan.wanted_of_volume(session, volume.id) if volume is not None else {}
        chosen = _copy_of(session, volume, path, disc_id) if volume is not None else None
    if volume is None:
        return _wrong(ctx, found, UNKNOWN, f"{found.says}: the catalogue does not know it", place)
    if not wanted:
        return _wrong(ctx, found, NOT_WANTED, f"{found.says}: no recall needs it", place)
    medium = Medium(path, place or str(path), volume.id, volume.file_set_uid, volume.file_set_id, chosen)
    try:
        reading = read(ctx, medium, progress, cancelled)
    except DiscGone as error:
        return _answer(ctx, found, TAKEN_OUT, f"{volume.file_set_id}: {error}; please insert it again")
    words = f"{volume.file_set_id}: {reading.restored} instances restored"
    if reading.failed:
        words += f", {len(reading.failed)} could not be read from it"
    if reading.unreadable and chosen is not None:
        words += f"; D{chosen} is damaged: nobody counts on it any more"
    return _answer(ctx, found, READ, words, medium, reading, sorted(wanted)) | {"by": by}


def _copy_of(session: Session, volume: Volume, path: Path, disc_id: int | None) -> int | None:
    """Which disc of a volume is meant: the one that was said, else whose image it is, else that was asked for, else the
    best."""
    found = candidates(session, [volume.id]).get(volume.id, ())
    discs = [one.disc_id for one in found]
    if disc_id is not None:
        if disc_id not in discs:
            raise recalls.RecallError(f"D{disc_id} is no disc of {volume.file_set_id}")
        return disc_id
    lying_there = [one.disc_id for one in found if one.image == path]
    asked = recall_plan.discs_asked(session, volume.id)
    return next(iter([*lying_there, *asked, *discs]), None)


def _wrong(ctx: Context, found: Recognised, result: str, words: str, place: str) -> dict[str, Any]:
    document = _answer(ctx, found, result, words)
    if document["asks"]:
        document["words"] += "; " + "; ".join(ask["words"] for ask in document["asks"][:3])
        with ctx.db.begin() as session:
            recalls.note(session, "wrong disc", place=place, words=document["words"][:1000])
    return document


def _answer(
    ctx: Context,
    found: Recognised,
    result: str,
    words: str,
    medium: Medium | None = None,
    reading: Reading | None = None,
    numbers: Sequence[int] = (),
) -> dict[str, Any]:
    damaged = medium is not None and medium.disc_id is not None and reading is not None and reading.unreadable
    with ctx.db.read() as session:
        asks = recall_plan.asks(session, asking_of(ctx))
        short = atrisk.volumes(session, of_volumes=[medium.volume_id], in_spool_too=True) if medium and damaged else []
        served = [
            recalls.document(session, recalls.get(session, number))
            | {"as_on_disc": recall_plan.as_on_disc(session, number)}
            for number in numbers
        ]
    return {
        "result": result,
        "words": words,
        "recognised": asdict(found) | {"patients": [list(pair) for pair in found.patients]},
        "file_set_id": medium.file_set_id if medium else found.file_set_id,
        "disc": f"D{medium.disc_id}" if medium and medium.disc_id else None,
        "restored": reading.restored if reading else 0,
        "failed": len(reading.failed) if reading else 0,
        "recalls": served,
        "asks": asks,
        "too_few": short[0] if short else None,
    }


def document(ctx: Context, recall_id: int) -> dict[str, Any]:
    """A recall with its discs. Raises UnknownRecall."""
    with ctx.db.read() as session:
        return recall_plan.document(session, recalls.get(session, recall_id), asking_of(ctx))


def listing(ctx: Context, *, all_: bool = False) -> dict[str, Any]:
    """Open recalls (or all), and the discs that people are asked for."""
    with ctx.db.read() as session:
        return {
            "recalls": recalls.documents(session, all_=all_),
            "asks": recall_plan.asks(session, asking_of(ctx)),
        }
