"""JPEG Lossless, process 14 with selection value 1 (ITU-T T.81 H; PS3.5 A.4.4), of one grey frame in whole-array steps.

It gives the very bytes that libjpeg-turbo's encoder gives, in about a third of its time: the one is checked against the
other in tests, and every frame is decoded by libjpeg-turbo before it is used (``media.encoders``).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_BLOCK = 1 << 18
"""Samples that are looked at together: the arrays take some 60 bytes for each."""
_CATEGORIES = 17
_LENGTH_AT = 58
"""A table's entry has the bits to be written below this bit, and their number above."""


def encode_grey(cells: Array, precision: int) -> bytes:
    """A codestream of unsigned ``cells`` (rows x columns), each below 2 to the ``precision``."""
    import numpy

    rows, columns = cells.shape
    wide = cells.astype("<u2", copy=False)
    # Selection value 1: from the left; the first column from above, the first sample from the middle of the range.
    # Differences are taken modulo 2 to the 16 (T.81 H.1.2.1).
    differences = numpy.empty((rows, columns), "<u2")
    numpy.subtract(wide[:, 1:], wide[:, :-1], out=differences[:, 1:])
    numpy.subtract(wide[1:, 0], wide[:-1, 0], out=differences[1:, 0])
    differences[0, 0] = (int(wide[0, 0]) - (1 << (precision - 1))) & 0xFFFF
    flat = differences.reshape(-1)
    counts, symbols = huffman_table(_frequencies(_blocks(flat)))
    bits = _Bits()
    for block in _blocks(flat):
        bits.append(_entries(counts, symbols).take(block))
    head = _head(rows, columns, precision, counts, symbols)
    return b"".join((head, bits.finish().replace(b"\xff", b"\xff\0"), b"\xff\xd9"))


def _blocks(differences: Array) -> Iterator[Array]:
    """The differences as indices, some at a time."""
    import numpy

    for start in range(0, differences.size, _BLOCK):
        yield differences[start : start + _BLOCK].astype(numpy.intp)


def _head(rows: int, columns: int, precision: int, counts: Sequence[int], symbols: Sequence[int]) -> bytes:
    """SOI, APP0, SOF3, DHT and SOS (T.81 B.2)."""
    jfif = b"\xff\xe0" + struct.pack(">H5sHBHHBB", 16, b"JFIF\0", 0x0101, 0, 1, 1, 0, 0)
    frame = b"\xff\xc3" + struct.pack(">HBHHBBBB", 11, precision, rows, columns, 1, 1, 0x11, 0)
    table = b"\xff\xc4" + struct.pack(">HB", 19 + len(symbols), 0) + bytes(counts) + bytes(symbols)
    scan = b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, 1, 0, 1, 0, 0)
    return b"\xff\xd8" + jfif + frame + table + scan


@cache
def _categories() -> Array:
    """Category SSSS of every difference (T.81 table H.2)."""
    import numpy

    found = numpy.zeros(1 << 16, "u1")
    for category in range(1, 16):
        low, high = 1 << (category - 1), 1 << category
        found[low:high] = category
        found[0x10000 - high + 1 : 0x10000 - low + 1] = category
    found[0x8000] = 16
    return found


def _frequencies(blocks: Iterable[Array]) -> list[int]:
    """How often each category is there."""
    import numpy

    each = numpy.zeros(1 << 16, "i8")
    for block in blocks:
        each += numpy.bincount(block, minlength=1 << 16)
    found = [int(each[0])]
    for category in range(1, 16):
        low, high = 1 << (category - 1), 1 << category
        found.append(int(each[low:high].sum() + each[0x10000 - high + 1 : 0x10000 - low + 1].sum()))
    return [*found, int(each[0x8000])]


