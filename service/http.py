"""The HTTP server: uvicorn in a thread, on a socket that is bound before anything is promised."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import socket
import ssl
import threading
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import uvicorn

from service.connections import Connection
from service.errors import NotDone
from service.handshakes import Handshakes

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from config.settings import Settings

_STOP_SECONDS = 10
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


def local_url(host: str, port: int, scheme: str = "http") -> str:
    """The address at which a program on this machine reaches the server."""
    host = _ANY.get(host, host)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def wrong_settings(settings: Settings) -> list[str]:
    """Why the server may not listen as the settings say, one line each."""
    http = settings.http
    if http.certificate:
        from scp.tls import TlsError

        try:
            tls_context(settings)
        except TlsError as error:
            return [f"http.certificate, http.key: {str(error).replace('tls.', 'http.')}"]
        return []
    if is_loopback(http.host):
        return []
    if not http.behind_proxy:
        where = http.host or "every address"
        remedy = "set http.certificate and http.key, or http.behind_proxy where a proxy with TLS stands before us"
        return [f"http.host: {where} is reached from elsewhere, and there is no TLS; {remedy}"]
    if not http.trusted_proxies:
        return ["http.trusted_proxies: with http.behind_proxy the proxy's address is needed"]
    return []


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """For HTTPS; None where the settings name no certificate. Raises scp.tls.TlsError."""
    http = settings.http
    if not http.certificate:
        return None
    from scp.tls import TlsFiles, server_context

    files = TlsFiles(settings.in_data(http.certificate), settings.in_data(http.key), "")
    context = server_context(files, client_certificates="none")
    context.set_alpn_protocols(["http/1.1"])
    return context


def fingerprint(settings: Settings) -> str:
    """SHA-256 of our certificate, by which the command line knows us; "" without TLS."""
    if not settings.http.certificate:
        return ""
    with open(settings.in_data(settings.http.certificate)) as file:
        text = file.read()
    end = "-----END CERTIFICATE-----"
    first = text[text.index("-----BEGIN CERTIFICATE-----") : text.index(end) + len(end)]
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(first)).hexdigest()


class Seldom(logging.Filter):
    """Of connections that cannot be accepted for want of file descriptors asyncio tells a thousand times a second, each
    time with a traceback: once a minute says as much.
    """

    _APART = 60.0

    def __init__(self) -> None:
        super().__init__()
        self._at: float | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.getMessage().startswith("socket.accept() out of system resource"):
            return True
        at = time.monotonic()
        if self._at is not None and at - self._at < self._APART:
            return False
        self._at = at
        record.msg, record.args, record.exc_info = "too many open files: no connection can be accepted", (), None
        return True


_SELDOM = Seldom()


class HttpServer:
    """Binds when made (``port`` 0 takes any free one), serves from ``start`` to ``stop``."""

    def __init__(self, host: str, port: int) -> None:
        try:
            family = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
            # The protocol must be named: asyncio sets TCP_NODELAY only then, and answers would wait 40 ms for an ACK.
            self._socket = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((host, port))
            self._socket.listen(128)
        except OSError as error:
            raise NotDone(f"http.host {host}, http.port {port}: {error.strerror or error}", "HTTP_PORT") from error
        self.port: int = self._socket.getsockname()[1]
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def start(self, app: ASGIApp, tls: ssl.SSLContext | None = None) -> None:
        """Serve ``app``, over HTTPS where there is a context for it; returns when requests are answered."""
        logging.getLogger("asyncio").addFilter(_SELDOM)
        handshakes = Handshakes(tls) if tls is not None else None
        config = uvicorn.Config(
            app,
            http=handshakes or Connection,  # type: ignore[arg-type]
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            proxy_headers=False,  # whom to believe is the guard's to say
            timeout_keep_alive=30,
            timeout_graceful_shutdown=_STOP_SECONDS // 2,
        )
        self._server = _Server(config, handshakes)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="http", daemon=True)
        self._thread.start()
        if not self._server.ready.wait(30) or not self._server.started:
            raise NotDone("the HTTP server did not start", "HTTP_START")

    def stop(self) -> None:
        """Finish what is being answered, for a bounded time."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(_STOP_SECONDS)
        self._socket.close()


class _Server(uvicorn.Server):
    """Tells when it is up; leaves signals to whoever started it."""

    def __init__(self, config: uvicorn.Config, handshakes: Handshakes | None) -> None:
        super().__init__(config)
        self.ready = threading.Event()
        self._handshakes = handshakes

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._handshakes is not None:
            self._handshakes.abort()
        await super().shutdown(sockets)
