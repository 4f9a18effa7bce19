"""Encoders of single frames as rows of config/codecs.toml.

No encoder is trusted: each frame is decoded again and compared before it is handed on. The libraries are C code, so
callers use helper processes; they are imported when first used.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from media import jpeglossless
from media.codecs import PixelFormat, decode
from media.codestreams import FrameError
from media.syntaxes import transfer_syntax

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Samples = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Encoder:
    """A row of config/codecs.toml."""

    name: str
    syntax: str
    codec: str
    version: int
    max_bits: int
    palette: str
    rgb: str
    letter: str = ""
    """Of a lossy encoder's parameter in its recipe's name: ``q`` for quality, ``r`` for ratio."""
    least: int = 0
    most: int = 0
    """Between which values the parameter may be."""
    colour: int = 0
    grey: int = 0
    """Rank among the lossy encoders for such images, the first is 1; 0: not for these."""
    method: str = ""
    """Lossy Image Compression Method (PS3.3 C.7.6.1.1.5.1)."""
    min_psnr: float = 0.0
    """Decibels that each frame keeps at least."""
    parameter: int = 0
    """Quality or ratio of a lossy encoder; 0 while it is not settled."""

    @property
    def lossy(self) -> bool:
        return bool(self.letter)

    @property
    def recipe(self) -> str:
        """Name, parameter and version, as ``media.recipes`` knows it."""
        return f"{self.name}{f'-{self.letter}{self.parameter}' if self.lossy else ''}/{self.version}"


@cache
def _rows() -> tuple[Encoder, ...]:
    rows = tomllib.loads(resources.files("config").joinpath("codecs.toml").read_text("utf-8"))
    return tuple(Encoder(name=name, **row) for name, row in rows.items())


@cache
def encoders() -> Mapping[str, Encoder]:
    """Every lossless encoder, by its recipe's name."""
    return {encoder.recipe: encoder for encoder in _rows() if not encoder.lossy}


@cache
def lossy_encoders() -> tuple[Encoder, ...]:
    """Every lossy encoder, its parameter not settled."""
    return tuple(encoder for encoder in _rows() if encoder.lossy)


_LOSSY = re.compile(r"([a-z0-9-]+)-([a-z])([1-9][0-9]{0,3})/([0-9]{1,4})", re.ASCII)


def encoder_of(recipe: str) -> Encoder | None:
    """The encoder that a recipe's name stands for; None where there is none."""
    if recipe in encoders():
        return encoders()[recipe]
    match = _LOSSY.fullmatch(recipe)
    if match is None:
        return None
    name, letter, parameter, version = match.groups()
    for encoder in lossy_encoders():
        known = (encoder.name, encoder.letter, str(encoder.version))
        if known == (name, letter, version) and encoder.least <= int(parameter) <= encoder.most:
            return replace(encoder, parameter=int(parameter))
    return None


def encode(encoder: Encoder, samples: Samples, form: PixelFormat) -> bytes:
    """One frame of colour-by-pixel samples, in cells of Bits Allocated, compressed and proven to decode to the same.

    FrameError says what went wrong.
    """
    try:
        if encoder.codec == "jpeg-lossless":
            frame = _jpeg_lossless(samples, form)
        elif encoder.codec == "jpeg2000":
            frame = _jpeg2000(samples, form)
        else:
            frame = _rle(samples, form)
    except Exception as error:
        raise FrameError(f"the encoder refuses it: {type(error).__name__}: {error}") from error
    _prove(encoder, frame, samples, form)
    return frame


def encode_lossy(encoder: Encoder, samples: Samples, form: PixelFormat) -> tuple[bytes, Samples]:
    """One frame compressed with the encoder's quality or ratio, and what it decodes to, colours as RGB or as they came.

    FrameError says what went wrong.
    """
    import numpy

    shape = (form.rows, form.columns) if form.samples == 1 else (form.rows, form.columns, form.samples)
    try:
        if encoder.codec == "jpeg":
            frame, decoded = _jpeg(samples.reshape(shape), form, encoder)
        else:
            frame = _jpeg2000(samples, form, ratio=encoder.parameter)
            data = decode(transfer_syntax(encoder.syntax), frame, replace(form, planar=0))
            decoded = numpy.frombuffer(data, samples.dtype)
    except Exception as error:
        raise FrameError(f"the encoder refuses it: {type(error).__name__}: {error}") from error
    if decoded.size != samples.size:
        raise FrameError("once compressed, it decodes to another number of samples")
    return frame, decoded


