"""DCMTK and Orthanc send to us."""

from __future__ import annotations

import base64
import json
import subprocess
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from tests.makers import EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, JPEG_BASELINE, make, study
from tests.ports import own_port
from tests.scp.conftest import Receiver, Start, receiver, start
from tests.waiting import until

__all__ = ["receiver", "start"]


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.peer("echoscu")
def test_echoscu(receiver: Receiver) -> None:
    assert run("echoscu", "-v", "--repeat", 3, "127.0.0.1", receiver.port).returncode == 0


@pytest.mark.peer("storescu")
@pytest.mark.parametrize(
    ("option", "syntax"),
    [
        ("-xe", EXPLICIT_LE),
        ("-xi", IMPLICIT_LE),
        ("-xb", EXPLICIT_BE),
        ("-xy", JPEG_BASELINE),
    ],
)
def test_storescu(receiver: Receiver, tmp_path: Path, option: str, syntax: str) -> None:
    kind = "SC_JPEG" if syntax == JPEG_BASELINE else "MR"
    made = make(kind, seed=1000 + len(option + syntax) + ord(option[2]), transfer_syntax_uid=syntax)
    file = made.write(tmp_path / "in.dcm")
    done = run("storescu", "-R", option, "-aet", "STORESCU", "-aec", "BURNISH", "127.0.0.1", receiver.port, file)
    assert done.returncode == 0, done.stderr
    (row,) = receiver.instances(made.sop_instance_uid)
    assert (row.transfer_syntax_uid, row.calling_ae) == (syntax, "STORESCU")
    if syntax != EXPLICIT_BE:  # which storescu encodes anew
        assert receiver.bytes_of(row).endswith(made.encoded)


@pytest.mark.peer("storescu")
def test_storescu_offers_uncompressed_syntaxes_and_we_take_explicit_little_endian(
    receiver: Receiver, tmp_path: Path
) -> None:
    made = make("CT", seed=2001, transfer_syntax_uid=IMPLICIT_LE)
    assert run("storescu", "127.0.0.1", receiver.port, made.write(tmp_path / "in.dcm")).returncode == 0
    assert receiver.instances(made.sop_instance_uid)[0].transfer_syntax_uid == EXPLICIT_LE


@pytest.mark.peer("dcmsend")
def test_dcmsend_many_at_once(receiver: Receiver, tmp_path: Path) -> None:
    folders = []
    for number in range(4):
        folder = tmp_path / str(number)
        folder.mkdir()
        for made in study("CT", 15, seed=3000, study=number + 1):
            made.write(folder)
        folders.append(folder)
    before = len(receiver.instances())
    senders = [
        subprocess.Popen(
            ["dcmsend", "-v", "127.0.0.1", str(receiver.port), "--scan-directories", str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for folder in folders
    ]
    for sender in senders:
        output, _ = sender.communicate(timeout=120)
        assert sender.returncode == 0 and "with status SUCCESS  : 15" in output, output
    assert len(receiver.instances()) == before + 60


@pytest.mark.peer("storescu")
def test_storescu_hears_that_the_spool_is_full(start: Start, tmp_path: Path) -> None:
    full = start(spool={"high_water_percent": 0.001})
    done = run("storescu", "-v", "127.0.0.1", full.port, make("CT").write(tmp_path / "in.dcm"))
    assert "OutOfResources" in done.stdout + done.stderr or "Out Of Resources" in done.stdout + done.stderr
    assert full.instances() == []


@pytest.mark.peer("storescu")
def test_storescu_aborts(receiver: Receiver, tmp_path: Path) -> None:
    done = run("storescu", "--abort", "127.0.0.1", receiver.port, make("CT", seed=4).write(tmp_path / "in.dcm"))
    assert done.returncode == 0
    receiver.idle()
    assert receiver.unfinished() == []


class Orthanc:
    """An Orthanc of our own with its REST interface."""

    def __init__(self, folder: Path, target: int) -> None:
        self.port = own_port()
        self.dicom_port = own_port()
        (folder / "orthanc.json").write_text(
            json.dumps(
                {
                    "StorageDirectory": str(folder / "db"),
                    "DicomPort": self.dicom_port,
                    "HttpPort": self.port,
                    "DicomAet": "ORTHANC",
                    "DefaultEncoding": "Utf8",
                    "DicomModalities": {"burnish": ["BURNISH", "127.0.0.1", target]},
                    "RegisteredUsers": {"test": "test"},
                    "RemoteAccessAllowed": False,
                    "Plugins": [],
                }
            )
        )
        self.process = subprocess.Popen(
            ["Orthanc", str(folder / "orthanc.json")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def ask(self, path: str, data: bytes | None = None) -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data)
        request.add_header("Authorization", "Basic " + base64.b64encode(b"test:test").decode())
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    def is_up(self) -> bool:
        try:
            return bool(self.ask("/system"))
        except (OSError, HTTPException):
            return False


@pytest.fixture
def orthanc(receiver: Receiver, tmp_path: Path) -> Iterator[Orthanc]:
    program = Orthanc(tmp_path, receiver.port)
    try:
        until(program.is_up)
        yield program
    finally:
        program.process.kill()  # it takes its time when asked
        program.process.wait()


@pytest.mark.peer("Orthanc")
def test_orthanc_sends_a_study(receiver: Receiver, orthanc: Orthanc) -> None:
    instances = list(study("CT", 8, seed=5000)) + list(study("MR", 4, seed=5000, series=2))
    for made in instances:
        orthanc.ask("/instances", made.part10())
    studies = orthanc.ask("/studies")
    answer = orthanc.ask("/modalities/burnish/store", json.dumps(studies).encode())
    assert answer["FailedInstancesCount"] == 0 and answer["InstancesCount"] == 12, answer
    for made in instances:
        (row,) = receiver.instances(made.sop_instance_uid)
        assert row.calling_ae == "ORTHANC"
        assert receiver.bytes_of(row).endswith(made.encoded)
