"""Lines of text on a label: broken where the ring ends, measured with the fonts that draw them."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from media.labelbidi import FSI, PDI, base_level
from media.labelcodes import Code
from media.labelfonts import ASCENT, DESCENT, Fonts, Line
from media.labelring import Zone
from media.labeltables import Row

ONE_LINE = 0.72
"""A text is made so much smaller before it is given a second line."""
LEADING = 0.12
"""Between lines, in em."""
STEP = 0.5
"""Millimetres by which a place further down is sought."""
BULLET = "\u2022"
"""Between the entries of a list that is run in."""
_ONE_LINE_LENGTH = 160
"""Characters; a longer text is never on one line."""
_LEAST_WIDTH = 6.0
"""A line of text has at least so many millimetres, or stands elsewhere."""


class NoRoom(Exception):
    """What was to be laid out is too high or too wide."""


class _TooManyLines(NoRoom):
    """A paragraph needs more lines than it may have."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Something that is drawn, with its box (left, top, right, bottom)."""

    row: str
    """What it belongs to: ``text``, ``patients``, ``studies``, ``code``, ``logo``."""
    box: tuple[float, float, float, float]
    line: Line | None = field(default=None, repr=False)
    size: float = 0.0
    x: float = 0.0
    y: float = 0.0
    """Of a line: left end and base line."""
    shrunk: float = 1.0
    """Of a line: its size by the size that its row wants."""
    code: Code | None = field(default=None, repr=False)

    @property
    def text(self) -> str:
        return bare(self.line.text).replace("\u00a0", " ") if self.line else ""


def paragraph(
    zone: Zone,
    row: Row,
    text: str,
    fonts: Fonts,
    *,
    scale: float,
    y: float,
    lines: int,
    may_shrink: bool,
    may_cut: bool,
) -> list[Placed]:
    """A paragraph from ``y`` down, in as many lines as it needs, at most ``lines``.

    The size is the row's by ``scale``; with ``may_shrink`` it becomes smaller rather than take more lines, and with
    ``may_cut`` the last line ends with a mark at last. Raises NoRoom.
    """
    size = max(row.least, row.size * scale)
    base = base_level(bare(text) if text.startswith(FSI) else text)
    if len(text) <= _ONE_LINE_LENGTH:
        size = _smaller_for_one_line(zone, row, fonts.shape(text, bold=row.bold, base=base), size, y)
    while True:
        try:
            return _in_lines(zone, row, text, fonts, size, base, y, lines, may_cut=may_cut)
        except _TooManyLines:
            if size <= row.least or not may_shrink:
                raise
            size = max(row.least, size * 0.9)


def _in_lines(
    zone: Zone, row: Row, text: str, fonts: Fonts, size: float, base: int, y: float, lines: int, *, may_cut: bool
) -> list[Placed]:
    placed: list[Placed] = []
    rest = text
    while rest:
        last = may_cut and len(placed) + 1 == lines
        line, rest, y = _line(zone, row, rest, fonts, size, base, y, last=last)
        placed.append(_placed(zone, row, line, size, y))
        y = placed[-1].box[3] + LEADING * size
        if rest and len(placed) >= lines:
            raise _TooManyLines
    return placed


def _smaller_for_one_line(zone: Zone, row: Row, whole: Line, size: float, y: float) -> float:
    left, right = zone.span(y, y + _height(whole, size))
    smaller = max(row.least, size * ONE_LINE)
    if whole.width * smaller <= right - left < whole.width * size:
        return max(smaller, (right - left) / whole.width * 0.999)
    return size


def _height(line: Line, size: float) -> float:
    return (line.ascent + line.descent) * size


def _line(
    zone: Zone, row: Row, text: str, fonts: Fonts, size: float, base: int, y: float, *, last: bool
) -> tuple[Line, str, float]:
    """The longest beginning of a text that fits at ``y`` (or lower, where the ring is wider), and the rest.

    ``last``: the whole text must do; what does not fit is cut with a mark.
    """
    while True:
        if y + (ASCENT + DESCENT) * size > zone.bottom + 1e-9:
            raise NoRoom
        left, right = zone.span(y, y + (ASCENT + DESCENT) * size)
        if right - left >= _LEAST_WIDTH:
            found = _beginning(zone, row, text, fonts, size, base, y, cut=last)
            if found is not None:
                return (*found, y)
        if zone.name == "bottom":  # it only becomes narrower
            raise NoRoom
        y += STEP


