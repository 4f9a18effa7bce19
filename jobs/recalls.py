"""The work of recalls: reading images that are online, serving discs that people insert, sending on, ending in time.

All facts are rows (``store.recalls``); what is kept here is only which threads run. Everything may be done twice: after
a crash, or by two nodes at once, a file that is back already is not entered again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from jobs.context import Context
from jobs.restoring import DiscGone, Reading, restore, wanted_files
from media.problems import MediaError
from media.recognise import NOTHING, Recognised, recognise
from media.trees import open_tree
from store import recall_plan, recalls, rereading
from store.models import Volume, now
from store.recall_plan import Asking
from store.recall_sources import candidates
from store.recalls import RecallState
from store.spool import SpoolFull

_log = logging.getLogger("burnish.recalls")

_STARTED = now()
"""Before this process answered anybody."""
READ, NOT_WANTED, UNKNOWN, NOT_A_DISC, TAKEN_OUT = "READ", "NOT WANTED", "UNKNOWN", "NOT A DISC", "TAKEN OUT"
"""What became of something that was inserted."""
_REPLAN_SECONDS = 15.0
_REPLAN_SHARE = 20.0
"""Planning takes a twentieth of the time at most, however many recalls are open."""
_AGAIN_SECONDS = 30.0
_LOST_SECONDS = 300.0
"""Who waits over the network says so more often than this (``scp.recalling``), unless one instance takes so long."""

Progress = Callable[[int, int], None]
Send = Callable[[str, Sequence[int], Callable[[], bool]], list[str]]
"""Sends instances to a remote node; the reasons of those that it did not take. Raises for a node that is away."""


def asking_of(ctx: Context) -> Asking:
    """How discs are asked for here."""
    return Asking(ctx.settings.recall.nearest, ctx.settings.recall.drive)


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
            raise recalls.RecallError(f"recall C{recall_id} has ended already")
        return recall_plan.document(session, recalls.get(session, recall_id), asking_of(ctx))


# --- What somebody has inserted ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Medium:
    """A medium that is read for recalls."""

    path: Path
    place: str
    volume_id: int
    file_set_uid: str
    file_set_id: str
    disc_id: int | None
    """Which copy it is, as far as anybody knows."""


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
    Returns ``{"result", "words", "recognised", "file_set_id", "disc", "recalls", "restored", "failed", "asks"}``;
    ``result`` is one of the words above. Never raises for what lies there, but SpoolFull.
    """
    found = recognise(path)
    if found.kind == NOTHING:
        return _answer(ctx, found, NOT_A_DISC, f"{found.says}; nothing was read")
    with ctx.db.read() as session:
        volume = recall_plan.volume_of(session, file_set_uid=found.file_set_uid, file_set_id=found.file_set_id)
        wanted = recall_plan.wanted_of_volume(session, volume.id) if volume is not None else {}
        chosen = _copy_of(session, volume, disc_id) if volume is not None else None
    if volume is None:
        return _wrong(ctx, found, UNKNOWN, f"{found.says}: the catalogue does not know it", place)
    if not wanted:
        return _wrong(ctx, found, NOT_WANTED, f"{found.says}: no recall needs it", place)
    medium = _Medium(path, place or str(path), volume.id, volume.file_set_uid, volume.file_set_id, chosen)
    try:
        reading = _read(ctx, medium, progress, cancelled)
    except DiscGone as error:
        return _answer(ctx, found, TAKEN_OUT, f"{volume.file_set_id}: {error}; please insert it again")
    words = f"{volume.file_set_id}: {reading.restored} instances restored"
    if reading.failed:
        words += f", {len(reading.failed)} could not be read from it"
    return _answer(ctx, found, READ, words, medium, reading, sorted(wanted)) | {"by": by}


def _copy_of(session: Session, volume: Volume, disc_id: int | None) -> int | None:
    """Which disc of a volume is meant: the one that was said, else that was asked for, else the best."""
    discs = [one.disc_id for one in candidates(session, [volume.id]).get(volume.id, ())]
    if disc_id is not None:
        if disc_id not in discs:
            raise recalls.RecallError(f"D{disc_id} is no disc of {volume.file_set_id}")
        return disc_id
    asked = recall_plan.discs_asked(session, volume.id)
    return next(iter([*asked, *discs]), None)


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
    medium: _Medium | None = None,
    reading: Reading | None = None,
    numbers: Sequence[int] = (),
) -> dict[str, Any]:
    with ctx.db.read() as session:
        asks = recall_plan.asks(session, asking_of(ctx))
        served = [recalls.document(session, recalls.get(session, number)) for number in numbers]
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
    }


def _read(ctx: Context, medium: _Medium, progress: Progress, cancelled: Callable[[], bool]) -> Reading:
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


def _conclude(ctx: Context, medium: _Medium, reading: Reading, wanted: dict[int, set[int]]) -> None:
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


# --- What goes on by itself -------------------------------------------------------------------------------------------


