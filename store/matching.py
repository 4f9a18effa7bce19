"""Matching of attributes (PS3.4 C.2.2.2): as SQL where a column has them, as Python where none has, or not exactly."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, true

from media.problems import MediaError
from store.models import Patient
from store.search import folded, folded_text

_LAST = "\U0010ffff"
_WILDCARDS = 3
_OR_MORE = "\0"
"""Behind a component group's pattern: nothing, or further components."""
_DATE = re.compile(r"\d{8}")
_TIME = re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?")
_DATETIME = r"\d{4}(?:\d{2}){0,5}(?:\.\d{1,6})?(?:[+-]\d{4})?"
_DATETIME_RANGE = re.compile(rf"({_DATETIME})?-({_DATETIME})?")
Column = Any


class BadKey(MediaError):
    """A key has a value that its VR does not allow; ``tag`` says which."""

    def __init__(self, tag: int) -> None:
        super().__init__(f"({tag >> 16:04X},{tag & 0xFFFF:04X}) has a value that its VR does not allow")
        self.tag = tag


Range = tuple[str, str]
"""First and last value, inclusive; the last one stands for all that begins like it."""


def has_wildcard(text: str) -> bool:
    return "*" in text or "?" in text


def range_of(tag: int, vr: bytes, text: str) -> Range:
    """The range that a date, time or date-time key means; a single value is a range of its own precision.

    Raises BadKey.
    """
    plain = text.replace(":", "") if vr == b"TM" else text.replace(".", "") if vr == b"DA" else text
    if vr == b"DT":
        single = re.fullmatch(_DATETIME, plain)
        match = None if single else _DATETIME_RANGE.fullmatch(plain)
        if single:
            return _without_zone(plain), _without_zone(plain) + _LAST
        if match is None or not (match[1] or match[2]):
            raise BadKey(tag)
        return _without_zone(match[1] or ""), _without_zone(match[2] or "") + _LAST
    first, dash, last = (part.strip() for part in plain.partition("-"))
    pattern = _DATE if vr == b"DA" else _TIME
    if not (first or last) or any(part and not pattern.fullmatch(part) for part in (first, last)):
        raise BadKey(tag)
    return first, (last if dash else first) + _LAST


def _without_zone(text: str) -> str:
    return re.sub(r"[+-]\d{4}$", "", text)


def begins_with(column: Column, prefix: str, *, postgresql: bool) -> ColumnElement[bool]:
    """By the index: everything that begins so. ``~>=~`` compares bytes, as ``text_pattern_ops`` indexes are sorted."""
    if postgresql:
        return and_(column.op("~>=~")(prefix), column.op("~<~")(prefix + _LAST))
    return and_(column >= prefix, column < prefix + _LAST)


def text_condition(column: Column, values: Sequence[str], *, postgresql: bool) -> ColumnElement[bool]:
    """Single value, list or wildcard matching of text, with regard to case; perhaps a superset (``predicate``)."""
    exact = [value for value in values if not has_wildcard(value)]
    parts: list[ColumnElement[bool]] = []
    if exact:
        parts.append(column == exact[0] if len(exact) == 1 else column.in_(exact))
    for value in values:
        if has_wildcard(value):
            parts.append(_wildcard(column, value, postgresql=postgresql))
    return or_(*parts) if len(parts) > 1 else parts[0]


def _wildcard(column: Column, pattern: str, *, postgresql: bool) -> ColumnElement[bool]:
    prefix = re.split(r"[*?]", pattern, maxsplit=1)[0]
    if pattern.count("*") > _WILDCARDS:  # databases try every way to match: the rest is for ``predicate``
        return begins_with(column, prefix, postgresql=postgresql) if prefix else true()
    if postgresql:
        like = re.sub(r"([\\%_])", r"\\\1", pattern).replace("*", "%").replace("?", "_")
        whole: ColumnElement[bool] = column.like(like, escape="\\")
    else:  # SQLite's LIKE does not regard case
        whole = column.op("GLOB", is_comparison=True)(pattern.replace("[", "[[]"))
    return and_(begins_with(column, prefix, postgresql=postgresql), whole) if prefix else whole


def range_condition(column: Column, bounds: Range, *, postgresql: bool) -> ColumnElement[bool]:
    """A value between two others, not an absent one."""
    first, last = bounds
    parts: list[ColumnElement[bool]] = [column != ""]
    if first:
        parts.append(column >= first)
    if last != _LAST:
        # For digits every collation sorts alike; the last character of Unicode is for comparing bytes.
        parts.append(column.op("~<=~")(last) if postgresql else column <= last)
    return and_(*parts)


