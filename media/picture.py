"""An image as a person would see it on a screen: 8-bit grey or RGB (PS3.3 C.7.6.3, C.11.1, C.11.2; PS3.4 N.2)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from media import framesource as tags
from media import pixels
from media.codestreams import FrameError
from media.framesource import Frame, numbers, representative_frame, words_of
from media.problems import InstanceRefused

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_FINE = 8
"""Samples for each pixel of the picture, in either direction, that averaging uses; more are passed over."""
_WORKED_ON = 3 << 24
"""Samples at most that are made shades of and averaged: each takes some 30 bytes meanwhile."""
_PERCENT = (0.5, 99.5)
_GREY = ("MONOCHROME1", "MONOCHROME2")
_YBR = ("YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420")
_TABLE_LIMIT = 1 << 16
_SAMPLED = 1 << 18
"""Pixels of which the spread of an image's values is worked out."""


def thumbnail(path: Path, size: int) -> Array:
    """The representative frame of an image, at most ``size`` pixels wide and high: ``uint8``, rows x columns for grey,
    rows x columns x 3 for colour. The sides keep their proportion, by the pixels' spacing too; the small are enlarged.

    Grey values go through the modality LUT and the first window or VOI LUT of the instance, or, where it has none or
    one that would leave a single shade, through a window over 99 % of the values. InstanceRefused where there is no
    image or it cannot be decoded, NotDicom for a malformed file. Decoders may crash: call it in a helper process.
    """
    frame = representative_frame(path)
    try:
        return picture_of(frame, size)
    except FrameError as error:
        raise InstanceRefused("PROC_FAILURE", f"its pixel data cannot be shown: {error}") from None


