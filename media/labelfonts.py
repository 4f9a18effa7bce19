"""Fonts of labels: which one draws a character, shaping of a line, outlines of its glyphs.

Fonts named in the settings come first, then ours (``config/labels/fonts``), then those of the system. Every length
that comes from here is in em: to be multiplied by the font size.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from media import labelbidi
from media.problems import MediaError

if TYPE_CHECKING:
    import uharfbuzz

OURS = (
    ("NotoSans-Regular.ttf", "NotoSans-Bold.ttf"),
    ("NotoSansArabic-Regular.ttf", "NotoSansArabic-Bold.ttf"),
    ("NotoSansHebrew-Regular.ttf", "NotoSansHebrew-Bold.ttf"),
    ("NotoSansThai-Regular.ttf", "NotoSansThai-Bold.ttf"),
    ("NotoSansDevanagari-Regular.ttf",) * 2,
    ("NotoSansArmenian-Regular.ttf",) * 2,
    ("NotoSansGeorgian-Regular.ttf",) * 2,
    ("NotoSansCJKkr-Regular-subset.otf",) * 2,
    ("NotoSansCJKjp-Regular-subset.otf",) * 2,
    ("DroidSansFallbackFull.ttf",) * 2,
)
"""Regular and bold of each; where there is no bold one, the regular."""
ASCENT, DESCENT = 0.80, 0.22
"""Least room of a line above and below its base line, in em; marks that reach further get more."""
_INVISIBLE = frozenset("\u200c\u200d\u2068\u2069")
_FONT_SUFFIXES = frozenset((".ttf", ".otf", ".ttc", ".otc"))
_SYSTEM_FONTS = 5000


class FontError(MediaError):
    """A font that the settings name cannot be used."""


class Font:
    """One font of a file, opened when it is first asked for."""

    def __init__(self, path: Path, index: int = 0) -> None:
        self.path, self.index = path, index

    @property
    def key(self) -> str:
        return f"{self.path.name}#{self.index}"

    @cached_property
    def _face(self) -> uharfbuzz.Face:
        import uharfbuzz

        return uharfbuzz.Face(uharfbuzz.Blob.from_file_path(str(self.path)), self.index)

    @cached_property
    def hb(self) -> uharfbuzz.Font:
        import uharfbuzz

        return uharfbuzz.Font(self._face)

    @cached_property
    def upem(self) -> int:
        return self._face.upem or 1000

    @cached_property
    def _characters(self) -> Any:
        # Bitmap and colour fonts have no outlines to draw.
        tables = set(self._face.table_tags)
        return self._face.unicodes if tables & {"glyf", "CFF ", "CFF2"} else frozenset()

    def has(self, character: str) -> bool:
        return bool(ord(character) in self._characters)

    @property
    def usable(self) -> bool:
        return len(self._characters) > 0

    def outline(self, glyph: int) -> tuple[tuple[str, tuple[float, ...]], ...]:
        """``("M"|"L"|"Q"|"C"|"Z", coordinates)`` in em, y upwards."""
        return _outline(self, glyph)


@lru_cache(maxsize=4096)
def _outline(font: Font, glyph: int) -> tuple[tuple[str, tuple[float, ...]], ...]:
    found: list[tuple[str, tuple[float, ...]]] = []
    font.hb.draw_glyph(glyph, _draw_functions(), (found, 1 / font.upem))
    return tuple(found)


@lru_cache(maxsize=1)
def _draw_functions() -> Any:
    import uharfbuzz

    def entered(letter: str) -> Any:
        def enter(*arguments: Any) -> None:
            *coordinates, (found, scale) = arguments
            found.append((letter, tuple(round(value * scale, 5) for value in coordinates)))

        return enter

    functions = uharfbuzz.DrawFuncs()
    functions.set_move_to_func(entered("M"))
    functions.set_line_to_func(entered("L"))
    functions.set_quadratic_to_func(entered("Q"))
    functions.set_cubic_to_func(entered("C"))
    functions.set_close_path_func(entered("Z"))
    return functions


@dataclass(frozen=True, slots=True)
class Glyph:
    """Where a glyph stands in a line, from its left end on the base line; y downwards."""

    font: Font
    glyph: int
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Line:
    """A shaped line."""

    text: str
    width: float
    """Of its advances and of its ink, whichever is wider."""
    ascent: float
    """Room above the base line that covers all ink, at least ``ASCENT``."""
    descent: float
    glyphs: tuple[Glyph, ...] = field(repr=False)
    ink: tuple[float, float, float, float]
    """Left, top, right, bottom from the base line's left end; y downwards."""


