"""What all routes have in common (docs/api.md, "Conventions"): lists and cursors, problems, ETags, descriptions.

A room's routes are made by ``router()``. Its routes describe the problems that every route may answer with, and a GET
that answers with a JSON document has an ETag.
"""

from __future__ import annotations

import base64
import functools
import inspect
import itertools
import json
import re
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from service.api.conditional import content_digest, require_none
from service.api.problem import Problem
from service.bodiless import as_asked
from service.errors import UsageError

MAX_PAGE, DEFAULT_PAGE = 1000, 100
Document = dict[str, Any]
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_NUL = rb"\u0000"


class ProblemModel(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(title="Problem")
    type: str
    title: str
    status: int
    detail: str = Field(description="What is wrong, in words for a person")
    code: str | None = Field(default=None, description="The same for a program")


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Statuses of errors as a route's ``responses`` has them."""
    content = {Problem.media_type: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


EVERYWHERE = (401, 403, 413, 421, 422, 429, 503)
"""No token, no right, body too large, wrong Host, wrong request, too many requests, try again later."""
CHANGING = (412,)
"""Of what changes something: If-Match names another version, or there is none to name."""


class Route(APIRoute):
    """A route that says what every route may answer with; the answer of a GET, if it is a document, has an ETag.

    A route that honours If-Match has the parameter ``if_match: IfMatch``; the others refuse it.
    """

    everywhere: tuple[int, ...] = EVERYWHERE

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        if options.get("response_model", True) is None:
            endpoint = _as_it_is(endpoint, options.get("status_code") or 200)
        only_reads = set(options.get("methods") or ()) == {"GET"}
        always = problems(*self.everywhere, *(() if only_reads else CHANGING))
        options["responses"] = {**always, **(options.get("responses") or {})}
        if only_reads:
            options["responses"].setdefault(304, {"description": "Not changed: If-None-Match has its ETag"})
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Any]:
        handle = _without_nul(super().get_route_handler())
        if self.methods != {"GET"}:
            handle = _with_whole_text(handle) if self.body_field is not None else handle
            return handle if "if_match" in inspect.signature(self.endpoint).parameters else _unconditional(handle)

        async def tagged(request: Request) -> Response:
            response: Response = await handle(request)
            return as_asked(request, with_etag(request, response))

        return tagged


def _unconditional(handle: Callable[[Request], Any]) -> Callable[[Request], Any]:
    async def checked(request: Request) -> Response:
        require_none(request)
        response: Response = await handle(request)
        return response

    return checked


def _with_whole_text(handle: Callable[[Request], Any]) -> Callable[[Request], Any]:
    """JSON can say half of a pair of surrogates, which is no character, and which no database and no file takes."""

    async def checked(request: Request) -> Response:
        body = await request.body()
        try:
            body.decode()  # json.loads would let them pass
            if _SURROGATE.search(body):
                json.dumps(json.loads(body), ensure_ascii=False).encode()
            if _NUL in body and _has_nul(json.loads(body)):
                raise UsageError("the body has a NUL character")
        except UnicodeError as error:
            raise UsageError("the body is no JSON in UTF-8") from error
        except (ValueError, RecursionError):
            pass  # told by who reads it next
        response: Response = await handle(request)
        return response

    return checked


def _has_nul(document: Any) -> bool:
    left = [document]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            left += [*one, *one.values()]
        elif isinstance(one, list):
            left += one
        elif isinstance(one, str) and "\0" in one:
            return True
    return False


def _without_nul(handle: Callable[[Request], Any]) -> Callable[[Request], Any]:
    """NUL is text in JSON and in URLs, but in no name of ours, and PostgreSQL cannot keep it."""

    async def checked(request: Request) -> Response:
        given = itertools.chain(request.path_params.items(), request.query_params.multi_items())
        if wrong := next((name for name, value in given if "\0" in str(value)), None):
            raise UsageError(f"{wrong[:64]!r} has a NUL character")
        response: Response = await handle(request)
        return response

    return checked


def _as_it_is(endpoint: Callable[..., Any], status: int) -> Callable[..., Any]:
    """The endpoint, its document made an answer at once: FastAPI would look into every value of it first."""
    if inspect.iscoroutinefunction(endpoint) or hasattr(endpoint, "__wrapped__"):
        return endpoint

    @functools.wraps(endpoint)
    def answered(*args: Any, **kwargs: Any) -> Any:
        found = endpoint(*args, **kwargs)
        return JSONResponse(found, status) if isinstance(found, dict) else found

    return answered


def router() -> APIRouter:
    """What a file of routes begins with."""
    return APIRouter(route_class=Route)


def with_etag(request: Request, response: Response) -> Response:
    """A JSON document with its ETag; 304 where the client has it already (RFC 9110 13.1.2)."""
    document = isinstance(getattr(response, "body", None), bytes) and "json" in (response.media_type or "")
    if response.status_code != 200 or not document:
        return response
    etag = response.headers.get("etag") or f'"{content_digest(bytes(response.body))}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    wanted = request.headers.get("if-none-match", "")
    if wanted.strip() == "*" or etag in [one.strip().removeprefix("W/") for one in wanted.split(",")]:
        return Response(status_code=304, headers=headers)
    response.headers.update(headers)
    return response


def returns(model: Any, status: int = 200, *errors: int, description: str = "") -> dict[str, Any]:
    """What a route's decorator is given to describe its document; ``errors``: statuses beside those of every route.

    The document goes out as it is: the tests hold what comes against the description, not each answer.
    """
    answer = {"model": model, "description": description or HTTPStatus(status).phrase}
    return {"response_model": None, "status_code": status, "responses": {status: answer, **problems(*errors)}}


# --- Lists ------------------------------------------------------------------------------------------------------------


def listing(items: Iterable[Document], next_cursor: str | None = None) -> Document:
    """The document of a list."""
    return {"items": list(items), "next": next_cursor}


def page_of(items: Sequence[Document], limit: int, after: str | None) -> Document:
    """A page of a list that is at hand as a whole: ``after`` counts those before it."""
    begin = 0
    if after is not None:
        (begin,) = read_cursor(after, int)
    end = begin + limit
    return listing(items[begin:end], cursor(end) if end < len(items) else None)


def cursor(*values: str | int | None) -> str:
    """Where a list goes on, as text that clients only give back. No patient data belongs in it."""
    return base64.urlsafe_b64encode(json.dumps(values, separators=(",", ":")).encode()).decode().rstrip("=")


def read_cursor(text: str, *kinds: type) -> tuple[Any, ...]:
    """The values of a cursor; UsageError for one that we did not make."""
    try:
        values = json.loads(base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4)))
    except ValueError:
        values = None
    if (
        not isinstance(values, list)
        or len(values) != len(kinds)
        or any(type(value) is not kind for value, kind in zip(values, kinds, strict=True))
        or any(isinstance(value, int) and not 0 <= value < 1 << 62 for value in values)
        or any(isinstance(value, str) and ("\0" in value or not _encodable(value)) for value in values)
    ):
        raise UsageError("cursor is none of this list; begin again without one", "BAD_CURSOR")
    return tuple(values)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a pair, which no database takes
        return False
    return True


Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="At most so many items")]
Cursor = Annotated[str | None, Query(max_length=512, description="`next` of the page before")]
BodyLimit = Annotated[int, Field(ge=1, le=MAX_PAGE, description="At most so many items")]
BodyCursor = Annotated[str | None, Field(max_length=512, description="`next` of the page before")]


