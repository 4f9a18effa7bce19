"""A label as PTBurn prints it: it takes ``.jpg``, ``.bmp``, ``.prn`` and SureThing's ``.std``, but neither PNG nor PDF.

BMP keeps every pixel, so that bar codes stay sharp.
"""

from __future__ import annotations

from pathlib import Path

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PER_METRE = 1
_DISC_METRES = 0.12
_MAX_PIXELS = 60_000_000
"""A disc of 120 mm at 1200 dpi has 32 million."""


def to_bmp(png: bytes) -> bytes:
    """The picture as BMP of 24 bits, as large in print, what is transparent becoming white.

    Raises ValueError for what is no such PNG.
    """
    import imagecodecs
    import numpy

    width, height = int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")
    if not png.startswith(_SIGNATURE) or not 0 < width * height <= _MAX_PIXELS:
        raise ValueError("the label is no PNG of a sensible size")
    try:
        pixels = imagecodecs.png_decode(png)
    except Exception as error:  # the codec's own classes
        raise ValueError(f"the label cannot be read: {error}") from error
    if pixels.dtype != numpy.uint8:
        pixels = (pixels >> 8).astype(numpy.uint8)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    channels = pixels.shape[2]
    if channels in (2, 4):
        alpha = pixels[:, :, -1:].astype(numpy.uint16)
        blended = pixels[:, :, :-1] * alpha + 255 * (255 - alpha)
        pixels = (blended // 255).astype(numpy.uint8)
    if pixels.shape[2] == 1:
        pixels = numpy.repeat(pixels, 3, axis=2)
    return bytes(imagecodecs.bmp_encode(numpy.ascontiguousarray(pixels), ppm=_per_metre(png, width)))


def convert(png: Path, bmp: Path) -> None:
    """Write ``bmp`` from ``png`` and remove that. Raises ValueError, OSError."""
    bmp.write_bytes(to_bmp(png.read_bytes()))
    png.unlink()


def _per_metre(png: bytes, width: int) -> int:
    """Pixels in a metre, as the chunk pHYs before the picture says; where there is none, those of a whole disc."""
    place = len(_SIGNATURE)
    while place + 8 <= len(png):
        length, kind = int.from_bytes(png[place : place + 4], "big"), png[place + 4 : place + 8]
        data = png[place + 8 : place + 8 + length]
        if kind == b"pHYs" and length == 9 and data[8] == _PER_METRE:
            return int.from_bytes(data[:4], "big")
        if kind == b"IDAT":
            break
        place += 12 + length
    return round(width / _DISC_METRES)
