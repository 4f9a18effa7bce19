"""Rebuilding the catalogue from a disc's image against ``sha256sum`` over the same image.

``python -m bench.rebuild [--megabytes N] [--rounds N]``. Once with the image in the page cache: what is measured then
is our own work (a drive would be the slower part of both). And once after the page cache has let go of it, so that both
wait for the medium. The rebuild goes into an empty database each time, and is measured from the call to the commit. The
promise is 1.5.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.common import burnish, timed, write_study
from config.settings import load
from media.device import drop_from_cache
from service import opening, rebuilding

LIMIT = 1.5
SIZES = (
    ("CT, 0.5 MB an instance", 524_288, 400),
    ("MR, 130 kB", 131_072, 250),
    ("small files, 20 kB", 18_432, 80),
)
"""Name, bytes of pixel data of an instance, and megabytes of an image that takes a short time to make."""


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


def rebuild(image: Path, data: Path, count: int) -> float:
    """Seconds that it takes to enter an image in an empty catalogue."""
    settings = load(data=data)
    context = opening.open_context(settings)
    try:
        started = time.perf_counter()
        document = rebuilding.run(context, [str(image)])
        seconds = time.perf_counter() - started
    finally:
        opening.close_context(context)
        shutil.rmtree(data)
    told: dict[str, Any] = document["summary"]
    if told["new_instances"] != count or told["entered"] != 1:
        raise SystemExit(f"the rebuild is not right: {told}")
    return seconds


def read_once(image: Path) -> None:
    """Have the page cache hold it."""
    with image.open("rb") as file:
        while file.read(1 << 20):
            pass


def let_go(image: Path) -> None:
    """Have the page cache forget it, as far as the system does so."""
    with image.open("rb") as file:
        drop_from_cache(file.fileno())


def compare(image: Path, count: int, rounds: int, before: Callable[[Path], None]) -> tuple[float, float]:
    """The best times of ``sha256sum`` and of the rebuild."""
    sums, ours = [], []
    for number in range(rounds):
        before(image)
        sums.append(timed(["sha256sum", str(image)]))
        before(image)
        ours.append(rebuild(image, image.parent / f"fresh{number}", count))
    return min(sums), min(ours)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, help="of every image")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    gc.set_threshold(10_000, 10, 10)  # as ``burnish serve`` does
    print(f"{'':24} {'instances':>9} {'image':>9} {'':>10} {'sha256sum':>10} {'rebuild':>9} {'ratio':>6}")
    worst = 0.0
    for name, pixel_bytes, megabytes in SIZES:
        with tempfile.TemporaryDirectory(prefix="burnish-bench-") as temporary:
            image, count = make_image(Path(temporary), arguments.megabytes or megabytes, pixel_bytes)
            size = image.stat().st_size
            for how, before in (("page cache", read_once), ("medium", let_go)):
                summed, ours = compare(image, count, arguments.rounds, before)
                ratio = ours / summed
                worst = max(worst, ratio)
                print(
                    f"{name:24} {count:9} {size / 1e6:6.0f} MB {how:>10} {summed:8.2f} s {ours:7.2f} s {ratio:6.2f}",
                    flush=True,
                )
    print(f"the promise is {LIMIT}: {'kept' if worst <= LIMIT else 'not kept by every size'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