# --- Parameters -------------------------------------------------------------------------------------------------------

IdempotencyKey = Annotated[
    str | None,
    Header(alias="Idempotency-Key", max_length=255, description="The same request with the same key is done once"),
]
_UID = r"^[0-9]+(\.[0-9]+)*$"


def _uid(text: str) -> str:
    if len(text) > 64 or re.fullmatch(_UID, text) is None or not text.isascii():
        raise PydanticCustomError("uid", "this is no UID: numbers with dots between them, at most 64 characters")
    return text


Uid = Annotated[
    str, AfterValidator(_uid), Path(description="UID", json_schema_extra={"pattern": _UID, "maxLength": 64})
]


def identifier(letter: str, what: str) -> Any:
    """The type of a path's ID: ``J12``, or ``12``."""
    return Annotated[str, Path(pattern=rf"^{letter}?[0-9]{{1,18}}$", description=f"ID of a {what}, like {letter}12")]


JobId, PlanId, DiscId = identifier("J", "job"), identifier("P", "plan"), identifier("D", "disc")


def describe(schema: dict[str, Any], public: Iterable[str]) -> dict[str, Any]:
    """Complete FastAPI's description: the schema of problems, and the token that all but ``public`` paths need."""
    components = schema.setdefault("components", {})
    components.setdefault("schemas", {})["Problem"] = ProblemModel.model_json_schema()
    for operations in schema["paths"].values():
        for operation in operations.values():
            # FastAPI's own, which it adds where a route does not name a 422
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
    components["schemas"].pop("HTTPValidationError", None)
    components["schemas"].pop("ValidationError", None)
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    schema["security"] = [{"token": []}]
    for path in public:
        for operation in schema["paths"].get(path, {}).values():
            operation["security"] = []
    return schema
