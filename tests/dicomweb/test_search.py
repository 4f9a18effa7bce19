"""QIDO-RS: the matching of C-FIND, by HTTP."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from tests.dicomweb.conftest import Web
from tests.dicomweb.test_store import multipart, post
from tests.makers import PATIENTS, make, study


@pytest.fixture(scope="module")
def held(shared: Web) -> Web:
    bodies = [one.part10() for one in study("CT", 3, seed=1)]
    bodies += [one.part10() for one in study("MR", 2, seed=2, patient=PATIENTS["german"], study_date="20230101")]
    bodies.append(make("US", seed=3, patient=PATIENTS["japanese"], study_date="20210101").part10())
    assert post(shared, *multipart(*bodies)).status_code == 200
    return shared


def ids(answer: Any) -> list[str]:
    if answer.status_code == 204:
        return []
    assert answer.status_code == 200, answer.text
    return [one["00100020"]["Value"][0] for one in answer.json()]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["JP-1", "DE-17", "PAT-0001"]),
        ("?PatientName=doe*", ["PAT-0001"]),
        ("?PatientName=aneas^rudiger", ["DE-17"]),
        ("?00100010=*山田*", ["JP-1"]),
        ("?PatientID=DE-1?", ["DE-17"]),
        ("?StudyDate=20230101-", ["DE-17", "PAT-0001"]),
        ("?StudyDate=-20221231&PatientID=JP-1", ["JP-1"]),
        ("?ModalitiesInStudy=MR", ["DE-17"]),
        ("?PatientID=nobody", []),
        ("?limit=1", ["JP-1"]),
        ("?limit=1&offset=1", ["DE-17"]),
        ("?offset=9", []),
        ("?PatientName=", ["JP-1", "DE-17", "PAT-0001"]),
    ],
)
def test_studies(held: Web, query: str, found: list[str]) -> None:
    assert ids(held.get(f"/studies{query}")) == found


def test_what_a_match_tells(held: Web) -> None:
    (one,) = held.get("/studies?PatientID=JP-1").json()
    name = one["00100010"]
    assert name["vr"] == "PN"
    assert name["Value"] == [{"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"}]
    assert one["00080056"]["Value"] == ["ONLINE"] and one["00080061"]["Value"] == ["US"]
    assert (one["00201206"]["Value"], one["00201208"]["Value"]) == ([1], [1])
    assert one["00081190"]["Value"] == [f"{held.dicomweb}/studies/{one['0020000D']['Value'][0]}"]
    assert held.get("/studies").headers["content-type"] == "application/dicom+json"


def test_levels_below_and_relational_searches(held: Web) -> None:
    (ct,) = held.client.search_for_studies(search_filters={"PatientID": "PAT-0001"})
    uid = ct["0020000D"]["Value"][0]
    (series,) = held.client.search_for_series(uid)
    assert series["00201209"]["Value"] == [3] and "00100020" not in series
    found = held.client.search_for_instances(uid, series["0020000E"]["Value"][0])
    assert [one["00200013"]["Value"][0] for one in found] == [1, 2, 3]
    assert found[0]["00280010"]["Value"] and found[0]["00080016"]["Value"] == ["1.2.840.10008.5.1.4.1.1.2"]
    everything = held.client.search_for_series(search_filters={"Modality": "MR"})
    assert everything[0]["00100020"]["Value"] == ["DE-17"] and "0020000D" in everything[0]
    assert len(held.client.search_for_instances(search_filters={"PatientName": "Doe*", "Rows": "0"})) == 0
    assert len(held.client.search_for_instances(uid, search_filters={"InstanceNumber": "2"})) == 1


def test_fields_and_warnings(held: Web) -> None:
    plain = held.get("/studies?PatientID=DE-17").json()[0]
    assert "00080080" not in plain
    more = held.get("/studies?PatientID=DE-17&includefield=InstitutionName,00081032").json()[0]
    assert "00080080" in more and more["00081032"]["vr"] == "SQ"
    assert set(plain) < set(held.get("/studies?PatientID=DE-17&includefield=all").json()[0])
    answer = held.get("/studies?PatientID=DE-17&fuzzymatching=true&PatientComments=x&NumberOfStudyRelatedSeries=9")
    assert ids(answer) == ["DE-17"]
    warning = answer.headers["warning"]
    assert warning.startswith("299 ") and "fuzzymatching" in warning
    assert "PatientComments" in warning and "NumberOfStudyRelatedSeries" in warning
    sequence = held.get("/series?00400275.00400009=none")
    assert sequence.status_code == 204


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/studies?NoSuchThing=1", 400),
        ("/studies?StudyDate=yesterday", 400),
        ("/studies?00100010.00100020.00100030=1", 400),
        ("/series?RequestAttributesSequence=1", 400),
        ("/instances?Rows=many", 400),
        ("/instances?InstanceNumber=" + "9" * 40, 400),
        ("/studies?limit=0", 400),
        ("/studies/x.y/series", 400),
    ],
)
def test_wrong_searches(held: Web, path: str, status: int) -> None:
    answer = held.get(path)
    assert answer.status_code == status and answer.headers["content-type"] == "application/problem+json"


def test_only_json_and_only_with_a_token(held: Web) -> None:
    assert held.get("/studies", "application/dicom+xml").status_code == 406
    assert held.get("/studies", 'multipart/related; type="application/dicom+xml", application/json').status_code == 200
    assert requests.get(f"{held.dicomweb}/studies", timeout=60).status_code == 401


def test_more_matches_than_an_answer_has(held: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.dicomweb.qido.MAX_RESULTS", 2)
    answer = held.get("/studies")
    assert ids(answer) == ["JP-1", "DE-17"] and "offset" in answer.headers["warning"]
    assert ids(held.get("/studies?offset=2")) == ["PAT-0001"]


def test_the_queries_of_ohif(held: Web) -> None:
    """As its DICOMweb data source sends them: list of studies, series of one, metadata, frames, thumbnails."""
    accept = "application/dicom+json"
    listed = held.get(
        "/studies?PatientName=*Doe*&limit=101&offset=0&fuzzymatching=false&includefield=00081030%2C00080060", accept
    )
    assert "warning" not in listed.headers
    (one,) = listed.json()
    for tag in (
        "0020000D",
        "00080020",
        "00080030",
        "00080050",
        "00100010",
        "00100020",
        "00080061",
        "00201206",
        "00201208",
    ):
        assert one[tag]["Value"], tag
    assert one["00081030"]["Value"] == ["Study 1"]
    assert ids(held.get("/studies?ModalitiesInStudy=CT%5C%5CMR&StudyDate=20230101-20241231", accept)) == [
        "DE-17",
        "PAT-0001",
    ]
    uid = one["0020000D"]["Value"][0]
    fields = "includefield=00080021%2C00080031%2C0008103E%2C00200011"
    (series,) = held.get(f"/studies/{uid}/series?{fields}", accept).json()
    assert series["00080060"]["Value"] == ["CT"] and series["00201209"]["Value"] == [3]
    series_uid = series["0020000E"]["Value"][0]
    for data_set in held.get(f"/studies/{uid}/series/{series_uid}/metadata", accept).json():
        for tag in ("00080016", "00080018", "00083002", "00280002", "00280004", "00280010", "00280011", "00280100"):
            assert data_set[tag]["Value"], tag
        at = f"/studies/{uid}/series/{series_uid}/instances/{data_set['00080018']['Value'][0]}"
        assert data_set["7FE00010"]["BulkDataURI"] == f"{held.dicomweb}{at}/bulkdata/7FE00010"
        frame = held.get(f"{at}/frames/1", "multipart/related; type=application/octet-stream; transfer-syntax=*")
        assert b"transfer-syntax=1.2.840.10008.1.2.1" in frame.content[:200]
        assert held.get(f"{at}/rendered?accept=image/jpeg", "*/*").content.startswith(b"\xff\xd8")
        assert held.get(f"{at}/thumbnail?accept=image/jpeg", "*/*").content.startswith(b"\xff\xd8")
