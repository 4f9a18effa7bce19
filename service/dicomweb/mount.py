"""DICOMweb as part of the application."""

from __future__ import annotations

from fastapi import FastAPI

from service.dicomweb import frames, qido, stow, wado
from service.dicomweb.urls import PREFIX
from service.rendering import Renderer


def include(app: FastAPI) -> None:
    """Add its routes."""
    if not hasattr(app.state, "renderer"):
        app.state.renderer = Renderer()
    for part in (stow, qido, wado, frames):
        app.include_router(part.router, prefix=PREFIX, tags=["DICOMweb"])
