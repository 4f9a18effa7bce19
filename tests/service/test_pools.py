"""Pools and schedules by command and over the API: one way to have things done, clear answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from service.api.application import build
from service.operations import StoreOperations
from service.shutdown import Stopping
from store.models_nodes import Event
from tests.service.test_api import TOKEN, is_problem
from tests.service.test_cli import burnish
from tests.service.test_importing import imported


@pytest.fixture
def operations(opened: Callable[[], StoreOperations]) -> StoreOperations:
    return opened()


@pytest.fixture
def client(operations: StoreOperations) -> TestClient:
    app = build(operations, token="sesame", hosts=(), stopping=Stopping())
    return TestClient(app, base_url="http://127.0.0.1", headers=TOKEN, raise_server_exceptions=False)


def at(data: Path, *more: str) -> tuple[object, ...]:
    return ("--data", data, "--json", *more)


def test_from_a_pool_to_its_discs_by_commands(data: Path, made: Path) -> None:
    burnish("import", made, *at(data))
    options = ("--copies", "2", "--required-copies", "1", "--shelf", "A/1", "--shelf", "vault", "--latest-days", "14")
    pool = burnish("pool", "add", "arch", *options, "--file-set-prefix", "ARC_", *at(data))
    assert (pool["copies"], pool["required_copies"], pool["shelves"]) == (2, 1, ["A/1", "vault"])
    assert pool["options"] == {"file_set_prefix": "ARC_"} and pool["min_fill"] == 97

    rules = ("--modality", "CT", "--not-on-discs", "1", "--pool", "arch", "--timezone", "Europe/Berlin")
    when = ("--cron", "0 22 * * mon-fri", "--blackout", "mon-fri 07:00-19:00")
    schedule = burnish("schedule", "add", "nightly", *when, *rules, *at(data))
    assert schedule["rules"] == {"modality": ["CT"], "not_on_discs": 1} and schedule["next"]
    assert schedule["blackouts"] == [{"from": "07:00", "to": "19:00", "days": ["mon", "tue", "wed", "thu", "fri"]}]
    assert schedule["upcoming"][0][11:] in ("22:00:00+01:00", "22:00:00+02:00")

    preview = burnish("schedule", "preview", "nightly", *at(data))
    assert (preview["instances"], preview["discs"]) == (3, [])
    left = {"studies": 1, "instances": 3, "quiet_minutes": 10}
    assert left.items() <= preview["left_waiting"].items(), "they came just now"
    burnish("pool", "edit", "arch", "--quiet-minutes", "0", *at(data))
    tried = burnish("schedule", "preview", "--pool", "arch", "--modality", "MR", *at(data))
    assert (tried["schedule"], tried["instances"]) == (None, 2)
    tried = burnish("schedule", "preview", "nightly", "--modality", "MR", *at(data))
    assert (tried["schedule"], tried["instances"]) == ("nightly", 2)
    assert "say which schedule" in burnish("schedule", "preview", "--data", data, status=2)
    preview = burnish("schedule", "preview", "nightly", *at(data))
    assert [disc["burnt"] for disc in preview["discs"]] == [False] and preview["left_waiting"]["studies"] == 0
    assert burnish("schedule", "run", "nightly", *at(data))["result"]["instances"] == 3
    assert burnish("pool", "put", "arch", "--modality", "MR", *at(data)) == {"pool": "arch", "instances": 2}
    (listed,) = burnish("pool", "list", *at(data))
    assert (listed["waiting"]["studies"], listed["waiting"]["instances"]) == (2, 5) and listed["waiting"]["due"]
    assert burnish("pool", "burn-now", "arch", *at(data)) == {"pool": "arch", "jobs": ["J1"], "waiting": 0}
    assert burnish("pool", "show", "arch", *at(data))["open_jobs"][0]["job"] == "J1"

    assert burnish("schedule", "disable", "nightly", *at(data))["next"] is None
    changed = burnish("schedule", "edit", "nightly", "--every", "6h", "--without", "not-on-discs", *at(data))
    assert changed["trigger"] == {"every_seconds": 21600} and changed["rules"] == {"modality": ["CT"]}
    assert burnish("schedule", "enable", "nightly", *at(data))["next"]
    (listed,) = burnish("schedule", "list", *at(data))
    assert listed["runs"][0]["result"]["pool"] == "arch"
    said = burnish("pool", "remove", "arch", "--data", data, status=1)
    assert "filled by schedule nightly" in said
    burnish("schedule", "remove", "nightly", *at(data))
    assert burnish("pool", "edit", "arch", "--copies", "1", "--no-latest", *at(data))["shelves"] == ["A/1"]
    assert burnish("pool", "remove", "arch", *at(data)) == {"pool": "arch", "removed": False}
    assert burnish("pool", "list", "--closed", *at(data))[0]["closed"]


def test_what_people_read(data: Path, made: Path) -> None:
    burnish("import", made, *at(data))
    burnish("pool", "add", "arch", "--data", data)
    burnish("schedule", "add", "nightly", "--every", "1d", "--pool", "arch", "--data", data)
    assert "everything" in burnish("schedule", "show", "nightly", "--data", data)
    burnish("schedule", "preview", "nightly", "--data", data)
    burnish("schedule", "run", "nightly", "--data", data)
    assert "every 1d" in burnish("schedule", "list", "--data", data)
    assert "5 instances of 2 studies" in burnish("pool", "show", "arch", "--data", data)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("pool", "show", "none"), "there is no pool 'none'"),
        (("pool", "add", "x", "--profile", "auto"), "profile of its own"),
        (("pool", "edit", "none"), "say what to change"),
        (("schedule", "add", "x"), "either --cron or --every"),
        (("schedule", "add", "x", "--cron", "61 * * * *"), "'61' is no minute"),
        (("schedule", "add", "x", "--every", "5s"), "is no interval"),
        (("schedule", "add", "x", "--every", "6h", "--blackout", "always"), "is no blackout window"),
        (("schedule", "add", "x", "--every", "6h", "--option", "copies"), "KEY=VALUE"),
        (("schedule", "run", "none"), "there is no schedule 'none'"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(data: Path, arguments: tuple[str, ...], says: str) -> None:
    said = burnish(*arguments, "--data", data, status=2)
    assert says in said and "Traceback" not in said


def test_the_api(client: TestClient, operations: StoreOperations, made: Path) -> None:
    imported(operations, made)
    pool = client.post("/api/v1/pools", json={"name": "arch", "options": {"capacity_sectors": 400}, "copies": 2})
    assert pool.status_code == 201 and pool.json()["required_copies"] == 2
    assert is_problem(client.post("/api/v1/pools", json={"name": "arch"}), 409)["code"] == "EXISTS"
    assert is_problem(client.get("/api/v1/pools/none"), 404)["code"] == "NOT_FOUND"
    is_problem(client.post("/api/v1/pools", json={"name": "x", "options": {"copies": 2}}), 422)
    is_problem(client.patch("/api/v1/pools/arch", json={"kind": "backup"}), 422)
    changed = client.patch("/api/v1/pools/arch", json={"copies": 1, "options": {"label_text": "Archive"}}).json()
    assert (changed["copies"], changed["required_copies"]) == (1, 1)
    assert changed["options"] == {"capacity_sectors": 400, "label_text": "Archive"}
    changed = client.patch("/api/v1/pools/arch", json={"options": {"label_text": None}, "latest_days": 7}).json()
    assert changed["options"] == {"capacity_sectors": 400} and changed["latest_days"] == 7
    assert client.patch("/api/v1/pools/arch", json={"latest_days": None}).json()["latest_days"] is None

    body: dict[str, Any] = {"name": "hourly", "every_seconds": 3600, "pool": "arch"}
    assert client.post("/api/v1/schedules", json=body).status_code == 201
    is_problem(client.post("/api/v1/schedules", json=body), 409)
    is_problem(client.post("/api/v1/schedules", json=body | {"name": "x", "pool": "none"}), 404)
    is_problem(client.patch("/api/v1/schedules/hourly", json={"cron": "nonsense"}), 422)
    assert client.post("/api/v1/schedules/hourly/run").json()["result"]["instances"] == 5
    lines = client.post("/api/v1/pools/arch/burn", headers={"Accept": "application/x-ndjson"}).text.splitlines()
    assert '"progress"' in lines[0] and '"burn"' in lines[-1] and "J1" in lines[-1]
    assert client.get("/api/v1/schedules").json()["items"][0]["schedule"] == "hourly"
    assert client.get("/api/v1/schedules/hourly/preview").json()["instances"] == 0
    tried = client.post("/api/v1/schedules/preview", json={"schedule": "hourly", "pool": None}).json()
    assert (tried["schedule"], tried["instances"], tried["pool"], len(tried["upcoming"])) == ("hourly", 5, None, 5)
    tried = client.post("/api/v1/schedules/preview", json={"rules": {"modality": ["MR"]}}).json()
    assert (tried["schedule"], tried["instances"], tried["next"], tried["upcoming"]) == (None, 2, None, [])
    tried = client.post("/api/v1/schedules/preview", json={"kind": "purge", "cron": "0 3 * * *"}).json()
    assert tried["kind"] == "purge" and tried["next"] and len(tried["upcoming"]) == 5
    is_problem(client.post("/api/v1/schedules/preview", json={"schedule": "none"}), 404)
    is_problem(client.post("/api/v1/schedules/preview", json={"cron": "nonsense"}), 422)
    is_problem(client.post("/api/v1/schedules/preview", json={"rules": {"colour": "red"}}), 422)
    assert client.get("/api/v1/schedules").json()["items"][0]["pool"] == "arch", "nothing was kept"
    assert [one["schedule"] for one in client.get("/api/v1/schedules").json()["items"]] == ["hourly"]
    is_problem(client.delete("/api/v1/pools/arch"), 409)
    assert client.delete("/api/v1/schedules/hourly").json() == {"schedule": "hourly"}
    assert client.delete("/api/v1/pools/arch").json() == {"pool": "arch", "removed": False}
    is_problem(client.post("/api/v1/pools/arch/instances", json={"selection": {"all": True}}), 409)
    with operations.context.db.read() as session:
        told = {(event.kind, event.new) for event in session.scalars(select(Event))}
    assert {("pool", "added"), ("pool", "changed"), ("pool", "filled"), ("pool", "closed")} <= told
    assert {("schedule", "added"), ("schedule", "fired"), ("schedule", "removed")} <= told
