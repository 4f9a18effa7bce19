from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from service.api.access import Actor
from service.auth import MAX_BODIES, MAX_BODY, Guard, _most, host_name, new_token

TOKEN = "sesame"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body and answers with its length."""
    length, more = 0, True
    while more:
        message = await receive()
        length += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(length).encode()})


def ask(
    path: str = "/api/v1/studies",
    *,
    host: str = "127.0.0.1:11180",
    token: str | None = TOKEN,
    chunks: tuple[bytes, ...] = (b"",),
    headers: tuple[tuple[bytes, bytes], ...] = (),
    hosts: tuple[str, ...] = (),
) -> tuple[int, dict[bytes, bytes], bytes]:
    sent: list[Any] = []
    given = [(b"host", host.encode())] if host else []
    if token is not None:
        given.append((b"authorization", f"Bearer {token}".encode()))
    messages = [
        {"type": "http.request", "body": chunk, "more_body": number < len(chunks)}
        for number, chunk in enumerate(chunks, 1)
    ]

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "path": path, "method": "POST", "headers": [*given, *headers]}
    asyncio.run(Guard(app, token=TOKEN, hosts=hosts)(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


def test_the_token_opens() -> None:
    assert ask()[0] == 200


@pytest.mark.parametrize("token", [None, "", "sesam", "sesame2", "SESAME", "s\u00e9same"])
def test_without_the_right_token_nothing_is_answered(token: str | None) -> None:
    status, headers, body = ask(token=token)
    assert status == 401
    assert headers[b"www-authenticate"] == b"Bearer"
    assert headers[b"content-type"] == b"application/problem+json"
    assert json.loads(body)["status"] == 401


@pytest.mark.parametrize("path", ["/api/v1/studies", "/docs", "/healthz/", "/api/v1/healthz", "//healthz"])
def test_what_is_not_for_everybody_needs_the_token(path: str) -> None:
    assert ask(path, token=None)[0] == 401
    assert ask("/healthz", token=None)[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:11180", "127.0.0.1.evil.example", "", "[::2]:1", "localhost.evil.example"]
)
def test_a_foreign_host_is_refused_even_with_the_token(host: str) -> None:
    assert ask(host=host)[0] == 421
    assert ask("/healthz", host=host)[0] == 421


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:1", "LOCALHOST", "[::1]:11180", "disc.hospital:8080"])
def test_our_own_hosts_are_answered(host: str) -> None:
    assert ask(host=host, hosts=("Disc.Hospital:443",))[0] == 200


def test_two_host_headers_are_refused() -> None:
    assert ask(headers=((b"host", b"localhost"),))[0] == 400


def test_a_body_is_bounded_by_what_is_declared_and_by_what_comes() -> None:
    assert ask(headers=((b"content-length", str(MAX_BODY + 1).encode()),))[0] == 413
    assert ask(headers=((b"content-length", b"-5"),))[0] == 413
    chunk = bytes(MAX_BODY // 2)
    assert ask(chunks=(chunk, chunk))[2] == str(MAX_BODY).encode()
    assert ask(chunks=(chunk, chunk, b"x"))[0] == 413


def test_uploads_of_instances_are_not_bounded() -> None:
    chunk = bytes(MAX_BODY)
    assert ask("/api/v1/instances", chunks=(chunk, chunk, chunk))[2] == str(3 * MAX_BODY).encode()


def test_an_import_of_the_catalogue_is_long_but_not_endless() -> None:
    path = "/api/v1/catalogue/import"
    (most, right), chunk = MAX_BODIES[path], bytes(16 * MAX_BODY)
    assert ask(path, chunks=(chunk, chunk))[2] == str(len(chunk) * 2).encode()
    assert ask(path, headers=((b"content-length", str(most + 1).encode()),))[0] == 413
    assert ask(path, chunks=[chunk] * 5)[0] == 413
    sizes = [_most(path, Actor(role, role, "token")) for role in ("operator", "archivist")]
    assert (sizes, right) == ([MAX_BODY, most], "catalogue.import")


def test_host_name() -> None:
    assert [host_name(h) for h in ("A:80", "[::1]:80", "[::1]", "a")] == ["a", "::1", "::1", "a"]


def test_a_token_is_new_each_time_and_private(tmp_path: Path) -> None:
    first, second = new_token(tmp_path), new_token(tmp_path)
    assert first != second and len(second) > 30
    path = tmp_path / "cli.token"
    assert path.read_text() == second + "\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["cli.token"]