def day_condition(column: Column, bounds: Range) -> ColumnElement[bool]:
    """The same for dates, whose last one is a whole value: any index can be used."""
    first, last = bounds[0], bounds[1].removesuffix(_LAST)
    if first == last:
        return column == first  # type: ignore[no-any-return]
    parts = [column != "", *([column >= first] if first else []), *([column <= last] if last else [])]
    return and_(*parts)


def moment_condition(
    date: Column, time: Column, dates: Range, times: Range, *, postgresql: bool
) -> ColumnElement[bool]:
    """One range from the first date and time to the last (PS3.4 C.2.2.2.5.1, combined date-time matching)."""
    first_time, last_time = times

    def at_most(bound: str) -> ColumnElement[bool]:
        condition: ColumnElement[bool] = time.op("~<=~")(bound) if postgresql else time <= bound
        return condition

    first_date, last_date = dates[0], dates[1].removesuffix(_LAST)
    parts: list[ColumnElement[bool]] = [date != ""]
    if first_date:
        parts += [date >= first_date, or_(date > first_date, time >= first_time)]
    if last_date:
        parts.append(date <= last_date)
        if last_time != _LAST:
            parts.append(or_(date < last_date, at_most(last_time)))
    return and_(*parts)


# --- Names ------------------------------------------------------------------------------------------------------------


def name_groups(pattern: str) -> list[str]:
    """The component groups of a person name's pattern, folded; those that match everything left out.

    ``DOE^*`` becomes ``doe`` and ``_OR_MORE``: it is meant for a DOE without given name, too.
    """
    groups = []
    for group in pattern.split("="):
        text = re.sub(r"\*+", "*", folded_text(group))
        base = re.sub(r"( \*)+$", "", text)
        if base.strip("* "):
            groups.append(text if base == text else base + _OR_MORE)
    return groups


def patient_name_condition(pattern: str, *, postgresql: bool) -> ColumnElement[bool] | None:
    """A superset of the patients with this name, by indexes where it does not begin with a wildcard; None: all."""
    conditions = [_group_condition(group, postgresql=postgresql) for group in name_groups(pattern)]
    return and_(*conditions) if conditions else None


def _group_condition(group: str, *, postgresql: bool) -> ColumnElement[bool]:
    group = group.replace(_OR_MORE, "*")  # a superset
    prefix = re.split(r"[*?]", group, maxsplit=1)[0]
    if not prefix:
        if group.count("*") > _WILDCARDS:
            return true()
        like = "".join({"*": "%", "?": "_"}.get(c, "\\" + c if c in "\\%_" else c) for c in group)
        return Patient.name_search.like(f"%={like}=%", escape="\\")
    if prefix == group:
        return or_(
            begins_with(Patient.name_search, f"={group}=", postgresql=postgresql),
            Patient.name_search_2 == group,
            Patient.name_search_3 == group,
        )
    return or_(
        begins_with(Patient.name_search, f"={prefix}", postgresql=postgresql),
        begins_with(Patient.name_search_2, prefix, postgresql=postgresql),
        begins_with(Patient.name_search_3, prefix, postgresql=postgresql),
    )


# --- In Python --------------------------------------------------------------------------------------------------------


def _group_regex(group: str) -> re.Pattern[str]:
    if not group.endswith(_OR_MORE):
        return _regex(group)
    return re.compile(f"{_regex(group.removesuffix(_OR_MORE)).pattern}(?: .*)?", re.DOTALL)


Predicate = Callable[[str], bool]


@lru_cache(maxsize=256)
def _regex(pattern: str) -> re.Pattern[str]:
    """Each piece between two ``*`` is taken where it is first met (atomic groups), so that no text takes long."""
    first, *rest = [re.escape(piece).replace(r"\?", ".") for piece in re.split(r"\*+", pattern)]
    middle = "".join(f"(?>.*?{piece})" for piece in rest[:-1])
    return re.compile(first + middle + (f".*{rest[-1]}" if rest else ""), re.DOTALL)


def predicate(tag: int, vr: bytes, values: Sequence[str]) -> Predicate:
    """Whether a value (several separated by ``\\``) matches. Raises BadKey."""
    if vr == b"PN":
        patterns = [[_group_regex(group) for group in name_groups(value)] for value in values]

        def names(text: str) -> bool:
            groups = [group for group in folded(text).split("=") if group]
            return any(
                all(any(pattern.fullmatch(group) for group in groups) for pattern in wanted) for wanted in patterns
            )

        return names
    if vr in (b"DA", b"TM", b"DT"):
        bounds = [range_of(tag, vr, value) for value in values]

        def dates(text: str) -> bool:
            plain = _without_zone(text.strip())
            return bool(plain) and any(first <= plain <= last for first, last in bounds)

        return dates
    patterns_ = [_regex(value) for value in values]

    def texts(text: str) -> bool:
        parts = [part.strip() for part in text.split("\\")]
        return any(pattern.fullmatch(part) for pattern in patterns_ for part in parts)

    return texts
