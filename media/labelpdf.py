"""A laid-out label as a PDF of one page in the disc's size; the same label gives the same bytes."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

from media.labellayout import Arranged
from media.labellines import Placed
from media.labelsvg import modules

_POINTS = 72 / 25.4
"""Of a millimetre."""


def pdf(label: Arranged, *, logo: tuple[int, int, bytes, bytes] | None = None) -> bytes:
    """``logo``: width and height in pixels, RGB and alpha samples."""
    side = label.printer.disc
    # Millimetres from the centre, y downwards, as everywhere else.
    content = [f"{_POINTS:.6f} 0 0 {-_POINTS:.6f} {side / 2 * _POINTS:.4f} {side / 2 * _POINTS:.4f} cm 0 g"]
    for each in label.placed:
        if each.line is not None:
            content += _line(each)
        elif each.code is not None:
            content += [f"{x:.4f} {y:.4f} {width:.4f} {height:.4f} re" for x, y, width, height in modules(each)]
            content.append("f")
        elif logo is not None:
            left, top, right, bottom = each.box
            content.append(f"q {right - left:.4f} 0 0 {top - bottom:.4f} {left:.4f} {bottom:.4f} cm /Logo Do Q")
    points = f"{side * _POINTS:.4f}"
    resources = "<< /XObject << /Logo 5 0 R >> >>" if logo else "<< >>"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {points} {points}] /Contents 4 0 R "
        f"/Resources {resources} >>".encode(),
        _stream("", "\n".join(content).encode("ascii")),
    ]
    if logo is not None:
        width, height, rgb, alpha = logo
        picture = f"/Type /XObject /Subtype /Image /Width {width} /Height {height} /BitsPerComponent 8"
        objects += [
            _stream(f"{picture} /ColorSpace /DeviceRGB /SMask 6 0 R", rgb),
            _stream(f"{picture} /ColorSpace /DeviceGray", alpha),
        ]
    return _file(objects)


def _line(each: Placed) -> Iterator[str]:
    assert each.line is not None
    for glyph in each.line.glyphs:
        outline = glyph.font.outline(glyph.glyph)
        if not outline:
            continue
        x, y = each.x + glyph.x * each.size, each.y + glyph.y * each.size
        yield f"q {each.size:.4f} 0 0 {-each.size:.4f} {x:.4f} {y:.4f} cm"
        now: Sequence[float] = (0.0, 0.0)
        for letter, numbers in outline:
            points = _cubic(now, numbers) if letter == "Q" else numbers
            yield " ".join([*(f"{number:.4f}" for number in points), _OPERATORS[letter]])
            now = numbers[-2:] or now
        yield "f Q"


def _cubic(start: Sequence[float], quadratic: Sequence[float]) -> tuple[float, ...]:
    """PDF has cubic curves only."""
    (x0, y0), (x1, y1, x2, y2) = start, quadratic
    return (x0 + (x1 - x0) * 2 / 3, y0 + (y1 - y0) * 2 / 3, x2 + (x1 - x2) * 2 / 3, y2 + (y1 - y2) * 2 / 3, x2, y2)


_OPERATORS = {"M": "m", "L": "l", "Q": "c", "C": "c", "Z": "h"}


def _stream(entries: str, content: bytes) -> bytes:
    packed = zlib.compress(content, 6)
    return f"<< {entries} /Filter /FlateDecode /Length {len(packed)} >>\nstream\n".encode() + packed + b"\nendstream"


def _file(objects: list[bytes]) -> bytes:
    found = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    places = []
    for number, content in enumerate(objects, 1):
        places.append(len(found))
        found += f"{number} 0 obj\n".encode() + content + b"\nendobj\n"
    start = len(found)
    found += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    found += b"".join(f"{place:010d} 00000 n \n".encode() for place in places)
    found += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n".encode()
    return bytes(found)
