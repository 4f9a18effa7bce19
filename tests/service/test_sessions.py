"""Sessions of browsers: begun, rotated, ended, never fixed by somebody else; cookies over http and https."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import anyio.to_thread
import pytest
from fastapi import Request
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from sqlalchemy import select, update

from service.api import access
from service.api.access import needs
from service.clocks import Clocks
from service.web.account import next_page
from store import sessions, users
from store.db import Database
from store.models_base import now
from store.models_users import User, UserSession
from tests.service.door import PASSWORD, Door


def rows(door: Door) -> list[UserSession]:
    with door.context.db.read() as session:
        return list(session.scalars(select(UserSession)))


def age(door: Door, **changes: timedelta) -> None:
    """Put times of all sessions back."""
    with door.context.db.begin() as session:
        for column, by in changes.items():
            for row in session.scalars(select(UserSession)):
                setattr(row, column, getattr(row, column) - by)


def test_signing_in_and_out(door: Door) -> None:
    door.user("ann", "operator")
    browser = door.browser()
    assert browser.get("/").headers["location"] == "/login"
    wrong = browser.sign_in("ann", "wrong")
    assert wrong.status_code == 401 and "name or the password is wrong" in wrong.text and 'value="ann"' in wrong.text
    answer = browser.sign_in("ANN", then="/studies")
    assert (answer.status_code, answer.headers["location"]) == (303, "/studies")
    (cookie,) = [one for one in answer.headers.get_list("set-cookie") if one.startswith("burnish_session=")]
    assert set(cookie.split("; ")[1:]) == {"HttpOnly", "Path=/", "SameSite=strict"}
    assert browser.who() == "ann" and browser.get("/account").status_code == 200
    assert browser.get("/login").headers["location"] == "/"
    (row,) = rows(door)
    secret = browser.cookies["burnish_session"]
    assert row.digest == sessions.digest(secret) and secret not in str(vars(row))
    assert (row.how, row.address) == ("password", "10.0.0.7")

    out = browser.post("/logout")
    assert (out.status_code, out.headers["location"]) == (303, "/login")
    assert browser.who() == "" and rows(door) == []
    browser.client.cookies.set("burnish_session", secret)
    assert browser.who() == "", "the server has forgotten it, whatever the browser kept"


def test_a_session_is_new_at_each_sign_in_and_the_old_one_ends(door: Door) -> None:
    door.user("ann", "viewer")
    browser = door.browser()
    browser.sign_in("ann")
    first, token = browser.cookies["burnish_session"], browser.csrf
    with_old = door.browser()
    with_old.client.cookies.set("burnish_session", first)
    assert with_old.who() == "ann"
    # Signed in again from the page that is open, as after being asked who one is.
    form = re.search(r'name="csrf" value="([0-9a-f]{64})"', _login_form(browser))
    assert form is not None
    answer = browser.client.post(
        "/login", data={"csrf": form[1], "user": "ann", "password": PASSWORD}, headers={"X-CSRF-Token": token}
    )
    assert answer.status_code == 303
    assert browser.cookies["burnish_session"] != first
    assert with_old.who() == "" and browser.who() == "ann" and len(rows(door)) == 1


def _login_form(browser: Any) -> str:
    """The sign-in page as somebody sees it who is not signed in, with the cookie that belongs to it."""
    held = browser.cookies["burnish_session"]
    del browser.client.cookies["burnish_session"]
    text = browser.client.get("/login").text
    browser.client.cookies.set("burnish_session", held, domain="127.0.0.1", path="/")
    return str(text)


def test_a_session_that_somebody_planted_is_not_taken(door: Door) -> None:
    """Session fixation: what the attacker put into the browser is worth nothing after the victim signs in."""
    door.user("ann", "viewer")
    victim, planted = door.browser(), "A" * 43
    victim.client.cookies.set("burnish_session", planted, domain="127.0.0.1", path="/")
    assert victim.sign_in("ann").status_code == 303
    assert victim.cookies["burnish_session"] != planted
    attacker = door.browser()
    attacker.client.cookies.set("burnish_session", planted)
    assert attacker.who() == ""


def test_an_attackers_own_session_planted_in_a_form_does_not_sign_the_victim_in(door: Door) -> None:
    """Login CSRF: the form's token must belong to a cookie of the same browser."""
    door.user("mallory", "viewer")
    attacker = door.browser()
    attacker.get("/login")
    victim = door.browser()
    answer = victim.client.post("/login", data={"csrf": attacker.csrf, "user": "mallory", "password": PASSWORD})
    assert answer.status_code == 403 and "burnish_session" not in victim.cookies


