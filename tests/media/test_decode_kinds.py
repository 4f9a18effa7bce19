"""JPEG-LS and High-Throughput JPEG 2000: frames that other libraries encoded, decoded bit for bit, and hostile ones."""

from __future__ import annotations

import warnings
from pathlib import Path

import imagecodecs
import numpy
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import UID

from media.conform import conform
from media.problems import InstanceRefused
from tests.media.images import Kind, data_set, pixels

JPEG_LS, HTJ2K = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.201"
KINDS = (
    Kind(allocated=8, stored=8),
    Kind(stored=12, frames=3),
    Kind(stored=16),
    Kind("RGB", 8, 8, frames=2),
)


@pytest.fixture(autouse=True)
def _quiet() -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _encode(syntax: str, frame: numpy.ndarray, kind: Kind) -> bytes:
    image = frame if kind.samples > 1 else frame[..., 0]
    if syntax == JPEG_LS:
        return bytes(imagecodecs.jpegls_encode(image))
    return bytes(imagecodecs.htj2k_encode(image, reversible=True))


def _made(syntax: str, kind: Kind, path: Path, *, cut: int | None = None) -> numpy.ndarray:
    cells = pixels(kind)
    frames = [_encode(syntax, frame, kind) for frame in cells]
    if cut is not None:
        frames[cut] = frames[cut][: len(frames[cut]) // 3]
    made = data_set(kind, cells)
    if syntax == HTJ2K and kind.samples > 1:
        made.PhotometricInterpretation = "YBR_RCT"
    made.PixelData = encapsulate(frames)
    made["PixelData"].VR = "OB"
    made["PixelData"].is_undefined_length = True
    made.file_meta.TransferSyntaxUID = UID(syntax)
    made.save_as(path, enforce_file_format=True)
    return cells


@pytest.mark.parametrize("recipe", ["explicit-le/1", "jpeg-lossless/1", "rle/1"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("syntax", [JPEG_LS, HTJ2K])
def test_bit_for_bit(syntax: str, kind: Kind, recipe: str, tmp_path: Path) -> None:
    cells = _made(syntax, kind, tmp_path / "source")
    conform(tmp_path / "source", tmp_path / "target", recipe)
    after = pydicom.dcmread(tmp_path / "target")
    found = numpy.stack(list(iter_pixels(after, raw=True)))
    assert numpy.array_equal(found if kind.samples > 1 else found[..., None], cells)
    assert after.PhotometricInterpretation == kind.photometric


@pytest.mark.parametrize("syntax", [JPEG_LS, HTJ2K])
def test_a_frame_that_is_cut_off_is_named(syntax: str, tmp_path: Path) -> None:
    _made(syntax, Kind(stored=12, frames=3), tmp_path / "source", cut=1)
    with pytest.raises(InstanceRefused, match="frame 2 of 3 cannot be decoded") as refused:
        conform(tmp_path / "source", tmp_path / "target", "explicit-le/1")
    assert "1.2.826.0.1.3680043.10.1" in str(refused.value)
    assert not (tmp_path / "target").exists()
