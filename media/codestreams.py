"""What the head of a compressed frame says of itself: JPEG, JPEG-LS (ITU-T T.81, T.87) and JPEG 2000 (T.800)."""

from __future__ import annotations

import struct
from dataclasses import dataclass


class FrameError(Exception):
    """A frame cannot be decoded; the text says why, and the caller adds which frame of which instance."""


@dataclass(frozen=True, slots=True)
class Codestream:
    """What the head of a compressed frame says of itself; 0 is unsaid."""

    rows: int = 0
    columns: int = 0
    components: int = 0
    precision: int = 0
    signed: bool = False
    rgb: bool = False
    """The component identifiers are R, G, B."""
    jfif: bool = False
    """A JFIF marker: three components are YCbCr."""
    sequential: bool = False
    """Sequential DCT (SOF0, SOF1): every scan has all 64 coefficients."""


def inspect(codec: str, frame: bytes) -> Codestream:
    """Read a compressed frame's own head. FrameError where it is none of its codec's."""
    if codec in ("jpeg", "jpeg-ls"):
        return _inspect_jpeg(frame)
    if codec == "jpeg2000":
        return _inspect_jpeg2000(frame)
    return Codestream()


def _inspect_jpeg(frame: bytes) -> Codestream:
    at = frame.find(b"\xff\xd8", 0, 64)
    if at < 0:
        raise FrameError("it does not begin like a JPEG codestream")
    at += 2
    jfif = False
    while at + 4 <= len(frame):
        if frame[at] != 0xFF:
            raise FrameError("its JPEG codestream is damaged: a marker is missing")
        marker = frame[at + 1]
        if marker in (0xFF, 0x01) or 0xD0 <= marker <= 0xD8:
            at += 1 if marker == 0xFF else 2
            continue
        length = struct.unpack_from(">H", frame, at + 2)[0]
        body = frame[at + 4 : at + 2 + length]
        if marker == 0xE0 and body.startswith(b"JFIF"):
            jfif = True
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            if len(body) < 6 or len(body) < 6 + 3 * body[5]:
                raise FrameError("its JPEG frame header is cut off")
            precision, rows, columns, components = struct.unpack_from(">BHHB", body)
            identifiers = bytes(body[6 + 3 * component] for component in range(components))
            return Codestream(
                rows=rows,
                columns=columns,
                components=components,
                precision=precision,
                rgb=identifiers in (b"RGB", b"rgb"),
                jfif=jfif,
                sequential=marker in (0xC0, 0xC1),
            )
        if marker in (0xD9, 0xDA):
            break
        at += 2 + length
    raise FrameError("its JPEG codestream has no frame header")


def _inspect_jpeg2000(frame: bytes) -> Codestream:
    at = frame.find(b"\xff\x4f\xff\x51", 0, 4096)
    if at < 0 or len(frame) < at + 45:
        raise FrameError("it does not begin like a JPEG 2000 codestream")
    _, _, x1, y1, x0, y0 = struct.unpack_from(">HHIIII", frame, at + 4)
    components = struct.unpack_from(">H", frame, at + 40)[0]
    depths = frame[at + 42 : at + 42 + 3 * components : 3]
    if not depths:
        raise FrameError("its JPEG 2000 codestream has no components")
    precision = max((depth & 0x7F) + 1 for depth in depths)
    return Codestream(y1 - y0, x1 - x0, components, precision, bool(depths[0] & 0x80))
