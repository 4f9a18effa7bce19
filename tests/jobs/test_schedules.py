"""Schedules: fired when they are due, once; made up for; tried without a trace."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, inspect, select, text

from jobs import archiving, schedules
from jobs.options import OptionsError
from jobs.schedules import Scheduler, due, next_fire
from jobs.triggers import TriggerError
from media.signing import SiteKey
from store import schedules as store_schedules
from store import waiting
from store.models_archive import PoolInstance, Schedule, ScheduleRun
from store.models_base import now
from store.models_jobs import Job, Request
from store.models_nodes import Event, Node
from store.selection import SelectionError
from tests.jobs.conftest import House
from tests.jobs.test_pools import make_pool, receive
from tests.waiting import wait_for

HOURLY = {"trigger": {"cron": "0 * * * *"}}


@pytest.fixture(autouse=True)
def clock_at_half_past(monkeypatch: pytest.MonkeyPatch) -> Callable[[], datetime]:
    """The clock of schedules: no full hour comes in the middle of a test, and no two looks see the same time."""
    at, looks = now().replace(minute=30, second=0, microsecond=0), itertools.count()
    monkeypatch.setattr(schedules, "now", lambda: at + timedelta(microseconds=next(looks)))
    return schedules.now


def add(house: House, name: str = "nightly", **given: Any) -> None:
    with house.db.begin() as session:
        values = schedules.values_of(session, house.settings, {**HOURLY, **given})
        store_schedules.add(session, name, values)


def edit(house: House, name: str = "nightly", **given: Any) -> None:
    with house.db.begin() as session:
        before = store_schedules.get(session, name, lock=True)
        store_schedules.edit(session, name, schedules.values_of(session, house.settings, given, before))


def back(house: House, name: str = "nightly", **ago: float) -> None:
    """Let the schedule have been made, and fired last, so much earlier."""
    with house.db.begin() as session:
        row = store_schedules.get(session, name)
        since = datetime.fromisoformat(row.trigger["since"]) - timedelta(**ago)
        row.trigger = row.trigger | {"since": since.isoformat()}
        if row.last_fire is not None:
            row.last_fire -= timedelta(**ago)
        for run in session.scalars(select(ScheduleRun).where(ScheduleRun.schedule == name)):
            run.fire_at -= timedelta(**ago)


def runs(house: House, name: str = "nightly") -> list[ScheduleRun]:
    with house.db.read() as session:
        return store_schedules.runs(session, name)


def scheduler(house: House, **more: Any) -> Scheduler:
    return Scheduler(house.ctx, in_threads=False, **more)


def waits(house: House, pool: str = "arch") -> int:
    with house.db.read() as session:
        return waiting.summary(session, pool).instances


# --- Firing -----------------------------------------------------------------------------------------------------------


def test_a_firing_puts_what_is_meant_into_the_pool_once(any_house: House) -> None:
    house = any_house
    make_pool(house)
    receive(house, 1)
    add(house, pool="arch")
    clock = scheduler(house)
    assert clock.tick() == 0, "a new schedule has missed nothing"
    back(house, hours=1)
    assert clock.tick() == 1
    assert clock.tick() == 0
    assert waits(house) == 4
    (run,) = runs(house)
    assert run.fire_at.minute == 0 and run.result == {"instances": 4, "pool": "arch"}
    assert run.finished_at is not None and run.node == "n1"
    receive(house, 2)
    back(house, hours=1)
    assert clock.tick() == 1
    assert waits(house) == 8, "what the pool has is not put there again"
    with house.db.read() as session:
        assert {row.schedule for row in session.scalars(select(PoolInstance))} == {"nightly"}
        events = session.scalars(select(Event).where(Event.kind == "schedule", Event.new == "fired")).all()
        assert [event.detail["instances"] for event in events] == [4, 4]


def test_missed_firings_are_made_up_for_by_one(house: House) -> None:
    make_pool(house)
    add(house, pool="arch")
    back(house, days=3)
    clock = scheduler(house)
    assert clock.tick() == 1
    assert clock.tick() == 0
    (run,) = runs(house)
    assert schedules.now() - run.fire_at < timedelta(hours=1), "the latest of them"


def test_what_is_disabled_misses_nothing(house: House) -> None:
    make_pool(house)
    add(house, pool="arch", enabled=False)
    back(house, days=3)
    clock = scheduler(house)
    assert clock.tick() == 0
    edit(house, enabled=True)
    assert clock.tick() == 0
    back(house, hours=1)
    assert clock.tick() == 1
    edit(house, rules={"modality": ["CT"]})
    back(house, hours=1)
    assert clock.tick() == 1, "another change loses no firing"


def test_a_blackout_window_puts_off_a_firing(house: House) -> None:
    make_pool(house)
    at = schedules.now()
    window = {"from": f"{at - timedelta(hours=1):%H:%M}", "to": f"{at + timedelta(hours=2):%H:%M}"}
    add(house, pool="arch", blackouts=[window])
    back(house, hours=5)
    clock = scheduler(house)
    assert clock.tick() == 0
    with house.db.read() as session:
        row = store_schedules.get(session, "nightly")
        following = next_fire(row, at)
        assert following is not None and timedelta(hours=1, minutes=58) < following - at <= timedelta(hours=2)
        assert due(row, following) is not None
    edit(house, blackouts=[])
    assert clock.tick() == 1
    assert len(runs(house)) == 1


def test_several_nodes_fire_once(any_house: House) -> None:
    house = any_house
    make_pool(house)
    receive(house, 1)
    add(house, pool="arch")
    back(house, hours=4)
    clocks = [scheduler(house) for _ in range(4)]
    threads = [threading.Thread(target=clock.tick) for clock in clocks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(runs(house)) == 1 and waits(house) == 4
    with house.db.read() as session:
        fired = select(func.count()).where(Event.kind == "schedule", Event.new == "fired")
        assert session.scalar(fired) == 1


def test_a_run_that_a_crash_cut_short_is_run_again(any_house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house = any_house
    make_pool(house)
    receive(house, 1)
    add(house, pool="arch")
    back(house, hours=1)

    class Killed(BaseException):
        pass

    def kill(*_: Any, **__: Any) -> int:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(archiving.waiting, "put", kill)
        with pytest.raises(Killed):
            scheduler(house).tick()
    assert runs(house)[0].finished_at is None and waits(house) == 0
    assert scheduler(house).tick() == 1, "after a start of the same node"
    (run,) = runs(house)
    assert run.finished_at is not None and waits(house) == 4
    assert scheduler(house).tick() == 0


def test_the_run_of_a_dead_node_is_taken_over_and_that_of_a_living_one_is_not(any_house: House) -> None:
    house = any_house
    make_pool(house)
    receive(house, 1)
    add(house, pool="arch")
    at = now()
    with house.db.begin() as session:
        for name, minutes in (("dead", -1), ("alive", 5)):
            session.add(
                Node(name=name, epoch=1, lease_until=at + timedelta(minutes=minutes), owner=None, started_at=at)
            )
        row = store_schedules.get(session, "nightly")
        for hour, name in enumerate(("dead", "alive")):
            store_schedules.begin_run(session, row, at - timedelta(hours=hour + 1), name)
        row.last_fire = at
    assert scheduler(house).tick() == 1
    assert {run.node: run.finished_at is not None for run in runs(house)} == {"n1": True, "alive": False}


def test_what_goes_wrong_is_told_and_tried_at_the_next_firing(house: House) -> None:
    make_pool(house)
    add(house, pool="arch")
    with house.db.begin() as session:
        session.execute(text("UPDATE pool SET closed_at = :at"), {"at": now().replace(tzinfo=None)})
    back(house, hours=1)
    clock = scheduler(house)
    assert clock.tick() == 1
    (run,) = runs(house)
    assert run.result is not None and "takes nothing any more" in run.result["error"]
    assert clock.tick() == 0
    with house.db.begin() as session:
        session.execute(text("UPDATE pool SET closed_at = NULL"))
    back(house, hours=1)
    assert clock.tick() == 1
    assert "error" not in (runs(house)[0].result or {})


def test_runs_have_threads_of_their_own(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    began, go_on, stopped = threading.Event(), threading.Event(), threading.Event()

    def run(_ctx: Any, firing: schedules.Firing) -> dict[str, Any]:
        began.set()
        while not firing.cancelled() and not go_on.wait(0.01):
            pass
        stopped.set()
        return {}

    kind = SimpleNamespace(run=run, values_of=lambda *_: ({}, {}), preview=None)
    monkeypatch.setattr(schedules, "kind_of", lambda _name: kind)
    add(house, "long")
    back(house, "long", hours=1)
    clock = Scheduler(house.ctx)
    assert clock.tick() == 1
    assert began.wait(120)
    assert clock.tick() == 0, "a run that goes on is not begun again"
    clock.stop()
    assert stopped.is_set()
    assert runs(house, "long")[0].finished_at is None, "perhaps not all was done: it is run again"
    go_on.set()
    assert scheduler(house).tick() == 1
    assert runs(house, "long")[0].finished_at is not None


def test_fired_by_hand_the_clock_goes_on_as_before(house: House) -> None:
    make_pool(house)
    receive(house, 1)
    add(house, pool="arch", enabled=False)
    assert scheduler(house).run_now("nightly", by="ann") == {"instances": 4, "pool": "arch", "by": "ann"}
    with house.db.read() as session:
        assert store_schedules.get(session, "nightly").last_fire is None
    with pytest.raises(store_schedules.NoSuchSchedule):
        scheduler(house).run_now("weekly")


def test_a_schedule_that_is_removed_while_it_runs(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make_pool(house)
    add(house, pool="arch")

    def run(_ctx: Any, firing: schedules.Firing) -> dict[str, Any]:
        with house.db.begin() as session:
            store_schedules.remove(session, "nightly")
        with house.db.begin() as session:
            assert not firing.finish(session, {})
        raise schedules.AlreadyDoneError  # as jobs.archiving does then

    monkeypatch.setattr(schedules, "kind_of", lambda _name: SimpleNamespace(run=run))
    with pytest.raises(store_schedules.NoSuchSchedule):
        scheduler(house).run_now("nightly")
    assert not [record for record in caplog.records if record.name == "burnish.schedules"]


def test_the_clock_leaves_alone_what_was_fired_by_hand(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    ticked: list[int] = []

    def run(_ctx: Any, _firing: schedules.Firing) -> dict[str, Any]:
        ticked.append(scheduler(house).tick())  # the clock's own scheduler, while the run goes on
        return {}

    kind = SimpleNamespace(run=run, values_of=lambda *_: ({}, {}), preview=None)
    monkeypatch.setattr(schedules, "kind_of", lambda _name: kind)
    add(house, "long")
    scheduler(house).run_now("long")
    assert ticked == [0]


def test_old_runs_are_forgotten(any_house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_schedules, "KEPT_RUNS", 3)
    make_pool(any_house)
    add(any_house, pool="arch")
    for _ in range(6):
        scheduler(any_house).run_now("nightly")
    kept = runs(any_house)
    assert len(kept) == 3 and kept[0].id == 6


# --- Straight on discs ------------------------------------------------------------------------------------------------


def test_without_a_pool_a_firing_makes_a_job_of_what_is_new(any_house: House) -> None:
    house = any_house
    receive(house, 1)
    add(house, options={"copies": 2, "purpose": "backup"})
    submitted: list[int] = []
    clock = scheduler(house, submit=submitted.append)
    back(house, hours=1)
    assert clock.tick() == 1
    receive(house, 2)
    back(house, hours=1)
    assert clock.tick() == 1
    back(house, hours=1)
    assert clock.tick() == 1, "it fires, and there is nothing new"
    assert [run.result for run in reversed(runs(house))] == [
        {"instances": 4, "job": "J1"},
        {"instances": 4, "job": "J2"},
        {"instances": 0},
    ]
    assert submitted == [1, 2]
    with house.db.read() as session:
        request = session.get_one(Request, 1)
        assert (request.source, request.options["purpose"], request.pool) == ("schedule:nightly", "backup", None)
        assert session.get_one(Job, 1).copies == 2


# --- Preview ----------------------------------------------------------------------------------------------------------


def everything(house: House) -> dict[str, list[Any]]:
    """All rows of all tables."""
    with house.db.engine.connect() as connection:
        tables = sorted(inspect(connection).get_table_names())
        return {name: sorted(map(str, connection.execute(text(f'SELECT * FROM "{name}"')))) for name in tables}


def test_a_preview_tells_the_discs_and_leaves_no_trace(any_house: House) -> None:
    house = any_house
    make_pool(house)
    for number in range(1, 9):
        receive(house, number)
    add(house, pool="arch", rules={"modality": ["CT"]})
    if house.settings.signing_key:
        SiteKey.open(house.settings.signing_key)  # every service has made it by now
    files = sorted(house.data.rglob("*"))
    before = everything(house)
    document = schedules.preview(house.ctx, "nightly")
    assert everything(house) == before and sorted(house.data.rglob("*")) == files
    assert (document["instances"], document["studies"], document["pool"]) == (32, 8, "arch")
    assert [(disc["burnt"], disc["why"], len(disc["studies"])) for disc in document["discs"]] == [
        (True, "full", 6),
        (False, "waits", 2),
    ]
    assert document["discs"][0]["studies"][0]["patient_id"].startswith("P00")
    scheduler(house).run_now("nightly")
    again = schedules.preview(house.ctx, "nightly")
    assert again["instances"] == 0, "it would take nothing more ..."
    shape = [(disc["sectors"], disc["burnt"]) for disc in document["discs"]]
    assert [(disc["sectors"], disc["burnt"]) for disc in again["discs"]] == shape, "... and the discs are the same"
    from jobs.filling import fill

    assert len(fill(house.ctx, "arch")) == 1, "as was told"


def test_a_preview_of_many_media_is_what_then_happens(house: House) -> None:
    make_pool(house)
    for number in range(1, 31):
        receive(house, number, count=1, size=60_000 + 7_919 * (number * number % 31))
    add(house, pool="arch")
    told = schedules.preview(house.ctx, "nightly")["discs"]
    scheduler(house).run_now("nightly")
    from jobs.filling import fill

    fill(house.ctx, "arch")
    with house.db.read() as session:
        made = {frozenset(one["study"]) for one in session.scalars(select(Request.selection))}
    assert len(told) > 4
    assert made == {frozenset(one["study_instance_uid"] for one in disc["studies"]) for disc in told if disc["burnt"]}


def test_a_preview_without_a_pool(house: House) -> None:
    for number in range(1, 3):
        receive(house, number)
    add(house, options={"capacity_sectors": 320})
    document = schedules.preview(house.ctx, "nightly")
    assert [disc["burnt"] for disc in document["discs"]] == [True, True] and document["pool"] is None
    empty = schedules.preview(house.ctx, "nightly") | {"discs": []}
    assert empty["studies"] == 2


# --- Writing them -----------------------------------------------------------------------------------------------------


SENSELESS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"trigger": {"cron": "* * *"}}, TriggerError, "3 fields"),
    ({"trigger": {"every_seconds": 5}}, TriggerError, "60 to"),
    ({"timezone": "Mars/Olympus"}, TriggerError, "no time zone"),
    ({"blackouts": [{"from": "00:00", "to": "24:00"}]}, TriggerError, "no time at all"),
    ({"kind": "party"}, OptionsError, "kind is 'party'"),
    ({"rules": {"colour": "red"}}, SelectionError, "unknown rule colour"),
    ({"rules": {"modality": "CT"}}, SelectionError, "must be a list"),
    ({"rules": {"not_on_discs": 1.5}}, SelectionError, "whole number"),
    ({"rules": {"min_age_hours": -1}}, SelectionError, "min_age_hours"),
    ({"rules": {"min_age_hours": 48, "max_age_days": 2}}, SelectionError, "leaves nothing"),
    ({"rules": {"date_range": "yesterday"}}, SelectionError, "no date range"),
    ({"options": {"burner": "none"}}, OptionsError, "no burner"),
    ({"options": {"pool": "x"}}, OptionsError, "not for a schedule"),
    ({"options": {"copies": "two"}}, OptionsError, "copies is 'two'; it must be a whole number"),
    ({"options": {"copies": 2.5}}, OptionsError, "must be a whole number"),
    ({"options": {"allow_lossy": "no"}}, OptionsError, "allow_lossy is 'no'; it must be true or false"),
    ({"options": {"protect_percent": True}}, OptionsError, "must be a number"),
    ({"options": {"profile": 5}}, OptionsError, "must be text"),
    ({"options": {"file_set_prefix": "../x"}}, OptionsError, "file_set_prefix may have"),
    ({"kind": "reverify", "options": {"pool": "none"}}, Exception, "there is no pool 'none'"),
    ({"kind": "reverify", "pool": "arch", "options": {"pool": "x"}}, OptionsError, "two pools are named"),
    ({"pool": "arch", "options": {"copies": 2}}, OptionsError, "the pool's to say"),
    ({"pool": "none"}, Exception, "there is no pool 'none'"),
    ({"enabled": "yes"}, OptionsError, "enabled is true or false"),
    ({"colour": 1}, OptionsError, "unknown value colour"),
]


def test_schedules_that_make_no_sense(house: House) -> None:
    make_pool(house)
    for given_, error, says in SENSELESS:
        with pytest.raises(error, match=says):
            add(house, **given_)


def test_names_are_taken_once(house: House) -> None:
    make_pool(house)
    add(house, pool="arch")
    with pytest.raises(store_schedules.ScheduleError, match="there is a schedule nightly already"):
        add(house, pool="arch")
    with house.db.begin() as session:
        store_schedules.begin_run(session, store_schedules.get(session, "nightly"), now(), "n1")
        store_schedules.remove(session, "nightly")
    with house.db.read() as session:
        assert store_schedules.every(session) == [] and session.scalars(select(ScheduleRun)).all() == []


# --- When, for any time -----------------------------------------------------------------------------------------------

MOMENTS = st.datetimes(datetime(2024, 1, 1), datetime(2028, 1, 1), timezones=st.just(UTC))


def row(cron: str, timezone: str, since: datetime, blackouts: list[dict[str, str]]) -> Schedule:
    trigger = {"cron": cron, "since": since.isoformat()}
    return Schedule(
        name="x",
        enabled=True,
        trigger=trigger,
        timezone=timezone,
        blackouts=blackouts,
        last_fire=None,
        created_at=since,
    )


@given(
    cron=st.sampled_from(["30 2 * * *", "0 */6 * * *", "15 22 * * mon-fri", "*/30 * * * *"]),
    timezone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
    blackouts=st.sampled_from([[], [{"from": "01:30", "to": "05:00"}], [{"from": "22:00", "to": "06:00"}]]),
    since=MOMENTS,
    steps=st.lists(st.integers(1, 20_000), min_size=1, max_size=40),
)
def test_whenever_one_looks_each_firing_counts_at_most_once_and_none_is_lost(
    cron: str, timezone: str, blackouts: list[dict[str, str]], since: datetime, steps: list[int]
) -> None:
    """``steps``: minutes between the looks of the clock."""
    schedule = row(cron, timezone, since, blackouts)
    at, fired = since, []
    for minutes in steps:
        expected = next_fire(schedule, at)
        assert expected is not None and expected >= at
        at += timedelta(minutes=minutes)
        fire_at = due(schedule, at)
        if fire_at is not None:
            assert since < fire_at <= at and expected <= at
            assert schedule.last_fire is None or fire_at > schedule.last_fire
            schedule.last_fire = fire_at
            fired.append(fire_at)
        assert due(schedule, at) is None
        waits_for = next_fire(schedule, at)
        assert waits_for is not None and (fire_at is None or waits_for > at)
    assert len(set(fired)) == len(fired)
    end = next_fire(schedule, at)
    assert end is not None and due(schedule, end) is not None, "what comes next does come"


def test_the_clock_is_called(house: House) -> None:
    """The service's clocks look after schedules and pools."""
    from service.clocks import Clocks

    make_pool(house, latest_days=1)
    receive(house, 1)
    add(house, pool="arch")
    back(house, hours=1)
    submitted: list[int] = []
    clocks = Clocks(house.ctx, SimpleNamespace(submit=submitted.append))  # type: ignore[arg-type]
    clocks.start()
    try:
        wait_for(lambda: waits(house) == 4, "the schedule to fire")
    finally:
        clocks.stop()
    assert len(runs(house)) == 1


def test_the_next_firings_that_are_shown_regard_blackout_windows() -> None:
    schedule = row("0 */6 * * *", "Europe/Berlin", now(), [{"from": "05:00", "to": "13:00"}])
    shown = [one[11:16] for one in schedules.upcoming(schedule, 6)]
    assert set(shown) == {"00:00", "13:00", "18:00"} and shown[:3] == shown[3:]
