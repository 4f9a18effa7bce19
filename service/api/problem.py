"""An error as a document: problem+json (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse


class Problem(JSONResponse):
    """An error as RFC 9457 has it."""

    media_type = "application/problem+json"

    def __init__(self, status: int, detail: str, code: str | None = None, title: str = "", **members: Any) -> None:
        super().__init__(problem(status, detail, code, title) | members, status_code=status)


def problem(status: int, detail: str, code: str | None = None, title: str = "") -> dict[str, Any]:
    """The document of an error."""
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": title or HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if code:
        document["code"] = code
    return document
