"""STOW-RS: the door of C-STORE, by HTTP."""

from __future__ import annotations

import io
from typing import Any

import pytest
from pydicom import Dataset, dcmread

from store.spool import Spool, SpoolFull
from tests.dicomweb.conftest import Web
from tests.makers import JPEG_BASELINE, Made, make, study


def read(made: Made) -> Dataset:
    return dcmread(io.BytesIO(made.part10()))


def multipart(*bodies: bytes, boundary: str = "xyz", kind: str = "application/dicom") -> tuple[bytes, dict[str, str]]:
    parts = [f"--{boundary}\r\nContent-Type: {kind}\r\n\r\n".encode() + body + b"\r\n" for body in bodies]
    head = {"Content-Type": f'multipart/related; type="{kind}"; boundary={boundary}'}
    return b"".join(parts) + f"--{boundary}--".encode(), head


def post(web: Web, body: Any, head: dict[str, str], path: str = "/studies") -> Any:
    return web.session.post(f"{web.dicomweb}{path}", data=body, headers=head, timeout=60)


def test_a_client_stores_a_study_and_is_told_where_it_is(web: Web) -> None:
    sets = [read(one) for one in study("CT", 3, seed=1)]
    told = web.client.store_instances(sets)
    assert "FailedSOPSequence" not in told and told.RetrieveURL.endswith(f"/studies/{sets[0].StudyInstanceUID}")
    assert {item.ReferencedSOPInstanceUID for item in told.ReferencedSOPSequence} == {
        one.SOPInstanceUID for one in sets
    }
    (held,) = web.operations.studies()
    assert (held["instances"], held["in_spool"]) == (3, 3)
    web.client.store_instances(sets)  # again: nothing changes
    assert web.operations.studies()[0]["instances"] == 3
    spool: Spool = web.operations.context.spool
    assert not [path for path in (spool.root / "incoming").rglob("*") if path.is_file()]


def test_each_instance_has_its_own_fate(web: Web) -> None:
    good, other = make("CT", seed=1), make("MR", seed=2)
    body, head = multipart(good.part10(), b"hello", other.part10()[:-50])
    answer = post(web, body, head)
    told = answer.json()
    assert answer.status_code == 202
    (stored,) = told["00081199"]["Value"]
    assert stored["00081155"]["Value"] == [good.sop_instance_uid]
    reasons = [item["00081197"]["Value"][0] for item in told["00081198"]["Value"]]
    assert reasons == [0xC000, 0xC000]
    assert web.operations.studies()[0]["instances"] == 1


def test_nothing_stored_is_409_and_as_xml_where_wished(web: Web) -> None:
    made = make("CT", seed=1)
    answer = post(web, *multipart(made.part10()), path="/studies/1.2.3")
    assert answer.status_code == 409
    assert answer.json()["00081198"]["Value"][0]["00081197"]["Value"] == [0xA900]
    body, head = multipart(b"nothing of the kind")
    told = post(web, body, head | {"Accept": "application/dicom+xml"})
    assert told.status_code == 409 and told.headers["content-type"].startswith("application/dicom+xml")
    assert '<DicomAttribute tag="00081197" vr="US" keyword="FailureReason"><Value number="1">49152<' in told.text
    assert not web.operations.studies()


def test_statuses_are_those_of_c_store(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    def reason(made: Made) -> int:
        told = post(web, *multipart(made.part10())).json()
        return int(told["00081198"]["Value"][0]["00081197"]["Value"][0])

    assert reason(make("CT", SOPClassUID="1.2.3.4")) == 0x0122
    assert reason(make("CT", StudyInstanceUID=None)) == 0xA901
    made = make("CT", seed=1)

    def full(_self: Any) -> None:
        raise SpoolFull("no room")

    monkeypatch.setattr(Spool, "is_full", full)
    answer = post(web, *multipart(made.part10()))
    assert answer.status_code == 503 and answer.json()["code"] == "OUT_OF_RESOURCES"


def test_bodies_that_are_none(web: Web) -> None:
    related = 'multipart/related; type="application/dicom"'
    for head, status in (
        ({"Content-Type": "application/json"}, 415),
        ({"Content-Type": 'multipart/related; type="application/dicom+json"; boundary=x'}, 415),
        ({"Content-Type": related}, 400),
        ({"Content-Type": f"{related}; boundary=x"}, 400),
        ({"Content-Type": "application/dicom", "Accept": "text/html"}, 406),
        ({}, 415),
    ):
        answer = post(web, b"--y\r\n\r\n--", head)
        assert answer.status_code == status and answer.json()["detail"], head
    assert not [path for path in web.operations.context.spool.root.rglob("*") if path.is_file()]


def test_a_body_that_breaks_off_stores_what_was_whole(web: Web) -> None:
    one, two = make("CT", seed=1, number=1), make("CT", seed=1, number=2)
    body, head = multipart(one.part10(), two.part10())
    assert post(web, body[:-200], head).status_code == 400
    assert [held["instances"] for held in web.operations.studies()] == [1]


def test_one_instance_without_parts_and_a_compressed_one(web: Web) -> None:
    answer = post(
        web, make("SC_JPEG", seed=1, transfer_syntax_uid=JPEG_BASELINE).part10(), {"Content-Type": "application/dicom"}
    )
    assert answer.status_code == 200, answer.text
    assert web.client.search_for_instances()[0]["00083002"]["Value"] == [JPEG_BASELINE]
