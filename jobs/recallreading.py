"""A medium that lies ready, read for all recalls that want something of it; and what that means for them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from jobs.context import Context
from jobs.restoring import Reading, restore, wanted_files
from media.problems import MediaError
from media.recognise import recognise
from media.trees import open_tree
from store import recall_plan, recalls, rereading
from store.recall_plan import Asking

_log = logging.getLogger("burnish.recalls")
Progress = Callable[[int, int], None]


def asking_of(ctx: Context) -> Asking:
    """How discs are asked for here."""
    return Asking(ctx.settings.recall.nearest, ctx.settings.recall.drive)


@dataclass(frozen=True, slots=True)
class Medium:
    """A medium that is read for recalls."""

    path: Path
    place: str
    volume_id: int
    file_set_uid: str
    file_set_id: str
    disc_id: int | None
    """Which copy it is, as far as anybody knows."""


def read(ctx: Context, medium: Medium, progress: Progress, cancelled: Callable[[], bool]) -> Reading:
    """Read what open recalls want of a medium, and let them go on. Raises DiscGone, SpoolFull."""
    with ctx.db.read() as session:
        wanted = recall_plan.wanted_of_volume(session, medium.volume_id)
        files = wanted_files(session, medium.volume_id, set().union(*wanted.values()))
    begun = time.monotonic()

    def entered(session: Session, ids: Sequence[int]) -> None:
        recalls.mark_restored(session, medium.volume_id, ids)

    def still_there() -> bool:
        found = recognise(medium.path)
        return medium.file_set_uid == found.file_set_uid or (
            not found.file_set_uid and medium.file_set_id == found.file_set_id
        )

    stopped = False

    def stop() -> bool:
        nonlocal stopped
        stopped = stopped or cancelled()
        return stopped

    try:
        with open_tree(medium.path) as tree:
            reading = restore(
                ctx, tree, files, entered=entered, still_there=still_there, progress=progress, cancelled=stop
            )
    except MediaError as error:
        reading = Reading(failed={one.instance_id: str(error) for one in files}, unreadable=True)
    if not stopped:
        _conclude(ctx, medium, reading, wanted)
    _log.info(
        "%s from %s: %d instances, %d bytes restored, %d not, in %.1f s",
        medium.file_set_id,
        medium.place,
        reading.restored,
        reading.bytes,
        len(reading.failed),
        time.monotonic() - begun,
    )
    return reading


def _conclude(ctx: Context, medium: Medium, reading: Reading, wanted: dict[int, set[int]]) -> None:
    """Enter what a disc gave and did not give; what it did not is looked for elsewhere."""
    words = f"{reading.restored} restored from {medium.place}"
    reason = next(iter(reading.failed.values()), "")
    if reading.failed:
        words += f", {len(reading.failed)} not, e.g. {reason}"
    name = f"D{medium.disc_id}" if medium.disc_id else medium.file_set_id
    with ctx.db.begin() as session:
        # In the order of their numbers, and before anything else: two who conclude at once follow one another.
        waiting = sorted({*wanted, *recall_plan.recalls_of_volume(session, medium.volume_id)})
        locked = {number: recalls.lock(session, number) for number in waiting}
        for number in sorted(wanted):
            recall = locked[number]
            failed = {one: f"{name}: {reading.failed[one]}" for one in wanted[number] if one in reading.failed}
            if failed:
                recalls.note_reasons(session, number, failed)
                if medium.disc_id is not None:
                    recalls.note_tried(session, recall, medium.disc_id, reason)
            recall_plan.finish_volume(
                session, number, medium.volume_id, disc_id=medium.disc_id, place=medium.place, answer=words[:500]
            )
        recalls.note(session, "read", disc_id=medium.disc_id, file_set_id=medium.file_set_id, words=words[:1000])
        if medium.disc_id is not None:
            if reading.unreadable:
                detail = {"recall": True, "failed": len(reading.failed), "first": reason[:300]}
                rereading.record_check(
                    session, medium.disc_id, good=False, how=f"recall from {medium.place}"[:255], detail=detail
                )
            else:
                recall_plan.note_read(session, medium.disc_id)
        # The disc may be one that other recalls want other things of.
        recall_plan.plan_all(session, waiting, asking_of(ctx))
