"""Encoders of single frames as rows of config/codecs.toml; every one of them is lossless.

No encoder is trusted: each frame is decoded again and compared before it is handed on. The libraries are C code, so
callers use helper processes; they are imported when first used.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from media.codecs import FrameError, PixelFormat, decode, transfer_syntax

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

    @property
    def recipe(self) -> str:
        """Name and version, as ``media.conform`` knows it."""
        return f"{self.name}/{self.version}"


@cache
def encoders() -> Mapping[str, Encoder]:
    """Every encoder, by its recipe's name."""
    rows = tomllib.loads(resources.files("config").joinpath("codecs.toml").read_text("utf-8"))
    found = [Encoder(name=name, **row) for name, row in rows.items()]
    return {encoder.recipe: encoder for encoder in found}


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


def _jpeg_lossless(samples: Samples, form: PixelFormat) -> bytes:
    """Process 14 with predictor 1, which is selection value 1 (PS3.5 A.4.4), SOF3; signed samples as their cells."""
    import imagecodecs

    # Sign-extended cells of full width: differences are taken modulo 2^16, so the sign costs nothing, and decoders
    # that know of no sign give back the very cells.
    precision = form.bits_allocated if form.signed else max(form.bits_stored, 2)
    shape = (form.rows, form.columns) if form.samples == 1 else (form.rows, form.columns, form.samples)
    cells = samples.view(f"u{form.bits_allocated // 8}").reshape(shape)
    colour = None if form.samples == 1 else "RGB"  # both sides alike: no transform
    data = imagecodecs.jpeg8_encode(
        cells, lossless=True, predictor=1, bitspersample=precision, colorspace=colour, outcolorspace=colour
    )
    return bytes(data)


def _jpeg2000(samples: Samples, form: PixelFormat) -> bytes:
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
    )
    return bytes(data)


def _rle(samples: Samples, form: PixelFormat) -> bytes:
    from rle.rle import encode_frame

    return bytes(encode_frame(samples.tobytes(), form.rows, form.columns, form.samples, form.bits_allocated, "<"))


def _prove(encoder: Encoder, frame: bytes, samples: Samples, form: PixelFormat) -> None:
    if encoder.codec == "jpeg-lossless":
        import imagecodecs

        try:
            decoded = imagecodecs.jpeg8_decode(frame).tobytes()
        except Exception as error:
            raise FrameError(f"once compressed, it cannot be decoded again: {error}") from error
    else:
        decoded = decode(transfer_syntax(encoder.syntax), frame, replace(form, planar=0))
    if decoded != samples.tobytes():
        raise FrameError("once compressed, it decodes to other samples")
