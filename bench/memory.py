"""A large multi-frame instance is received, planned, imaged and verified in little memory.

    python -m bench.memory [--mb 2000] [--folder F]

Sends one instance with DCMTK's storescu, burns it to a DVD image, and samples the memory of all processes of the
service. Goal: less than 400 MB for 2 GB.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

from bench.common import burnish, ct_template, service, tree_memory


def write_large(path: Path, megabytes: int) -> None:
    """A multi-frame instance whose pixel data are written piece by piece."""
    ds = ct_template(512 * 512 * 2)
    frame = bytes(ds.PixelData)
    frames = megabytes * 1_000_000 // len(frame)
    ds.NumberOfFrames = frames
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7.3"
    ds.PixelData = frame
    ds.save_as(path, enforce_file_format=True)
    with path.open("r+b") as file:
        file.seek(-len(frame) - 4, 2)
        file.write((frames * len(frame)).to_bytes(4, "little"))
        for _ in range(frames):
            file.write(frame)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=2000)
    parser.add_argument("--folder", type=Path, default=None)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="burnish-memory-", dir=arguments.folder))
    try:
        large = folder / "large.dcm"
        write_large(large, arguments.mb)
        with service(folder / "data") as (process, ready):
            peak = [0, 0]
            done = threading.Event()

            def sample() -> None:
                while not done.wait(0.1):
                    pss, rss = tree_memory(process.pid)
                    peak[:] = max(peak[0], pss), max(peak[1], rss)

            idle = tree_memory(process.pid)
            sampler = threading.Thread(target=sample)
            sampler.start()
            dicom = ready["dicom"]
            subprocess.run(["storescu", dicom["host"], str(dicom["port"]), str(large)], check=True)
            received = tuple(peak)
            job = burnish(
                "burn", "--all", "--profile", "STD-GEN-DVD-JPEG", "--medium", "DVD-R", "--wait", data=folder / "data"
            )
            done.set()
            sampler.join()
            assert [disc["state"] for disc in job["discs"]] == ["VERIFIED"], job
        print(f"{large.stat().st_size / 1e6:.0f} MB in one instance; all processes of the service together:")
        for what, (pss, rss) in (("idle", idle), ("after receipt", received), ("after burning", peak)):
            print(f"{what:14} peak {pss / 1e6:.0f} MB proportional, {rss / 1e6:.0f} MB resident (goal: 400)")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
