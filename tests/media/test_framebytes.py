"""Frames as they lie in a file, held against pydicom's reading."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import generate_frames

from media.framebytes import Frames, NoSuchFrame
from media.problems import InstanceRefused
from tests.makers import make


def raw(frames: Frames, number: int) -> bytes:
    found = frames.frame(number)
    data = b"".join(found.pieces)
    assert len(data) == found.length
    return data


@pytest.mark.parametrize(
    "name",
    [
        "SC_rgb_rle_2frame.dcm",
        "examples_ybr_color.dcm",
        "examples_jpeg2k.dcm",
        "MR_small_RLE.dcm",
        "JPEGLSNearLossless_08.dcm",
    ],
)
def test_compressed_frames(name: str) -> None:
    path = Path(get_testdata_file(name))
    dataset = dcmread(path)
    with Frames(path) as frames:
        assert frames.compressed and frames.count == int(dataset.get("NumberOfFrames", 1))
        expected = list(generate_frames(dataset.PixelData, number_of_frames=frames.count))
        for number in (frames.count, 1):
            assert raw(frames, number).rstrip(b"\0") == expected[number - 1].rstrip(b"\0")
        if dataset.PhotometricInterpretation in ("MONOCHROME2", "RGB"):
            form = (dataset.Rows, dataset.Columns, dataset.SamplesPerPixel)
            shape = (form[2], form[0], form[1]) if dataset.get("PlanarConfiguration") else form
            cells = numpy.frombuffer(frames.decoded(1), f"u{dataset.BitsAllocated // 8}").reshape(shape)
            if dataset.get("PlanarConfiguration"):
                cells = cells.transpose(1, 2, 0)
            array = dataset.pixel_array if frames.count == 1 else dataset.pixel_array[0]
            assert (cells.squeeze() == array.view(cells.dtype)).all()


@pytest.mark.parametrize(
    "name",
    [
        "rtdose.dcm",
        "liver_1frame.dcm",
        "MR_small_bigendian.dcm",
        "rtdose_expb.dcm",
        "liver_expb_1frame.dcm",
        "image_dfl.dcm",
    ],
)
def test_native_frames(name: str) -> None:
    path = Path(get_testdata_file(name))
    dataset = dcmread(path)
    array = dataset.pixel_array
    with Frames(path) as frames:
        count = int(dataset.get("NumberOfFrames", 1))
        assert not frames.compressed and frames.count == count
        for number in range(1, count + 1):
            expected = array[number - 1] if count > 1 else array
            if dataset.get("BitsAllocated") == 1:
                assert raw(frames, number) == numpy.packbits(expected.ravel(), bitorder="little").tobytes()
            else:
                assert raw(frames, number) == expected.astype(expected.dtype.newbyteorder("<")).tobytes()
        with pytest.raises(NoSuchFrame, match=f"it has {count} frames"):
            frames.frame(count + 1)


def test_what_has_no_frames(tmp_path: Path) -> None:
    with pytest.raises(NoSuchFrame):
        Frames(make("SR").write(tmp_path / "sr.dcm"))
    with Frames(make("CT", NumberOfFrames="3").write(tmp_path / "few.dcm")) as frames, pytest.raises(InstanceRefused):
        frames.frame(3)
    with pytest.raises(InstanceRefused, match="Bits Allocated"):
        Frames(make("CT", BitsAllocated=None).write(tmp_path / "bits.dcm"))
