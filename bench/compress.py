"""Lossless compression of CT on all cores, against DCMTK's and GDCM's programs run in parallel on as many.

    python -m bench.compress [--count 500] [--runs 3] [--folder F]

The images are made (bench/ct.py). Goals: JPEG Lossless 3 x as fast as dcmcjpeg, JPEG 2000 as fast as gdcmconv. Ours
decodes every frame again and compares it; the peers do not. Theirs is one process an image, as they are made; ours is
the time of a batch, start of the helper processes included. Processor time tells more where others use the machine.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from bench.ct import write_ct
from jobs.conform_pool import Task, conform_all

PEERS = {"jpeg-lossless/1": ["dcmcjpeg", "+e1"], "j2k/1": ["gdcmconv", "--j2k"]}


class _Clock:
    """Seconds of wall time, and of processor time of this process and of those that it has waited for."""

    def __init__(self) -> None:
        self._wall, self._processor = time.perf_counter(), self._used()

    @staticmethod
    def _used() -> float:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(each.ru_utime + each.ru_stime for each in used)

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self._wall, self._used() - self._processor


def _ours(made: list[Path], folder: Path, recipe: str) -> tuple[float, float]:
    folder.mkdir()
    tasks = [Task(key, str(key), path, folder / path.name, recipe) for key, path in enumerate(made)]
    clock = _Clock()
    results = list(conform_all(tasks, processes=0, cancelled=lambda: False))
    spent = clock.read()
    assert all(result.refused is None and ".4." in result.transfer_syntax_uid for result in results), results[:1]
    return spent


def _peer(made: list[Path], folder: Path, command: list[str]) -> tuple[float, float]:
    folder.mkdir()
    names = "".join(f"{path}\n{folder / path.name}\n" for path in made)
    clock = _Clock()
    parallel = ["xargs", "-P", str(os.cpu_count()), "-n", "2", *command]
    subprocess.run(parallel, input=names.encode(), check=True, stdout=subprocess.DEVNULL)
    return clock.read()


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
                ours, peer = _ours(made, folder / "ours", recipe), _peer(made, folder / "peer", command)
                ratios.append((peer[0] / ours[0], peer[1] / ours[1]))
                print(
                    f"{recipe}: ours {ours[0]:.2f} s ({ours[1]:.2f} s of processors), "
                    f"{_size(folder / 'ours'):.1f} MB; {' '.join(command)} {peer[0]:.2f} s ({peer[1]:.2f} s), "
                    f"{_size(folder / 'peer'):.1f} MB: {ratios[-1][0]:.2f} x as fast",
                    flush=True,
                )
                shutil.rmtree(folder / "ours")
                shutil.rmtree(folder / "peer")
            wall, processor = (statistics.median(ratio[which] for ratio in ratios) for which in (0, 1))
            print(f"{recipe}: {wall:.2f} x as fast as {command[0]}, by processor time {processor:.2f} x (medians)")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
