"""Request to verified ISO, inside a running service, against ``cp``, ``sync`` and ``sha256sum`` of the same bytes.

    python -m bench.spine [--mb 1000] [--count 2000] [--folder F]

The image is read back from the disk: its pages are dropped from the cache first. Goal: a ratio of at most 3.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from bench.common import burnish, service, timed, write_study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=1000)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to be measured")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="burnish-spine-", dir=arguments.folder))
    try:
        total = write_study(folder / "in", arguments.count, arguments.mb * 1_000_000 // arguments.count)
        print(f"{arguments.count} instances, {total / 1e6:.0f} MB")
        with service(folder / "data"):
            start = time.perf_counter()
            burnish("import", str(folder / "in"), data=folder / "data")
            print(f"import: {time.perf_counter() - start:.2f} s")
            for _ in range(arguments.runs):
                copy = folder / "copy"
                peer = timed(["cp", "-r", str(folder / "in"), str(copy)])
                peer += timed(["sync"])
                peer += timed(["sh", "-c", f"cat '{copy}'/* | sha256sum"])
                shutil.rmtree(copy)
                start = time.perf_counter()
                job = burnish(
                    "burn",
                    "--all",
                    "--profile",
                    "STD-GEN-DVD-JPEG",
                    "--medium",
                    "DVD-R",
                    "--wait",
                    data=folder / "data",
                )
                ours = time.perf_counter() - start
                assert [disc["state"] for disc in job["discs"]] == ["VERIFIED"], job
                print(f"ours {ours:.2f} s, cp+sync+sha256sum {peer:.2f} s: ratio {ours / peer:.2f} (goal: 3)")
                for disc in job["discs"]:
                    Path(disc["image"]).unlink()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