class Fonts:
    """All fonts, in the order in which they are asked."""

    def __init__(self, named: Iterable[Path] = ()) -> None:
        """Raises FontError for a named font that is not there or is none."""
        ours = Path(str(resources.files("config").joinpath("labels", "fonts")))
        first = [_opened(path) for path in named]
        self._chains = tuple(first + [Font(ours / pair[bold]) for pair in OURS] for bold in (0, 1))
        self._shaped: dict[tuple[str, bool, int | None], Line] = {}
        self._advances: dict[tuple[str, bool], float] = {}
        self._rough: dict[tuple[str, bool], float] = {}

    def of(self, character: str, *, bold: bool) -> Font | None:
        """The first font that has the character."""
        for font in self._chains[bold] + (self._chains[False] if bold else []):
            if font.has(character):
                return font
        return _of_system(character)

    def drawable(self, text: str) -> tuple[str, list[str]]:
        """The text with a named gap for what no font has (``[Ethiopic?]``), and the scripts of the gaps."""
        scripts: list[str] = []
        found: list[str] = []
        gap = ""
        for character in text:
            if _invisible(character) or character == " " or self.of(character, bold=False) is not None:
                gap = ""
                found.append(character)
                continue
            script = _script(character)
            if script != gap:
                found.append(f"[{script}?]")
                scripts.append(script)
            gap = script
        return "".join(found), scripts

    def shape(self, text: str, *, bold: bool = False, base: int | None = None) -> Line:
        """Lay out one line; every character must be drawable. ``base``: see ``labelbidi.visual_runs``."""
        key = (text, bold, base)
        line = self._shaped.get(key)
        if line is None:
            if len(self._shaped) > 50_000:
                self._shaped.clear()
            line = self._shaped[key] = self._shape(text, bold, base)
        return line

    def rough_width(self, text: str, *, bold: bool) -> float:
        """Sum of the advances of unshaped letters, in em."""
        known = self._rough.get((text, bold))
        if known is None:
            if len(self._rough) > 50_000:
                self._rough.clear()
            known = self._rough[text, bold] = sum(map(self._advance, text, [bold] * len(text)))
        return known

    def _advance(self, character: str, bold: bool) -> float:
        known = self._advances.get((character, bold))
        if known is None:
            font = None if _invisible(character) else self.of(character, bold=bold)
            glyph = font.hb.get_nominal_glyph(ord(character)) if font is not None else None
            known = font.hb.get_glyph_h_advance(glyph) / font.upem if font is not None and glyph else 0.0
            self._advances[character, bold] = known
        return known

    def _shape(self, text: str, bold: bool, base: int | None) -> Line:
        import uharfbuzz

        x = 0.0
        left, top, right, bottom = 0.0, 0.0, 0.0, 0.0
        glyphs: list[Glyph] = []
        for run, level in labelbidi.visual_runs(text, base):
            pieces = list(self._itemised(run, bold))
            for font, piece in reversed(pieces) if level % 2 else pieces:
                buffer = uharfbuzz.Buffer()
                buffer.add_str(piece)
                buffer.guess_segment_properties()
                buffer.direction = "rtl" if level % 2 else "ltr"
                uharfbuzz.shape(font.hb, buffer, {})
                scale = 1 / font.upem
                for info, place in zip(buffer.glyph_infos, buffer.glyph_positions, strict=True):
                    at_x, at_y = x + place.x_offset * scale, -place.y_offset * scale
                    extents = font.hb.get_glyph_extents(info.codepoint)
                    if extents is not None and extents.width:
                        glyphs.append(Glyph(font, info.codepoint, at_x, at_y))
                        left = min(left, at_x + extents.x_bearing * scale)
                        right = max(right, at_x + (extents.x_bearing + extents.width) * scale)
                        top = min(top, at_y - extents.y_bearing * scale)
                        bottom = max(bottom, at_y - (extents.y_bearing + extents.height) * scale)
                    x += place.x_advance * scale
        # Ink that reaches beyond either end belongs to the line's width.
        glyphs = [Glyph(glyph.font, glyph.glyph, glyph.x - left, glyph.y) for glyph in glyphs]
        return Line(
            text,
            max(x, right) - left,
            max(ASCENT, -top),
            max(DESCENT, bottom),
            tuple(glyphs),
            (0.0, top, right - left, bottom),
        )

    def _itemised(self, run: str, bold: bool) -> Iterator[tuple[Font, str]]:
        """Pieces of one font and script; marks, joiners and blanks stay with what stands before them."""
        font: Font | None = None
        script = ""
        piece = ""
        ideographs = self._of_all([character for character in run if _is_ideograph(character)], bold)
        for character in run:
            common = not character.isalpha()
            follows = _invisible(character) or unicodedata.category(character)[0] == "M"
            if font is not None and piece and (follows or (common and font.has(character))):
                piece += character
                continue
            its_font = ideographs if _is_ideograph(character) else None
            its_font = its_font or self.of(character, bold=bold) or self._chains[bold][0]
            its_script = script if common else _script(character)
            if piece and (its_font is not font or (script and its_script != script)):
                assert font is not None
                yield font, piece
                piece = ""
            font, script = its_font, its_script
            piece += character
        if piece and font is not None:
            yield font, piece

    def _of_all(self, characters: Sequence[str], bold: bool) -> Font | None:
        """The first font that has all of them: a name in the shapes of two countries would be ugly."""
        if not characters:
            return None
        return next((font for font in self._chains[bold] if all(map(font.has, characters))), None)


