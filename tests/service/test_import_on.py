"""``burnish import --to NODE --reconcile FILE``: taken in, corrected, sent on; every change told and recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydicom.uid import ExplicitVRLittleEndian

from service.api import answers
from service.api.application import build
from service.forwarding import send_on
from service.operations import StoreOperations
from service.shutdown import Stopping
from store import reconcile
from tests.makers import PATIENTS, make, study
from tests.service.conftest import write
from tests.service.test_cli import burnish
from tests.service.test_exchange import Node

RULES = """
[[rule]]
name = "jane"
when = { PatientID = "PAT-0001" }
set = { PatientID = "H-1", IssuerOfPatientID = "HERE" }
"""


@pytest.fixture
def pacs(data: Path) -> Iterator[Node]:
    """A node of another maker that is entered as ``pacs``."""
    node = Node([ExplicitVRLittleEndian])
    burnish("nodes", "add", "pacs", "ARCHIVE", "127.0.0.1", node.port, "--data", data)
    yield node
    node.close()


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    return path


def test_a_patients_disc_goes_into_the_pacs_under_our_number(
    data: Path, tmp_path: Path, pacs: Node, rules: Path
) -> None:
    seen: dict[str, tuple[str, str]] = {}

    def store(event: Any) -> int:
        ds = event.dataset
        seen[str(ds.SOPInstanceUID)] = (ds.PatientID, ds.get("IssuerOfPatientID", ""))
        return 0

    pacs._answer = store
    folder = tmp_path / "disc"
    made = [*study("CT", 3, seed=1), make("CT", patient=PATIENTS["german"], seed=2)]
    write(folder, made)
    asked = ("import", folder, "--to", "pacs", "--reconcile", rules, "--data", data)
    document = burnish(*asked, "--json")
    assert (document["imported"], document["reconciled"], document["sent_on"]["sent"]) == (4, 3, 4)
    changed = {one["tag"]: (one["old"], len(one["instances"])) for one in document["changes"]}
    assert changed == {"(0010,0020)": ("PAT-0001", 3), "(0010,0021)": ("(absent)", 3)}
    assert seen == {
        **{one.sop_instance_uid: ("H-1", "HERE") for one in made[:3]},
        made[3].sop_instance_uid: ("DE-17", ""),
    }
    assert burnish(*asked, "--json")["duplicates"] == 4, "again: nothing is held twice, and it is sent once more"
    assert {one["patient_id"] for one in burnish("studies", "--data", data, "--json")} == {"H-1", "DE-17"}


def test_of_two_under_one_uid_it_is_the_one_that_was_brought_which_goes_on(
    data: Path, tmp_path: Path, pacs: Node, rules: Path
) -> None:
    ids: list[str] = []
    pacs._answer = lambda event: ids.append(event.dataset.PatientID) or 0
    file = make("CT").write(tmp_path / "one.dcm")
    burnish("import", file, "--data", data)
    document = burnish("import", file, "--to", "pacs", "--reconcile", rules, "--data", data, "--json")
    assert (document["conflicts"], document["sent_on"]["sent"], ids) == (1, 1, ["H-1"])


def test_what_the_node_does_not_take_is_told(data: Path, tmp_path: Path, pacs: Node) -> None:
    pacs._answer = lambda _: 0xC001
    document = burnish(
        "import", make("CT").write(tmp_path / "a.dcm"), "--to", "pacs", "--data", data, "--json", status=1
    )
    assert (document["imported"], document["sent_on"]["sent"], len(document["sent_on"]["failed"])) == (1, 0, 1)


def test_wrong_use_is_told_before_anything_is_taken_in(data: Path, tmp_path: Path) -> None:
    file = make("CT").write(tmp_path / "a.dcm")
    assert "there is no remote node nowhere" in burnish("import", file, "--to", "nowhere", "--data", data, status=2)
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('[[rule]]\nname = "x"\nset = { SOPInstanceUID = "1.2" }')
    assert "is not corrected by rules" in burnish("import", file, "--reconcile", wrong, "--data", data, status=2)
    assert burnish("studies", "--data", data, "--json") == []


def test_the_api_keeps_rules_and_tells_what_they_changed(
    opened: Callable[[], StoreOperations], monkeypatch: pytest.MonkeyPatch
) -> None:
    operations = opened()
    app = build(operations, token="secret", hosts=(), stopping=Stopping())
    client = TestClient(app, base_url="http://127.0.0.1", headers={"Authorization": "Bearer secret"})
    rule = {"name": "jane", "set": {"PatientID": "H-1"}}
    digest = client.post("/api/v1/reconciliations", json={"rules": [rule]}).json()["reconcile"]
    made = make("CT")
    told = client.post(f"/api/v1/instances?reconcile={digest}", content=made.part10()).json()
    assert told["changes"][0]["tag"] == "(0010,0020)"
    (listed,) = client.get(f"/api/v1/reconciliations/{made.study_instance_uid}").json()["items"]
    assert (listed["rules"], listed["changes"][0]["old"]) == (digest, "PAT-0001")
    assert client.post("/api/v1/reconciliations", json={"rules": [{"name": "x"}]}).status_code == 422
    rest = client.get(f"/api/v1/reconciliations/{made.study_instance_uid}", params={"cursor": answers.cursor(1 << 40)})
    assert rest.json() == {"items": [], "next": None}
    monkeypatch.setattr(reconcile, "_MOST_SETS", 1)
    more = client.post("/api/v1/reconciliations", json={"rules": [{**rule, "name": "another"}]})
    assert more.status_code == 422 and "rule sets are kept" in more.json()["detail"]
    assert client.post("/api/v1/reconciliations", json={"rules": [rule]}).json()["reconcile"] == digest
    assert client.post(f"/api/v1/instances?reconcile={'0' * 64}", content=made.part10()).status_code == 422


def test_many_go_on_in_parts_and_each_once() -> None:
    asked: list[list[int]] = []

    def send(numbers: list[int]) -> dict[str, Any]:
        asked.append(numbers)
        return {"node": "x", "instances": len(numbers), "sent": len(numbers), "warnings": [], "failed": []}

    document = send_on([*range(1, 7001), 3], send)
    assert (document["instances"], [len(part) for part in asked]) == (7000, [5000, 2000])
