"""Running the durable workflows: the only module that knows DBOS.

DBOS keeps which workflow runs where and which of its steps have ended, in a file of its own (SQLite) or a schema of its
own (PostgreSQL). It is used as a durable queue with checkpoints, no more: what is true of jobs and discs stands in our
tables, so losing DBOS's would lose nothing. Mind, tried:

- Only ``Exception`` is recorded as the end of a step or workflow. ``Abandoned`` is none, so a workflow that may not go
  on stays PENDING, as after a crash, and is resumed by its ID.
- A run that lost its workflow to another (``owner_xid``) cannot record anything more.
- ``cancel_workflow`` frees the queue's slot while the step still runs; it is not used.
"""

from __future__ import annotations

import importlib
import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from dbos import DBOS, DBOSConfig, SetEnqueueOptions, SetWorkflowID
from sqlalchemy import select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, IntegrityError

from burners.registry import Burners
from jobs import workflow
from jobs.context import Context
from jobs.fetching import Fetch
from jobs.leases import Abandoned, LeaseKeeper
from jobs.recover import Reconciler
from jobs.work import RealRooms, Rooms, Work
from store import slots
from store.db import IDLE_TRANSACTION_SECONDS, made_private
from store.discs import ClaimLost
from store.jobs import JobNotFound
from store.models_jobs import Job
from store.states import JOB_FINAL, JobState

_log = logging.getLogger("burnish.engine")

APPLICATION_VERSION = "1"
"""Raised only when the steps of a workflow change; open workflows of an older version are then left to ``_fail_ended``
and ``retry``. (The default, a hash of the source, would strand running jobs at every upgrade.)"""

SCHEMA = "burnish_engine"
PREPARE = "prepare"
_POLL_SECONDS = 0.2
_DRAIN_SECONDS = 15.0
_LONG_SECONDS = 2.0
"""A run that takes longer to notice that the service stops is named."""

_engine: Engine | None = None
"""DBOS finds workflows by name in this module, so there is one engine a process."""


