"""Users: what a name, a role, a password may be; the last administrator; failed sign-ins; the routes and commands."""

from __future__ import annotations

import shutil
import stat
import threading
from collections.abc import Callable
from datetime import timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from config import roles
from service import passwords, signin
from service.cli import app
from service.errors import Refusal, UsageError
from store import attempts, users
from store.attempts import Limit
from store.db import Database
from store.models_base import now
from store.models_users import LoginAttempt, User
from store.users import BadUser, UnknownUser, UserError
from tests.service.door import LOCAL, PASSWORD, Door
from tests.service.test_cli import burnish

# --- Roles and rights as data -----------------------------------------------------------------------------------------


def test_each_role_has_the_rights_of_those_before_it() -> None:
    order = roles.roles()
    assert order == ("viewer", "operator", "archivist", "administrator")
    for right in roles.rights().values():
        has = [roles.has(role, right.name) for role in order]
        assert has == sorted(has) and has[-1] and order[has.index(True)] == right.role
        assert right.text
    assert not roles.has("boss", "jobs.make") and not roles.has("", "account.own")


def test_the_page_about_users_has_every_right() -> None:
    page = (Path(__file__).parents[2] / "docs" / "users.md").read_text()
    rows = [f"| `{one.name}` | {one.role} | {one.text} |" for one in roles.rights().values()]
    assert [line for line in page.splitlines() if line.startswith("| `")] == rows
    assert resources.files("config").joinpath("roles.toml").is_file()


def test_scopes_are_rights_or_roles() -> None:
    assert roles.wrong_scopes(["jobs.make", "viewer", "jobs", "*"]) == ["jobs", "*"]
    assert roles.allows(["viewer", "jobs.make"], "studies.read") and roles.allows(["jobs.make"], "jobs.make")
    assert not roles.allows(["viewer"], "jobs.make") and not roles.allows([], "account.own")


# --- What a user may be -----------------------------------------------------------------------------------------------


def test_names_that_nobody_can_have(database: Database) -> None:
    names = [
        "",
        " ",
        "-a",
        "a b",
        "a/b",
        "a\nb",
        "ä",
        "<b>",
        "x" * 65,
        "cli",
        "a;drop",
        "../x",
        "a\x00",
        "\ud800",
        "ａ",
    ]
    with database.begin() as session:
        for name in names:
            with pytest.raises(BadUser):
                users.add(session, name, "viewer", by="t")
            with pytest.raises(UnknownUser):
                users.by_name(session, name)
        assert users.listed(session) == []


def test_a_name_is_one_in_upper_and_lower_case(database: Database) -> None:
    with database.begin() as session:
        users.add(session, " Ann@Site.example ", "viewer", by="t")
        assert users.by_name(session, "ANN@site.EXAMPLE").name == "ann@site.example"
        with pytest.raises(UserError, match="already"):
            users.add(session, "ann@site.example", "operator", by="t")
        with pytest.raises(BadUser, match="no role"):
            users.add(session, "ben", "boss", by="t")


@pytest.mark.parametrize(
    "password", ["", "Tr0ub4d", "elevenchars", "a" * 40, "abab" * 10, "bertha-bertha", "x" * 1025, "\ud800" * 20]
)
def test_passwords_that_are_none(password: str) -> None:
    with pytest.raises(UsageError) as caught:
        passwords.require_good(password, user="bertha", least=12)
    assert not password or password not in str(caught.value)


def test_passwords_are_kept_as_argon2id_and_compared_as_they_look() -> None:
    passwords.require_good("Käse mit Löchern", user="bertha", least=12)
    kept = passwords.hashed("Käse mit Löchern")
    assert kept.startswith("$argon2id$v=19$m=65536,t=3,p=4$") and "Löchern" not in kept
    assert passwords.verify(kept, "Ka\u0308se mit Lo\u0308chern")
    assert not passwords.verify(kept, "Kase mit Lochern") and not passwords.verify(kept, "")
    assert not passwords.verify(None, "") and not passwords.verify("no hash", "x")


# --- The last administrator, the first user: of several at once one comes first ---------------------------------------


