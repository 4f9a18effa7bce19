"""Our JPEG Lossless encoder gives the bytes that libjpeg-turbo's gives, whatever the samples."""

from __future__ import annotations

from collections.abc import Callable

import imagecodecs
import numpy
import pytest

from media import jpeglossless
from media.jpeglossless import encode_grey, huffman_table

SHAPES = ((1, 1), (1, 7), (7, 1), (3, 5), (37, 91), (64, 64))
Maker = Callable[[numpy.random.Generator, tuple[int, int], int], numpy.ndarray]
IMAGES: dict[str, Maker] = {
    "noise": lambda random, shape, top: random.integers(0, top, shape, endpoint=True),
    "black": lambda _, shape, __: numpy.zeros(shape),
    "white": lambda _, shape, top: numpy.full(shape, top),
    "few bright": lambda random, shape, top: random.random(shape) ** 8 * top,
    "stripes": lambda _, shape, top: numpy.arange(shape[0])[:, None] % 2 * numpy.full(shape, (top + 1) // 2),
    "ramps": lambda random, shape, top: numpy.cumsum(random.geometric(0.5, shape), axis=1) & top,
}


def _reference(cells: numpy.ndarray, precision: int) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(cells, lossless=True, predictor=1, bitspersample=precision))


@pytest.mark.parametrize("precision", range(2, 17))
@pytest.mark.parametrize("kind", IMAGES)
def test_the_bytes_are_those_of_libjpeg_turbo(kind: str, precision: int) -> None:
    random = numpy.random.default_rng(precision)
    for shape in SHAPES:
        cells = IMAGES[kind](random, shape, (1 << precision) - 1).astype("u1" if precision <= 8 else "<u2")
        assert encode_grey(cells, precision) == _reference(cells, precision), shape


def test_codes_are_no_longer_than_16_bits() -> None:
    """Differences as often as Fibonacci's numbers make the most uneven tree that there is."""
    often = [1, 1]
    while len(often) < 17:
        often.append(often[-1] + often[-2])
    steps = [0, *(1 << (category - 1) for category in range(1, 17))]
    differences = numpy.repeat(steps, often[::-1])
    for order in (differences, numpy.random.default_rng(3).permutation(differences)):
        cells = (numpy.cumsum(order) & 0xFFFF).astype("<u2").reshape(1, -1)
        assert encode_grey(cells, 16) == _reference(cells, 16)
    counts, symbols = huffman_table(often[::-1])
    assert len(counts) == 16 and sum(counts) == len(symbols) == 17
    assert sum(count << (16 - length) for length, count in enumerate(counts, 1)) < 1 << 16  # no code is all ones


@pytest.mark.parametrize("block", [4, 64, 100, 4096])
def test_blocks_join_without_a_seam(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = numpy.random.default_rng(block)
    monkeypatch.setattr(jpeglossless, "_BLOCK", block)
    for kind, make in IMAGES.items():
        cells = make(random, (61, 67), 65535).astype("<u2")
        assert encode_grey(cells, 16) == _reference(cells, 16), kind


def test_a_large_frame() -> None:
    cells = numpy.random.default_rng(2).integers(0, 4096, (1400, 1100)).astype("<u2")
    assert encode_grey(cells, 12) == _reference(cells, 12)
