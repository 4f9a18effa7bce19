"""Pictures of images, against pydicom's decoding and the standard's formulas; icons as directory records hold them."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy
import pydicom.data
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.utils import pixel_array

from media.iconforms import recipe_of
from media.icons import icon_element, icon_length, make_icon, palette
from media.items import Icon
from media.picture import _averaged, thumbnail
from media.problems import InstanceRefused, MediaError, NotDicom
from tests.makers import DEFLATED, EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, make

GREY, COLOUR = recipe_of(64, colour=False), recipe_of(64, colour=True)


def grey_image(folder: Path, stored: Any, *, syntax: str = EXPLICIT_LE, **values: Any) -> Path:
    """A CT of these values (rows x columns, or frames x rows x columns), by default with no window or rescaling."""
    array = numpy.asarray(stored)
    kind = array.dtype

    def change(ds: Dataset) -> None:
        for keyword in ("WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept", "PixelSpacing"):
            if keyword in ds:
                delattr(ds, keyword)
        ds.Rows, ds.Columns = array.shape[-2:]
        if array.ndim == 3:
            ds.NumberOfFrames = array.shape[0]
        ds.BitsAllocated = ds.BitsStored = 8 * kind.itemsize
        ds.HighBit = ds.BitsStored - 1
        ds.PixelRepresentation = int(kind.kind == "i")
        for keyword, value in values.items():
            setattr(ds, keyword, value)
        raw = array.astype(kind.newbyteorder(">" if syntax == EXPLICIT_BE else "<")).tobytes()
        ds.PixelData = raw + b"\0" * (len(raw) % 2)
        ds["PixelData"].VR = "OW" if kind.itemsize > 1 else "OB"

    return make("CT", transfer_syntax_uid=syntax, change=change).write(folder)


def item_of(content: bytes) -> Dataset:
    return dcmread(BytesIO(content), force=True)


def ramp(kind: str = "<u2", high: int = 4095) -> Any:
    return numpy.linspace(0, high, 64 * 64).reshape(64, 64).astype(kind)


# -- pictures --------------------------------------------------------------------------------------------------------


def packaged_colours() -> Iterator[Path]:
    for path in sorted(Path(pydicom.data.__file__).parent.rglob("*.dcm")):
        if path.name.startswith(("SC_", "examples_", "color", "OBXXXX", "J2K")):
            yield path


def test_colours_are_those_that_pydicom_decodes() -> None:
    """RGB, YBR_FULL, YBR_FULL_422, YBR_RCT, palettes; native, JPEG, JPEG 2000, RLE; by pixel and by plane."""
    from pydicom.pixels.processing import apply_color_lut

    compared = set()
    for path in packaged_colours():
        ds = dcmread(path)
        try:
            found = thumbnail(path, 96)
            frame = pixel_array(ds, index=int(ds.get("NumberOfFrames", 1) or 1) // 3)
        except (MediaError, ValueError, AttributeError, RuntimeError, NotImplementedError):
            continue
        if found.ndim != 3:
            continue
        if ds.PhotometricInterpretation == "PALETTE COLOR":
            frame = apply_color_lut(frame, ds)
            frame = (frame // 256).astype("u1") if frame.dtype != numpy.uint8 else frame
        elif frame.dtype != numpy.uint8:
            frame = (frame >> ds.BitsStored - 8).astype("u1")
        steps = [max(1, frame.shape[axis] // (found.shape[axis] * 8)) for axis in range(2)]
        expected = _averaged(_averaged(frame[:: steps[0], :: steps[1]], found.shape[0], 0), found.shape[1], 1)
        assert numpy.abs(expected.astype("i4") - found).max() <= 2, path.name
        compared.add((ds.PhotometricInterpretation, ds.file_meta.TransferSyntaxUID))
    assert len(compared) >= 10
    assert {"RGB", "YBR_FULL", "YBR_FULL_422", "PALETTE COLOR"} <= {photometric for photometric, _ in compared}


@pytest.mark.parametrize("syntax", [EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE, DEFLATED])
@pytest.mark.parametrize("kind", ["<u2", "<i2", "u1", "<u4"])
def test_every_native_encoding_gives_the_same_picture(syntax: str, kind: str, tmp_path: Path) -> None:
    stored = ramp(kind, 250)
    path = grey_image(tmp_path, stored, syntax=syntax, WindowCenter="128", WindowWidth="256")
    assert numpy.abs(thumbnail(path, 64).astype(int) - stored).max() <= 1


def test_modality_then_window(tmp_path: Path) -> None:
    path = grey_image(
        tmp_path, ramp(), RescaleSlope="2", RescaleIntercept="-1000", WindowCenter=["40", "7"], WindowWidth=["400", "9"]
    )
    physical = ramp().astype(float) * 2 - 1000
    expected = numpy.clip((physical - 39.5) / 399 + 0.5, 0, 1) * 255
    assert numpy.abs(thumbnail(path, 64) - expected).max() <= 0.51


@pytest.mark.parametrize(
    ("function", "shade"),
    [
        ("LINEAR_EXACT", lambda x: numpy.clip((x - 2000) / 1000 + 0.5, 0, 1)),
        ("SIGMOID", lambda x: 1 / (1 + numpy.exp(-4 * (x - 2000) / 1000))),
    ],
)
def test_other_window_functions(function: str, shade: Any, tmp_path: Path) -> None:
    path = grey_image(tmp_path, ramp(), WindowCenter="2000", WindowWidth="1000", VOILUTFunction=function)
    assert numpy.abs(thumbnail(path, 64) - shade(ramp().astype(float)) * 255).max() <= 0.51


def lut(entries: list[int], first: int, bits: int = 16) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item["LUTDescriptor"].VR = "US"
    item.LUTData = entries
    item["LUTData"].VR = "US"
    return item


def test_lookup_tables_of_modality_and_voi(tmp_path: Path) -> None:
    modality, voi = lut([300, 200, 100, 0], 10), lut([0, 1000, 3000, 4000], 0)
    modality.ModalityLUTType = "US"
    stored = numpy.full((64, 64), 10, "<u2")
    stored[:, 32:] = 13
    # 10 -> 300, 13 -> 0 by the modality LUT; by the VOI LUT values above 3 are the last entry.
    path = grey_image(tmp_path, stored, ModalityLUTSequence=[modality], VOILUTSequence=[voi])
    found = thumbnail(path, 64)
    assert (found[:, :32] == 255).all()
    assert (found[:, 32:] == 0).all()


def test_without_a_window_the_middle_99_percent_are_spread(tmp_path: Path) -> None:
    stored = ramp()
    stored[0, 0] = 65535  # one wild value does not make the rest black
    found = thumbnail(grey_image(tmp_path, stored), 64)
    assert found[0, 1] == 0
    assert found[-1, -1] == 255
    assert 120 <= found[32, 0] <= 135


def test_a_window_that_shows_nothing_is_not_used(tmp_path: Path) -> None:
    found = thumbnail(grey_image(tmp_path, ramp(), WindowCenter="60000", WindowWidth="10"), 64)
    assert found.min() == 0
    assert found.max() == 255


@pytest.mark.parametrize("values", [{"WindowCenter": "40", "WindowWidth": "0"}, {"WindowCenter": "40"}])
def test_a_window_that_is_none_counts_as_none(values: dict[str, str], tmp_path: Path) -> None:
    assert thumbnail(grey_image(tmp_path, ramp(), **values), 64).max() == 255


def test_monochrome1_is_turned_over_and_padding_is_black(tmp_path: Path) -> None:
    stored = ramp("<i2", 4000)
    stored[:8] = -2000
    values = {"PixelPaddingValue": -2000, "WindowCenter": "2000", "WindowWidth": "4000"}
    dark = thumbnail(grey_image(tmp_path / "1", stored, PhotometricInterpretation="MONOCHROME1", **values), 64)
    bright = thumbnail(grey_image(tmp_path / "2", stored, **values), 64)
    assert (dark[8:].astype(int) + bright[8:] == 255).all()
    assert (dark[:8] == 0).all()
    assert (bright[:8] == 0).all()


def test_padding_does_not_widen_the_window(tmp_path: Path) -> None:
    stored = ramp("<i2", 1000)
    stored[:32] = -32768
    found = thumbnail(grey_image(tmp_path, stored, PixelPaddingValue=-32768), 64)
    assert found[33, 0] < 10


@pytest.mark.parametrize(("said", "shown"), [(None, 3), (1, 0), (9, 8), (10, 3), (0, 3)])
def test_representative_frame_or_a_third_of_the_way(said: int | None, shown: int, tmp_path: Path) -> None:
    frames = numpy.repeat(numpy.arange(9, dtype="u1") * 10, 64).reshape(9, 8, 8)
    more = {} if said is None else {"RepresentativeFrameNumber": said}
    path = grey_image(tmp_path, frames, WindowCenter="128", WindowWidth="256", **more)
    assert (thumbnail(path, 8) == shown * 10).all()


def test_one_bit_frames_that_begin_within_a_byte(tmp_path: Path) -> None:
    frames = numpy.zeros((3, 3, 3), "u1")
    frames[1] = [[1, 0, 1], [0, 1, 0], [1, 0, 0]]

    def change(ds: Dataset) -> None:
        ds.Rows = ds.Columns = ds.NumberOfFrames = 3
        ds.BitsAllocated = ds.BitsStored = 1
        ds.HighBit = 0
        ds.PixelData = numpy.packbits(frames.ravel(), bitorder="little").tobytes()
        ds["PixelData"].VR = "OB"

    path = make("CT", change=change, WindowCenter=None, WindowWidth=None).write(tmp_path)
    assert (thumbnail(path, 3) == frames[1] * 255).all()


def test_the_frame_s_own_window_in_functional_groups(tmp_path: Path) -> None:
    def groups(center: str) -> Dataset:
        window, group = Dataset(), Dataset()
        window.WindowCenter, window.WindowWidth = center, "100"
        group.FrameVOILUTSequence = [window]
        return group

    frames = numpy.stack([ramp("<u2", 1000)] * 3)
    path = grey_image(tmp_path, frames, PerFrameFunctionalGroupsSequence=[groups("900"), groups("100"), groups("500")])
    found = thumbnail(path, 64)  # frame 2
    assert (found == 0).sum() == pytest.approx(64 * 64 * 0.05, abs=10)
    assert (found == 255).sum() == pytest.approx(64 * 64 * 0.85, abs=10)


@pytest.mark.parametrize(
    ("values", "shape"),
    [
        ({}, (64, 32)),
        ({"PixelSpacing": [1, 2]}, (64, 64)),
        ({"PixelAspectRatio": [1, 4]}, (32, 64)),
        ({"PixelSpacing": [0, 2]}, (64, 32)),
        ({"PixelSpacing": [1e9, 2]}, (64, 32)),
    ],
)
def test_proportions_are_kept(values: dict[str, Any], shape: tuple[int, int], tmp_path: Path) -> None:
    path = grey_image(tmp_path, numpy.zeros((200, 100), "<u2"), **values)
    assert thumbnail(path, 64).shape == shape


def test_what_is_averaged_is_the_mean(tmp_path: Path) -> None:
    stored = numpy.indices((128, 128)).sum(axis=0).astype("u1") % 2 * 200
    found = thumbnail(grey_image(tmp_path, stored, WindowCenter="128", WindowWidth="256"), 64)
    assert (found == 100).all()


@pytest.mark.parametrize("kind", ["SR", "RTPLAN", "PDF"])
def test_what_is_no_image_is_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(InstanceRefused, match=r"it has no Pixel Data \(7FE0,0010\)"):
        thumbnail(make(kind).write(tmp_path), 64)


def test_damaged_images_are_refused_and_nothing_else(tmp_path: Path) -> None:
    """Every cut and a change of every byte before the samples: a picture, or a MediaError that says why."""
    whole = make("US", size=48).part10()
    path = tmp_path / "hostile.dcm"
    outcomes = set()
    for at in range(132, len(whole) - 48, 3):
        for data in (whole[:at], whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]):
            path.write_bytes(data)
            try:
                outcomes.add(thumbnail(path, 16).dtype.name)
            except (InstanceRefused, NotDicom) as error:
                outcomes.add(type(error).__name__)
    assert outcomes == {"uint8", "InstanceRefused", "NotDicom"}


def test_garbage_for_a_codestream_is_refused(tmp_path: Path) -> None:
    def change(ds: Dataset) -> None:
        ds.PixelData = encapsulate([b"\xff\xd8 no JPEG"])
        ds["PixelData"].is_undefined_length = True

    path = make("CT", transfer_syntax_uid="1.2.840.10008.1.2.4.70", change=change).write(tmp_path)
    with pytest.raises(InstanceRefused, match="its pixel data cannot be decoded"):
        thumbnail(path, 64)


# -- icons -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [64, 128])
def test_a_grey_icon(size: int, tmp_path: Path) -> None:
    path = grey_image(tmp_path, numpy.full((200, 100), 7, "u1"), WindowCenter="4", WindowWidth="2")
    content = make_icon(path, recipe_of(size, colour=False))
    item = item_of(content)
    assert (item.SamplesPerPixel, item.PhotometricInterpretation, item.PixelRepresentation) == (1, "MONOCHROME2", 0)
    assert (item.Rows, item.Columns) == (size, size)
    assert (item.BitsAllocated, item.BitsStored, item.HighBit) == (8, 8, 7)
    assert item["PixelData"].VR == "OB"
    cells = numpy.frombuffer(item.PixelData, "u1").reshape(size, size)
    assert (cells[:, : size // 4] == 0).all()  # black beside the picture
    assert (cells[:, size // 4 : -size // 4] == 255).all()
    assert make_icon(path, recipe_of(size, colour=False)) == content
    assert len(content) == len(make_icon(make("US").write(tmp_path), recipe_of(size, colour=False)))


def test_colour_stays_where_it_may(tmp_path: Path) -> None:
    pixels = numpy.zeros((64, 64, 3), "u1")
    pixels[:32, :32] = (255, 0, 0)
    pixels[:32, 32:] = (128, 130, 126)
    pixels[32:, :32] = (20, 200, 90)

    def change(ds: Dataset) -> None:
        ds.Rows = ds.Columns = 64
        ds.PixelData = pixels.tobytes()

    path = make("SC", change=change).write(tmp_path)
    item = item_of(make_icon(path, COLOUR))
    assert item.PhotometricInterpretation == "PALETTE COLOR"
    tables = [
        numpy.frombuffer(item[f"{colour}PaletteColorLookupTableData"].value, "<u2")
        for colour in ("Red", "Green", "Blue")
    ]
    assert all(len(table) == 256 for table in tables)
    assert item.RedPaletteColorLookupTableDescriptor == [256, 0, 16]
    cells = numpy.frombuffer(item.PixelData, "u1").reshape(64, 64)
    shown = numpy.stack([table[cells] >> 8 for table in tables], axis=-1).astype(int)
    assert numpy.abs(shown - pixels).max() <= 26  # half a step of the cube
    assert (shown[:32, 32:].max(axis=2) == shown[:32, 32:].min(axis=2)).all()
    assert item_of(make_icon(path, GREY)).PhotometricInterpretation == "MONOCHROME2"


def test_grey_pictures_in_colour_get_no_palette(tmp_path: Path) -> None:
    def change(ds: Dataset) -> None:
        ds.PixelData = bytes(90 for _ in ds.PixelData)

    path = make("SC", change=change).write(tmp_path)
    assert item_of(make_icon(path, COLOUR)).PhotometricInterpretation == "MONOCHROME2"


def test_the_palette_has_256_different_enough_colours() -> None:
    assert palette().shape == (256, 3)
    assert {(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 255)} <= {tuple(map(int, row)) for row in palette()}


def test_the_element_of_a_record(tmp_path: Path) -> None:
    import hashlib

    content = make_icon(make("CT").write(tmp_path), GREY)
    path = tmp_path / "icon"
    path.write_bytes(content)
    icon = Icon(path, len(content), hashlib.sha256(content).hexdigest())
    element = icon_element(icon)
    assert len(element) == icon_length(icon)
    assert item_of(element).IconImageSequence[0].Rows == 64
    assert (icon_element(None), icon_length(None)) == (b"", 0)
    path.write_bytes(content[:-1] + b"\x01")
    with pytest.raises(MediaError, match="is damaged"):
        icon_element(icon)
    path.unlink()
    with pytest.raises(MediaError, match="cannot be read"):
        icon_element(icon)
