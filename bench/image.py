"""An image of many files: our writer, fsync and a read-back with digests against ``cp``, ``sync`` and ``sha256sum``.

``python -m bench.image [--mb N] [--files N] [--rounds N]``. Ours reads the image back from the disk: its pages are
dropped from the cache first. The peer copies the same files, syncs, and sums the copies (which it has in the cache).
The promise of the whole job, request to verified image inside the service, is 3 (see ``bench.spine``).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from media.iso9660 import IsoImage
from media.items import DiscFile

LIMIT = 3.0


def make_files(folder: Path, megabytes: int, count: int) -> list[DiscFile]:
    """Files of equal size with random bytes, as a file-set would name them."""
    folder.mkdir()
    size = megabytes * 1_000_000 // count
    files = []
    for number in range(count):
        data = os.urandom(size)
        path = folder / f"{number:06}"
        path.write_bytes(data)
        file_id = ("DICOM", "P0000001", "ST000001", f"SE{number // 100 + 1:06}", f"IM{number % 100 + 1:06}")
        files.append(DiscFile(file_id, size, hashlib.sha256(data).hexdigest(), path))
    os.sync()
    return files


def ours(files: list[DiscFile], target: Path) -> dict[str, float]:
    """Seconds of each part."""
    started = time.perf_counter()
    image = IsoImage(files, "BENCH_01", datetime(2024, 1, 1, tzinfo=UTC))
    with target.open("wb", buffering=0) as out:
        digest = image.write(out)
        written = time.perf_counter()
        os.fsync(out.fileno())
    synced = time.perf_counter()
    with target.open("rb", buffering=0) as back:
        os.posix_fadvise(back.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if hashlib.file_digest(back, "sha256").hexdigest() != digest:  # type: ignore[arg-type]
            raise SystemExit("the image does not read back as it was written")
    done = time.perf_counter()
    target.unlink()
    return {"write": written - started, "fsync": synced - written, "read back": done - synced, "all": done - started}


def peer(source: Path, target: Path) -> dict[str, float]:
    """The same bytes by the system's tools."""
    started = time.perf_counter()
    subprocess.run(["cp", "-r", source, target], check=True)
    copied = time.perf_counter()
    subprocess.run(["sync"], check=True)
    synced = time.perf_counter()
    subprocess.run(
        ["find", target, "-type", "f", "-exec", "sha256sum", "{}", "+"], check=True, stdout=subprocess.DEVNULL
    )
    done = time.perf_counter()
    shutil.rmtree(target)
    return {"cp": copied - started, "sync": synced - copied, "sha256sum": done - synced, "all": done - started}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=1000)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="where to work; default: the temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        files = make_files(folder / "spool", options.mb, options.files)
        both: list[tuple[str, Callable[[], dict[str, float]]]] = [
            ("burnish", lambda: ours(files, folder / "disc.iso")),
            ("cp, sync, sha256sum", lambda: peer(folder / "spool", folder / "copy")),
        ]
        best: dict[str, float] = {}
        for _ in range(options.rounds):
            for label, run in both:
                parts = run()
                print(f"{label:20}", "  ".join(f"{part} {seconds:.2f} s" for part, seconds in parts.items()))
                best[label] = min(best.get(label, parts["all"]), parts["all"])
    ratio = best["burnish"] / best["cp, sync, sha256sum"]
    print(f"image of {options.mb} MB in {options.files} files: ratio {ratio:.2f} (at most {LIMIT})")
    return 0 if ratio <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
