"""Compressed instances as other programs decode and judge them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy
import pydicom
import pytest
from pydicom.data import get_testdata_file

from media.conform import conform

FILES = ("CT_small.dcm", "MR_small_implicit.dcm", "SC_rgb_rle_2frame.dcm", "SC_rgb_rle_16bit_2frame.dcm")
JPEG = ("jpeg-lossless/1", "jpeg-lossless-p14/1")


def _made(name: str, recipe: str, tmp_path: Path) -> tuple[Path, Path]:
    source = Path(str(get_testdata_file(name, download=False)))
    plain, packed = tmp_path / "plain.dcm", tmp_path / "packed.dcm"
    conform(source, plain, "explicit-le/1")
    conform(source, packed, recipe)
    return plain, packed


def _same(plain: Path, decoded: Path) -> None:
    """Decoded samples colour-by-pixel, bit for bit."""
    one, other = (pydicom.dcmread(path) for path in (plain, decoded))
    assert not other.file_meta.TransferSyntaxUID.is_compressed
    assert numpy.array_equal(one.pixel_array, other.pixel_array)


@pytest.mark.peer("dcmdjpeg")
@pytest.mark.parametrize("recipe", JPEG)
@pytest.mark.parametrize("name", FILES)
def test_dcmtk_decodes_jpeg_lossless(name: str, recipe: str, tmp_path: Path) -> None:
    plain, packed = _made(name, recipe, tmp_path)
    subprocess.run(["dcmdjpeg", "+cn", packed, tmp_path / "decoded.dcm"], check=True, timeout=60)
    _same(plain, tmp_path / "decoded.dcm")


@pytest.mark.peer("dcmdrle")
@pytest.mark.parametrize("name", FILES)
def test_dcmtk_decodes_rle(name: str, tmp_path: Path) -> None:
    plain, packed = _made(name, "rle/1", tmp_path)
    subprocess.run(["dcmdrle", packed, tmp_path / "decoded.dcm"], check=True, timeout=60)
    _same(plain, tmp_path / "decoded.dcm")


@pytest.mark.peer("gdcmconv")
@pytest.mark.parametrize("recipe", [*JPEG, "j2k/1", "rle/1"])
@pytest.mark.parametrize("name", FILES[:3])  # gdcmconv writes no copy of the fourth in any syntax, as received neither
def test_gdcm_decodes_all(name: str, recipe: str, tmp_path: Path) -> None:
    plain, packed = _made(name, recipe, tmp_path)
    subprocess.run(["gdcmconv", "--raw", packed, tmp_path / "decoded.dcm"], check=True, timeout=60)
    _same(plain, tmp_path / "decoded.dcm")


@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize("recipe", [*JPEG, "j2k/1", "rle/1"])
@pytest.mark.parametrize("name", FILES)
def test_dciodvfy_finds_no_new_error(name: str, recipe: str, tmp_path: Path) -> None:
    def errors(path: Path) -> set[str]:
        run = subprocess.run(["dciodvfy", path], capture_output=True, check=False, timeout=60)
        return {line for line in run.stderr.decode("latin-1").splitlines() if line.startswith("Error")}

    plain, packed = _made(name, recipe, tmp_path)
    assert errors(packed) <= errors(plain)
