"""If-Match: a change is made only to what somebody has seen (RFC 9110 13.1.1), so that nobody undoes unseen what
another has decided meanwhile.

The ETag of a resource that people change has two parts, ``"VERSION-CONTENT"``. VERSION stands for what people decide
about it, CONTENT for the whole document, in which more changes by itself: what waits, the next firing, who is signed
in. If-None-Match goes by both, If-Match by VERSION alone: an instance that came meanwhile makes no change a lost one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from fastapi import Header, Request
from fastapi.responses import JSONResponse

from service.errors import Refusal

Document = dict[str, Any]
IfMatch = Annotated[
    str | None,
    Header(alias="If-Match", max_length=4096, description="Only if it still is as the answer with this ETag had it"),
]
_OURS = re.compile(r'"([0-9a-f]{16})-[0-9a-f]{32}"')


class ChangedMeanwhile(Refusal):
    """It is not any more as whoever would change it has seen it; ``now`` is how it is, with its ETag."""

    http_status = 412

    def __init__(self, now: Versioned) -> None:
        super().__init__("it was changed meanwhile: look at what it is now (current), and decide anew", "CHANGED")
        self.now = now


class NoVersion(Refusal):
    """If-Match where there is nothing to compare it with."""

    http_status = 412

    def __init__(self) -> None:
        super().__init__("what this changes has no ETag to compare If-Match with: leave it out", "NO_ETAG")


class Versioned(JSONResponse):
    """The document of something that people change, with its ETag."""

    def __init__(self, document: Document, version: str, status_code: int = 200) -> None:
        super().__init__(document, status_code)
        self.document = document
        self.headers["ETag"] = f'"{version}-{content_digest(bytes(self.body))}"'


def content_digest(body: bytes) -> str:
    """Stands for the bytes of an answer."""
    return hashlib.sha256(body).hexdigest()[:32]


def version_of(row: Any, columns: Sequence[str]) -> str:
    """Stands for the values of these columns of a row."""
    values = {column: getattr(row, column) for column in columns}
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]


def require_match(given: str | None, version: str, now: Callable[[], Document]) -> None:
    """Raise ChangedMeanwhile where If-Match (None: it was not sent) names another version.

    To be called in the transaction of the change, when nobody else can change it any more. ``now`` makes the document
    of the resource as it is.
    """
    if given is None or given.strip() == "*":
        return
    if version not in _OURS.findall(_strong(given)):
        raise ChangedMeanwhile(Versioned(now(), version))


def _strong(given: str) -> str:
    """Without weak ETags: what equals only nearly is no leave to change (RFC 9110 8.8.3.2)."""
    return re.sub(r'W/"[^"]*"', "", given)


def require_none(request: Request) -> None:
    """For routes that cannot honour If-Match: a condition that nobody looks at would seem to hold. Raises NoVersion."""
    if request.headers.get("if-match", "*").strip() != "*":
        raise NoVersion


def problem_members(error: Refusal) -> Mapping[str, Any]:
    """What the problem of a changed resource tells besides: ``current``, its document."""
    return {"current": error.now.document} if isinstance(error, ChangedMeanwhile) else {}