def huffman_table(frequencies: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Number of codes of each length 1 to 16, and the symbols in their order (T.81 K.2, with its ties as libjpeg's)."""
    count = len(frequencies) + 1
    weight = [*frequencies, 1]  # one more symbol, so that no code is all ones
    size, following = [0] * count, [-1] * count
    while True:
        live = sorted((weight[symbol], -symbol) for symbol in range(count) if weight[symbol])
        if len(live) < 2:
            break
        first, second = -live[0][1], -live[1][1]
        weight[first] += weight[second]
        weight[second] = 0
        for symbol in (first, second):
            end = symbol
            size[end] += 1
            while following[end] >= 0:
                end = following[end]
                size[end] += 1
            if symbol == first:
                following[end] = second
    lengths = [0] * (count + 2)
    for length in size:
        lengths[length] += length > 0
    for length in range(count + 1, 16, -1):  # none is longer than 16 bits (T.81 figure K.3)
        while lengths[length]:
            shorter = length - 2
            while not lengths[shorter]:
                shorter -= 1
            lengths[length] -= 2
            lengths[length - 1] += 1
            lengths[shorter + 1] += 2
            lengths[shorter] -= 1
    counts = lengths[1:17]
    longest = max(length for length in range(16) if counts[length])
    counts[longest] -= 1
    symbols = sorted((symbol for symbol in range(count - 1) if size[symbol]), key=lambda symbol: (size[symbol], symbol))
    return tuple(counts), tuple(symbols)


@lru_cache(maxsize=4)
def _entries(counts: tuple[int, ...], symbols: tuple[int, ...]) -> Array:
    """For every difference its code and additional bits (T.81 F.1.2.1.1), and their number."""
    import numpy

    codes, lengths = numpy.zeros(_CATEGORIES, "u8"), numpy.zeros(_CATEGORIES, "u8")
    code, given = 0, iter(symbols)
    for length, count in enumerate(counts, 1):
        for _ in range(count):
            symbol = next(given)
            codes[symbol], lengths[symbol] = code, length
            code += 1
        code <<= 1
    categories = _categories()
    additional = numpy.where(categories < 16, categories, 0).astype("u8")
    differences = numpy.arange(1 << 16, dtype="u8")
    bits = numpy.where(differences < 0x8000, differences, differences - numpy.uint64(1))
    bits &= (numpy.uint64(1) << additional) - numpy.uint64(1)
    numbers = lengths[categories] + additional
    entries: Array = (codes[categories] << additional) | bits | (numbers << numpy.uint64(_LENGTH_AT))
    return entries


class _Bits:
    """The bits of entries one after the other, the last byte filled with ones."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._word, self._filled = 0, 0
        """The word that is not yet full, and how many of its bits are, from the top."""

    def append(self, entries: Array) -> None:
        import numpy

        if entries.size % 4:
            entries = numpy.concatenate((entries, numpy.zeros(-entries.size % 4, "u8")))
        lengths = entries >> numpy.uint64(_LENGTH_AT)
        bits = entries & numpy.uint64((1 << _LENGTH_AT) - 1)
        bits, lengths = _joined(bits, lengths)  # of two entries: 62 bits at most
        if int((lengths[::2] + lengths[1::2]).max()) <= 64:
            bits, lengths = _joined(bits, lengths)
        ends = numpy.cumsum(lengths) + numpy.uint64(self._filled)
        last = ((ends - numpy.uint64(1)) >> numpy.uint64(6)).astype(numpy.intp)
        spare = (numpy.uint64(0) - ends) & numpy.uint64(63)
        total = int(ends[-1])
        words = numpy.zeros(total // 64 + 1, "u8")
        starts = numpy.concatenate(([0], numpy.flatnonzero(last[1:] != last[:-1]) + 1))
        words[last[starts]] = numpy.bitwise_or.reduceat(bits << spare, starts)
        across = numpy.flatnonzero((ends - lengths) >> numpy.uint64(6) != last.astype("u8"))
        words[last[across] - 1] |= bits[across] >> (numpy.uint64(64) - spare[across])
        words[0] |= numpy.uint64(self._word)
        self._parts.append(words[:-1].byteswap().tobytes())
        self._word, self._filled = int(words[-1]), total % 64

    def finish(self) -> bytes:
        word = self._word | ((1 << (64 - self._filled)) - 1)
        self._parts.append(word.to_bytes(8, "big")[: (self._filled + 7) // 8])
        return b"".join(self._parts)


def _joined(bits: Array, lengths: Array) -> tuple[Array, Array]:
    """Each two neighbours as one."""
    after = lengths[1::2]
    return (bits[::2] << after) | bits[1::2], lengths[::2] + after
