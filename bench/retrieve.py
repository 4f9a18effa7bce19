"""C-MOVE and C-GET of many CT instances: from Burnish and from Orthanc, in turns, to the same receivers.

    python -m bench.retrieve [--count 100] [--runs 2] [--folder F]

BURNISH_BENCH=full: 500 instances. C-MOVE is asked for by ``movescu`` and goes to a ``storescp --ignore``; C-GET is
``getscu --ignore``. Goal: at most Orthanc's time.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom

from bench.common import write_study
from bench.ingest import PIXEL_BYTES, free_port, send, wait_for_port
from config.settings import load
from scp.server import StorageServer
from store import migrate, remotes
from store.db import Database

FULL = os.environ.get("BURNISH_BENCH") == "full"
SINK = "SINK"


@contextmanager
def program(command: list[str], port: int) -> Iterator[int]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=60)


@contextmanager
def burnish(folder: Path, sink: int) -> Iterator[int]:
    settings = load(data=folder, overrides={"dicom": {"port": 0}})
    database = Database(settings.database_url)
    migrate.upgrade(database)
    with database.begin() as session:
        remotes.add(session, remotes.Remote("sink", SINK, "127.0.0.1", sink))
    server = StorageServer(
        settings.dicom,
        settings.spool,
        spool_dir=settings.spool_dir,
        database_url=settings.database_url,
        node="bench",
        commitment=settings.commitment,
        tls=settings.tls,
        data=settings.data,
    )
    _, port = server.start()
    try:
        yield port
    finally:
        server.stop()
        database.close()


@contextmanager
def orthanc(folder: Path, sink: int) -> Iterator[int]:
    port = free_port()
    configuration = folder / "orthanc.json"
    configuration.write_text(
        json.dumps(
            {
                "StorageDirectory": str(folder / "db"),
                "DicomPort": port,
                "HttpPort": free_port(),
                "Plugins": [],
                "DicomCheckCalledAet": False,
                "DicomAlwaysAllowGet": True,
                "DicomAlwaysAllowMove": True,
                "DicomModalities": {
                    "sink": [SINK, "127.0.0.1", sink],
                    "asker": ["ASKER", "127.0.0.1", free_port()],
                },
            }
        )
    )
    with program(["Orthanc", str(configuration)], port) as ready:
        yield ready


PEERS: dict[str, Callable[..., object]] = {"burnish": burnish, "orthanc": orthanc}


def ask(command: list[str], study: str, port: int) -> float:
    """Seconds of a retrieve that must succeed."""
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}"]
    begun = time.perf_counter()
    done = subprocess.run(
        [*command, "-v", "-S", "-aet", "ASKER", "-aec", "ANY", *keys, "127.0.0.1", str(port)],
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - begun
    output = done.stdout + done.stderr
    if done.returncode or "Success" not in output:
        raise RuntimeError(f"{command[0]}: {output[-2000:]}")
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=500 if FULL else 100)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to be measured")
    arguments = parser.parse_args()
    for name in ("Orthanc", "movescu", "getscu", "storescp", "dcmsend"):
        if shutil.which(name) is None:
            print(f"{name} is not installed: nothing is measured")
            return 1
    folder = Path(tempfile.mkdtemp(prefix="burnish-retrieve-", dir=arguments.folder))
    times: dict[tuple[str, str], list[float]] = {}
    try:
        total = write_study(folder / "in", arguments.count, PIXEL_BYTES)
        files = sorted((folder / "in").iterdir())
        study = str(pydicom.dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
        print(f"{len(files)} instances, {total / 1e6:.0f} MB")
        sink = free_port()
        with program(["storescp", "--ignore", "--fork", str(sink)], sink):
            for peer, start in PEERS.items():
                (folder / peer).mkdir()
                with start(folder / peer, sink) as port:  # type: ignore[attr-defined]
                    send(files, 4, port)
                    for run in range(arguments.runs):
                        for what, command in (
                            ("C-MOVE", ["movescu", "-aem", SINK]),
                            ("C-GET", ["getscu", "--ignore"]),
                        ):
                            times.setdefault((what, peer), []).append(ask(command, study, port))
                            print(f"  run {run + 1}: {what} {peer:8} {times[what, peer][-1]:6.2f} s", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for what in ("C-MOVE", "C-GET"):
        middle = {peer: statistics.median(times[what, peer]) for peer in PEERS}
        for peer, value in middle.items():
            print(f"{what:6} {peer:8} median {value:6.2f} s  {total / value / 1e6:6.1f} MB/s")
        print(f"    Burnish takes {middle['burnish'] / middle['orthanc']:.2f} x")
    return 0


if __name__ == "__main__":
    sys.exit(main())
