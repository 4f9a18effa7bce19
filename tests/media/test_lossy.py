"""Lossy compression: what the data set says afterwards, that values mean what they meant, and what is never lossy."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.pixels.utils import iter_pixels
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid

from media.conform import ConformResult, conform
from media.edits import Edits
from media.encoders import encoders, lossy_encoders
from media.items import Header
from media.problems import InstanceRefused, MediaError
from media.profiles import profile
from media.recipes import Quality, is_lossy, recipe_for, recipe_syntax
from tests.media.images import CT, SECONDARY_CAPTURE, Kind, data_set, pixels, write

NEW = "1.2.826.0.1.3680043.10.2"
EXTENDED, J2K, BASELINE = "jpeg-extended-q90/1", "j2k-lossy-r8/1", "jpeg-baseline-q90/1"
EXPLICIT_LE = "1.2.840.10008.1.2.1"


@pytest.fixture(autouse=True)
def _quiet() -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def made(kind: Kind, sop_class: str = "") -> Dataset:
    """CT, or Secondary Capture for 8 bits, which CT does not have."""
    return data_set(kind, pixels(kind), sop_class or (CT if kind.allocated == 16 else SECONDARY_CAPTURE))


def run(before: Dataset, tmp_path: Path, recipe: str = EXTENDED) -> tuple[ConformResult, Dataset]:
    source = write(before, tmp_path / "source")
    result = conform(source, tmp_path / "target", recipe, edits=Edits(new_sop_instance_uid=NEW))
    return result, pydicom.dcmread(tmp_path / "target")


def told(result: ConformResult) -> dict[str, tuple[str, str]]:
    return {change.tag: (change.old, change.new) for change in result.changes}


def samples(after: Dataset) -> numpy.ndarray:
    return numpy.stack(list(iter_pixels(after, raw=True)))


def codes(item: Dataset) -> dict[str, str]:
    return {element.keyword: str(element.value) for element in item}


@pytest.mark.parametrize(
    ("recipe", "method"), [(EXTENDED, "ISO_10918_1"), (J2K, "ISO_15444_1"), (BASELINE, "ISO_10918_1")]
)
def test_what_is_said_of_it(recipe: str, method: str, tmp_path: Path) -> None:
    before = made(Kind(allocated=8, stored=8, frames=2))
    result, after = run(before, tmp_path, recipe)
    assert after.SOPInstanceUID == after.file_meta.MediaStorageSOPInstanceUID == NEW
    assert result.new_sop_instance_uid == NEW
    assert list(after.ImageType) == ["DERIVED", "PRIMARY", "AXIAL"]
    assert (after.LossyImageCompression, after.LossyImageCompressionMethod) == ("01", method)
    frames = [int.from_bytes(after.PixelData[at : at + 4], "little") for at in _item_lengths(after.PixelData)]
    measured = 2 * 48 * 39 / sum(frames)
    assert float(after.LossyImageCompressionRatio) == pytest.approx(measured, abs=0.005)
    assert after.DerivationDescription.startswith("DRS: JPEG")
    assert f"ratio {measured:.2f}" in after.DerivationDescription
    assert not after.DerivationDescription.endswith("\n")
    (source,) = after.SourceImageSequence
    assert (source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID) == (
        before.SOPClassUID, before.SOPInstanceUID
    )  # fmt: skip
    (purpose,) = source.PurposeOfReferenceCodeSequence
    group = {"MappingResource": "DCMR", "ContextGroupVersion": "20020904", "ContextGroupExtensionFlag": "N"}
    assert codes(purpose) == group | {
        "CodeValue": "121320",
        "CodingSchemeDesignator": "DCM",
        "CodeMeaning": "Uncompressed predecessor",
        "ContextIdentifier": "7202",
    }
    (derivation,) = after.DerivationCodeSequence
    assert codes(derivation) == group | {
        "CodeValue": "113040",
        "CodingSchemeDesignator": "DCM",
        "CodeMeaning": "Lossy Compression",
        "ContextIdentifier": "7203",
    }
    changes = told(result)
    assert changes["(0008,0018)"] == (before.SOPInstanceUID, NEW)
    assert changes["(0008,0008)"] == ("ORIGINAL\\PRIMARY\\AXIAL", "DERIVED\\PRIMARY\\AXIAL")
    assert changes["(0028,2110)"] == ("", "01")
    for tag in ("(0008,2111)", "(0008,2112)", "(0008,9215)", "(0028,2112)", "(0028,2114)", "(0002,0010)"):
        assert tag in changes
    assert {change.sop_instance_uid for change in result.changes} == {before.SOPInstanceUID}


def _item_lengths(value: bytes) -> list[int]:
    """Where the lengths of the fragments stand."""
    found, at = [], 8 + int.from_bytes(value[4:8], "little")
    while value[at : at + 4] == b"\xfe\xff\x00\xe0":
        found.append(at + 4)
        at += 8 + int.from_bytes(value[at + 4 : at + 8], "little")
    return found


def test_all_attributes_that_were_not_touched_stay(tmp_path: Path) -> None:
    source = Path(str(get_testdata_file("CT_small.dcm", download=False)))
    result = conform(source, tmp_path / "target", EXTENDED, edits=Edits(new_sop_instance_uid=NEW))
    before, after = pydicom.dcmread(source), pydicom.dcmread(tmp_path / "target")
    changed = {int(change.tag[1:5] + change.tag[6:10], 16) for change in result.changes}
    same = {element.tag for element in before if int(element.tag) not in changed and element.tag.element}
    same -= {0x7FE00010, 0xFFFCFFFC}
    assert len(same) > 60
    assert all(before[tag] == after[tag] for tag in same)
    assert {int(element.tag) for element in after} - {int(element.tag) for element in before} <= changed


def test_a_second_loss_is_appended(tmp_path: Path) -> None:
    before = made(Kind(allocated=8, stored=8))
    before.ImageType = ["DERIVED", "SECONDARY"]
    before.LossyImageCompression, before.LossyImageCompressionRatio = "01", "3.5"
    before.LossyImageCompressionMethod = "ISO_14495_1"
    before.DerivationDescription = "DRS: the first\r\nby hand"
    before.SourceImageSequence = Sequence([Dataset(), Dataset()])
    for item in before.SourceImageSequence:
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT, generate_uid()
    before.DerivationCodeSequence = Sequence([Dataset()])
    before.DerivationCodeSequence[0].CodeValue = "113085"
    earlier = [item.ReferencedSOPInstanceUID for item in before.SourceImageSequence]
    result, after = run(before, tmp_path, J2K)
    ratios = [float(value) for value in after.LossyImageCompressionRatio]
    assert ratios[0] == 3.5 and len(ratios) == 2
    assert list(after.LossyImageCompressionMethod) == ["ISO_14495_1", "ISO_15444_1"]
    first, *rest = after.DerivationDescription.split("\r\n")
    assert first.startswith("DRS: JPEG 2000") and rest == ["DRS: the first", "by hand"]
    assert [item.ReferencedSOPInstanceUID for item in after.SourceImageSequence] == [*earlier, before.SOPInstanceUID]
    assert [item.CodeValue for item in after.DerivationCodeSequence] == ["113085", "113040"]
    assert "(0028,2110)" not in told(result)


def test_a_long_history_loses_its_oldest_lines_only(tmp_path: Path) -> None:
    before = made(Kind(allocated=8, stored=8))
    lines = [f"line {number:02} {'x' * 50}" for number in range(17)]
    before.DerivationDescription = "\r\n".join(lines)
    _, after = run(before, tmp_path)
    kept = after.DerivationDescription.split("\r\n")
    assert len(after.DerivationDescription) <= 1024
    assert len(kept) > 12 and kept[1:] == lines[: len(kept) - 1]


def test_no_image_type_becomes_the_least_that_is_one(tmp_path: Path) -> None:
    before = made(Kind(allocated=8, stored=8))
    del before.ImageType
    _, after = run(before, tmp_path)
    assert list(after.ImageType) == ["DERIVED", "SECONDARY"]


# -- values mean what they meant -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "stored", "signed", "intercept", "slope", "expected"),
    [
        (0, 4095, 12, False, "-1024", "1", ("-1024", "1")),
        (0, 4095, 16, False, "-1024", "1", ("-1024", "1")),
        (-1024, 3071, 16, True, "0", "1", ("-1024", "1")),
        (-2000, 2000, 16, True, "-24", "0.5", ("-1024", "0.5")),
        (-1024, 30000, 16, True, "0", "1", ("-1024", "8")),
        (30000, 33000, 16, False, "5", "2", ("60005", "2")),
        (0, 65535, 16, False, "0", "0.000123456789012", ("0", "0.00209876541320")),
    ],
)
def test_rescale_makes_up_for_jpegs_range(
    low: int,
    high: int,
    stored: int,
    signed: bool,
    intercept: str,
    slope: str,
    expected: tuple[str, str],
    tmp_path: Path,
) -> None:
    kind = Kind(stored=stored, signed=signed)
    cells = numpy.rint(numpy.linspace(low, high, 48 * 39)).reshape(1, 48, 39, 1).astype("<i2" if signed else "<u2")
    before = data_set(kind, cells, CT)
    before.RescaleIntercept, before.RescaleSlope = intercept, slope
    _, after = run(before, tmp_path)
    assert (after.PixelRepresentation, after.BitsStored, after.HighBit, after.BitsAllocated) == (0, 12, 11, 16)
    assert str(after.RescaleIntercept) == expected[0]
    assert float(after.RescaleSlope) == pytest.approx(float(expected[1]), rel=1e-9)
    assert all(len(after[tag].value.original_string) <= 16 for tag in ("RescaleSlope", "RescaleIntercept"))
    out = samples(after).reshape(-1) * float(after.RescaleSlope) + float(after.RescaleIntercept)
    due = cells.reshape(-1).astype("f8") * float(slope) + float(intercept)
    assert numpy.abs(out - due).max() <= (high - low) * float(slope) / 100
    assert "RescaleType" not in after


def test_rescale_is_added_where_there_is_none(tmp_path: Path) -> None:
    before = made(Kind(stored=12, signed=True))
    result, after = run(before, tmp_path)
    assert (after.RescaleIntercept, after.RescaleSlope, after.RescaleType) == (-2048, 1, "US")
    changes = told(result)
    assert changes["(0028,1052)"] == ("", "-2048") and changes["(0028,0103)"] == ("1", "0")


def test_jpeg_2000_needs_no_rescale(tmp_path: Path) -> None:
    before = made(Kind(stored=16, signed=True))
    _, after = run(before, tmp_path, J2K)
    assert "RescaleSlope" not in after
    assert (after.PixelRepresentation, after.BitsStored) == (1, 16)


@pytest.mark.parametrize("recipe", [EXTENDED, J2K])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_modality_lut_is_applied(bits: int, signed: bool, recipe: str, tmp_path: Path) -> None:
    kind = Kind(stored=10, signed=signed)
    cells = pixels(kind)
    first = -500 if signed else 20
    table = numpy.linspace((1 << bits) - 1, 3, 900).astype("<u2")
    before = data_set(kind, cells, "1.2.840.10008.5.1.4.1.1.1")  # Computed Radiography
    lut = Dataset()
    lut.add_new(0x00283002, "SS" if signed else "US", [900, first, bits])
    lut.ModalityLUTType = "OD"
    lut.add_new(0x00283006, "OW", table.tobytes())
    before.ModalityLUTSequence = Sequence([lut])
    result, after = run(before, tmp_path, recipe)
    assert "ModalityLUTSequence" not in after
    assert told(result)["(0028,3000)"] == ("present", "removed: it is applied to the samples")
    due = table[numpy.clip(cells.astype("i4") - first, 0, 899)].reshape(-1).astype("f8")
    slope, intercept = float(after.get("RescaleSlope", 1)), float(after.get("RescaleIntercept", 0))
    assert (slope != 1) == (bits == 16 and recipe == EXTENDED)
    assert after.get("RescaleType") == ("OD" if slope != 1 else None)
    out = samples(after).reshape(-1) * slope + intercept
    assert numpy.sqrt(numpy.mean((out - due) ** 2)) <= (1 << bits) / 50


def test_padding_and_extremes(tmp_path: Path) -> None:
    before = made(Kind())
    before.add_new(0x00280120, "US", 0)
    before.add_new(0x00280121, "US", 5)
    for tag in range(0x00280106, 0x0028010A):
        before.add_new(tag, "US", 7)
    result, after = run(before, tmp_path)
    assert "PixelPaddingValue" not in after and "PixelPaddingRangeLimit" not in after
    assert "SmallestPixelValueInSeries" not in after and "LargestPixelValueInSeries" not in after
    found = samples(after)
    assert abs(after.SmallestImagePixelValue - int(found.min())) <= 2  # decoders differ by as much
    assert abs(after.LargestImagePixelValue - int(found.max())) <= 2
    assert {"(0028,0106)", "(0028,0107)", "(0028,0108)", "(0028,0109)", "(0028,0120)", "(0028,0121)"} <= set(
        told(result)
    )


def test_padding_stays_where_nothing_is_lost(tmp_path: Path) -> None:
    before = made(Kind())
    before.add_new(0x00280120, "US", 0)
    write(before, tmp_path / "source")
    conform(tmp_path / "source", tmp_path / "target", "jpeg-lossless/1")
    assert pydicom.dcmread(tmp_path / "target").PixelPaddingValue == 0


def test_frame_types_become_derived(tmp_path: Path) -> None:
    before = made(Kind(frames=2), "1.2.840.10008.5.1.4.1.1.2.1")
    frame = Dataset()
    frame.CTImageFrameTypeSequence = Sequence([Dataset()])
    frame.CTImageFrameTypeSequence[0].FrameType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    before.SharedFunctionalGroupsSequence = Sequence([frame])
    result, after = run(before, tmp_path, J2K)
    nested = after.SharedFunctionalGroupsSequence[0].CTImageFrameTypeSequence[0]
    assert list(nested.FrameType) == ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
    assert "(0008,9007)" in told(result)


@pytest.mark.parametrize(
    "name", ["MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "SC_rgb_rle_2frame.dcm", "JPGExtended.dcm"]
)
def test_compressed_sources(name: str, tmp_path: Path) -> None:
    source = Path(str(get_testdata_file(name, download=False)))
    recipe = BASELINE if "rgb" in name else EXTENDED
    conform(source, tmp_path / "plain", "explicit-le/1")
    result = conform(source, tmp_path / "target", recipe, edits=Edits(new_sop_instance_uid=NEW))
    plain, after = pydicom.dcmread(tmp_path / "plain"), pydicom.dcmread(tmp_path / "target")
    assert result.transfer_syntax_uid == recipe_syntax(recipe)
    before, found = (numpy.stack(list(iter_pixels(one))).astype("f8") for one in (plain, after))
    found = found * float(after.get("RescaleSlope", 1)) + float(after.get("RescaleIntercept", 0))
    before = before * float(plain.get("RescaleSlope", 1)) + float(plain.get("RescaleIntercept", 0))
    assert 20 * numpy.log10(max(numpy.ptp(before), 255) / numpy.sqrt(numpy.mean((before - found) ** 2))) >= 30


def test_the_same_again_gives_the_same_bytes(tmp_path: Path) -> None:
    before = made(Kind(frames=2))
    for recipe in (EXTENDED, J2K):
        first, _ = run(before, tmp_path, recipe)
        data = (tmp_path / "target").read_bytes()
        assert run(before, tmp_path, recipe)[0] == first
        assert (tmp_path / "target").read_bytes() == data


# -- what stays as it is ---------------------------------------------------------------------------------------------


def _functional_groups(made: Dataset) -> None:
    item = Dataset()
    item.PixelValueTransformationSequence = Sequence([Dataset()])
    item.PixelValueTransformationSequence[0].RescaleSlope = "2"
    made.SharedFunctionalGroupsSequence = Sequence([item])


def _real_world(made: Dataset) -> None:
    made.RealWorldValueMappingSequence = Sequence([Dataset()])


def _modality_lut(made: Dataset, **values: object) -> None:
    item = Dataset()
    item.add_new(0x00283002, "SS", values.get("descriptor", [900, 0, 16]))
    item.add_new(0x00283006, "OW", values.get("data", bytes(1800)))
    made.ModalityLUTSequence = Sequence([item] * int(str(values.get("count", 1))))


def _set(**attributes: object) -> Callable[[Dataset], None]:
    def change(made: Dataset) -> None:
        for name, value in attributes.items():
            setattr(made, name, value)

    return change


UNSUITABLE: dict[str, tuple[Callable[[Dataset], None], str]] = {
    "rescale in functional groups": (_functional_groups, "functional groups would be wrong"),
    "real world values": (_real_world, "real world value mapping would be wrong"),
    "DX": (_set(SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1"), "allows no rescaling"),
    "PET": (_set(SOPClassUID="1.2.840.10008.5.1.4.1.1.128"), "as many bits stored as allocated"),
    "Enhanced MR": (_set(SOPClassUID="1.2.840.10008.5.1.4.1.1.4.1"), "may not have"),
    "NM": (_set(SOPClassUID="1.2.840.10008.5.1.4.1.1.20"), "as many bits stored as allocated"),
    "RT Dose": (_set(SOPClassUID="1.2.840.10008.5.1.4.1.1.481.2"), "measures or labels"),
    "Segmentation": (_set(SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4"), "measures or labels"),
    "two modality LUTs": (lambda made: _modality_lut(made, count=2), "not one of PS3.3"),
    "a short modality LUT": (lambda made: _modality_lut(made, data=bytes(100)), "shorter than it says"),
    "a modality LUT of no entries": (lambda made: _modality_lut(made, descriptor=[0, 0, 16]), "shorter than it says"),
    "half a descriptor": (lambda made: _modality_lut(made, descriptor=[900, 0]), "not one of PS3.3"),
    "LUT and rescale": (
        lambda made: (_modality_lut(made), _set(RescaleSlope="1", RescaleIntercept="0")(made))[0],
        "not one of PS3.3",
    ),
    "rescale that is no number": (
        lambda made: made.add_new(0x00281053, "LO", "as you like"), "no numbers"
    ),
    "rescale without end": (lambda made: made.add_new(0x00281053, "LO", "Infinity"), "no numbers"),
    "rescale beyond all measure": (lambda made: made.add_new(0x00281052, "LO", "1E99999999"), "no numbers"),
    "source images that are no sequence": (
        lambda made: made.add_new(0x00082112, "LO", "a source"), "has a VR that is no sequence"
    ),
    "a description beyond all measure": (
        lambda made: made.add_new(0x00082111, "UT", "x" * 300_000), "(0008,2111) has 300000 bytes"
    ),
    "derivation codes that are no sequence": (
        lambda made: made.add_new(0x00089215, "LO", "a code"), "has a VR that is no sequence"
    ),
    "a method that is no text": (lambda made: made.add_new(0x00282114, "LO", "\xe4"), "cannot be read"),
    "less pixel data than it says": (_set(Rows=480), "less pixel data"),
    "more pixel data than it says": (_set(Rows=24), "more pixel data"),
    "an overlay in the cells": (_set(BitsStored=10, HighBit=9), "more than Bits Stored"),
    "a high bit elsewhere": (_set(HighBit=15), "High Bit"),
}  # fmt: skip


@pytest.mark.parametrize("what", UNSUITABLE)
def test_unsuitable_images_stay_uncompressed_and_it_is_said(what: str, tmp_path: Path) -> None:
    change, words = UNSUITABLE[what]
    before = made(Kind(stored=12, signed=True))
    change(before)
    result, after = run(before, tmp_path)
    assert result.transfer_syntax_uid == after.file_meta.TransferSyntaxUID == EXPLICIT_LE
    assert after.PixelData == before.PixelData
    assert "LossyImageCompression" not in after and after.ImageType[0] == "ORIGINAL"
    assert words in told(result)["(7FE0,0010)"][1]


@pytest.mark.parametrize("recipe", [BASELINE, "jpeg-baseline-q50/1", "j2k-lossy-r100/1"])
def test_what_would_lose_too_much_is_left_alone(recipe: str, tmp_path: Path) -> None:
    kind = Kind("RGB", 8, 8)
    noise = numpy.random.default_rng(1).integers(0, 256, (1, 48, 39, 3)).astype("u1")
    result, after = run(data_set(kind, noise), tmp_path, recipe)
    assert result.transfer_syntax_uid == EXPLICIT_LE
    assert "dB of its signal; the least is 30 dB" in told(result)["(7FE0,0010)"][1]
    assert numpy.array_equal(samples(after)[0], noise[0])


@pytest.mark.parametrize("sop_class", [CT, "1.2.840.10008.5.1.4.1.1.4"])
@pytest.mark.parametrize("recipe", ["jpeg-lossless/1", "rle/1", "j2k/1", EXTENDED, J2K, BASELINE])
def test_16_bits_stay_allocated_where_the_class_demands_them(recipe: str, sop_class: str, tmp_path: Path) -> None:
    before = data_set(Kind(stored=8), pixels(Kind(stored=8)), sop_class)
    result, after = run(before, tmp_path, recipe)
    assert after.BitsAllocated == 16
    if recipe in ("j2k/1", J2K, BASELINE):
        assert "demands 16 bits allocated" in told(result)["(7FE0,0010)"][1]
        return
    assert result.transfer_syntax_uid == recipe_syntax(recipe)
    assert numpy.abs(samples(after)[0] - pixels(Kind(stored=8))[0, ..., 0].astype("f8")).max() <= (
        12 if is_lossy(recipe) else 0
    )


def test_a_flat_image_is_no_division_by_zero(tmp_path: Path) -> None:
    for recipe in (EXTENDED, BASELINE, J2K):
        before = data_set(Kind(allocated=8, stored=8), numpy.full((1, 48, 39, 1), 77, "u1"))
        result, after = run(before, tmp_path, recipe)
        assert result.transfer_syntax_uid == recipe_syntax(recipe)
        assert set(samples(after).reshape(-1)) == {77}


def test_no_pixels_no_loss(tmp_path: Path) -> None:
    source = Path(str(get_testdata_file("rtplan.dcm", download=False)))
    result = conform(source, tmp_path / "target", EXTENDED, edits=Edits(new_sop_instance_uid=NEW))
    assert result.transfer_syntax_uid == EXPLICIT_LE
    assert "LossyImageCompression" not in pydicom.dcmread(tmp_path / "target")


def test_a_new_uid_is_demanded(tmp_path: Path) -> None:
    source = write(made(Kind()), tmp_path / "source")
    for edits in (None, Edits()):
        with pytest.raises(MediaError, match="needs a new SOP Instance UID"):
            conform(source, tmp_path / "target", EXTENDED, edits=edits)


def test_a_frame_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    before = made(Kind(frames=3))
    write(before, tmp_path / "source")
    conform(tmp_path / "source", tmp_path / "packed", "jpeg-lossless/1")
    data = bytearray((tmp_path / "packed").read_bytes())
    second = [at for at in range(len(data)) if data[at : at + 3] == b"\xff\xd8\xff"][1]
    data[second + 100 : second + 400] = bytes(300)
    data[second + 2 : second + 40] = bytes(38)
    (tmp_path / "packed").write_bytes(data)
    for recipe in (EXTENDED, J2K, "rle/1", "explicit-le/1"):
        edits = Edits(new_sop_instance_uid=NEW) if is_lossy(recipe) else None
        with pytest.raises(InstanceRefused, match="frame 2 of 3 cannot be decoded") as refused:
            conform(tmp_path / "packed", tmp_path / "target", recipe, edits=edits)
        assert before.SOPInstanceUID in str(refused.value)
        assert not (tmp_path / "target").exists()


# -- recipes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("identifier", "photometric", "syntax", "sop_class", "recipe"),
    [
        ("STD-GEN-DVD-JPEG", "MONOCHROME2", "1", CT, "jpeg-extended-q80/1"),
        ("STD-GEN-DVD-JPEG", "RGB", "1", CT, "jpeg-baseline-q80/1"),
        ("STD-GEN-DVD-JPEG", "PALETTE COLOR", "1", CT, "jpeg-baseline-q80/1"),
        ("STD-GEN-DVD-J2K", "MONOCHROME2", "1", CT, "j2k-lossy-r12/1"),
        ("STD-GEN-DVD-J2K", "RGB", "1", CT, "j2k-lossy-r12/1"),
        ("STD-GEN-DVD-JPEG", "MONOCHROME2", "4.70", CT, "jpeg-extended-q80/1"),
        ("STD-GEN-DVD-JPEG", "MONOCHROME2", "4.90", CT, "jpeg-extended-q80/1"),
        ("STD-GEN-DVD-JPEG", "MONOCHROME2", "4.50", CT, None),  # it has lost enough
        ("STD-GEN-DVD-J2K", "MONOCHROME2", "4.50", CT, "j2k/1"),
        ("STD-GEN-DVD-J2K", "MONOCHROME2", "4.91", CT, None),
        ("STD-GEN-CD", "MONOCHROME2", "1", CT, None),
        ("STD-GEN-CD", "MONOCHROME2", "4.70", CT, "explicit-le/1"),
        ("STD-GEN-DVD-JPEG", "MONOCHROME2", "1", "1.2.840.10008.5.1.4.1.1.481.2", "jpeg-lossless/1"),
        ("STD-GEN-DVD-JPEG", "MONOCHROME2", "1", "1.2.840.10008.5.1.4.1.1.66.4", "jpeg-lossless/1"),
    ],
)
def test_lossy_where_the_profile_has_it(
    identifier: str, photometric: str, syntax: str, sop_class: str, recipe: str | None
) -> None:
    header = Header(
        sop_class,
        "1.2.3",
        f"1.2.840.10008.1.2.{syntax}",
        photometric_interpretation=photometric,
        has_pixel_data=True,
    )
    found = recipe_for(header, profile(identifier), "lossy", quality=Quality(jpeg=80, ratio=12))
    assert found == recipe
    assert recipe is None or is_lossy(recipe) == ("-q" in recipe or "-r" in recipe)


@pytest.mark.parametrize(
    "name",
    ["", "explicit-le/2", "jpeg-lossless/2", "jpeg-extended/1", "jpeg-extended-q0/1", "jpeg-extended-q101/1",
     "jpeg-extended-q090/1", "jpeg-extended-r8/1", "j2k-lossy-r1/1", "j2k-lossy-r101/1", "j2k-lossy-r8/2",
     "jpeg-extended-q90/1 ", "jpeg-extended-q９0/1", "../j2k-lossy-r8/1", "j2k-lossy-r99999999999999999999/1"],
)  # fmt: skip
def test_names_that_are_no_recipe(name: str, tmp_path: Path) -> None:
    assert not is_lossy(name)
    with pytest.raises(MediaError, match="There is no recipe"):
        recipe_syntax(name)
    with pytest.raises(MediaError, match="There is no recipe"):
        conform(tmp_path / "source", tmp_path / "target", name)


def test_docs_have_every_encoder() -> None:
    text = (Path(__file__).parents[2] / "docs" / "compression.md").read_text("utf-8")
    for encoder in encoders().values():
        assert f"| `{encoder.recipe}` |" in text and encoder.syntax in text
    for encoder in lossy_encoders():
        name = f"| `{encoder.name}-{encoder.letter}{{{encoder.least}-{encoder.most}}}/{encoder.version}` |"
        (line,) = [line for line in text.splitlines() if line.startswith(name)]
        assert encoder.syntax in line and line.endswith(f"| {encoder.min_psnr:.0f} dB |")
