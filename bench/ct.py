"""CT images that no patient had: a phantom in the noise of a reconstruction, for what measures compression.

Soft tissue has a standard deviation of some 12 HU, correlated over neighbours as a body kernel leaves it; air around
the body has less, and the corners outside the reconstruction circle are constant. They compress like real slices of
512 x 512 pixels do: about 5 bits a pixel.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

_SIDE = 512
_AIR = -1000


def _noise(random: Any) -> Any:
    """Band-passed white noise of standard deviation 1, as filtered back projection makes it."""
    import numpy

    along = numpy.fft.fftfreq(_SIDE)
    radius = numpy.hypot(along[:, None], along[None, : _SIDE // 2 + 1])
    shape = radius * numpy.exp(-((radius / 0.28) ** 2))
    noise = numpy.fft.irfft2(numpy.fft.rfft2(random.standard_normal((_SIDE, _SIDE))) * shape)
    return noise / noise.std()


def _phantom(position: float) -> Any:
    """Hounsfield Units without noise; ``position`` 0 to 1 along the body."""
    import numpy

    y, x = numpy.mgrid[-1 : 1 : _SIDE * 1j, -1 : 1 : _SIDE * 1j]
    image = numpy.full((_SIDE, _SIDE), float(_AIR))

    def ellipse(cx: float, cy: float, rx: float, ry: float, value: float) -> None:
        image[((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1] = value

    wave = numpy.sin(position * 9.0)
    ellipse(0, 0.05, 0.82 + 0.05 * wave, 0.58, -95)  # fat
    ellipse(0, 0.05, 0.76 + 0.05 * wave, 0.52, 45)  # muscle
    for side in (-1, 1):
        ellipse(side * 0.38, 0.0, 0.26 + 0.03 * wave, 0.36 - 0.2 * position, -860)  # lung
        for rib in range(5):
            angle = 0.5 + rib * 0.5 + position
            ellipse(side * 0.7 * numpy.cos(angle), 0.05 + 0.46 * numpy.sin(angle), 0.05, 0.025, 450)
    ellipse(0.06, -0.05, 0.15, 0.17, 60)
    ellipse(0, 0.38, 0.11, 0.1, 380)
    ellipse(0, 0.36, 0.05, 0.045, 30)
    image[(abs(y - 0.72) < 0.012) & (abs(x) < 0.7)] = -300  # table
    return image


def write_ct(folder: Path, count: int) -> list[Path]:
    """``count`` different slices of one series as Explicit VR Little Endian files in a new folder."""
    import numpy
    import pydicom
    from pydicom.data import get_testdata_file
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    folder.mkdir(parents=True)
    template = get_testdata_file("CT_small.dcm")
    assert isinstance(template, str)
    data_set = pydicom.dcmread(template)
    del data_set.DataSetTrailingPadding
    data_set.Rows = data_set.Columns = _SIDE
    data_set.RescaleIntercept, data_set.RescaleSlope = "-1024", "1"
    data_set.BitsStored, data_set.HighBit, data_set.PixelRepresentation = 12, 11, 0
    data_set.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data_set.SeriesInstanceUID = generate_uid()
    random = numpy.random.default_rng(20)
    noises = [_noise(random) for _ in range(12)]
    along = numpy.linspace(-1, 1, _SIDE)
    outside = numpy.hypot(along[:, None], along[None, :]) > 1
    made = []
    for number in range(count):
        image = _phantom(number / count)
        sigma = numpy.where(image > -500, 12.0, 9.0)
        noise = numpy.roll(noises[number % len(noises)], 7 * number, axis=(0, 1))
        cells = numpy.clip(numpy.rint(image + sigma * noise) + 1024, 0, 4095)
        cells[outside] = 0
        data_set.PixelData = cells.astype("<u2").tobytes()
        data_set.InstanceNumber = number + 1
        data_set.SOPInstanceUID = data_set.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        made.append(folder / f"{number:04}.dcm")
        data_set.save_as(made[-1], enforce_file_format=True)
    return made
