"""Acceptor processes: they start, die, are replaced, and never outlive who started them."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scp.server import ServerFailed
from store import migrate
from store.db import Database
from store.spool import INCOMING
from tests.makers import make, study
from tests.ports import own_port
from tests.scp.conftest import Start
from tests.scp.scu import VERIFICATION, Scu, pdata, pdv
from tests.waiting import until

IMPLICIT_LE = "1.2.840.10008.1.2"


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


def test_it_starts_and_stops(start: Start) -> None:
    port = own_port()  # which nobody else takes once it is free
    receiver = start(acceptors=2, port=port)
    pids = receiver.server.processes
    assert receiver.port == port and len(pids) == 2
    scu = Scu(receiver.port)
    receiver.server.stop()
    assert not any(map(is_running, pids))
    with pytest.raises((ConnectionError, AssertionError)):
        scu.response()
    scu.sock.close()
    with pytest.raises(ConnectionRefusedError):
        Scu(receiver.port)


def test_a_port_in_use(start: Start, tmp_path: Path) -> None:
    receiver = start()
    with pytest.raises(ServerFailed, match=str(receiver.port)):
        start(tmp_path / "other", port=receiver.port)


def test_acceptors_are_small(start: Start) -> None:
    """No decoders, no numpy, no web framework in a process that only receives."""
    receiver = start()
    made = make("CT")
    with Scu(receiver.port) as scu:
        assert scu.store(made.sop_class_uid, made.sop_instance_uid, made.encoded).status == 0
        maps = Path(f"/proc/{receiver.server.processes[0]}/maps").read_text()
        status = Path(f"/proc/{receiver.server.processes[0]}/status").read_text()
    assert "numpy" not in maps
    resident = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
    assert resident < 90_000


def test_an_acceptor_that_is_killed_is_replaced_and_leaves_nothing(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = start(acceptors=1)
    (pid,) = receiver.server.processes
    made = make("CT", seed=1)
    good = make("CT", seed=2)
    with Scu(receiver.port) as other, Scu(receiver.port) as scu:
        assert other.store(good.sop_class_uid, good.sop_instance_uid, good.encoded).status == 0
        scu.begin(made.sop_class_uid, made.sop_instance_uid)
        scu.send(pdata(pdv(1, 0, made.encoded[:5000])))
        until(receiver.unfinished)
        os.kill(pid, signal.SIGKILL)
        until(lambda: not is_running(pid))
        # The next connection waits in the listening socket for the new acceptor, which sweeps before it accepts.
        with Scu(receiver.port) as again:
            assert receiver.unfinished() == []
            assert [row.sop_instance_uid for row in receiver.instances()] == [good.sop_instance_uid]
            assert again.store(made.sop_class_uid, made.sop_instance_uid, made.encoded).status == 0
            assert receiver.server.associations == 1
    assert receiver.server.processes != [pid]
    assert any("SIGKILL" in record.getMessage() for record in caplog.records)


def test_logs_name_peers_and_never_patients(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    receiver = start()
    made = make("CT", PatientName="Secret^Name", PatientID="SECRET1")
    with Scu(receiver.port, calling="MODALITY7") as scu:
        assert scu.store(made.sop_class_uid, made.sop_instance_uid, made.encoded).status == 0
        assert scu.store(made.sop_class_uid, made.sop_instance_uid, made.encoded[:-9]).status != 0
        assert scu.store(made.sop_class_uid, "1.2.3", made.encoded).status != 0
        scu.release()
    until(lambda: any("is over" in record.getMessage() for record in caplog.records))
    text = caplog.text
    assert "MODALITY7" in text and "127.0.0.1" in text
    assert "ecret" not in text and "SECRET" not in text


SERVE = """
import json, sys
from pathlib import Path
from config.settings import load
from scp.server import StorageServer
from store.instances import sweep
from store.spool import Spool
from store.db import Database
settings = load(data=Path(sys.argv[1]), overrides={"dicom": {"port": int(sys.argv[2]), "acceptors": 2}})
db = Database(settings.database_url)
sweep(db, Spool(settings.spool_dir, node="test"))
server = StorageServer(settings.dicom, settings.spool, spool_dir=settings.spool_dir,
                       database_url=settings.database_url, node="test", commitment=settings.commitment,
                       tls=settings.tls, data=settings.data)
