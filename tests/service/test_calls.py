"""A command's call of the API is answered alike by a running service and by the application in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from config.settings import Settings
from service.app import Service
from service.calls import Call
from service.commands.common import api
from service.contract import Document
from service.errors import NotFound, UsageError
from service.operations import StoreOperations
from tests.service.test_importing import imported


@pytest.fixture(params=["local", "running"])
def call(
    request: pytest.FixtureRequest, settings: Settings, opened: Callable[[], StoreOperations], made: Path
) -> Iterator[Call]:
    imported(opened(), made)
    if request.param == "running":
        service = Service(settings)
        service.start()
        request.addfinalizer(service.stop)
    with api(settings) as asked:
        yield asked


def test_documents_come(call: Call) -> None:
    assert call("GET", "/doctor")["settings"]


def test_progress_of_long_work_is_told(call: Call) -> None:
    told: list[Document] = []
    plan = call.told("plan", "/plans", {"selection": {"all": True}, "options": {}}, told.append)
    assert sum(volume["instances"] for volume in plan["volumes"]) == 5
    assert {"phase", "done", "total", "unit"} <= told[0].keys()


def test_errors_are_refusals(call: Call) -> None:
    with pytest.raises(NotFound, match="no job J7"):
        call("GET", "/jobs/J7")
    with pytest.raises(UsageError, match="study"):
        call("POST", "/jobs", {"selection": {"study": "no list"}})
    with pytest.raises(UsageError, match="empty"):
        call.told("plan", "/plans", {"selection": {"study": ["1.2"]}, "options": {}}, lambda _told: None)


def test_parameters_stand_in_the_address(call: Call) -> None:
    with pytest.raises(NotFound, match="P9"):
        call("GET", "/labels/P9", volume=1, printer=None)
