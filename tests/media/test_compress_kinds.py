"""Every kind of image through every encoder: samples as other decoders find them, codestreams as their syntax asks."""

from __future__ import annotations

import struct
import warnings
from itertools import product
from pathlib import Path

import numpy
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import iter_pixels

from media.conform import ConformResult, conform
from media.edits import Edits
from media.recipes import is_lossy, recipe_syntax
from tests.media.images import SYNTAXES, Kind, data_set, pixels, rgb, write

LOSSLESS = ("jpeg-lossless/1", "jpeg-lossless-p14/1", "j2k/1", "rle/1")
GREYS = [
    Kind(("MONOCHROME1", "MONOCHROME2")[stored % 4 == 0], allocated, stored, signed, frames=frames)
    for (allocated, stored), signed, frames in product(
        ((8, 8), (8, 6), (16, 8), (16, 10), (16, 12), (16, 16)), (False, True), (1, 3)
    )
]
COLOURS = [
    Kind(photometric, bits, bits, planar=planar, frames=frames)
    for photometric, bits, planar, frames in product(("RGB", "YBR_FULL"), (8, 16), (0, 1), (1, 3))
]
PALETTES = [
    Kind("PALETTE COLOR", allocated, stored, frames=frames)
    for (allocated, stored), frames in product(((8, 8), (16, 8), (16, 12)), (1, 3))
]
LOSSY = {
    "jpeg-baseline-q90/1": (0xC0, 30.0),
    "jpeg-extended-q90/1": (0xC1, 35.0),
    "j2k-lossy-r8/1": (0, 30.0),
}
"""Start of frame and least PSNR (docs/compression.md)."""


@pytest.fixture(autouse=True)
def _quiet() -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def run(
    kind: Kind, recipe: str, tmp_path: Path, syntax: str = "explicit"
) -> tuple[numpy.ndarray, Dataset, ConformResult, Dataset]:
    """The samples, the instance before, what came of it, and the instance after."""
    cells = pixels(kind)
    before = data_set(kind, cells)
    source = write(before, tmp_path / "source", syntax)
    edits = Edits(new_sop_instance_uid="1.2.826.0.1.3680043.10.2") if is_lossy(recipe) else None
    result = conform(source, tmp_path / "target", recipe, edits=edits)
    return cells, before, result, pydicom.dcmread(tmp_path / "target")


def decoded(made: Dataset) -> numpy.ndarray:
    """Frames x rows x columns x samples, as pydicom and its plugins find them."""
    frames = numpy.stack(list(iter_pixels(made, raw=True)))
    return frames if made.SamplesPerPixel > 1 else frames[..., None]


def frames_of(made: Dataset) -> list[bytes]:
    return list(generate_frames(made.PixelData, number_of_frames=int(made.get("NumberOfFrames", 1))))


def markers(frame: bytes) -> tuple[int, int, tuple[int, int, int], int]:
    """Start of frame, precision, the scan's parameters, and how many scans there are (T.81 B.2)."""
    at, found = 2, (0, 0)
    while frame[at + 1] != 0xDA:
        if 0xC0 <= frame[at + 1] <= 0xCF and frame[at + 1] not in (0xC4, 0xC8, 0xCC):
            found = (frame[at + 1], frame[at + 4])
        at += 2 + struct.unpack_from(">H", frame, at + 2)[0]
    components = frame[at + 4]
    selection, end, approximation = frame[at + 5 + 2 * components : at + 8 + 2 * components]
    return *found, (selection, end, approximation), frame.count(b"\xff\xda")


def lossless_marks(frame: bytes, recipe: str, kind: Kind) -> None:
    if recipe.startswith("jpeg"):
        start, precision, scan, scans = markers(frame)
        assert (start, scan, scans) == (0xC3, (1, 0, 0), 1)  # process 14, selection value 1, no point transform
        assert precision >= kind.stored or kind.photometric == "PALETTE COLOR"
        assert frame.rstrip(b"\0").endswith(b"\xff\xd9")
    elif recipe.startswith("j2k"):
        assert frame.startswith(b"\xff\x4f\xff\x51")
        assert frame[frame.index(b"\xff\x52") + 13] == 1  # the reversible wavelet
    else:
        assert int.from_bytes(frame[:4], "little") == kind.samples * kind.allocated // 8


@pytest.mark.parametrize("recipe", LOSSLESS)
@pytest.mark.parametrize("kind", [*GREYS, *COLOURS, *PALETTES], ids=str)
def test_lossless_is_bit_for_bit(kind: Kind, recipe: str, tmp_path: Path) -> None:
    cells, before, result, after = run(kind, recipe, tmp_path)
    assert after.file_meta.TransferSyntaxUID == result.transfer_syntax_uid == recipe_syntax(recipe)
    assert after.SOPInstanceUID == before.SOPInstanceUID
    assert "LossyImageCompression" not in after
    for frame in frames_of(after):
        lossless_marks(frame, recipe, kind)
    if kind.photometric == "PALETTE COLOR" and recipe != "rle/1":
        cells = numpy.stack([apply_color_lut(frame[..., 0], before) >> 8 for frame in cells])
        assert after.BitsAllocated == after.BitsStored == 8
        assert not [element for element in after if 0x00281100 <= element.tag < 0x00281300]
    else:
        assert (after.BitsStored, after.HighBit, after.PixelRepresentation) == (
            kind.stored, kind.stored - 1, int(kind.signed)
        )  # fmt: skip
    expected = {"j2k/1": {"RGB": "YBR_RCT", "PALETTE COLOR": "YBR_RCT"}, "rle/1": {}}.get(
        recipe, {"PALETTE COLOR": "RGB"}
    )
    assert after.PhotometricInterpretation == expected.get(kind.photometric, kind.photometric)
    assert after.get("PlanarConfiguration", 0) == 0
    assert numpy.array_equal(decoded(after), cells)


