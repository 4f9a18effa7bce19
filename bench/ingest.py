"""Receiving many CT instances over parallel associations: Burnish, Orthanc and storescp, in turns, on this machine.

    python -m bench.ingest [--count 500] [--associations 8] [--runs 3] [--acceptors 2] [--folder F]

Each receiver runs with its default settings and stores into a new folder; the senders are ``dcmsend`` processes. What
Burnish answers with success is hashed, synced and committed. Goal: at most 0.9 of Orthanc's time.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.common import tree_memory, write_study
from config.settings import load
from scp.server import StorageServer
from store import migrate
from store.db import Database

PIXEL_BYTES = 512 * 512 * 2


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"nothing listens on port {port}")


@contextmanager
def burnish(folder: Path, acceptors: int) -> Iterator[int]:
    settings = load(data=folder, overrides={"dicom": {"port": 0, "acceptors": acceptors}})
    database = Database(settings.database_url)
    migrate.upgrade(database)
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
        memory = [tree_memory(pid)[1] / 1e6 for pid in server.processes]
        print(f"    acceptors' memory: {', '.join(f'{size:.0f} MB' for size in memory)}")
        server.stop()
        database.close()


@contextmanager
def orthanc(folder: Path, _: int) -> Iterator[int]:
    port = free_port()
    configuration = folder / "orthanc.json"
    configuration.write_text(
        json.dumps({"StorageDirectory": str(folder / "db"), "DicomPort": port, "HttpPort": free_port(), "Plugins": []})
    )
    yield from _program(["Orthanc", str(configuration)], port)


@contextmanager
def storescp(folder: Path, _: int) -> Iterator[int]:
    port = free_port()
    (folder / "out").mkdir()
    yield from _program(["storescp", "--fork", "-od", str(folder / "out"), str(port)], port)


def _program(command: list[str], port: int) -> Iterator[int]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=60)


RECEIVERS: dict[str, Callable[..., object]] = {"burnish": burnish, "orthanc": orthanc, "storescp": storescp}


def send(files: list[Path], associations: int, port: int) -> float:
    """Seconds until all files are sent and answered with success."""
    start = time.perf_counter()
    senders = [
        subprocess.Popen(
            ["dcmsend", "127.0.0.1", str(port), *map(str, files[number::associations])], stderr=subprocess.PIPE
        )
        for number in range(associations)
    ]
    for sender in senders:
        _, errors = sender.communicate()
        if sender.returncode or errors.strip():
            raise RuntimeError(f"dcmsend: {errors.decode()}")
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--associations", type=int, default=8)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--acceptors", type=int, default=2)
    parser.add_argument("--receivers", default="burnish,orthanc,storescp")
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to be measured")
    arguments = parser.parse_args()
    names = [name for name in arguments.receivers.split(",") if name in RECEIVERS]
    for program in ("dcmsend", *({"orthanc": "Orthanc"}.get(name, name) for name in names if name != "burnish")):
        if shutil.which(program) is None:
            print(f"{program} is not installed: nothing is measured")
            return 1
    folder = Path(tempfile.mkdtemp(prefix="burnish-ingest-", dir=arguments.folder))
    times: dict[str, list[float]] = {name: [] for name in names}
    try:
        total = write_study(folder / "in", arguments.count, PIXEL_BYTES)
        files = sorted((folder / "in").iterdir())
        print(f"{len(files)} instances, {total / 1e6:.0f} MB, {arguments.associations} associations")
        for run in range(arguments.runs):
            for name in names:
                target = folder / f"{name}-{run}"
                target.mkdir()
                with RECEIVERS[name](target, arguments.acceptors) as port:  # type: ignore[attr-defined]
                    times[name].append(send(files, arguments.associations, port))
                shutil.rmtree(target)
                print(f"  run {run + 1}: {name:9} {times[name][-1]:6.2f} s", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    middle = {name: statistics.median(values) for name, values in times.items()}
    for name, value in middle.items():
        ratio = (
            f"  Burnish takes {middle['burnish'] / value:.2f} x" if name != "burnish" and "burnish" in middle else ""
        )
        print(f"{name:9} median {value:6.2f} s  {total / value / 1e6:6.1f} MB/s{ratio}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
