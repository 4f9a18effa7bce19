"""Pictures that look like something: bodies of ellipses, in the SOP classes that people send."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from tests.makers import uid

CT, MR, DX, US_MULTI = (f"1.2.840.10008.5.1.4.1.1.{tail}" for tail in ("2", "4", "1.1", "3.1"))


def _ellipse(size: int, x: float, y: float, a: float, b: float, turn: float = 0.0) -> Any:
    """Where an ellipse is; coordinates from -1 to 1."""
    rows, columns = numpy.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    across, down = columns - x, rows - y
    c, s = numpy.cos(turn), numpy.sin(turn)
    return ((across * c + down * s) / a) ** 2 + ((down * c - across * s) / b) ** 2 <= 1


def _chest(size: int, z: float) -> Any:
    """Hounsfield units of a slice through something like a chest; ``z`` from 0 to 1."""
    dice = numpy.random.default_rng(round(z * 1000))
    picture = numpy.full((size, size), -1000.0)
    picture[_ellipse(size, 0, 0, 0.92, 0.68)] = -90
    picture[_ellipse(size, 0, 0, 0.86, 0.62)] = 45
    lung = 0.5 + 0.35 * numpy.sin(numpy.pi * z)
    picture[_ellipse(size, -0.42, -0.02, 0.33 * lung / 0.8, 0.5 * lung, 0.1)] = -840
    picture[_ellipse(size, 0.42, -0.02, 0.3 * lung / 0.8, 0.5 * lung, -0.1)] = -840
    picture[_ellipse(size, 0.1, -0.12, 0.24, 0.22 + 0.06 * z, 0.5)] = 60
    picture[_ellipse(size, 0.03, -0.28, 0.1, 0.1)] = 180
    picture[_ellipse(size, 0, 0.4, 0.13, 0.12)] = 420
    picture[_ellipse(size, 0, 0.43, 0.05, 0.05)] = 30
    for side in (-1, 1):
        for rib in range(5):
            angle = 0.5 + rib * 0.55 + z
            picture[
                _ellipse(size, side * 0.82 * numpy.cos(angle / 2.2), 0.57 * numpy.sin(angle - 1.3), 0.06, 0.03, angle)
            ] = 650
    for _ in range(40):
        x, y = dice.uniform(-0.6, 0.6), dice.uniform(-0.4, 0.4)
        spot = _ellipse(size, x, y, 0.012, 0.012) & (picture < -700)
        picture[spot] = -300
    return picture + dice.normal(0, 14, picture.shape)


def _head(size: int, z: float) -> Any:
    """Signal of a slice through something like a head."""
    dice = numpy.random.default_rng(round(z * 1000) + 7)
    picture = numpy.zeros((size, size))
    grow = 0.55 + 0.42 * numpy.sin(numpy.pi * (0.15 + 0.75 * z))
    picture[_ellipse(size, 0, 0, 0.74 * grow, 0.9 * grow)] = 700
    picture[_ellipse(size, 0, 0, 0.68 * grow, 0.84 * grow)] = 60
    picture[_ellipse(size, 0, 0, 0.63 * grow, 0.79 * grow)] = 430
    picture[_ellipse(size, 0, 0, 0.5 * grow, 0.64 * grow)] = 560
    for side in (-1, 1):
        picture[_ellipse(size, side * 0.12, -0.1, 0.06, 0.24 * grow, side * 0.35)] = 120
        picture[_ellipse(size, side * 0.17, 0.1, 0.09, 0.14)] = 480
    picture[_ellipse(size, 0, 0, 0.012, 0.7 * grow)] = 180
    return numpy.clip(picture + dice.normal(0, 22, picture.shape), 0, None)


def _hand(size: int) -> Any:
    """Something like a radiograph of a hand."""
    dice = numpy.random.default_rng(3)
    picture = numpy.full((size, size), 300.0)
    soft, bone = picture * 0, picture * 0
    soft += 900.0 * _ellipse(size, 0, 0.45, 0.42, 0.4)
    for x, top in ((-0.36, -0.35), (-0.14, -0.62), (0.08, -0.68), (0.29, -0.5)):
        soft += 700.0 * _ellipse(size, x, top + 0.35, 0.1, 0.5, 0.0)
        for joint in range(4):
            bone += 1300.0 * _ellipse(
                size, x * (1 - 0.1 * joint), top + 0.1 + 0.27 * joint, 0.045 + 0.008 * joint, 0.12
            )
    bone += 1300.0 * _ellipse(size, 0.5, 0.25, 0.05, 0.2, -0.7)
    soft += 700.0 * _ellipse(size, 0.5, 0.25, 0.12, 0.32, -0.7)
    return picture + numpy.minimum(soft, 1100) + numpy.minimum(bone, 1500) + dice.normal(0, 25, picture.shape)


def _base(
    kind: str, sop_class: str, *, study: int, series: int, number: int, patient: dict[str, str], **more: Any
) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, uid(kind, study, series, number)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid("study", study), uid("series", study, series)
    ds.PatientName, ds.PatientID = patient["name"], patient["id"]
    ds.PatientBirthDate, ds.PatientSex = patient.get("born", "19610203"), patient.get("sex", "F")
    ds.StudyDate, ds.StudyTime, ds.StudyID = patient.get("date", "20261120"), "101500", str(study)
    ds.AccessionNumber, ds.ReferringPhysicianName = f"ACC{study:06}", "Quincy^Mary"
    ds.Modality, ds.SeriesNumber, ds.InstanceNumber = kind, series, number
    ds.Manufacturer = "Phantom"
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = uid("frame", study), ""
    ds.PatientOrientation, ds.Laterality = "", ""
    for keyword, value in more.items():
        setattr(ds, keyword, value)
    return ds


def _pixels(ds: Dataset, samples: Any, *, signed: bool = False, bits: int = 16) -> Dataset:
    ds.Rows, ds.Columns = samples.shape[-2:] if samples.ndim < 4 else samples.shape[1:3]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, bits, bits - 1, int(signed)
    ds.PixelData = numpy.rint(samples).astype("<i2" if signed else "<u2").tobytes()
    return ds


def ct(study: int, patient: dict[str, str], count: int = 24, size: int = 256) -> Iterator[Dataset]:
    """A chest."""
    for number in range(1, count + 1):
        z = number / (count + 1)
        ds = _base("CT", CT, study=study, series=2, number=number, patient=patient, StudyDescription="CT Thorax nativ")
        ds.SeriesDescription, ds.BodyPartExamined, ds.KVP = "Thorax 3.0 B40f", "CHEST", "120"
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.ImagePositionPatient, ds.ImageOrientationPatient = [-170, -170, 3 * number], [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing, ds.SliceThickness, ds.AcquisitionNumber = [1.33, 1.33], "3", 1
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = "1", "-1024", "HU"
        ds.WindowCenter, ds.WindowWidth = "50", "350"
        yield _pixels(ds, numpy.clip(_chest(size, z) + 1024, 0, 4095))


def mr(study: int, patient: dict[str, str], count: int = 16, size: int = 192) -> Iterator[Dataset]:
    """A head."""
    for number in range(1, count + 1):
        ds = _base("MR", MR, study=study, series=3, number=number, patient=patient, StudyDescription="MR Head")
        ds.SeriesDescription, ds.BodyPartExamined, ds.EchoTime = "t1_mprage_tra", "HEAD", "3.9"
        ds.ImageType, ds.ScanningSequence, ds.SequenceVariant = ["ORIGINAL", "PRIMARY", "M"], "GR", "SP"
        ds.ScanOptions, ds.MRAcquisitionType, ds.EchoTrainLength, ds.RepetitionTime = "", "3D", 1, "2100"
        ds.ImagePositionPatient, ds.ImageOrientationPatient = [-100, -100, 2 * number], [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing, ds.SliceThickness = [1.0, 1.0], "2"
        yield _pixels(ds, numpy.clip(_head(size, number / (count + 1)), 0, 4095))


def dx(study: int, patient: dict[str, str], size: int = 512) -> Iterator[Dataset]:
    """A hand, as secondary capture of a film would be: simple enough for every profile."""
    ds = _base("CR", "1.2.840.10008.5.1.4.1.1.1", study=study, series=1, number=1, patient=patient)
    ds.StudyDescription, ds.SeriesDescription, ds.BodyPartExamined = "Hand links a.p.", "Hand a.p.", "HAND"
    ds.ViewPosition, ds.ImagerPixelSpacing = "AP", [0.2, 0.2]
    yield _pixels(ds, _hand(size), bits=12)


def us(study: int, patient: dict[str, str], frames: int = 24, size: int = 160) -> Iterator[Dataset]:
    """A beating heart, more or less."""
    ds = _base("US", US_MULTI, study=study, series=1, number=1, patient=patient, StudyDescription="Echo")
    ds.SeriesDescription, ds.ImageType = "4 chamber", ["ORIGINAL", "PRIMARY"]
    ds.NumberOfFrames, ds.FrameTime, ds.FrameIncrementPointer = frames, "40", 0x00181063
    ds.UltrasoundColorDataPresent = 0
    dice = numpy.random.default_rng(5)
    fan = _ellipse(size, 0, -0.95, 1.6, 1.9) & _ellipse(size, 0, 0.6, 0.95, 1.7)
    cells = []
    for number in range(frames):
        beat = 1 + 0.16 * numpy.sin(2 * numpy.pi * number / frames)
        picture = 34.0 * fan
        picture[_ellipse(size, 0, 0.15, 0.5, 0.62) & fan] = 120
        for x, y in ((-0.17, -0.02), (0.17, -0.02), (-0.17, 0.42), (0.17, 0.42)):
            picture[_ellipse(size, x, y, 0.14 * beat, 0.2 * beat) & fan] = 12
        cells.append(numpy.clip(picture * dice.gamma(3, 1 / 3, picture.shape), 0, 255))
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = size, size, 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.PixelData = numpy.array(cells).astype("u1").tobytes()
    yield ds


def write(folder: Path, datasets: Iterator[Dataset]) -> list[Path]:
    """As PS3.10 files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for ds in datasets:
        path = folder / f"{ds.SOPInstanceUID}.dcm"
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta = meta
        ds.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths
