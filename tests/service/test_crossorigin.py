"""Web viewers of other origins: only those of the settings, only by a token."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from config.settings import SettingsError, load
from service.crossorigin import shared
from tests.service.door import LOCAL, Door

OURS = "https://viewer.example"
ASKS = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}


@pytest.fixture
def viewer(door: Door) -> TestClient:
    return TestClient(shared(door.app, [OURS]), base_url="http://127.0.0.1")


@pytest.mark.parametrize(("origin", "allowed"), [(OURS, OURS), ("https://evil.example", None), ("null", None)])
@pytest.mark.parametrize("path", ["/dicomweb/studies", "/api/v1/studies"])
def test_only_pages_of_the_settings_may_ask(viewer: TestClient, path: str, origin: str, allowed: str | None) -> None:
    asked = viewer.options(path, headers={"Origin": origin, **ASKS})
    assert (asked.status_code, asked.headers.get("access-control-allow-origin")) == (200 if allowed else 400, allowed)
    told = viewer.get(path, headers={"Origin": origin, "Authorization": f"Bearer {LOCAL}"})
    assert told.is_success
    assert told.headers.get("access-control-allow-origin") == allowed
    assert "access-control-allow-credentials" not in told.headers
    refused = viewer.get(path, headers={"Origin": origin})
    assert (refused.status_code, refused.headers.get("access-control-allow-origin")) == (401, allowed)


def test_the_page_stays_closed_and_without_the_setting_everything(viewer: TestClient, door: Door) -> None:
    assert "access-control-allow-origin" not in viewer.get("/login", headers={"Origin": OURS}).headers
    assert shared(door.app, ()) is door.app


@pytest.mark.parametrize("origin", ["*", "https://viewer.example/", "viewer.example", "null", "https://*.example"])
def test_what_is_no_origin_is_refused(data: Path, origin: str) -> None:
    with pytest.raises(SettingsError, match="is no origin"):
        load(data=data, overrides={"http": {"cors_origins": [origin]}})
