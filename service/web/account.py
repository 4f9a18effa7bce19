"""Signing in and out, the set-up of the first start, one's own account, and the users for administrators."""

from __future__ import annotations

import html
import re
import secrets
from typing import Annotated, Any
from urllib.parse import quote

import anyio
import anyio.to_thread
from fastapi import Form
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.requests import Request
from starlette.responses import Response

from config import roles
from service import passwords, signin
from service.api import users as api
from service.api.access import Actor, Ctx, actor_of, for_everybody, needs
from service.auth import SESSION_COOKIE, cookie_name
from service.errors import NotFound, Refusal, UsageError, as_refusal
from service.identity import csrf
from service.oidc import Provider
from service.web.pages import language_of, page
from service.web.routes import router
from service.web.texts import texts_of
from store import sessions, users

routes = router()
Own = Annotated[Actor, needs("account.own")]
Manager = Annotated[Actor, needs("users.manage")]
Line = Annotated[str, Form(max_length=passwords.LONGEST)]

_FORM_COOKIE, _OIDC_COOKIE = "burnish_form", "burnish_oidc"
_PAGE = re.compile(r"/(?![/\\])[^\\\x00-\x20\x7f-\U0010ffff?#]*")
_AT_ONCE = 2
"""Sign-ins whose passwords are looked at at the same time; others wait without a thread."""
_limiter: anyio.CapacityLimiter | None = None


def next_page(wanted: str) -> str:
    """A page of ours, whatever an address says: never another site, never the way out."""
    fits = len(wanted) <= 512 and _PAGE.fullmatch(wanted) and not wanted.startswith(("/login", "/logout", "/setup"))
    return wanted if fits else "/"


# --- In and out -------------------------------------------------------------------------------------------------------


@routes.get("/login", dependencies=[for_everybody])
def login_page(request: Request, ctx: Ctx, next: str = "/") -> Response:
    if actor_of(request) is not None:
        return RedirectResponse(next_page(next), 303)
    if _set_up_first(request, ctx):
        return RedirectResponse("/setup", 303)
    return _login(request, ctx, next_page(next))


@routes.post("/login", dependencies=[for_everybody])
async def login(
    request: Request,
    ctx: Ctx,
    user: Line = "",
    password: Line = "",
    token: Annotated[str, Form(alias="csrf", max_length=64)] = "",
    next: Annotated[str, Form(max_length=512)] = "/",
) -> Response:
    if not _is_our_form(request, token):
        return _login(request, ctx, next_page(next), status=403, code="FORM", user=user)
    address = request.client.host if request.client else ""
    old = request.scope["state"].get("session", "")
    try:
        signed_in = await anyio.to_thread.run_sync(
            lambda: signin.by_password(ctx, user, password, address=address, old=old), limiter=_few()
        )
    except (signin.SignInRefused, signin.TooManyAttempts) as error:
        seconds = getattr(error, "seconds", 0)
        answer = _login(
            request, ctx, next_page(next), status=error.http_status, code=error.code, user=user, seconds=seconds
        )
        if seconds:
            answer.headers["Retry-After"] = str(seconds)
        return answer
    response: Response = RedirectResponse(next_page(next), 303)
    _set_session(request, response, signed_in.secret)
    return response


@routes.post("/logout")
def logout(request: Request, ctx: Ctx, actor: Own) -> Response:
    signin.sign_out(ctx, request.scope["state"].get("session", ""), actor.name, address=actor.address)
    response = RedirectResponse("/login", 303)
    _drop(request, response, SESSION_COOKIE)
    response.headers["Clear-Site-Data"] = '"cache"'
    return response


def _login(
    request: Request, ctx: Ctx, then: str, *, status: int = 200, code: str = "", user: str = "", seconds: int = 0
) -> Response:
    oidc = ctx.settings.oidc
    values = {
        "next": then,
        "user": user[:256],
        "error": _words(request, code, seconds),
        "oidc": oidc.label if oidc.issuer else "",
        "oidc_url": f"/oidc/login?next={quote(then, safe='/')}",
    }
    return _with_form(request, "login.html", status=status, **values)


