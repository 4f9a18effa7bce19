"""Where everything stands on a label: rows are laid into zones, become smaller, then lists, then summaries.

Measured with the metrics of the fonts that draw it; nothing overlaps, nothing leaves the ring, and nothing is left out
or cut without a notice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from media.labelbidi import isolated
from media.labelfacts import LabelFacts, more
from media.labelfonts import ASCENT, DESCENT, Fonts
from media.labellines import BULLET, LEADING, STEP, NoRoom, Placed, bare, paragraph
from media.labelring import Zone
from media.labelrows import RUN_IN, Block
from media.labelrows import blocks as rows_of
from media.labeltables import Layout, Printer

_SCALES = (1.0, 0.92, 0.85, 0.78, 0.72, 0.66, 0.6, 0.54, 0.48, 0.42, 0.36, 0.3)
_LIST_SCALES = (0.78, 0.66, 0.54, 0.3)
_ENTRY_LINES = (2, 1, 60)
"""Most lines of an entry, by the list's length; of a list that is run in, those of all entries."""
_MODULE_LEAST, _BAR_LEAST = 0.30, 0.17
"""Millimetres of the module of a matrix code, of a linear code, that printers and readers can do."""


@dataclass(frozen=True, slots=True)
class Arranged:
    """A label that is ready to be drawn."""

    printer: Printer
    placed: tuple[Placed, ...]
    notices: tuple[str, ...]
    """What a person must know: what was cut, summarised, or cannot be drawn."""

    @property
    def lines(self) -> list[str]:
        """All text, from top to bottom."""
        return [each.text for each in self.placed if each.line is not None]


@dataclass(frozen=True, slots=True)
class _Attempt:
    """How hard a zone is pressed."""

    scale: float = 1.0
    level: int = 0
    shown: int | None = None
    """Entries of lists; None: all."""
    cut: bool = False
    """Texts may be cut, with a mark."""


def arrange(
    facts: LabelFacts, layout: Layout, printer: Printer, fonts: Fonts, *, logo_ratio: float | None = None
) -> Arranged:
    """Lay out a label. ``logo_ratio`` is the width of the site's picture by its height; None: there is none.

    Raises LabelError for a fault of the layout.
    """
    notices: list[str] = []
    blocks = list(rows_of(facts, layout, fonts, logo_ratio, notices))
    ring = printer.ring(layout.margin)
    placed: list[Placed] = []
    for name in ("top", "left", "right", "bottom"):
        chosen = [block for block in blocks if block.row.zone == name]
        placed += _fit(Zone(name, ring), chosen, fonts, notices)
    notices += [f"cut on the label: {each.text!r}" for each in placed if each.text.endswith("…")]
    return Arranged(printer, tuple(placed), tuple(dict.fromkeys(notices)))


def _fit(zone: Zone, blocks: list[Block], fonts: Fonts, notices: list[str]) -> list[Placed]:
    """Press the rows of a zone harder and harder until they have room."""
    while blocks:
        best = _best(zone, blocks, fonts)
        if best is not None:
            return best
        longest = max((len(block.entries[0]) for block in blocks if block.entries), default=0)
        for cut in (False, True):
            found = _most_entries(zone, blocks, fonts, longest, cut=cut)
            if found is not None:
                attempt, placed = found
                _tell_what_is_missing(blocks, attempt, notices)
                return placed
        last = next((block for block in reversed(blocks) if not block.row.keep), blocks[-1])
        blocks = [block for block in blocks if block is not last]
        what = (
            last.paragraphs[0]
            if last.paragraphs
            else {"code": "the barcode"}.get(last.row.kind, f"the {last.row.kind}")
        )
        notices.append(
            f"no room on the label for {bare(what)!r}" if last.paragraphs else f"no room on the label for {what}"
        )
    return []


def _best(zone: Zone, blocks: list[Block], fonts: Fonts) -> list[Placed] | None:
    """All rows and entries in full, or lists shorter: that in which the row that had to shrink most shrank least."""
    for level in range(len(_ENTRY_LINES)):
        best: list[Placed] | None = None
        reached = 0.0
        for scale in _LIST_SCALES if level else _SCALES:
            if scale <= reached:
                break
            placed = _anchored(zone, blocks, fonts, _Attempt(scale, level))
            least = min((each.shrunk for each in placed or ()), default=0.0)
            if placed is not None and least > reached:
                best, reached = placed, least
        if best is not None:
            return best
    return None


def _most_entries(
    zone: Zone, blocks: list[Block], fonts: Fonts, longest: int, *, cut: bool
) -> tuple[_Attempt, list[Placed]] | None:
    """The most entries of the lists for which there is room, at the smallest size."""
    best: tuple[_Attempt, list[Placed]] | None = None
    low, high = 0, max(0, longest - 1)
    while low <= high:
        middle = (low + high) // 2
        attempt = _Attempt(_SCALES[-1], RUN_IN, middle if longest else None, cut)
        placed = _anchored(zone, blocks, fonts, attempt)
        if placed is not None:
            best = attempt, placed
            low = middle + 1
        else:
            high = middle - 1
    return best


