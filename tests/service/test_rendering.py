"""Pictures of frames: any frame, any window, and helpers that crash or hang without harm."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, SecondaryCaptureImageStorage

from media.problems import InstanceRefused
from service import rendering
from service.rendering import Renderer


def packaged(name: str) -> Path:
    found = get_testdata_file(name)
    assert found
    return Path(str(found))


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    made = Renderer(helpers=2)
    yield made
    made.close()


def test_a_picture_is_as_large_as_the_frame_at_most(renderer: Renderer) -> None:
    found = renderer.picture(packaged("CT_small.dcm"), size=2048)
    assert (found.rows, found.columns) == (128, 128)
    assert imagecodecs.png_decode(found.png).shape == (128, 128)
    small = renderer.picture(packaged("CT_small.dcm"), size=32)
    assert imagecodecs.png_decode(small.png).shape == (32, 32)


def test_a_window_changes_what_is_seen(renderer: Renderer) -> None:
    path = packaged("CT_small.dcm")
    found = renderer.picture(path)
    assert found.window is not None
    assert found.spread is not None
    bright = imagecodecs.png_decode(renderer.picture(path, window=(-2000.0, 10.0)).png)
    dark = imagecodecs.png_decode(renderer.picture(path, window=(5000.0, 10.0)).png)
    assert bright.min() == 255
    assert dark.max() == 0
    wide = imagecodecs.png_decode(renderer.picture(path, window=found.spread).png)
    assert len(numpy.unique(wide)) > 100


def test_every_frame_can_be_seen(renderer: Renderer) -> None:
    path = packaged("rtdose.dcm")
    first, last = renderer.picture(path, frame=1), renderer.picture(path, frame=15)
    assert (first.frame, last.frame, first.frames) == (1, 15, 15)
    assert first.png != last.png
    with pytest.raises(InstanceRefused, match="no frame 16"):
        renderer.picture(path, frame=16)


def test_compressed_frames_too(renderer: Renderer) -> None:
    path = packaged("examples_ybr_color.dcm")
    found = [renderer.picture(path, frame=number, size=64) for number in (1, 15, 30)]
    assert {one.frames for one in found} == {30}
    assert found[0].window is None
    assert len({one.png for one in found}) == 3


def test_what_has_no_image_is_refused_in_words(renderer: Renderer) -> None:
    with pytest.raises(InstanceRefused, match="Pixel Data"):
        renderer.picture(packaged("rtplan.dcm"))


def test_what_is_no_dicom_is_refused_in_words(renderer: Renderer, tmp_path: Path) -> None:
    path = tmp_path / "noise"
    path.write_bytes(bytes(range(256)) * 40)
    with pytest.raises(InstanceRefused):
        renderer.picture(path)


def test_a_file_that_is_gone_is_not_shown_any_more(renderer: Renderer, tmp_path: Path) -> None:
    path = tmp_path / "one.dcm"
    path.write_bytes(packaged("CT_small.dcm").read_bytes())
    assert renderer.picture(path).png
    path.unlink()
    with pytest.raises(FileNotFoundError):
        renderer.picture(path)


def test_a_helper_that_crashes_costs_one_picture(tmp_path: Path) -> None:
    crashing = [sys.executable, "-c", "import os, sys; sys.stdin.readline(); os.abort()"]
    one = Renderer(helpers=1, command=crashing)
    for _ in range(2):
        with pytest.raises(InstanceRefused, match="crashed"):
            one.picture(packaged("CT_small.dcm"))
    one.close()


def test_a_helper_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.rendering._LIMIT_SECONDS", 0.3)
    one = Renderer(helpers=1, command=[sys.executable, "-c", "import time; time.sleep(60)"])
    with pytest.raises(InstanceRefused, match="did not end"):
        one.picture(packaged("CT_small.dcm"))
    one.close()


def hollow(path: Path, side: int, *, compressed: bool = False) -> Path:
    """A file that says it has a grey image so wide and high; of its pixel data there are holes, or hardly anything."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = JPEG2000Lossless if compressed else ExplicitVRLittleEndian
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    image.Rows = image.Columns = side
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 8, 8, 7, 0
    size = 0 if compressed else side * side
    if compressed:
        image.PixelData = encapsulate([bytes(imagecodecs.jpeg2k_encode(numpy.zeros((8, 8), "u1"), codecformat="j2k"))])
    image.save_as(path, enforce_file_format=True)
    if size:
        with path.open("r+b") as file:
            file.seek(0, 2)
            file.write(struct.pack("<HH2s2xI", 0x7FE0, 0x0010, b"OW", size))
            file.truncate(file.tell() + size)
    return path


@pytest.mark.parametrize("compressed", [False, True])
def test_a_frame_that_is_too_large_is_not_even_begun(renderer: Renderer, tmp_path: Path, compressed: bool) -> None:
    path = hollow(tmp_path / "bomb.dcm", 20_000 if not compressed else 65_535, compressed=compressed)
    with pytest.raises(InstanceRefused, match=r"a frame of \d+ x \d+ has \d+ bytes; the limit is 268435456"):
        renderer.picture(path)
    with pytest.raises(InstanceRefused, match="the limit is 268435456"):
        renderer.samples(path, 1)


def test_a_helper_has_so_much_memory_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = hollow(tmp_path / "large.dcm", 6_000)
    monkeypatch.setattr(rendering, "_memory", lambda _helpers: 300 << 20)
    one = Renderer(helpers=1)
    try:
        with pytest.raises(InstanceRefused, match="more memory than the 300 MiB that one picture may have"):
            one.picture(path)
        assert one.picture(packaged("CT_small.dcm")).rows == 128
    finally:
        one.close()