def _words(request: Request, code: str, seconds: int = 0) -> str:
    if not code:
        return ""
    texts = texts_of(language_of(request))
    return texts(f"signin.{code}", minutes=max(1, -(-seconds // 60)))


# --- By the OpenID provider -------------------------------------------------------------------------------------------


@routes.get("/oidc/login", dependencies=[for_everybody])
def oidc_login(request: Request, ctx: Ctx, next: str = "/") -> Response:
    url, browser = _provider(request, ctx).begin(_redirect_uri(request), next_page(next))
    response = RedirectResponse(url, 303)
    # Lax: the provider's page sends the browser back to us, and that must bring it.
    _set(request, response, _OIDC_COOKIE, browser, same_site="lax", max_age=600)
    return response


@routes.get("/oidc/callback", dependencies=[for_everybody])
def oidc_callback(request: Request, ctx: Ctx, state: str = "", code: str = "", error: str = "") -> Response:
    provider = _provider(request, ctx)
    if error or not code or not state:
        raise signin.SignInRefused("the provider did not sign you in", "OIDC_REFUSED")
    signed_in, then = provider.finish(
        state=state,
        code=code,
        browser=request.cookies.get(cookie_name(_OIDC_COOKIE, request.url.scheme), ""),
        redirect_uri=_redirect_uri(request),
        address=request.client.host if request.client else "",
    )
    # A page of ours goes on, not a redirect: what another site began has no SameSite=Strict cookie.
    target = html.escape(next_page(then))
    response = HTMLResponse(
        f'<!doctype html><meta http-equiv="refresh" content="0; url={target}"><title>Burnish</title>'
        f'<a href="{target}">Burnish</a>'
    )
    _set_session(request, response, signed_in.secret)
    _drop(request, response, _OIDC_COOKIE)
    return response


def _provider(request: Request, ctx: Ctx) -> Provider:
    if not ctx.settings.oidc.issuer:
        raise NotFound("sign-in by an OpenID provider is not set up here")
    known: Provider | None = getattr(request.app.state, "oidc", None)
    if known is None:
        known = request.app.state.oidc = Provider(ctx)
    return known


def _redirect_uri(request: Request) -> str:
    # The guard has let the Host header pass.
    return f"{request.url.scheme}://{request.headers['host']}/oidc/callback"


# --- The first start --------------------------------------------------------------------------------------------------


@routes.get("/setup", dependencies=[for_everybody])
def setup_page(request: Request, ctx: Ctx) -> Response:
    if not _set_up_first(request, ctx):
        return RedirectResponse("/", 303)
    return _with_form(request, "setup.html", least=ctx.settings.users.password_length, user="", error="")


@routes.post("/setup", dependencies=[for_everybody])
async def setup(
    request: Request,
    ctx: Ctx,
    code: Line = "",
    user: Line = "",
    password: Line = "",
    again: Line = "",
    token: Annotated[str, Form(alias="csrf", max_length=64)] = "",
) -> Response:
    def made() -> signin.SignedIn:
        if not _is_our_form(request, token):
            raise UsageError(_words(request, "FORM"))
        if password != again:
            raise UsageError(texts_of(language_of(request))("account.not_the_same"))
        api.make_first(ctx, request, code, user, password)
        return signin.by_password(ctx, user, password, address=request.client.host if request.client else "")

    try:
        signed_in = await anyio.to_thread.run_sync(made, limiter=_few())
    except Exception as error:
        refusal = as_refusal(error)
        if refusal is None:
            raise
        least = ctx.settings.users.password_length
        values = {"least": least, "user": user[:256], "error": texts_of(language_of(request)).refusal(refusal)}
        return _with_form(request, "setup.html", status=refusal.http_status, **values)
    response: Response = RedirectResponse("/", 303)
    _set_session(request, response, signed_in.secret)
    return response


def _set_up_first(request: Request, ctx: Ctx) -> bool:
    one_time: signin.Setup | None = getattr(request.app.state, "setup", None)
    return one_time is not None and one_time.open(ctx.db)


# --- One's own account ------------------------------------------------------------------------------------------------


@routes.get("/account")
def account(request: Request, ctx: Ctx, actor: Own) -> Response:
    return _account(request, ctx, actor)


@routes.post("/account/password")
def own_password(request: Request, ctx: Ctx, actor: Own, old: Line = "", new: Line = "", again: Line = "") -> Response:
    texts = texts_of(language_of(request))
    try:
        if new != again:
            raise UsageError(texts("account.not_the_same"))
        api.change_own_password(ctx, actor, old, new)
    except Refusal as error:
        return _account(request, ctx, actor, status=error.http_status, error=texts.refusal(error))
    return _account(request, ctx, actor, done=texts("account.password_changed"))


@routes.post("/account/tokens")
def own_token(
    request: Request,
    ctx: Ctx,
    actor: Own,
    name: Annotated[str, Form(max_length=256)] = "",
    scope: Annotated[list[str], Form(max_length=100)] = [],  # noqa: B006 - FastAPI copies it
    days: Annotated[int, Form(ge=1, le=3660)] = 90,
) -> Response:
    try:
        made = api.make_own_token(ctx, actor, api.OwnTokenBody(name=name, scopes=scope, days=days))
    except (Refusal, users.UserError) as error:
        refusal = as_refusal(error)
        assert refusal is not None
        return _account(
            request, ctx, actor, status=refusal.http_status, error=texts_of(language_of(request)).refusal(refusal)
        )
    return _account(request, ctx, actor, secret=made["secret"])


@routes.post("/account/tokens/{token}/revoke")
def revoke_own_token(ctx: Ctx, actor: Own, token: str) -> Response:
    api.revoke_own_token(ctx, actor, token)
    return RedirectResponse("/account", 303)


def _account(
    request: Request,
    ctx: Ctx,
    actor: Actor,
    *,
    status: int = 200,
    error: str = "",
    done: str = "",
    secret: str = "",
) -> Response:
    with ctx.db.read() as session:
        found = sessions.tokens(session, actor.user_id) if actor.user_id is not None else []
        tokens = [sessions.token_document(*one) | {"row": one[0]} for one in found]
        known = users.by_name(session, actor.name) if actor.user_id is not None else None
    return page(
        request,
        "account.html",
        status=status,
        tokens=tokens,
        rights=[one for one in roles.rights().values() if actor.may(one.name)],
        days=ctx.settings.users.token_days,
        least=ctx.settings.users.password_length,
        has_password=known is not None and known.issuer is None,
        error=error,
        done=done,
        secret=secret,
    )


# --- Users, for administrators ----------------------------------------------------------------------------------------


@routes.get("/users")
def users_page(request: Request, ctx: Ctx, actor: Manager) -> Response:
    return _users(request, ctx, actor)


@routes.post("/users")
def add_user(
    request: Request,
    ctx: Ctx,
    actor: Manager,
    user: Annotated[str, Form(max_length=256)] = "",
    role: Annotated[str, Form(max_length=64)] = "",
    password: Line = "",
) -> Response:
    """Without a password the user has API tokens only."""
    body = api.UserBody(user=user, role=role, password=password or None)
    return _changed(request, ctx, actor, lambda: api.add(ctx, actor, body))


@routes.post("/users/{name}/role")
def change_role(
    request: Request, ctx: Ctx, actor: Manager, name: str, role: Annotated[str, Form(max_length=64)]
) -> Response:
    return _changed(request, ctx, actor, lambda: api.change(ctx, actor, name, api.ChangeBody(role=role)))


@routes.post("/users/{name}/disabled")
def change_disabled(
    request: Request, ctx: Ctx, actor: Manager, name: str, disabled: Annotated[bool, Form()]
) -> Response:
    return _changed(request, ctx, actor, lambda: api.change(ctx, actor, name, api.ChangeBody(disabled=disabled)))


@routes.post("/users/{name}/password")
def give_password(request: Request, ctx: Ctx, actor: Manager, name: str, password: Line = "") -> Response:
    body = api.PasswordBody(password=password)
    return _changed(request, ctx, actor, lambda: api.set_password(ctx, actor, name, body))


@routes.post("/users/{name}/remove")
def remove_user(request: Request, ctx: Ctx, actor: Manager, name: str) -> Response:
    return _changed(request, ctx, actor, lambda: api.remove(ctx, actor, name))


def _changed(request: Request, ctx: Ctx, actor: Actor, change: Any) -> Response:
    try:
        change()
    except (Refusal, users.UserError) as error:
        refusal = as_refusal(error)
        assert refusal is not None
        return _users(
            request, ctx, actor, status=refusal.http_status, error=texts_of(language_of(request)).refusal(refusal)
        )
    return RedirectResponse("/users", 303)


def _users(request: Request, ctx: Ctx, actor: Actor, *, status: int = 200, error: str = "") -> Response:
    with ctx.db.read() as session:
        found = users.listed(session)
    least = ctx.settings.users.password_length
    return page(
        request, "users.html", status=status, users=found, roles=roles.roles(), me=actor.name, least=least, error=error
    )


# --- Cookies ----------------------------------------------------------------------------------------------------------


def _with_form(request: Request, template: str, *, status: int = 200, **values: Any) -> Response:
    """A page with a form for somebody who is not signed in: its token belongs to a cookie that this browser has."""
    name = cookie_name(_FORM_COOKIE, request.url.scheme)
    secret = request.cookies.get(name, "")
    fresh = len(secret) != 43
    if fresh:
        secret = secrets.token_urlsafe(32)
    response = page(request, template, status=status, form_token=csrf(secret), **values)
    if fresh:
        _set(request, response, _FORM_COOKIE, secret)
    return response


def _is_our_form(request: Request, token: str) -> bool:
    secret = request.cookies.get(cookie_name(_FORM_COOKIE, request.url.scheme), "")
    return bool(secret) and secrets.compare_digest(csrf(secret), token.encode("ascii", "replace").decode())


def _set_session(request: Request, response: Response, secret: str) -> None:
    """For as long as the browser runs; when it ends is the server's to say."""
    _set(request, response, SESSION_COOKIE, secret)
    _drop(request, response, _FORM_COOKIE)


def _set(
    request: Request,
    response: Response,
    name: str,
    value: str,
    *,
    same_site: Any = "strict",
    max_age: int | None = None,
) -> None:
    secure = request.url.scheme == "https"
    response.set_cookie(
        cookie_name(name, request.url.scheme),
        value,
        max_age=max_age,
        path="/",
        secure=secure,
        httponly=True,
        samesite=same_site,
    )


def _drop(request: Request, response: Response, name: str) -> None:
    secure = request.url.scheme == "https"
    response.delete_cookie(cookie_name(name, request.url.scheme), path="/", secure=secure, httponly=True)


def _few() -> anyio.CapacityLimiter:
    global _limiter  # noqa: PLW0603 - it belongs to the event loop, which is not there when we are imported
    if _limiter is None:
        _limiter = anyio.CapacityLimiter(_AT_ONCE)
    return _limiter
