"""What a C-MOVE or C-GET wants and only discs have: a recall is begun, and waited for.

The server's process reads the discs; here its tables are looked at. Who waits says so every few seconds, so that a
recall whose requester died with this process does not stay open (``jobs.recalls``).
"""

from __future__ import annotations

import hashlib
import time
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from store import recall_plan, recalls
from store.db import Database
from store.models_archive import Recall
from store.recall_plan import Asking
from store.recalls import InstanceState, RecallState
from store.retrieval import Held

_LOOK_SECONDS = 0.25
_ALIVE_SECONDS = 10.0
_ENDS = {
    RecallState.TIMED_OUT: "timed out",
    RecallState.REFUSED: "was refused by the operator",
    RecallState.CANCELLED: "was cancelled",
}


@dataclass(frozen=True, slots=True)
class RecallPolicy:
    """What is done about instances that are only on discs."""

    mode: str = "no"
    """``wait`` for them, ``start`` a recall without waiting, ``no`` recall."""
    seconds: float = 900.0
    pending_seconds: float = 5.0
    nearest: tuple[str, ...] = ()
    drive: str = ""

    @property
    def asking(self) -> Asking:
        return Asking(self.nearest, self.drive)


class Recalling:
    """Recalls of one retrieve. ``database`` is one that may write."""

    def __init__(self, database: Database, policy: RecallPolicy, *, source: str, by: str) -> None:
        self.policy = policy
        self._database = database
        self._source = source
        self._by = by
        self._open: list[int] = []
        self._deadline = time.monotonic() + policy.seconds
        self._said_alive = time.monotonic()

    def begin(self, ids: Sequence[int]) -> int:
        """Start a recall of these instances; returns its number."""
        waits = self.policy.mode == "wait"
        key = None if waits else "network:" + hashlib.sha256(array("q", sorted(ids)).tobytes()).hexdigest()
        source = self._source if waits else self._source.replace(":", "-start:", 1)
        try:
            number = self._begin(ids, source, key)
        except IntegrityError:  # the same was asked for at the same moment
            number = self._begin(ids, source, key)
        if waits:
            self._open.append(number)
        return number

    def _begin(self, ids: Sequence[int], source: str, key: str | None) -> int:
        with self._database.begin() as session:
            number = recalls.add(session, ids, source=source, by=self._by, selection={}, key=key)
            recall_plan.plan(session, number, self.policy.asking)
        return number

    def alive(self) -> None:
        """We are still here; to be called often."""
        if self._open and time.monotonic() - self._said_alive >= _ALIVE_SECONDS:
            self._said_alive = time.monotonic()
            with self._database.begin() as session:
                for number in self._open:
                    recalls.touch(session, number)

    def wait(
        self,
        number: int,
        *,
        arrived: Callable[[Sequence[int], dict[int, str]], None],
        pending: Callable[[], None],
        idle: Callable[[], None],
        cancelled: Callable[[], bool],
    ) -> tuple[bool, str]:
        """Until all of a recall's instances came, or will not: whether the peer cancelled, and how it ended, in words.

        ``arrived`` gets instances that are here now, and those that will not come with the reason; ``pending`` is
        called every so often, ``idle`` whenever nothing came for a while.
        """
        handled: set[int] = set()
        said = looked = time.monotonic()
        quiet = False
        while True:
            if cancelled():
                self._end(number, RecallState.CANCELLED, "cancelled by who asked for it")
                return True, ""
            now = time.monotonic()
            if now >= self._deadline:
                self._end(number, RecallState.TIMED_OUT, self._late(number))
            came, lost, over = self._look(number, handled)
            handled.update(came, lost)
            if came or lost:
                arrived(came, lost)
                said, quiet, looked = time.monotonic(), False, time.monotonic()
                continue
            if over:
                return False, self._words(number)
            if not quiet and now - looked > 1.0:
                quiet = True
                idle()
            if now - said >= self.policy.pending_seconds:
                said = now
                pending()
            self.alive()
            time.sleep(_LOOK_SECONDS)

    def _look(self, number: int, handled: set[int]) -> tuple[list[int], dict[int, str], bool]:
        """What came and what will not since the last time, and whether the recall waits for nothing more."""
        with self._database.read() as session:
            recall = session.get(Recall, number)
            found = recalls.counts(session, number)
            settled = sum(found.values()) - found[InstanceState.WANTED]
            came: list[int] = []
            lost: dict[int, str] = {}
            if settled > len(handled):
                for instance, state, reason in recalls.settled(session, number):
                    if instance in handled:
                        continue
                    if state is InstanceState.FAILED:
                        lost[instance] = reason or "it could not be recalled"
                    else:
                        came.append(instance)
            over = recall is None or RecallState(recall.state) is not RecallState.WAITING
        return came, lost, over

    def _late(self, number: int) -> str:
        with self._database.read() as session:
            return recall_plan.late_words(session, number, self.policy.asking)

    def _words(self, number: int) -> str:
        with self._database.read() as session:
            recall = recalls.get(session, number)
            failed = recalls.counts(session, number)[InstanceState.FAILED]
        if not failed:
            return ""
        end = _ENDS.get(RecallState(recall.state), f"could not restore {failed} instances")
        return f"Recall C{number} {end}"

    def delivered(self, problem: str = "") -> None:
        """What came was sent."""
        for number in self._open:
            with self._database.begin() as session:
                recalls.delivered(session, number, problem=problem)
        self._open.clear()

    def abandon(self) -> None:
        """The requester is gone, or has been answered: nobody waits any more."""
        numbers, self._open = self._open, []
        for number in numbers:
            with suppress(SQLAlchemyError):  # whoever does not say that he waits is forgotten anyway
                self._end(number, RecallState.CANCELLED, "the association of who asked for it is lost")

    def _end(self, number: int, state: RecallState, error: str) -> None:
        with self._database.begin() as session:
            recalls.end(session, number, state, error=error)


def is_far(instance: Held) -> bool:
    """Whether only a disc that nobody can read now may have an instance."""
    there = instance.spool_path is not None or instance.restored is not None or instance.places
    return not there and not instance.only_renamed
