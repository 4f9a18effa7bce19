"""HTTPS of our own: the server, and the command line that knows it by its certificate."""

from __future__ import annotations

import http.client
import logging
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from config.settings import load
from service import connections
from service.client import ServiceOperations
from service.errors import NotDone, TryLater
from service.http import HttpServer, Seldom, fingerprint, local_url, tls_context
from service.lock import Running
from tests.authority import Authority

SEEN: list[bytes] = []


async def app(scope: Any, _receive: Any, send: Any) -> None:
    SEEN.extend(value for name, value in scope["headers"] if name == b"authorization")
    body = b'{"items": [], "next": null, "scheme": "%s"}' % scope["scheme"].encode()
    headers = [(b"content-length", str(len(body)).encode()), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def running(data: Path) -> Iterator[Running]:
    SEEN.clear()
    authority = Authority(data)
    authority.issue("us")
    settings = load(data=data, overrides={"http": {"port": 0, "certificate": "us.pem", "key": "us.key"}})
    server = HttpServer("127.0.0.1", 0)
    server.start(app, tls_context(settings))
    yield Running(local_url("127.0.0.1", server.port, "https"), 1, "secret-token", fingerprint(settings))
    server.stop()


def test_the_command_line_speaks_tls_with_the_service_it_knows(running: Running) -> None:
    operations = ServiceOperations(running)
    assert operations.ask("GET", "/x", None)["scheme"] == "https"
    assert operations.burners() == [] and b"Bearer secret-token" in SEEN
    operations.close()


def test_the_token_is_not_sent_to_anybody_else(running: Running) -> None:
    operations = ServiceOperations(replace(running, fingerprint="0" * 64))
    with pytest.raises(NotDone, match="not the certificate of the service"):
        operations.burners()
    assert SEEN == []


def test_there_is_nothing_without_tls(running: Running) -> None:
    port = int(running.url.rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        connection.request("GET", "/healthz")
        connection.getresponse()
    connection.close()
    with pytest.raises(TryLater):
        ServiceOperations(replace(running, url=running.url.replace("https", "http"))).burners()
    assert SEEN == []


def test_old_versions_of_tls_are_refused(running: Running) -> None:
    port = int(running.url.rpartition(":")[2])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), 60) as plain, context.wrap_socket(plain) as sock:
        assert sock.version() in ("TLSv1.2", "TLSv1.3")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with (
        socket.create_connection(("127.0.0.1", port), 60) as plain,
        pytest.raises((ssl.SSLError, ConnectionError)),
        context.wrap_socket(plain),
    ):
        pass


def test_who_says_nothing_makes_room_and_is_left_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MAX_CONNECTIONS", 3), ("REQUEST_SECONDS", 600.0), ("_LOOK_SECONDS", 0.1)):
        monkeypatch.setattr(connections, name, value)
    server = HttpServer("127.0.0.1", 0)
    server.start(app)
    try:
        silent = [socket.create_connection(("127.0.0.1", server.port), 60) for _ in range(30)]
        for one in silent[:27]:
            with suppress(ConnectionError):
                assert one.recv(1) == b""
        silent = silent[27:]
        silent[1].sendall(b"GET / HTTP/1.1\r\nHost: ")  # a request that never ends is none either
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("GET", "/")
        assert connection.getresponse().read()
        monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.3)
        for one in silent:
            with suppress(ConnectionError):
                assert one.recv(1) == b""
            one.close()
        connection.close()
    finally:
        server.stop()


def test_what_is_no_http_is_a_problem() -> None:
    server = HttpServer("127.0.0.1", 0)
    server.start(app)
    try:
        with socket.create_connection(("127.0.0.1", server.port), 60) as sock:
            sock.sendall(b"\x16\x03\x01\r\n\r\n")
            answer = b"".join(iter(lambda: sock.recv(4096), b""))
    finally:
        server.stop()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in answer


def test_what_asyncio_tells_without_end_is_told_once() -> None:
    error = OSError(24, "Too many open files")
    words = ["socket.accept() out of system resource\nsocket: <...>"] * 1000 + ["anything else"]
    records = [logging.LogRecord("asyncio", logging.ERROR, "", 0, one, (), (OSError, error, None)) for one in words]
    seldom = Seldom()
    told = [one for one in records if seldom.filter(one)]
    assert [one.getMessage() for one in told] == ["too many open files: no connection can be accepted", "anything else"]
    assert told[0].exc_info is None and told[1].exc_info is not None
