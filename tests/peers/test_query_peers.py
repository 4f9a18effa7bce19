"""DCMTK and Orthanc ask us and fetch from us."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from bench import catalogue
from store import remotes
from tests.makers import IMPLICIT_LE, PATIENTS, Made, study
from tests.peers.test_storage_peers import Orthanc, orthanc, run
from tests.ports import own_port
from tests.scp.conftest import Receiver, receiver
from tests.scp.test_retrieve import fill
from tests.waiting import until

__all__ = ["orthanc", "receiver"]


@pytest.fixture(scope="module")
def held(receiver: Receiver) -> list[Made]:
    """Two series of one study, a Japanese patient's, and 2,000 studies without files."""
    catalogue.fill(receiver.db, 2000)
    made = [
        *study("CT", 4, seed=61),
        *study("CT", 3, seed=61, series=2),
        *study("CT", 2, seed=62, patient=PATIENTS["japanese"]),
    ]
    fill(receiver, made)
    return made


def findscu(receiver: Receiver, *keys: str, model: str = "-S", options: tuple[str, ...] = ()) -> str:
    words = [word for key in keys for word in ("-k", key)]
    done = run("findscu", "-v", model, *options, "-aec", "BURNISH", *words, "127.0.0.1", receiver.port)
    assert done.returncode == 0, done.stderr
    return str(done.stdout + done.stderr)


def values(output: str, tag: str) -> list[str]:
    """The values of an element in what findscu prints of responses."""
    return [
        value.strip(" \0")
        for value in re.findall(rf"^I: \({tag}\) \w\w \[?([^]#]*?)\]? *#", output.split("Find Response", 1)[-1], re.M)
    ]


@pytest.mark.peer("findscu")
def test_findscu(receiver: Receiver, held: list[Made]) -> None:
    wanted = held[0].study_instance_uid
    output = findscu(
        receiver,
        "QueryRetrieveLevel=STUDY",
        "PatientName=doe^j*",
        "StudyInstanceUID",
        "NumberOfStudyRelatedSeries",
        "NumberOfStudyRelatedInstances",
        "ModalitiesInStudy",
    )
    assert values(output, "0020,000d") == [wanted]
    assert values(output, "0020,1206") == ["2"] and values(output, "0020,1208") == ["7"]
    assert values(output, "0008,0061") == ["CT"]
    assert values(output, "0008,0056") == ["ONLINE"]
    series = findscu(receiver, "QueryRetrieveLevel=SERIES", f"StudyInstanceUID={wanted}", "SeriesInstanceUID")
    assert set(values(series, "0020,000e")) == {held[0].series_instance_uid, held[4].series_instance_uid}
    patients = findscu(receiver, "QueryRetrieveLevel=PATIENT", "PatientID=JP-1", "PatientName", model="-P")
    assert values(patients, "0010,0020") == ["JP-1"]
    images = findscu(
        receiver,
        "QueryRetrieveLevel=IMAGE",
        f"StudyInstanceUID={wanted}",
        f"SeriesInstanceUID={held[0].series_instance_uid}",
        "SOPInstanceUID",
    )
    assert sorted(values(images, "0008,0018")) == sorted(made.sop_instance_uid for made in held[:4])


@pytest.mark.peer("findscu")
@pytest.mark.parametrize("syntax", ["-xe", "-xb", "-xi"])
def test_findscu_in_every_encoding(receiver: Receiver, held: list[Made], syntax: str) -> None:
    output = findscu(receiver, "QueryRetrieveLevel=STUDY", "PatientID=JP-1", "StudyInstanceUID", options=(syntax,))
    assert values(output, "0020,000d") == [held[-1].study_instance_uid]


@pytest.mark.peer("findscu")
def test_findscu_is_refused_with_reason(receiver: Receiver) -> None:
    output = findscu(receiver, "QueryRetrieveLevel=SERIES", "Modality=CT")
    assert "A900" in output or "DoesNotMatch" in output or "Does Not Match" in output, output


