"""Sign-in by an OpenID provider: whom it brings in as what, and every way in which it is not believed."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey
from sqlalchemy import func, select, update

from config.settings import load
from service import checks, opening
from service.operations import StoreOperations
from store import sessions
from store.models_base import now
from store.models_users import OidcLogin, User
from tests.service.door import PASSWORD, Browser, Door
from tests.service.provider import SECRET, Provider

ROLES = {"disc-admins": "administrator", "radiology": "operator"}


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.close()


@pytest.fixture
def oidc(data: Path, provider: Provider, empty_database: Path, cheap: None) -> Iterator[Callable[..., Door]]:
    """The application, with a provider; settings of the section may be given."""
    contexts = []

    def start(**section: Any) -> Door:
        values = {"issuer": provider.url, "client_secret": SECRET, "roles": ROLES} | section
        settings = load(data=data, overrides={"oidc": values})
        assert checks.wrong_settings(settings) == []
        data.mkdir(mode=0o700)
        shutil.copyfile(empty_database, data / "burnish.db")
        contexts.append(opening.open_context(settings))
        door = Door(StoreOperations(contexts[-1], source="cli"))
        door.user("local", "administrator")
        return door

    yield start
    for context in contexts:
        opening.close_context(context)


def come_back(browser: Browser, provider: Provider, then: str = "/") -> Any:
    """By the button of the sign-in page, to the provider, and back as another site sends a browser."""
    sent = browser.client.get(f"/oidc/login?next={then}")
    assert sent.status_code == 303, sent.text
    back = provider.visit(sent.headers["location"])
    return browser.client.get(back.removeprefix(browser.origin), headers={"Sec-Fetch-Site": "cross-site"})


def roles_of(door: Door) -> dict[str, str]:
    with door.context.db.read() as session:
        return {user.name: user.role for user in session.scalars(select(User)) if user.name != "local"}


def test_the_provider_says_who_and_as_what(oidc: Callable[..., Door], provider: Provider) -> None:
    door = oidc()
    provider.claims["groups"] = ["staff", "radiology"]
    browser = door.browser()
    assert "Single sign-on" in browser.get("/login").text
    sent = browser.client.get("/oidc/login?next=/studies")
    (cookie,) = sent.headers.get_list("set-cookie")
    assert {"HttpOnly", "Max-Age=600", "SameSite=lax"} < set(cookie.split("; "))
    answer = come_back(browser, provider, "/studies")
    assert answer.status_code == 200 and 'content="0; url=/studies"' in answer.text
    assert browser.who() == "ann" and roles_of(door) == {"ann": "operator"}
    shown = door.program().get("/api/v1/users/ann").json()
    assert (shown["kind"], shown["password"], shown["sessions"][0]["how"]) == ("oidc", False, "oidc")

    # The role is the provider's to say, each time anew; the highest counts.
    provider.claims["groups"] = ["radiology", "disc-admins"]
    other = door.browser()
    come_back(other, provider)
    assert roles_of(door) == {"ann": "administrator"} and browser.who() == "", "the change ends the old session"
    provider.claims["groups"] = "radiology"
    provider.claims["preferred_username"] = "ann-with-a-new-name"
    come_back(other, provider)
    assert roles_of(door) == {"ann": "operator"}, "who it is, the subject says"
    told = [one["message"] for one in door.program().get("/api/v1/audit?event=alert").json()["items"]]
    assert len([one for one in told if "110136" in one and "ann" in one]) == 3, "each change of rights is told"


def test_roles_may_lie_deep_or_be_the_same_for_all(oidc: Callable[..., Door], provider: Provider) -> None:
    door = oidc(role_claim="realm_access.roles", name_claim="email", default_role="viewer", client_secret=SECRET)
    provider.claims |= {"realm_access": {"roles": ["radiology"]}, "email": "Ann@Site.example"}
    come_back(door.browser(), provider)
    provider.claims |= {"realm_access": ["nonsense"], "sub": "s-2", "email": "ben@site.example"}
    come_back(door.browser(), provider)
    assert roles_of(door) == {"ann@site.example": "operator", "ben@site.example": "viewer"}


def test_what_the_token_lacks_the_user_info_has(oidc: Callable[..., Door], provider: Provider) -> None:
    door = oidc()
    provider.claims = {"sub": "s-1"}
    provider.user_info = {"sub": "s-1", "preferred_username": "ann", "groups": ["radiology"]}
    come_back(door.browser(), provider)
    assert roles_of(door) == {"ann": "operator"}
    provider.user_info["sub"] = "somebody-else"
    assert come_back(door.browser(), provider).status_code == 502


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({"groups": []}, 401),
        ({"groups": ["elsewhere"]}, 401),
        ({"groups": [["radiology"], {"radiology": 1}, 7]}, 401),
        ({"preferred_username": None}, 401),
        ({"preferred_username": "Jane Doe <b>"}, 401),
        ({"preferred_username": ["ann"]}, 401),
        ({"preferred_username": "local"}, 409),
        ({"preferred_username": "cli"}, 422),
    ],
)
def test_whom_it_is_not_for(oidc: Callable[..., Door], provider: Provider, claims: dict[str, Any], status: int) -> None:
    door = oidc()
    provider.claims |= {"groups": ["disc-admins"]} | claims
    browser = door.browser()
    answer = come_back(browser, provider)
    assert answer.status_code == status and "<b>" not in answer.text
    assert browser.who() == "" and roles_of(door) == {}
    found = door.program().get("/api/v1/audit?event=authentication").json()["items"]
    assert [str(one["outcome"]) == "0" for one in found] == [False]


def test_a_local_user_of_that_name_is_not_taken_over(oidc: Callable[..., Door], provider: Provider) -> None:
    door = oidc()
    provider.claims |= {"preferred_username": "local", "groups": ["disc-admins"]}
    assert come_back(door.browser(), provider).status_code == 409
    assert door.browser().sign_in("local").status_code == 303


def test_a_disabled_user_stays_out_and_has_no_password_here(oidc: Callable[..., Door], provider: Provider) -> None:
    door = oidc()
    provider.claims["groups"] = ["radiology"]
    browser = door.browser()
    come_back(browser, provider)
    program = door.program()
    assert program.put("/api/v1/users/ann/password", json={"password": PASSWORD}).json()["code"] == "OIDC_USER"
    assert door.browser().sign_in("ann", "").status_code == 401
    program.patch("/api/v1/users/ann", json={"disabled": True})
    assert browser.who() == "" and come_back(browser, provider).status_code == 401


def _at(**changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda claims: {key: value for key, value in (claims | changes).items() if value is not None}


LIES: dict[str, Any] = {
    "another nonce": {"change_token": _at(nonce="replayed")},
    "no nonce": {"change_token": _at(nonce=None)},
    "another issuer": {"change_token": _at(iss="https://elsewhere.example")},
    "for another client": {"change_token": _at(aud="other")},
    "for several, and another asked": {"change_token": _at(aud=["burnish", "other"], azp="other")},
    "expired": {"change_token": _at(exp=int(time.time()) - 3600)},
    "no end": {"change_token": _at(exp=None)},
    "no subject": {"change_token": _at(sub=None)},
    "not signed": {"header": {"alg": "none"}},
    "signed with our own secret": {"header": {"alg": "HS256"}},
    "signed with another key": {"sign_with": ECKey.generate_key("P-256", {"kid": "k1"})},
    "of another access token": {"change_token": _at(at_hash="AAAAAAAAAAAAAAAAAAAAAA")},
}


def test_tokens_that_are_not_believed(oidc: Callable[..., Door], provider: Provider) -> None:
    door = oidc()
    provider.claims["groups"] = ["disc-admins"]
    right = {name: getattr(provider, name) for name in ("change_token", "header", "sign_with")}
    for lie, changes in LIES.items():
        for name, value in (right | changes).items():
            setattr(provider, name, value)
        browser = door.browser()
        answer = come_back(browser, provider)
        assert answer.status_code == 502 and browser.who() == "", lie
    for name, value in right.items():
        setattr(provider, name, value)
    assert roles_of(door) == {} and come_back(door.browser(), provider).status_code == 200


def test_a_way_back_counts_once_in_the_browser_that_began_it(oidc: Callable[..., Door], provider: Provider) -> None:
    door = oidc()
    provider.claims["groups"] = ["radiology"]
    victim, attacker = door.browser(), door.browser()
    # Login CSRF: the attacker's own way back, opened in the victim's browser.
    back = provider.visit(attacker.client.get("/oidc/login").headers["location"]).removeprefix(attacker.origin)
    victim.client.get("/oidc/login")
    assert victim.client.get(back).status_code == 409 and victim.who() == ""
    assert attacker.client.get(back).status_code == 200 and attacker.who() == "ann"
    assert attacker.client.get(back).status_code == 409, "the state is used up"
    for query in ("", "?state=x&code=y", "?error=access_denied&state=x", "?state=%00&code=%ff"):
        assert door.browser().client.get(f"/oidc/callback{query}").status_code in (401, 409)
    # Too late.
    late = door.browser()
    back = provider.visit(late.client.get("/oidc/login").headers["location"]).removeprefix(late.origin)
    with door.context.db.begin() as session:
        session.execute(update(OidcLogin).values(created_at=now() - timedelta(minutes=11)))
    assert late.client.get(back).status_code == 409
    late.client.get("/oidc/login")
    with door.context.db.read() as session:
        assert session.scalar(select(func.count()).select_from(OidcLogin)) == 1, "those who did not come back are gone"


def test_who_is_sent_off_often_bars_the_way_for_nobody(oidc: Callable[..., Door], provider: Provider) -> None:
    with oidc().context.db.begin() as session:
        for number in range(5):
            sessions.send_off(session, state=f"s{number}", browser="b", nonce="n", verifier="v", then="/")
            session.flush()
        sessions.forget_sent_off(session, within=timedelta(minutes=1), most=3)
        for number, known in enumerate((False, False, True, True, True)):
            found = session.scalar(select(OidcLogin.state).where(OidcLogin.state == sessions.digest(f"s{number}")))
            assert (found is not None) is known


def test_a_provider_that_cannot_be_asked(oidc: Callable[..., Door], provider: Provider) -> None:
    door = oidc()
    provider.issuer = "https://elsewhere.example"
    answer = door.browser().get("/oidc/login")
    assert answer.status_code == 502 and "calls itself otherwise" in answer.text
    provider.issuer = ""
    assert door.browser().get("/oidc/login").status_code == 303
    assert door.browser().get("/oidc/login?next=//evil.example").status_code == 303
    assert provider.asked.count("/.well-known/openid-configuration") == 2, "kept for an hour"


def test_without_a_provider_there_is_none(door: Door) -> None:
    door.user("ann", "viewer")
    assert "/oidc" not in door.browser().get("/login").text
    assert door.browser().get("/oidc/login").status_code == 404


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"issuer": "http://sso.example"}, "must have an https address"),
        ({"issuer": "file:///etc/passwd"}, "must have an https address"),
        ({"roles": {"a": "boss"}}, "'boss' is no role"),
        ({"roles": {}}, "nobody could sign in"),
        ({"default_role": "root"}, "oidc.default_role"),
        ({"scopes": ["profile"]}, "openid is not among them"),
        ({"client_id": ""}, "oidc.client_id"),
        ({"ca": "nowhere.pem"}, "there is no file"),
    ],
)
def test_settings_that_cannot_be(data: Path, section: dict[str, Any], says: str) -> None:
    settings = load(data=data, overrides={"oidc": {"issuer": "https://sso.example", "roles": ROLES} | section})
    (found,) = checks.wrong_settings(settings)
    assert says in found


def test_the_secret_is_not_shown(data: Path) -> None:
    from service.doctor import flat

    settings = load(data=data, overrides={"oidc": {"client_secret": "very secret"}})
    assert "very secret" not in str(flat(settings))
