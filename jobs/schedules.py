"""Schedules: read and checked as people write them, fired when they are due. What they do is each kind's own.

The table is the truth; whoever is the clock calls ``Scheduler.tick`` every some seconds. A firing is entered under the
schedule's lock before anything is done, so several nodes may tick and one run results. What was due while no service
ran, or in a blackout window, is made up for by one run. What a crash cut short is run again: every kind may be run
twice for one firing without doing its work twice.
"""

from __future__ import annotations

import importlib
import logging
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from config.settings import Settings
from config.worded import Worded
from jobs import triggers
from jobs.context import Context
from jobs.options import OptionsError
from jobs.triggers import TriggerError
from store import pools, schedules
from store.models_archive import Schedule, ScheduleRun
from store.models_base import now

_log = logging.getLogger("burnish.schedules")

_running: set[tuple[str, int]] = set()
"""Runs that go on in this process, whoever began them: nobody takes them for what a crash cut short."""
_guard = threading.Lock()

_SOME_TRIGGER: Mapping[str, Any] = {"every_seconds": 86_400}
"""Of a preview of what it would do, whenever that is."""
_UPCOMING = 5

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,31}")
KINDS = {"archive": "jobs.archiving", "purge": "jobs.retaining", "reverify": "jobs.reverifying"}
"""What schedules can do: each kind's name, and the module that is a ``Kind``."""


@dataclass(frozen=True, slots=True)
class Firing:
    """What a kind is told."""

    schedule: str
    rules: Mapping[str, Any]
    options: Mapping[str, Any]
    pool: str | None
    fire_at: datetime
    submit: Callable[[int], None] = lambda _job: None
    """Hands a new job to the engine."""
    cancelled: Callable[[], bool] = lambda: False
    """The service stops: leave the rest, the firing is run again when one starts."""
    finish: Callable[[Session, Mapping[str, Any]], bool] = lambda _session, _result: True
    """Says what came of it in a transaction of the kind's own, so that both are true or neither; False: somebody has
    said so before, and the transaction must be rolled back. A kind that does not call it is finished after ``run``."""


class AlreadyDoneError(Exception):
    """Another has run this firing to its end, or it was removed; nothing of this run stays."""


