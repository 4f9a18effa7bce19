"""The FastAPI application: routes, problem+json errors, and the guard before everything."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from service.api import (
    answers,
    audit,
    catalogue,
    discs,
    downloads,
    events,
    instances,
    jobs,
    labels,
    nodes,
    notices,
    outliving,
    plans,
    pools,
    recalls,
    reconciliations,
    schedules,
    state,
    studies,
    users,
    watches,
)
from service.api.conditional import ChangedMeanwhile, problem_members
from service.api.problem import Problem
from service.auth import PUBLIC_PATHS, Guard
from service.dicomweb import mount as dicomweb
from service.dicomweb.urls import PREFIX as DICOMWEB
from service.errors import as_refusal, kinds
from service.identity import Identity
from service.logs import logger
from service.operations import StoreOperations
from service.shutdown import Stopping
from service.signin import Setup, TooManyAttempts
from service.web import mount

PREFIX = "/api/v1"


def build(
    operations: StoreOperations | None,
    *,
    token: str,
    hosts: Iterable[str],
    stopping: Stopping,
    setup: Setup | None = None,
) -> Guard:
    """The whole API, as an ASGI application. ``setup``: the one-time code, where there is no user yet.

    Without ``operations`` its routes can be described, and nothing else.
    """
    app = FastAPI(
        title="Burnish",
        description="DICOM media creation: studies come in by C-STORE, verified and catalogued discs go out.",
        version="1",
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.operations = operations
    app.state.stopping = stopping
    app.state.setup = setup
    for part in (
        studies,
        instances,
        reconciliations,
        plans,
        jobs,
        catalogue,
        outliving,
        discs,
        downloads,
        events,
        labels,
        nodes,
        state,
        users,
        audit,
        pools,
        schedules,
    ):
        app.include_router(part.router, prefix=PREFIX)
    app.include_router(watches.router, prefix=PREFIX)
    app.include_router(recalls.router, prefix=PREFIX)
    app.include_router(notices.router, prefix=PREFIX)
    app.include_router(notices.outside)
    app.include_router(state.health)
    mount.include(app, operations)
    dicomweb.include(app)
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(HTTPException)(_http)
    app.exception_handler(Exception)(_failed)
    # The errors that rooms raise; a handler for each class keeps them out of the log of what nobody foresaw.
    for kind in kinds():
        app.exception_handler(kind)(_refused)
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]
    if operations is None:
        return Guard(app, token=token, hosts=hosts)
    settings = operations.context.settings
    identity = Identity(operations.context.db, settings.users)
    return Guard(app, token=token, hosts=hosts, identity=identity, proxies=settings.http.trusted_proxies)


def _described(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI description, made once."""
    if app.openapi_schema is None:
        app.openapi_schema = answers.describe(FastAPI.openapi(app), PUBLIC_PATHS)
    return app.openapi_schema


async def _refused(request: Request, error: Exception) -> Problem:
    refusal = as_refusal(error)
    if refusal is None:
        return Problem(500, "unexpected error")
    problem = Problem(_status(request, refusal.http_status), str(refusal), refusal.code, **problem_members(refusal))
    if isinstance(refusal, TooManyAttempts):
        problem.headers["Retry-After"] = str(refusal.seconds)
    if isinstance(refusal, ChangedMeanwhile):
        problem.headers["ETag"] = refusal.now.headers["ETag"]
    return problem


async def _failed(request: Request, error: Exception) -> Problem:
    if (refusal := as_refusal(error)) is not None:
        return Problem(_status(request, refusal.http_status), str(refusal), refusal.code)
    # The route, not the address that was asked for.
    route = getattr(request.scope.get("route"), "path", "unknown route")
    logger("service.api").error("request failed", route=route, error=type(error).__name__)
    return Problem(500, f"unexpected {type(error).__name__}; the service's log has more", "UNEXPECTED")


async def _invalid(request: Request, error: Exception) -> Problem:
    assert isinstance(error, RequestValidationError)
    # Where and what, but not the value: it may be a patient's.
    faults = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()]
    return Problem(_status(request, 422), "; ".join(faults), "USAGE")


async def _http(request: Request, error: Exception) -> Problem:
    assert isinstance(error, HTTPException)
    if error.status_code == 400:  # FastAPI's, for a body that is not even text
        return Problem(_status(request, 422), "the body is no JSON in UTF-8", "USAGE")
    problem = Problem(error.status_code, str(error.detail))
    problem.headers.update(error.headers or {})
    if error.status_code == 405:
        problem.headers["Allow"] = ", ".join(sorted(_allowed(request)))
    return problem


def _status(request: Request, status: int) -> int:
    """A wrong request of DICOMweb is a 400 (PS3.18 Table 8.5-1), where the API says 422."""
    return 400 if status == 422 and request.url.path.startswith(f"{DICOMWEB}/") else status


def _allowed(request: Request) -> set[str]:
    """Methods that the routes of a path have, not only the first of them (RFC 9110 15.5.6)."""
    path = request.url.path
    found: set[str] = set()
    for pattern, methods in _ways(request.app):
        if pattern.match(path):
            found |= methods
    return found | ({"HEAD"} if "GET" in found else set())


def _ways(app: FastAPI) -> list[tuple[re.Pattern[str], set[str]]]:
    """Each route's path and methods."""
    if not hasattr(app.state, "ways"):
        try:
            from fastapi.routing import iter_route_contexts
        except ImportError:  # FastAPI before 0.130 or so: included routes are copied
            routes: Iterable[Any] = app.routes
        else:
            routes = iter_route_contexts(app.routes)
        app.state.ways = [
            (compile_path(route.path)[0], set(route.methods)) for route in routes if getattr(route, "methods", None)
        ]
    ways: list[tuple[re.Pattern[str], set[str]]] = app.state.ways
    return ways
