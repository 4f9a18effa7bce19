"""Events over HTTP: pages of the past, and the stream with its resumption."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from store.models_base import now
from store.models_nodes import Event
from tests.dicomweb.conftest import Web, serving


@pytest.fixture
def web(tmp_path: Any) -> Iterator[Web]:
    with serving(tmp_path / "data") as served:
        yield served


def add(web: Web, kind: str, **values: Any) -> None:
    with web.operations.context.db.begin() as session:
        session.add(Event(at=now(), kind=kind, **({"detail": {}} | values)))


def messages(lines: Iterator[str], count: int) -> list[dict[str, str]]:
    """The next messages that have data."""
    found: list[dict[str, str]] = []
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        else:
            if "data" in fields:
                found.append(fields)
            fields = {}
            if len(found) == count:
                break
    return found


def lines_of(response: requests.Response) -> Iterator[str]:
    return iter(response.iter_lines(chunk_size=1, decode_unicode=True))


def stream(web: Web, query: str = "", **headers: str) -> requests.Response:
    wanted = {"Accept": "text/event-stream"} | headers
    return web.session.get(f"{web.url}/api/v1/events{query}", headers=wanted, stream=True, timeout=30)


def test_the_stream_tells_what_comes_and_goes_on_where_it_broke_off(web: Web) -> None:
    add(web, "job", job_id=1)
    with stream(web) as response:
        assert response.status_code == 200 and response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        lines = lines_of(response)
        assert next(lines).startswith("retry: ")
        add(web, "disc", job_id=1, disc_id=7, old="BURNT", new="VERIFIED", detail={"by": 'a"\nb'})
        add(web, "recall")
        first, second = messages(lines, 2)
    assert (first["event"], second["event"]) == ("disc", "recall")
    told = json.loads(first["data"])
    assert (told["job"], told["disc"], told["new"], told["detail"]) == ("J1", "D7", "VERIFIED", {"by": 'a"\nb'})
    with stream(web, **{"Last-Event-ID": first["id"]}) as response:
        (again,) = messages(lines_of(response), 1)
    assert again == second
    with stream(web, "?kind=recall&kind=job", **{"Last-Event-ID": "0"}) as response:
        assert [one["event"] for one in messages(lines_of(response), 2)] == ["job", "recall"]


def test_pages_and_wrong_places(web: Web) -> None:
    for number in range(5):
        add(web, "job" if number % 2 else "disc", job_id=number)
    url = f"{web.url}/api/v1/events"
    page = web.session.get(url, params={"limit": 3}, timeout=30).json()
    rest = web.session.get(url, params={"limit": 3, "cursor": page["next"]}, timeout=30).json()
    assert [one["job"] for one in page["items"] + rest["items"]] == ["J4", "J3", "J2", "J1", "J0"]
    assert rest["next"] is None
    assert len(web.session.get(url, params={"kind": "job"}, timeout=30).json()["items"]) == 2
    assert stream(web, **{"Last-Event-ID": "yesterday"}).status_code == 422
    assert web.session.get(url, params={"cursor": "nonsense"}, timeout=30).json()["code"] == "BAD_CURSOR"
    assert requests.get(url, timeout=30).status_code == 401


def test_streams_end_with_the_service_and_are_bounded(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.api.events.MAX_STREAMS", 1)
    with stream(web) as response:
        lines = lines_of(response)  # let go of, it would close the connection
        next(lines)
        refused = stream(web)
        assert refused.status_code == 503 and refused.json()["code"] == "TOO_MANY_STREAMS"