@pytest.mark.parametrize(
    ("aged", "lives"),
    [
        ({"seen_at": timedelta(minutes=59)}, True),
        ({"seen_at": timedelta(minutes=61)}, False),
        ({"expires_at": timedelta(hours=11, minutes=59)}, True),
        ({"expires_at": timedelta(hours=12, minutes=1)}, False),
    ],
)
def test_a_session_ends_when_idle_and_in_any_case(door: Door, aged: dict[str, timedelta], lives: bool) -> None:
    door.user("ann", "viewer")
    browser = door.browser()
    browser.sign_in("ann")
    age(door, **aged)
    assert (browser.who() == "ann") is lives
    with door.context.db.begin() as session:
        assert sessions.sweep(session, idle=timedelta(minutes=60)) == (0 if lives else 1)


def test_what_the_page_does_by_itself_does_not_keep_a_session_alive(door: Door) -> None:
    door.user("ann", "viewer")
    browser = door.browser()
    browser.sign_in("ann")
    age(door, seen_at=timedelta(minutes=30))
    (before,) = rows(door)
    assert browser.get("/account", Burnish_Background="1").status_code == 200
    assert rows(door)[0].seen_at == before.seen_at
    browser.get("/account")
    assert now() - rows(door)[0].seen_at < timedelta(minutes=1)


@pytest.mark.parametrize("what", ["role", "password", "disabled", "removed"])
def test_a_change_of_rights_ends_sessions_at_once(door: Door, what: str) -> None:
    door.user("ann", "operator")
    browser = door.browser()
    browser.sign_in("ann")
    program = door.program()
    if what == "role":
        program.patch("/api/v1/users/ann", json={"role": "viewer"})
    elif what == "password":
        program.put("/api/v1/users/ann/password", json={"password": "another long password"})
    elif what == "disabled":
        program.patch("/api/v1/users/ann", json={"disabled": True})
    else:
        program.delete("/api/v1/users/ann")
    assert browser.who() == "" and rows(door) == []


def test_a_role_that_changes_below_a_session_counts_at_once(door: Door) -> None:
    """Even where the session is left (a provider's own change): rights are looked up at each request."""
    door.user("ann", "administrator")
    browser = door.browser()
    browser.sign_in("ann")
    assert browser.get("/users").status_code == 200
    with door.context.db.begin() as session:
        session.execute(update(User).values(role="viewer"))
    assert browser.get("/users").status_code == 403 and browser.who() == "ann"


def test_changing_ones_password_ends_the_other_sessions(door: Door) -> None:
    door.user("ann", "viewer")
    here, there = door.browser(), door.browser()
    here.sign_in("ann")
    there.sign_in("ann")
    here.get("/account")
    new = "a rather new password"
    wrong = here.post("/account/password", {"old": "wrong", "new": new, "again": new})
    assert wrong.status_code == 403 and there.who() == "ann"
    assert here.post("/account/password", {"old": PASSWORD, "new": new, "again": new + "."}).status_code == 422
    done = here.post("/account/password", {"old": PASSWORD, "new": new, "again": new})
    assert done.status_code == 200 and "The password is changed" in done.text
    assert (here.who(), there.who()) == ("ann", "")
    assert door.browser().sign_in("ann", new).status_code == 303


def test_cookies_over_https(door: Door) -> None:
    door.user("ann", "viewer")
    browser = door.browser(scheme="https")
    answer = browser.sign_in("ann")
    (cookie,) = [one for one in answer.headers.get_list("set-cookie") if "burnish_session=" in one]
    assert cookie.startswith("__Host-burnish_session=")
    assert set(cookie.split("; ")[1:]) == {"HttpOnly", "Path=/", "SameSite=strict", "Secure"}
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    assert browser.who() == "ann"
    secret = browser.cookies["__Host-burnish_session"]
    weak = door.browser(scheme="https")
    weak.client.cookies.set("burnish_session", secret)  # a name that a page without TLS could have set
    assert weak.who() == ""


def test_two_session_cookies_that_differ_are_none(door: Door) -> None:
    door.user("ann", "viewer")
    browser = door.browser()
    browser.sign_in("ann")
    secret = browser.cookies["burnish_session"]
    fresh = door.browser().client
    for cookie, status in (
        (f"burnish_session={secret}", 200),
        (f"a=b; burnish_session={secret}; burnish_session={secret}", 200),
        (f"burnish_session={secret}; burnish_session=planted", 401),
        (f"burnish_session=planted; burnish_session={secret}", 401),
        ("burnish_session=\xff\xfe", 401),
    ):
        answer = fresh.get("/api/v1/me", headers={"Cookie": cookie.encode("latin-1"), "Accept": "application/json"})
        assert answer.status_code == status, cookie


