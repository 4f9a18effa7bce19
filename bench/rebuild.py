"""Rebuilding the catalogue from a disc's image against ``sha256sum`` over the same image.

``python -m bench.rebuild [--megabytes N] [--rounds N]``. Each image is read once before, so that both read it from the
page cache: what is measured is our own work, a drive would be the slower part of both. The rebuild goes into an empty
database each time, and is measured from the call to the commit. The promise is 1.5.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.common import burnish, timed, write_study
from config.settings import load
from service import opening, rebuilding

LIMIT = 1.5
SIZES = (("CT, 0.5 MB an instance", 524_288), ("MR, 130 kB", 131_072), ("small files, 20 kB", 18_432))


def make_image(folder: Path, megabytes: int, pixel_bytes: int) -> tuple[Path, int]:
    """An archive disc's image of about so many megabytes, and its instances."""
    data = folder / "data"
    count = max(1, megabytes * 1_000_000 // (pixel_bytes + 2000))
    write_study(folder / "in", count, pixel_bytes)
    burnish("import", str(folder / "in"), data=data)
    shutil.rmtree(folder / "in")
    burnish("burn", "--all", "--profile", "STD-GEN-DVD-RAM", "--iod", "off", "--wait", data=data)
    (image,) = (data / "discs").glob("*.iso")
    target = image.rename(folder / "disc.iso")
    shutil.rmtree(data)
    os.sync()
    return target, count


def rebuild(image: Path, data: Path) -> tuple[float, dict[str, Any]]:
    """Seconds, and the document."""
    settings = load(data=data)
    context = opening.open_context(settings)
    try:
        started = time.perf_counter()
        document = rebuilding.run(context, [str(image)])
        return time.perf_counter() - started, document
    finally:
        opening.close_context(context)
        shutil.rmtree(data)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{'':24} {'instances':>9} {'image':>9} {'sha256sum':>10} {'rebuild':>9} {'ratio':>6}")
    worst = 0.0
    for name, pixel_bytes in SIZES:
        with tempfile.TemporaryDirectory(prefix="burnish-bench-") as temporary:
            folder = Path(temporary)
            image, count = make_image(folder, arguments.megabytes, pixel_bytes)
            sums, ours = [], []
            for number in range(arguments.rounds):
                sums.append(timed(["sha256sum", str(image)]))
                seconds, document = rebuild(image, folder / f"fresh{number}")
                if document["summary"]["new_instances"] != count or document["summary"]["entered"] != 1:
                    raise SystemExit(f"the rebuild is not right: {document['summary']}")
                ours.append(seconds)
            ratio = min(ours) / min(sums)
            worst = max(worst, ratio)
            size = image.stat().st_size
            print(
                f"{name:24} {count:9} {size / 1e6:6.0f} MB {min(sums):8.2f} s {min(ours):7.2f} s {ratio:6.2f}",
                flush=True,
            )
    print(f"the promise is {LIMIT}: {'kept' if worst <= LIMIT else 'not kept by every size'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