def _invisible(character: str) -> bool:
    """Joiners, the marks of isolates, variation selectors: fonts need not have them."""
    return character in _INVISIBLE or "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef"


def _is_ideograph(character: str) -> bool:
    return character >= "\u2e80" and _script(character) == "CJK"


def _script(character: str) -> str:
    """A name of the character's script, for people: the first word of its name."""
    word = unicodedata.name(character, "").partition(" ")[0].partition("-")[0]
    return word if word == "CJK" else word.capitalize() or f"U+{ord(character):04X}"


def _opened(path: Path) -> Font:
    """``collection.ttc#2`` means the third font of a collection."""
    name, _, number = path.name.rpartition("#")
    font = Font(path.with_name(name), int(number)) if name and number.isdecimal() else Font(path)
    try:
        usable = font.usable
    except Exception as error:
        raise FontError(f"label.fonts: {path} cannot be used as a font: {error}") from error
    if not usable:
        raise FontError(f"label.fonts: {path} is no font with outlines")
    return font


@lru_cache(maxsize=4096)
def _of_system(character: str) -> Font | None:
    for font in _system_fonts():
        try:
            if font.has(character):
                return font
        except Exception:  # noqa: BLE001 - a broken font of the system must not stop a label
            continue
    return None


@lru_cache(maxsize=1)
def _system_fonts() -> Sequence[Font]:
    """Sans-serif regular ones first, then in the order of their names, so that the choice is always the same."""
    found = sorted(
        {path for folder in font_folders() for path in _files(folder) if path.suffix.lower() in _FONT_SUFFIXES},
        key=lambda path: (
            not re.search(r"sans.*regular", path.name, re.IGNORECASE),
            "mono" in path.name.lower(),
            path.name,
            str(path),
        ),
    )
    return [Font(path) for path in found[:_SYSTEM_FONTS]]


def _files(folder: Path) -> Iterator[Path]:
    for where, folders, names in os.walk(folder):
        folders.sort()
        for name in names:
            yield Path(where) / name


def font_folders() -> list[Path]:
    """Where fontconfig looks for fonts."""
    found = [Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), Path.home() / ".local/share/fonts"]
    try:
        text = Path(os.environ.get("FONTCONFIG_FILE") or "/etc/fonts/fonts.conf").read_text(errors="replace")
    except OSError:
        return found
    for folder in re.findall(r"<dir[^>]*>([^<]+)</dir>", text):
        path = Path(folder.strip()).expanduser()
        if path.is_absolute() and path not in found:
            found.append(path)
    return found
