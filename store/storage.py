"""How much is held, how fast it grows, and when there is no room any more."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from store.models import Instance
from store.models_base import now

DAYS = 30
"""Days that are looked back ..."""
_TREND_DAYS = 14
"""... and those of them that the trend is taken from."""
_CHUNK_DAYS = 1


@dataclass(frozen=True, slots=True)
class Received:
    """What came on one day."""

    day: date
    bytes: int
    instances: int


def received(session: Session, zone: tzinfo) -> list[Received]:
    """What came on each of the last ``DAYS`` days, in the site's zone, the oldest first."""
    today = now().astimezone(zone).date()
    found = []
    for back in range(DAYS - 1, -1, -1):
        day = today - timedelta(days=back)
        start = datetime(day.year, day.month, day.day, tzinfo=zone)
        end = datetime.combine(day + timedelta(days=_CHUNK_DAYS), start.timetz())
        size, count = session.execute(
            select(func.coalesce(func.sum(Instance.file_bytes), 0), func.count()).where(
                Instance.received_at >= start, Instance.received_at < end
            )
        ).one()
        found.append(Received(day, int(size), count))
    return found


def daily(days: list[Received]) -> float:
    """Bytes that come in a day, of late; the days before the first arrival do not count."""
    late = days[-_TREND_DAYS:]
    first = next((number for number, day in enumerate(late) if day.instances), None)
    if first is None:
        return 0.0
    counted = late[first:]
    return sum(day.bytes for day in counted) / len(counted)


def days_left(free: float, a_day: float) -> float | None:
    """When the room is used up if it goes on so and nothing is purged; None where nothing comes."""
    return max(0.0, free) / a_day if a_day > 0 else None
