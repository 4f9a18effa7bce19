"""API tokens: shown once, kept as a digest, bounded by scopes, by their user's role, by time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from store import sessions
from store.models_base import now
from store.models_nodes import Event
from store.models_users import ApiToken
from tests.service.door import Door


def me(door: Door, token: str) -> dict[str, Any]:
    answer = door.program(token).get("/api/v1/me")
    return dict(answer.json()) if answer.status_code == 200 else {"status": answer.status_code}


def test_a_token_is_shown_once_and_kept_as_a_digest(door: Door) -> None:
    door.user("ris", "operator", password=None)
    body = {"user": "ris", "name": "orders", "scopes": ["jobs.make", "account.own"], "days": 7}
    made = door.program().post("/api/v1/tokens", json=body)
    assert made.status_code == 201
    secret = made.json()["secret"]
    assert secret.startswith("burnish_") and len(secret) > 50
    (listed,) = door.program().get("/api/v1/tokens").json()["items"]
    assert listed == {key: value for key, value in made.json().items() if key != "secret"}
    assert listed["begins"] == secret[:12] and listed["used_at"] is None and listed["state"] == "VALID"
    with door.context.db.read() as session:
        (row,) = session.scalars(select(ApiToken))
    assert secret not in str(vars(row)) and row.digest == sessions.digest(secret)
    assert timedelta(days=6, hours=23) < row.expires_at - now() < timedelta(days=7)
    assert me(door, secret) == {
        "user": "ris", "role": "operator", "how": "token", "rights": ["account.own", "jobs.make"]
    }  # fmt: skip
    assert door.program().get("/api/v1/tokens").json()["items"][0]["used_at"] is not None


def test_a_token_may_what_its_scopes_and_its_users_role_allow(door: Door) -> None:
    door.user("arc", "archivist")
    narrow, wide = door.token("arc", "studies.read"), door.token("arc", "archivist")
    assert door.program(narrow).get("/api/v1/studies").status_code == 200
    refused = door.program(narrow).get("/api/v1/jobs")
    assert refused.status_code == 403 and "scope" in refused.json()["detail"]
    assert door.program(wide).post("/api/v1/spool/purge", json={"dry_run": True}).status_code == 200
    assert door.program(wide).get("/api/v1/users").status_code == 403
    door.program().patch("/api/v1/users/arc", json={"role": "viewer"})
    assert door.program(wide).post("/api/v1/spool/purge", json={"dry_run": True}).status_code == 403
    assert door.program(wide).get("/api/v1/jobs").status_code == 200


@pytest.mark.parametrize("how", ["revoked", "expired", "disabled", "removed"])
def test_a_token_ends_at_once(door: Door, how: str) -> None:
    door.user("ris", "operator")
    token = door.token("ris", "operator")
    assert me(door, token)["user"] == "ris"
    program = door.program()
    if how == "revoked":
        assert program.delete("/api/v1/tokens/T1").json()["state"] == "REVOKED"
        assert program.delete("/api/v1/tokens/T1").status_code == 200
    elif how == "expired":
        with door.context.db.begin() as session:
            session.execute(update(ApiToken).values(expires_at=now() - timedelta(seconds=1)))
        assert program.get("/api/v1/tokens").json()["items"][0]["state"] == "EXPIRED"
    elif how == "disabled":
        program.patch("/api/v1/users/ris", json={"disabled": True})
    else:
        program.delete("/api/v1/users/ris")
    assert me(door, token) == {"status": 401}
    if how == "disabled":
        program.patch("/api/v1/users/ris", json={"disabled": False})
        assert me(door, token)["user"] == "ris"


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"scopes": []}, 422, "scope"),
        ({"scopes": ["jobs"]}, 422, "no right"),
        ({"scopes": ["administrator"]}, 422, "has not"),
        ({"scopes": ["jobs.make", "users.manage"]}, 422, "has not users.manage"),
        ({"name": ""}, 422, "name"),
        ({"name": "a\nb"}, 422, "name"),
        ({"days": 0}, 422, "days"),
        ({"days": 100_000}, 422, "days"),
        ({"user": "nobody"}, 404, "no such user"),
    ],
)
def test_tokens_that_are_not_made(door: Door, body: dict[str, Any], status: int, says: str) -> None:
    door.user("ris", "operator")
    given = {"user": "ris", "name": "t", "scopes": ["viewer"]} | body
    answer = door.program().post("/api/v1/tokens", json=given)
    assert answer.status_code == status and says in answer.json()["detail"]


def test_what_a_request_asks_of_other_nodes_takes_their_right_too(door: Door) -> None:
    door.user("ris", "operator")
    for path, scope, body in (
        ("/api/v1/jobs", "jobs.make", {"selection": {"study": ["1.2"]}, "options": {"pull_from": "pacs"}}),
        ("/api/v1/recalls", "recalls.make", {"selection": {"study": ["1.2"]}, "to": "pacs"}),
    ):
        assert "nodes.use" in door.program(door.token("ris", scope)).post(path, json=body).json()["detail"]
        assert door.program(door.token("ris", scope, "nodes.use")).post(path, json=body).status_code != 403


def test_a_token_makes_no_token_and_changes_no_password(door: Door) -> None:
    door.user("ann", "administrator")
    program = door.program(door.token("ann", "account.own", "viewer"))
    for method, path, body in (
        ("POST", "/api/v1/me/tokens", {"name": "more", "scopes": ["administrator"]}),
        ("PUT", "/api/v1/me/password", {"old": "correct horse battery", "new": "another long password"}),
    ):
        answer = program.request(method, path, json=body)
        assert answer.status_code == 403 and "signed in at the page" in answer.json()["detail"]


def test_own_tokens_are_ones_own(door: Door) -> None:
    door.user("ann", "operator")
    door.user("ben", "operator")
    theirs = door.token("ben", "viewer")
    browser = door.browser()
    browser.sign_in("ann")
    page = browser.post("/account/tokens", {"name": "mine <b>", "scope": ["jobs.read", "jobs.make"], "days": "3"})
    assert page.status_code == 200 and "burnish_" in page.text and "mine &lt;b&gt;" in page.text
    assert "burnish_" + "x" not in browser.get("/account").text
    as_program = {"Accept": "application/json"}
    (own,) = browser.client.get("/api/v1/me/tokens", headers=as_program).json()["items"]
    assert (own["token"], own["scopes"]) == ("T2", ["jobs.make", "jobs.read"])
    assert browser.post("/account/tokens", {"name": "x", "scope": ["users.manage"]}).status_code == 422
    assert browser.post("/account/tokens/T1/revoke").status_code == 404
    assert me(door, theirs)["user"] == "ben"
    assert browser.post("/account/tokens/T2/revoke").status_code == 303
    assert browser.client.get("/api/v1/me/tokens", headers=as_program).json()["items"][0]["state"] == "REVOKED"


@pytest.mark.parametrize(
    "given",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic YW5uOnB3",
        "bearer burnish_",
        "Bearer burnish_" + "x" * 5000,
        "Bearer \u00e9\u00e8",
    ],
)
def test_what_is_no_token(door: Door, given: str) -> None:
    door.user("ann", "viewer")
    browser = door.browser()
    browser.sign_in("ann")
    headers = {"Authorization": given.encode("latin-1")}
    # A wrong token is wrong, even beside a right cookie.
    assert browser.client.get("/api/v1/me", headers=headers).status_code == 401
    assert door.program("").get("/api/v1/me", headers=headers).status_code == 401


def test_two_authorization_headers_are_refused(door: Door) -> None:
    given = [("Authorization", "Bearer local-token"), ("Authorization", "Bearer other")]
    assert door.program("").get("/api/v1/me", headers=given).status_code == 400


def test_events_tell_no_patients_to_who_may_not_read_studies(door: Door) -> None:
    door.user("wall", "viewer")
    with door.context.db.begin() as session:
        session.add(Event(at=now(), kind="job", job_id=7, new="FAILED", detail={"error": "refused: Doe^Jane"}))
    told = []
    for scopes in (["status.read"], ["status.read", "studies.read"]):
        answer = door.program(door.token("wall", *scopes)).get("/api/v1/events", params={"kind": "job"})
        told.append(answer.json()["items"][0]["detail"])
    assert told == [{}, {"error": "refused: Doe^Jane"}]