def _beginning(
    zone: Zone, row: Row, text: str, fonts: Fonts, size: float, base: int, y: float, *, cut: bool
) -> tuple[Line, str] | None:
    def fits(candidate: str) -> Line | None:
        line = fonts.shape(candidate, bold=row.bold, base=base)
        left, right = zone.span(y, y + _height(line, size))
        return line if line.width * size <= right - left + 1e-9 else None

    left, right = zone.span(y, y + (ASCENT + DESCENT) * size)
    roughly = 1.06 * (right - left) / size + 1.0
    ends = _near(text, _breaks(text), fonts, row.bold, roughly)
    if ends[-1] == len(text):
        whole = fits(text)
        if whole is not None:
            return whole, ""

    def letters(end: int) -> list[int]:
        return [place for place in _near(text, _places(text[:end]), fonts, row.bold, roughly) if place < len(text)]

    if cut:
        return _first(letters(ends[-1]), lambda end: fits(_cut(text, end)), lambda _: "")

    def rest(end: int) -> str:
        return _reopened(text, end)

    found = _first([end for end in ends if end < len(text)], lambda end: fits(_balanced(text[:end].rstrip())), rest)
    # A word that is wider than the line comes in pieces.
    return found or _first(letters(ends[0]), lambda end: fits(_balanced(text[:end])), rest)


def _first(
    ends: Sequence[int], fits: Callable[[int], Line | None], rest: Callable[[int], str]
) -> tuple[Line, str] | None:
    """The longest beginning that fits."""
    for end in reversed(ends):
        line = fits(end)
        if line is not None:
            return line, rest(end)
    return None


def _cut(text: str, end: int) -> str:
    return _balanced(text[:end].rstrip()) + "…"


def _near(text: str, ends: Sequence[int], fonts: Fonts, bold: bool, width: float) -> Sequence[int]:
    """Those of ``ends`` up to which the text is about as wide as ``width`` (em), and the next one."""
    so_far, begin = 0.0, 0
    for index, end in enumerate(ends):
        so_far += fonts.rough_width(text[begin:end], bold=bold)
        if so_far > width:
            return ends[: index + 1]
        begin = end
    return ends


def _places(text: str) -> list[int]:
    """Where a text may be parted at all: not before marks, nor within an isolate's signs."""
    found = []
    for index in range(1, len(text)):
        character = text[index]
        if unicodedata.category(character)[0] == "M" or character in "\u200c\u200d" or character == PDI:
            continue
        if text[index - 1] in f"\u200d{FSI}":
            continue
        found.append(index)
    return found


@lru_cache(maxsize=2048)
def _breaks(text: str) -> tuple[int, ...]:
    """Where a line may end: before blanks, between ideographs, behind a hyphen between letters; and at the end."""
    found = []
    for end in range(1, len(text)):
        before, after = text[end - 1], text[end]
        if after == " ":
            if before != " ":
                found.append(end)
        elif before >= "\u3000" and after >= "\u3000":
            if not unicodedata.category(after).startswith(("P", "M")):
                found.append(end)
        elif before in "-/" and end > 1 and text[end - 2].isalpha() and after.isalpha():
            found.append(end)
    return (*found, len(text))


def _balanced(text: str) -> str:
    return text + PDI * max(0, text.count(FSI) - text.count(PDI))


def _reopened(text: str, end: int) -> str:
    """What follows a break, within the isolate that the break was in."""
    head, rest = text[:end], text[end:].lstrip()
    opened = head.count(FSI) - head.count(PDI)
    rest = FSI * max(0, opened) + rest
    stripped = rest.lstrip(f" {BULLET}") if rest.lstrip().startswith(BULLET) else rest
    return stripped if bare(stripped).strip() else ""


def _placed(zone: Zone, row: Row, line: Line, size: float, y: float) -> Placed:
    height = _height(line, size)
    left, right = zone.span(y, y + height)
    width = line.width * size
    free = max(0.0, right - left - width)
    x = left + {"left": 0.0, "center": free / 2, "right": free}[row.align]
    baseline = y + line.ascent * size
    return Placed(
        row.kind, (x, y, x + width, y + height), line=line, size=size, x=x, y=baseline, shrunk=size / row.size
    )


def bare(text: str) -> str:
    """Without the marks of isolates."""
    return text.replace(FSI, "").replace(PDI, "")
