"""Barcodes of labels: Barcode Value and Symbology of a media creation request (PS3.3 C.22.1) as rows of modules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from media.problems import MediaError

LINEAR = frozenset(("CODE128", "CODE39", "CODE93", "CODABAR", "ITF", "EAN13", "EAN8", "UPCA", "UPCE"))
MATRIX = frozenset(("QR", "DATAMATRIX", "AZTEC", "PDF417"))
SYMBOLOGIES = tuple(sorted(LINEAR | MATRIX))
_NAMES = {
    "CODE128": "Code128", "CODE39": "Code39", "CODE93": "Code93", "CODABAR": "Codabar", "ITF": "ITF",
    "EAN13": "EAN13", "EAN8": "EAN8", "UPCA": "UPCA", "UPCE": "UPCE",
    "QR": "QRCode", "DATAMATRIX": "DataMatrix", "AZTEC": "Aztec", "PDF417": "PDF417",
}  # fmt: skip
_ALIASES = {
    "QRCODE": "QR", "INTERLEAVED2OF5": "ITF", "INTER25": "ITF", "I2OF5": "ITF", "128": "CODE128", "39": "CODE39",
    "3OF9": "CODE39", "NW7": "CODABAR", "EAN": "EAN13", "UPC": "UPCA", "PDF": "PDF417", "AZTECCODE": "AZTEC",
}  # fmt: skip
DEFAULT = "CODE128"


class CodeError(MediaError):
    """A value cannot be written in a symbology, or the symbology is not known."""


def symbology_of(name: str) -> str:
    """One of ``SYMBOLOGIES`` for what a request says (``Code 128``, ``QR_CODE``); ``""`` for an unknown one.

    Barcode Symbology has no defined terms, so spelling is taken as it comes; without any, it is ``DEFAULT``.
    """
    folded = "".join(character for character in name.upper() if character.isascii() and character.isalnum())
    if not folded:
        return DEFAULT
    folded = _ALIASES.get(folded, folded)
    return folded if folded in _NAMES else ""


@dataclass(frozen=True, slots=True)
class Code:
    """A barcode: dark runs in modules from its top left; quiet zones are part of width and height."""

    symbology: str
    width: int
    height: int
    """Modules; of a linear code 1, for its bars are as high as one likes."""
    runs: tuple[tuple[int, int, int], ...]
    """Row, first column, columns."""

    @property
    def linear(self) -> bool:
        return self.symbology in LINEAR


def encode(value: str, symbology: str) -> Code:
    """Raises CodeError, naming value and symbology."""
    kind = symbology_of(symbology)
    if not kind:
        raise CodeError(f"barcode symbology {symbology!r} is not known; known are {', '.join(SYMBOLOGIES)}")
    import zxingcpp

    try:
        options = {"ec_level": "M"} if kind == "QR" else {}
        made = zxingcpp.create_barcode(value, getattr(zxingcpp.BarcodeFormat, _NAMES[kind]), **options)
        image: Any = memoryview(made.to_image(scale=1, add_quiet_zones=False))  # type: ignore[arg-type]
    except (ValueError, RuntimeError, TypeError) as error:
        shown = value if len(value) <= 40 else f"{value[:40]}..."
        why = str(error).partition(" (retval")[0]
        raise CodeError(f"{shown!r} cannot be written as {kind}: {why}") from error
    height, width = image.shape[:2]
    pixels = bytes(image)
    rows = [pixels[row * width : (row + 1) * width] for row in range(height)]
    quiet = 10 if kind in LINEAR else 4
    if kind in LINEAR:
        rows = rows[:1]
    runs = tuple(
        (row + (0 if kind in LINEAR else quiet), start + quiet, length)
        for row, line in enumerate(rows)
        for start, length in _dark(line)
    )
    down = 0 if kind in LINEAR else 2 * quiet
    return Code(kind, width + 2 * quiet, len(rows) + down, runs)


def _dark(line: bytes) -> list[tuple[int, int]]:
    found = []
    start = -1
    for index, pixel in enumerate((*line, 255)):
        if pixel < 128 and start < 0:
            start = index
        elif pixel >= 128 and start >= 0:
            found.append((start, index - start))
            start = -1
    return found
