"""Routes of the page: an error becomes a page or a notice that says what to do, never a document for programs."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from sqlalchemy.exc import DataError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service.api.access import actor_of
from service.bodiless import as_asked
from service.errors import NotFound, as_refusal
from service.logs import logger
from service.web.pages import language_of, page
from service.web.texts import texts_of


class PageRoute(APIRoute):
    """A route whose errors are shown to people."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def shown(request: Request) -> Response:
            try:
                await _mark(request)
                return as_asked(request, await handler(request))
            except Exception as error:  # noqa: BLE001 - whatever it is, the person at the page must hear of it
                return trouble(request, error, self.path)

        return shown


async def _mark(request: Request) -> None:
    """Note how things stand before a whole page is made: its stream (``service.web.live``) begins from there."""
    pulse, actor = getattr(request.app.state, "pulse", None), actor_of(request)
    whole = "text/html" in request.headers.get("accept", "") and not request.headers.get("hx-request")
    if whole and pulse is not None and actor is not None and actor.may("status.read"):
        request.state.mark = await run_in_threadpool(pulse.mark)


def router() -> APIRouter:
    """For one part of the page; none of it stands in the API's description."""
    return APIRouter(route_class=PageRoute, include_in_schema=False, default_response_class=Response)


def where(error: BaseException) -> str:
    """File and line of an error, for the log: a whole traceback would show patients' names in its values."""
    lines = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
    return lines[-1] if lines else ""


def trouble(request: Request, error: Exception, route: str) -> Response:
    """An error in words, with what to do about it: a notice over the page, or a page of its own."""
    texts = texts_of(language_of(request))
    if isinstance(error, OverflowError | DataError):  # a number in an address that none of ours can be
        error = NotFound("there is nothing with this number")
    if isinstance(error, HTTPException):
        status, code, text = error.status_code, f"HTTP_{error.status_code}", str(error.detail)
    elif isinstance(error, RequestValidationError):
        fields = ", ".join(str(one["loc"][-1]) for one in error.errors())
        status, code, text = 422, "USAGE", texts("trouble.fields", fields=fields)
    else:
        refusal = as_refusal(error)
        if refusal is not None:
            status, code, text = refusal.http_status, refusal.code, texts.refusal(refusal)
        else:
            logger("service.web").error("a page failed", route=route, error=type(error).__name__, where=where(error))
            status, code, text = 500, "UNEXPECTED", texts("trouble.unexpected")
    advice = texts.known(f"advice.{code}", texts.known(f"advice.HTTP_{status}", texts("advice.other")))
    values: dict[str, Any] = {"text": text, "advice": advice}
    if request.headers.get("hx-request"):
        headers = {"HX-Retarget": "#notices", "HX-Reswap": "afterbegin"}
        return page(request, "parts/notice.html", status=status, headers=headers, kind="bad", **values)
    return page(request, "trouble.html", status=status, **values)
