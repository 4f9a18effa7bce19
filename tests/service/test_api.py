from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.api.application import build
from service.operations import StoreOperations
from service.shutdown import Stopping
from store.models_jobs import Job, Request
from store.models_nodes import Event
from tests.makers import make, study
from tests.service.test_importing import imported

TOKEN = {"Authorization": "Bearer sesame"}


@pytest.fixture
def operations(opened: Callable[[], StoreOperations]) -> StoreOperations:
    return opened()


@pytest.fixture
def client(operations: StoreOperations) -> TestClient:
    app = build(operations, token="sesame", hosts=(), stopping=Stopping())
    return TestClient(app, base_url="http://127.0.0.1", headers=TOKEN, raise_server_exceptions=False)


def is_problem(response: Any, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["status"] == status and document["title"] and document["detail"]
    return document


def test_an_instance_is_uploaded_planned_and_queued(client: TestClient, operations: StoreOperations) -> None:
    for one in study("CT", 2, seed=1):
        told = client.post("/api/v1/instances", content=one.part10()).json()
        assert (told["outcome"], told["sop_instance_uid"]) == ("stored", one.sop_instance_uid)
    assert client.post("/api/v1/instances", content=one.part10()).json()["outcome"] == "duplicate"
    (held,) = client.get("/api/v1/studies").json()["items"]
    assert (held["instances"], held["series"], held["study_instance_uid"]) == (2, 1, one.study_instance_uid)

    selection = {"study": [one.study_instance_uid]}
    plan = client.post("/api/v1/plans", json={"selection": selection})
    assert plan.status_code == 201 and plan.json()["volumes"][0]["instances"] == 2
    assert client.get(f"/api/v1/plans/{plan.json()['plan']}").json() == plan.json()
    job = client.post("/api/v1/jobs", json={"plan": plan.json()["plan"], "options": {"copies": 2}})
    assert job.status_code == 201 and (job.json()["state"], job.json()["copies"]) == ("QUEUED", 2)
    assert is_problem(client.post("/api/v1/jobs", json={"plan": plan.json()["plan"]}), 409)["code"] == "PLAN_USED"
    assert [one["job"] for one in client.get("/api/v1/jobs").json()["items"]] == [job.json()["job"]]
    cancelled = client.post(f"/api/v1/jobs/{job.json()['job']}/cancel").json()
    assert cancelled["state"] == "CANCELLED"
    assert client.get(f"/api/v1/jobs/{job.json()['job']}").json()["state"] == "CANCELLED"
    assert client.post(f"/api/v1/jobs/{job.json()['job']}/retry").json()["state"] == "QUEUED"


def test_a_key_makes_a_request_once(client: TestClient, operations: StoreOperations, made: Path) -> None:
    imported(operations, made)
    body = {"selection": {"all": True}}
    first = client.post("/api/v1/jobs", json=body, headers={"Idempotency-Key": "k1"}).json()["job"]
    assert client.post("/api/v1/jobs", json=body, headers={"Idempotency-Key": "k1"}).json()["job"] == first
    assert client.post("/api/v1/jobs", json=body, headers={"Idempotency-Key": "k2"}).json()["job"] != first
    other = {"selection": {"modality": ["CT"]}}
    assert (
        is_problem(client.post("/api/v1/jobs", json=other, headers={"Idempotency-Key": "k1"}), 422)["code"]
        == "KEY_USED"
    )
    changed = body | {"options": {"copies": 3}}
    is_problem(client.post("/api/v1/jobs", json=changed, headers={"Idempotency-Key": "k1"}), 422)
    plan = client.post("/api/v1/plans", json=body).json()["plan"]
    job = client.post("/api/v1/jobs", json={"plan": plan}, headers={"Idempotency-Key": "k3"}).json()["job"]
    again = client.post("/api/v1/jobs", json={"plan": plan}, headers={"Idempotency-Key": "k3"})
    assert (again.status_code, again.json()["job"]) == (201, job)
    more = {"plan": plan, "options": {"copies": 3}}
    told = is_problem(client.post("/api/v1/jobs", json=more, headers={"Idempotency-Key": "k3"}), 422)
    assert told["code"] == "KEY_USED"
    is_problem(client.post("/api/v1/jobs", json={"plan": plan}, headers={"Idempotency-Key": "k1"}), 422)
    is_problem(client.post("/api/v1/jobs", json={"plan": plan}, headers={"Idempotency-Key": "k4"}), 409)


def test_of_many_with_one_key_at_once_one_makes_a_job(
    client: TestClient, operations: StoreOperations, made: Path
) -> None:
    imported(operations, made)

    def ask(number: int) -> Any:
        body = {"selection": {"modality": ["CT" if number % 2 else "MR"]}}
        return client.post("/api/v1/jobs", json=body, headers={"Idempotency-Key": "k"})

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(ask, range(4)))
    assert sorted(one.status_code for one in answers) == [201, 201, 422, 422]
    assert len({one.json()["job"] for one in answers if one.status_code == 201}) == 1
    assert {one.json()["code"] for one in answers if one.status_code == 422} == {"KEY_USED"}
    assert len(client.get("/api/v1/jobs").json()["items"]) == 1


