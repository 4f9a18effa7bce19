"""Lossless compression of CT on all cores, against DCMTK's and GDCM's programs run in parallel on as many.

    python -m bench.compress SLICES [--count 500] [--runs 3] [--folder F]

SLICES is a folder with real, uncompressed CT images of 512 x 512 x 16 bits; they are turned and shifted by a few pixels
to make ``--count`` different ones. Goals: JPEG Lossless 3 x as fast as dcmcjpeg, JPEG 2000 as fast as gdcmconv. Ours
decodes every frame again and compares it; the peers do not.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from jobs.conform_pool import Task, conform_all

PEERS = {"jpeg-lossless/1": ["dcmcjpeg", "+e1"], "j2k/1": ["gdcmconv", "--j2k"]}


def _slices(folder: Path) -> list[Path]:
    import pydicom
    from pydicom.errors import InvalidDicomError

    found = []
    for path in sorted(folder.rglob("*")):
        try:
            head = pydicom.dcmread(path, stop_before_pixels=True)
        except (InvalidDicomError, OSError):
            continue
        wanted = (head.get("Modality"), head.get("Rows"), head.get("Columns"), head.get("BitsAllocated"))
        if wanted == ("CT", 512, 512, 16) and head.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1":
            found.append(path)
    return found


def _vary(slices: list[Path], count: int, folder: Path) -> list[Path]:
    import numpy
    import pydicom
    from pydicom.uid import UID

    folder.mkdir()
    made = []
    for number in range(count):
        data_set = pydicom.dcmread(slices[number % len(slices)])
        turned = numpy.rot90(data_set.pixel_array, number // len(slices) % 4)
        data_set.PixelData = numpy.roll(turned, number, axis=(0, 1)).tobytes()
        data_set.SOPInstanceUID = data_set.file_meta.MediaStorageSOPInstanceUID = UID(f"1.2.3.{number + 1}")
        made.append(folder / f"{number}.dcm")
        data_set.save_as(made[-1])
    return made


def _ours(made: list[Path], folder: Path, recipe: str) -> float:
    folder.mkdir()
    tasks = [Task(key, str(key), path, folder / path.name, recipe) for key, path in enumerate(made)]
    start = time.perf_counter()
    results = list(conform_all(tasks, processes=0, cancelled=lambda: False))
    spent = time.perf_counter() - start
    assert all(result.refused is None and ".4." in result.transfer_syntax_uid for result in results), results[:1]
    return spent


def _peer(made: list[Path], folder: Path, command: list[str]) -> float:
    folder.mkdir()
    names = "".join(f"{path}\n{folder / path.name}\n" for path in made)
    start = time.perf_counter()
    parallel = ["xargs", "-P", str(os.cpu_count()), "-n", "2", *command]
    subprocess.run(parallel, input=names.encode(), check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def _size(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.iterdir()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slices", type=Path)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to be measured")
    arguments = parser.parse_args()
    slices = _slices(arguments.slices)
    if not slices:
        parser.error(f"{arguments.slices} has no uncompressed CT of 512 x 512 x 16 bits")
    folder = Path(tempfile.mkdtemp(prefix="burnish-compress-", dir=arguments.folder))
    try:
        made = _vary(slices, arguments.count, folder / "in")
        print(f"{len(made)} CT of {len(slices)} real ones, {_size(folder / 'in'):.0f} MB, {os.cpu_count()} cores")
        for recipe, command in PEERS.items():
            for _ in range(arguments.runs):
                ours = _ours(made, folder / "ours", recipe)
                peer = _peer(made, folder / "peer", command)
                print(
                    f"{recipe}: ours {ours:.2f} s, {_size(folder / 'ours'):.1f} MB; {' '.join(command)} {peer:.2f} s, "
                    f"{_size(folder / 'peer'):.1f} MB: {peer / ours:.2f} x as fast"
                )
                shutil.rmtree(folder / "ours")
                shutil.rmtree(folder / "peer")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
