"""A laid-out label as SVG: outlines only, so that it looks the same everywhere, and nothing is loaded from anywhere."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from xml.sax.saxutils import escape

from media.labelfonts import Font
from media.labellayout import Arranged
from media.labellines import Placed
from media.labeltables import Printer

_GUIDE = "#d0d0d0"


def svg(label: Arranged, *, logo: bytes | None = None, guides: bool = False) -> str:
    """One picture of the disc's size in millimetres, its centre in the middle. ``logo`` is a PNG.

    ``guides`` draws the ring and the hole thinly, for people to look at; never for a printer.
    """
    side = label.printer.disc
    names: dict[tuple[str, int], str] = {}
    drawn = "".join(_drawn(label, names, logo))
    glyphs = "".join(f'<path id="{name}" d="{_path(font, glyph)}"/>' for (font, glyph, name) in _named(label, names))
    title = escape(" / ".join(label.lines))
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{side:g}mm" height="{side:g}mm" '
        f'viewBox="{-side / 2:g} {-side / 2:g} {side:g} {side:g}">'
        f"<title>{title}</title><defs>{glyphs}</defs>"
        f'<rect x="{-side / 2:g}" y="{-side / 2:g}" width="{side:g}" height="{side:g}" fill="#ffffff"/>'
        f"{_guides(label.printer) if guides else ''}"
        f'<g fill="#000000">{drawn}</g></svg>\n'
    )


def _drawn(label: Arranged, names: dict[tuple[str, int], str], logo: bytes | None) -> Iterator[str]:
    for each in label.placed:
        if each.line is not None:
            yield _line(each, names)
        elif each.code is not None:
            yield f'<path shape-rendering="crispEdges" d="{"".join(_modules(each))}"/>'
        elif logo is not None:
            left, top, right, bottom = each.box
            yield (
                f'<image x="{left:.3f}" y="{top:.3f}" width="{right - left:.3f}" height="{bottom - top:.3f}" '
                f'href="data:image/png;base64,{base64.b64encode(logo).decode("ascii")}"/>'
            )


def _line(each: Placed, names: dict[tuple[str, int], str]) -> str:
    assert each.line is not None
    uses = []
    for glyph in each.line.glyphs:
        name = names.setdefault((glyph.font.key, glyph.glyph), f"g{len(names)}")
        uses.append(f'<use href="#{name}" x="{glyph.x:.4f}" y="{glyph.y:.4f}"/>')
    return f'<g transform="translate({each.x:.4f} {each.y:.4f}) scale({each.size:.4f})">{"".join(uses)}</g>'


def _named(label: Arranged, names: dict[tuple[str, int], str]) -> Iterator[tuple[Font, int, str]]:
    done = set()
    for each in label.placed:
        for glyph in each.line.glyphs if each.line is not None else ():
            key = (glyph.font.key, glyph.glyph)
            if key not in done:
                done.add(key)
                yield glyph.font, glyph.glyph, names[key]


def _path(font: Font, glyph: int) -> str:
    return "".join(
        letter
        + " ".join(
            f"{-value if index % 2 else value:.4f}".rstrip("0").rstrip(".") for index, value in enumerate(numbers)
        )
        for letter, numbers in font.outline(glyph)
    )


def modules(each: Placed) -> Iterator[tuple[float, float, float, float]]:
    """The dark boxes of a barcode: left, top, width, height in millimetres."""
    assert each.code is not None
    left, top, right, bottom = each.box
    across = (right - left) / each.code.width
    down = (bottom - top) / each.code.height
    for row, start, length in each.code.runs:
        yield left + start * across, top + row * down, length * across, down


def _modules(each: Placed) -> Iterator[str]:
    for x, y, width, height in modules(each):
        yield f"M{x:.4f} {y:.4f}h{width:.4f}v{height:.4f}h{-width:.4f}z"


def _guides(printer: Printer) -> str:
    radii = (printer.disc / 2, printer.outer / 2, printer.inner / 2, 7.5)
    return "".join(
        f'<circle r="{radius - 0.1:g}" fill="none" stroke="{_GUIDE}" stroke-width="0.2"/>' for radius in radii
    )