class RecallWork:
    """Reads online images and sends on what is back, one of each at a time, in threads of its own."""

    def __init__(self, ctx: Context, send: Send) -> None:
        self._ctx = ctx
        self._send = send
        self._stopping = threading.Event()
        self._threads: dict[str, threading.Thread] = {}
        self._plan_at = 0.0
        self._later: dict[str, float] = {}
        """What failed for a reason that may pass, and when it is tried again."""

    def tick(self) -> None:
        """To be called about once a second; returns soon."""
        self._end_late()
        if time.monotonic() >= self._plan_at:
            begun = time.monotonic()
            self._plan()
            ended = time.monotonic()
            self._plan_at = ended + max(_REPLAN_SECONDS, _REPLAN_SHARE * (ended - begun))
        self._run("read", self._read_online)
        self._run("send", self._send_on)

    def once(self) -> None:
        """All that can be done without people, in this thread; for commands without a service."""
        self._end_late()
        self._plan()
        self._read_online()
        self._send_on()

    def stop(self) -> None:
        """Begin nothing more; what is being read ends with the present file."""
        self._stopping.set()
        for thread in self._threads.values():
            thread.join(10.0)

    def _run(self, name: str, task: Callable[[], None]) -> None:
        running = self._threads.get(name)
        if self._stopping.is_set() or (running is not None and running.is_alive()):
            return
        with self._ctx.db.read() as session:
            waiting = bool(
                recall_plan.next_online(session) if name == "read" else recalls.open_ids(session, RecallState.RESTORED)
            )
        if waiting:
            thread = threading.Thread(target=self._guarded, args=(name, task), name=f"recall-{name}", daemon=True)
            self._threads[name] = thread
            thread.start()

    def _guarded(self, name: str, task: Callable[[], None]) -> None:
        try:
            task()
        except Exception:  # noqa: BLE001 - a thread of ours never ends silently
            _log.exception("recalls cannot %s", name)
            self._stopping.wait(_AGAIN_SECONDS)

    def _end_late(self) -> None:
        """Recalls whose time is over, and those of requesters who are gone."""
        with self._ctx.db.read() as session:
            open_ = recalls.open_recalls(session)
            at = now()
            late = [one for one in open_ if one.deadline is not None and one.deadline <= at]
            heard = at - timedelta(seconds=_LOST_SECONDS)
            if self._ctx.db.is_sqlite:  # then there is no other node: who asked before this start has died with it
                heard = max(heard, _STARTED)
            lost = [one for one in open_ if recalls.is_network(one.source) and one.updated_at < heard]
        for one in late:
            with self._ctx.db.begin() as session:
                words = recall_plan.late_words(session, one.id, asking_of(self._ctx))
                recalls.end(session, one.id, RecallState.TIMED_OUT, error=words)
        for one in lost:
            with self._ctx.db.begin() as session:
                recalls.end(session, one.id, RecallState.CANCELLED, error="who asked for it is gone")

    def _plan(self) -> None:
        with self._ctx.db.read() as session:
            waiting = recalls.open_ids(session, RecallState.WAITING)
        for number in waiting:
            with self._ctx.db.begin() as session, suppress(recalls.UnknownRecall):
                recall_plan.plan(session, number, asking_of(self._ctx))

    def _read_online(self) -> None:
        """Every image that can be read, one after the other."""
        tried: set[int] = set()
        while not self._stopping.is_set():
            with self._ctx.db.read() as session:
                found = recall_plan.next_online(session, tried)
                found = [one for one in found if self._is_due(f"volume {one[0]}")]
                volume = session.get(Volume, found[0][0]) if found else None
            if volume is None:
                return
            _, disc_id, image = found[0]
            tried.add(volume.id)
            medium = _Medium(Path(image), image, volume.id, volume.file_set_uid, volume.file_set_id, disc_id)
            try:
                reading = _read(self._ctx, medium, lambda _done, _total: None, self._stopping.is_set)
                if reading.restored or reading.failed:
                    tried.discard(volume.id)
            except (SpoolFull, DiscGone) as error:
                self._put_off(f"volume {volume.id}", str(error), volume.id)

    def _put_off(self, what: str, reason: str, volume_id: int) -> None:
        self._later[what] = time.monotonic() + _AGAIN_SECONDS
        with self._ctx.db.begin() as session:
            for number in recall_plan.wanted_of_volume(session, volume_id):
                recalls.postpone(session, number, error=reason)

    def _is_due(self, what: str) -> bool:
        return time.monotonic() >= self._later.get(what, 0.0)

    def _send_on(self) -> None:
        """Every recall that is back goes to its node."""
        with self._ctx.db.read() as session:
            waiting = [
                (number, recall.destination)
                for number in recalls.open_ids(session, RecallState.RESTORED)
                if (recall := recalls.get(session, number)).destination is not None
            ]
        for number, destination in waiting:
            if self._stopping.is_set() or destination is None or not self._is_due(f"recall {number}"):
                continue
            with self._ctx.db.read() as session:
                ids = recalls.available(session, number)
            try:
                refused = self._send(destination, ids, self._stopping.is_set)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again until the recall's time is over
                self._later[f"recall {number}"] = time.monotonic() + _AGAIN_SECONDS
                with self._ctx.db.begin() as session:
                    recalls.postpone(session, number, error=f"{destination}: {error}")
                continue
            if self._stopping.is_set():
                return
            problem = f"{destination} did not take {len(refused)}: {refused[0]}" if refused else ""
            with self._ctx.db.begin() as session:
                recalls.delivered(session, number, problem=problem)


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
