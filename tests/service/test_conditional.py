"""If-Match: what another has changed meanwhile is not undone unseen; HEAD: what GET would tell, without the body."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.api import answers, events
from service.web.routes import PageRoute
from store import copies
from store.models_audit import AuditRecord
from tests.makers import make
from tests.rows import add_disc, add_instance
from tests.service.door import Door, _routes

API = "/api/v1"


@pytest.fixture
def client(door: Door) -> TestClient:
    return door.program()


def seen(client: TestClient, path: str) -> str:
    answer = client.get(API + path)
    assert answer.status_code == 200, answer.text
    return str(answer.headers["etag"])


def pool(client: TestClient) -> None:
    assert client.post(f"{API}/pools", json={"name": "years", "copies": 1}).status_code == 201


def schedule(client: TestClient) -> None:
    given = {"name": "nightly", "kind": "purge", "cron": "0 22 * * *"}
    assert client.post(f"{API}/schedules", json=given).status_code == 201


def user(client: TestClient) -> None:
    assert client.post(f"{API}/users", json={"user": "ann", "role": "viewer"}).status_code == 201


WHAT = [
    (pool, "/pools/years", {"min_fill": 90}, {"min_fill": 80}, lambda one: one["min_fill"]),
    (schedule, "/schedules/nightly", {"enabled": False}, {"timezone": "Europe/Vienna"}, lambda one: one["enabled"]),
    (user, "/users/ann", {"role": "operator"}, {"disabled": True}, lambda one: one["role"]),
]


@pytest.mark.parametrize(("make_it", "path", "first", "second", "value"), WHAT)
def test_of_two_who_change_what_they_saw_the_later_one_is_told(
    client: TestClient, make_it: Any, path: str, first: Any, second: Any, value: Any
) -> None:
    make_it(client)
    hers = his = seen(client, path)
    changed = client.patch(API + path, json=first, headers={"If-Match": hers})
    assert changed.status_code == 200
    refused = client.patch(API + path, json=second, headers={"If-Match": his})
    problem = refused.json()
    assert (refused.status_code, problem["code"]) == (412, "CHANGED")
    assert value(problem["current"]) == value(changed.json()) == next(iter(first.values()))
    assert client.delete(API + path, headers={"If-Match": his}).status_code == 412
    assert client.get(API + path).json() | {"sessions": 0, "next": 0} == problem["current"] | {"sessions": 0, "next": 0}
    # what came with the refusal, and with the change, is enough to go on with; several, and any, are named as well
    assert client.patch(API + path, json=first, headers={"If-Match": changed.headers["etag"]}).status_code == 200
    again = client.patch(API + path, json=second, headers={"If-Match": f'"other", {refused.headers["etag"]}'})
    assert again.status_code == 200
    assert client.patch(API + path, json=first, headers={"If-Match": f"W/{again.headers['etag']}"}).status_code == 412
    assert client.patch(API + path, json=first, headers={"If-Match": "*"}).status_code == 200
    assert client.patch(API + path, json=second).status_code == 200, "without If-Match nothing is asked"
    assert client.delete(API + path, headers={"If-Match": seen(client, path)}).status_code == 200


def test_of_many_at_once_one_changes_what_all_have_seen(client: TestClient) -> None:
    pool(client)
    tag = seen(client, "/pools/years")

    def change(fill: int) -> int:
        return client.patch(f"{API}/pools/years", json={"min_fill": fill}, headers={"If-Match": tag}).status_code

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(change, range(50, 54))) == [200, 412, 412, 412]


def test_what_changes_by_itself_makes_no_change_a_lost_one(client: TestClient) -> None:
    pool(client)
    tag = seen(client, "/pools/years")
    assert client.post(f"{API}/instances", content=make("CT").part10()).status_code == 200
    assert client.post(f"{API}/pools/years/instances", json={"selection": {"all": True}}).status_code == 200
    now = seen(client, "/pools/years")
    assert now != tag, "the document is another"
    assert client.patch(f"{API}/pools/years", json={"min_fill": 90}, headers={"If-Match": tag}).status_code == 200


def test_a_disc_is_handled_as_it_was_seen(client: TestClient, door: Door) -> None:
    with door.context.db.begin() as session:
        copies.recount(session, add_disc(session, [add_instance(session, "1.1")]).volume_id)
    tag = seen(client, "/discs/D1")
    assert client.post(f"{API}/discs/D1/move", json={"shelf": "A/1"}, headers={"If-Match": tag}).status_code == 200
    for path, body in (("move", {"shelf": "B/1"}), ("check-out", {"to": "Dr Who"}), ("mark", {"mark": "LOST"}),
                       ("purpose", {"purpose": "backup"}), ("found", {}), ("return", {})):  # fmt: skip
        refused = client.post(f"{API}/discs/D1/{path}", json=body, headers={"If-Match": tag})
        assert refused.status_code == 412 and refused.json()["current"]["shelf"] == "A/1", path
    now = refused.headers["etag"]
    assert client.post(f"{API}/discs/D1/check-out", json={"to": "Ann"}, headers={"If-Match": now}).status_code == 200


def test_a_node_is_forgotten_as_it_was_seen(client: TestClient) -> None:
    given = {"name": "pacs", "ae_title": "PACS", "host": "pacs", "port": 104}
    client.post(f"{API}/nodes", json=given)
    tag = seen(client, "/nodes/pacs")
    assert client.get(f"{API}/nodes/none").status_code == 404
    client.delete(f"{API}/nodes/pacs")
    client.post(f"{API}/nodes", json=given | {"port": 11112})
    refused = client.delete(f"{API}/nodes/pacs", headers={"If-Match": tag})
    assert refused.status_code == 412 and refused.json()["current"]["port"] == 11112
    assert client.delete(f"{API}/nodes/pacs", headers={"If-Match": refused.headers["etag"]}).status_code == 200


def test_a_condition_that_cannot_be_held_is_refused(client: TestClient) -> None:
    refused = client.post(f"{API}/spool/purge", json={"dry_run": True}, headers={"If-Match": '"x"'})
    assert (refused.status_code, refused.json()["code"]) == (412, "NO_ETAG")
    assert client.post(f"{API}/spool/purge", json={"dry_run": True}, headers={"If-Match": "*"}).status_code == 200


# --- HEAD -------------------------------------------------------------------------------------------------------------


PATHS = (
    *(
        "/healthz",
        "/login",
        "/nodes",
        "/static/none.css",
        "/metrics",
        "/none",
        "/dicomweb/studies",
        "/dicomweb/studies/x",
    ),
    *(f"{API}/{path}" for path in ("openapi.json", "pools", "pools/none", "studies", "jobs/J9")),
)


def test_head_is_answered_as_get(client: TestClient) -> None:
    for path in PATHS:
        got, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        for name in ("content-type", "content-length", "etag") if path.startswith(API) else ("content-type",):
            assert head.headers.get(name) == got.headers.get(name), path
    assert client.head(f"{API}/jobs/J1/cancel").status_code == 405
    client.headers.pop("authorization")
    assert client.head(f"{API}/pools").status_code == 401


def test_every_route_that_answers_get_answers_head(door: Door) -> None:
    ours = (answers.Route, PageRoute)
    for route in _routes(door.application):
        made = getattr(route, "original_route", route)
        assert "GET" not in (made.methods or ()) or "HEAD" in made.methods or isinstance(made, ours), made.path


def test_allow_names_every_method(client: TestClient) -> None:
    refused = client.put(f"{API}/pools/years")
    assert refused.status_code == 405
    assert set(refused.headers["allow"].split(", ")) == {"GET", "HEAD", "PATCH", "DELETE"}


def test_head_of_what_is_downloaded_takes_nothing_away(client: TestClient, door: Door) -> None:
    one = make("CT")
    client.post(f"{API}/instances", content=one.part10())

    def exports() -> int:
        with door.context.db.read() as session:
            return (
                session.query(AuditRecord).filter(AuditRecord.event.in_(("export", "accessed", "transferred"))).count()
            )

    before = exports()
    file = f"{API}/instances/{one.sop_instance_uid}/file"
    web = f"/dicomweb/studies/{one.study_instance_uid}"
    instance = f"{web}/series/{one.series_instance_uid}/instances/{one.sop_instance_uid}"
    for path in (file, web, f"{web}/metadata", instance, f"{instance}/frames/1", f"{instance}/bulkdata/7FE00010"):
        head = client.head(path)
        assert (head.status_code, head.content) == (200, b""), path
    assert exports() == before
    assert client.head(file).headers["content-length"] == str(len(client.get(file).content))
    assert client.head(file, headers={"Range": "bytes=0-9"}).headers["content-length"] == "10"
    assert exports() > before


def test_head_of_a_stream_does_not_begin_it(client: TestClient, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_news", lambda *_: pytest.fail("it was begun"))
    head = client.head(f"{API}/events", headers={"Accept": "text/event-stream"})
    assert head.status_code == 200 and head.headers["content-type"].startswith("text/event-stream")
    assert client.head("/live", headers={"Accept": "text/event-stream"}).status_code == 200
