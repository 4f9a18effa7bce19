"""What the rows of a layout show of a label's facts: Jinja rendered, lists in three lengths, barcodes encoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from media.labelbidi import isolated
from media.labelcodes import Code, CodeError, encode
from media.labelfacts import LabelFacts, context, patient_lines, study_lines
from media.labelfonts import Fonts
from media.labeltables import LabelError, Layout, Row
from media.labeltext import clean

SHORT, RUN_IN = 1, 2
"""Lengths of lists beside 0, where each entry has its full text and a line: short entries, and short ones run in."""
_LISTED = 400
"""Entries that are tried; more never have room."""


@dataclass(frozen=True, slots=True)
class Block:
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


def blocks(
    facts: LabelFacts, layout: Layout, fonts: Fonts, logo_ratio: float | None, notices: list[str]
) -> Iterator[Block]:
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
                yield Block(row, number, paragraphs=lines)
        elif row.kind == "code":
            code = _code(render(row.text, where, plain=True), render(row.symbology, where, plain=True), notices)
            if code is not None:
                yield Block(row, number, code=code)
        elif row.kind == "logo":
            if logo_ratio is not None:
                yield Block(row, number, ratio=logo_ratio)
        else:
            lines_of = patient_lines if row.kind == "patients" else study_lines
            levels = tuple(tuple(map(drawable, lines_of(facts, level, _LISTED))) for level in (0, SHORT))
            if levels[0] and known["extracted"]:
                yield Block(row, number, entries=(*levels, levels[SHORT]), total=known[row.kind])


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
