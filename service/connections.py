"""Connections of the HTTP server: bounded in number and patience, so that nobody takes all of them by saying nothing.

Without that, whoever reaches the port could, without a token, use up the files that this process may have open; then no
study could be stored either.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 400
REQUEST_SECONDS = 60.0
"""Within which the head of a request must be there, from when the connection began or the answer before ended."""
BODY_SECONDS = 300.0
"""A body of which nothing more comes for so long, while it is waited for, is given up."""
ANSWER_SECONDS = 300.0
"""An answer of which nothing more is taken for so long is given up."""
_LOOK_SECONDS = 5.0


class Connection(H11Protocol):
    """One connection."""

    _watch: asyncio.TimerHandle | None = None
    _free_since = 0.0
    """When a request began to be waited for."""
    _heard = 0.0
    """When the last bytes came."""
    _stuck_since = 0.0
    """When the other side ceased to take what we send, while it does not."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._free_since = self._heard = self.loop.time()
        if len(self.connections) > MAX_CONNECTIONS:
            # Whoever asks nothing makes room; where all of them do, nobody more is let in.
            idle = [one for one in self.connections if isinstance(one, Connection) and one is not self and one.is_idle]
            leaves = min(idle, key=lambda one: one._free_since) if idle else self
            self.connections.discard(leaves)  # it is told later; of many that come at once each finds another
            leaves.transport.abort()
        self._watch = self.loop.call_later(_LOOK_SECONDS, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._heard = self.loop.time()
        super().data_received(data)

    def on_response_complete(self) -> None:
        self._free_since = self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        self._stuck_since = self.loop.time()
        super().pause_writing()

    @property
    def is_idle(self) -> bool:
        """Whether it has no request that is worked on."""
        return self.cycle is None or bool(self.cycle.response_complete)

    def _look(self) -> None:
        at = self.loop.time()
        if self.flow.write_paused:
            late = at - self._stuck_since > ANSWER_SECONDS
        elif self.is_idle:
            late = at - self._free_since > REQUEST_SECONDS
        else:
            waits = self.conn.their_state is h11.SEND_BODY and not self.flow.read_paused
            late = waits and at - self._heard > BODY_SECONDS
        if late:
            self.transport.abort()
        else:
            self._watch = self.loop.call_later(_LOOK_SECONDS, self._look)

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is told like every error."""
        document: dict[str, Any] = {"type": "about:blank", "title": "Bad Request", "status": 400, "detail": msg}
        body = json.dumps(document).encode()
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