def test_progress_of_a_plan_comes_line_by_line(client: TestClient, operations: StoreOperations, made: Path) -> None:
    imported(operations, made)
    headers = {"Accept": "application/x-ndjson"}
    with client.stream("POST", "/api/v1/plans", json={"selection": {"all": True}}, headers=headers) as response:
        lines = [json.loads(line) for line in response.iter_lines()]
    assert all("progress" in line or not line for line in lines[:-1]) and len(lines) > 1
    assert len(lines[-1]["plan"]["volumes"]) == 2
    with client.stream(
        "POST",
        "/api/v1/plans",
        json={"selection": {"all": True}, "options": {"profile": "STD-GEN-BD"}},
        headers=headers,
    ) as response:
        assert "plan" in json.loads(list(response.iter_lines())[-1])
    with client.stream(
        "POST", "/api/v1/plans", json={"selection": {"all": True}, "options": {"medium": "BD-25"}}, headers=headers
    ) as response:
        told = json.loads(list(response.iter_lines())[-1])["problem"]
    assert told["status"] == 422 and "STD-GEN-BD" in told["detail"]


def test_a_plan_may_choose_its_profile_and_check_iods(
    client: TestClient, operations: StoreOperations, made: Path
) -> None:
    imported(operations, made)
    options = {"profile": "auto", "iod": "off", "patients_per_disc": "many"}
    plan = client.post("/api/v1/plans", json={"selection": {"all": True}, "options": options}).json()
    assert (plan["profile"], plan["chosen"]["profile"], plan["iod"]) == ("STD-GEN-CD", "STD-GEN-CD", None)
    job = client.post("/api/v1/jobs", json={"plan": plan["plan"]}).json()
    assert job["profile"] == "STD-GEN-CD" and client.get("/api/v1/jobs").json()["items"][0]["profile"] == "STD-GEN-CD"
    wrong = client.post("/api/v1/plans", json={"selection": {"all": True}, "options": {"iod": "lax"}})
    assert "iod is 'lax'" in is_problem(wrong, 422)["detail"]


def test_corrections_and_leave_for_lossy_compression(
    client: TestClient, operations: StoreOperations, made: Path
) -> None:
    imported(operations, made)
    rule = {"name": "r", "when": {"Modality": "CT"}, "set": {"StationName": "CT2"}}
    body = {"selection": {"modality": ["CT"]}, "options": {"coerce": [rule]}}
    plan = client.post("/api/v1/plans", json=body).json()
    assert {(c["tag"], c["new"]) for c in plan["changes"]} == {("(0008,1010)", "CT2: rule r")}
    for options, words in (
        ({"coerce": [{"name": "r", "set": {"PixelData": 1}}]}, "'PixelData' is not corrected by rules"),
        ({"compress": "lossy"}, "allow_lossy must say so"),
        ({"conflicts": "both"}, "keep-both"),
    ):
        response = client.post("/api/v1/plans", json={"selection": {"all": True}, "options": options})
        assert words in is_problem(response, 422)["detail"]


def test_a_plan_is_given_up_when_nobody_listens_any_more() -> None:
    from service.api.streaming import _told

    ended = threading.Event()

    def endless(progress: Any, cancelled: Callable[[], bool]) -> dict[str, Any]:
        progress({"phase": "conform"})
        while not cancelled():
            ended.wait(0.01)
        ended.set()
        return {}

    lines = _told("plan", endless, Stopping())
    assert next(lines) == {"progress": {"phase": "conform"}}
    lines.close()  # type: ignore[attr-defined]
    assert ended.wait(120)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"selection": {}}, "SELECT"),
        ({"selection": {"all": True}, "plan": "P1"}, "SELECT"),
        ({"plan": "Q1"}, "P12"),
        ({"selection": {"study": ["1.2.3"]}}, "empty"),
        ({"selection": {"date_range": "yesterday"}}, "date range"),
        ({"selection": {"everything": True}}, "everything"),
        ({"selection": {"all": True}, "options": {"copies": 0}}, "copies"),
        ({"selection": {"all": True}, "options": {"burner": "none"}}, "burner"),
        ({"selection": {"all": True}, "options": {"profile": "STD-X"}}, "burnish profiles"),
        ({"selection": {"all": True}, "options": {"medium": "FLOPPY"}}, "CD-R-80"),
    ],
)
def test_wrong_requests_say_what_is_wrong(
    client: TestClient, operations: StoreOperations, made: Path, body: dict[str, Any], words: str
) -> None:
    imported(operations, made)
    assert words in is_problem(client.post("/api/v1/jobs", json=body), 422)["detail"]


