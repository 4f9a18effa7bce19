"""When a schedule is due: cron lines, intervals, time zones with their summer time; windows in which nothing begins.

A time of day that the clock skips (spring) counts as the first moment after the gap. One that comes twice (autumn)
counts once, the first time; only where a cron line means every hour does the repeated hour count again. So what is to
run daily runs once a day, and what is to run every five minutes does so through the change.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from config.worded import Worded

SHORTEST_SECONDS = 60
LONGEST_SECONDS = 366 * 86_400
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_YEARS_AHEAD = 9
"""A 29 February comes again after eight years at most (until 2100)."""
_MOST_BLACKOUTS = 50
_HOUR = re.compile(r"([01]?\d|2[0-4]):([0-5]\d)")


class TriggerError(Exception):
    """A trigger, time zone or blackout window makes no sense; the text names it."""


@lru_cache(maxsize=64)
def zone(name: str) -> ZoneInfo:
    """A time zone by its IANA name. Raises TriggerError."""
    try:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_+\-]*(/[A-Za-z0-9_+\-]+)*", name):
            raise ValueError
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise TriggerError(
            Worded(
                "no_zone", "there is no time zone {zone!r}; IANA names are meant, e.g. Europe/Berlin or UTC", zone=name
            )
        ) from error


# --- Triggers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Interval:
    """Every so many seconds from an anchor on, whatever clocks show."""

    seconds: int
    anchor: datetime

    def following(self, after: datetime) -> datetime:
        """The first firing after a moment."""
        steps = max(0, (after - self.anchor) // timedelta(seconds=self.seconds) + 1)
        return self.anchor + steps * timedelta(seconds=self.seconds)

    def latest(self, until: datetime) -> datetime | None:
        """The last firing at or before a moment; None: there is none yet."""
        steps = (until - self.anchor) // timedelta(seconds=self.seconds)
        return None if steps < 0 else self.anchor + steps * timedelta(seconds=self.seconds)


@dataclass(frozen=True, slots=True)
class Cron:
    """Five fields: minute, hour, day of month, month, day of week (0 and 7 are Sunday, or names)."""

    text: str
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    """0 is Monday."""
    either: bool
    """Day of month and day of week are both restricted: one of them is enough, as every cron has it."""
    zone: ZoneInfo

    def following(self, after: datetime) -> datetime:
        """The first firing after a moment. TriggerError where there is none."""
        day = after.astimezone(self.zone).date() - timedelta(days=1)
        for here in self._days(day, step=1):
            # The next day belongs to it: where a clock goes back over midnight, days overlap.
            times = [at for each in (here, here + timedelta(days=1)) for at in self._on(each) if at > after]
            if times:
                return min(times)
        raise TriggerError(Worded("cron_never", "cron {cron!r} never comes", cron=self.text))

    def latest(self, until: datetime) -> datetime | None:
        """The last firing at or before a moment; None: there was none for years."""
        day = until.astimezone(self.zone).date() + timedelta(days=1)
        for here in self._days(day, step=-1):
            times = [at for each in (here, here - timedelta(days=1)) for at in self._on(each) if at <= until]
            if times:
                return max(times)
        return None

    def _days(self, first: date, *, step: int) -> Iterator[date]:
        for number in range(_YEARS_AHEAD * 366):
            try:
                here = first + timedelta(days=number * step)
            except OverflowError:
                return
            if self._matches(here):
                yield here

    def _matches(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        if self.either:
            return day.day in self.days or day.weekday() in self.weekdays
        return day.day in self.days and day.weekday() in self.weekdays

    def _on(self, day: date) -> tuple[datetime, ...]:
        """The firings that belong to a local date, as moments in UTC, in order."""
        if not self._matches(day):
            return ()
        return _moments(day, self.hours, self.minutes, self.zone)


Trigger = Interval | Cron


def trigger_of(document: Mapping[str, Any], timezone: str, anchor: datetime) -> Trigger:
    """Read ``{"cron": "0 22 * * *"}`` or ``{"every_seconds": 3600}``. Raises TriggerError naming what is wrong.

    An interval counts from ``anchor``, a cron line is in the time zone.
    """
    tz = zone(timezone)
    if set(document) == {"every_seconds"}:
        seconds = document["every_seconds"]
        if not isinstance(seconds, int) or isinstance(seconds, bool):
            raise TriggerError(f"every_seconds is {seconds!r}; it must be a whole number")
        if not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:
            raise TriggerError(
                Worded(
                    "interval_seconds",
                    "every_seconds is {seconds}; it may be {least} to {most}",
                    seconds=seconds,
                    least=SHORTEST_SECONDS,
                    most=LONGEST_SECONDS,
                )
            )
        return Interval(seconds, anchor)
    if set(document) == {"cron"} and isinstance(document["cron"], str):
        return _cron(document["cron"], tz)
    raise TriggerError("a trigger is either a cron line or an interval")


def interval_seconds(text: str) -> int:
    """``90m``, ``6h``, ``2d``, ``1w`` as seconds. Raises TriggerError."""
    match = re.fullmatch(r"(\d{1,6})([mhdw])", text)
    if match is None:
        raise TriggerError(
            Worded(
                "no_interval",
                "{given!r} is no interval; a number and m, h, d or w is meant, e.g. 30m, 6h, 7d",
                given=text,
            )
        )
    return int(match[1]) * {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}[match[2]]


@lru_cache(maxsize=256)
def _cron(text: str, tz: ZoneInfo) -> Cron:
    fields = text.split()
    if len(text) > 255 or len(fields) != 5:
        raise TriggerError(
            Worded(
                "cron_fields",
                "cron {cron!r} has {n} fields; minute hour day month weekday are meant",
                cron=text[:60],
                n=len(fields),
            )
        )
    minute, hour, day, month, weekday = fields
    made = Cron(
        text=text,
        minutes=tuple(sorted(_values(minute, 0, 59, "minute", text))),
        hours=tuple(sorted(_values(hour, 0, 23, "hour", text))),
        days=frozenset(_values(day, 1, 31, "day of month", text)),
        months=frozenset(_values(month, 1, 12, "month", text, _MONTHS, first=1)),
        weekdays=frozenset((value - 1) % 7 for value in _values(weekday, 0, 7, "day of week", text, _SUNDAY_FIRST)),
        either=not day.startswith("*") and not weekday.startswith("*"),
        zone=tz,
    )
    made.following(datetime(2024, 1, 1, tzinfo=UTC))  # a day such as 31 February never comes
    return made


_SUNDAY_FIRST = ("sun", *_DAYS[:6])


def _values(
    field: str, low: int, high: int, what: str, text: str, names: Sequence[str] = (), *, first: int = 0
) -> set[int]:
    """The numbers that a field of a cron line means: ``*``, ``5``, ``1-5``, ``*/15``, ``10-40/10``, lists of these."""
    field_name = Worded(f"cron_field.{what.replace(' ', '_')}", what)

    def number(part: str) -> int:
        if part.lower() in names:
            return names.index(part.lower()) + first
        if not re.fullmatch(r"\d{1,2}", part) or not low <= int(part) <= high:
            raise TriggerError(
                Worded(
                    "cron_value",
                    "cron {cron!r}: {given!r} is no {what} ({low}-{high})",
                    cron=text,
                    given=part,
                    what=field_name,
                    low=low,
                    high=high,
                )
            )
        return int(part)

    found: set[int] = set()
    for part in field.split(","):
        span, slash, step = part.partition("/")
        if slash and (not re.fullmatch(r"\d{1,2}", step) or int(step) < 1):
            raise TriggerError(
                Worded(
                    "cron_step",
                    "cron {cron!r}: {given!r} is no step of a {what}",
                    cron=text,
                    given=step,
                    what=field_name,
                )
            )
        begin, dash, end = span.partition("-")
        if span == "*":
            start, stop = low, high
        elif dash:
            start, stop = number(begin), number(end)
        else:
            start = number(begin)
            stop = high if slash else start
        if start > stop:
            raise TriggerError(
                Worded("cron_order", "cron {cron!r}: {given!r} ends before it begins", cron=text, given=span)
            )
        found.update(range(start, stop + 1, int(step) if slash else 1))
    return found


@lru_cache(maxsize=512)
def _moments(day: date, hours: tuple[int, ...], minutes: tuple[int, ...], tz: ZoneInfo) -> tuple[datetime, ...]:
    found: set[datetime] = set()
    every_hour = len(hours) == 24
    for hour in hours:
        for minute in minutes:
            local = datetime.combine(day, time(hour, minute))
            found.add(moment(local, tz))
            if every_hour and is_twice(local, tz):
                found.add(local.replace(fold=1, tzinfo=tz).astimezone(UTC))
    return tuple(sorted(found))


def moment(local: datetime, tz: ZoneInfo) -> datetime:
    """A local time as a moment in UTC: the first of two, and the end of the gap for one that the clock skips."""
    first = local.replace(tzinfo=tz, fold=0).astimezone(UTC)
    if first.astimezone(tz).replace(tzinfo=None) == local:
        return first
    early, late = local.replace(tzinfo=tz, fold=1).astimezone(UTC), first
    offset = late.astimezone(tz).utcoffset()
    while late - early > timedelta(seconds=1):  # the change lies between the two
        middle = early + (late - early) // 2
        if middle.astimezone(tz).utcoffset() == offset:
            late = middle
        else:
            early = middle
    return late.replace(microsecond=0)


def is_twice(local: datetime, tz: ZoneInfo) -> bool:
    """Whether the clock shows this time twice."""
    first, second = local.replace(tzinfo=tz, fold=0), local.replace(tzinfo=tz, fold=1)
    return first.utcoffset() != second.utcoffset() and first.astimezone(UTC) < second.astimezone(UTC)


# --- Blackout windows -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Blackout:
    """A time of day, on some days of the week, in which nothing begins; one over midnight belongs to its first day."""

    begin: int
    """Minutes of the day."""
    end: int
    weekdays: frozenset[int]

    def ends(self, at: datetime, tz: ZoneInfo) -> datetime | None:
        """When the window that holds a moment is over; None: none does."""
        today = at.astimezone(tz).date()
        for day in (today - timedelta(days=1), today):
            if day.weekday() not in self.weekdays:
                continue
            first = moment(_local(day, self.begin), tz)
            last = _last_moment(_local(day, self.end if self.end > self.begin else self.end + 1440), tz)
            if first <= at < last:
                return last
        return None


def _last_moment(end: datetime, tz: ZoneInfo) -> datetime:
    """When a window is over: for good, where the clock shows its last minute twice."""
    if is_twice(end - timedelta(minutes=1), tz):
        return end.replace(tzinfo=tz, fold=1).astimezone(UTC)
    return moment(end, tz)


def _local(day: date, minutes: int) -> datetime:
    return datetime.combine(day, time()) + timedelta(minutes=minutes)


def blackouts_of(documents: Sequence[Any]) -> list[Blackout]:
    """Read ``[{"from": "07:00", "to": "19:00", "days": ["mon"]}]``, without ``days`` every day. Raises TriggerError."""
    if len(documents) > _MOST_BLACKOUTS:
        raise TriggerError(
            Worded(
                "many_blackouts",
                "there are {n} blackout windows; at most {most} are possible",
                n=len(documents),
                most=_MOST_BLACKOUTS,
            )
        )
    found = []
    for document in documents:
        if not isinstance(document, Mapping) or not {"from", "to"} <= set(document) <= {"from", "to", "days"}:
            raise TriggerError("a blackout window has from, to and perhaps days")
        days = document.get("days") or list(_DAYS)
        if not isinstance(days, Sequence) or any(day not in _DAYS for day in days):
            raise TriggerError(f"the days of a blackout window are some of {', '.join(_DAYS)}")
        begin, end = _minutes(document["from"]), _minutes(document["to"])
        if begin in (end, 1440):
            raise TriggerError(
                Worded(
                    "blackout_times", "a blackout window must begin and end at different times, and begin before 24:00"
                )
            )
        found.append(Blackout(begin, end, frozenset(_DAYS.index(day) for day in days)))
    return found


def blackout_document(text: str) -> dict[str, Any]:
    """``mon-fri 07:00-19:00`` or ``22:00-05:00`` as a document. Raises TriggerError."""
    match = re.fullmatch(r"(?:([a-z,\-]+)\s+)?(\d\d?:\d\d)\s*-\s*(\d\d?:\d\d)", text.strip().lower())
    if match is None:
        raise TriggerError(
            Worded(
                "no_blackout",
                "{given!r} is no blackout window; meant is e.g. 'mon-fri 07:00-19:00' or '22:00-05:00'",
                given=text,
            )
        )
    document: dict[str, Any] = {"from": match[2], "to": match[3]}
    if match[1]:
        chosen: list[str] = []
        for part in match[1].split(","):
            begin, dash, end = part.partition("-")
            if begin not in _DAYS or (dash and end not in _DAYS):
                raise TriggerError(
                    Worded("no_days", "{given!r} are no days; there are {days}", given=part, days=", ".join(_DAYS))
                )
            first, last = _DAYS.index(begin), _DAYS.index(end or begin)
            chosen += [_DAYS[number % 7] for number in range(first, last + 1 + (7 if last < first else 0))]
        document["days"] = [day for day in _DAYS if day in chosen]
    blackouts_of([document])
    return document


def free_from(at: datetime, blackouts: Sequence[Blackout], tz: ZoneInfo) -> datetime | None:
    """The first moment from ``at`` on that lies in no window; None: windows without end."""
    limit = at + timedelta(days=15)
    while at < limit:
        ends = [end for blackout in blackouts if (end := blackout.ends(at, tz)) is not None]
        if not ends:
            return at
        at = max(ends)
    return None


def _minutes(text: Any) -> int:
    match = _HOUR.fullmatch(text) if isinstance(text, str) else None
    minutes = int(match[1]) * 60 + int(match[2]) if match else 1441
    if minutes > 1440:
        raise TriggerError(Worded("no_time", "{given!r} is no time of day, e.g. 07:00", given=str(text)[:20]))
    return minutes
