"""Where everything stands on a label: rows are laid into zones, become smaller, then lists, then summaries.

Measured with the metrics of the fonts that draw it; nothing overlaps, nothing leaves the ring, and nothing is left out
or cut without a notice.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import ceil
from typing import Any

from media.labelbidi import FSI, PDI, base_level, isolated
from media.labelcodes import Code, CodeError, encode
from media.labelfacts import LabelFacts, context, more, patient_lines, study_lines
from media.labelfonts import ASCENT, DESCENT, Fonts, Line
from media.labelring import Zone
from media.labeltables import LabelError, Layout, Printer, Row
from media.labeltext import clean

_SCALES = (1.0, 0.92, 0.85, 0.78, 0.72, 0.66, 0.6, 0.54, 0.48, 0.42, 0.36, 0.3)
_LIST_SCALES = (0.78, 0.66, 0.54, 0.3)
_ONE_LINE = 0.72
"""A text is made so much smaller before it is given a second line."""
_ONE_LINE_LENGTH = 160
"""Characters; a longer text is never on one line."""
_LEAST_WIDTH = 6.0
"""A line of text has at least so many millimetres, or stands elsewhere."""
_STEP = 0.5
_LISTED = 400
"""Entries that are tried; more never have room."""
_LIST_LEVELS = 3
_LEVEL_SHORT, _LEVEL_RUN_IN = 1, 2
_LEADING = 0.12
"""Between lines, in em."""
_MODULE_LEAST, _BAR_LEAST = 0.30, 0.17
"""Millimetres of the module of a matrix code, of a linear code, that printers and readers can do."""
_BULLET = "\u2022"
"""Between the entries of a list that is run in."""


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
        return _bare(self.line.text).replace("\u00a0", " ") if self.line else ""


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
class _Block:
    """A row with what it shows now."""

    row: Row
    number: int
    paragraphs: tuple[str, ...] = ()
    entries: tuple[tuple[str, ...], ...] = ()
    """Of a list: its first lines, by level."""
    total: int = 0
    """Of a list: how many there are."""
    ratio: float = 1.0
    """Of a picture: width by height."""
    code: Code | None = None


@dataclass(frozen=True, slots=True)
class _Attempt:
    """How hard a zone is pressed."""

    scale: float = 1.0
    level: int = 0
    shown: int | None = None
    """Entries of lists; None: all."""
    cut: bool = False
    """Texts may be cut, with a mark."""


class _NoRoom(Exception):
    """What was to be laid out is too high or too wide."""


class _TooManyLines(_NoRoom):
    """A paragraph needs more lines than its row may have."""


def arrange(
    facts: LabelFacts, layout: Layout, printer: Printer, fonts: Fonts, *, logo_ratio: float | None = None
) -> Arranged:
    """Lay out a label. ``logo_ratio`` is the width of the site's picture by its height; None: there is none.

    Raises LabelError for a fault of the layout.
    """
    notices: list[str] = []
    blocks = list(_blocks(facts, layout, fonts, logo_ratio, notices))
    ring = printer.ring(layout.margin)
    placed: list[Placed] = []
    for name in ("top", "left", "right", "bottom"):
        chosen = [block for block in blocks if block.row.zone == name]
        placed += _fit(Zone(name, ring), chosen, fonts, notices)
    notices += [f"cut on the label: {each.text!r}" for each in placed if each.text.endswith("…")]
    return Arranged(printer, tuple(placed), tuple(dict.fromkeys(notices)))


# --- What the rows show -----------------------------------------------------------------------------------------------


def _blocks(
    facts: LabelFacts, layout: Layout, fonts: Fonts, logo_ratio: float | None, notices: list[str]
) -> Iterator[_Block]:
    known = context(facts)
    render = _renderer(layout.name, known)

    def drawable(text: str) -> str:
        shown, scripts = fonts.drawable(text)
        notices.extend(
            f"no font has the {script} characters of the label's text; name one in label.fonts" for script in scripts
        )
        return shown

    for number, row in enumerate(layout.rows, 1):
        where = f"row {number}"
        if row.when and render(f"{{{{ 1 if {row.when} else '' }}}}", where) != "1":
            continue
        if row.kind == "text":
            lines = tuple(drawable(line) for part in render(row.text, where).split("\n") if (line := _squeezed(part)))
            if lines:
                yield _Block(row, number, paragraphs=lines)
        elif row.kind == "code":
            code = _code(render(row.text, where, plain=True), render(row.symbology, where, plain=True), notices)
            if code is not None:
                yield _Block(row, number, code=code)
        elif row.kind == "logo":
            if logo_ratio is not None:
                yield _Block(row, number, ratio=logo_ratio)
        else:
            lines_of = patient_lines if row.kind == "patients" else study_lines
            levels = tuple(tuple(map(drawable, lines_of(facts, level, _LISTED))) for level in (0, _LEVEL_SHORT))
            if levels[0] and known["extracted"]:
                yield _Block(row, number, entries=(*levels, levels[_LEVEL_SHORT]), total=known[row.kind])


def _squeezed(text: str) -> str:
    """Runs of blanks that a template leaves become three at most, as wide as a template wants a gap."""
    parts = (" ".join(filter(None, part.split(" "))) for part in text.strip().split("   "))
    return "   ".join(filter(None, parts))


def _renderer(name: str, known: dict[str, Any]) -> Callable[..., str]:
    """Renders a row's Jinja text; a value in right-to-left script is isolated from what stands around it."""
    import jinja2
    from jinja2.sandbox import SandboxedEnvironment

    def environment(*, plain: bool) -> SandboxedEnvironment:
        made = SandboxedEnvironment(undefined=jinja2.StrictUndefined, autoescape=False)
        made.finalize = None if plain else lambda value: isolated(value) if isinstance(value, str) else value
        return made

    environments = {plain: environment(plain=plain) for plain in (False, True)}

    def render(text: str, where: str, *, plain: bool = False) -> str:
        if "{" not in text:
            return text
        try:
            return environments[plain].from_string(text).render(known)
        except jinja2.TemplateError as error:
            raise LabelError(f"label layout {name}, {where}: {error}") from error
        except Exception as error:  # the template's own mistakes: 1/0, a method that is not there
            raise LabelError(f"label layout {name}, {where}: {type(error).__name__}: {error}") from error

    return render