def picture_of(frame: Frame, size: int, *, window: tuple[float, float] | None = None, enlarge: bool = True) -> Array:
    """The same of a frame that was read; FrameError where what it means is not known.

    ``window``: center and width instead of the instance's own, for grey images. ``enlarge`` False: no side gets more
    pixels than the frame has.
    """
    samples = _samples(frame)
    height = _pixel_height(frame)
    if not enlarge:
        size = min(size, max(round(samples.shape[0] * height), samples.shape[1], 1))
    rows, columns = _fitting(samples.shape[0], samples.shape[1], height, size)
    step_rows = max(1, samples.shape[0] // (rows * _FINE))
    step_columns = max(1, samples.shape[1] // (columns * _FINE))
    while -(-samples.shape[0] // step_rows) * -(-samples.shape[1] // step_columns) * samples.shape[2] > _WORKED_ON:
        step_rows, step_columns = step_rows + 1, step_columns + 1
    samples = samples[::step_rows, ::step_columns]
    photometric = frame.form.photometric
    if photometric in _GREY:
        shown = _grey(samples[..., 0], frame, window)
        if photometric == "MONOCHROME1":
            shown = 255 - shown
    elif photometric == "PALETTE COLOR":
        shown = _palette(samples[..., 0], frame)
    elif photometric == "RGB" or photometric in _YBR or photometric in ("YBR_ICT", "YBR_RCT"):
        shown = _eight_bits(samples, frame)
        if photometric in _YBR:
            shown = _rgb(shown)
    else:
        raise FrameError(f"its Photometric Interpretation (0028,0004) is {photometric!r}")
    return _averaged(_averaged(shown, rows, 0), columns, 1)


def grey(picture: Array) -> Array:
    """A picture without its colours (ITU-R BT.601)."""
    if picture.ndim == 2:
        return picture
    wide = picture.astype("u4")
    shades: Array = ((299 * wide[..., 0] + 587 * wide[..., 1] + 114 * wide[..., 2] + 500) // 1000).astype("u1")
    return shades


def _samples(frame: Frame) -> Array:
    """Rows x columns x samples, as they are stored, with their sign."""
    import numpy

    form = frame.form
    width = max(form.bits_allocated // 8, 1)
    cells = numpy.frombuffer(frame.samples, f"<u{width}")
    if form.photometric == "YBR_FULL_422" and form.samples == 3 and cells.size == form.rows * form.columns * 2:
        cells = _unsubsampled(cells, form.rows, form.columns)
    elif cells.size != form.rows * form.columns * form.samples:
        raise FrameError("its samples are not as many as its description says")
    elif form.planar == 1 and form.samples > 1:
        cells = cells.reshape(form.samples, form.rows, form.columns).transpose(1, 2, 0)
    else:
        cells = cells.reshape(form.rows, form.columns, form.samples)
    expected = 1 if form.photometric in (*_GREY, "PALETTE COLOR") else 3
    if form.samples != expected:
        raise FrameError(f"it has {form.samples} samples a pixel and is {form.photometric!r}")
    low = form.high_bit - form.bits_stored + 1
    if not 0 < form.bits_stored <= form.bits_allocated or low < 0 or form.high_bit >= form.bits_allocated:
        raise FrameError(f"Bits Stored {form.bits_stored}, High Bit {form.high_bit}: that cannot be")
    if form.bits_allocated == 1:
        return cells
    spare = form.bits_allocated - form.bits_stored - low
    if spare or low or form.signed:
        kind = "i" if form.signed else "u"
        cells = (cells << spare).view(f"<{kind}{width}") >> (spare + low)
    return cells


def _unsubsampled(cells: Array, rows: int, columns: int) -> Array:
    """Native YBR_FULL_422: Y1 Y2 Cb Cr for each two pixels of a row (PS3.3 C.7.6.3.1.2)."""
    import numpy

    if columns % 2:
        raise FrameError("its chrominance is subsampled, and its number of columns is odd")
    pairs = cells.reshape(rows, columns // 2, 4)
    full = numpy.empty((rows, columns, 3), cells.dtype)
    full[:, 0::2, 0], full[:, 1::2, 0] = pairs[..., 0], pairs[..., 1]
    full[..., 1:] = pairs[..., 2:].repeat(2, axis=1)
    return full


# -- grey ------------------------------------------------------------------------------------------------------------


def _grey(values: Array, frame: Frame, window: tuple[float, float] | None) -> Array:
    """Stored values to shades by the instance's own tables. Few different values are mapped by a table of them all."""
    import numpy

    low, high = int(values.min()), int(values.max())
    if high - low < _TABLE_LIMIT:
        every = numpy.arange(low, high + 1, dtype="f8")
        index = values.astype("i8") - low
        counts = numpy.bincount(index.ravel(), minlength=every.size).astype("i8")
        found: Array = _shades(every, counts, frame, window)[index]
        return found
    return _shades(values.ravel().astype("f8"), None, frame, window).reshape(values.shape)


def windows(frame: Frame) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Center and width as the instance says, and those over 99 % of its values; the second pair stands for the first
    where the instance says none. None for an image in colour.
    """
    import numpy

    if frame.form.photometric not in _GREY:
        return None
    stored = _samples(frame)[..., 0]
    step = max(1, stored.size // _SAMPLED)
    values = stored.ravel()[::step].astype("f8")
    kept = values[~_padding(values, frame)]
    physical = _modality(kept if kept.size else values, frame)
    low, high = (float(edge) for edge in numpy.percentile(physical, _PERCENT))
    spread = ((low + high) / 2, max(high - low, 1.0))
    center, width = numbers(frame.facts, tags.WINDOW_CENTER), numbers(frame.facts, tags.WINDOW_WIDTH)
    if center and width and width[0] > 0:
        return (center[0], width[0]), spread
    return spread, spread


def _shades(values: Array, counts: Array | None, frame: Frame, window: tuple[float, float] | None) -> Array:
    """The shade of each stored value; ``counts``: how often each occurs (None: once)."""
    import numpy

    weights = numpy.ones(values.size, "i8") if counts is None else counts
    seen = (weights > 0) & ~_padding(values, frame)
    if not seen.any():
        seen = weights > 0
    physical = _modality(values, frame)
    if window is not None:
        center, width = window
        shades: Array | None = _to_shades((physical - center) / max(width, 1e-6) + 0.5)
        assert shades is not None
        shades[_padding(values, frame)] = 255 if frame.form.photometric == "MONOCHROME1" else 0
        return shades
    shades = _voi(physical, frame)
    if shades is None or (_one_shade(shades[seen]) and not _one_shade(physical[seen])):
        shades = _stretched(physical, weights * seen)
    shades[_padding(values, frame)] = 255 if frame.form.photometric == "MONOCHROME1" else 0
    return shades


def _one_shade(values: Array) -> bool:
    return bool(values.min() == values.max())


def _padding(values: Array, frame: Frame) -> Array:
    """Which values are Pixel Padding Value (0028,0120), or of its range (PS3.3 C.7.5.1.1.2)."""
    import numpy

    first = words_of(frame.facts.get(tags.PADDING_VALUE, b""), signed=frame.form.signed)
    if not first:
        return numpy.zeros(values.shape, "?")
    last = words_of(frame.facts.get(tags.PADDING_LIMIT, b""), signed=frame.form.signed) or first
    return (values >= min(first[0], last[0])) & (values <= max(first[0], last[0]))


def _modality(values: Array, frame: Frame) -> Array:
    """Modality LUT (PS3.3 C.11.1)."""
    lut = _lut(frame, tags.MODALITY_LUTS)
    if lut is not None:
        return _looked_up(values, *lut)
    slope, intercept = numbers(frame.facts, tags.SLOPE), numbers(frame.facts, tags.INTERCEPT)
    if not slope or not intercept or not slope[0]:
        return values
    return values * slope[0] + intercept[0]


def _voi(values: Array, frame: Frame) -> Array | None:
    """First window, else first VOI LUT (PS3.3 C.11.2); None where there is neither."""
    import numpy

    center, width = numbers(frame.facts, tags.WINDOW_CENTER), numbers(frame.facts, tags.WINDOW_WIDTH)
    if center and width:
        function = pixels.text(frame.facts, tags.VOI_FUNCTION)
        c, w = center[0], width[0]
        if function == "SIGMOID" and w > 0:
            return _to_shades(1 / (1 + numpy.exp(numpy.clip(-4 * (values - c) / w, -500, 500))))
        if function == "LINEAR_EXACT" and w > 0:
            return _to_shades((values - c) / w + 0.5)
        if w > 1:
            return _to_shades((values - (c - 0.5)) / (w - 1) + 0.5)
        if w == 1:
            return _to_shades((values > c - 0.5).astype("f8"))
    lut = _lut(frame, tags.VOI_LUTS)
    if lut is None:
        return None
    first, table = lut
    return _to_shades(_looked_up(values, first, table) / max(float(table.max()), 1.0))


def _to_shades(fractions: Array) -> Array:
    import numpy

    shades: Array = (numpy.clip(fractions, 0.0, 1.0) * 255 + 0.5).astype("u1")
    return shades


def _stretched(values: Array, weights: Array) -> Array:
    """A window over all but the lowest and highest half percent."""
    import numpy

    order = numpy.argsort(values, kind="stable")
    total = weights[order].cumsum()
    low, high = (
        float(values[order[min(int(numpy.searchsorted(total, total[-1] * part / 100)), values.size - 1)]])
        for part in _PERCENT
    )
    if high <= low:
        held = values[weights > 0]
        low, high = float(held.min()), float(held.max())
    if high <= low:
        return _to_shades(numpy.full(values.size, 0.0))
    return _to_shades((values - low) / (high - low))


def _lut(frame: Frame, sequence: int) -> tuple[int, Array] | None:
    """First value mapped, and the entries of a table of one of the LUT sequences; None where there is no sound one."""
    item = frame.luts.get(sequence, {})
    return _table(item.get(tags.LUT_DESCRIPTOR, b""), item.get(tags.LUT_DATA, b""))


def _table(descriptor: bytes, data: bytes) -> tuple[int, Array] | None:
    """A lookup table from its descriptor and data (PS3.3 C.11.1.1.1, C.7.6.3.1.5)."""
    import numpy

    words = words_of(descriptor)
    if len(words) != 3 or not data:
        return None
    entries, bits = words[0] or 1 << 16, words[2]
    # The first value mapped may be negative, and whether it is cannot be told by the VR that a file gives it.
    first = words_of(descriptor, signed=True)[1] if words[1] >= 0xC000 else words[1]
    if bits <= 8 and len(data) < 2 * entries:
        table = numpy.frombuffer(data, "u1")[:entries]
    else:
        table = numpy.frombuffer(data[: len(data) // 2 * 2], "<u2")[:entries]
    return (first, table) if table.size == entries else None


def _looked_up(values: Array, first: int, table: Array) -> Array:
    import numpy

    index = numpy.clip(values - first, 0, table.size - 1).astype("i8")
    found: Array = table[index].astype("f8")
    return found


# -- colour ----------------------------------------------------------------------------------------------------------


def _eight_bits(samples: Array, frame: Frame) -> Array:
    shift = frame.form.bits_stored - 8
    shown: Array = (samples >> shift if shift > 0 else samples).astype("u1")
    return shown


def _rgb(ybr: Array) -> Array:
    """PS3.3 C.7.6.3.1.2, in whole numbers."""
    import numpy

    y, cb, cr = (ybr[..., index].astype("i4") for index in range(3))
    cb, cr = cb - 128, cr - 128
    y = y * 10000 + 5000
    red, green, blue = y + 14020 * cr, y - 3441 * cb - 7141 * cr, y + 17720 * cb
    found: Array = numpy.clip(numpy.stack((red, green, blue), axis=-1) // 10000, 0, 255).astype("u1")
    return found


def _palette(values: Array, frame: Frame) -> Array:
    """Through the three palette lookup tables (PS3.3 C.7.9)."""
    import numpy

    planes = []
    for descriptor, plain, segmented in zip(
        tags.PALETTE_DESCRIPTORS, tags.PALETTES, tags.SEGMENTED_PALETTES, strict=True
    ):
        said = frame.facts.get(descriptor, b"")
        data = frame.facts.get(plain) or _expanded(frame.facts.get(segmented, b""))
        found = _table(said, data)
        if found is None:
            raise FrameError("its palette is missing or is not as its descriptor says")
        first, table = found
        entries = _looked_up(values.astype("f8"), first, table)
        deep = table.dtype.itemsize == 2 and (words_of(said)[2] > 8 or int(table.max()) > 255)
        planes.append((entries // 256 if deep else entries).astype("u1"))
    return numpy.stack(planes, axis=-1)


def _expanded(segments: bytes) -> bytes:
    """Segmented palette data of 16-bit entries as a plain table (PS3.3 C.7.9.2); b"" where it is not sound."""
    import numpy

    words = words_of(segments)
    found: list[int] = []
    at = 0
    while at + 1 < len(words) and len(found) <= _TABLE_LIMIT:
        code, length = words[at], words[at + 1]
        if code == 0:
            found += words[at + 2 : at + 2 + length]
            at += 2 + length
        elif code == 1 and found and at + 2 < len(words):
            end = words[at + 2]
            found += [round(found[-1] + (end - found[-1]) * step / length) for step in range(1, length + 1)]
            at += 3
        else:
            return b""  # indirect segments: no maker of images that we know uses them
    return numpy.array(found[:_TABLE_LIMIT], "<u2").tobytes()


# -- size ------------------------------------------------------------------------------------------------------------


def _pixel_height(frame: Frame) -> float:
    """How many times as high as wide a pixel is (PS3.3 C.7.6.3.1.7); 1 where that is unsaid or absurd."""
    for tag in (tags.PIXEL_SPACING, tags.IMAGER_PIXEL_SPACING, tags.PIXEL_ASPECT_RATIO):
        found = numbers(frame.facts, tag)
        if len(found) == 2 and found[0] > 0 and found[1] > 0:
            ratio = found[0] / found[1]
            return ratio if 0.1 <= ratio <= 10 else 1.0
    return 1.0


def _fitting(rows: int, columns: int, pixel_height: float, size: int) -> tuple[int, int]:
    """Rows and columns of the picture: the longer side has ``size``."""
    height = rows * pixel_height
    scale = size / max(height, columns)
    return max(1, min(size, round(height * scale))), max(1, min(size, round(columns * scale)))


def _averaged(picture: Array, count: int, axis: int) -> Array:
    """One axis brought to ``count`` pixels, by the mean of those that each takes the place of, or by repeating."""
    import numpy

    size = picture.shape[axis]
    if size == count:
        return picture
    if size < count:
        repeated: Array = picture.take(numpy.arange(count) * size // count, axis=axis)
        return repeated
    edges = numpy.arange(count + 1) * size // count
    sums = numpy.add.reduceat(picture.astype("u4"), edges[:-1], axis=axis)
    widths = numpy.diff(edges).astype("u4").reshape([-1 if at == axis else 1 for at in range(picture.ndim)])
    mean: Array = ((sums + widths // 2) // widths).astype("u1")
    return mean