def _at_once(*tasks: Callable[[], None]) -> list[Exception]:
    """Run them at the same time; what they raised."""
    gate, raised = threading.Barrier(len(tasks)), []

    def run(task: Callable[[], None]) -> None:
        gate.wait()
        try:
            task()
        except Exception as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_the_last_administrator_stays(database: Database) -> None:
    def gone(name: str, how: Callable[[Any, User], object]) -> None:
        with database.begin() as session:
            how(session, users.by_name(session, name))

    with database.begin() as session:
        for name in ("ann", "ben"):
            users.add(session, name, "administrator", by="t")
        users.disable(session, users.by_name(session, "ben"))
    ways = (users.remove, users.disable, lambda session, user: users.set_role(session, user, "viewer"))
    for way in ways:
        with pytest.raises(UserError, match="last administrator"):
            gone("ann", way)
    with database.begin() as session:
        users.enable(session, users.by_name(session, "ben"))
    raised = _at_once(lambda: gone("ann", users.disable), lambda: gone("ben", users.remove))
    assert [getattr(error, "code", None) for error in raised] == ["LAST_ADMINISTRATOR"]
    with database.read() as session:
        assert sum(user.role == "administrator" and user.disabled_at is None for user in users.listed(session)) == 1


def test_of_two_first_users_one_comes_first(database: Database) -> None:
    def first(name: str) -> None:
        with database.begin() as session:
            users.add_first(session, name, password="hash", by="t")

    raised = _at_once(lambda: first("ann"), lambda: first("ben"))
    assert [getattr(error, "code", None) for error in raised] == ["SET_UP"]
    with database.read() as session:
        (only,) = users.listed(session)
    assert only.role == "administrator"


# --- Failed sign-ins --------------------------------------------------------------------------------------------------

LIMIT = Limit(3, timedelta(minutes=1))


def test_a_name_is_locked_each_time_for_longer(database: Database) -> None:
    at = now()

    def attempt(seconds: float) -> float | None:
        with database.begin() as session:
            until = attempts.reserve(session, "user", "ann", LIMIT, at + timedelta(seconds=seconds))
        return None if until is None else round((until - at).total_seconds())

    assert [attempt(0), attempt(1), attempt(2)] == [None, None, None]
    assert attempt(3) == 62 and attempt(61) == 62
    assert [attempt(63), attempt(63), attempt(63)] == [None, None, None]
    assert attempt(64) == 63 + 120
    assert [attempt(200), attempt(200), attempt(200)] == [None, None, None]
    assert attempt(201) == 200 + 240
    day = 86_400 * 2
    assert [attempt(day), attempt(day), attempt(day)] == [None, None, None]
    assert attempt(day + 1) == day + 60  # all forgotten by then


def test_failures_far_apart_do_not_lock_and_a_lock_has_an_end(database: Database) -> None:
    at = now()
    for hour in range(10):
        with database.begin() as session:
            assert attempts.reserve(session, "user", "ann", LIMIT, at + timedelta(hours=hour)) is None
    with database.begin() as session:
        for _ in range(100):
            at += timedelta(days=1, hours=2)
            for _ in range(3):
                attempts.reserve(session, "address", "10.0.0.1", LIMIT, at)
            until = attempts.reserve(session, "address", "10.0.0.1", LIMIT, at)
            assert until is not None and until - at <= attempts.LONGEST_LOCK


def test_many_at_once_are_no_more_than_as_many(database: Database) -> None:
    let_in: list[bool] = []

    def attempt() -> None:
        with database.begin() as session:
            until = attempts.reserve(session, "user", "ann", LIMIT)
        let_in.append(until is None)

    assert _at_once(*[attempt] * 12) == []
    assert sum(let_in) == 3


def test_what_is_counted_names_nobody(database: Database) -> None:
    with database.begin() as session:
        for name in ("ann", "hunter2 typed in the wrong field", "\ud800"):
            attempts.reserve(session, "user", name, LIMIT)
        assert {len(row.key) for row in session.scalars(select(LoginAttempt))} == {64}
        assert attempts.sweep(session) == 0
        for row in session.scalars(select(LoginAttempt)):
            row.since -= timedelta(days=2)
        session.flush()
        assert attempts.sweep(session) == 3


def test_addresses_of_one_ipv6_network_are_one() -> None:
    assert attempts.key("address", "2001:db8::1") == attempts.key("address", "2001:db8:0:0:ffff::9")
    assert attempts.key("address", "2001:db8::1") != attempts.key("address", "2001:db8:0:1::1")
    assert attempts.key("address", "::ffff:10.0.0.1") == attempts.key("address", "10.0.0.1")
    assert attempts.key("address", "10.0.0.1") != attempts.key("user", "10.0.0.1")