def _jpeg(cells: Samples, form: PixelFormat, encoder: Encoder) -> tuple[bytes, Samples]:
    """Sequential DCT; colours as YBR_FULL_422 (PS3.5 8.2.1)."""
    import imagecodecs

    options: dict[str, Any] = {}
    colours: dict[str, Any] = {}
    if form.samples == 3:
        colour = "RGB" if form.photometric == "RGB" else "YCBCR"
        options = {"subsampling": "422", "colorspace": colour, "outcolorspace": "YCBCR"}
        colours = {"colorspace": "YCBCR", "outcolorspace": colour}
    frame = bytes(imagecodecs.jpeg8_encode(cells, level=encoder.parameter, bitspersample=form.bits_stored, **options))
    if encoder.max_bits > 8 and form.bits_stored == 8:
        frame = _extended(frame)
    return frame, imagecodecs.jpeg8_decode(frame, **colours)


def _extended(frame: bytes) -> bytes:
    """The same as extended sequential DCT: every baseline codestream is one, but for its marker (T.81 4.11)."""
    at = 2
    while frame[at + 1] != 0xC0:
        at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return frame[: at + 1] + b"\xc1" + frame[at + 2 :]


def _jpeg_lossless(samples: Samples, form: PixelFormat) -> bytes:
    """Process 14 with predictor 1, which is selection value 1 (PS3.5 A.4.4), SOF3; signed samples as their cells."""
    # Sign-extended cells of full width: differences are taken modulo 2^16, so the sign costs nothing, and decoders
    # that know of no sign give back the very cells.
    precision = form.bits_allocated if form.signed else max(form.bits_stored, 2)
    if form.bits_allocated == 16 and precision <= 8:
        precision = 12  # so that decoders make cells of 16 bits
    cells = samples.view(f"u{form.bits_allocated // 8}")
    if form.samples == 1:
        return jpeglossless.encode_grey(cells.reshape(form.rows, form.columns), precision)
    import imagecodecs

    data = imagecodecs.jpeg8_encode(
        cells.reshape(form.rows, form.columns, form.samples),
        lossless=True,
        predictor=1,
        bitspersample=precision,
        colorspace="RGB",
        outcolorspace="RGB",  # both sides alike: no transform
    )
    return bytes(data)


def _jpeg2000(samples: Samples, form: PixelFormat, *, ratio: int = 0) -> bytes:
    """Reversible, or irreversible to a ``ratio``."""
    from openjpeg.utils import encode_buffer

    colour = 2 if form.samples == 1 else 1 if form.photometric == "RGB" else 3
    data = encode_buffer(
        samples.tobytes(),
        form.columns,
        form.rows,
        form.samples,
        form.bits_stored,
        form.signed,
        photometric_interpretation=colour,
        use_mct=colour == 1,
        compression_ratios=[ratio] if ratio else None,
    )
    return bytes(data)


def _rle(samples: Samples, form: PixelFormat) -> bytes:
    from rle.rle import encode_frame

    return bytes(encode_frame(samples.tobytes(), form.rows, form.columns, form.samples, form.bits_allocated, "<"))


def _prove(encoder: Encoder, frame: bytes, samples: Samples, form: PixelFormat) -> None:
    import numpy

    decoded = _decoded(encoder, frame, form)
    if not numpy.array_equal(decoded.reshape(-1).view("u1"), samples.reshape(-1).view("u1")):
        raise FrameError("once compressed, it decodes to other samples")


def _decoded(encoder: Encoder, frame: bytes, form: PixelFormat) -> Samples:
    """By another build of the codec than the encoder's, where there is one that knows the samples' layout."""
    import imagecodecs
    import numpy

    try:
        if encoder.codec == "jpeg-lossless":
            return imagecodecs.jpeg8_decode(frame)
        if encoder.codec == "jpeg2000" and form.samples == 1:
            return imagecodecs.jpeg2k_decode(frame, numthreads=1)
    except Exception as error:
        raise FrameError(f"once compressed, it cannot be decoded again: {error}") from error
    return numpy.frombuffer(decode(transfer_syntax(encoder.syntax), frame, replace(form, planar=0)), "u1")
