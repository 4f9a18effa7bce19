"""Seeing to it that every open job and disc has a workflow that runs: after crashes, lost enqueues, dead nodes.

Nothing here decides anything about discs. It only makes workflows run, and a workflow that runs once too often finds
its work done or claimed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import Protocol

from sqlalchemy.exc import DBAPIError

from burners.base import Burner, Ticket
from jobs.leases import Abandoned, LeaseKeeper
from jobs.work import Work
from jobs.workflow import give_up_disc, give_up_job
from store import jobs, nodes, slots
from store.discs import ClaimLost
from store.jobs import OpenDisc, OpenJob

_log = logging.getLogger("burnish.engine")
_PERIOD_SECONDS = 0.5
_STRANDED_SECONDS = 2.0
_ENDED_SECONDS = 15.0
_FORGET_SECONDS = 3600.0
_FORGET_DAYS = 7


class Queues(Protocol):
    """What the engine offers for this; workflows are named as in ``job_workflow`` and ``disc_workflow``."""

    def enqueue_job(self, workflow: str, job_id: int, priority: int) -> None:
        """Harmless when the workflow is there already."""

    def enqueue_disc(self, workflow: str, disc_id: int, burner: str, priority: int) -> None: ...

    def pending(self, node: str) -> list[str]:
        """Workflows that this node began and has not ended."""
        ...

    def resume(self, workflows: Collection[str]) -> None:
        """Put them back into their queues."""

    def ended(self, workflows: Collection[str]) -> dict[str, str]:
        """Those of them that the engine holds for ended, with the error."""
        ...

    def running(self) -> Collection[str]:
        """Workflows that run in this process."""
        ...

    def forget(self, days: int) -> None:
        """Drop the records of workflows that ended so long ago."""


def job_workflow(job: OpenJob) -> str:
    """The ID of the workflow that plans a job. The time keeps it apart from one in a database that was replaced."""
    return f"job-{job.id}-{job.attempt}-{int(job.created_at.timestamp())}"


def disc_workflow(disc: OpenDisc) -> str:
    return f"disc-{disc.id}-{int(disc.created_at.timestamp())}"


class Reconciler:
    """A thread that compares facts with workflows."""

    def __init__(self, work: Work, queues: Queues, leases: LeaseKeeper, lease_seconds: float) -> None:
        self._work = work
        self._queues = queues
        self._leases = leases
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._known: set[str] = set()
        self._idle: set[str] = set()
        self._ended: set[str] = set()
        self._asked: set[int] = set()
        self._chores: list[tuple[float, Callable[[], None]]] = [
            (0.0, self._enqueue),
            (lease_seconds / 3, self._take_over_dead),
            (_STRANDED_SECONDS, self._resume_stranded),
            (_STRANDED_SECONDS, self._free_slots),
            (_ENDED_SECONDS, self._fail_ended),
            (_FORGET_SECONDS, self._forget_ended),
        ]
        self._thread = threading.Thread(target=self._run, name="reconciler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        self._wake.set()

    def stop(self) -> None:
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def _run(self) -> None:
        due = {chore: time.monotonic() for _, chore in self._chores}
        while not self._stop.is_set():
            for period, chore in self._chores:
                if self._stop.is_set():
                    return
                if time.monotonic() < due[chore]:
                    continue
                due[chore] = time.monotonic() + period
                try:
                    self._leases.current()
                    chore()
                except Abandoned:
                    break
                except (DBAPIError, ClaimLost) as error:
                    _log.warning("%s: %s", chore.__name__, getattr(error, "orig", error))
                except Exception:  # noqa: BLE001 - one chore's fault must not stop the others
                    _log.exception("%s", chore.__name__)
            self._wake.wait(_PERIOD_SECONDS)
            self._wake.clear()

    def _enqueue(self) -> None:
        """Whatever a crash kept from its queue, or a command put into the database without an engine."""
        with self._work.ctx.db.read() as session:
            open_jobs, open_discs = jobs.work_to_do(session)
            unsettled = jobs.unsettled(session)
        current: set[str] = set()
        for job in open_jobs:
            workflow = job_workflow(job)
            current.add(workflow)
            if workflow not in self._known:
                self._queues.enqueue_job(workflow, job.id, job.priority)
        # A disc that waits for a slot holds a thread, so only the next ones are let in. One that has its slot always
        # is: were it kept out by those that wait for this very slot, nothing would ever move again.
        let_in: Counter[str] = Counter()
        for disc in open_discs:
            burner = self._work.burners.get(disc.burner)
            if burner is None:
                continue  # another node may have it; else it waits until the settings are mended
            if not disc.begun:
                let_in[disc.burner] += 1
                if let_in[disc.burner] > burner.slots + 1:
                    continue
            workflow = disc_workflow(disc)
            current.add(workflow)
            if workflow not in self._known:
                self._queues.enqueue_disc(workflow, disc.id, disc.burner, disc.priority)
        self._known = current
        for job_id in unsettled:
            with self._work.ctx.db.begin() as session:
                jobs.settle(session, jobs.lock(session, job_id))

    def _take_over_dead(self) -> None:
        """Continue the work of nodes whose lease ran out. Their epoch is raised first: that fences them."""
        lease = self._leases.current()
        with self._work.ctx.db.read() as session:
            found = nodes.dead(session, lease)
        for name, epoch in found:
            with self._work.ctx.db.begin() as session:
                if not nodes.take_over(session, name, epoch, lease):
                    continue
            workflows = self._queues.pending(name)
            _log.warning("node %s is dead; its %d workflows go on here", name, len(workflows))
            self._queues.resume(workflows)

    def _resume_stranded(self) -> None:
        """Workflows of ours that are begun but run nowhere: abandoned in a bad moment, e.g. without a database."""
        pending = set(self._queues.pending(self._leases.node)) - set(self._queues.running())
        stranded = pending & self._idle  # seen so twice: one that was just taken from its queue begins by then
        self._idle = pending - stranded
        if stranded:
            _log.warning("resuming %s", ", ".join(sorted(stranded)))
            self._queues.resume(stranded)

    def _free_slots(self) -> None:
        """Slots of discs that ended in a bad way, as soon as their driver says that the device is free."""
        lease = self._leases.current()
        with self._work.ctx.db.read() as session:
            found = slots.leftovers(session, lease)
        for leftover in found:
            burner = self._work.burners.get(leftover.burner)
            if burner is None:
                continue
            if leftover.ticket is None:
                with self._work.ctx.db.begin() as session:
                    slots.release(session, leftover.disc_id)
            elif leftover.disc_id not in self._asked:
                self._asked.add(leftover.disc_id)
                threading.Thread(
                    target=self._free_slot, args=(burner, leftover.ticket, leftover.disc_id), daemon=True
                ).start()

    def _free_slot(self, burner: Burner, ticket: Ticket, disc_id: int) -> None:
        """In a thread of its own: a device that does not answer keeps nothing else from going on."""
        try:
            if not burner.poll(ticket).device_free:
                return
            lease = self._leases.current()
            with self._work.ctx.db.begin() as session:
                # The answer may have taken long: is it still the same disc that holds the slot?
                if (disc_id, ticket) in ((one.disc_id, one.ticket) for one in slots.leftovers(session, lease)):
                    slots.release(session, disc_id)
        except Abandoned:
            return
        except DBAPIError as error:
            _log.warning("the slot of disc D%d: %s", disc_id, error.orig)
        except Exception:  # noqa: BLE001 - it is asked again
            _log.exception("the slot of disc D%d", disc_id)
        finally:
            self._asked.discard(disc_id)

    def _fail_ended(self) -> None:
        """A workflow that has ended before its work has: a fault of ours, shown as such instead of waiting forever."""
        with self._work.ctx.db.read() as session:
            open_jobs, open_discs = jobs.work_to_do(session)
        job_of = {job_workflow(job): job.id for job in open_jobs}
        disc_of = {disc_workflow(disc): disc.id for disc in open_discs}
        ended = self._queues.ended([*job_of, *disc_of])
        for workflow in self._ended & set(ended):
            error = RuntimeError(f"workflow {workflow} ended too early: {ended[workflow]}")
            if workflow in job_of:
                give_up_job(self._work, job_of[workflow], error)
            else:
                give_up_disc(self._work, disc_of[workflow], error)
        self._ended = set(ended)

    def _forget_ended(self) -> None:
        """What the engine remembers of finished workflows serves nobody: the facts and events are ours."""
        self._queues.forget(_FORGET_DAYS)
