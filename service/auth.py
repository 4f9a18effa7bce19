"""The door of the HTTP API: Host header, token, size of a request; before any route is looked at.

The token is new at each start and readable only by the user that runs the service, so the CLI proves by reading it that
it may act. A Host header that is not ours is refused, so that no web page reaches a service on loopback by DNS
rebinding.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from service.api.access import Actor
from service.lock import write_private

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

PUBLIC_PATHS = frozenset({"/healthz", "/readyz", "/api/v1/openapi.json"})
UPLOAD_PATHS = frozenset({"/api/v1/instances"})
MAX_BODY = 1 << 20
"""Bytes of a request body, uploads of instances excepted."""


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


class _TooLarge(Exception):
    pass


class Guard:
    """ASGI middleware that answers by itself whatever may not come in."""

    def __init__(self, app: ASGIApp, *, token: str, hosts: Iterable[str]) -> None:
        self.app = app
        self._token = token.encode()
        self._hosts = {"127.0.0.1", "localhost", "::1", *(host_name(host) for host in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # no websocket is ours; say nothing to it
            return
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name == b"host" and name in headers:
                await _problem(send, 400, "Bad Request", "more than one Host header")
                return
            headers[name] = value
        if host_name(headers.get(b"host", b"").decode("latin-1")) not in self._hosts:
            await _problem(
                send, 421, "Misdirected Request", "this Host is not ours; see the setting http.allowed_hosts"
            )
            return
        path = scope["path"]
        if self._knows(headers.get(b"authorization", b"")):
            scope.setdefault("state", {})["actor"] = Actor("cli", "administrator", "local")
        elif path not in PUBLIC_PATHS:
            await _problem(send, 401, "Unauthorized", "a valid token is needed: Authorization: Bearer ...")
            return
        if path in UPLOAD_PATHS:
            await self.app(scope, receive, send)
            return
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > MAX_BODY:
            await _problem(send, 413, "Content Too Large", f"a request body may have {MAX_BODY} bytes")
            return
        await self._bounded(scope, receive, send)

    def _knows(self, authorization: bytes) -> bool:
        scheme, _, token = authorization.partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token)

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, but no more of its body than allowed, whatever its headers say."""
        total, answered = 0, False

        async def counted() -> Message:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            if total > MAX_BODY:
                raise _TooLarge
            return message

        async def noted(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self.app(scope, counted, noted)
        except _TooLarge:
            if not answered:
                await _problem(send, 413, "Content Too Large", f"a request body may have {MAX_BODY} bytes")


async def _problem(send: Send, status: int, title: str, detail: str) -> None:
    body = json.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail}).encode()
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