def test_an_unknown_name_is_answered_and_locked_like_a_known_one(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    door.user("ann", "viewer")
    at = now()
    for module in (signin, attempts):  # how long a lock lasts still is told in seconds
        monkeypatch.setattr(module, "now", lambda: at)
    told = {}
    for number, name in enumerate(("ann", "nobody", "Not A Name!")):
        browser = door.browser(address=f"10.0.{number}.1")
        told[name] = [browser.sign_in(name, "wrong password") for _ in range(6)]
    shown = [
        [(one.status_code, one.headers.get("retry-after"), one.text.count('role="alert"')) for one in answers]
        for answers in told.values()
    ]
    assert [status for status, _, _ in shown[0]] == [401] * 5 + [429]
    assert shown[0] == shown[1] == shown[2]


def test_the_work_is_the_same_for_unknown_disabled_and_passwordless_users(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each wrong sign-in verifies one Argon2 hash of the same parameters: there is no short way out."""
    door.user("ann", "viewer")
    door.user("gone", "viewer")
    door.user("program", "viewer", password=None)
    with door.context.db.begin() as session:
        users.disable(session, users.by_name(session, "gone"))
    verified: list[str] = []
    real = passwords._hasher()

    class Counting:
        def verify(self, kept: str, given: str) -> bool:
            verified.append(kept.rsplit("$", 2)[0])
            return real.verify(kept, given)

        hash = staticmethod(real.hash)
        check_needs_rehash = staticmethod(real.check_needs_rehash)

    monkeypatch.setattr(passwords, "_hasher", Counting)
    for name in ("ann", "nobody", "gone", "program", "Not A Name!"):
        with pytest.raises(signin.SignInRefused) as caught:
            signin.check(door.context, name, "x" * 2000 if name == "ann" else PASSWORD + ".", address="10.1.1.1")
        assert str(caught.value) == "the name or the password is wrong"
    assert len(verified) == 5 and len(set(verified)) == 1


def test_a_lock_is_forgiven_by_an_administrator_and_survives_a_restart(door: Door) -> None:
    door.user("ann", "viewer")
    for number in range(5):
        door.browser(address=f"10.3.0.{number}").sign_in("ann", "wrong")
    browser = Door(door.operations).browser(address="10.4.0.1")  # as after a restart
    assert browser.sign_in("ann").status_code == 429
    assert door.program().patch("/api/v1/users/ann", json={"disabled": False}).status_code == 200
    assert browser.sign_in("ann").status_code == 303 and browser.who() == "ann"


def test_an_address_with_an_account_cannot_try_others_for_ever(door: Door) -> None:
    """Right sign-ins give back only themselves."""
    door.user("mallory", "viewer")
    limit = door.context.settings.users.failures_per_address

    def attempt(name: str, password: str, address: str = "10.9.9.9") -> str:
        try:
            signin.check(door.context, name, password, address=address)
        except Refusal as error:
            return error.code
        return "in"

    for number in range(limit):
        assert attempt(f"victim{number}", "guess") == "SIGN_IN"
        assert attempt("mallory", PASSWORD) == ("in" if number < limit - 1 else "TOO_MANY_ATTEMPTS")
    assert attempt("victim", "guess") == "TOO_MANY_ATTEMPTS"
    assert attempt("mallory", PASSWORD, "10.9.9.10") == "in"


# --- Routes and commands ----------------------------------------------------------------------------------------------


def test_users_over_the_api(door: Door) -> None:
    program = door.program()
    made = program.post("/api/v1/users", json={"user": "Ann", "role": "administrator", "password": PASSWORD})
    assert made.status_code == 201
    assert made.json() | {"created_at": "", "password_at": ""} == {
        "user": "ann", "role": "administrator", "kind": "local", "password": True, "disabled": False,
        "created_at": "", "created_by": "cli", "password_at": "", "signed_in_at": None,
    }  # fmt: skip
    assert program.post("/api/v1/users", json={"user": "ann", "role": "viewer"}).status_code == 409
    assert program.post("/api/v1/users", json={"user": "a b", "role": "viewer"}).status_code == 422
    short = program.post("/api/v1/users", json={"user": "ben", "role": "viewer", "password": "hunter2"})
    assert short.status_code == 422 and "hunter2" not in short.text
    assert program.post("/api/v1/users", json={"user": "ris", "role": "operator"}).json()["password"] is False
    assert [one["user"] for one in program.get("/api/v1/users").json()["items"]] == ["ann", "ris"]
    assert program.patch("/api/v1/users/ris", json={"role": "archivist"}).json()["role"] == "archivist"
    assert program.patch("/api/v1/users/ris", json={"disabled": True}).json()["disabled"] is True
    assert program.put("/api/v1/users/ris/password", json={"password": "long enough now"}).json()["password"] is True
    assert program.delete("/api/v1/users/ann").json()["code"] == "LAST_ADMINISTRATOR"
    assert program.delete("/api/v1/users/ris").status_code == 200
    assert program.get("/api/v1/users/ris").status_code == 404
    assert "hash" not in program.get("/api/v1/users/ann").text and "argon" not in program.get("/api/v1/users").text


def test_nobody_signs_in_by_an_empty_or_missing_password(door: Door) -> None:
    door.user("ris", "administrator", password=None)
    for password in ("", "None", "null", "\x00"):
        assert door.browser().sign_in("ris", password).status_code in (401, 429)


def test_the_command_line_is_the_way_in_for_whoever_runs_the_service(
    data: Path, empty_database: Path, cheap: None
) -> None:
    data.mkdir(mode=0o700)
    shutil.copyfile(empty_database, data / "burnish.db")
    run = CliRunner()
    at = ["--data", str(data)]
    added = run.invoke(
        app, ["users", "add", "ann", "--role", "administrator", "--password-stdin", *at], input=PASSWORD + "\n"
    )
    assert added.exit_code == 0, added.output
    burnish("users", "add", "ris", "--role", "operator", "--no-password", *at)
    document = burnish("tokens", "add", "orders", "--user", "ris", "--scope", "jobs.make", "--days", "9", "--json", *at)
    assert document["secret"].startswith("burnish_") and document["scopes"] == ["jobs.make"]
    listed = burnish("tokens", "list", *at)
    assert "orders" in listed and document["secret"] not in listed
    assert burnish("tokens", "revoke", "T1", "--json", *at)["state"] == "REVOKED"
    assert "last administrator" in burnish("users", "remove", "ann", *at, status=1)
    assert "no role" in burnish("users", "role", "ris", "boss", *at, status=2)
    assert "too short" in run.invoke(app, ["users", "passwd", "ann", "--password-stdin", *at], input="x\n").stderr
    assert burnish("users", "disable", "ris", "--json", *at)["disabled"] is True
    assert burnish("users", "remove", "ris", "--json", *at)["user"] == "ris"
    assert [one["user"] for one in burnish("users", "list", "--json", *at)] == ["ann"]


# --- The first start --------------------------------------------------------------------------------------------------


def test_the_first_administrator_takes_the_one_time_code(door: Door) -> None:
    setup = signin.Setup.where_needed(door.context.db, door.context.settings.data)
    assert setup is not None
    path = door.context.settings.data / "setup-code"
    assert path.read_text().strip() == setup.code and stat.S_IMODE(path.stat().st_mode) == 0o600
    fresh = Door(door.operations, setup=setup)
    anybody = fresh.program("")
    body = {"code": setup.code.lower().replace("-", " "), "user": "ann", "password": PASSWORD}
    assert anybody.post("/api/v1/setup", json=body | {"code": "AAAA-AAAA-AAAA"}).json()["code"] == "SETUP_CODE"
    assert anybody.post("/api/v1/setup", json=body | {"password": "short"}).status_code == 422
    assert fresh.browser().get("/login").headers["location"] == "/setup"
    assert anybody.post("/api/v1/setup", json=body).json()["role"] == "administrator"
    assert not path.exists()
    assert anybody.post("/api/v1/setup", json=body | {"user": "eve"}).json()["code"] == "SET_UP"
    assert fresh.browser().get("/setup").headers["location"] == "/"
    assert signin.Setup.where_needed(door.context.db, door.context.settings.data) is None


def test_the_code_cannot_be_guessed_for_long(door: Door) -> None:
    setup = signin.Setup(door.context.settings.data)
    fresh = Door(door.operations, setup=setup)
    body = {"code": "BBBB-BBBB-BBBB", "user": "ann", "password": PASSWORD}
    answers = [fresh.program("", address=f"10.5.0.{number}").post("/api/v1/setup", json=body) for number in range(12)]
    assert [one.status_code for one in answers] == [401] * 10 + [429] * 2
    right = fresh.program("").post("/api/v1/setup", json=body | {"code": setup.code})
    assert right.status_code == 429 and int(right.headers["retry-after"]) <= 60


def test_a_user_of_the_command_line_closes_the_set_up(door: Door) -> None:
    setup = signin.Setup(door.context.settings.data)
    fresh = Door(door.operations, setup=setup)
    fresh.program(LOCAL).post("/api/v1/users", json={"user": "ann", "role": "viewer"})
    body = {"code": setup.code, "user": "eve", "password": PASSWORD}
    assert fresh.program("").post("/api/v1/setup", json=body).status_code == 409
    browser = fresh.browser()
    assert browser.get("/setup").status_code == 303 and browser.post("/setup", body).status_code in (409, 422)
    with door.context.db.read() as session:
        assert [user.name for user in users.listed(session)] == ["ann"]


def test_a_flood_of_attempts_fills_neither_log_nor_audit_trail(door: Door) -> None:
    door.user("ann", "viewer")
    for _ in range(20):
        with pytest.raises(Refusal):
            signin.check(door.context, "ann", "wrong", address="10.8.0.1")
    told = door.program().get("/api/v1/audit?event=authentication").json()["items"]
    assert len(told) == door.context.settings.users.failures_per_user
