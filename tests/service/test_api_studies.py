"""Studies, series and instances over the API; files, images and reports to take away."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from starlette.requests import Request
from starlette.testclient import TestClient

from service import telling
from service.api import downloads
from service.api.access import Actor, NotAllowed
from service.api.application import build
from service.app import Workshop
from service.operations import StoreOperations
from service.shutdown import Stopping
from store.models import Instance
from store.models_audit import AuditRecord
from store.models_jobs import Disc
from tests.makers import PATIENTS, make, study
from tests.service.conftest import write
from tests.service.test_api import TOKEN, is_problem
from tests.service.test_importing import imported
from tests.waiting import wait_for


@pytest.fixture
def operations(opened: Callable[[], StoreOperations], tmp_path: Path) -> StoreOperations:
    found = opened()
    folder = tmp_path / "studies"
    folder.mkdir()
    write(folder, [*study("CT", 3, seed=1), make("SR", seed=1, series=2)])
    other = tmp_path / "other"
    other.mkdir()
    write(other, [make("MR", seed=2, patient=PATIENTS["japanese"], study_date="20200101")])
    imported(found, folder)
    imported(found, other)
    return found


@pytest.fixture
def client(operations: StoreOperations) -> TestClient:
    app = build(operations, token="sesame", hosts=(), stopping=Stopping())
    return TestClient(app, base_url="http://127.0.0.1", headers=TOKEN, raise_server_exceptions=False)


def ids(response: Any) -> list[str]:
    assert response.status_code == 200, response.text
    return [one["patient_id"] for one in response.json()["items"]]


def test_studies_are_searched_page_by_page(client: TestClient) -> None:
    for body, found in (
        ({}, ["PAT-0001", "JP-1"]),
        ({"text": "doe"}, ["PAT-0001"]),
        ({"text": "山田"}, ["JP-1"]),
        ({"patient_name": "yam*"}, ["JP-1"]),
        ({"modality": "SR"}, ["PAT-0001"]),
        ({"date_range": "-20231231"}, ["JP-1"]),
        ({"patient_id": "JP-?"}, ["JP-1"]),
        ({"accession": "nothing"}, []),
    ):
        assert ids(client.post("/api/v1/studies/search", json=body)) == found, body
    first = client.post("/api/v1/studies/search", json={"limit": 1}).json()
    rest = client.post("/api/v1/studies/search", json={"limit": 1, "cursor": first["next"]}).json()
    assert [one["patient_id"] for one in first["items"] + rest["items"]] == ["PAT-0001", "JP-1"]
    assert rest["next"] is None and "Doe" not in first["next"]
    assert ids(client.get("/api/v1/studies", params={"modality": "MR"})) == ["JP-1"]
    is_problem(client.post("/api/v1/studies/search", json={"date_range": "soon"}), 422)
    is_problem(client.post("/api/v1/studies/search", json={"cursor": "x"}), 422)
    is_problem(client.get("/api/v1/studies", params={"patient_name": "doe", "limit": 0}), 422)


def test_a_study_its_series_and_instances(client: TestClient, operations: StoreOperations) -> None:
    (held,) = client.post("/api/v1/studies/search", json={"text": "doe"}).json()["items"]
    whole = client.get(f"/api/v1/studies/{held['study_instance_uid']}")
    document = whole.json()
    assert {key: document[key] for key in held} == held and held["instances"] == 4
    assert [one["modality"] for one in document["series_list"]] == ["CT", "SR"] and document["discs"] == []
    ct = document["series_list"][0]
    series = client.get(f"/api/v1/studies/{held['study_instance_uid']}/series", params={"limit": 1}).json()
    assert series["items"] == [ct] and series["next"]
    page = client.get(f"/api/v1/series/{ct['series_instance_uid']}/instances", params={"limit": 2}).json()
    rest = client.get(
        f"/api/v1/series/{ct['series_instance_uid']}/instances", params={"limit": 2, "cursor": page["next"]}
    ).json()
    assert sorted(one["instance_number"] for one in page["items"] + rest["items"]) == [1, 2, 3]
    one = page["items"][0]
    assert client.get(f"/api/v1/instances/{one['sop_instance_uid']}").json()["items"] == [one]
    for path in (f"/studies/{held['study_instance_uid']}", f"/series/{ct['series_instance_uid']}"):
        picture = client.get(f"/api/v1{path}/thumbnail", params={"size": 64})
        assert picture.headers["content-type"] == "image/png" and picture.content.startswith(b"\x89PNG")
    sr = document["series_list"][1]["series_instance_uid"]
    assert is_problem(client.get(f"/api/v1/series/{sr}/thumbnail"), 404)["code"] == "NO_PICTURE"
    for wrong in ("/studies/1.2", "/series/1.2/instances", "/instances/1.2", "/instances/1.2/file"):
        is_problem(client.get(f"/api/v1{wrong}"), 404)
    is_problem(client.get("/api/v1/studies/doe"), 422)
    telling.finish(operations.context.db)
    with operations.context.db.read() as session:
        assert "accessed" in set(session.scalars(select(AuditRecord.event)))


def test_documents_have_etags(client: TestClient) -> None:
    first = client.get("/api/v1/studies")
    etag = first.headers["etag"]
    again = client.get("/api/v1/studies", headers={"If-None-Match": f'"other", {etag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert client.get("/api/v1/studies", headers={"If-None-Match": '"other"'}).status_code == 200
    assert "etag" not in client.get("/api/v1/studies/1.2").headers


def test_a_study_uid_of_two_patients_is_not_guessed_at(client: TestClient) -> None:
    (held,) = client.post("/api/v1/studies/search", json={"text": "doe"}).json()["items"]
    uid = held["study_instance_uid"]
    other = make("CT", seed=9, patient=PATIENTS["ascii2"], StudyInstanceUID=uid)
    assert client.post("/api/v1/instances", content=other.part10()).status_code == 200
    assert is_problem(client.get(f"/api/v1/studies/{uid}"), 409)["code"] == "AMBIGUOUS"
    assert len(client.post("/api/v1/studies/search", json={"study": uid}).json()["items"]) == 2


def test_an_instance_is_taken_away_whole_or_in_part(client: TestClient, operations: StoreOperations) -> None:
    made = make("CT", seed=1)
    url = f"/api/v1/instances/{made.sop_instance_uid}/file"
    whole = client.get(url)
    assert whole.headers["content-type"] == "application/dicom" and "attachment" in whole.headers["content-disposition"]
    assert whole.content[128:132] == b"DICM" and whole.content.endswith(made.encoded[-64:])
    part = client.get(url, headers={"Range": "bytes=128-131"})
    assert (part.status_code, part.content) == (206, b"DICM")
    assert client.get(url, headers={"Range": "bytes=99999999-"}).status_code == 416
    with operations.context.db.begin() as session:
        assert "export" in set(session.scalars(select(AuditRecord.event)))
        session.execute(update(Instance).values(spool_path=None))
    assert is_problem(client.get(url), 503)["code"] == "OFFLINE"


def test_only_the_image_that_was_verified_is_handed_out(
    client: TestClient, operations: StoreOperations, tmp_path: Path
) -> None:
    job = client.post("/api/v1/jobs", json={"selection": {"modality": ["CT"]}}).json()
    with Workshop(operations.context.settings) as workshop:
        workshop.engine.submit(int(job["job"][1:]))
        wait_for(lambda: client.get(f"/api/v1/jobs/{job['job']}").json()["state"] == "DONE", "the job")
    (disc,) = client.get(f"/api/v1/jobs/{job['job']}").json()["discs"]
    url = f"/api/v1/discs/{disc['disc']}/image"
    whole = client.get(url)
    assert whole.status_code == 200 and hashlib.sha256(whole.content).hexdigest() == disc["sha256"]
    assert whole.headers["repr-digest"].startswith("sha-256=:")
    assert f"{disc['file_set_id']}_1.iso" in whole.headers["content-disposition"]
    assert client.get(url, headers={"Range": "bytes=32769-32773"}).content == b"CD001"
    asked = Request({"type": "http"})
    ann, elsewhere = Actor("ann", "operator", "token"), tmp_path / "elsewhere"
    elsewhere.write_bytes(whole.content)
    assert downloads.image(operations.context, asked, ann, disc["disc"]).path == Path(disc["image"])
    with operations.context.db.begin() as session:
        session.execute(update(Disc).values(image=str(elsewhere)))
    with pytest.raises(NotAllowed, match="no medium"):  # an imported catalogue may say so
        downloads.image(operations.context, asked, ann, disc["disc"])
    with operations.context.db.begin() as session:
        session.execute(update(Disc).values(image=disc["image"]))
    report = client.get(f"/api/v1/discs/{disc['disc']}/report").json()
    assert (report["state"], report["verified_by"], report["sha256"]) == ("VERIFIED", "read-back", disc["sha256"])
    assert client.get(f"/api/v1/studies/{make('CT', seed=1).study_instance_uid}").json()["discs"]
    Path(disc["image"]).write_bytes(whole.content[:-2048])
    assert is_problem(client.get(url), 409)["code"] == "DAMAGED"
    with operations.context.db.begin() as session:
        session.execute(update(Disc).values(state="FAILED"))
    assert is_problem(client.get(url), 409)["code"] == "NO_IMAGE"
    is_problem(client.get("/api/v1/discs/D99/image"), 404)
    is_problem(client.get("/api/v1/discs/D99/report"), 404)
