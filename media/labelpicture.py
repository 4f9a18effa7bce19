"""Pictures of labels: SVG to PNG at a printer's resolution, and the site's logo made harmless."""

from __future__ import annotations

import base64
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from media.labeltables import LabelError

RESOLUTIONS = (300, 600)
"""Dots per inch of PNG files for printers."""
_LOGO_BYTES = 4 << 20
_LOGO_PIXELS = 1200
"""Of a logo's longer side."""
_PNG = b"\x89PNG\r\n\x1a\n"
_LOGO_ELEMENTS = frozenset(
    ("svg", "g", "defs", "title", "desc", "metadata", "path", "rect", "circle", "ellipse", "line", "polyline",
     "polygon", "use", "symbol", "clipPath", "mask", "linearGradient", "radialGradient", "stop", "style", "switch")
)  # fmt: skip


def png(svg: str, *, side: float, dpi: int) -> bytes:
    """The label as a PNG in grey or colour, without transparency, that says its resolution. ``side`` in millimetres."""
    pixels = round(side / 25.4 * dpi)
    return _opaque(_rendered(svg, pixels, pixels, background="#ffffff"), dpi)


@dataclass(frozen=True, slots=True)
class Logo:
    """A logo as pixels: a PNG of our own making, and the same as samples."""

    width: int
    height: int
    png: bytes
    rgb: bytes
    alpha: bytes

    @property
    def ratio(self) -> float:
        return self.width / self.height


def logo(path: Path) -> Logo:
    """Read a PNG or SVG file. Raises LabelError, also for an SVG with scripts, text or anything from outside."""
    try:
        with path.open("rb") as file:
            content = file.read(_LOGO_BYTES + 1)
    except OSError as error:
        raise LabelError(f"label.logo: {path}: {error.strerror}") from error
    if len(content) > _LOGO_BYTES:
        raise LabelError(f"label.logo: {path} has more than {_LOGO_BYTES} bytes")
    if content.startswith(_PNG):
        width, height = _png_size(content, path)
        size = f'width="{width}" height="{height}"'
        data = base64.b64encode(content).decode("ascii")
        source = (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size}><image {size} href="data:image/png;base64,{data}"/></svg>'
        )
    else:
        source = _checked_svg(content, path)
        width, height = _svg_size(source, path)
    scale = _LOGO_PIXELS / max(width, height)
    wide, high = max(1, round(width * scale)), max(1, round(height * scale))
    try:
        made = _rendered(source, wide, high)
    except ValueError as error:
        raise LabelError(f"label.logo: {path} cannot be drawn: {error}") from error
    samples = _samples(made)
    if not samples[..., 3].any():
        raise LabelError(f"label.logo: {path} is wholly transparent, or cannot be drawn")
    return Logo(samples.shape[1], samples.shape[0], made, samples[..., :3].tobytes(), samples[..., 3].tobytes())


def _checked_svg(content: bytes, path: Path) -> str:
    """The SVG, if it is nothing but shapes."""
    try:
        text = content.decode("utf-8-sig")
        if re.search(r"<!(DOCTYPE|ENTITY)", text, re.IGNORECASE):
            raise LabelError(f"label.logo: {path} declares a DOCTYPE or entities; save it as plain SVG")
        root = ElementTree.fromstring(text)
    except (UnicodeDecodeError, ElementTree.ParseError) as error:
        raise LabelError(f"label.logo: {path} is neither PNG nor SVG: {error}") from error
    of_uses = {
        element.get("id") for element in root.iter() if any(_named(inner, "use") for inner in element.iter())
    } - {None}
    for element in root.iter():
        if _named(element, "use") and any(value.lstrip("#") in of_uses for value in element.attrib.values()):
            raise LabelError(f"label.logo: {path} has <use> of <use>, which may grow without end")
        name = str(element.tag).rpartition("}")[2]
        if name not in _LOGO_ELEMENTS:
            what = "turn text into paths" if name in ("text", "tspan") else "only shapes may be in a logo"
            raise LabelError(f"label.logo: {path} has the element <{name}>; {what}")
        for key, value in element.attrib.items():
            attribute = key.rpartition("}")[2].lower()
            outside = attribute == "href" and not value.startswith("#")
            if attribute.startswith("on") or outside or _reaches_out(value):
                raise LabelError(f"label.logo: {path} refers to something outside of it ({attribute} of <{name}>)")
        if name == "style" and _reaches_out(element.text or ""):
            raise LabelError(f"label.logo: {path} refers to something outside of it (in <style>)")
    return text


def _named(element: ElementTree.Element, name: str) -> bool:
    return str(element.tag).rpartition("}")[2] == name


def _reaches_out(value: str) -> bool:
    return "@import" in value.lower() or any(
        not target.lstrip("'\" ").startswith("#") for target in re.findall(r"url\(([^)]*)", value, re.IGNORECASE)
    )


def _svg_size(source: str, path: Path) -> tuple[float, float]:
    root = ElementTree.fromstring(source)
    box = [float(number) for number in re.findall(r"[-+.\deE]+", root.get("viewBox", "")) if _is_number(number)]
    sizes = [re.match(r"\s*([\d.]+)\s*(px|mm|cm|pt|in|pc)?\s*$", root.get(key, "")) for key in ("width", "height")]
    if len(box) == 4:
        width, height = box[2:]
    elif sizes[0] and sizes[1]:
        width, height = float(sizes[0][1]), float(sizes[1][1])
    else:
        raise LabelError(f"label.logo: {path} has neither a viewBox nor a width and height")
    if not (width > 0 and height > 0 and 0.02 < width / height < 50):
        raise LabelError(f"label.logo: {path} has an impossible size")
    return width, height


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _png_size(content: bytes, path: Path) -> tuple[float, float]:
    if len(content) < 33 or content[12:16] != b"IHDR":
        raise LabelError(f"label.logo: {path} is a broken PNG")
    width, height = struct.unpack(">II", content[16:24])
    if not (0 < width <= 4000 and 0 < height <= 4000 and 0.02 < width / height < 50):
        raise LabelError(f"label.logo: {path} is {width} x {height} pixels; at most 4000 on a side are used")
    return width, height


def _rendered(source: str, width: int, height: int, *, background: str | None = None) -> bytes:
    import resvg_py

    return bytes(
        resvg_py.svg_to_bytes(
            svg_string=source, width=width, height=height, dpi=96, background=background, skip_system_fonts=True
        )
    )


def _samples(content: bytes) -> Any:
    import imagecodecs

    return imagecodecs.png_decode(content)


def _opaque(content: bytes, dpi: int) -> bytes:
    """Without the alpha channel, in grey where there is no colour, and with the resolution: what printers take."""
    import numpy

    samples = _samples(content)
    red, green, blue = samples[..., 0], samples[..., 1], samples[..., 2]
    grey = bool(numpy.array_equal(red, green) and numpy.array_equal(green, blue))
    pixels = red if grey else samples[..., :3]
    high, wide = pixels.shape[:2]
    channels = 1 if grey else 3
    rows = numpy.zeros((high, 1 + wide * channels), dtype=numpy.uint8)
    rows[:, 1:] = pixels.reshape(high, -1)
    header = struct.pack(">IIBBBBB", wide, high, 8, 0 if grey else 2, 0, 0, 0)
    per_metre = round(dpi / 0.0254)
    return b"".join(
        (
            _PNG,
            _chunk(b"IHDR", header),
            _chunk(b"pHYs", struct.pack(">IIB", per_metre, per_metre, 1)),
            _chunk(b"IDAT", zlib.compress(rows.tobytes(), 6)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
