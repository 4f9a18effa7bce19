"""How values are shown to people: sizes, times in the site's zone, names of patients, states."""

from __future__ import annotations

from datetime import UTC, date, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from service.web.texts import Texts

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_THIN = "\N{NARROW NO-BREAK SPACE}"


def zone_of(name: str) -> tzinfo:
    """A time zone by its IANA name; ``""`` is this machine's."""
    if name:
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError):
            return UTC
    local = datetime.now().astimezone().tzinfo
    return local or UTC


class Shown:
    """Values as texts of one language and zone; its methods are filters of the templates."""

    def __init__(self, texts: Texts, zone: tzinfo) -> None:
        self._texts = texts
        self.zone = zone

    def size(self, count: float | None) -> str:
        """Bytes by powers of 1000, as media are sold."""
        if count is None:
            return ""
        value, unit = float(count), 0
        while value >= 1000 and unit < len(_UNITS) - 1:
            value, unit = value / 1000, unit + 1
        digits = 0 if unit == 0 or value >= 100 else 1
        return f"{self.number(value, digits)}{_THIN}{_UNITS[unit]}"

    def number(self, value: float, digits: int = 0) -> str:
        text = f"{value:,.{digits}f}"
        point = self._texts("format.decimal_point")
        return text.replace(",", _THIN).replace(".", point) if point != "." else text.replace(",", _THIN)

    def percent(self, fraction: float | None) -> str:
        return f"{self.number(100 * (fraction or 0.0))}{_THIN}%"

    def moment(self, at: datetime | str | None) -> str:
        """Date and time; the time alone where it is today."""
        found = self._local(at)
        if found is None:
            return ""
        today = datetime.now(self.zone).date()
        clock = found.strftime("%H:%M")
        return clock if found.date() == today else f"{self._day(found.date())} {clock}"

    def full_moment(self, at: datetime | str | None) -> str:
        found = self._local(at)
        return "" if found is None else f"{self._day(found.date())} {found.strftime('%H:%M:%S %Z')}".strip()

    def iso(self, at: datetime | str | None) -> str:
        """For ``datetime`` attributes."""
        found = self._local(at)
        return "" if found is None else found.isoformat(timespec="seconds")

    def dicom_date(self, text: str | None) -> str:
        """A DA value; what is none is shown as it is."""
        words = text or ""
        if len(words) == 8 and words.isascii() and words.isdigit():
            try:
                return self._day(date(int(words[:4]), int(words[4:6]), int(words[6:])))
            except ValueError:
                return words
        return words

    def duration(self, seconds: float | None) -> str:
        """Roughly: what is left of a burn is an estimate."""
        if seconds is None:
            return ""
        whole = max(0, round(seconds))
        if whole < 60:
            return self._texts("format.seconds", n=whole)
        minutes = round(whole / 60)
        if minutes < 60:
            return self._texts("format.minutes", n=minutes)
        hours, minutes = divmod(minutes, 60)
        if hours < 48:
            return self._texts("format.hours", h=hours, m=minutes)
        return self._texts("format.days", n=round(hours / 24))

    def ago(self, at: datetime | str | None) -> str:
        found = self._local(at)
        if found is None:
            return ""
        seconds = (datetime.now(UTC) - found).total_seconds()
        return self._texts("format.just_now") if seconds < 5 else self._texts("format.ago", t=self.duration(seconds))

    def person(self, name: str | None) -> str:
        """A PN value (PS3.5 6.2.1.1): the first component group, family name first."""
        groups = [group for group in (name or "").split("=") if group.strip("^ ")]
        if not groups:
            return self._texts("format.no_name")
        family, *rest = (part.strip() for part in groups[0].split("^"))
        given = " ".join(part for part in rest[:2] if part)
        return ", ".join(part for part in (family, given) if part) or self._texts("format.no_name")

    def other_scripts(self, name: str | None) -> str:
        """The further component groups of a name, where it has any."""
        groups = [group for group in (name or "").split("=") if group.strip("^ ")]
        return " ".join(" ".join(part for part in group.split("^") if part) for group in groups[1:])

    def source(self, source: str) -> str:
        """Who or what asked for discs (``Request.source``): ``user:maria``, ``schedule:nightly``, ``dicom``."""
        kind, _, name = source.partition(":")
        known = self._texts.known(f"source.{kind.replace('-', '_')}", "")
        return known.format(name=name) if known else source

    def state(self, state: str | None) -> str:
        """A state in words; one without a translation is shown as it is."""
        return self._texts.known(f"state.{state}", state or "")

    def _local(self, at: datetime | str | None) -> datetime | None:
        if not at:
            return None
        found = datetime.fromisoformat(at) if isinstance(at, str) else at
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(self.zone)

    def _day(self, day: date) -> str:
        return day.strftime(self._texts("format.date"))
