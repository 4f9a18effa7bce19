"""Long work whose progress is told line by line (NDJSON), and which ends when nobody listens any more."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import Any

from fastapi import Request
from fastapi.responses import StreamingResponse

from service.api import answers
from service.api.problem import problem
from service.contract import Document, OnProgress
from service.errors import as_refusal
from service.logs import logger

NDJSON = "application/x-ndjson"
_HEARTBEAT_SECONDS = 5.0

Work = Callable[[OnProgress, Callable[[], bool]], Document]
"""Takes whom to tell its progress, and what says that it shall end; returns its document."""


def told(model: Any, status: int = 200, *errors: int) -> dict[str, Any]:
    """What a route's decorator is given whose work can be told line by line (``answers.returns``)."""
    described = answers.returns(model, status, *errors)
    described["responses"][status]["content"] = {NDJSON: {"schema": {"type": "string"}}}
    return described


def answer(request: Request, name: str, work: Work) -> Document | StreamingResponse:
    """The document of ``work``; with ``Accept: application/x-ndjson`` lines of ``{"progress"}`` and at last
    ``{name: document}`` or ``{"problem"}``.
    """
    stopping = request.app.state.stopping
    if NDJSON not in request.headers.get("accept", ""):
        return work(lambda _progress: None, stopping)
    begun = copy_context()  # the work goes on in a thread of its own, for the same user
    lines = (json.dumps(line).encode() + b"\n" for line in _told(name, lambda *ways: begun.run(work, *ways), stopping))
    return StreamingResponse(lines, media_type=NDJSON)


def _told(name: str, work: Work, stopping: Callable[[], bool]) -> Iterator[Document]:
    lines: queue.SimpleQueue[Document] = queue.SimpleQueue()
    left = threading.Event()

    def run() -> None:
        try:
            document = work(lambda progress: lines.put({"progress": progress}), lambda: left.is_set() or stopping())
            lines.put({name: document})
        except Exception as error:  # noqa: BLE001 - it is told to the client, whatever it is
            lines.put({"problem": _problem(name, error)})

    threading.Thread(target=run, name=name, daemon=True).start()
    try:
        while True:
            try:
                line = lines.get(timeout=_HEARTBEAT_SECONDS)
            except queue.Empty:
                line = {}  # an empty line: finds out whether somebody still listens
            yield line
            if name in line or "problem" in line:
                return
    finally:
        left.set()


def _problem(name: str, error: Exception) -> dict[str, Any]:
    refusal = as_refusal(error)
    if refusal is not None:
        return problem(refusal.http_status, str(refusal), refusal.code)
    logger("service.api").error(f"{name} failed", error=type(error).__name__, exc_info=error)
    return problem(500, f"unexpected {type(error).__name__}; the service's log has more", "UNEXPECTED")
