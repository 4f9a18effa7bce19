"""The door of the HTTP API and the page: Host header, who asks, forged requests, size of a request; before any route.

The command line's token is new at each start and readable only by the user that runs the service, so it proves by
reading it that it may act. A Host header that is not ours is refused, so that no web page reaches a service on loopback
by DNS rebinding.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Callable, Iterable
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import anyio.to_thread

from service import acting
from service.api.access import Actor
from service.bodiless import as_get
from service.lock import write_private
from service.refusing import forged, hardened_send, not_signed_in, problem, split

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from service.identity import Identity

PUBLIC_PATHS = frozenset(
    {
        "/healthz",
        "/readyz",
        "/api/v1/openapi.json",
        "/api/v1/setup",
        "/login",
        "/setup",
        "/oidc/login",
        "/oidc/callback",
    }
)
PUBLIC_FOLDER = "/static/"
UPLOAD_PATHS = re.compile(r"/api/v1/instances|/dicomweb/studies(/[0-9.]{1,64})?")
MAX_BODY = 1 << 20
"""Bytes of a request body, uploads of instances excepted."""
MAX_BODIES = {"/api/v1/catalogue/import": (64 << 20, "catalogue.import")}
"""Of those that may have more, from whom has the right; still read into memory as a whole."""

SESSION_COOKIE = "burnish_session"
SECURE_PREFIX = "__Host-"
"""Over TLS: a browser takes such a cookie from this very host only, over TLS only (RFC 6265bis 4.1.3.2)."""

_SAFE = frozenset({"GET", "OPTIONS"})
_FORM = b"application/x-www-form-urlencoded"


def new_token(data: Path) -> str:
    """Make this start's token and write it to ``DATA/cli.token`` (0600)."""
    token = secrets.token_urlsafe(32)
    write_private(data / "cli.token", token + "\n")
    return token


def host_name(header: str) -> str:
    """The name or address in a Host header, without port, in lower case."""
    text = header.strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0]


def cookie_name(name: str, scheme: str) -> str:
    """How a cookie of ours is called over http or https."""
    return SECURE_PREFIX + name if scheme == "https" else name


class _TooLarge(Exception):
    pass


