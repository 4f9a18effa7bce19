"""The application behind its guard, with users, for tests of who gets in and who does what."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from argon2 import PasswordHasher
from fastapi import FastAPI
from starlette.testclient import TestClient

from jobs.context import Context
from service import passwords
from service.api.access import Needs, Public
from service.api.application import build
from service.auth import Guard
from service.operations import StoreOperations
from service.shutdown import Stopping
from service.signin import Setup
from store import sessions, users

PASSWORD = "correct horse battery"
LOCAL = "local-token"


_shared: dict[str, FastAPI] = {}


@dataclass
class Door:
    """A store with users, and browsers and programs that come to it."""

    operations: StoreOperations
    setup: Setup | None = None
    hosts: tuple[str, ...] = ()
    own_routes: bool = False
    """Whether the test changes the application's routes; others share them, which take long to prepare."""
    app: Guard = field(init=False)

    def __post_init__(self) -> None:
        self.app = build(self.operations, token=LOCAL, hosts=self.hosts, stopping=Stopping(), setup=self.setup)
        if not self.own_routes:
            made = self.app.app
            assert isinstance(made, FastAPI)
            shared = _shared.setdefault("app", made)
            shared.state = made.state
            self.app.app = shared

    @property
    def context(self) -> Context:
        return self.operations.context

    @property
    def application(self) -> FastAPI:
        app = self.app.app
        assert isinstance(app, FastAPI)
        return app

    def user(self, name: str, role: str, *, password: str | None = PASSWORD) -> str:
        with self.context.db.begin() as session:
            hash_ = passwords.hashed(password) if password else None
            users.add(session, name, role, by="test", password=hash_)
        return name

    def token(self, name: str, *scopes: str, lasts: timedelta = timedelta(days=1)) -> str:
        with self.context.db.begin() as session:
            user = users.by_name(session, name)
            _, secret = sessions.make_token(session, user, name="t", scopes=list(scopes), lasts=lasts, by="test")
        return secret

    def browser(self, *, scheme: str = "http", host: str = "127.0.0.1", address: str = "10.0.0.7") -> Browser:
        return Browser(self.app, scheme=scheme, host=host, address=address)

    def program(self, token: str = LOCAL, *, address: str = "10.0.0.8") -> TestClient:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return TestClient(
            self.app,
            base_url="http://127.0.0.1",
            headers=headers,
            raise_server_exceptions=False,
            follow_redirects=False,
            client=(address, 40000),
        )


class Browser:
    """A browser with its cookies, at one address; it says from where each request begins."""

    def __init__(self, app: Guard, *, scheme: str, host: str, address: str) -> None:
        self.origin = f"{scheme}://{host}"
        self.client = TestClient(
            app,
            base_url=self.origin,
            headers={"Accept": "text/html,application/xhtml+xml"},
            follow_redirects=False,
            raise_server_exceptions=False,
            client=(address, 50000),
        )
        self.csrf = ""

    def get(self, path: str, **headers: str) -> Any:
        answer = self.client.get(path, headers={"Sec-Fetch-Site": "same-origin", **_names(headers)})
        if found := re.search(r'name="csrf" value="([0-9a-f]{64})"', answer.text):
            self.csrf = found[1]
        return answer

    def post(self, path: str, data: dict[str, Any] | None = None, **headers: str) -> Any:
        """A form of the page that was shown last."""
        given = {"Sec-Fetch-Site": "same-origin", "Origin": self.origin, **_names(headers)}
        return self.client.post(path, data={"csrf": self.csrf} | (data or {}), headers=given)

    def sign_in(self, name: str, password: str = PASSWORD, *, then: str = "/") -> Any:
        self.get("/login")
        answer = self.post("/login", {"user": name, "password": password, "next": then})
        if answer.status_code == 303:
            self.get("/account")
        return answer

    def who(self) -> str:
        """The user that this browser is signed in as; "" for none."""
        answer = self.client.get("/api/v1/me", headers={"Accept": "application/json"})
        return str(answer.json()["user"]) if answer.status_code == 200 else ""

    @property
    def cookies(self) -> dict[str, str]:
        return {cookie.name: cookie.value or "" for cookie in self.client.cookies.jar}


def cheap_hasher() -> PasswordHasher:
    """Argon2id with the least parameters: for tests, not for passwords."""
    return PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@dataclass(frozen=True)
class Way:
    """A route of the application, by one of its methods."""

    method: str
    path: str
    rights: tuple[str, ...]
    public: bool

    @property
    def filled(self) -> str:
        """The path with something for each parameter."""
        return re.sub(r"\{[^}]+\}", "1", self.path)


def ways(app: FastAPI) -> Iterator[Way]:
    """Every route that there is, however it got there."""
    for route in _routes(app):
        dependant = getattr(route, "dependant", None)
        calls = list(_calls(dependant)) if dependant is not None else []
        rights = tuple(call.right for call in calls if isinstance(call, Needs))
        public = any(isinstance(call, Public) for call in calls)
        for method in sorted(set(route.methods or ()) - {"HEAD", "OPTIONS"}):
            yield Way(method, route.path, rights, public)


def _routes(app: FastAPI) -> Iterator[Any]:
    try:
        from fastapi.routing import iter_route_contexts
    except ImportError:  # FastAPI before 0.130 or so: included routes are copied
        yield from app.routes
    else:
        yield from iter_route_contexts(app.routes)


def _calls(dependant: Any) -> Iterator[Any]:
    for inner in dependant.dependencies:
        yield inner.call
        yield from _calls(inner)


def _names(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
