"""Lossless compression of CT on all cores, against DCMTK's and GDCM's programs run in parallel on as many.

    python -m bench.compress [--count 500] [--runs 3] [--folder F]

The images are made (bench/ct.py). Goals: JPEG Lossless 3 x as fast as dcmcjpeg, JPEG 2000 as fast as gdcmconv. Ours
decodes every frame again and compares it; the peers do not. Theirs is one process an image, as they are made; ours is
the time of a batch, start of the helper processes included.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from bench.ct import write_ct
from jobs.conform_pool import Task, conform_all

PEERS = {"jpeg-lossless/1": ["dcmcjpeg", "+e1"], "j2k/1": ["gdcmconv", "--j2k"]}


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
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to be measured")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="burnish-compress-", dir=arguments.folder))
    try:
        made = write_ct(folder / "in", arguments.count)
        print(f"{len(made)} CT of 512 x 512, {_size(folder / 'in'):.0f} MB, {os.cpu_count()} cores")
        for recipe, command in PEERS.items():
            ratios = []
            for _ in range(arguments.runs):
                ours = _ours(made, folder / "ours", recipe)
                peer = _peer(made, folder / "peer", command)
                ratios.append(peer / ours)
                print(
                    f"{recipe}: ours {ours:.2f} s, {_size(folder / 'ours'):.1f} MB; {' '.join(command)} {peer:.2f} s, "
                    f"{_size(folder / 'peer'):.1f} MB: {ratios[-1]:.2f} x as fast",
                    flush=True,
                )
                shutil.rmtree(folder / "ours")
                shutil.rmtree(folder / "peer")
            print(f"{recipe}: {statistics.median(ratios):.2f} x as fast as {command[0]} (median)")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