@pytest.mark.parametrize("values", [["\ud800", 1], ["2026\0", 1], ["2026", 1 << 62], ["2026", -1], [["2026"], 1]])
def test_a_forged_cursor_is_refused(client: TestClient, values: list[Any]) -> None:
    text = base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")
    assert is_problem(client.get("/api/v1/studies", params={"cursor": text}), 422)["code"] == "BAD_CURSOR"


@pytest.mark.parametrize("when", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00"])
def test_a_time_that_no_zone_knows_is_no_fault_of_the_program(client: TestClient, when: str) -> None:
    assert client.get("/api/v1/audit", params={"since": when}).status_code in (200, 422)


@pytest.mark.parametrize("body", [b'{"text": "\\ud800"}', b'{"text": "\xed\xa0\x80"}', b'{"text": "\xff"}'])
def test_what_is_no_text_is_a_wrong_request(client: TestClient, body: bytes) -> None:
    said = client.post("/api/v1/studies/search", content=body, headers={"Content-Type": "application/json"})
    assert "no JSON in UTF-8" in is_problem(said, 422)["detail"]
    pair = b'{"text": "\\ud83d\\ude00"}'
    assert client.post("/api/v1/studies/search", content=pair, headers={"Content-Type": "application/json"}).is_success


def test_what_no_database_keeps_is_a_wrong_request(client: TestClient) -> None:
    for path, body in (("studies/search", {"text": "a\0"}), ("checks", {"selection": {"study": ["1", "\0"]}}),
                       ("schedules", {"name": "x", "cron": "* * * * *", "rules": {"a\0": 1}})):  # fmt: skip
        assert "has a NUL character" in is_problem(client.post(f"/api/v1/{path}", json=body), 422)["detail"]
    assert client.post("/api/v1/studies/search", json={"text": "\\u0000"}).status_code == 200, "which is none"
    for path in ("/api/v1/studies?modality=%00", "/api/v1/nodes/a%00b"):
        assert "has a NUL character" in is_problem(client.get(path), 422)["detail"]
    is_problem(client.get("/dicomweb/studies/1.2%00/metadata"), 400)


def test_lists_are_bounded(client: TestClient) -> None:
    for name, most in (("study", 5000), ("instance", 25_000)):
        given = [1 if name == "instance" else "1.2"] * (most + 1)
        assert name in is_problem(client.post("/api/v1/checks", json={"selection": {name: given}}), 422)["detail"]
        right = client.post("/api/v1/checks", json={"selection": {name: given[1:]}})
        assert "the selection is empty" in is_problem(right, 422)["detail"]


def test_what_does_not_exist_is_404(client: TestClient) -> None:
    for path in ("/api/v1/jobs/J9", "/api/v1/plans/P9", "/api/v1/nothing"):
        is_problem(client.get(path), 404)
    is_problem(client.post("/api/v1/jobs/J9/cancel"), 404)
    is_problem(client.post("/api/v1/jobs", json={"plan": "P9"}), 404)
    is_problem(client.delete("/api/v1/jobs"), 405)


def test_a_refused_upload_says_why_and_quotes_no_name_of_the_spool(
    client: TestClient, operations: StoreOperations
) -> None:
    told = is_problem(client.post("/api/v1/instances", content=b"hello " * 1000), 409)
    assert told["detail"] == "the file is a text file, not DICOM"
    truncated = make("CT").part10()[:-100]
    assert "(7FE0,0010)" in is_problem(client.post("/api/v1/instances", content=truncated), 409)["detail"]
    assert "the file" in is_problem(client.post("/api/v1/instances", content=b""), 409)["detail"]
    assert not [path for path in operations.context.spool.root.rglob("*") if path.is_file()]


def test_values_of_a_wrong_request_are_not_told_back(client: TestClient) -> None:
    told = is_problem(client.post("/api/v1/catalogue/search", json={"patient_name": ["Doe^Jane"]}), 422)
    assert "patient_name" in told["detail"] and "Doe" not in told["detail"]


def test_an_upload_that_breaks_off_leaves_nothing(
    operations: StoreOperations, caplog: pytest.LogCaptureFixture
) -> None:
    import asyncio

    guard = build(operations, token="sesame", hosts=(), stopping=Stopping())
    messages = [
        {"type": "http.request", "body": make("CT").part10()[:5000], "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/api/v1/instances",
        "raw_path": b"/api/v1/instances",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"authorization", b"Bearer sesame")],
    }
    asyncio.run(guard(scope, receive, send))  # type: ignore[arg-type]
    assert not [path for path in operations.context.spool.root.rglob("*") if path.is_file()]
    assert operations.studies() == []
    assert "Traceback" not in caplog.text