@pytest.mark.peer("findscu")
def test_findscu_cancels(receiver: Receiver, held: list[Made]) -> None:
    output = findscu(
        receiver, "QueryRetrieveLevel=STUDY", "PatientID=PID*", "StudyInstanceUID", options=("--cancel", "3")
    )
    assert "Cancel" in output


@pytest.mark.peer("getscu")
def test_getscu(receiver: Receiver, held: list[Made], tmp_path: Path) -> None:
    done = run(
        *("getscu", "-v", "-S", "+B", "-od", tmp_path, "-aec", "BURNISH"),
        *("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={held[0].study_instance_uid}"),
        *("127.0.0.1", receiver.port),
    )
    assert done.returncode == 0, done.stderr
    came = {str(pydicom.dcmread(path).SOPInstanceUID): path.read_bytes() for path in tmp_path.iterdir()}
    assert came.keys() == {made.sop_instance_uid for made in held[:7]}
    assert all(came[made.sop_instance_uid].endswith(made.encoded) for made in held[:7])


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    port = own_port()
    folder = tmp_path / "storescp"
    folder.mkdir()
    process = subprocess.Popen(["storescp", "-aet", "STORESCP", "-od", str(folder), "+xa", "+B", str(port)])
    try:
        until(lambda: run("echoscu", "127.0.0.1", port).returncode == 0)
        yield port, folder
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.mark.peer("movescu", "storescp", "echoscu")
def test_movescu(receiver: Receiver, held: list[Made], storescp: tuple[int, Path]) -> None:
    implicit = list(study("CT", 2, seed=63, transfer_syntax_uid=IMPLICIT_LE))
    fill(receiver, implicit)
    port, folder = storescp
    with receiver.db.begin() as session:
        remotes.add(session, remotes.Remote("storescp", "STORESCP", "127.0.0.1", port))
    for wanted in (held[:7], implicit):
        done = run(
            *("movescu", "-v", "-S", "-aem", "STORESCP", "-aec", "BURNISH"),
            *("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={wanted[0].study_instance_uid}"),
            *("127.0.0.1", receiver.port),
        )
        assert done.returncode == 0, done.stderr
        assert "Success" in done.stdout + done.stderr
        came = {path.name.split(".", 1)[1]: path for path in folder.iterdir()}
        for made in wanted:
            assert came[made.sop_instance_uid].read_bytes().endswith(made.encoded)
    unknown = run(
        *("movescu", "-v", "-S", "-aem", "NOBODY", "-aec", "BURNISH"),
        *("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={held[0].study_instance_uid}"),
        *("127.0.0.1", receiver.port),
    )
    assert unknown.returncode != 0 and "MoveDestinationUnknown" in unknown.stdout + unknown.stderr


@pytest.mark.peer("Orthanc")
def test_orthanc_asks_and_fetches(receiver: Receiver, held: list[Made], orthanc: Orthanc) -> None:
    with receiver.db.begin() as session:
        remotes.add(session, remotes.Remote("orthanc", "ORTHANC", "127.0.0.1", orthanc.dicom_port))
    question = {"Level": "Study", "Query": {"PatientName": "YAMADA*", "StudyInstanceUID": "", "StudyDate": ""}}
    query = orthanc.ask("/modalities/burnish/query", json.dumps(question).encode())["ID"]
    assert orthanc.ask(f"/queries/{query}/answers") == ["0"]
    answer = orthanc.ask(f"/queries/{query}/answers/0/content?simplify")
    assert answer["StudyInstanceUID"] == held[-1].study_instance_uid
    assert answer["PatientName"] == PATIENTS["japanese"].name
    orthanc.ask(f"/queries/{query}/answers/0/retrieve", b"ORTHANC")
    assert len(orthanc.ask("/instances")) == 2
    question = {"Level": "Study", "Query": {"StudyInstanceUID": held[0].study_instance_uid}}
    query = orthanc.ask("/modalities/burnish/query", json.dumps(question).encode())["ID"]
    orthanc.ask(f"/queries/{query}/retrieve", b"ORTHANC")
    assert len(orthanc.ask("/instances")) == 9