class Kind(Protocol):
    """A module of functions."""

    def values_of(
        self, settings: Settings, rules: Mapping[str, Any], options: Mapping[str, Any], pool: str | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Rules and options as they are kept. Raises OptionsError, MediaError, SelectionError naming what is wrong."""
        ...

    def run(self, ctx: Context, firing: Firing) -> dict[str, Any]:
        """Do it; returns what came of it, for people. May be run again for a firing that a crash cut short."""
        ...

    def preview(self, ctx: Context, firing: Firing) -> dict[str, Any]:
        """What it would do now, without leaving a trace."""
        ...


def kind_of(name: str) -> Kind:
    """Raises OptionsError for a kind that there is not."""
    if name not in KINDS:
        raise OptionsError(f"kind is {name!r}; it may be {', '.join(KINDS)}")
    module: Any = importlib.import_module(KINDS[name])
    return module  # type: ignore[no-any-return]


# --- As people write them ---------------------------------------------------------------------------------------------


def values_of(
    session: Session, settings: Settings, given: Mapping[str, Any], before: Schedule | None = None
) -> dict[str, Any]:
    """All that is decided about a schedule (``store.schedules.COLUMNS``); what ``given`` leaves open is as before.

    ``trigger`` is kept with ``since``: the moment from which on firings count. Raises OptionsError, TriggerError,
    MediaError, SelectionError, NoSuchPool and PoolError (CLOSED).
    """
    unknown = set(given) - set(schedules.COLUMNS)
    if unknown:
        raise OptionsError(f"unknown value {', '.join(sorted(unknown))}")
    values: dict[str, Any] = {
        "kind": "archive",
        "enabled": True,
        "timezone": "UTC",
        "blackouts": [],
        "rules": {},
        "options": {},
        "pool": None,
    }
    if before is not None:
        values = {column: getattr(before, column) for column in schedules.COLUMNS}
    values |= given
    if before is not None and values["kind"] != before.kind:
        raise OptionsError(f"schedule {before.name} is of kind {before.kind}; make another for {values['kind']}")
    if "trigger" not in values:
        raise OptionsError("say when: a cron line or an interval")
    if not isinstance(values["enabled"], bool):
        raise OptionsError("enabled is true or false")
    values["trigger"] = _trigger(values, before)
    if triggers.free_from(now(), triggers.blackouts_of(values["blackouts"]), triggers.zone(values["timezone"])) is None:
        raise TriggerError(Worded("no_time_left", "the blackout windows leave no time at all"))
    if values["pool"] is not None:
        pool = pools.get(session, values["pool"])
        if values["kind"] == "archive":  # discs of a closed pool are read again
            pools.require_open(pool)
    rules, options = kind_of(values["kind"]).values_of(settings, values["rules"], values["options"], values["pool"])
    if options.get("pool"):
        pools.get(session, options["pool"])
    return values | {"rules": rules, "options": options}


def _trigger(values: Mapping[str, Any], before: Schedule | None) -> dict[str, Any]:
    """The trigger with the moment from which on it counts: now, unless it goes on as it was."""
    document = {key: value for key, value in values["trigger"].items() if key != "since"}
    at = now().replace(microsecond=0)
    triggers.trigger_of(document, values["timezone"], at)
    if before is not None:
        same = {key: value for key, value in before.trigger.items() if key != "since"} == document
        goes_on = before.enabled or not values["enabled"]
        if same and goes_on and before.timezone == values["timezone"]:
            return dict(before.trigger)
    return document | {"since": at.isoformat()}


def _read(row: Schedule) -> tuple[triggers.Trigger, datetime]:
    """A row's trigger, and since when it counts."""
    since = datetime.fromisoformat(row.trigger["since"]) if "since" in row.trigger else row.created_at
    document = {key: value for key, value in row.trigger.items() if key != "since"}
    return triggers.trigger_of(document, row.timezone, since), since


# --- When -------------------------------------------------------------------------------------------------------------


def due(row: Schedule, at: datetime) -> datetime | None:
    """The latest firing that is due and was not made; None: nothing is, or a blackout window goes on."""
    if not row.enabled:
        return None
    trigger, since = _read(row)
    latest = trigger.latest(at)
    done = max(since, row.last_fire) if row.last_fire is not None else since
    if latest is None or latest <= done:
        return None
    if triggers.free_from(at, triggers.blackouts_of(row.blackouts), triggers.zone(row.timezone)) != at:
        return None
    return latest


def next_fire(row: Schedule, at: datetime) -> datetime | None:
    """When it will fire next, blackout windows regarded; None: never, or it is disabled."""
    if not row.enabled:
        return None
    if due(row, at) is not None:
        return at
    trigger, since = _read(row)
    tz = triggers.zone(row.timezone)
    windows = triggers.blackouts_of(row.blackouts)
    latest = trigger.latest(at)
    done = max(since, row.last_fire) if row.last_fire is not None else since
    waits = latest is not None and latest > done  # for the end of a window
    return triggers.free_from(at if waits else trigger.following(max(at, since)), windows, tz)


# --- Firing -----------------------------------------------------------------------------------------------------------


@dataclass
class Scheduler:
    """Fires what is due. Each run has a thread of its own, so that a long one keeps nothing else waiting."""

    ctx: Context
    submit: Callable[[int], None] = lambda _job: None
    in_threads: bool = True
    _stopping: threading.Event = field(default_factory=threading.Event)
    _threads: dict[int, threading.Thread] = field(default_factory=dict)

    def tick(self) -> int:
        """Begin what is due, and what a crash cut short; returns the number of runs. Every some seconds."""
        node = self.ctx.spool.node
        at = now()
        with self.ctx.db.read() as session:
            names = [row.name for row in schedules.every(session, enabled=True) if self._is_due(row, at)]
        begun: list[ScheduleRun] = []
        for name in names:
            if (run := self._claim(name, at, node)) is not None:
                begun.append(run)
        with _guard:
            busy = {run for place, run in _running if place == self._place}
        with self.ctx.db.begin() as session:
            mine = {run.id for run in begun}
            begun += schedules.take_unfinished(session, node, busy | mine)
        for run in begun:
            self._begin(run)
        return len(begun)

    def run_now(self, name: str, *, by: str = "cli") -> dict[str, Any]:
        """Fire at once, in this thread, whether it is due or not; returns what came of it. Raises NoSuchSchedule."""
        with self.ctx.db.begin() as session:
            row = schedules.get(session, name, lock=True)
            run = schedules.begin_run(session, row, now(), self.ctx.spool.node, by_clock=False)
            self._note(run)
        self._run(run, by=by)
        with self.ctx.db.read() as session:
            done = session.get(ScheduleRun, run.id)
            if done is None:  # removed while it ran, its firings with it
                raise schedules.NoSuchSchedule(name)
            return dict(done.result or {})

    def stop(self, seconds: float = 10.0) -> None:
        """Begin nothing more; what runs is asked to leave the rest, and waited for so long."""
        self._stopping.set()
        with _guard:
            threads = list(self._threads.values())
        for thread in threads:
            thread.join(timeout=seconds)

    def _is_due(self, row: Schedule, at: datetime) -> bool:
        try:
            return due(row, at) is not None
        except TriggerError as error:  # a time zone that this machine's tables do not have
            _log.error("schedule %s: %s", row.name, error)
            return False

    def _claim(self, name: str, at: datetime, node: str) -> ScheduleRun | None:
        """Enter the firing that is due; None where another node was first."""
        try:
            with self.ctx.db.begin() as session:
                row = schedules.get(session, name, lock=True)
                fire_at = due(row, at)
                return None if fire_at is None else schedules.begin_run(session, row, fire_at, node)
        except (IntegrityError, schedules.NoSuchSchedule):
            return None

    def _begin(self, run: ScheduleRun) -> None:
        self._note(run)
        if not self.in_threads:
            self._run(run)
            return
        thread = threading.Thread(target=self._run, args=(run,), name=f"schedule-{run.schedule}", daemon=True)
        with _guard:
            self._threads[run.id] = thread
        thread.start()

    @property
    def _place(self) -> str:
        return self.ctx.db.url

    def _note(self, run: ScheduleRun) -> None:
        with _guard:
            _running.add((self._place, run.id))

    def _run(self, run: ScheduleRun, by: str = "") -> None:
        told: dict[str, Any] = {"by": by} if by else {}

        def finish(session: Session, result: Mapping[str, Any]) -> bool:
            return schedules.finish_run(session, run.id, {**told, **result})

        try:
            result = self._result(run, finish)
            if not self._stopping.is_set():  # else perhaps only a part was done: it is run again
                with self.ctx.db.begin() as session:
                    finish(session, result)
        finally:  # not before it is finished: else the clock would take it for what a crash cut short
            with _guard:
                _running.discard((self._place, run.id))
                self._threads.pop(run.id, None)

    def _result(self, run: ScheduleRun, finish: Callable[[Session, Mapping[str, Any]], bool]) -> Mapping[str, Any]:
        try:
            with self.ctx.db.read() as session:
                row = schedules.get(session, run.schedule)
            firing = Firing(
                schedule=row.name,
                rules=row.rules,
                options=row.options,
                pool=row.pool,
                fire_at=run.fire_at,
                submit=self.submit,
                cancelled=self._stopping.is_set,
                finish=finish,
            )
            return kind_of(row.kind).run(self.ctx, firing)
        except (schedules.NoSuchSchedule, AlreadyDoneError):
            return {}  # removed meanwhile, its firings with it; or another was first
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and the next firing tries again
            if not self._stopping.is_set():
                _log.error("schedule %s failed", run.schedule, exc_info=error)
            return {"error": _words(error)}


def _words(error: Exception) -> str:
    """For people: without an SQL statement, whose parameters may hold a patient's name."""
    text = str(getattr(error, "orig", None) or error).splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"[:1000]


# --- Trying and showing -----------------------------------------------------------------------------------------------


def preview(ctx: Context, name: str) -> dict[str, Any]:
    """What a schedule would do if it fired now, without leaving a trace. Raises NoSuchSchedule."""
    with ctx.db.read() as session:
        row = schedules.get(session, name)
    return _previewed(ctx, row, fires=True)


def preview_of(ctx: Context, given: Mapping[str, Any], before: Schedule | None = None) -> dict[str, Any]:
    """The same of a schedule that nobody has made yet, or of one as it would be when it were changed so; a new one may
    leave open when it fires. Raises as ``values_of``."""
    fires = before is not None or "trigger" in given
    with ctx.db.read() as session:
        values = values_of(session, ctx.settings, given if fires else {**given, "trigger": _SOME_TRIGGER}, before)
    return _previewed(ctx, _row_of(values, before), fires=fires)


def _row_of(values: Mapping[str, Any], before: Schedule | None) -> Schedule:
    """A schedule that is not kept."""
    if before is None:
        return Schedule(name="", created_at=now(), last_fire=None, **values)
    return Schedule(name=before.name, created_at=before.created_at, last_fire=before.last_fire, **values)


def _previewed(ctx: Context, row: Schedule, *, fires: bool) -> dict[str, Any]:
    at = now()
    firing = Firing(row.name, row.rules, row.options, row.pool, at)
    found = next_fire(row, at) if fires else None
    return {
        "schedule": row.name or None,
        "kind": row.kind,
        "next": found.isoformat() if found else None,
        "upcoming": upcoming(row, _UPCOMING) if fires and row.enabled else [],
        **kind_of(row.kind).preview(ctx, firing),
    }


def schedule_document(session: Session, row: Schedule, *, runs: int = 1) -> dict[str, Any]:
    """A schedule, when it fires next, and its newest runs."""
    problem = None
    try:
        following = next_fire(row, now())
    except TriggerError as error:
        following, problem = None, str(error)
    return {
        "schedule": row.name,
        "kind": row.kind,
        "enabled": row.enabled,
        "trigger": {key: value for key, value in row.trigger.items() if key != "since"},
        "timezone": row.timezone,
        "blackouts": row.blackouts,
        "rules": row.rules,
        "options": row.options,
        "pool": row.pool,
        "next": following.isoformat() if following else None,
        "last_fire": row.last_fire.isoformat() if row.last_fire else None,
        "problem": problem,
        "runs": [_run_document(run) for run in schedules.runs(session, row.name, limit=runs)],
    }


def _run_document(run: ScheduleRun) -> dict[str, Any]:
    return {
        "fire_at": run.fire_at.isoformat(),
        "node": run.node,
        "started": run.started_at.isoformat(),
        "finished": run.finished_at.isoformat() if run.finished_at else None,
        "result": run.result,
    }


def upcoming(row: Schedule, count: int) -> list[str]:
    """The next firings in the schedule's own time zone: does a cron line mean what its writer meant?

    Those that fall into a blackout window are one, at its end.
    """
    trigger, since = _read(row)
    tz = triggers.zone(row.timezone)
    windows = triggers.blackouts_of(row.blackouts)
    at: datetime | None = max(now(), since)
    found: list[str] = []
    while len(found) < count and at is not None:
        at = triggers.free_from(trigger.following(at), windows, tz)
        if at is not None:
            found.append(at.astimezone(tz).isoformat())
    return found