def _tell_what_is_missing(blocks: Sequence[Block], attempt: _Attempt, notices: list[str]) -> None:
    for block in blocks:
        if block.entries and attempt.shown is not None and attempt.shown < block.total:
            kind = block.row.kind
            notices.append(
                f"the label lists {attempt.shown} of {block.total} {kind}: {more(block.total - attempt.shown, kind)}"
            )


def _anchored(zone: Zone, blocks: list[Block], fonts: Fonts, attempt: _Attempt) -> list[Placed] | None:
    """The rows where they look best in the zone: beside the hole centred, else nearer to the hole than to the rim."""

    def laid(start: float) -> list[Placed] | None:
        try:
            return _laid(zone, blocks, fonts, attempt, start)
        except NoRoom:
            return None

    least = _least_height(zone, blocks, fonts, attempt)
    if least > zone.bottom - zone.top:
        return None
    if zone.name == "bottom":
        first = laid(zone.top)
        if first is None:
            return None
        free = zone.bottom - first[-1].box[3]
        return laid(zone.top + min(0.25 * free, 3.0)) or first
    if zone.name != "top":
        first = laid(zone.top)
        if first is None:
            return None
        height = first[-1].box[3] - zone.top
        return laid(-height / 2) or first
    # Above the hole: as low as there is room, found from below; then a little higher.
    start = zone.bottom - max(STEP, least)
    while start > zone.top:
        low = laid(start)
        if low is not None:
            slack = max(0.0, start - zone.top)
            return laid(start - min(0.15 * slack, 3.0)) or low
        start -= STEP
    return None


def _least_height(zone: Zone, blocks: list[Block], fonts: Fonts, attempt: _Attempt) -> float:
    """What the rows need at the very least: spares most of the attempts that must fail."""
    found = 0.0
    for block in blocks:
        if not (block.paragraphs or block.entries):
            found += block.row.least_height / 2
            continue
        size = block.row.least if block.paragraphs else max(block.row.least, block.row.size * attempt.scale)
        for text in block.paragraphs or _shown_entries(block, attempt):
            width = fonts.rough_width(text, bold=block.row.bold) * size
            # Kerning and joined letters make a text narrower than its letters are.
            lines = 1 if attempt.cut or block.paragraphs else max(1, ceil(0.7 * width / (2 * zone.ring.outer)))
            found += lines * (ASCENT + DESCENT) * size
    return found


def _laid(zone: Zone, blocks: list[Block], fonts: Fonts, attempt: _Attempt, start: float) -> list[Placed]:
    """The rows one below the other from ``start``. Raises NoRoom."""
    placed: list[Placed] = []
    y = start
    for index, block in enumerate(blocks):
        row = block.row
        y += row.gap if index else 0.0
        if block.paragraphs or block.entries:
            most = row.lines if block.paragraphs else _ENTRY_LINES[attempt.level]
            may_cut = attempt.cut and (bool(block.paragraphs) or attempt.level != RUN_IN)
            for text in block.paragraphs or _shown_entries(block, attempt):
                placed += paragraph(
                    zone,
                    row,
                    text,
                    fonts,
                    scale=attempt.scale,
                    y=y,
                    lines=most,
                    may_shrink=bool(block.paragraphs),
                    may_cut=may_cut,
                )
                y = placed[-1].box[3] + LEADING * row.size * attempt.scale
        else:
            placed.append(_picture(zone, block, attempt, y))
            y = placed[-1].box[3]
        if placed[-1].box[3] > zone.bottom + 1e-9:
            raise NoRoom
    return placed


def _shown_entries(block: Block, attempt: _Attempt) -> list[str]:
    entries = block.entries[attempt.level]
    shown = list(entries if attempt.shown is None else entries[: attempt.shown])
    hidden = block.total - len(shown)
    rest = [more(hidden, block.row.kind)] if hidden else []
    if attempt.level < RUN_IN:
        return shown + rest
    # Run in: an entry keeps together where it can, entries are parted by a mark.
    return [f"  {BULLET}  ".join([*map(isolated, shown)])] * bool(shown) + rest


def _picture(zone: Zone, block: Block, attempt: _Attempt, y: float) -> Placed:
    row, code = block.row, block.code
    height = max(row.least_height, row.height * attempt.scale)
    if code is None:
        width = height * block.ratio
        left, right = zone.span(y, y + height)
        if width > right - left:
            height *= (right - left) / width if width else 0
            width = right - left
            if height < row.least_height / 2 or width <= 0:
                raise NoRoom
    elif code.linear:
        left, right = zone.span(y, y + height)
        width = min(right - left, code.width * 0.5)
        if width < code.width * _BAR_LEAST:
            raise NoRoom
    else:
        height = max(height, code.height * _MODULE_LEAST)
        width = height * code.width / code.height
        left, right = zone.span(y, y + height)
        if width > right - left:
            raise NoRoom
    middle = (left + right) / 2
    return Placed(row.kind, (middle - width / 2, y, middle + width / 2, y + height), code=code)
