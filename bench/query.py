"""C-FIND at study level on one open association: Burnish and Orthanc over made-up catalogues, in turns.

    python -m bench.query [--count 50000] [--peer-count 20000] [--runs 15] [--database URL]

BURNISH_BENCH=full: 1,000,000 studies with Burnish, 100,000 with Orthanc. A wildcard name has 100 matches, an accession
number, a Study Instance UID and a Patient ID have one. Orthanc answers from its index alone ("StorageAccessOnFind":
"Never"), its fastest way. Goals: wildcard at most 1/5 of Orthanc's time, single match at most Orthanc's; Burnish's own
time grows by far less than its catalogue.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.catalogue import FAMILY_SIZE, family, fill
from bench.ingest import free_port, wait_for_port
from config.settings import load
from media.attributes import Attribute, encode
from media.encoding import EXPLICIT_LE
from scp.commands import C_FIND_RQ, command_pdus, command_set, data_pdus, number, parse_command
from scp.sender import association_request
from scp.server import StorageServer
from store import migrate
from store.db import Database

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
FULL = os.environ.get("BURNISH_BENCH") == "full"
_KEYS = {0x00080020: b"DA", 0x00080030: b"TM", 0x00080050: b"SH", 0x00081030: b"LO", 0x00100010: b"PN",
         0x00100020: b"LO", 0x0020000D: b"UI", 0x00200010: b"SH"}  # fmt: skip


class Asker:
    """A C-FIND SCU that does as little as can be done."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port))
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()
        self._sock.sendall(association_request("BENCH", "ANY", [(STUDY_ROOT_FIND, "1.2.840.10008.1.2.1")]))
        if self._pdu()[0] != 0x02:
            raise RuntimeError("the association is not accepted")

    def close(self) -> None:
        self._sock.close()

    def _pdu(self) -> bytes:
        while len(self._buffer) < 6 or len(self._buffer) < 6 + int.from_bytes(self._buffer[2:6], "big"):
            # Acknowledged at once, so that nobody's time is that of delayed acknowledgements.
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            data = self._sock.recv(1 << 18)
            if not data:
                raise RuntimeError("the connection was closed")
            self._buffer += data
        size = 6 + int.from_bytes(self._buffer[2:6], "big")
        pdu = bytes(self._buffer[:size])
        del self._buffer[:size]
        return pdu

    def ask(self, **keys: str) -> int:
        """How many matches there are; keys are ``t`` and the tag in hexadecimal."""
        values = {tag: Attribute(vr, keys.get(f"t{tag:08X}", "")) for tag, vr in _KEYS.items()}
        identifier = encode({0x00080052: Attribute(b"CS", "STUDY"), **values}, EXPLICIT_LE, "")
        command = command_set({0x0002: STUDY_ROOT_FIND, 0x0100: C_FIND_RQ, 0x0110: 1, 0x0700: 0, 0x0800: 1})
        self._sock.sendall(b"".join([*command_pdus(1, command, 16384), *data_pdus(1, identifier, 16384)]))
        count = 0
        while True:
            pdu, at = self._pdu(), 6
            while at < len(pdu):
                size = int.from_bytes(pdu[at : at + 4], "big")
                if pdu[at + 5] & 1:
                    status = number(parse_command(pdu[at + 6 : at + 4 + size]), 0x0900)
                    if status not in (0xFF00, 0xFF01):
                        if status:
                            raise RuntimeError(f"status {status:04X}H")
                        return count
                    count += 1
                at += 4 + size


QUESTIONS = {
    "wildcard name, 100 matches": ({"t00100010": family(42)}, FAMILY_SIZE),
    "accession number, 1 match": ({"t00080050": "ACC00004242"}, 1),
    "Study Instance UID, 1 match": ({"t0020000D": "1.2.276.0.99.1.4242"}, 1),
    "Patient ID, 1 match": ({"t00100020": "PID00004242"}, 1),
}


@contextmanager
def burnish(folder: Path, count: int, url: str = "") -> Iterator[int]:
    """A server over a catalogue of so many studies; its port."""
    settings = load(data=folder, overrides={"dicom": {"port": 0, "acceptors": 1}, "database": {"url": url}})
    database = Database(settings.database_url)
    migrate.upgrade(database)
    fill(database, count)
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