@pytest.mark.parametrize("recipe", [*LOSSLESS, "jpeg-extended-q90/1"])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_whatever_the_source_is_encoded_in(syntax: str, recipe: str, tmp_path: Path) -> None:
    kind = Kind(frames=2)
    run(kind, recipe, tmp_path)
    expected = decoded(pydicom.dcmread(tmp_path / "target"))
    *_, after = run(kind, recipe, tmp_path, syntax)
    assert numpy.array_equal(decoded(after), expected)


def psnr(one: numpy.ndarray, other: numpy.ndarray, peak: float) -> float:
    mean = float(numpy.mean((one.astype("f8") - other.astype("f8")) ** 2))
    return 10 * numpy.log10(peak * peak / mean) if mean else numpy.inf


def values(made: Dataset, cells: numpy.ndarray) -> numpy.ndarray:
    """What the modality LUT gives."""
    return cells.astype("f8") * float(made.get("RescaleSlope", 1)) + float(made.get("RescaleIntercept", 0))


@pytest.mark.parametrize("recipe", LOSSY)
@pytest.mark.parametrize("kind", GREYS, ids=str)
def test_lossy_grey_keeps_the_modality_luts_output(kind: Kind, recipe: str, tmp_path: Path) -> None:
    cells, before, result, after = run(kind, recipe, tmp_path)
    if recipe.startswith("jpeg-baseline") and kind.stored > 8:
        assert result.transfer_syntax_uid == "1.2.840.10008.1.2.1"
        assert any("grey levels are more than" in change.new for change in result.changes)
        return
    assert after.file_meta.TransferSyntaxUID == recipe_syntax(recipe)
    start, least = LOSSY[recipe]
    if start:
        bits = 8 if kind.stored <= 8 else 12
        assert (after.PixelRepresentation, after.BitsStored, after.HighBit) == (0, bits, bits - 1)
        assert after.BitsAllocated == (8 if bits == 8 else 16)
        for frame in frames_of(after):
            assert markers(frame) == (start, bits, (0, 63, 0), 1)
    else:
        assert (after.PixelRepresentation, after.BitsStored) == (int(kind.signed), kind.stored)
        for frame in frames_of(after):
            assert frame.startswith(b"\xff\x4f\xff\x51") and frame[frame.index(b"\xff\x52") + 13] == 0
    out = values(after, decoded(after))
    peak = max(int(cells.max()) - int(cells.min()), 255)
    assert psnr(values(before, cells), out, peak) >= least
    assert abs(numpy.median(out - cells)) <= peak / 250  # nothing is shifted


@pytest.mark.parametrize("recipe", LOSSY)
@pytest.mark.parametrize("kind", [kind for kind in (*COLOURS, *PALETTES) if kind.stored != 12], ids=str)
def test_lossy_colour(kind: Kind, recipe: str, tmp_path: Path) -> None:
    cells, before, result, after = run(kind, recipe, tmp_path)
    if kind.photometric == "PALETTE COLOR":
        cells = numpy.stack([apply_color_lut(frame[..., 0], before) >> 8 for frame in cells])
    if result.transfer_syntax_uid == "1.2.840.10008.1.2.1":
        why = next(change.new for change in result.changes if change.tag == "(7FE0,0010)")
        # 16 bits a colour, and the many hard edges of a palette's colours: there lossy codecs lose too much
        assert (kind.stored == 16 and "have 16 bits" in why) or ("dB" in why and kind.photometric == "PALETTE COLOR")
        return
    assert after.file_meta.TransferSyntaxUID == recipe_syntax(recipe)
    start, least = LOSSY[recipe]
    assert after.PhotometricInterpretation == ("YBR_FULL_422" if start else "YBR_ICT")
    assert (after.SamplesPerPixel, after.PlanarConfiguration, after.PixelRepresentation) == (3, 0, 0)
    assert not [element for element in after if 0x00281100 <= element.tag < 0x00281300]
    for frame in frames_of(after):
        if start:
            assert markers(frame)[0] == start
            at = frame.index(b"\xff" + bytes([start]))
            assert [frame[at + 11 + 3 * index] for index in range(3)] == [0x21, 0x11, 0x11]  # 4:2:2
        else:
            at = frame.index(b"\xff\x52")
            assert (frame[at + 8], frame[at + 13]) == (1, 0)  # with its colour transform, irreversible
    found = numpy.stack(list(iter_pixels(after)))  # pydicom makes RGB of YBR_FULL_422 and YBR_ICT
    assert psnr(rgb(cells, kind.photometric), found, (1 << kind.stored) - 1) >= least


def test_offsets_of_every_frame(tmp_path: Path) -> None:
    for recipe in (*LOSSLESS, *LOSSY):
        *_, after = run(Kind(allocated=8, stored=8, frames=5), recipe, tmp_path)
        count = struct.unpack_from("<I", after.PixelData, 4)[0] // 4
        assert count == 5
        start = 8 + 4 * count
        for number, offset in enumerate(struct.unpack_from("<5I", after.PixelData, 8)):
            tag, length = struct.unpack_from("<4sI", after.PixelData, start + offset)
            assert tag == b"\xfe\xff\x00\xe0"
            assert after.PixelData[start + offset + 8 :][:length].rstrip(b"\0") == frames_of(after)[number].rstrip(
                b"\0"
            )
