"""DICOMDIR of N instances: our writer against ``dcmmkdir`` on the same files in the same run.

``python -m bench.dicomdir [--count N] [--linear]``. Ours is timed from the rows (as SQL gives them) to an fsynced file;
dcmmkdir from its start to its end. Prints the ratio, and how our time grows from N to 2 N.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import UID

from media.dicomdir import dicomdir_bytes
from media.dicomdir_reader import read
from media.fileids import FileIds
from media.header import read_header
from media.items import Item
from media.part10 import EXPLICIT_LE
from media.uids import new_uid

PER_SERIES = 250
PER_STUDY = 1000
LIMIT_RATIO = 0.1
LIMIT_GROWTH = 2.2


def template() -> bytes:
    """A packaged real CT image without its pixels, with identifiers of fixed length to be replaced."""
    dataset = dcmread(str(get_testdata_file("CT_small.dcm")))
    del dataset.PixelData
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = UID(f"1.2.826.0.1.1{0:019d}")
    dataset.StudyInstanceUID = f"1.2.826.0.2.1{0:019d}"
    dataset.SeriesInstanceUID = f"1.2.826.0.3.1{0:019d}"
    dataset.InstanceNumber = f"{1:06d}"
    path = Path(tempfile.mkdtemp()) / "CT"
    dataset.save_as(path)
    data = path.read_bytes()
    shutil.rmtree(path.parent)
    return data


def variants(whole: bytes, count: int) -> Iterator[tuple[int, bytes, tuple[str, str, str]]]:
    """The same bytes for ``count`` instances in series of 250 and studies of 1000."""
    for number in range(count):
        study, series = number // PER_STUDY, number // PER_SERIES
        uids = (f"1.2.826.0.1.1{number:019d}", f"1.2.826.0.2.1{study:019d}", f"1.2.826.0.3.1{series:019d}")
        data = whole
        for kind, uid in enumerate(uids, 1):
            data = data.replace(f"1.2.826.0.{kind}.1{0:019d}".encode(), uid.encode())
        data = data.replace(f"{1:06d}".encode(), f"{number % 999_999 + 1:06d}".encode())
        yield number, data, uids


def rows(keys: bytes, sop_class_uid: str, count: int) -> list[Item]:
    """What SQL holds of such instances."""
    return [
        Item(
            key=number,
            sop_class_uid=sop_class_uid,
            sop_instance_uid=uids[0],
            transfer_syntax_uid=EXPLICIT_LE,
            study_instance_uid=uids[1],
            series_instance_uid=uids[2],
            patient="1CT1",
            patient_id="1CT1",
            record_type="IMAGE",
            directory_keys=data,
            source=Path("unused"),
            size=0,
            sha256="",
        )
        for number, data, uids in variants(keys, count)
    ]


def ours(items: list[Item], target: Path) -> float:
    """Seconds from rows to an fsynced file."""
    gc.collect()
    begin = time.perf_counter()
    ids = FileIds()
    data = dicomdir_bytes("BENCH_0001", new_uid(), [(item, ids.allocate(item)) for item in items])
    with target.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    return time.perf_counter() - begin


def theirs(whole: bytes, items: list[Item], folder: Path) -> float:
    """Seconds that dcmmkdir needs for the same instances as files under the same File IDs."""
    ids = FileIds()
    for (_, data, _), item in zip(variants(whole, len(items)), items, strict=True):
        path = folder.joinpath(*ids.allocate(item))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    begin = time.perf_counter()
    done = subprocess.run(
        ["dcmmkdir", "+r", "-Pgp", "-W", "-nb", "+id", folder, "+D", folder / "DICOMDIR", "DICOM"],
        check=True,
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - begin
    refused = [line for line in done.stderr.splitlines() if line.startswith("E:")]
    if refused or len(read((folder / "DICOMDIR").read_bytes()).records) < len(items):
        raise SystemExit("dcmmkdir did not take every file: " + "; ".join(refused[:3]))
    return seconds


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench.dicomdir", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--linear", action="store_true", help="only how our own time grows, without dcmmkdir")
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="burnish-bench-"))
    try:
        whole = template()
        (folder / "CT").write_bytes(whole)
        header = read_header(folder / "CT")
        items = rows(header.directory_keys, header.sop_class_uid, 2 * options.count)
        half = items[: options.count]
        one = min(ours(half, folder / "OURS") for _ in range(3))
        size = (folder / "OURS").stat().st_size
        two = min(ours(items, folder / "OURS") for _ in range(3))
        print(f"dicomdir: {options.count} instances, {size} bytes: {one:.2f} s; {2 * options.count}: {two:.2f} s")
        print(f"dicomdir: growth {two / one:.2f} (limit {LIMIT_GROWTH})")
        good = two / one <= LIMIT_GROWTH
        if not options.linear and shutil.which("dcmmkdir"):
            peer = theirs(whole, half, folder)
            print(f"dicomdir: dcmmkdir {peer:.2f} s; ratio {one / peer:.3f} (limit {LIMIT_RATIO})")
            good &= one / peer <= LIMIT_RATIO
        elif not options.linear:
            print("dicomdir: dcmmkdir is not installed, no ratio")
    finally:
        shutil.rmtree(folder)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