def test_a_fault_of_the_program_is_a_problem_without_details(
    client: TestClient, operations: StoreOperations, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("Doe^Jane")

    monkeypatch.setattr(operations, "burners", broken)
    assert "Doe" not in json.dumps(is_problem(client.get("/api/v1/burners"), 500))


def test_purge_delete_find_and_doctor(client: TestClient, operations: StoreOperations, made: Path) -> None:
    imported(operations, made)
    purged = client.post("/api/v1/spool/purge", json={"dry_run": True}).json()
    assert (purged["instances"], purged["kept"], purged["dry_run"]) == (0, 5, True)
    is_problem(client.post("/api/v1/spool/purge", json={"min_copies": 0}), 422)
    assert client.post("/api/v1/spool/delete", json={"selection": {"modality": ["MR"]}}).json()["instances"] == 2
    assert client.post("/api/v1/catalogue/search", json={"patient_name": "doe*"}).json() == {"items": [], "next": None}
    told = client.get("/api/v1/doctor").json()
    assert told["settings"]["plan.profile"] == "STD-GEN-CD" and told["burners"][0]["state"] == "READY"


def test_health_needs_no_token_and_tells_nothing(client: TestClient) -> None:
    del client.headers["Authorization"]
    assert client.get("/healthz").json() == {"status": "ok"}
    is_problem(client.get("/api/v1/studies"), 401)
    assert client.get("/api/v1/openapi.json").status_code == 200


def test_the_description_names_every_route(client: TestClient) -> None:
    paths = client.get("/api/v1/openapi.json").json()["paths"]
    assert {"/api/v1/jobs", "/api/v1/plans", "/api/v1/instances", "/healthz"} <= set(paths)


def test_labels(client: TestClient, operations: StoreOperations, made: Path) -> None:
    imported(operations, made)
    plan = client.post("/api/v1/plans", json={"selection": {"all": True}, "options": {"label_text": "Hello"}}).json()
    told = client.get(f"/api/v1/labels/{plan['plan']}", params={"volume": 1}).json()
    assert told["lines"] == plan["volumes"][0]["label"]["lines"]
    assert "Hello" in told["lines"]
    for kind, media_type, start in (("png", "image/png", b"\x89PNG"), ("pdf", "application/pdf", b"%PDF")):
        picture = client.get(
            f"/api/v1/labels/{plan['plan']}/{kind}", params={"volume": 1, "dpi": 100, "guides": "true"}
        )
        assert picture.headers["content-type"] == media_type
        assert picture.content.startswith(start)
    is_problem(client.get("/api/v1/labels/P99"), 404)
    is_problem(client.get("/api/v1/labels/x"), 422)
    is_problem(client.get(f"/api/v1/labels/{plan['plan']}/gif"), 422)
    is_problem(client.get(f"/api/v1/labels/{plan['plan']}"), 422)
    is_problem(client.get(f"/api/v1/labels/{plan['plan']}", params={"volume": 1, "printer": "toaster"}), 409)


def test_a_failed_job_goes_to_another_burner_or_is_taken_note_of(
    client: TestClient, operations: StoreOperations, made: Path
) -> None:
    imported(operations, made)
    job = client.post("/api/v1/jobs", json={"selection": {"all": True}}).json()["job"]

    def fail() -> None:
        with operations.context.db.begin() as session:
            session.query(Job).update({"state": "FAILED"})

    assert is_problem(client.post(f"/api/v1/jobs/{job}/dismiss"), 409)["code"] == "NOT_FAILED"
    fail()
    assert is_problem(client.post(f"/api/v1/jobs/{job}/retry", json={"burner": "none"}), 409)["code"] == "NO_BURNER"
    is_problem(client.post(f"/api/v1/jobs/{job}/retry", json={"burnr": "iso"}), 422)
    assert client.get(f"/api/v1/jobs/{job}").json()["state"] == "FAILED"
    again = client.post(f"/api/v1/jobs/{job}/retry", json={"burner": "iso", "skip_refused": True})
    assert (again.status_code, again.json()["state"]) == (200, "QUEUED")
    with operations.context.db.read() as session:
        assert session.query(Request).one().options["skip_refused"] is True
    fail()
    assert client.post(f"/api/v1/jobs/{job}/dismiss").status_code == 200
    with operations.context.db.read() as session:
        assert session.query(Event).filter_by(kind="dismissed").count() == 1
    for way in ("retry", "dismiss"):
        is_problem(client.post(f"/api/v1/jobs/J999/{way}"), 404)
