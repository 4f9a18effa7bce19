"""An Orthanc as PACS: we fetch from it and send to it, and it commits what we sent."""

from __future__ import annotations

import base64
import json
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from config.settings import load
from jobs.options import OptionsError
from service.app import Service
from service.errors import NotFound
from store.remotes import RemoteNodeError
from store.selection import SelectionError
from store.spool import INCOMING
from tests.makers import Made, study
from tests.ports import own_port
from tests.waiting import until

pytestmark = pytest.mark.peer("Orthanc")


class Pacs:
    """An Orthanc of our own."""

    def __init__(self, folder: Path) -> None:
        self.http, self.dicom = own_port(), own_port()
        folder.mkdir()
        (folder / "orthanc.json").write_text(
            json.dumps(
                {
                    "StorageDirectory": str(folder / "db"),
                    "DicomPort": self.dicom,
                    "HttpPort": self.http,
                    "DicomAet": "ORTHANC",
                    "RegisteredUsers": {"test": "test"},
                    "DicomAlwaysAllowGet": True,
                    "Plugins": [],
                }
            )
        )
        self.process = subprocess.Popen(
            ["Orthanc", str(folder / "orthanc.json")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def ask(self, path: str, data: bytes | None = None, method: str | None = None) -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", data, method=method)
        request.add_header("Authorization", "Basic " + base64.b64encode(b"test:test").decode())
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = response.read()
        return json.loads(answer) if answer else None

    def begin(self, ours: int) -> None:
        """Empty, and knowing us at this port."""
        for patient in self.ask("/patients"):
            self.ask(f"/patients/{patient}", method="DELETE")
        modality = {"AET": "BURNISH", "Host": "127.0.0.1", "Port": ours}
        self.ask("/modalities/burnish", json.dumps(modality).encode(), method="PUT")

    def is_up(self) -> bool:
        try:
            return bool(self.ask("/system"))
        except (OSError, HTTPException):
            return False

    def uids(self) -> set[str]:
        return {self.ask(f"/instances/{one}")["MainDicomTags"]["SOPInstanceUID"] for one in self.ask("/instances")}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    settings = load(data=tmp_path / "data", overrides={"dicom": {"port": 0, "acceptors": 1}, "http": {"port": 0}})
    running = Service(settings)
    running.port = running.start()["dicom"]["port"]  # type: ignore[attr-defined]
    yield running
    running.stop()


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pacs]:
    program = Pacs(tmp_path_factory.mktemp("pacs") / "orthanc")
    try:
        until(program.is_up)
        yield program
    finally:
        program.process.kill()
        program.process.wait()


@pytest.fixture
def pacs(service: Service, orthanc: Pacs) -> Pacs:
    """It knows us, and we know it."""
    orthanc.begin(service.port)  # type: ignore[attr-defined]
    service.operations.add_node({"name": "pacs", "ae_title": "ORTHANC", "host": "127.0.0.1", "port": orthanc.dicom})
    return orthanc


def uids_of(made: list[Made]) -> set[str]:
    return {str(one.dataset.SOPInstanceUID) for one in made}


def held(service: Service) -> int:
    return sum(one["instances"] for one in service.operations.studies())


@pytest.mark.parametrize("by", ["move", "get"])
def test_a_study_is_fetched(
    service: Service, pacs: Pacs, by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))  # patients' data come into the spool's folder
    made = list(study("CT", 5, seed=70)) + list(study("MR", 3, seed=70, series=2))
    for one in made:
        pacs.ask("/instances", one.part10())
    assert service.operations.echo_node("pacs")["seconds"] > 0
    uid = str(made[0].dataset.StudyInstanceUID)
    heard: list[dict[str, Any]] = []
    document = service.operations.pull("pacs", {"study": [uid]}, heard.append, by=by)
    assert (document["instances"], document["received"], document["missing"]) == (8, 8, 0)
    assert held(service) == 8
    incoming = service.operations.context.spool.root / INCOMING
    assert not [path for path in incoming.rglob("*") if path.is_file()], "and nothing is left behind"
    assert heard[-1] == {"phase": "fetch", "done": 8, "total": 8, "unit": "instances"}
    # Again: everything is here already, and nothing is fetched twice.
    (again,) = service.operations.pull("pacs", {"patient_id": [str(made[0].dataset.PatientID)]}, heard.append)[
        "studies"
    ]
    assert (again["already"], again["received"]) == (8, 8)
    with pytest.raises(NotFound):
        service.operations.pull("pacs", {"study": ["1.2.3.4"]}, heard.append)


