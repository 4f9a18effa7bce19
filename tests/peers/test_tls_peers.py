"""DCMTK over TLS: to us, and we to it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.settings import load
from service.app import Service
from tests.authority import Authority
from tests.makers import study
from tests.ports import own_port
from tests.waiting import until


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "pki")


class Secure:
    def __init__(self, data: Path, authority: Authority) -> None:
        ours = authority.issue("ours")
        tls = {
            "enabled": True,
            "port": 0,
            "certificate": str(ours.certificate),
            "key": str(ours.key),
            "ca": str(authority.file),
        }
        settings = load(
            data=data,
            overrides={
                "dicom": {"port": 0, "acceptors": 1},
                "http": {"port": 0},
                "tls": tls,
                "remote": {"retries": 0},
            },
        )
        self.service = Service(settings)
        document = self.service.start()
        self.port, self.plain_port = document["dicom"]["tls_port"], document["dicom"]["port"]

    @property
    def held(self) -> int:
        return sum(one["instances"] for one in self.service.operations.studies())


@pytest.fixture
def secure(tmp_path: Path, authority: Authority) -> Iterator[Secure]:
    made = Secure(tmp_path / "data", authority)
    yield made
    made.service.stop()


def arguments(authority: Authority, name: str) -> list[str]:
    pair = authority.issue(name)
    return ["+tls", str(pair.key), str(pair.certificate), "+cf", str(authority.file)]


def run(*command: str) -> int:
    return subprocess.run(command, check=False, capture_output=True, timeout=120).returncode


@pytest.mark.peer("echoscu", "storescu")
def test_dcmtk_sends_to_us(secure: Secure, authority: Authority, tmp_path: Path) -> None:
    paths = [str(one.write(tmp_path / f"{number}.dcm")) for number, one in enumerate(study("CT", 5, size=400_000))]
    certified = arguments(authority, "sender")
    assert run("echoscu", *certified, "localhost", str(secure.port)) == 0
    assert run("storescu", *certified, "localhost", str(secure.port), *paths) == 0
    assert secure.held == 5
    strangers = Authority(tmp_path / "strangers", "Strangers")
    pair = strangers.issue("stranger")
    trusting = ["+tls", str(pair.key), str(pair.certificate), "+cf", str(authority.file)]
    assert run("echoscu", *trusting, "localhost", str(secure.port)) != 0
    assert run("echoscu", "localhost", str(secure.port)) != 0, "no TLS"


@pytest.mark.peer("storescp", "movescu")
def test_we_send_and_move_to_dcmtk(secure: Secure, authority: Authority, tmp_path: Path) -> None:
    made = list(study("CT", 3, size=200_000))
    for number, one in enumerate(made):
        with one.write(tmp_path / f"{number}.dcm").open("rb") as stream:
            secure.service.operations.ingest_stream(stream)
    port, taken = own_port(), tmp_path / "taken"
    taken.mkdir()
    command = ["storescp", *arguments(authority, "archive"), "-od", str(taken), "-aet", "ARCHIVE", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as archive:
        try:
            node = {"name": "archive", "ae_title": "ARCHIVE", "host": "localhost", "port": port, "tls": True}
            secure.service.operations.add_node(node)

            def answers() -> bool:
                try:
                    return bool(secure.service.operations.echo_node("archive"))
                except Exception:
                    return False

            until(answers)
            document = secure.service.operations.send("archive", {"all": True}, lambda _: None)
            assert (document["sent"], document["failed"]) == (3, [])
            for path in taken.iterdir():
                path.unlink()
            uid = str(made[0].dataset.StudyInstanceUID)
            asked = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={uid}"]
            # DCMTK's movescu speaks no TLS; what it asks us to send goes over TLS all the same.
            assert run("movescu", "-S", *asked, "-aem", "ARCHIVE", "localhost", str(secure.plain_port)) == 0
            until(lambda: len(list(taken.iterdir())) == 3)
        finally:
            archive.terminate()
