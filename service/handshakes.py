"""TLS handshakes of the HTTP server: bounded in number and time.

A connection counts among those of ``service.connections`` only once TLS is agreed upon. Without a bound of their own,
whoever opens connections and never says a word of TLS would use up the files that this process may have open.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from typing import Any

from service.connections import Connection

MAX_HANDSHAKES = 100
HANDSHAKE_SECONDS = 15.0
"""Within which TLS must be agreed upon, from when the connection began."""
_SHUTDOWN_SECONDS = 5.0
"""How long an end of TLS is waited for that the other side does not confirm."""


class Handshakes:
    """Makes the protocols of new connections, as uvicorn asks for them, and knows which still agree upon TLS."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self._open: dict[Handshake, None] = {}  # in order of their beginning

    def __call__(self, **given: Any) -> Handshake:
        return Handshake(self, Connection(**given))

    def begun(self, one: Handshake) -> None:
        """One more; of too many one leaves."""
        self._open[one] = None
        if len(self._open) > MAX_HANDSHAKES:
            self._whose_turn().abort()

    def ended(self, one: Handshake) -> None:
        self._open.pop(one, None)

    def abort(self) -> None:
        """The server stops."""
        for one in list(self._open):
            one.abort()

    def _whose_turn(self) -> Handshake:
        """Of the address that has the most, the one that began first: so nobody pushes out others but themselves."""
        count = Counter(one.address for one in self._open)
        most = max(count.values())
        return next(one for one in self._open if count[one.address] == most)


class Handshake(asyncio.Protocol):
    """A connection until TLS is agreed upon; what comes with the last message of the handshake is kept."""

    def __init__(self, among: Handshakes, connection: Connection) -> None:
        self.address = ""
        self._among = among
        self._connection = connection
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._early: list[bytes] = []
        self._lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.pause_reading()  # until TLS reads
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, tuple) and peer else ""
        self._among.begun(self)
        if not self._lost:
            self._task = asyncio.get_running_loop().create_task(self._agree(transport))

    async def _agree(self, transport: asyncio.Transport) -> None:
        try:
            if self._lost or transport.is_closing():
                return
            secured = await asyncio.get_running_loop().start_tls(
                transport,
                self,
                self._among.context,
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=_SHUTDOWN_SECONDS,
            )
        except OSError:  # no TLS, none that we speak, too late, or gone
            transport.abort()
            return
        finally:
            self._among.ended(self)
        if self._lost or secured is None:
            transport.abort()
            return
        secured.set_protocol(self._connection)
        self._connection.connection_made(secured)
        if self._early:
            self._connection.data_received(b"".join(self._early))

    def data_received(self, data: bytes) -> None:
        self._early.append(data)

    def eof_received(self) -> bool | None:
        return None  # it is closed

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._among.ended(self)

    def abort(self) -> None:
        """Leave at once."""
        self._lost = True
        self._among.ended(self)
        if self._transport is not None:
            self._transport.abort()
