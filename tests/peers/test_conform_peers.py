"""What other toolkits decode and re-encode from the same files, beside what we do."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import pixel_array

from media.conform import conform
from media.problems import InstanceRefused
from media.recipes import EXPLICIT_LE_RECIPE
from tests.media.test_conform import BIG, DEFLATED, FILES, IMPLICIT, PRE, comparable, packaged

pytestmark = pytest.mark.filterwarnings("ignore")


KNOWN_ERRORS = {
    # dciodvfy cannot inflate the source, so it finds its error only in ours.
    "image_dfl.dcm": {"Error - Missing attribute Type 2C Conditional Element=<Laterality> Module=<GeneralSeries>"},
    # An ultrasound image: PS3.3 C.8.5.6.1.2 has rules of its own for the colour of those, of which YBR_FULL is none.
    "examples_ybr_color.dcm": {
        "Error - Unrecognized enumerated value <YBR_FULL> for value 1 of attribute <Photometric Interpretation>",
        "Error - Unrecognized enumerated value <0> for value 1 of attribute <Planar Configuration>",
    },
}


def spoken(*command: object) -> tuple[str, int]:
    """All that a program says, and its exit status."""
    words = [str(word) for word in command]
    done = subprocess.run(words, check=False, capture_output=True, text=True, errors="replace", timeout=60)
    return done.stdout + done.stderr, done.returncode


def run(*command: object) -> str:
    """Output of a program that must succeed and must not complain of an error."""
    output, status = spoken(*command)
    assert status == 0, output[-2000:]
    assert not [line for line in output.splitlines() if line.startswith(("E:", "F:"))], output[-2000:]
    return output


def ours(source: Path, tmp_path: Path) -> Dataset:
    conform(source, tmp_path / "ours", EXPLICIT_LE_RECIPE)
    return pydicom.dcmread(tmp_path / "ours")


def by_pixel(dataset: Dataset) -> numpy.ndarray:
    return pixel_array(dataset, raw=True)


@pytest.mark.peer("dcmconv")
@pytest.mark.parametrize("name", [*FILES[IMPLICIT], *FILES[BIG], *FILES[DEFLATED]])
def test_dcmconv_makes_the_same_of_native_files(tmp_path: Path, name: str) -> None:
    mine = ours(packaged(name), tmp_path)
    run("dcmconv", "+te", packaged(name), tmp_path / "theirs")
    theirs = pydicom.dcmread(tmp_path / "theirs")
    one, other = comparable(mine), comparable(theirs)
    standard = {tag for tag in one.keys() | other.keys() if not int(tag[1:5], 16) & 1}
    assert {tag: one.get(tag) for tag in standard} == {tag: other.get(tag) for tag in standard}
    assert one.keys() == other.keys()
    if "PixelData" in theirs and not (mine.BitsAllocated == 32 and name in FILES[BIG]):
        assert mine.PixelData == theirs.PixelData, "32-bit cells of big endian files it swaps by words, against pydicom"


@pytest.mark.peer("dcmdjpeg")
@pytest.mark.parametrize("name", FILES[f"{PRE}4.70"])
def test_dcmdjpeg_decodes_lossless_jpeg_alike(tmp_path: Path, name: str) -> None:
    run("dcmdjpeg", "+te", packaged(name), tmp_path / "theirs")
    assert numpy.array_equal(by_pixel(ours(packaged(name), tmp_path)), by_pixel(pydicom.dcmread(tmp_path / "theirs")))


@pytest.mark.peer("dcmdjpeg")
@pytest.mark.parametrize("name", [*FILES[f"{PRE}4.50"], *FILES[f"{PRE}4.51"]])
def test_dcmdjpeg_decodes_lossy_jpeg_closely(tmp_path: Path, name: str) -> None:
    """Without colour conversion. Decoders differ in their inverse DCT by a step or two, and in how they upsample."""
    run("dcmdjpeg", "+te", "+cn", packaged(name), tmp_path / "theirs")
    mine = ours(packaged(name), tmp_path)
    theirs = pydicom.dcmread(tmp_path / "theirs")
    difference = numpy.abs(by_pixel(mine).astype(int) - by_pixel(theirs).astype(int))
    scale = 16 if mine.BitsStored > 8 else 1
    assert difference.mean() < 3 * scale
    if pydicom.dcmread(packaged(name)).PhotometricInterpretation != "YBR_FULL_422":
        assert difference.max() <= 3 * scale


@pytest.mark.peer("dcmdjpls")
@pytest.mark.parametrize("name", [*FILES[f"{PRE}4.80"], *FILES[f"{PRE}4.81"]])
def test_dcmdjpls_decodes_jpeg_ls_alike(tmp_path: Path, name: str) -> None:
    run("dcmdjpls", "+te", packaged(name), tmp_path / "theirs")
    assert numpy.array_equal(by_pixel(ours(packaged(name), tmp_path)), by_pixel(pydicom.dcmread(tmp_path / "theirs")))


@pytest.mark.peer("dcmdrle")
@pytest.mark.parametrize("name", FILES[f"{PRE}5"])
def test_dcmdrle_decodes_rle_alike(tmp_path: Path, name: str) -> None:
    run("dcmdrle", "+te", packaged(name), tmp_path / "theirs")
    assert numpy.array_equal(by_pixel(ours(packaged(name), tmp_path)), by_pixel(pydicom.dcmread(tmp_path / "theirs")))


@pytest.mark.peer("gdcmconv")
@pytest.mark.parametrize("name", [*FILES[f"{PRE}4.90"], *FILES[f"{PRE}4.80"], *FILES[f"{PRE}4.70"]])
def test_gdcm_decodes_lossless_files_alike(tmp_path: Path, name: str) -> None:
    run("gdcmconv", "--raw", "--force", packaged(name), tmp_path / "theirs")
    mine, theirs = ours(packaged(name), tmp_path), pydicom.dcmread(tmp_path / "theirs")
    assert numpy.array_equal(by_pixel(mine), by_pixel(theirs))


@pytest.mark.peer("dcmdump")
@pytest.mark.parametrize("name", [name for names in FILES.values() for name in names])
def test_dcmdump_reads_what_we_write(tmp_path: Path, name: str) -> None:
    ours(packaged(name), tmp_path)
    assert "LittleEndianExplicit" in run("dcmdump", "+P", "0002,0010", tmp_path / "ours")


@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize("name", [name for names in FILES.values() for name in names])
def test_dciodvfy_finds_no_new_error(tmp_path: Path, name: str) -> None:
    ours(packaged(name), tmp_path)

    def errors(path: Path) -> set[str]:
        return {line for line in spoken("dciodvfy", path)[0].splitlines() if line.startswith("Error")}

    assert errors(tmp_path / "ours") - errors(packaged(name)) <= KNOWN_ERRORS.get(name, set())


@pytest.mark.shared_data
@pytest.mark.peer("dcmdump")
def test_real_files_are_conformed_or_refused_with_a_reason(tmp_path: Path, shared_data: Path) -> None:
    refused: dict[str, str] = {}
    done = 0
    for path in sorted(path for path in shared_data.rglob("*") if path.is_file() and "nondicom" not in path.parts):
        try:
            conform(path, tmp_path / "ours", EXPLICIT_LE_RECIPE)
        except InstanceRefused as error:
            refused[str(path.relative_to(shared_data))] = error.reason
            continue
        done += 1
        mine = pydicom.dcmread(tmp_path / "ours")
        assert mine.file_meta.TransferSyntaxUID == f"{PRE}1"
        if done % 8 == 0:
            run("dcmdump", "-q", tmp_path / "ours")
    strange = {
        name for name in refused if not name.startswith("bad/") and "DICOMDIR" not in name and "README" not in name
    }
    assert strange == {
        "sm/wsi_140tiles_jpeg.dcm",  # its tiles at the edge are smaller than Rows and Columns say
        "ts/JLSL_RGB_ILV1.dcm",  # no SOP Instance UID
        "ts/JLSN_RGB_ILV0.dcm",
    }
    assert done > 200
