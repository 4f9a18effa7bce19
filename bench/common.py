"""What the benchmarks share: a service of their own, made-up instances, the memory of a process tree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

BURNISH = [sys.executable, "-m", "service"]


def ct_template(pixel_bytes: int) -> Dataset:
    """A real CT header with so many bytes of pixel data."""
    path = get_testdata_file("CT_small.dcm")
    assert isinstance(path, str)
    ds = pydicom.dcmread(path)
    side = int((pixel_bytes / 2) ** 0.5)
    ds.Rows = ds.Columns = side
    ds.PixelData = os.urandom(side * side * 2)
    if "DataSetTrailingPadding" in ds:
        del ds.DataSetTrailingPadding
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


def write_study(folder: Path, count: int, pixel_bytes: int, *, per_series: int = 100, patient: str = "BENCH1") -> int:
    """``count`` CT files of one study in ``folder``; returns their bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    ds = ct_template(pixel_bytes)
    ds.PatientID, ds.StudyInstanceUID = patient, generate_uid()
    noise = bytearray(ds.PixelData)
    total = 0
    for number in range(count):
        if number % per_series == 0:
            ds.SeriesInstanceUID, ds.SeriesNumber = generate_uid(), number // per_series + 1
        ds.InstanceNumber = number + 1
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        noise[:8] = number.to_bytes(8, "little")
        ds.PixelData = bytes(noise)
        path = folder / f"IM{number:06}"
        ds.save_as(path, enforce_file_format=True)
        total += path.stat().st_size
    return total


@contextmanager
def service(data: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any]]]:
    """A running ``burnish serve`` and its ready line."""
    process = subprocess.Popen(
        [*BURNISH, "serve", "--data", str(data), "--dicom-port", "0", "--http-port", "0", "--json", *options],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield process, json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(timeout=60)


def burnish(*arguments: str, data: Path) -> Any:
    """The JSON document of a command; raises where its exit status is not 0."""
    done = subprocess.run([*BURNISH, *arguments, "--data", str(data), "--json"], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def tree_memory(pid: int) -> tuple[int, int]:
    """Bytes of a process and all its descendants: proportional set size, resident set size."""
    pss = rss = 0
    todo = [pid]
    while todo:
        here = todo.pop()
        try:
            for task in Path(f"/proc/{here}/task").iterdir():
                todo += [int(child) for child in (task / "children").read_text().split()]
            for line in Path(f"/proc/{here}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    pss += int(line.split()[1]) * 1024
                elif line.startswith("Rss:"):
                    rss += int(line.split()[1]) * 1024
        except (OSError, ValueError):
            continue  # it ended meanwhile
    return pss, rss


def timed(command: list[str]) -> float:
    """Seconds of wall time of a command that must succeed."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start
