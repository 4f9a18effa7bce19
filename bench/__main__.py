"""``make bench``: every benchmark, one after the other."""

from __future__ import annotations

import subprocess
import sys

BENCHES = (
    "ingest",
    "dicomdir",
    "image",
    "spine",
    "memory",
    "planning",
    "compress",
    "query",
    "retrieve",
    "packing",
    "archive",
    "rebuild",
    "board",
)


def main() -> int:
    failed = []
    for name in BENCHES:
        print(f"== {name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"bench.{name}"], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"did not run to the end: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