def _code(value: str, symbology: str, notices: list[str]) -> Code | None:
    if not value:
        return None
    if clean(value, 1000) != value:
        notices.append("the barcode value has control characters or double blanks: no barcode is printed")
        return None
    try:
        return encode(value, symbology)
    except CodeError as error:
        notices.append(f"no barcode is printed: {error}")
        return None


# --- Fitting into a zone ----------------------------------------------------------------------------------------------


def _fit(zone: Zone, blocks: list[_Block], fonts: Fonts, notices: list[str]) -> list[Placed]:
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
            f"no room on the label for {_bare(what)!r}" if last.paragraphs else f"no room on the label for {what}"
        )
    return []


def _best(zone: Zone, blocks: list[_Block], fonts: Fonts) -> list[Placed] | None:
    """All rows and entries in full, or lists shorter: that in which the row that had to shrink most shrank least."""
    for level in range(_LIST_LEVELS):
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
    zone: Zone, blocks: list[_Block], fonts: Fonts, longest: int, *, cut: bool
) -> tuple[_Attempt, list[Placed]] | None:
    """The most entries of the lists for which there is room, at the smallest size."""
    best: tuple[_Attempt, list[Placed]] | None = None
    low, high = 0, max(0, longest - 1)
    while low <= high:
        middle = (low + high) // 2
        attempt = _Attempt(_SCALES[-1], _LEVEL_RUN_IN, middle if longest else None, cut)
        placed = _anchored(zone, blocks, fonts, attempt)
        if placed is not None:
            best = attempt, placed
            low = middle + 1
        else:
            high = middle - 1
    return best


def _tell_what_is_missing(blocks: Sequence[_Block], attempt: _Attempt, notices: list[str]) -> None:
    for block in blocks:
        if block.entries and attempt.shown is not None and attempt.shown < block.total:
            kind = block.row.kind
            notices.append(
                f"the label lists {attempt.shown} of {block.total} {kind}: {more(block.total - attempt.shown, kind)}"
            )


def _bare(text: str) -> str:
    return text.replace(FSI, "").replace(PDI, "")


def _anchored(zone: Zone, blocks: list[_Block], fonts: Fonts, attempt: _Attempt) -> list[Placed] | None:
    """The rows where they look best in the zone: beside the hole centred, else nearer to the hole than to the rim."""

    def laid(start: float) -> list[Placed] | None:
        try:
            return _laid(zone, blocks, fonts, attempt, start)
        except _NoRoom:
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
    start = zone.bottom - max(_STEP, least)
    while start > zone.top:
        low = laid(start)
        if low is not None:
            slack = max(0.0, start - zone.top)
            return laid(start - min(0.15 * slack, 3.0)) or low
        start -= _STEP
    return None


def _least_height(zone: Zone, blocks: list[_Block], fonts: Fonts, attempt: _Attempt) -> float:
    """What the rows need at the very least: spares most of the attempts that must fail."""
    found = 0.0
    for block in blocks:
        if not (block.paragraphs or block.entries):
            found += block.row.least_height / 2
            continue
        size = block.row.least if block.paragraphs else max(block.row.least, block.row.size * attempt.scale)
        for paragraph in block.paragraphs or _shown_entries(block, attempt):
            width = fonts.rough_width(paragraph, bold=block.row.bold) * size
            # Kerning and joined letters make a text narrower than its letters are.
            lines = 1 if attempt.cut or block.paragraphs else max(1, ceil(0.7 * width / (2 * zone.ring.outer)))
            found += lines * (ASCENT + DESCENT) * size
    return found


