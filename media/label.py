"""The label of a disc: drawn from facts, for a printer, as PNG, PDF or SVG. The same facts give the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from media.labelfacts import LabelFacts
from media.labelfonts import Fonts
from media.labellayout import Arranged, arrange
from media.labelpdf import pdf
from media.labelpicture import RESOLUTIONS, Logo, logo, png
from media.labelsvg import svg
from media.labeltables import LabelError, layout, printer

FORMATS = ("png", "pdf", "svg")


@dataclass(frozen=True, slots=True)
class LabelStyle:
    """How the site's labels look."""

    printer: str = "generic"
    layout: str = ""
    """Name of a layout, or path of a TOML file; ``""``: the printer's own."""
    logo: Path | None = None
    fonts: tuple[Path, ...] = ()
    outer_mm: float = 0.0
    inner_mm: float = 0.0
    """Of the printable ring, instead of the printer's; 0: the printer's own."""


@dataclass(frozen=True, slots=True)
class Label:
    """A label, laid out; made by ``label_of``."""

    arranged: Arranged
    notices: tuple[str, ...]
    """What a person should know: what was cut, summarised or cannot be drawn."""
    _logo: Logo | None = field(default=None, repr=False)

    @property
    def lines(self) -> list[str]:
        """All text that stands on it."""
        return self.arranged.lines

    def drawn(self, kind: str, *, dpi: int = RESOLUTIONS[0], guides: bool = False) -> bytes:
        """The picture as ``png``, ``pdf`` or ``svg``. Raises LabelError for another kind or resolution."""
        if kind not in FORMATS:
            raise LabelError(f"a label cannot be drawn as {kind!r}; it may be {', '.join(FORMATS)}")
        if kind == "pdf":
            picture = self._logo
            return pdf(
                self.arranged, logo=(picture.width, picture.height, picture.rgb, picture.alpha) if picture else None
            )
        text = svg(self.arranged, logo=self._logo.png if self._logo else None, guides=guides)
        if kind == "svg":
            return text.encode("utf-8")
        if not 72 <= dpi <= 1200:
            raise LabelError(f"{dpi} dpi: a label is drawn with 72 to 1200 dots per inch, for printers 300 or 600")
        return png(text, side=self.arranged.printer.disc, dpi=dpi)


def label_of(facts: LabelFacts, style: LabelStyle, *, printer_name: str = "") -> Label:
    """Lay out a label; ``printer_name`` is another printer than the style's.

    Raises LabelError for a fault of the settings, FontError for a font that they name.
    """
    if printer_name and printer_name != style.printer:
        chosen = printer(printer_name)
    else:
        chosen = printer(style.printer, outer=style.outer_mm, inner=style.inner_mm)
    picture = _logo(style.logo, _stamp(style.logo)) if style.logo else None
    arranged = arrange(
        facts,
        layout(style.layout or chosen.layout),
        chosen,
        _fonts(style.fonts),
        logo_ratio=picture.ratio if picture else None,
    )
    return Label(arranged, arranged.notices, picture)


@lru_cache(maxsize=4)
def _fonts(named: Sequence[Path]) -> Fonts:
    return Fonts(named)


@lru_cache(maxsize=4)
def _logo(path: Path, stamp: tuple[int, int]) -> Logo:
    return logo(path)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size
