"""Forms of the archive: pools and schedules made and changed by people, copies ordered, errors in words beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from config.settings import load
from service import opening
from service.api.application import build
from service.operations import StoreOperations
from service.shutdown import Stopping
from store import pools, schedules
from store.models_jobs import Disc, Job
from tests.rows import add_disc, add_instance
from tests.waiting import wait_for

POOL = {
    "name": "long-term",
    "kind": "archive",
    "copies": "2",
    "required_copies": "",
    "shelves": "A/3\r\n  vault \r\n\r\n",
    "profile": "STD-GEN-CD",
    "medium": "",
    "burner": "",
    "patients_per_disc": "many",
    "min_fill": "97,5",
    "latest_days": "",
    "quiet_minutes": "10",
    "keep_days": "0",
    "priority": "",
    "protect": "",
    "compress": "",
    "conflicts": "",
    "label_text": "Line 1\r\nLine 2",
}
NIGHTLY = {
    "name": "nightly",
    "kind": "archive",
    "trigger": "cron",
    "cron": "0 22 * * mon-fri",
    "every": "",
    "timezone": "Europe/Berlin",
    "blackouts": "mon-fri 07:00-19:00\r\n22:30-05:00",
    "enabled": "true",
    "modality": "ct, MR",
    "min_age_hours": "1,5",
    "pool": "long-term",
}


@pytest.fixture(scope="module")
def operations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreOperations]:
    context = opening.open_context(load(data=tmp_path_factory.mktemp("forms") / "data"))
    yield StoreOperations(context, source="api")
    opening.close_context(context)


@pytest.fixture(scope="module")
def client(operations: StoreOperations) -> TestClient:
    app = build(operations, token="sesame", hosts=("testserver",), stopping=Stopping())
    headers = {"Authorization": "Bearer sesame", "Accept-Language": "en"}
    return TestClient(app, headers=headers, raise_server_exceptions=False, follow_redirects=False)


@pytest.fixture
def empty(operations: StoreOperations) -> None:
    with operations.context.db.begin() as session:
        for schedule in schedules.every(session):
            schedules.remove(session, schedule.name)
        for pool in pools.every(session):
            pools.remove(session, pool.name)


def version_of(client: TestClient, path: str) -> str:
    found = re.search(r'name="version" value="([0-9a-f]{16})"', client.get(path).text)
    assert found is not None
    return found[1]


def pool_of(operations: StoreOperations) -> Any:
    with operations.context.db.read() as session:
        return pools.get(session, "long-term")


@pytest.mark.usefixtures("empty")
def test_a_pool_is_made_changed_and_removed(client: TestClient, operations: StoreOperations) -> None:
    assert 'name="copies"' in client.get("/archive/new-pool").text
    answer = client.post("/archive/pools", data=POOL)
    assert (answer.status_code, answer.headers["location"]) == (303, "/archive/pools#pool-long-term")
    made = pool_of(operations)
    assert (made.copies, made.required_copies, made.min_fill, made.latest_days) == (2, 2, 97.5, None)
    assert made.shelves == ["A/3", "vault"]
    assert made.options == {"profile": "STD-GEN-CD", "patients_per_disc": "many", "label_text": "Line 1\nLine 2"}
    path = "/archive/pools/long-term"
    changed = POOL | {"version": version_of(client, path), "copies": "3", "required_copies": "1", "latest_days": "7"}
    assert client.post(path, data=changed).status_code == 303
    again = pool_of(operations)
    assert (again.copies, again.required_copies, again.latest_days) == (3, 1, 7)
    answer = client.post(f"{path}/remove", headers={"HX-Request": "true"})
    assert "long-term is removed" in answer.text
    assert answer.headers["hx-trigger"] == "reload"


@pytest.mark.usefixtures("empty")
def test_what_a_form_does_not_have_stays(client: TestClient, operations: StoreOperations) -> None:
    assert client.post("/archive/pools", data=POOL).status_code == 303
    with operations.context.db.begin() as session:
        before = pools.get(session, "long-term").options
        pools.edit(session, "long-term", {"options": before | {"capacity_sectors": 4000}})
    path = "/archive/pools/long-term"
    assert "capacity_sectors" in client.get(path).text
    changed = POOL | {"version": version_of(client, path), "label_text": ""}
    assert client.post(path, data=changed).status_code == 303
    options = pool_of(operations).options
    assert options["capacity_sectors"] == 4000
    assert "label_text" not in options


@pytest.mark.usefixtures("empty")
def test_what_is_wrong_stands_above_the_form_with_all_that_was_typed(client: TestClient) -> None:
    for name, value, told in (
        ("copies", "two", "Copies: “two” is no number."),
        ("copies", "1.5", "is no whole number"),
        ("min_fill", "101", "Full enough, per cent: 101"),
        ("min_fill", "nan", "is no number"),
        ("profile", "STD-NONE", "STD-NONE"),
        ("name", "<b>", "Letters, digits"),
        ("shelves", "a\nb\nc", "more shelves than copies: at most 2"),
        ("required_copies", "3", "Copies that must be good: 3"),
    ):
        answer = client.post("/archive/pools", data=POOL | {name: value})
        assert answer.status_code == 422, (name, answer.text[-400:])
        assert told.replace("'", "&#39;") in answer.text, name
        assert ">Line 1\nLine 2</textarea>" in answer.text
        assert "<b>" not in answer.text
    client.post("/archive/pools", data=POOL)
    assert "There is a pool long-term already" in client.post("/archive/pools", data=POOL).text


@pytest.mark.usefixtures("empty")
def test_nobody_undoes_unseen_what_another_has_changed(client: TestClient, operations: StoreOperations) -> None:
    client.post("/archive/pools", data=POOL)
    path = "/archive/pools/long-term"
    seen = version_of(client, path)
    with operations.context.db.begin() as session:
        pools.edit(session, "long-term", {"keep_days": 90})
    answer = client.post(path, data=POOL | {"version": seen, "copies": "1"})
    assert answer.status_code == 409
    assert "Somebody has changed it" in answer.text
    assert 'name="keep_days" type="number" value="90"' in answer.text
    assert pool_of(operations).copies == 2


@pytest.mark.usefixtures("empty")
def test_a_schedule_is_tried_made_changed_and_removed(client: TestClient, operations: StoreOperations) -> None:
    client.post("/archive/pools", data=POOL)
    for kind in ("archive", "purge", "reverify"):
        assert "schedule-preview" in client.get(f"/archive/new-schedule?kind={kind}").text
    tried = client.post("/archive/schedule-preview", data=NIGHTLY | {"name": ""})
    assert "It would make no disc" in tried.text
    assert tried.text.count(" 22:00<") == 3
    assert client.post("/archive/schedules", data=NIGHTLY).headers["location"] == "/archive/schedules#schedule-nightly"
    with operations.context.db.read() as session:
        row = schedules.get(session, "nightly")
    assert row.rules == {"modality": ["CT", "MR"], "min_age_hours": 1.5}
    assert [one["from"] for one in row.blackouts] == ["07:00", "22:30"]
    path = "/archive/schedules/nightly"
    shown = client.get(path).text
    assert "mon,tue,wed,thu,fri 07:00-19:00\n22:30-05:00" in shown
    changed = NIGHTLY | {"version": version_of(client, path), "trigger": "every", "every": "6h", "enabled": ""}
    assert client.post(path, data=changed).status_code == 303
    with operations.context.db.read() as session:
        row = schedules.get(session, "nightly")
    assert (row.trigger["every_seconds"], row.enabled) == (21_600, False)
    since = row.trigger["since"]
    client.post(f"{path}/switch", data={"on": "true"})
    with operations.context.db.read() as session:
        row = schedules.get(session, "nightly")
    assert row.enabled
    assert row.trigger["since"] >= since
    assert "has run" in client.post(f"{path}/run", headers={"HX-Request": "true"}).text
    assert "is removed" in client.post(f"{path}/remove", headers={"HX-Request": "true"}).text
    assert client.get(path).status_code == 404


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ({"kind": "purge", "min_copies": "2"}, {"min_copies": 2}),
        ({"kind": "reverify", "months": "6", "refresh": "true", "pool": ""}, {"months": 6, "refresh": True}),
        (
            {"kind": "archive", "pool": "", "profile": "STD-GEN-CD", "copies": "2"},
            {"profile": "STD-GEN-CD", "copies": 2},
        ),
    ],
)
def test_schedules_of_every_kind(
    client: TestClient, operations: StoreOperations, values: dict[str, str], kept: dict[str, Any]
) -> None:
    given = {key: value for key, value in NIGHTLY.items() if key not in ("modality", "min_age_hours", "pool")} | values
    assert client.post("/archive/schedule-preview", data=given).status_code == 200
    assert client.post("/archive/schedules", data=given).status_code == 303
    with operations.context.db.read() as session:
        row = schedules.get(session, "nightly")
    assert {key: row.options[key] for key in kept} == kept
    assert client.get("/archive/schedules/nightly").status_code == 200
    assert client.get("/archive/schedules").status_code == 200


@pytest.mark.usefixtures("empty")
def test_what_is_wrong_with_a_schedule_is_said(client: TestClient) -> None:
    given = NIGHTLY | {"pool": "", "profile": "STD-GEN-CD"}
    for name, value, told in (
        ("cron", "0 25 * * *", "“25” is no hour"),
        ("timezone", "Mars/Olympus", "Mars/Olympus"),
        ("blackouts", "always", "always"),
        ("pool", "none", "there is no pool"),
        ("min_age_hours", "soon", "is no number"),
    ):
        for path in ("/archive/schedules", "/archive/schedule-preview"):
            answer = client.post(path, data=given | {name: value})
            assert answer.status_code in (404, 422), (name, answer.status_code)
            assert told in answer.text
    assert client.get("/archive/new-schedule?kind=none").status_code == 422


def test_a_copy_is_ordered_and_what_hinders_it_is_said(client: TestClient, operations: StoreOperations) -> None:
    with operations.context.db.begin() as session:
        here = add_disc(session, [add_instance(session, "1.5.1", study="1.5")])
        disc, away = here.id, add_disc(session, [add_instance(session, "1.6.1", study="1.6", in_spool=False)]).id
        session.flush()
        jobs = session.query(Job).count()
    page = client.get(f"/archive/discs/D{disc}").text
    assert 'hx-post="/archive/reburn"' in page
    assert ordering(client, {"of": f"D{away}"}).count('role="alert"') == 1
    assert client.post("/archive/reburn", data={"of": f"D{disc}", "copies": "0"}).status_code == 422
    answer = client.post(f"/archive/discs/D{disc}/purpose", data={"purpose": "backup"}, headers={"HX-Request": "true"})
    assert "is noted" in answer.text
    with operations.context.db.read() as session:
        assert session.get_one(Disc, disc).purpose == "backup"
        assert session.query(Job).count() == jobs


def ordering(client: TestClient, data: dict[str, str]) -> str:
    """What comes of an order at last."""
    found = [client.post("/archive/reburn", data=data).text]

    def ended() -> bool:
        token = re.search(r"/archive/work/([\w-]+)", found[-1])
        if token is None:
            return True
        found.append(client.get(f"/archive/work/{token[1]}").text)
        return False

    wait_for(ended, "the order")
    return found[-1]


def test_discs_of_which_nobody_said_what_they_are_for_are_shown_and_confirmed(
    client: TestClient, operations: StoreOperations
) -> None:
    with operations.context.db.begin() as session:
        made = [add_disc(session, [add_instance(session, f"1.4.{number}", study="1.4")]) for number in range(3)]
        for disc in made:
            disc.purpose = "unknown"
        first, *others = (disc.id for disc in made)
    assert "3 discs were read" in client.get("/archive").text
    listed = client.get("/archive/discs?show_only=unknown").text
    assert listed.count("It is kept in the archive") == 3
    assert "Nobody has said what this disc is for" in client.get(f"/archive/discs/D{first}").text
    assert client.post(f"/archive/discs/D{first}/purpose", data={"purpose": "archive"}).status_code == 200
    assert "2 discs: noted" in client.post("/archive/unknown-discs", data={"purpose": "handout"}).text
    with operations.context.db.read() as session:
        assert [session.get_one(Disc, one).purpose for one in (first, *others)] == ["archive", "handout", "handout"]
    assert "were read of which" not in client.get("/archive").text
    assert client.post("/archive/unknown-discs", data={"purpose": "unknown"}).status_code == 422
