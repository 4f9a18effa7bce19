"""Orthanc speaks DICOMweb with us: stores, searches, retrieves; and its reading of instances is held against ours."""

from __future__ import annotations

import base64
import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.data import get_testdata_file

from tests.conftest import IN_CI
from tests.dicomweb.conftest import TOKEN, Web, serving
from tests.makers import PATIENTS, make, study
from tests.peers.test_storage_peers import Orthanc
from tests.ports import own_port
from tests.waiting import wait_for

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
NOT_COMPARED = {"00083002", "00081190", "7FE00010", "00080005"}
"""Told by one side only, bulk data, and the character set: ours is always UTF-8."""


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.delenv("BURNISH_DATA", raising=False)
    with serving(tmp_path / "data") as served:
        yield served


class DicomWebOrthanc(Orthanc):
    def __init__(self, folder: Path, url: str) -> None:
        self.port, self.dicom_port = own_port(), own_port()
        server = {"Url": url, "HttpHeaders": {"Authorization": f"Bearer {TOKEN}"}}
        settings = {
            "StorageDirectory": str(folder / "db"),
            "DicomPort": self.dicom_port,
            "HttpPort": self.port,
            "RegisteredUsers": {"test": "test"},
            "RemoteAccessAllowed": False,
            "DefaultEncoding": "Utf8",
            "Plugins": [str(PLUGIN)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "Servers": {"burnish": server}},
        }
        (folder / "orthanc.json").write_text(json.dumps(settings))
        self.process = subprocess.Popen(
            ["Orthanc", str(folder / "orthanc.json")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def delete(self, path: str) -> None:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method="DELETE")
        request.add_header("Authorization", "Basic " + base64.b64encode(b"test:test").decode())
        urllib.request.urlopen(request, timeout=60).close()

    def serve(self, what: str, body: dict[str, Any]) -> Any:
        return self.ask(f"/dicom-web/servers/burnish/{what}", json.dumps(body).encode())


@pytest.fixture
def orthanc(web: Web, tmp_path: Path) -> Iterator[DicomWebOrthanc]:
    if not PLUGIN.exists():
        (pytest.fail if IN_CI else pytest.skip)(f"{PLUGIN} is not installed (apt: orthanc-dicomweb)")
    program = DicomWebOrthanc(tmp_path, f"{web.dicomweb}/")
    try:
        wait_for(program.is_up, "Orthanc")
        yield program
    finally:
        program.process.kill()
        program.process.wait()


@pytest.mark.peer("Orthanc")
def test_orthanc_stores_searches_retrieves_and_reads_the_same(web: Web, orthanc: DicomWebOrthanc) -> None:
    made = [*study("CT", 3, seed=1), make("SR", seed=1, series=2)]
    made += study("MR", 2, seed=2, patient=PATIENTS["japanese"])
    files = [one.part10() for one in made] + [Path(str(get_testdata_file("SC_rgb_jpeg_dcmtk.dcm"))).read_bytes()]
    for file in files:
        orthanc.ask("/instances", file)
    orthanc.serve("stow", {"Resources": orthanc.ask("/studies")})
    assert sum(one["instances"] for one in web.operations.studies()) == len(files)

    found = orthanc.serve("qido", {"Uri": "/studies", "Arguments": {"PatientName": "yamada*"}})
    (match,) = found
    assert made[4].study_instance_uid in json.dumps(match)

    for uid in {one.study_instance_uid for one in made}:
        theirs = orthanc.ask(f"/dicom-web/studies/{uid}/metadata")
        ours = web.get(f"/studies/{uid}/metadata").json()
        assert by_uid(ours).keys() == by_uid(theirs).keys()
        for instance, data_set in by_uid(theirs).items():
            assert plain(by_uid(ours)[instance]) == plain(data_set)

    kept = set(orthanc.ask("/instances"))
    for instance in kept:
        try:
            orthanc.delete(f"/instances/{instance}")
        except urllib.error.HTTPError as error:
            assert error.code == 404
    assert orthanc.ask("/instances") == []
    studies = {one["study_instance_uid"] for one in web.operations.studies()}
    orthanc.serve("retrieve", {"Resources": [{"Study": uid} for uid in studies]})
    assert set(orthanc.ask("/instances")) == kept


def by_uid(data_sets: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {one["00080018"]["Value"][0]: one for one in data_sets}


def plain(data_set: dict[str, Any]) -> dict[str, Any]:
    """What both sides tell, however they spell numbers and what is empty."""
    found = {}
    for tag, element in data_set.items():
        if tag in NOT_COMPARED or "BulkDataURI" in element or "InlineBinary" in element:
            continue
        values = element.get("Value") or []
        if element["vr"] == "SQ":
            found[tag] = [plain(item) for item in values]
        elif values and values != [{}] and values != [""]:
            found[tag] = [float(one) if element["vr"] in ("DS", "IS") else one for one in values]
    return found
