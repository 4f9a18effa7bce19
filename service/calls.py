"""Calls of the API by commands: over HTTP where a service runs, else of the same application in this process.

So a command and the API cannot differ in what they do: there is one way to have it done.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlencode, urlsplit

from service.client import ServiceOperations, refusal
from service.contract import Document, OnProgress
from service.errors import NotDone

if TYPE_CHECKING:
    from service.operations import StoreOperations

    Message = dict[str, Any]

_PREFIX = "/api/v1"
_NDJSON = "application/x-ndjson"


class Call(Protocol):
    """Asks the API; errors come as ``service.errors.Refusal``."""

    def __call__(self, method: str, path: str, body: Mapping[str, Any] | None = None, **query: Any) -> Any:
        """The JSON document that ``METHOD /api/v1PATH`` answers; what is None or empty of ``query`` is left out."""

    def told(self, name: str, path: str, body: Mapping[str, Any], progress: OnProgress) -> Document:
        """The document ``name`` of long work (POST), its progress told on the way."""


class RunningCall:
    """Asks a running service."""

    def __init__(self, service: ServiceOperations) -> None:
        self._service = service

    def __call__(self, method: str, path: str, body: Mapping[str, Any] | None = None, **query: Any) -> Any:
        return self._service.ask(method, with_query(path, query), None if body is None else dict(body))

    def told(self, name: str, path: str, body: Mapping[str, Any], progress: OnProgress) -> Document:
        return self._service.told(name, path, dict(body), progress)


class LocalCall:
    """Asks the application itself, on a store that this process has opened."""

    def __init__(self, operations: StoreOperations) -> None:
        from service.api.application import build
        from service.shutdown import Stopping

        self._token = secrets.token_urlsafe(16)
        self._app = build(operations, token=self._token, hosts=(), stopping=Stopping())

    def __call__(self, method: str, path: str, body: Mapping[str, Any] | None = None, **query: Any) -> Any:
        content = bytearray()
        status = asyncio.run(self._ask(method, with_query(path, query), body, "application/json", content.extend))
        return _document(status, bytes(content))

    def told(self, name: str, path: str, body: Mapping[str, Any], progress: OnProgress) -> Document:
        lines = _Lines(progress)
        status = asyncio.run(self._ask("POST", path, body, _NDJSON, lines.feed))
        if status >= 400:
            _document(status, lines.rest)
        if "problem" in lines.last:
            raise refusal(int(lines.last["problem"]["status"]), lines.last["problem"])
        if name not in lines.last:
            raise NotDone(f"{name} ended without a result")
        return dict(lines.last[name])

    async def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None, accept: str, take: Callable[[bytes], Any]
    ) -> int:
        parts = urlsplit(_PREFIX + path)
        content = b"" if body is None else json.dumps(body).encode()
        headers = {
            "host": "127.0.0.1",
            "authorization": f"Bearer {self._token}",
            "accept": accept,
            "content-type": "application/json",
            "content-length": str(len(content)),
        }
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": parts.path,
            "raw_path": parts.path.encode(),
            "query_string": parts.query.encode(),
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 0),
            "server": ("127.0.0.1", 0),
        }
        sent = False
        status = 500

        async def receive() -> Message:
            nonlocal sent
            if sent:
                await asyncio.Event().wait()  # nobody hangs up
            sent = True
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message.get("body"):
                take(message["body"])

        await self._app(scope, receive, send)
        return status


class _Lines:
    """Lines of an answer that comes bit by bit; progress is passed on, the last other line kept."""

    def __init__(self, progress: OnProgress) -> None:
        self.rest = b""
        self.last: Document = {}
        self._progress = progress

    def feed(self, chunk: bytes) -> None:
        *lines, self.rest = (self.rest + chunk).split(b"\n")
        for line in lines:
            document = json.loads(line) if line.strip() else {}
            if "progress" in document:
                self._progress(document["progress"])
            elif document:
                self.last = document


def with_query(path: str, query: Mapping[str, Any]) -> str:
    """A path with those of the parameters that say something."""
    given = urlencode({key: value for key, value in query.items() if value not in (None, "", [], ())}, doseq=True)
    return f"{path}?{given}" if given else path


def _document(status: int, content: bytes) -> Any:
    try:
        document = json.loads(content) if content else {}
    except ValueError:
        document = {"detail": f"HTTP status {status}"}
    if status >= 400:
        raise refusal(status, document if isinstance(document, dict) else {})
    return document
