"""Static files out of the package: nothing is fetched from elsewhere when the page runs."""

from __future__ import annotations

from importlib import resources

from starlette.requests import Request
from starlette.responses import Response

from service.api.access import for_everybody
from service.web.routes import router

routes = router()
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
_FILES = {
    f"{folder}{name.name}": name
    for folder, where in (("", "static"), ("vendor/", "static/vendor"))
    for name in resources.files("service.web").joinpath(where).iterdir()
    if name.name[name.name.rfind(".") :] in _TYPES
}
"""What is there, by the name in the address: no other path is ever looked at."""


@routes.get("/static/{name:path}", dependencies=[for_everybody])
def static(request: Request, name: str) -> Response:
    found = _FILES.get(name)
    if found is None:
        return Response(status_code=404)
    lasting = "public, max-age=31536000, immutable" if "v" in request.query_params else "no-cache"
    headers = {"Cache-Control": lasting, "X-Content-Type-Options": "nosniff"}
    return Response(found.read_bytes(), media_type=_TYPES[name[name.rfind(".") :]], headers=headers)
