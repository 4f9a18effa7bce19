"""Parts of DICOMweb's URLs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request

from service.api import answers
from service.operations import StoreOperations

PREFIX = "/dicomweb"
Uid = answers.Uid
Frame = Annotated[int, Path(ge=1, lt=1 << 31, description="Number of a frame, from 1")]


class WebRoute(answers.Route):
    """A route of DICOMweb: what is wrong with a request is a 400 (PS3.18 Table 8.5-1)."""

    everywhere = tuple(400 if status == 422 else status for status in answers.EVERYWHERE)


def router() -> APIRouter:
    """What a file of its routes begins with."""
    return APIRouter(route_class=WebRoute)


def root(request: Request) -> str:
    """Where DICOMweb is, as the client sees it.

    Some clients leave the port out of Host; where no proxy stands between, it is ours.
    """
    base = request.base_url
    server = request.scope.get("server")
    operations: StoreOperations = request.app.state.operations
    if base.port is None and server and not operations.context.settings.http.behind_proxy:
        default = 443 if base.scheme == "https" else 80
        if server[1] not in (None, default):
            base = base.replace(port=server[1])
    return str(base).rstrip("/") + PREFIX


def instance_url(base: str, study: str, series: str, instance: str) -> str:
    return f"{base}/studies/{study}/series/{series}/instances/{instance}"
