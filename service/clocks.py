"""What happens by the clock: auto-burn rules, jobs that others queued, plans that expire, files left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from jobs.context import Context
from service.auditing import Auditing
from service.logs import logger
from service.notifying import Notifying
from store import attempts, instances, retention, sessions

if TYPE_CHECKING:
    from jobs.engine import Engine
    from jobs.filling import Filler
    from jobs.schedules import Scheduler

_TICK_SECONDS = 1.0
_SCHEDULES_SECONDS = 5.0
_POOLS_SECONDS = 10.0
_LOOK_SECONDS = 5.0
_JUMP_SECONDS = 10.0
_TASKS = 8
"""A thread for each task: one that waits (for a receiver, for a purge) keeps no other from its turn."""


class Clocks:
    """A background scheduler in memory: each task says itself what is due, so nothing is lost by a restart."""

    def __init__(self, context: Context, engine: Engine) -> None:
        self._context = context
        self._engine = engine
        self._scheduler = BackgroundScheduler(  # type: ignore[no-untyped-call]
            timezone=UTC,
            executors={"default": ThreadPoolExecutor(_TASKS)},  # type: ignore[no-untyped-call]
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        self._failing: set[str] = set()
        self._auditing = Auditing(context)
        self._notifying = Notifying(context)
        self._stopping = threading.Event()
        self._scheduled: Scheduler | None = None
        self._filler: Filler | None = None

    def start(self) -> None:
        self._every("audit", self._auditing.tick, seconds=_TICK_SECONDS)
        if self._notifying.is_wanted:
            self._every("notices", self._notifying.tick, seconds=_TICK_SECONDS)
        self._every("audit messages", self._auditing.send, seconds=_TICK_SECONDS)
        if self._context.settings.rules:
            self._every("rules", self._rules, seconds=_TICK_SECONDS)
        if self._context.settings.retention.high_percent:
            self._every("retention", self._retention, seconds=self._context.settings.retention.check_seconds)
        self._every("schedules", self._schedules, seconds=_SCHEDULES_SECONDS)
        self._every("pools", self._pools, seconds=_POOLS_SECONDS)
        self._every("housekeeping", self._housekeeping, seconds=86_400, first=60)
        self._scheduler.start()  # type: ignore[no-untyped-call]
        threading.Thread(target=self._watch, name="clock-watch", daemon=True).start()

    def stop(self) -> None:
        """Begin nothing more, and wait for what runs."""
        self._stopping.set()
        if self._scheduled is not None:
            self._scheduled.stop()
        self._notifying.stop()
        if self._scheduler.running:
            self._scheduler.shutdown(wait=True)  # type: ignore[no-untyped-call]
            self._auditing.close()

    def _every(self, name: str, task: Callable[[], None], *, seconds: float, first: float = 0.0) -> None:
        def guarded() -> None:
            try:
                task()
                self._failing.discard(name)
            except Exception as error:  # noqa: BLE001 - the next tick tries again, and one line tells
                if name not in self._failing:
                    logger("service.clocks").error("a task of the clock failed", task=name, error=repr(error))
                self._failing.add(name)

        self._scheduler.add_job(  # type: ignore[no-untyped-call]
            guarded,
            "interval",
            seconds=seconds,
            id=name,
            next_run_time=datetime.now(UTC) + timedelta(seconds=first),
        )

    def _watch(self) -> None:
        """The scheduler goes by the wall clock: were that set back by an hour, nothing would happen for an hour."""
        apart = time.time() - time.monotonic()
        while not self._stopping.wait(_LOOK_SECONDS):
            found = time.time() - time.monotonic()
            if abs(found - apart) > _JUMP_SECONDS:
                logger("service.clocks").warning("the clock was set", seconds=round(found - apart))
                self.all_due()
            apart = found

    def all_due(self) -> None:
        """Have every task run now, and from now on as often as before."""
        for job in self._scheduler.get_jobs():  # type: ignore[no-untyped-call]
            job.modify(next_run_time=datetime.now(UTC))

    def _rules(self) -> None:
        from jobs import rules

        rules.tick(self._context, self._engine.submit)

    def _retention(self) -> None:
        from jobs import retaining

        retaining.tick(self._context)

    def _schedules(self) -> None:
        if self._scheduled is None:
            from jobs.schedules import Scheduler

            self._scheduled = Scheduler(self._context, self._engine.submit)
        self._scheduled.tick()

    def _pools(self) -> None:
        if self._filler is None:
            from jobs.filling import Filler

            self._filler = Filler(self._context, self._engine.submit, self._stopping.is_set)
        self._filler.tick()

    def _housekeeping(self) -> None:
        """Daily: forget plans that nobody burnt, remove files of dead processes."""
        settings, db, spool = self._context.settings, self._context.db, self._context.spool
        expired = retention.expire_plans(db, keep_days=settings.jobs.keep_plans_days)
        with db.begin() as session:
            sessions.sweep(session, idle=timedelta(minutes=settings.users.idle_minutes))
            attempts.sweep(session)
        swept = instances.sweep(db, spool)
        if expired or swept:
            logger("service.clocks").info("housekeeping", plans_expired=expired, files_removed=swept)