def test_only_what_is_missing_is_fetched(service: Service, pacs: Pacs, tmp_path: Path) -> None:
    made = list(study("CT", 6, seed=71))
    for one in made:
        pacs.ask("/instances", one.part10())
    path = made[2].write(tmp_path / "one.dcm")
    with path.open("rb") as stream:
        service.operations.ingest_stream(stream)
    (document,) = service.operations.pull("pacs", {"study": [str(made[0].dataset.StudyInstanceUID)]}, lambda _: None)[
        "studies"
    ]
    assert (document["already"], document["received"], document["missing"]) == (1, 6, [])


def test_instances_are_sent_and_committed(service: Service, pacs: Pacs, tmp_path: Path) -> None:
    made = list(study("CT", 4, seed=72))
    for number, one in enumerate(made):
        with one.write(tmp_path / f"{number}.dcm").open("rb") as stream:
            service.operations.ingest_stream(stream)
    document = service.operations.send("pacs", {"all": True}, lambda _: None, commit=True)
    assert (document["sent"], document["failed"]) == (4, [])
    assert pacs.uids() == uids_of(made)
    assert (document["commitment"]["state"], document["commitment"]["committed"]) == ("committed", 4)


def test_orthanc_asks_us_to_commit(service: Service, pacs: Pacs) -> None:
    made = list(study("CT", 3, seed=73))
    ids = [pacs.ask("/instances", one.part10())["ID"] for one in made]
    pacs.ask("/modalities/burnish/store", json.dumps({"Resources": ids, "Synchronous": True}).encode())
    missing = {"SOPClassUID": str(made[0].dataset.SOPClassUID), "SOPInstanceUID": "1.2.3.4.5"}
    asked = {
        "Resources": ids,
        "DicomInstances": [missing],
        "Timeout": 30,
    }
    transaction = pacs.ask("/modalities/burnish/storage-commitment", json.dumps(asked).encode())["ID"]
    report = until(lambda: (found := pacs.ask(f"/storage-commitment/{transaction}"))["Status"] != "Pending" and found)
    assert report["Status"] == "Failure"
    assert {one["SOPInstanceUID"] for one in report["Success"]} == uids_of(made)
    assert [one["SOPInstanceUID"] for one in report["Failures"]] == ["1.2.3.4.5"]


def test_a_job_fetches_what_it_burns(service: Service, pacs: Pacs) -> None:
    made = list(study("CT", 5, seed=74))
    for one in made:
        pacs.ask("/instances", one.part10())
    chosen = {"study": [str(made[0].dataset.StudyInstanceUID)]}
    ops = service.operations
    with pytest.raises(SelectionError):
        ops.burn(selection=chosen, plan=None, options={})
    with pytest.raises(OptionsError, match="not by modality"):
        ops.burn(selection=chosen | {"modality": ["CT"]}, plan=None, options={"pull_from": "pacs"})
    with pytest.raises(RemoteNodeError):
        ops.burn(selection=chosen, plan=None, options={"pull_from": "nobody"})
    job = ops.burn(selection=chosen, plan=None, options={"pull_from": "pacs"})["job"]
    document = until(lambda: (found := ops.job(job))["state"] in ("DONE", "FAILED") and found)
    assert document["state"] == "DONE", document["error"]
    assert held(service) == 5
    (found,) = {one["file_set_id"] for one in ops.find({"study": chosen["study"][0]})}
    assert found == document["discs"][0]["file_set_id"]
    # What is on no PACS fails the job, in words; a study that comes later makes the retry succeed.
    later = list(study("MR", 2, seed=75))
    job = ops.burn(
        selection={"study": [str(later[0].dataset.StudyInstanceUID)]}, plan=None, options={"pull_from": "pacs"}
    )["job"]
    document = until(lambda: (found := ops.job(job))["state"] in ("DONE", "FAILED") and found)
    assert (document["state"], document["reason"]) == ("FAILED", "NO_INSTANCE")
    assert "pacs has no study that matches" in document["error"]
    for one in later:
        pacs.ask("/instances", one.part10())
    ops.retry(job)
    document = until(lambda: (found := ops.job(job))["state"] in ("DONE", "FAILED") and found)
    assert document["state"] == "DONE", document["error"]
