"""Printers and layouts of labels: ``config/labels.toml``, and a site's own layout in a file of the same form."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from media.labelring import ZONES, Ring
from media.problems import MediaError

KINDS = ("text", "patients", "studies", "code", "logo")
_ALIGNS = ("center", "left", "right")
LEAST_OUTER, MOST_INNER = 60.0, 60.0
"""Millimetres; a ring that is narrower than those leaves no room for what must stand on a label."""


class LabelError(MediaError):
    """A label cannot be drawn as it is asked for: unknown printer or layout, a layout's fault, a bad logo."""


@dataclass(frozen=True, slots=True)
class Printer:
    """A printer with a kind of disc; diameters in millimetres."""

    name: str
    description: str
    disc: float
    outer: float
    inner: float
    layout: str

    def ring(self, margin: float) -> Ring:
        return Ring(self.outer / 2 - margin, self.inner / 2 + margin)


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a layout; see ``config/labels.toml``."""

    zone: str
    kind: str = "text"
    text: str = ""
    when: str = ""
    size: float = 3.0
    least: float = 1.8
    bold: bool = False
    align: str = "center"
    lines: int = 2
    keep: bool = False
    gap: float = 0.2
    height: float = 10.0
    least_height: float = 5.0
    symbology: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    name: str
    margin: float
    rows: tuple[Row, ...]


def printers() -> Mapping[str, Printer]:
    """All that we know, by name."""
    return {name: Printer(name, **values) for name, values in _table()["printers"].items()}


def printer(name: str, *, outer: float = 0.0, inner: float = 0.0) -> Printer:
    """A printer by name, its ring changed where diameters are given. Raises LabelError."""
    found = printers().get(name)
    if found is None:
        raise LabelError(f"there is no label printer {name!r}; there are {', '.join(printers())}")
    found = replace(found, outer=outer or found.outer, inner=inner or found.inner)
    if not (found.inner <= MOST_INNER and LEAST_OUTER <= found.outer <= found.disc and found.outer - found.inner >= 40):
        raise LabelError(
            f"label printer {name}: a ring from {found.inner:g} to {found.outer:g} mm cannot be; its outer diameter is "
            f"{LEAST_OUTER:g} to {found.disc:g} mm, its inner one at least 40 mm less and at most {MOST_INNER:g} mm"
        )
    return found


def layouts() -> tuple[str, ...]:
    return tuple(_table()["layouts"])


def layout(name: str) -> Layout:
    """One of ours by name, or that of a TOML file with ``margin`` and ``rows``. Raises LabelError, naming the fault."""
    known = _table()["layouts"]
    if name in known:
        return _layout(name, known[name])
    path = Path(name)
    if path.suffix != ".toml":
        raise LabelError(
            f"there is no label layout {name!r}; there are {', '.join(known)}, or the path of a .toml file"
        )
    try:
        return _layout(name, tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise LabelError(f"label layout {name}: {error}") from error


def _layout(name: str, values: Mapping[str, Any]) -> Layout:
    rows = values.get("rows")
    margin = values.get("margin", 1.0)
    if not isinstance(rows, list) or not rows or not _number(margin) or not 0 <= margin <= 10:
        raise LabelError(f"label layout {name}: wants `margin` (0 to 10 mm) and at least one [[rows]]")
    return Layout(name, float(margin), tuple(_row(name, index, row) for index, row in enumerate(rows, 1)))


def _row(name: str, index: int, values: Any) -> Row:
    where = f"label layout {name}, row {index}"
    if not isinstance(values, dict):
        raise LabelError(f"{where}: is no table")
    unknown = set(values) - {field.name for field in fields(Row)}
    if unknown:
        raise LabelError(f"{where}: unknown key {', '.join(sorted(unknown))}")
    for field in fields(Row):
        if field.name in values and not _fits(values[field.name], str(field.type)):
            raise LabelError(f"{where}: {field.name} is {values[field.name]!r}; it must be a {field.type}")
    if "zone" not in values:
        raise LabelError(f"{where}: has no zone")
    row = Row(**values)
    for key, value, allowed in (("zone", row.zone, ZONES), ("kind", row.kind, KINDS), ("align", row.align, _ALIGNS)):
        if value not in allowed:
            raise LabelError(f"{where}: {key} is {value!r}; it may be {', '.join(allowed)}")
    if not (0.8 <= row.least <= row.size <= 20 and 1 <= row.lines <= 40 and 0 <= row.gap <= 20):
        raise LabelError(f"{where}: wants 0.8 <= least <= size <= 20, lines 1 to 40, gap 0 to 20")
    if not 2 <= row.least_height <= row.height <= 40:
        raise LabelError(f"{where}: wants 2 <= least_height <= height <= 40")
    return row


def _fits(value: Any, kind: str) -> bool:
    if kind == "float":
        return _number(value)
    if kind == "int":
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, bool if kind == "bool" else str)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(resources.files("config").joinpath("labels.toml").read_text(encoding="utf-8"))
