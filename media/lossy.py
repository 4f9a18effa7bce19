"""What an image has to become so that a lossy codec takes it, and the compressing of it.

JPEG knows unsigned samples of 8 or 12 bits only: others are shifted, and where there are more than 4096 levels also
divided, and Rescale Intercept and Slope make up for that, so that the output of the modality LUT stays what it was.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, BinaryIO

from media import pixels
from media.codecs import PixelFormat
from media.codestreams import FrameError
from media.compress import (
    KEPT,
    SOP_CLASS,
    FrameCollector,
    Unsuitable,
    palette_table,
    require_suitable,
    require_wide_cells,
    samples_of,
)
from media.elements import PIXEL_DATA, tag_text
from media.encoders import Encoder, encode_lossy
from media.framewriter import is_palette
from media.pixellimits import PixelLimits, pixel_limits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

MODALITY_LUT, LUT_DESCRIPTOR, LUT_TYPE, LUT_DATA = 0x00283000, 0x00283002, 0x00283004, 0x00283006
INTERCEPT, SLOPE, RESCALE_TYPE = 0x00281052, 0x00281053, 0x00281054
_ELSEWHERE = {0x00289145: "the rescaling in its functional groups", 0x00409096: "its real world value mapping"}
_FLOATS = frozenset((0x7FE00008, 0x7FE00009))
_HELD = 1 << 18
_KEPT = KEPT | {
    INTERCEPT, SLOPE, RESCALE_TYPE, MODALITY_LUT,
    0x00080008, 0x00080018, 0x00082111, 0x00082112, 0x00089215,
    0x00280106, 0x00280107, 0x00282110, 0x00282112, 0x00282114,
}  # fmt: skip
"""Attributes of the top level whose values the treatment and ``media.derivation`` need, beside palettes."""
_KEPT_OF_LUT = frozenset((LUT_DESCRIPTOR, LUT_TYPE, LUT_DATA))
_LEVELS = 256
"""Of less than so many, an error of one is not measured against fewer."""


@dataclass(frozen=True, slots=True)
class Treatment:
    """How the samples of an instance are prepared, frame by frame."""

    before: PixelFormat
    after: PixelFormat
    peak: int
    """Range of the prepared samples, against which losses are measured."""
    low: int = 0
    """Is subtracted ..."""
    step: int = 1
    """... before this divides."""
    modality_lut: Array | None = None
    """Output for every cell."""
    palette: Array | None = None
    """Colour of every index."""
    to_rgb: bool = False

    @property
    def moves(self) -> bool:
        """Whether the modality LUT must make up for it."""
        return self.low != 0 or self.step != 1

    def prepare(self, samples: Array) -> Array:
        """Samples of one frame, colour-by-pixel, as ``after`` says."""
        import numpy

        if self.palette is not None:
            samples = self.palette[samples.reshape(-1)].reshape(-1)
        elif self.to_rgb:
            samples = _rgb(samples)
        elif self.modality_lut is not None:
            samples = self.modality_lut[samples.view(f"u{samples.dtype.itemsize}")]
        if self.moves:
            shifted = samples.astype("i8") - self.low
            samples = (shifted + self.step // 2) // self.step if self.step > 1 else shifted
        sign = "i" if self.after.signed else "u"
        return numpy.ascontiguousarray(samples.astype(f"<{sign}{self.after.bits_allocated // 8}", copy=False))


class Survey:
    """A run over an instance before it is compressed: an Emitter that keeps what the treatment is to be made from."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._path: list[int] = []
        self.values: dict[int, bytes] = {}
        """Values of the top level."""
        self.sequences: set[int] = set()
        """Sequences of the top level."""
        self._lut: dict[int, bytes] = {}
        self._luts = 0
        self._elsewhere = ""
        """What relates stored values to others and is not rewritten here."""
        self.treatment: Treatment | None = None
        """None without Pixel Data."""

    def value(self, tag: int, vr: str, length: int, pieces: Iterator[bytes]) -> None:
        if not self._path and tag == PIXEL_DATA:
            self.treatment = self._survey(length, pieces)
            return
        held = bytearray()
        if self._path:
            keep = self._path == [MODALITY_LUT] and tag in _KEPT_OF_LUT and length <= _HELD
        else:
            keep = tag in _KEPT or (is_palette(tag) and length <= _HELD)
        if keep and length > _HELD:
            raise Unsuitable(f"its {tag_text(tag)} has {length} bytes")
        for piece in pieces:
            if keep:
                held += piece
        if keep:
            (self._lut if self._path else self.values)[tag] = bytes(held)
        if not self._path and tag in _FLOATS:
            raise Unsuitable("its samples are floating point numbers")

    def raw_sequence(self, tag: int) -> Callable[[bytes], None]:
        if not self._path and tag in _KEPT:
            self.values[tag] = b"UN"
        return lambda _: None

    def begin_sequence(self, tag: int) -> None:
        if not self._path:
            self.sequences.add(tag)
        self._elsewhere = _ELSEWHERE.get(tag, self._elsewhere)
        self._path.append(tag)

    def begin_item(self) -> None:
        self._luts += self._path == [MODALITY_LUT]

    def end_item(self) -> None: ...

    def end_sequence(self, tag: int) -> None:
        self._path.pop()

    @property
    def lut_type(self) -> str:
        """What the modality LUT gives, in its own words; ASCII or nothing."""
        words = pixels.text(self._lut, LUT_TYPE)
        return words if words.isascii() else ""

    # -- the treatment -------------------------------------------------------------------------------------------

    def _survey(self, length: int, pieces: Iterator[bytes]) -> Treatment:
        try:
            before = pixels.pixel_format(self.values)
        except FrameError as error:
            raise Unsuitable(str(error)) from None
        limits = pixel_limits(pixels.text(self.values, SOP_CLASS))
        if limits.never_lossy:
            raise Unsuitable("its samples are measures or labels, which no lossy codec may touch")
        if limits.original_only:
            raise Unsuitable("its SOP class has attributes that a DERIVED image may not have")
        require_suitable(before, self._encoder, length)
        if before.samples == 3 or before.photometric == "PALETTE COLOR":
            treatment = self._colour(before)
            low, high = 0, (1 << treatment.after.bits_stored) - 1
        else:
            treatment = Treatment(before, before, 0, modality_lut=self._modality_lut(before))
            low, high = _NOTHING
        source = pixels.Pieces(pieces)
        for _ in range(before.frames):
            samples = samples_of(source.take(before.frame_bytes), before, self._encoder)
            if treatment.modality_lut is not None:
                samples = treatment.modality_lut[samples.view(f"u{samples.dtype.itemsize}")]
            if before.samples == 1 and treatment.palette is None:
                low, high = min(low, int(samples.min())), max(high, int(samples.max()))
        if any(piece.strip(b"\0") for piece in source.rest()):
            raise Unsuitable("there is more pixel data than its attributes say")
        if treatment.after.samples == 1:
            treatment = self._grey(treatment, low, high, limits)
            if limits.filled_cells and treatment.after.bits_stored != treatment.after.bits_allocated:
                raise Unsuitable("its SOP class demands as many bits stored as allocated")
        if treatment.moves and limits.fixed_rescale:
            raise Unsuitable("its samples must be shifted for this codec, and its SOP class allows no rescaling")
        if treatment.moves and self._elsewhere:
            raise Unsuitable(f"its samples must be shifted for this codec, and {self._elsewhere} would be wrong then")
        return treatment

    def _colour(self, before: PixelFormat) -> Treatment:
        after, palette = before, None
        if before.photometric == "PALETTE COLOR":
            palette = palette_table({tag: value for tag, value in self.values.items() if is_palette(tag)}, before)
            bits = palette.dtype.itemsize * 8
            after = replace(after, samples=3, bits_allocated=bits, bits_stored=bits, high_bit=bits - 1)
        if after.bits_stored > self._encoder.max_bits:
            raise Unsuitable(f"its colours have {after.bits_stored} bits, the codec takes {self._encoder.max_bits}")
        to_rgb = before.photometric == "YBR_FULL" and self._encoder.codec == "jpeg2000"
        if to_rgb and after.bits_stored != 8:
            raise Unsuitable(f"its YBR_FULL colours have {after.bits_stored} bits")
        photometric = "RGB" if palette is not None or to_rgb else before.photometric
        after = replace(after, photometric=photometric, planar=0)
        return Treatment(before, after, (1 << after.bits_stored) - 1, palette=palette, to_rgb=to_rgb)

    def _grey(self, treatment: Treatment, low: int, high: int, limits: PixelLimits) -> Treatment:
        after, step = treatment.after, 1
        if treatment.modality_lut is not None:
            bits = max(8, high.bit_length())
            after = replace(after, signed=False, bits_stored=bits, high_bit=bits - 1)
        subtract, top = 0, (1 << self._encoder.max_bits) - 1
        if self._encoder.codec == "jpeg":
            if low < 0 or high > top:
                subtract, step = low, max(1, -(-(high - low) // top))
            if step > 1 and self._encoder.max_bits == 8:
                raise Unsuitable(f"its {high - low + 1} grey levels are more than the 256 of this codec")
            bits = 8 if after.bits_stored <= 8 and not limits.sixteen_bits else self._encoder.max_bits
            after = replace(after, signed=False, bits_stored=bits, high_bit=bits - 1)
        if after.bits_stored <= 8 and limits.sixteen_bits:
            require_wide_cells(self._encoder)
        after = replace(after, bits_allocated=8 if after.bits_stored <= 8 else 16)
        peak = max((high - low) // step, _LEVELS - 1)
        return replace(treatment, after=after, low=subtract, step=step, peak=peak)

    def _modality_lut(self, form: PixelFormat) -> Array | None:
        """What PS3.3 C.11.1.1 makes of every cell; None where there is no Modality LUT Sequence."""
        import numpy

        if MODALITY_LUT not in self.sequences:
            if MODALITY_LUT in self.values:
                raise Unsuitable("its Modality LUT Sequence cannot be read")
            return None
        descriptor, data = self._lut.get(LUT_DESCRIPTOR, b""), self._lut.get(LUT_DATA, b"")
        if self._luts != 1 or len(descriptor) != 6 or SLOPE in self.values or INTERCEPT in self.values:
            raise Unsuitable("its modality LUT is not one of PS3.3 C.11.1")
        count, first, bits = struct.unpack("<HhH" if form.signed else "<HHH", descriptor)
        count = count or 1 << 16
        if len(data) >= 2 * count:
            table = numpy.frombuffer(data, "<u2", count)
        elif bits == 8 and len(data) >= count:
            table = numpy.frombuffer(data, "u1", count)
        else:
            raise Unsuitable("its modality LUT is shorter than it says")
        cells = numpy.arange(1 << form.bits_allocated, dtype="u4").astype(f"u{form.bits_allocated // 8}")
        values = cells.view(f"i{form.bits_allocated // 8}") if form.signed else cells
        found: Array = table[numpy.clip(values.astype("i8") - first, 0, count - 1)]
        return found


_MAGNITUDE = 50
"""Decimal digits before or behind the point beyond which no rescaling is meant seriously."""
_NOTHING = (1 << 40, -(1 << 40))


class LossyCollector(FrameCollector):
    """Compresses the frames as ``treatment`` says and keeps count of what that loses.

    Unsuitable where a frame would lose more than the encoder's ``min_psnr`` allows.
    """

    def __init__(self, encoder: Encoder, store: BinaryIO, treatment: Treatment) -> None:
        super().__init__(encoder, store)
        self._made_for = treatment
        self.smallest, self.largest = _NOTHING
        """Of the samples as they decode."""
        self.psnr = float("inf")
        """Of the frame that lost most, in decibels."""

    def _treatment(self, before: PixelFormat) -> tuple[Callable[[Array], Array], PixelFormat]:
        return self._made_for.prepare, self._made_for.after

    def _encoded(self, samples: Array, form: PixelFormat) -> bytes:
        frame, decoded = encode_lossy(self._encoder, samples, form)
        self.smallest = min(self.smallest, int(decoded.min()))
        self.largest = max(self.largest, int(decoded.max()))
        self.psnr = min(self.psnr, psnr(samples, decoded, self._made_for.peak))
        if self.psnr < self._encoder.min_psnr:
            raise Unsuitable(
                f"a frame would keep {self.psnr:.1f} dB of its signal; the least is {self._encoder.min_psnr:.0f} dB"
            )
        return frame


def psnr(samples: Array, decoded: Array, peak: int) -> float:
    """Peak signal-to-noise ratio in decibels: 10 log10 of the square of ``peak`` over the mean square error."""
    import numpy

    error = samples.reshape(-1).astype("f8") - decoded.reshape(-1)
    mean = float(numpy.mean(error * error))
    return 10 * math.log10(peak * peak / mean) if mean else math.inf


def _rgb(samples: Array) -> Array:
    """RGB of 8-bit YBR_FULL samples (PS3.3 C.7.6.3.1.2)."""
    import numpy

    y, cb, cr = (plane.astype("f8") for plane in samples.reshape(-1, 3).T)
    planes = (y + 1.402 * (cr - 128), y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128), y + 1.772 * (cb - 128))
    return numpy.rint(numpy.clip(numpy.stack(planes, -1), 0, 255)).astype("u1").reshape(-1)


def rescaled(values: dict[int, bytes], treatment: Treatment) -> tuple[str, str]:
    """Rescale Intercept and Slope that make up for the treatment, as DS; Unsuitable where the old ones are none."""
    old = []
    for tag, default in ((INTERCEPT, "0"), (SLOPE, "1")):
        words = pixels.text(values, tag) or default
        try:
            number = Decimal(words)
        except InvalidOperation:
            number = Decimal("NaN")
        if not number.is_finite() or (number and abs(number.adjusted()) > _MAGNITUDE):
            raise Unsuitable(f"its rescale attributes are no numbers ({words[:16]!r})")
        old.append(number)
    intercept, slope = old
    return _ds(intercept + slope * treatment.low), _ds(slope * treatment.step)


def _ds(number: Decimal) -> str:
    """A Decimal String: at most 16 characters (PS3.5 6.2); Unsuitable where so many do not hold the number."""
    plain = format(number.normalize(), "f")
    if len(plain) <= 16:
        return plain
    for digits in range(16, 0, -1):
        words = f"{number:.{digits}G}"
        if len(words) <= 16:
            if abs(Decimal(words) - number) > abs(number) * Decimal("1e-9"):
                break
            return words
    raise Unsuitable("its rescale attributes, changed for this codec, need more than 16 characters")
