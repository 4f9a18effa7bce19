"""Icon images of directory records (PS3.3 F.7, C.7.6.1.1.6; PS3.11 A.3.3.2, B.3.3.2, E.3.3.3).

An icon is kept as the encoded content of its item in Icon Image Sequence (0088,0200). The same image gives the same
bytes.
"""

from __future__ import annotations

import functools
import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from media.encoding import encode, encode_item
from media.iconforms import ICON_IMAGE_SEQUENCE, parsed
from media.items import Change, Icon
from media.part10 import EXPLICIT_LE
from media.picture import grey, thumbnail
from media.problems import InstanceRefused, MediaError, NotDicom

if TYPE_CHECKING:
    from media.picture import Array

_SEQUENCE_HEAD, _ITEM_HEAD = 12, 8
_GREYS = 40
_LEVELS = 6
"""The palette of colour icons: 40 greys and 6 levels each of red, green and blue."""
_NEARLY_GREY = 24
"""A pixel whose components differ by no more is shown as grey."""


def make_icon(source: Path, recipe: str) -> bytes:
    """The content of the icon's item, of the image in a PS3.10 file.

    The picture keeps its proportions and has black beside it. InstanceRefused, without saying of which instance, where
    there is no image or it cannot be decoded. Decoders may crash on hostile data: call it in a helper process.
    """
    form = parsed(recipe)
    if form is None:
        raise MediaError(f"There is no recipe {recipe!r}")
    size, colour = form
    try:
        picture = thumbnail(source, size)
    except NotDicom as error:
        raise InstanceRefused("PROC_FAILURE", str(error)) from error
    return icon_item(picture, size, colour=colour)


@dataclass(frozen=True, slots=True)
class Written:
    """The facts of an icon's file, as ``conform`` tells those of an instance's."""

    size: int
    sha256: str
    transfer_syntax_uid: str = EXPLICIT_LE
    changes: tuple[Change, ...] = ()


def write_icon(source: Path, target: Path, recipe: str) -> Written:
    """``make_icon`` into a file; MediaError where that cannot be written."""
    content = make_icon(source, recipe)
    try:
        target.write_bytes(content)
    except OSError as error:
        raise MediaError(f"{target} cannot be written: {error.strerror or error}") from error
    return Written(len(content), hashlib.sha256(content).hexdigest())


def icon_item(picture: Array, size: int, *, colour: bool) -> bytes:
    """A picture no larger than ``size`` as the content of an icon's item: PALETTE COLOR if it has colours and they may
    stay, else MONOCHROME2."""
    import numpy

    coloured = colour and picture.ndim == 3 and _has_colour(picture)
    cells = _indices(picture) if coloured else grey(picture)
    canvas = numpy.zeros((size, size), "u1")
    top, left = (size - cells.shape[0]) // 2, (size - cells.shape[1]) // 2
    canvas[top : top + cells.shape[0], left : left + cells.shape[1]] = cells
    side = struct.pack("<H", size)
    parts = [
        encode(0x00280002, b"US", b"\1\0"),
        encode(0x00280004, b"CS", b"PALETTE COLOR" if coloured else b"MONOCHROME2"),
        encode(0x00280010, b"US", side),
        encode(0x00280011, b"US", side),
        encode(0x00280100, b"US", b"\x08\0"),
        encode(0x00280101, b"US", b"\x08\0"),
        encode(0x00280102, b"US", b"\x07\0"),
        encode(0x00280103, b"US", b"\0\0"),
    ]
    if coloured:
        tables = palette()
        parts += [encode(0x00281101 + plane, b"US", struct.pack("<HHH", 256, 0, 16)) for plane in range(3)]
        parts += [
            encode(0x00281201 + plane, b"OW", (tables[:, plane].astype("<u2") * 257).tobytes()) for plane in range(3)
        ]
    parts.append(encode(0x7FE00010, b"OB", canvas.tobytes()))
    return b"".join(parts)


def _has_colour(picture: Array) -> bool:
    spread = picture.max(axis=2).astype("i2") - picture.min(axis=2)
    return bool((spread > _NEARLY_GREY).any())


@functools.cache
def palette() -> Array:
    """The 256 colours of icons, 8 bits each: greys from black to white, then a colour cube."""
    import numpy

    greys = (numpy.arange(_GREYS) * 255 + (_GREYS - 1) // 2) // (_GREYS - 1)
    steps = numpy.arange(_LEVELS) * (255 // (_LEVELS - 1))
    cube = numpy.stack(numpy.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    return numpy.concatenate((numpy.repeat(greys[:, None], 3, axis=1), cube)).astype("u1")


def _indices(picture: Array) -> Array:
    """The nearest colour of the palette for each pixel."""
    import numpy

    spread = picture.max(axis=2).astype("i2") - picture.min(axis=2)
    shade = (grey(picture).astype("i4") * (_GREYS - 1) + 127) // 255
    step = 255 // (_LEVELS - 1)
    levels = (picture.astype("i4") + step // 2) // step
    coloured = _GREYS + (levels[..., 0] * _LEVELS + levels[..., 1]) * _LEVELS + levels[..., 2]
    return numpy.where(spread > _NEARLY_GREY, coloured, shade).astype("u1")


def icon_length(icon: Icon | None) -> int:
    """Bytes of the whole Icon Image Sequence in a directory record."""
    return _SEQUENCE_HEAD + _ITEM_HEAD + icon.size if icon is not None else 0


def icon_element(icon: Icon | None) -> bytes:
    """The whole Icon Image Sequence; MediaError where the icon is no longer what it was when the disc was planned."""
    if icon is None:
        return b""
    try:
        content = icon.source.read_bytes()
    except OSError as error:
        raise MediaError(f"The icon {icon.source} cannot be read: {error.strerror or error}") from error
    if len(content) != icon.size or hashlib.sha256(content).hexdigest() != icon.sha256:
        raise MediaError(f"The icon {icon.source} is damaged")
    return encode(ICON_IMAGE_SEQUENCE, b"SQ", encode_item(content))
