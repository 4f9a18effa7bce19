"""Pages of other origins that may use DICOMweb and the API: web viewers such as OHIF (the Fetch standard's CORS).

Off unless the settings name their origins. They come with a token of their own: cookies of ours are neither sent nor
believed, so what they may is what their token may. The page itself stays closed to them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from starlette.middleware.cors import CORSMiddleware

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_PATHS = ("/dicomweb/", "/api/")
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_ASKED = ("Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "Last-Event-ID", "Range")
_TOLD = ("Content-Disposition", "Content-Location", "Content-Range", "ETag", "Repr-Digest", "Retry-After", "Warning")
_KEPT_SECONDS = 600


def shared(app: ASGIApp, origins: Collection[str]) -> ASGIApp:
    """The application as pages of these origins may use it; itself where there are none."""
    if not origins:
        return app
    cors = CORSMiddleware(
        app,
        allow_origins=tuple(origins),
        allow_methods=_METHODS,
        allow_headers=_ASKED,
        expose_headers=_TOLD,
        allow_credentials=False,
        max_age=_KEPT_SECONDS,
    )

    async def by_path(scope: Scope, receive: Receive, send: Send) -> None:
        open_ = scope["type"] == "http" and scope["path"].startswith(_PATHS)
        await (cors if open_ else app)(scope, receive, send)

    return by_path
