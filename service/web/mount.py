"""The page as part of the application: its routes, and what they share while the service runs."""

from __future__ import annotations

from fastapi import FastAPI

from service.operations import StoreOperations
from service.rendering import Renderer
from service.web import account, archive, board, live, make, nodes, pools, schedules, static_files, studies, system
from service.web.supplies import BurnerWatch


def include(app: FastAPI, operations: StoreOperations | None) -> None:
    """Add the page to an application whose ``state.operations`` are these."""
    if operations is not None:
        app.state.renderer = Renderer()
        app.state.burner_watch = BurnerWatch(operations.burners)
        app.state.plannings = make.Plannings()
        app.state.storage_watch = system.StorageWatch()
        app.state.pulse = live.Pulse(operations.context, app.state.burner_watch)
    for part in (static_files, account, live, board, studies, make, archive, pools, schedules, nodes, system):
        app.include_router(part.routes)