host, port = server.start()
print(json.dumps({"port": port, "pids": server.processes}), flush=True)
sys.stdin.read()
server.stop()
"""


def serve(folder: Path, port: int = 0) -> tuple[subprocess.Popen[str], int, list[int]]:
    """A main process of its own, which a test can kill."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(folder), str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    ready = json.loads(process.stdout.readline())
    return process, ready["port"], ready["pids"]


@pytest.mark.crash
def test_the_main_process_is_killed_in_the_middle(tmp_path: Path) -> None:
    """Its acceptors die with it, the port is free at once, and what was answered with success is there."""
    db = Database(f"sqlite:///{tmp_path / 'burnish.db'}")
    migrate.upgrade(db)
    acknowledged: list[str] = []
    port = own_port()
    instances = list(study("CT", 9, seed=5, size=200_000))
    for run in range(3):
        process, port, pids = serve(tmp_path, port)
        with Scu(port) as scu, Scu(port) as half:
            for made in instances[3 * run : 3 * run + 3]:
                assert scu.store(made.sop_class_uid, made.sop_instance_uid, made.encoded).status == 0
                acknowledged.append(made.sop_instance_uid)
            late = make("CT", seed=6, number=run + 1)
            half.begin(late.sop_class_uid, late.sop_instance_uid)
            half.send(pdata(pdv(1, 0, late.encoded[:4000])))
            # One more is sent whole, and its answer not awaited: it may be there or not, but never by half.
            eager = make("CT", seed=7, number=run + 1)
            scu.begin(eager.sop_class_uid, eager.sop_instance_uid)
            scu.send(pdata(pdv(1, 2, eager.encoded)))
            process.kill()
            process.wait()
            until(lambda pids=pids: not any(map(is_running, pids)))  # type: ignore[misc]
    process, port, _ = serve(tmp_path, port)
    process.communicate("")
    assert process.returncode == 0
    from sqlalchemy import select

    from store.models import Instance

    with db.read() as session:
        rows = list(session.execute(select(Instance)).scalars())
    assert {row.sop_instance_uid for row in rows} >= set(acknowledged)
    spool = tmp_path / "spool"
    for row in rows:
        assert row.spool_path is not None
        assert hashlib.sha256((spool / row.spool_path).read_bytes()).hexdigest() == row.file_sha256
    assert len(list(spool.rglob("*.dcm"))) == len(rows)
    assert not [path for path in (spool / INCOMING).rglob("*") if path.is_file()]
    db.close()


def test_a_stopped_main_process_leaves_no_helper(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path / 'burnish.db'}")
    migrate.upgrade(db)
    process, port, pids = serve(tmp_path)
    with Scu(port, [(VERIFICATION, (IMPLICIT_LE,))]) as scu:
        assert scu.echo().status == 0
    process.communicate("")
    assert process.returncode == 0
    assert not any(map(is_running, pids))
    db.close()


@pytest.mark.postgres
def test_two_nodes_on_one_database(start: Start, tmp_path: Path, postgres_url: str) -> None:
    """The same instances sent to both at the same moment exist once."""
    from concurrent.futures import ThreadPoolExecutor

    spool = {"folder": str(tmp_path / "shared")}
    receivers = [start(tmp_path / name, url=postgres_url, spool=spool) for name in ("a", "b")]
    instances = list(study("CT", 10, seed=9))

    def send(port: int) -> list[int]:
        with Scu(port) as scu:
            return [scu.store(m.sop_class_uid, m.sop_instance_uid, m.encoded).status for m in instances]

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(send, [receiver.port for receiver in receivers] * 2))
    assert answers == [[0] * 10] * 4
    rows = receivers[0].instances()
    assert len(rows) == 10
    assert all(receivers[1].bytes_of(row) for row in rows)
    assert len(receivers[0].published()) == 10
