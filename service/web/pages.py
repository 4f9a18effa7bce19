"""Rendering: the templates' environment, and what every page knows (language, zone, theme, who looks)."""

from __future__ import annotations

import functools
import hashlib
from importlib import resources
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request

from service.api.access import Actor, actor_of
from service.web.shown import Shown, zone_of
from service.web.texts import DEFAULT, LANGUAGES, Texts, preferred, texts_of

THEMES = ("auto", "light", "dark")
LANGUAGE_COOKIE, THEME_COOKIE = "burnish_language", "burnish_theme"


@functools.cache
def environment() -> Environment:
    """Autoescape is on for everything: what a template prints may come from a DICOM file."""
    made = Environment(
        loader=PackageLoader("service.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["static"] = static_url
    return made


@functools.cache
def static_url(name: str) -> str:
    """The address of a static file; it changes with its content, so that a browser may keep it for ever."""
    content = resources.files("service.web").joinpath("static", name).read_bytes()
    return f"/static/{name}?v={hashlib.sha256(content).hexdigest()[:12]}"


def language_of(request: Request) -> str:
    chosen = request.cookies.get(LANGUAGE_COOKIE, "")
    return chosen if chosen in LANGUAGES else preferred(request.headers.get("accept-language", DEFAULT))


def theme_of(request: Request) -> str:
    chosen = request.cookies.get(THEME_COOKIE, "auto")
    return chosen if chosen in THEMES else "auto"


def shown_of(request: Request) -> Shown:
    """How values are shown to whoever sent the request."""
    context = getattr(getattr(request.app.state, "operations", None), "context", None)
    zone = context.settings.site.timezone if context is not None else ""
    return Shown(texts_of(language_of(request)), zone_of(zone))


def page(
    request: Request, template: str, *, status: int = 200, headers: dict[str, str] | None = None, **values: Any
) -> HTMLResponse:
    """A page, or a part of one that htmx puts in its place. Nothing of it is kept by browsers or proxies."""
    shown = shown_of(request)
    html = render(request, template, shown, **values)
    return HTMLResponse(html, status_code=status, headers={"Cache-Control": "no-store"} | (headers or {}))


def render(request: Request, template: str, shown: Shown, **values: Any) -> str:
    texts: Texts = texts_of(language_of(request))
    actor: Actor | None = actor_of(request)
    return (
        environment()
        .get_template(template)
        .render(
            t=texts,
            show=shown,
            actor=actor,
            may=actor.may if actor is not None else _may_not,
            language=texts.language,
            languages=LANGUAGES,
            theme=theme_of(request),
            path=request.url.path,
            mark=getattr(request.state, "mark", ""),
            csrf=actor.csrf if actor is not None else "",
            **values,
        )
    )


def _may_not(_right: str) -> bool:
    return False