def _laid(zone: Zone, blocks: list[_Block], fonts: Fonts, attempt: _Attempt, start: float) -> list[Placed]:
    """The rows one below the other from ``start``. Raises _NoRoom."""
    placed: list[Placed] = []
    y = start
    for index, block in enumerate(blocks):
        y += block.row.gap if index else 0.0
        before = len(placed)
        if block.paragraphs:
            for paragraph in block.paragraphs:
                placed += _text(zone, block, paragraph, fonts, attempt, y)
                y = placed[-1].box[3] + _LEADING * block.row.size * attempt.scale
        elif block.entries:
            for paragraph in _shown_entries(block, attempt):
                placed += _text(zone, block, paragraph, fonts, attempt, y)
                y = placed[-1].box[3] + _LEADING * block.row.size * attempt.scale
        else:
            placed.append(_picture(zone, block, attempt, y))
            y = placed[-1].box[3]
        if len(placed) > before and placed[-1].box[3] > zone.bottom + 1e-9:
            raise _NoRoom
    return placed


def _shown_entries(block: _Block, attempt: _Attempt) -> list[str]:
    entries = block.entries[attempt.level]
    shown = list(entries if attempt.shown is None else entries[: attempt.shown])
    hidden = block.total - len(shown)
    rest = [more(hidden, block.row.kind)] if hidden else []
    if attempt.level < _LEVEL_RUN_IN:
        return shown + rest
    # Run in: an entry keeps together where it can, entries are parted by a mark.
    return [f"  {_BULLET}  ".join([*map(isolated, shown)])] * bool(shown) + rest


def _picture(zone: Zone, block: _Block, attempt: _Attempt, y: float) -> Placed:
    row, code = block.row, block.code
    height = max(row.least_height, row.height * attempt.scale)
    if code is None:
        width = height * block.ratio
        left, right = zone.span(y, y + height)
        if width > right - left:
            height *= (right - left) / width if width else 0
            width = right - left
            if height < row.least_height / 2 or width <= 0:
                raise _NoRoom
    elif code.linear:
        left, right = zone.span(y, y + height)
        width = min(right - left, code.width * 0.5)
        if width < code.width * _BAR_LEAST:
            raise _NoRoom
    else:
        height = max(height, code.height * _MODULE_LEAST)
        width = height * code.width / code.height
        left, right = zone.span(y, y + height)
        if width > right - left:
            raise _NoRoom
    middle = (left + right) / 2
    return Placed(row.kind, (middle - width / 2, y, middle + width / 2, y + height), code=code)


# --- Lines of text ----------------------------------------------------------------------------------------------------


def _text(zone: Zone, block: _Block, text: str, fonts: Fonts, attempt: _Attempt, y: float) -> list[Placed]:
    """A paragraph in as many lines as it needs. Raises _NoRoom where those are more than it may have."""
    row = block.row
    size = max(row.least, row.size * attempt.scale)
    most = row.lines if block.paragraphs else (2 if attempt.level == 0 else 1 if attempt.level == _LEVEL_SHORT else 60)
    base = base_level(text) if base_level(text) else base_level(_bare(text)) if text.startswith(FSI) else 0
    if len(text) <= _ONE_LINE_LENGTH:
        size = _smaller_for_one_line(zone, row, fonts.shape(text, bold=row.bold, base=base), size, y)
    while True:
        try:
            return _paragraph(zone, block, text, fonts, size, base, y, attempt, most)
        except _TooManyLines:
            if size <= row.least or not block.paragraphs:
                raise
            size = max(row.least, size * 0.9)


def _paragraph(
    zone: Zone, block: _Block, text: str, fonts: Fonts, size: float, base: int, y: float, attempt: _Attempt, most: int
) -> list[Placed]:
    placed: list[Placed] = []
    rest = text
    may_cut = attempt.cut and (bool(block.paragraphs) or attempt.level != _LEVEL_RUN_IN)
    while rest:
        last = may_cut and len(placed) + 1 == most
        line, rest, y = _line(zone, block.row, rest, fonts, size, base, y, last=last)
        placed.append(_placed(zone, block.row, line, size, y))
        y = placed[-1].box[3] + _LEADING * size
        if rest and len(placed) >= most:
            raise _TooManyLines
    return placed


def _smaller_for_one_line(zone: Zone, row: Row, whole: Line, size: float, y: float) -> float:
    left, right = zone.span(y, y + _height(whole, size))
    smaller = max(row.least, size * _ONE_LINE)
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
            raise _NoRoom
        left, right = zone.span(y, y + (ASCENT + DESCENT) * size)
        if right - left >= _LEAST_WIDTH:
            found = _beginning(zone, row, text, fonts, size, base, y, cut=last)
            if found is not None:
                return (*found, y)
        if zone.name == "bottom":  # it only becomes narrower
            raise _NoRoom
        y += _STEP


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
    stripped = rest.lstrip(f" {_BULLET}") if rest.lstrip().startswith(_BULLET) else rest
    return stripped if _bare(stripped).strip() else ""


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
