"""Small images of every kind that a codec meets, with the samples that they hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
CT = "1.2.840.10008.5.1.4.1.1.2"
SYNTAXES = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "big endian": ExplicitVRBigEndian,
}


@dataclass(frozen=True)
class Kind:
    """What an image is like."""

    photometric: str = "MONOCHROME2"
    allocated: int = 16
    stored: int = 12
    signed: bool = False
    planar: int = 0
    frames: int = 1
    rows: int = 48
    columns: int = 39
    """Odd, so that frames need a pad byte."""
    noise: float = 0.01
    """Standard deviation, in parts of the range."""

    @property
    def samples(self) -> int:
        return 1 if self.photometric.startswith(("MONOCHROME", "PALETTE")) else 3

    def __str__(self) -> str:
        sign = "signed" if self.signed else "unsigned"
        return f"{self.photometric}-{self.allocated}-{self.stored}-{sign}-{self.planar}-{self.frames}"


def pixels(kind: Kind) -> numpy.ndarray:
    """Frames x rows x columns x samples: smooth, with the extremes in the corners, and a little noise."""
    random = numpy.random.default_rng(kind.stored + kind.frames)
    low, high = (
        (-(1 << (kind.stored - 1)), (1 << (kind.stored - 1)) - 1) if kind.signed else (0, (1 << kind.stored) - 1)
    )
    shape = (kind.frames, kind.rows, kind.columns, kind.samples)
    frame, row, column, sample = numpy.meshgrid(*(numpy.linspace(0, 1, size) for size in shape), indexing="ij")
    smooth = 0.5 + 0.45 * numpy.sin(5 * row + 2 * sample + frame) * numpy.cos(4 * column - sample)
    values = smooth + kind.noise * random.standard_normal(shape)
    cells = numpy.clip(numpy.rint(low + values * (high - low)), low, high)
    cells[:, 0, 0], cells[:, -1, -1] = low, high
    if kind.photometric == "YBR_FULL":
        cells = ybr_full(cells, high)
    return cells.astype(f"{'i' if kind.signed else 'u'}{kind.allocated // 8}")


def ybr_full(cells: numpy.ndarray, top: int) -> numpy.ndarray:
    """YBR_FULL of RGB (PS3.3 C.7.6.3.1.2)."""
    r, g, b = (cells[..., index].astype("f8") for index in range(3))
    y = 0.299 * r + 0.587 * g + 0.114 * b
    planes = (y, (b - y) / 1.772 + (top + 1) / 2, (r - y) / 1.402 + (top + 1) / 2)
    return numpy.clip(numpy.rint(numpy.stack(planes, -1)), 0, top)


def rgb(cells: numpy.ndarray, photometric: str) -> numpy.ndarray:
    """RGB of 8-bit YBR_FULL, without rounding; other colours stay."""
    if photometric != "YBR_FULL":
        return cells.astype("f8")
    y, cb, cr = (cells[..., index].astype("f8") for index in range(3))
    planes = (y + 1.402 * (cr - 128), y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128), y + 1.772 * (cb - 128))
    return numpy.clip(numpy.stack(planes, -1), 0, 255)


def data_set(kind: Kind, cells: numpy.ndarray, sop_class: str = SECONDARY_CAPTURE) -> Dataset:
    """An instance with these pixels; Explicit VR Little Endian until ``write`` says otherwise."""
    if sop_class == SECONDARY_CAPTURE and kind.frames > 1:
        sop_class += ".4" if kind.samples > 1 else ".2" if kind.allocated == 8 else ".3"  # the multi-frame ones
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    made.SOPClassUID, made.SOPInstanceUID = sop_class, "1.2.826.0.1.3680043.10.1"
    made.StudyDate, made.StudyTime, made.AccessionNumber = "20250101", "120000", ""
    made.Modality, made.ReferringPhysicianName = "OT", ""
    made.PatientName, made.PatientID = "Test^Pixels", "PX1"
    made.StudyInstanceUID, made.SeriesInstanceUID, made.StudyID = "1.2.3.1", "1.2.3.2", "1"
    made.SeriesNumber = made.InstanceNumber = 1
    made.SamplesPerPixel, made.PhotometricInterpretation = kind.samples, kind.photometric
    if kind.samples > 1:
        made.PlanarConfiguration = kind.planar
    if kind.frames > 1:
        made.NumberOfFrames = kind.frames
    made.Rows, made.Columns = kind.rows, kind.columns
    made.BitsAllocated, made.BitsStored, made.HighBit = kind.allocated, kind.stored, kind.stored - 1
    made.PixelRepresentation = int(kind.signed)
    if kind.photometric == "PALETTE COLOR":
        entries = 1 << kind.stored
        for number, colour in enumerate(("Red", "Green", "Blue")):
            ramp = (numpy.arange(entries) * (number + 1) * 131) & 0xFF
            setattr(made, f"{colour}PaletteColorLookupTableDescriptor", [entries & 0xFFFF, 0, 16])
            setattr(made, f"{colour}PaletteColorLookupTableData", (ramp * 257).astype("<u2").tobytes())
    made.PixelData = encoded(kind, cells)
    made["PixelData"].VR = "OW" if kind.allocated > 8 else "OB"
    return made


def encoded(kind: Kind, cells: numpy.ndarray) -> bytes:
    """The value of native Pixel Data."""
    if kind.samples > 1 and kind.planar:
        cells = cells.transpose(0, 3, 1, 2)
    data = cells.astype(f"<{cells.dtype.kind}{kind.allocated // 8}").tobytes()
    return data + b"\0" * (len(data) % 2)


def write(made: Dataset, path: Path, syntax: str = "explicit") -> Path:
    """The file of an instance, in one of ``SYNTAXES``."""
    if syntax == "big endian" and made.BitsAllocated > 8:
        made.PixelData = numpy.frombuffer(made.PixelData, "<u2").byteswap().tobytes()
    made.file_meta.TransferSyntaxUID = SYNTAXES[syntax]
    made.save_as(path, enforce_file_format=True)
    return path
