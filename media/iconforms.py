"""Icons as values: names of the ways in which they are made, and whether one is as a profile wants it (PS3.3 F.7)."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping

ICON_IMAGE_SEQUENCE = 0x00880200
_RECIPE = re.compile(r"icon-(\d{2,3})(c?)/1")


def recipe_of(size: int, *, colour: bool) -> str:
    """Name of the way in which an icon is made: ``icon-128/1``, or ``icon-64c/1`` where colour may stay colour."""
    return f"icon-{size}{'c' if colour else ''}/1"


def is_recipe(recipe: str) -> bool:
    """Whether a recipe makes an icon rather than a file."""
    return _RECIPE.fullmatch(recipe) is not None


def parsed(recipe: str) -> tuple[int, bool] | None:
    """Size, and whether colour stays; None for what is no recipe of an icon."""
    match = _RECIPE.fullmatch(recipe)
    return (int(match[1]), bool(match[2])) if match else None


def wrong_form(
    item: Mapping[int, bytes], *, size: int, photometric: tuple[str, ...], bits_stored: int | None
) -> str | None:
    """What is wrong with the item of an Icon Image Sequence, given its values by tag; None if nothing is."""

    def number(tag: int) -> int | None:
        value = item.get(tag, b"")
        return int(struct.unpack("<H", value)[0]) if len(value) == 2 else None

    rows, columns, allocated = number(0x00280010), number(0x00280011), number(0x00280100)
    found = item.get(0x00280004, b"").decode("latin-1").strip(" \0")
    if (rows, columns) != (size, size):
        return f"has {_said(rows)} rows and {_said(columns)} columns instead of {size} each"
    if allocated != 8 or number(0x00280002) not in (None, 1):
        return f"has {_said(allocated)} Bits Allocated and {_said(number(0x00280002))} samples a pixel, not 8 and 1"
    if bits_stored is not None and number(0x00280101) != bits_stored:
        return f"has {_said(number(0x00280101))} Bits Stored instead of {bits_stored}"
    if found not in photometric:
        return f"has the Photometric Interpretation {found[:16]!r} instead of {' or '.join(photometric)}"
    if found == "PALETTE COLOR" and not all(item.get(tag) for tag in (0x00281201, 0x00281202, 0x00281203)):
        return "has no palette"
    if len(item.get(0x7FE00010, b"")) != size * size:
        return f"has {len(item.get(0x7FE00010, b''))} bytes of pixel data instead of {size * size}"
    return None


def _said(number: int | None) -> str:
    return "no" if number is None else str(number)
