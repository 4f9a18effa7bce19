"""What becomes of an order that a robot has, or had: its files, the status and our notes, put together.

Nothing here is remembered that matters: after a restart the same comes of the same files. Only for how long something
has lasted this process's own clock counts.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from burners.base import BurnReport, BurnState
from burners.hotfolder_dialect import Dialect, Phase, RobotJob
from burners.hotfolder_options import Options
from burners.hotfolder_papers import Papers
from burners.hotfolder_records import Ending, Records
from burners.hotfolder_status import Seen, StatusWatch, in_words

_log = logging.getLogger("burnish.burners")
_CANCEL_AGAIN_SECONDS = 30.0
_REMEMBERED = 1000


@dataclass
class _Watch:
    """What this process saw of an order, and since when."""

    seen: object = None
    since: float = 0.0
    """When it last changed."""
    unsure: float | None = None
    """Since when the robot, though online, does not say what became of it."""
    asked: float | None = None
    """When it was first asked to cancel."""
    asked_again: float = 0.0


class Following:
    """Follows the orders of one burner."""

    def __init__(
        self, name: str, options: Options, dialect: Dialect, records: Records, papers: Papers, status: StatusWatch
    ) -> None:
        self._name = name
        self._options = options
        self._dialect = dialect
        self._records = records
        self._papers = papers
        self._status = status
        self._lock = threading.Lock()
        self._watches: dict[str, _Watch] = {}
        self._wishes: set[str] = set()
        self._endings: dict[str, Ending] = {}
        self._patience = min(options.stale_seconds, options.lost_seconds)
        """For the reason of a failure: a status follows the rename of a file in some seconds."""

    def wish_cancel(self, job_id: str) -> None:
        """From now on the robot is asked to cancel it, as soon as it has it."""
        self._wishes.add(job_id)

    def forget(self, job_id: str) -> None:
        """It has been put away."""
        with self._lock:
            self._watches.pop(job_id, None)
            self._wishes.discard(job_id)

    def ask(self, job_id: str) -> BurnReport:
        """How the robot stands with an order that it has, or had."""
        suffixes = self.suffixes(job_id)
        seen = self._status.now()
        job = _sane(self._dialect.judge(job_id, suffixes, seen.status))
        with self._lock:
            watch = self._watches.setdefault(job_id, _Watch(since=time.monotonic()))
        if self._wants_cancel(job_id) and not job.state.final:
            self._seek_cancel(job_id, job, suffixes, seen, watch)
            if (ending := self.ending(job_id)) is not None:
                return ended(ending)
        report = self._judged(job_id, job, seen, watch)
        return replace(report, supplies=seen.status.supplies)

    def _judged(self, job_id: str, job: RobotJob, seen: Seen, watch: _Watch) -> BurnReport:
        at = time.monotonic()
        said = f": {job.message}" if job.message else ""
        blind = seen.offline or seen.garbled
        if job != watch.seen or blind:
            watch.seen, watch.since = job, at
        unexplained = job.state is Phase.BAD and not job.message
        if not (job.state in (Phase.ABSENT, Phase.ENDED) or unexplained) or (blind and not unexplained):
            watch.unsure = None
        elif watch.unsure is None:
            watch.unsure = at
        lost = watch.unsure is not None and at - watch.unsure > self._options.lost_seconds
        unanswered = watch.asked is not None and at - self._deaf_since(job_id, watch) > self._options.cancel_seconds
        stalled = at - watch.since
        match job.state:
            case Phase.GOOD:
                return self._end(job_id, BurnState.BURNT, job.message)
            case Phase.CANCELLED if self._wants_cancel(job_id):
                return self._end(job_id, BurnState.CANCELLED, f"cancelled by the robot{said}")
            case Phase.CANCELLED:
                return self._end(job_id, BurnState.FAILED, f"cancelled at the robot, not here{said}")
            case Phase.BAD if unexplained and watch.unsure is not None and at - watch.unsure < self._patience:
                return BurnReport(BurnState.BURNING, job.progress, "it failed; the status will say why")
            case Phase.BAD:
                return self._end(job_id, BurnState.FAILED, job.message or "the robot reports a failure")
            case _ if unanswered:
                reason = "the robot did not answer the cancellation: a disc may still come out of it"
                return self._end(job_id, BurnState.FAILED, reason + said)
            case Phase.ENDED if lost:
                reason = (
                    "the robot has ended but does not say how: look at the disc in its output, it is not vouched for"
                )
                return self._end(job_id, BurnState.FAILED, reason + said)
            case Phase.ABSENT if lost:
                reason = "the order is gone from the robot's folder and status: a disc of it may or may not exist"
                return self._end(job_id, BurnState.FAILED, reason)
        if seen.offline or (blind and job.state in (Phase.ABSENT, Phase.ENDED)):
            return BurnReport(BurnState.WAITING, job.progress, f"{self._name}: {blind}")
        if job.state is Phase.PAUSED:
            reason = seen.holds or job.message or "the robot has paused"
            return BurnReport(BurnState.WAITING, job.progress, f"{self._name}: {reason}")
        if job.state is not Phase.WORKING and seen.holds:
            return BurnReport(BurnState.WAITING, job.progress, f"{self._name}: {seen.holds}")
        if job.state is Phase.OFFERED and stalled > self._options.lost_seconds:
            reason = (
                f"{self._name}: not taken for more than {in_words(self._options.lost_seconds)}: is its program running?"
            )
            return BurnReport(BurnState.WAITING, 0.0, reason)
        if stalled > self._options.stall_seconds:
            long = in_words(self._options.stall_seconds)
            reason = f"{self._name}: nothing has moved for more than {long}: look at the robot{said}"
            return BurnReport(BurnState.WAITING, job.progress, reason)
        state = BurnState.QUEUED if job.state in (Phase.OFFERED, Phase.QUEUED) else BurnState.BURNING
        return BurnReport(state, job.progress, job.message)

    def _end(self, job_id: str, state: BurnState, message: str) -> BurnReport:
        """Note how it ended, for the robot forgets: its files go away after an hour or two."""
        facts = next(iter(self._records.handed(job_id).values()), {})
        note, digest = str(facts.get("note") or ""), facts.get("sha256")
        ending = Ending(state, "; ".join(part for part in (message, note) if part)[:2000], digest)
        try:
            self._records.note_ending(job_id, ending)
        except OSError as error:
            _log.warning("the end of order %s of burner %s cannot be noted: %s", job_id, self._name, error)
        with self._lock:
            self._watches.pop(job_id, None)
            self._wishes.discard(job_id)
        self._remember(job_id, ending)
        return ended(ending)

    def ending(self, job_id: str) -> Ending | None:
        """How an order ended, as far as that is known. Raises OSError."""
        known = self._endings.get(job_id)
        if known is None and (known := self._records.ending(job_id)) is not None:
            self._remember(job_id, known)
        return known

    def _remember(self, job_id: str, ending: Ending) -> None:
        """So that a share that goes away now does not make us forget it."""
        with self._lock:
            self._endings[job_id] = ending
            while len(self._endings) > _REMEMBERED:
                del self._endings[next(iter(self._endings))]

    def _wants_cancel(self, job_id: str) -> bool:
        return job_id in self._wishes or self._records.wished(job_id)

    def _seek_cancel(self, job_id: str, job: RobotJob, suffixes: frozenset[str], seen: Seen, watch: _Watch) -> None:
        """Take the order back while the robot has not taken it, else ask for a cancellation, again now and then."""
        at = time.monotonic()
        self._records.wish_cancel(job_id)
        if watch.asked is None:
            watch.asked = at
        if job.state is Phase.OFFERED and (self._dialect.withdraws or seen.offline) and self._withdraw(job_id):
            return
        paper = self._dialect.cancellation(job_id)
        answered = suffixes & frozenset(self._dialect.cancel_answers)
        if paper is None or answered or at < watch.asked_again or job.state is Phase.ENDED:
            return
        watch.asked_again = at + _CANCEL_AGAIN_SECONDS
        target = self._options.folder / paper.name
        if Path(paper.name).suffix.upper() in suffixes:
            return  # asked before, and not yet taken
        part = target.with_name(f"{paper.name}.tmp")
        self._papers.put(part, paper.text)
        part.rename(target)

    def _deaf_since(self, job_id: str, watch: _Watch) -> float:
        """Since when the robot could have answered. One that cannot be asked ends its disc, unless it stands still."""
        asked = watch.asked or 0.0
        return asked if self._dialect.cancellation(job_id) is not None else max(asked, watch.since)

    def _withdraw(self, job_id: str) -> bool:
        """Rename the order away: the robot cannot take what has gone."""
        order = self._options.folder / f"{job_id}{self._dialect.order_suffix}"
        try:
            order.rename(self.withdrawn(job_id))
        except FileNotFoundError:
            return False  # it was faster
        self.taken_back(job_id)
        return True

    def withdrawn(self, job_id: str) -> Path:
        return self._options.folder / f"{job_id}.withdrawn"

    def taken_back(self, job_id: str) -> BurnReport:
        report = self._end(job_id, BurnState.CANCELLED, "taken back before the robot took it")
        self.withdrawn(job_id).unlink(missing_ok=True)
        if (paper := self._dialect.cancellation(job_id)) is not None:
            (self._options.folder / paper.name).unlink(missing_ok=True)
        return report

    def suffixes(self, job_id: str) -> frozenset[str]:
        """Suffixes of the files that are called like the order, in capitals. Raises OSError."""
        found = _suffixes(self._options.folder, job_id)
        # A rename while the folder is read may hide a file from us; a second look finds it.
        return found or _suffixes(self._options.folder, job_id)


def ended(ending: Ending) -> BurnReport:
    """The report of an order that has ended."""
    return BurnReport(ending.state, 1.0, ending.message, sha256=ending.sha256, device_free=True)


def _sane(job: RobotJob) -> RobotJob:
    """No disc is good beside a bad one, and an order is for one disc."""
    if job.state is Phase.GOOD and (job.discs_bad or job.discs_good not in (None, 1)):
        counted = f"{job.discs_good} good and {job.discs_bad or 0} bad discs for one that was ordered"
        return replace(job, state=Phase.BAD, message="; ".join(part for part in (counted, job.message) if part))
    return job


def _suffixes(folder: Path, job_id: str) -> frozenset[str]:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    stems = ((name.rpartition(".")[0], name.rpartition(".")[2]) for name in names)
    return frozenset(f".{suffix.upper()}" for stem, suffix in stems if stem == job_id and suffix != "withdrawn")
