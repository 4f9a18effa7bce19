"""Parts of DICOMweb's URLs."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Request

from service.operations import StoreOperations

PREFIX = "/dicomweb"
_UID = r"^[0-9]+(\.[0-9]+)*$"
Uid = Annotated[str, Path(pattern=_UID, max_length=64, description="UID")]
Frame = Annotated[int, Path(ge=1, lt=1 << 31, description="Number of a frame, from 1")]


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
