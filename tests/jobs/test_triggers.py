"""Cron lines, intervals and blackout windows: as they are read, and through changes of the clock."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.triggers import (
    TriggerError,
    blackout_document,
    blackouts_of,
    free_from,
    interval_seconds,
    trigger_of,
    zone,
)
from tests.soak import size

ANCHOR = datetime(2026, 1, 1, tzinfo=UTC)
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",
    "Australia/Lord_Howe",  # half an hour of summer time
    "Africa/Cairo",  # changes at midnight
    "America/Havana",  # goes back over midnight
    "Asia/Kathmandu",
    "Pacific/Apia",  # left out a day in 2011
)


def fires(cron: str, timezone: str, after: datetime, count: int) -> list[datetime]:
    trigger = trigger_of({"cron": cron}, timezone, ANCHOR)
    found = []
    for _ in range(count):
        after = trigger.following(after)
        found.append(after)
    return found


def local(moments: list[datetime], timezone: str) -> list[str]:
    return [f"{at.astimezone(ZoneInfo(timezone)):%m-%d %H:%M %z}" for at in moments]


def test_cron_fields() -> None:
    monday = datetime(2026, 3, 2, tzinfo=UTC)
    for cron, expected in (
        ("0 22 * * *", ["03-02 22:00", "03-03 22:00"]),
        ("*/20 8-9 * * *", ["03-02 08:00", "03-02 08:20"]),
        ("5,35 0 * * sun", ["03-08 00:05", "03-08 00:35"]),
        ("0 0 * * 7", ["03-08 00:00", "03-15 00:00"]),
        ("0 0 * * 0", ["03-08 00:00", "03-15 00:00"]),
        ("0 6 * * mon-fri", ["03-02 06:00", "03-03 06:00"]),
        ("0 0 1 apr *", ["04-01 00:00", "04-01 00:00"]),
        ("0 0 13 * fri", ["03-06 00:00", "03-13 00:00"]),  # one of both is enough
        ("10-40/15 1 * * *", ["03-02 01:10", "03-02 01:25"]),
        ("50/5 1 * * *", ["03-02 01:50", "03-02 01:55"]),
        ("0 0 29 2 *", ["02-29 00:00", "02-29 00:00"]),
    ):
        assert [f"{at:%m-%d %H:%M}" for at in fires(cron, "UTC", monday, 2)] == expected, cron


@pytest.mark.parametrize(
    ("cron", "says"),
    [
        ("0 22 * *", "4 fields"),
        ("60 * * * *", "'60' is no minute"),
        ("* 24 * * *", "'24' is no hour"),
        ("* * 0 * *", "'0' is no day of month"),
        ("* * * 13 *", "'13' is no month"),
        ("* * * * 8", "'8' is no day of week"),
        ("*/0 * * * *", "'0' is no step"),
        ("30-10 * * * *", "ends before it begins"),
        ("0 0 31 feb *", "never comes"),
        ("0 0 1 1 *\x00", "'*\\x00' is no day of week"),
        ("1" * 300, "1 fields"),
    ],
)
def test_cron_lines_that_make_no_sense(cron: str, says: str) -> None:
    with pytest.raises(TriggerError, match=says.replace("*", r"\*").replace("\\x", r"\\+x")):
        trigger_of({"cron": cron}, "UTC", ANCHOR)


@pytest.mark.parametrize(
    "document", [{}, {"cron": 5}, {"cron": "* * * * *", "every_seconds": 60}, {"at": "noon"}, {"every_seconds": True}]
)
def test_documents_that_are_no_trigger(document: dict[str, Any]) -> None:
    with pytest.raises(TriggerError):
        trigger_of(document, "UTC", ANCHOR)


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "../../etc/passwd", "Europe/", "x" * 300, "\x00"])
def test_time_zones_that_there_are_not(name: str) -> None:
    with pytest.raises(TriggerError, match="there is no time zone"):
        zone(name)


def test_a_skipped_time_counts_as_the_first_moment_after_the_gap() -> None:
    found = fires("30 2 * * *", "Europe/Berlin", datetime(2026, 3, 28, 12, tzinfo=UTC), 2)
    assert local(found, "Europe/Berlin") == ["03-29 03:00 +0200", "03-30 02:30 +0200"]


def test_a_time_that_comes_twice_counts_once() -> None:
    found = fires("30 2 * * *", "Europe/Berlin", datetime(2026, 10, 24, 12, tzinfo=UTC), 2)
    assert local(found, "Europe/Berlin") == ["10-25 02:30 +0200", "10-26 02:30 +0100"]


def test_every_hour_goes_on_through_the_change() -> None:
    for start in (datetime(2026, 3, 28, 22, tzinfo=UTC), datetime(2026, 10, 24, 22, tzinfo=UTC)):
        found = fires("*/30 * * * *", "Europe/Berlin", start, 12)
        assert {second - first for first, second in itertools.pairwise(found)} == {timedelta(minutes=30)}


def test_a_day_that_there_was_not() -> None:
    found = fires("0 12 * * *", "Pacific/Apia", datetime(2011, 12, 29, 12, tzinfo=UTC), 3)
    assert [f"{at:%m-%d %H:%M}" for at in found] == ["12-29 22:00", "12-30 10:00", "12-30 22:00"]


MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2034, 1, 1), timezones=st.just(UTC))
CRONS = st.builds(
    "{} {} {} {} {}".format,
    st.sampled_from(["0", "30", "*/20", "7,59", "*"]),
    st.sampled_from(["0", "1", "2", "3", "23", "*", "*/6", "0-3"]),
    st.sampled_from(["*", "1", "25-31", "*/2"]),
    st.sampled_from(["*", "3", "10,11", "apr-oct"]),
    st.sampled_from(["*", "sun", "mon-fri", "6,7"]),
)


@settings(max_examples=size(150, 3000))
@given(cron=CRONS, timezone=st.sampled_from(ZONES), at=MOMENTS)
def test_forward_and_back_agree(cron: str, timezone: str, at: datetime) -> None:
    trigger = trigger_of({"cron": cron}, timezone, ANCHOR)
    following = trigger.following(at)
    assert following > at
    assert trigger.latest(following) == following
    latest = trigger.latest(following - timedelta(seconds=1))
    assert latest is not None and latest <= at, "nothing fires between a moment and what follows it"
    assert trigger.following(latest) == following


@given(hour=st.integers(0, 23), minute=st.integers(0, 59), timezone=st.sampled_from(ZONES), at=MOMENTS)
def test_what_is_daily_runs_once_on_each_day(hour: int, minute: int, timezone: str, at: datetime) -> None:
    found = fires(f"{minute} {hour} * * *", timezone, at, 400)
    tz = ZoneInfo(timezone)
    days = [moment.astimezone(tz).date() for moment in found]
    assert len(set(days)) == len(days), "once a day, and a skipped midnight stays in its own day"
    assert all((second - first).days == 1 for first, second in itertools.pairwise(days))
    for moment in found:
        there = moment.astimezone(tz)
        if (there.hour, there.minute) != (hour, minute):  # skipped: just after the gap
            before = (moment - timedelta(seconds=1)).astimezone(tz)
            assert (before.hour, before.minute, 0) < (hour, minute, 1) or before.date() < there.date()
            assert before.utcoffset() != there.utcoffset()


@given(seconds=st.integers(60, 400_000), at=MOMENTS)
def test_intervals_are_equal_whatever_clocks_show(seconds: int, at: datetime) -> None:
    trigger = trigger_of({"every_seconds": seconds}, "Europe/Berlin", ANCHOR)
    following = trigger.following(at)
    if at >= ANCHOR:
        assert timedelta() < following - at <= timedelta(seconds=seconds)
        latest = trigger.latest(at)
        assert latest is not None and following - latest == timedelta(seconds=seconds)
    else:
        assert following == ANCHOR and trigger.latest(at) is None
    assert (following - ANCHOR) % timedelta(seconds=seconds) == timedelta()


def test_words_for_intervals() -> None:
    assert [interval_seconds(text) for text in ("90m", "6h", "2d", "1w")] == [5400, 21600, 172800, 604800]
    for text in ("", "5", "1.5h", "h", "5y"):
        with pytest.raises(TriggerError, match="is no interval"):
            interval_seconds(text)


def test_blackout_windows() -> None:
    tz = ZoneInfo("Europe/Berlin")
    windows = blackouts_of([blackout_document("mon-fri 07:00-19:00"), blackout_document("22:00-05:30")])

    def free(text: str) -> str:
        at = free_from(datetime.fromisoformat(text).replace(tzinfo=tz), windows, tz)
        return f"{at.astimezone(tz):%a %H:%M}" if at else "never"

    assert free("2026-03-02 06:59") == "Mon 06:59"
    assert free("2026-03-02 07:00") == "Mon 19:00"
    assert free("2026-03-02 19:00") == "Mon 19:00"
    assert free("2026-03-02 23:00") == "Tue 05:30"
    assert free("2026-03-07 12:00") == "Sat 12:00", "no weekday"
    assert free("2026-03-07 02:00") == "Sat 05:30", "the window of the evening before"
    always = blackouts_of([{"from": "00:00", "to": "24:00"}])
    assert free_from(datetime(2026, 3, 2, tzinfo=UTC), always, tz) is None


def test_a_blackout_window_over_a_change_of_the_clock() -> None:
    tz = ZoneInfo("Europe/Berlin")
    window = blackouts_of([{"from": "02:30", "to": "04:00", "days": ["sun"]}])
    for day, ends in ((datetime(2026, 3, 29, 1, 15, tzinfo=UTC), 2), (datetime(2026, 10, 25, 0, 45, tzinfo=UTC), 3)):
        at = free_from(day, window, tz)
        assert at == day.replace(hour=ends, minute=0)


def test_a_window_that_ends_in_the_hour_that_comes_twice_ends_the_second_time() -> None:
    tz = ZoneInfo("Europe/Berlin")
    again = datetime(2026, 10, 25, 2, 15, tzinfo=tz, fold=1)  # the clock shows a time of the window again
    assert free_from(again, blackouts_of([{"from": "22:00", "to": "02:30"}]), tz) == datetime(
        2026, 10, 25, 1, 30, tzinfo=UTC
    )
    ended = datetime(2026, 10, 25, 2, 0, tzinfo=tz)
    assert free_from(ended, blackouts_of([{"from": "22:00", "to": "02:00"}]), tz) == ended


@pytest.mark.parametrize(
    "document",
    [
        {"from": "07:00"},
        {"from": "7", "to": "8:00"},
        {"from": "08:00", "to": "08:00"},
        {"from": "1:00", "to": "25:00"},
        {"from": "1:00", "to": "24:30"},
        {"from": "1:00", "to": "2:00", "days": ["Monday"]},
        "07:00-08:00",
        {},
    ],
)
def test_windows_that_make_no_sense(document: Any) -> None:
    with pytest.raises(TriggerError):
        blackouts_of([document])


@pytest.mark.parametrize("text", ["", "always", "mon 7-8", "xyz 07:00-08:00", "mon-xyz 07:00-08:00", "07:00-07:00"])
def test_words_for_windows_that_make_no_sense(text: str) -> None:
    with pytest.raises(TriggerError):
        blackout_document(text)