class Engine:
    """Runs the workflows of jobs and discs on this node until it is stopped; one a process.

    ``on_fatal`` hears, in a thread of its own, why this node must end: the service should stop.
    """

    def __init__(
        self,
        ctx: Context,
        burners: Burners,
        *,
        node: str,
        on_fatal: Callable[[str], None] | None = None,
        rooms: Rooms | None = None,
        pull: Fetch | None = None,
    ) -> None:
        self.node = node
        self.problem = ""
        """Why the engine does not work, for people; empty while it does."""
        self._ctx = ctx
        self._on_fatal = on_fatal
        seconds = ctx.settings.node.lease_seconds
        self._leases = LeaseKeeper(ctx.db, node, seconds, on_fatal=self._fatal)
        self._work = Work(ctx, burners, self._leases, rooms or RealRooms(), _step, self._wake, pull)
        self._running: Counter[str] = Counter()
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._guard = threading.Lock()
        self._reconciler = Reconciler(self._work, self, self._leases, seconds)

    def start(self) -> None:
        """Claim the node's lease, continue what a crash interrupted, take new work."""
        global _engine  # noqa: PLW0603 - see above
        if _engine is not None:
            raise RuntimeError("an engine runs already in this process")
        _load_packages()
        self._leases.start()
        try:
            self._make_slots()
            _engine = self
            self._launch()
        except BaseException:
            _engine = None
            self._leases.release()
            raise
        self._reconciler.start()
        _log.info("engine of node %s runs", self.node)

    def stop(self) -> None:
        """Stop in good order: work in progress is abandoned as by a crash, and continued at the next start."""
        global _engine  # noqa: PLW0603
        if _engine is not self:
            return
        self._leases.stop()
        self._reconciler.stop()
        begun = time.monotonic()
        waited_for: Collection[str] = ()
        while self._running and time.monotonic() < begun + _DRAIN_SECONDS:
            waited_for = self.running()
            time.sleep(0.02)
        if time.monotonic() > begun + _LONG_SECONDS:
            _log.warning("waited %.0f s for %s", time.monotonic() - begun, ", ".join(sorted(waited_for)))
        DBOS.destroy()
        self._leases.release()
        _engine = None

    @property
    def healthy(self) -> bool:
        return not self.problem and not self._leases.stopping

    def submit(self, job_id: int) -> None:
        """Have a queued job seen to at once; it would be found within a second anyway."""
        _log.debug("job J%d submitted", job_id)
        self._wake()

    def wait(self, job_id: int, timeout: float | None = None) -> JobState:
        """Wait until a job has ended, or ``timeout`` seconds; returns its state. Raises JobNotFound."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._ctx.db.read() as session:
                state = session.execute(select(Job.state).where(Job.id == job_id)).scalar_one_or_none()
            if state is None:
                raise JobNotFound(job_id)
            if JobState(state) in JOB_FINAL or (deadline is not None and time.monotonic() > deadline):
                return JobState(state)
            time.sleep(0.05)

    # --- What the reconciler needs (jobs.recover.Queues) --------------------------------------------------------------

    def enqueue_job(self, workflow: str, job_id: int, priority: int) -> None:
        with SetWorkflowID(workflow), SetEnqueueOptions(priority=priority):
            DBOS.enqueue_workflow(PREPARE, _prepare_job, job_id)

    def enqueue_disc(self, workflow: str, disc_id: int, burner: str, priority: int) -> None:
        with SetWorkflowID(workflow), SetEnqueueOptions(priority=priority):
            DBOS.enqueue_workflow(_queue_of(burner), _make_disc, disc_id)

    def pending(self, node: str) -> list[str]:
        found = DBOS.list_workflows(status="PENDING", executor_id=node, load_input=False, load_output=False)
        return [status.workflow_id for status in found]

    def resume(self, workflows: Collection[str]) -> None:
        by_queue: defaultdict[str | None, list[str]] = defaultdict(list)
        for status in DBOS.list_workflows(workflow_ids=list(workflows), load_input=False, load_output=False):
            by_queue[status.queue_name].append(status.workflow_id)
        for queue, ids in by_queue.items():
            DBOS.resume_workflows(ids, queue_name=queue)

    def ended(self, workflows: Collection[str]) -> dict[str, str]:
        if not workflows:
            return {}
        found = DBOS.list_workflows(workflow_ids=list(workflows), load_input=False)
        live = ("ENQUEUED", "PENDING", "DELAYED")
        return {status.workflow_id: str(status.error or status.status) for status in found if status.status not in live}

    def running(self) -> Collection[str]:
        with self._guard:
            return set(self._running)

    def forget(self, days: int) -> None:
        before = (datetime.now(UTC) - timedelta(days=days)).isoformat()
        while found := DBOS.list_workflows(
            status=["SUCCESS", "ERROR"], completed_before=before, limit=500, load_input=False, load_output=False
        ):
            DBOS.delete_workflows([status.workflow_id for status in found])

    # --- Inside -------------------------------------------------------------------------------------------------------

    def _launch(self) -> None:
        burners = self._work.burners.usable
        logger = logging.getLogger("dbos")
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())  # else it writes to the standard error stream by itself
        config: DBOSConfig = {
            "name": "burnish",
            "system_database_url": _dbos_url(self._ctx),
            "dbos_system_schema": SCHEMA,
            "executor_id": self.node,
            "application_version": APPLICATION_VERSION,
            "log_level": "ERROR",
            "enable_otlp": False,
            "sys_db_pool_size": 5,
            "sys_db_idle_transaction_timeout_sec": float(IDLE_TRANSACTION_SECONDS),
            "use_listen_notify": False,
            "notification_listener_polling_interval_sec": 0.1,  # a stop waits for it; it asks for nothing of ours
            "scheduler_polling_interval_sec": 3600.0,
        }
        DBOS(config=config)
        DBOS.listen_queues([PREPARE, *(_queue_of(name) for name in burners)])
        try:
            DBOS.launch()
            self._register_queue(PREPARE, self._ctx.settings.jobs.prepare_concurrency)
            for name in burners:
                self._register_queue(_queue_of(name), None)  # the reconciler lets in what may run
        except BaseException:
            DBOS.destroy()
            raise

    @staticmethod
    def _register_queue(name: str, concurrency: int | None) -> None:
        DBOS.register_queue(
            name,
            worker_concurrency=concurrency,
            polling_interval_sec=_POLL_SECONDS,
            on_conflict="always_update",
        )

    def _make_slots(self) -> None:
        for name, burner in self._work.burners.usable.items():
            host = slots.EVERY_NODE if burner.shared else self.node
            for attempt in range(20):
                try:
                    with self._ctx.db.begin() as session:
                        slots.ensure(session, name, host, burner.slots)
                    break
                except IntegrityError:  # another node did the same at the same moment
                    if attempt == 19:
                        raise

    def _wake(self) -> None:
        self._reconciler.wake()

    def _fatal(self, reason: str) -> None:
        self.problem = reason
        _log.critical("%s; this engine stops", reason)
        self._leases.stop()
        if self._on_fatal is not None:
            self._on_fatal(reason)

    def run(self, name: str, function: Callable[[Work], None], give_up: Callable[[Work, Exception], None]) -> None:
        """Run a workflow's body: never twice at once in this process, and no fault leaves its job open."""
        with self._alone(name):
            try:
                function(self._work)
            except DBAPIError as error:  # of DBOS's own tables
                raise Abandoned(f"{name}: {error.orig}") from error
            except Exception as error:  # noqa: BLE001 - whatever it is, the job must show it
                try:
                    give_up(self._work, error)
                except Exception as second:
                    _log.exception("%s", name)
                    raise Abandoned(str(second)) from second
        self._wake()

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        with self._guard:
            self._running[name] += 1
            lock = self._locks[name]
        try:
            with lock:
                self._leases.current()
                yield
        finally:
            with self._guard:
                self._running[name] -= 1
                if not self._running[name]:
                    del self._running[name], self._locks[name]


