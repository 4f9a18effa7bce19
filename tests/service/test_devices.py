"""``burnish burners``: how each burner stands, with and without a service."""

from __future__ import annotations

from pathlib import Path

from starlette.testclient import TestClient

from service.operations import StoreOperations
from tests.service.test_api import client, operations  # noqa: F401 - fixtures
from tests.service.test_cli import burnish

SETTINGS = """
[burners.iso]
driver = "iso"
folder = "discs"

[burners.typo]
driver = "iso"
folder = "discs"
slot = 2
"""


def test_each_burner_is_listed_with_what_is_wrong_with_it(data: Path, tmp_path: Path) -> None:
    config = tmp_path / "burnish.toml"
    config.write_text(SETTINGS)
    listed = burnish("burners", "--data", data, "--config", config, "--json")
    told = {"name", "driver", "state", "reason", "supplies", "drives", "age_seconds"}
    assert [set(one) for one in listed] == [told] * 2
    assert [(one["name"], one["state"]) for one in listed] == [("iso", "READY"), ("typo", "UNUSABLE")]
    assert "'slot'" in listed[1]["reason"] and listed[0]["supplies"]["free_bytes"] > 0
    assert not (data / "burnish.db").exists()  # a look, before anything is set up
    table = burnish("burners", "--data", data, "--config", config)
    assert "READY" in table and "UNUSABLE" in table


def test_a_running_service_tells_of_its_burners(client: TestClient, operations: StoreOperations) -> None:  # noqa: F811
    (listed,) = client.get("/api/v1/burners").json()["items"]
    assert (listed["name"], listed["driver"], listed["state"], listed["drives"]) == ("iso", "iso", "READY", [])