@pytest.mark.parametrize(
    "wanted",
    [
        "//evil.example", "https://evil.example", "/\\evil.example", "\\\\evil.example", "javascript:alert(1)", "",
        "/a\r\nSet-Cookie: x=y", "/login", "/logout", "/setup", "/" + "x" * 600, "evil", "/\t/evil.example", "/a?b=c",
    ],
)  # fmt: skip
def test_nobody_is_sent_elsewhere_after_signing_in(wanted: str) -> None:
    assert next_page(wanted) == "/"


def test_pages_of_ours_are_returned_to() -> None:
    assert [next_page(one) for one in ("/", "/studies", "/jobs/J1")] == ["/", "/studies", "/jobs/J1"]


@pytest.mark.parametrize("how", ["session", "token"])
def test_a_stream_ends_when_its_listener_may_no_more(door: Door, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "LOOK_AGAIN_SECONDS", 0.0)
    door = Door(door.operations, own_routes=True)
    door.user("ann", "viewer")
    route = APIRoute("/stream", _stream, methods=["GET"], dependencies=[needs("status.read")])
    door.application.router.routes.append(route)
    browser = door.browser()
    browser.sign_in("ann")
    client = browser.client if how == "session" else door.program(door.token("ann", "status.read"))
    pieces = client.get("/stream").text
    assert pieces == "0123456789"
    door.application.state.between = lambda: door.program().patch("/api/v1/users/ann", json={"disabled": True})
    assert client.get("/stream").text == "01234"


async def _stream(request: Request) -> StreamingResponse:
    async def pieces() -> AsyncIterator[str]:
        for number in range(10):
            between = getattr(request.app.state, "between", None)
            if number == 5 and between is not None:
                await anyio.to_thread.run_sync(between)
            yield str(number)

    return StreamingResponse(access.while_allowed(request, "status.read", pieces()))


def test_what_is_over_is_forgotten_by_the_clock(door: Door) -> None:
    door.user("ann", "viewer")
    door.browser().sign_in("ann")
    age(door, expires_at=timedelta(days=1))
    clocks = Clocks(door.context, None)  # type: ignore[arg-type]
    clocks._housekeeping()
    assert rows(door) == []


def test_who_is_signed_in_is_shown_to_administrators(door: Door) -> None:
    door.user("ann", "viewer")
    door.browser().sign_in("ann")
    (shown,) = door.program().get("/api/v1/users/ann").json()["sessions"]
    assert shown["address"] == "10.0.0.7" and set(shown) == {"begun_at", "seen_at", "how", "address"}
    with door.context.db.begin() as session:
        assert users.end_sessions(session, users.by_name(session, "ann")) == 1


def test_sessions_and_tokens_are_found_on_both_databases(database: Database) -> None:
    at, hour = now(), timedelta(hours=1)
    with database.begin() as session:
        user = users.add(session, "ann", "operator", by="t")
        secret = sessions.begin(session, user, how="password", address="::1", lasts=2 * hour)
        token, text = sessions.make_token(session, user, name="t", scopes=["jobs.make"], lasts=hour, by="t")
    found = sessions.find(database, secret, idle=hour, at=at + hour / 2)
    assert found is not None and (found.name, found.role, found.user_id) == ("ann", "operator", user.id)
    assert sessions.find(database, secret + "x", idle=hour, at=at) is None
    assert sessions.find(database, secret, idle=hour, at=at + 1.5 * hour) is None
    with database.begin() as session:
        sessions.seen(session, found.digest, at + hour)
    assert sessions.find(database, secret, idle=hour, at=at + 1.5 * hour) is not None
    assert sessions.find(database, secret, idle=hour, at=at + 2.5 * hour) is None
    holder = sessions.find_token(database, text, at=at)
    assert holder is not None and (holder.token_id, holder.scopes) == (token.id, ("jobs.make",))
    assert sessions.find_token(database, text, at=at + 2 * hour) is None
    with database.begin() as session:
        sessions.revoke(session, token.id)
        users.disable(session, users.by_name(session, "ann"))
    assert sessions.find_token(database, text, at=at) is None
    assert sessions.find(database, secret, idle=hour, at=at) is None
