"""Labels read by others: barcodes by zbar, PDF by poppler."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from media.label import LabelStyle, label_of
from media.labelfacts import LabelFacts, LabelPatient, LabelStudy

UID = "1.2.826.0.1.3680043.10.1234.5.123456789012345678901234567890"


def facts(**values: str) -> LabelFacts:
    studies = (LabelStudy("20260101", "Thorax", ("CT",)),)
    patient = LabelPatient("Doe^Jane=山田^太郎", "P1", "19700131", "F", studies)
    return LabelFacts((patient,), "BURNISH_0000001", UID, "2026-11-21", **values)  # type: ignore[arg-type]


def read(picture: Path) -> set[str]:
    done = subprocess.run(["zbarimg", "-q", "--nodbus", str(picture)], capture_output=True, text=True, check=True)
    return set(done.stdout.split("\n")) - {""}


@pytest.mark.peer("zbarimg")
@pytest.mark.parametrize("printer", ["generic", "generic-8cm", "epson-pp100"])
@pytest.mark.parametrize("dpi", [300, 600])
def test_the_file_set_uid_is_read(tmp_path: Path, printer: str, dpi: int) -> None:
    picture = tmp_path / "label.png"
    picture.write_bytes(label_of(facts(), LabelStyle(), printer_name=printer).drawn("png", dpi=dpi))
    assert read(picture) == {f"QR-Code:{UID}"}


@pytest.mark.peer("zbarimg")
@pytest.mark.parametrize(
    ("symbology", "value", "shown"),
    [
        ("CODE128", "MCR-2026-0001", "CODE-128:MCR-2026-0001"),
        ("Code 39", "MCR-2026", "CODE-39:MCR-2026"),
        ("EAN13", "590123412345", "EAN-13:5901234123457"),
        ("ITF", "12345678", "I2/5:12345678"),
        ("QR", "Größe/質", "QR-Code:Größe/質"),
    ],
)
def test_the_request_s_barcode_is_read(tmp_path: Path, symbology: str, value: str, shown: str) -> None:
    label = label_of(facts(barcode_value=value, barcode_symbology=symbology), LabelStyle())
    assert not label.notices
    picture = tmp_path / "label.png"
    picture.write_bytes(label.drawn("png", dpi=300))
    assert shown in read(picture)


@pytest.mark.peer("pdftoppm")
def test_the_pdf_looks_like_the_png(tmp_path: Path) -> None:
    import imagecodecs
    import numpy

    label = label_of(facts(), LabelStyle())
    (tmp_path / "label.pdf").write_bytes(label.drawn("pdf"))
    command = ["pdftoppm", "-r", "150", "-png", "-gray", "-singlefile", "label.pdf", "page"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert not done.stderr
    page = imagecodecs.png_decode((tmp_path / "page.png").read_bytes()).astype(float)
    page = page if page.ndim == 2 else page[..., 0]
    ours = imagecodecs.png_decode(label.drawn("png", dpi=150)).astype(float)
    height, width = min(page.shape[0], ours.shape[0]), min(page.shape[1], ours.shape[1])
    assert abs(page.shape[0] - ours.shape[0]) <= 1
    # Two rasterisers: edges of letters differ, nothing else does.
    difference = numpy.abs(page[:height, :width] - ours[:height, :width])
    assert difference.mean() < 1.5
    assert ours.min() == page.min() == 0