_ORTHANC_ROWS = (
    """INSERT INTO Resources SELECT n * 4 + kind - 4, kind, 'p' || (n * 4 + kind),
    CASE kind WHEN 1 THEN NULL ELSE n * 4 + kind - 5 END
    FROM c, (SELECT 1 AS kind UNION SELECT 2 UNION SELECT 3 UNION SELECT 4)""",
    *(
        f"INSERT INTO {table} SELECT n * 4 + {kind} - 4, {tag >> 16}, {tag & 0xFFFF}, {value} FROM c"
        for kind, tag, value, tables in (
            (1, 0x00100020, "'PID' || printf('%08d', n)", 2),
            (1, 0x00100010, "'NAME' || printf('%06d', n / 100) || '^F' || (n % 100)", 2),
            (2, 0x00100020, "'PID' || printf('%08d', n)", 2),
            (2, 0x00100010, "'NAME' || printf('%06d', n / 100) || '^F' || (n % 100)", 2),
            (2, 0x0020000D, "'1.2.276.0.99.1.' || n", 2),
            (2, 0x00080020, "'20' || printf('%02d', n % 25) || '0' || (n % 9 + 1) || '15'", 2),
            (2, 0x00080030, "'101500'", 1),
            (2, 0x00080050, "'ACC' || printf('%08d', n)", 2),
            (2, 0x00081030, "'CT CHEST'", 2),
            (2, 0x00200010, "'S' || n", 1),
            (3, 0x0020000E, "'1.2.276.0.99.2.' || n", 2),
            (3, 0x00080060, "'CT'", 1),
            (4, 0x00080018, "'1.2.276.0.99.3.' || n", 2),
        )
        for table in ("MainDicomTags", "DicomIdentifiers")[:tables]
    ),
)


@contextmanager
def orthanc(folder: Path, count: int) -> Iterator[int]:
    """An Orthanc with the same studies in its index; its port."""
    port = free_port()
    configuration = folder / "orthanc.json"
    configuration.write_text(
        json.dumps(
            {
                "StorageDirectory": str(folder / "db"),
                "DicomPort": port,
                "HttpPort": free_port(),
                "Plugins": [],
                "StorageAccessOnFind": "Never",
                "DicomAlwaysAllowFind": True,
                "DicomCheckCalledAet": False,
            }
        )
    )
    for made in (False, True):
        if made:
            _fill_orthanc(folder / "db" / "index", count)
        process = subprocess.Popen(
            ["Orthanc", str(configuration)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            wait_for_port(port)
            if made:
                yield port
        finally:
            process.terminate()
            process.wait(timeout=60)


def _fill_orthanc(index: Path, count: int) -> None:
    with sqlite3.connect(index) as connection:
        connection.execute("CREATE TEMP TABLE c AS WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c "
                           f"WHERE n < {count}) SELECT n FROM c")  # fmt: skip
        for statement in _ORTHANC_ROWS:
            connection.execute(statement)
    connection.close()


def measure(port: int, runs: int) -> dict[str, float]:
    """Median milliseconds of each question."""
    asker = Asker(port)
    times: dict[str, list[float]] = {name: [] for name in QUESTIONS}
    for run in range(runs + 1):
        for name, (keys, expected) in QUESTIONS.items():
            begun = time.perf_counter()
            found = asker.ask(**keys)
            if found != expected:
                raise RuntimeError(f"{name}: {found} matches")
            if run:  # the first one warms up
                times[name].append((time.perf_counter() - begun) * 1000)
    asker.close()
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000_000 if FULL else 50_000)
    parser.add_argument("--peer-count", type=int, default=100_000 if FULL else 20_000)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--database", default="", help="URL of an empty database, e.g. a PostgreSQL")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="burnish-query-"))
    rows: dict[str, dict[str, float]] = {}
    try:
        for count in () if arguments.database else (arguments.count // 10,):
            (folder / "small").mkdir()
            with burnish(folder / "small", count) as port:
                rows[f"burnish {count:,}"] = measure(port, arguments.runs)
        (folder / "large").mkdir()
        with burnish(folder / "large", arguments.count, arguments.database) as port:
            rows[f"burnish {arguments.count:,}"] = ours = measure(port, arguments.runs)
        if shutil.which("Orthanc"):
            (folder / "orthanc").mkdir()
            with orthanc(folder / "orthanc", arguments.peer_count) as port:
                rows[f"orthanc {arguments.peer_count:,}"] = theirs = measure(port, arguments.runs)
        else:
            theirs = {}
            print("Orthanc is not installed: nothing to compare with")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for name in QUESTIONS:
        print(name)
        for who, times in rows.items():
            print(f"    {who:20} {times[name]:8.2f} ms")
        if theirs:
            print(f"    Burnish takes {ours[name] / theirs[name]:.2f} x")
    return 0


if __name__ == "__main__":
    sys.exit(main())
