"""What the guard answers by itself: refusals, ways to the sign-in page, and what every answer tells browsers."""

from __future__ import annotations

import html
import json
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, quote, urlsplit

if TYPE_CHECKING:
    from starlette.types import Message, Scope, Send

Headers = dict[bytes, bytes]

_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    b"font-src 'self'; manifest-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),  # no-referrer would make browsers send the Origin of our own forms as null
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=(), payment=(), usb=()"),
)
_HSTS = (b"strict-transport-security", b"max-age=31536000")


def split(url: bytes) -> SplitResult:
    """The parts of a URL that somebody sends us; empty ones where it is none."""
    try:
        return urlsplit(url.decode("latin-1"))
    except ValueError:
        return urlsplit("")


async def not_signed_in(scope: Scope, headers: Headers, send: Send) -> None:
    """Programs get a problem; people are shown where to sign in."""
    path: str = scope["path"]
    asks = scope["method"] in ("GET", "HEAD")
    if path.startswith(("/api/", "/dicomweb")) or not (_is_for_people(headers) or b"hx-request" in headers):
        await problem(send, 401, "Unauthorized", "a valid token is needed: Authorization: Bearer ...")
        return
    # The path without its query: what was searched for is nobody's business but the page's.
    if b"hx-request" in headers:  # a part of a page: what is returned to is the page
        path = split(headers.get(b"hx-current-url", b"")).path
    login = f"/login?next={quote(path, safe='/')}" if path not in ("", "/") and asks else "/login"
    if b"hx-request" in headers:
        await _answer(send, 401, b"", [(b"hx-redirect", login.encode())])
    elif asks and headers.get(b"sec-fetch-site") == b"cross-site":
        # Somebody follows a link from elsewhere, so that the browser keeps back its SameSite=Strict cookie, even if
        # there is one. Asked again from a page of ours it brings it.
        target = html.escape(quote("/" + path.lstrip("/\\"), safe="/"))  # never //elsewhere
        body = f'<!doctype html><meta http-equiv="refresh" content="0; url={target}"><title>Burnish</title>'
        await _answer(send, 200, body.encode(), [(b"content-type", b"text/html; charset=utf-8")])
    else:
        await _answer(send, 303, b"", [(b"location", login.encode())])


async def forged(send: Send, headers: Headers, why: str, code: str) -> None:
    """A request that may not be of our page; where it is after all (signed in anew in another window), loading the page
    again mends it.
    """
    if b"hx-request" in headers:
        await _answer(send, 403, b"", [(b"hx-refresh", b"true")])
    elif _is_for_people(headers):
        body = f'<!doctype html><title>Burnish</title><p>{html.escape(why)}</p><p><a href="/">Burnish</a></p>'
        await _answer(send, 403, body.encode(), [(b"content-type", b"text/html; charset=utf-8")])
    else:
        await problem(send, 403, "Forbidden", why, code)


def _is_for_people(headers: Headers) -> bool:
    return b"text/html" in headers.get(b"accept", b"")


def hardened_send(send: Send, *, secure: bool) -> Send:
    """Every answer tells browsers what they may do with it."""

    async def told(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            given = {name.lower() for name, _ in headers}
            headers += [pair for pair in _HEADERS if pair[0] not in given]
            if b"cache-control" not in given:
                headers.append((b"cache-control", b"no-store"))
            if secure:
                headers.append(_HSTS)
            message = {**message, "headers": headers}
        await send(message)

    return told


async def problem(send: Send, status: int, title: str, detail: str, code: str = "") -> None:
    document = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    if code:
        document["code"] = code
    headers = [(b"content-type", b"application/problem+json"), (b"connection", b"close")]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await _answer(send, status, json.dumps(document).encode(), headers)


async def _answer(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
