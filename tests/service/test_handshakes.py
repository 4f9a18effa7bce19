"""TLS handshakes that are never finished: bounded, and nobody else's trouble."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from config.settings import load
from service import handshakes
from service.handshakes import Handshake, Handshakes
from service.http import HttpServer, tls_context
from tests.authority import Authority
from tests.service.test_https import app


@pytest.fixture
def port(data: Any) -> Iterator[int]:
    authority = Authority(data)
    authority.issue("us")
    settings = load(data=data, overrides={"http": {"port": 0, "certificate": "us.pem", "key": "us.key"}})
    server = HttpServer("127.0.0.1", 0)
    server.start(app, tls_context(settings))
    yield server.port
    server.stop()


def answered(port: int) -> int:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)
    try:
        for _ in range(2):  # the second on the same connection
            connection.request("GET", "/")
            answer = connection.getresponse()
            answer.read()
        return answer.status
    finally:
        connection.close()


def is_left(one: socket.socket) -> bool:
    with suppress(ConnectionError):
        return one.recv(1) == b""
    return True


def test_who_never_agrees_upon_tls_makes_room(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshakes, "MAX_HANDSHAKES", 3)
    silent = [socket.create_connection(("127.0.0.1", port), 30) for _ in range(20)]
    assert all(is_left(one) for one in silent[:17])
    assert answered(port) == 200
    for one in silent:
        one.close()


def test_who_never_agrees_upon_tls_is_left_in_the_end(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshakes, "HANDSHAKE_SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", port), 30) as silent:
        assert is_left(silent)
    monkeypatch.setattr(handshakes, "HANDSHAKE_SECONDS", 600.0)  # else it may be left before it has said anything
    with socket.create_connection(("127.0.0.1", port), 30) as babbling:
        babbling.sendall(b"GET / HTTP/1.1\r\n\r\n")
        while not is_left(babbling):  # what TLS says of that comes first
            pass


def test_many_of_one_address_push_out_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshakes, "MAX_HANDSHAKES", 3)
    left: list[str] = []

    class Told(Handshake):
        def __init__(self, among: Handshakes, name: str) -> None:
            self.address, self.name, self._among = name[0], name, among

        def abort(self) -> None:
            left.append(self.name)
            self._among.ended(self)

    among = Handshakes(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    for name in ("a1", "b1", "b2", "b3", "b4", "a2"):
        among.begun(Told(among, name))
    assert left == ["b1", "b2", "a1"]
