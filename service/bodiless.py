"""HEAD: what GET would answer, without its body (RFC 9110 9.3.2); a stream is not even begun."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from starlette.responses import FileResponse, Response, StreamingResponse

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Message, Receive, Scope, Send

_MARK = "burnish.head"


def as_get(scope: Scope, send: Send) -> tuple[Scope, Send]:
    """A HEAD as the GET that routes are found for; no byte of a body gets out, whoever answers."""

    async def emptied(message: Message) -> None:
        if message["type"] == "http.response.body" and message.get("body"):
            message = {**message, "body": b""}
        await send(message)

    return {**scope, "method": "GET", _MARK: True}, emptied


def wants_body(request: Request) -> bool:
    """False for a HEAD: nothing of what was asked for goes out."""
    return not request.scope.get(_MARK)


class HeldStream(StreamingResponse):
    """A stream that reads from what is held open for it; that is closed at its end, or where nobody wants a body."""

    def __init__(
        self,
        pieces: Iterator[Any],
        held: ExitStack,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
    ) -> None:
        super().__init__(_closing(pieces, held), status_code, headers, media_type)
        self.held = held


def _closing(pieces: Iterator[Any], held: ExitStack) -> Iterator[Any]:
    with held:
        yield from pieces


def as_asked(request: Request, response: Response) -> Response:
    """The answer of a route to a GET; to a HEAD, its status and headers only."""
    return response if wants_body(request) else _Head(response)


class _Head(Response):
    """The head of another answer."""

    def __init__(self, of: Response) -> None:
        super().__init__(status_code=of.status_code)
        self.raw_headers = of.raw_headers
        self._of = of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if isinstance(self._of, FileResponse):  # which looks at the file for what it tells of it
            await self._of({**scope, "method": "HEAD"}, receive, send)
            return
        if isinstance(self._of, HeldStream):
            self._of.held.close()
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": b""})