class Guard:
    """ASGI middleware that answers by itself whatever may not come in, and says of the rest who asks."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: str,
        hosts: Iterable[str],
        identity: Identity | None = None,
        proxies: Iterable[str] = (),
    ) -> None:
        """``identity`` knows sessions and API tokens; None: there is the command line's token only."""
        self.app = app
        self._token = token.encode()
        self._hosts = {"127.0.0.1", "localhost", "::1", *(host_name(host) for host in hosts)}
        self._identity = identity
        self._proxies = [ip_network(text, strict=False) for text in proxies]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # no websocket is ours; say nothing to it
            return
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in (b"host", b"authorization", b"origin") and name in headers:
                await problem(send, 400, "Bad Request", f"more than one {name.decode().title()} header")
                return
            headers[name] = value if name != b"cookie" else headers.get(name, b"") + b"; " + value
        scope = self._from_proxy(scope, headers)
        send = hardened_send(send, secure=scope["scheme"] == "https")
        if scope["method"] == "HEAD":
            scope, send = as_get(scope, send)
        if host_name(headers.get(b"host", b"").decode("latin-1")) not in self._hosts:
            await problem(send, 421, "Misdirected Request", "this Host is not ours; see the setting http.allowed_hosts")
            return
        actor, secret = await self._who(scope, headers)
        path: str = scope["path"]
        if actor is None and not (path in PUBLIC_PATHS or path.startswith(PUBLIC_FOLDER)):
            await not_signed_in(scope, headers, send)
            return
        bearer = b"authorization" in headers
        if scope["method"] not in _SAFE and not bearer and (why := self._foreign(scope, headers)):
            await forged(send, headers, why, "FOREIGN_ORIGIN")
            return
        again = self._again(actor, secret, headers)
        scope["state"] = {**scope.get("state", {}), "actor": actor, "session": secret, "again": again}
        if actor is not None:
            acting.begin(actor.name, actor.address)
        if UPLOAD_PATHS.fullmatch(path):
            if actor is not None and actor.csrf and not _has_csrf(actor, headers):
                await forged(send, headers, _NO_CSRF, "CSRF")
                return
            await self.app(scope, receive, send)
            return
        declared, most = headers.get(b"content-length", b"0"), _most(path, actor)
        if not declared.isdigit() or int(declared) > most:
            await problem(send, 413, "Content Too Large", f"a request body may have {most} bytes")
            return
        checked = actor if actor is not None and actor.csrf and scope["method"] not in _SAFE else None
        await self._bounded(scope, receive, send, headers, checked, most)

    def _from_proxy(self, scope: Scope, headers: dict[bytes, bytes]) -> Scope:
        """The request as it came to a proxy of ours; of anybody else nothing is believed."""
        client = scope.get("client")
        scope = {**scope, "scheme": scope.get("scheme", "http")}
        if not (client and self._is_proxy(client[0])):
            return scope
        # The last address that no proxy of ours has is whoever spoke to the outermost of them.
        for text in reversed(headers.get(b"x-forwarded-for", b"").decode("latin-1").split(",")):
            address = text.strip()
            try:
                ip_address(address)
            except ValueError:
                break
            scope["client"] = (address, 0)
            if not self._is_proxy(address):
                break
        scheme = headers.get(b"x-forwarded-proto", b"").decode("latin-1").rpartition(",")[2].strip().lower()
        if scheme in ("http", "https"):
            scope["scheme"] = scheme
        return scope

    def _is_proxy(self, address: str) -> bool:
        try:
            found = ip_address(address)
        except ValueError:
            return False
        return any(found in network for network in self._proxies)

    async def _who(self, scope: Scope, headers: dict[bytes, bytes]) -> tuple[Actor | None, str]:
        """Who asks, and the secret of the session if there is one. A wrong token is not made up for by a cookie."""
        address = scope["client"][0] if scope.get("client") else ""
        if (given := headers.get(b"authorization")) is not None:
            scheme, _, token = given.partition(b" ")
            token = token.strip()
            if scheme.lower() != b"bearer" or not token:
                return None, ""
            if hmac.compare_digest(token, self._token):
                return Actor("cli", "administrator", "local", address=address), ""
            if self._identity is None or not token.isascii():
                return None, ""
            return await anyio.to_thread.run_sync(self._identity.by_token, token.decode(), address), ""
        secret = _cookie(headers, cookie_name(SESSION_COOKIE, scope["scheme"]))
        if not secret or self._identity is None:
            return None, ""
        identity, in_use = self._identity, b"burnish-background" not in headers
        actor = await anyio.to_thread.run_sync(lambda: identity.by_session(secret, address, in_use=in_use))
        return actor, secret if actor else ""

    def _again(
        self, actor: Actor | None, secret: str, headers: dict[bytes, bytes]
    ) -> Callable[[], Actor | None] | None:
        """Who asks, looked up anew, for what goes on for long; None: that does not change."""
        identity = self._identity
        if actor is None or actor.how == "local" or identity is None:
            return None
        if actor.how == "session":
            return lambda: identity.by_session(secret, actor.address, in_use=False)
        token = headers[b"authorization"].partition(b" ")[2].strip().decode()
        return lambda: identity.by_token(token, actor.address)

    def _foreign(self, scope: Scope, headers: dict[bytes, bytes]) -> str:
        """Why a request that changes something did not begin at a page of ours, as far as the browser tells."""
        site = headers.get(b"sec-fetch-site")
        if site not in (None, b"same-origin"):
            return "the browser says that another site began this request"
        origin = headers.get(b"origin")
        if origin is None or (origin == b"null" and site is not None):  # a browser may keep it back, not the former
            return ""
        ours = headers.get(b"host", b"").decode("latin-1").lower()
        parts = split(origin)
        if parts.netloc.lower() == ours and parts.scheme in ("http", "https"):
            return ""
        return "another site began this request (Origin)"

    async def _bounded(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: dict[bytes, bytes],
        actor: Actor | None,
        most: int,
    ) -> None:
        """Pass the request on, but no more than ``most`` bytes of its body, whatever its headers say.

        ``actor``: whose CSRF token must be in a header, or in the form that the body is.
        """
        total, answered = 0, False
        kept: list[Message] = []

        async def counted() -> Message:
            nonlocal total
            if kept:
                return kept.pop(0)
            message = await receive()
            total += len(message.get("body", b""))
            if total > most:
                raise _TooLarge
            return message

        async def noted(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            if actor is not None and not _has_csrf(actor, headers):
                is_form = headers.get(b"content-type", b"").partition(b";")[0].strip().lower() == _FORM
                if not is_form or not await _form_has_csrf(actor, counted, kept):
                    await forged(send, headers, _NO_CSRF, "CSRF")
                    return
            await self.app(scope, counted, noted)
        except _TooLarge:
            if not answered:
                await problem(send, 413, "Content Too Large", f"a request body may have {most} bytes")


_NO_CSRF = "the session's CSRF token is missing or wrong (header X-CSRF-Token, field csrf): load the page anew"


def _most(path: str, actor: Actor | None) -> int:
    """How many bytes a request's body may have."""
    size, right = MAX_BODIES.get(path, (MAX_BODY, ""))
    return size if right and actor is not None and actor.may(right) else MAX_BODY


def _has_csrf(actor: Actor, headers: dict[bytes, bytes]) -> bool:
    return hmac.compare_digest(headers.get(b"x-csrf-token", b""), actor.csrf.encode())


async def _form_has_csrf(actor: Actor, receive: Receive, kept: list[Message]) -> bool:
    """Read the form, and put its messages where the application will read them again."""
    read: list[Message] = []
    more = True
    while more:
        message = await receive()
        read.append(message)
        more = message["type"] == "http.request" and message.get("more_body", False)
    kept.extend(read)
    body = b"".join(message.get("body", b"") for message in read)
    try:
        given = parse_qs(body.decode("ascii"), max_num_fields=1000).get("csrf", [])
    except ValueError:
        return False
    return len(given) == 1 and hmac.compare_digest(given[0].encode(), actor.csrf.encode())


def _cookie(headers: dict[bytes, bytes], name: str) -> str:
    """A cookie's value; "" where there is none, or several that differ: one of them was planted."""
    wanted, found = name.encode(), set()
    for part in headers.get(b"cookie", b"").split(b";"):
        key, _, value = part.strip().partition(b"=")
        if key == wanted:
            found.add(value.strip())
    value = found.pop() if len(found) == 1 else b""
    return value.decode() if value.isascii() else ""
