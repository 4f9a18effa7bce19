"""Questions that an acceptor process asks the server's process, where jobs and settings are, over the pipe to it.

Each is one line of JSON up, and one down. Whoever answers may have done his work although the answer never arrives
(a process dies): what is asked must be safe to ask again.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable
from typing import Any

Answerer = Callable[[str, dict[str, Any]], dict[str, Any]]
"""Takes what is asked (``media_creation.initiate`` ...) and its arguments, gives the answer; both as JSON allows."""

_PATIENCE = 60.0


class NoAnswer(Exception):
    """The server's process could not answer, or not in time."""


class Questions:
    """The asking side; ``ask`` from any thread, ``answered`` from the one that reads what comes down."""

    def __init__(self, say: Callable[..., None], *, patience: float = _PATIENCE) -> None:
        """``say`` sends a report up; ``patience`` in seconds."""
        self._say = say
        self._patience = patience
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._waiting: dict[int, tuple[threading.Event, list[dict[str, Any]]]] = {}

    def ask(self, what: str, **arguments: Any) -> dict[str, Any]:
        """The answer. Raises NoAnswer."""
        number = next(self._numbers)
        event, box = threading.Event(), list[dict[str, Any]]()
        with self._lock:
            self._waiting[number] = (event, box)
        try:
            self._say(event="ask", number=number, what=what, arguments=arguments)
            if not event.wait(self._patience):
                raise NoAnswer(f"no answer to {what} within {self._patience:g} s")
        finally:
            with self._lock:
                self._waiting.pop(number, None)
        answer = box[0]
        if "failed" in answer:
            raise NoAnswer(str(answer["failed"]))
        return dict(answer["answer"])

    def answered(self, line: str) -> None:
        """A line has come down."""
        document = json.loads(line)
        with self._lock:
            waiting = self._waiting.get(document["number"])
        if waiting is not None:
            waiting[1].append(document)
            waiting[0].set()


def answer_line(answerer: Answerer | None, report: dict[str, Any]) -> tuple[bytes, Exception | None]:
    """The line that answers a question, and what went wrong in answering it."""
    failure: Exception | None = None
    document: dict[str, Any] = {"number": report["number"]}
    try:
        if answerer is None:
            raise LookupError("nobody answers questions here")
        document["answer"] = answerer(report["what"], report["arguments"])
    except Exception as error:  # noqa: BLE001 - the asker is told, whatever it is
        failure = error
        document["failed"] = f"{type(error).__name__}: {error}"[:500]
    return json.dumps(document).encode() + b"\n", failure