def _dbos_url(ctx: Context) -> str:
    """Our database server, or a file of its own beside our SQLite file, whatever that is called."""
    if ctx.db.is_sqlite:
        file = ctx.settings.data / "engine.db"
        made_private(file)
        return f"sqlite:///{file}"
    return make_url(ctx.settings.database_url).render_as_string(hide_password=False)


def _queue_of(burner: str) -> str:
    return f"burn-{burner}"


def _load_packages() -> None:
    """Load packages whose parts import each other before there are threads.

    Two threads that come to such a package from different ends at once make Python give one of them a half-loaded
    module, and a job fails with an ImportError.
    """
    for name in ("numpy", "pydicom"):
        importlib.import_module(name)


def _step(name: str, function: Callable[[], str]) -> str:
    return DBOS.run_step({"name": name}, _answered, function)


def _answered(function: Callable[[], str]) -> str:
    """An error that says nothing about the work itself must not be recorded as the step's outcome: it would be replayed
    for ever. The workflow is resumed when things are better."""
    try:
        return function()
    except (DBAPIError, ClaimLost) as error:
        _log.warning("a step is put off: %s", getattr(error, "orig", error))
        raise Abandoned(str(error)) from error


def _this() -> Engine:
    if _engine is None:
        raise Abandoned("no engine runs in this process any more")
    return _engine


@DBOS.workflow(name="prepare_job", max_recovery_attempts=None)
def _prepare_job(job_id: int) -> None:
    _this().run(
        DBOS.workflow_id or f"job-{job_id}",
        lambda work: workflow.prepare_job(work, job_id),
        lambda work, error: workflow.give_up_job(work, job_id, error),
    )


@DBOS.workflow(name="make_disc", max_recovery_attempts=None)
def _make_disc(disc_id: int) -> None:
    _this().run(
        DBOS.workflow_id or f"disc-{disc_id}",
        lambda work: workflow.make_disc(work, disc_id),
        lambda work, error: workflow.give_up_disc(work, disc_id, error),
    )
