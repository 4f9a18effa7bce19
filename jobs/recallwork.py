"""What recalls do without people: images that are online are read, what is back is sent on, what is late ends."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from jobs.context import Context
from jobs.recallreading import Medium, asking_of, read
from jobs.restoring import DiscGone
from store import recall_plan, recalls
from store.models_base import now
from store.models_jobs import Volume
from store.recalls import RecallState
from store.spool import SpoolFull

_log = logging.getLogger("burnish.recalls")
_STARTED = now()
"""Before this process answered anybody."""
_REPLAN_SECONDS = 15.0
_REPLAN_SHARE = 20.0
"""Planning takes a twentieth of the time at most, however many recalls are open."""
_AGAIN_SECONDS = 30.0
_LOST_SECONDS = 300.0
"""Who waits over the network says so more often than this (``scp.recalling``), unless one instance takes so long."""
Send = Callable[[str, Sequence[int], Callable[[], bool]], list[str]]
"""Sends instances to a remote node; the reasons of those that it did not take. Raises for a node that is away."""


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
            medium = Medium(Path(image), image, volume.id, volume.file_set_uid, volume.file_set_id, disc_id)
            try:
                reading = read(self._ctx, medium, lambda _done, _total: None, self._stopping.is_set)
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
