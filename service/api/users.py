"""Routes: users and roles, API tokens, one's own account, the set-up of the first start."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from fastapi import Path, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from config import roles
from service import passwords, signin
from service.api import answers
from service.api.access import Actor, Ctx, NotAllowed, for_everybody, needs
from service.api.conditional import IfMatch, Versioned, require_match, version_of
from service.contract import number
from service.errors import NotDone
from service.logs import logger
from store import attempts, sessions, users
from store.auditwhat import Who, alert
from store.models_users import ApiToken, User

router = answers.router()
Own = Annotated[Actor, needs("account.own")]
Manager = Annotated[Actor, needs("users.manage")]
Name = Annotated[str, Field(max_length=256)]
Password = Annotated[str, Field(max_length=passwords.LONGEST)]
TokenId = Annotated[str, Path(pattern=r"^T?[0-9]{1,18}$", description="ID of a token, like T12")]
_MOST_DAYS = 3660


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class UserBody(_Body):
    user: Name
    role: Name
    password: Password | None = None
    """None: no sign-in by password; for a program that has API tokens."""


class ChangeBody(_Body):
    role: Name | None = None
    disabled: bool | None = None


class PasswordBody(_Body):
    password: Password


class OwnPasswordBody(_Body):
    old: Password
    new: Password


class OwnTokenBody(_Body):
    name: Name
    scopes: list[Annotated[str, Field(max_length=64)]] = Field(max_length=100)
    """Rights, or roles for all that they may."""
    days: int | None = Field(default=None, ge=1, le=_MOST_DAYS)
    """None: as `users.token_days` says."""


class TokenBody(OwnTokenBody):
    user: Name


class SetupBody(_Body):
    code: Annotated[str, Field(max_length=64)]
    user: Name
    password: Password


# --- Users ------------------------------------------------------------------------------------------------------------


@router.get("/users", summary="All users, by name", dependencies=[needs("users.manage")])
def listed(ctx: Ctx, limit: answers.Limit = answers.DEFAULT_PAGE, cursor: answers.Cursor = None) -> dict[str, Any]:
    with ctx.db.read() as session:
        return answers.page_of([users.document(user) for user in users.listed(session)], limit, cursor)


@router.post("/users", status_code=201, summary="Enter a user", responses=answers.problems(409))
def add(ctx: Ctx, actor: Manager, body: UserBody) -> dict[str, Any]:
    hash_ = None
    if body.password is not None:
        passwords.require_good(body.password, user=users.folded(body.user), least=ctx.settings.users.password_length)
        hash_ = passwords.hashed(body.password)
    with ctx.db.begin() as session:
        user = users.add(session, body.user, body.role, by=actor.name, password=hash_)
        _tell(ctx, session, "a user was entered", user, actor, role=user.role)
        return users.document(user)


@router.get(
    "/users/{name}",
    summary="A user",
    dependencies=[needs("users.manage")],
    **answers.returns(dict[str, Any], 200, 404),
)
def user(ctx: Ctx, name: str) -> Versioned:
    with ctx.db.read() as session:
        found = users.by_name(session, name)
        return Versioned(_whole(session, found), _version(found))


def _whole(session: Session, found: User) -> dict[str, Any]:
    tokens = [sessions.token_document(*one) for one in sessions.tokens(session, found.id)]
    here = [
        {"begun_at": one.created_at.isoformat(), "seen_at": one.seen_at.isoformat(), "how": one.how,
         "address": one.address}
        for one in sessions.of_user(session, found.id)
    ]  # fmt: skip
    return users.document(found) | {"tokens": tokens, "sessions": here}


def _version(found: User) -> str:
    return version_of(found, ("name", "role", "issuer", "disabled_at", "password_at"))


def _to_change(session: Session, name: str, if_match: str | None) -> User:
    """The user whom nobody else changes until the end of the transaction. Raises UnknownUser, ChangedMeanwhile."""
    found = users.by_name(session, name, lock=True)
    require_match(if_match, _version(found), lambda: _whole(session, found))
    return found


@router.patch(
    "/users/{name}",
    summary="Give a user another role, disable or enable one",
    **answers.returns(dict[str, Any], 200, 404, 409),
)
def change(ctx: Ctx, actor: Manager, name: str, body: ChangeBody, if_match: IfMatch = None) -> Versioned:
    """Sessions of a user whose role changes, or who is disabled, end; enabling forgives failed sign-ins."""
    with ctx.db.begin() as session:
        found = _to_change(session, name, if_match)
        if body.role is not None:
            users.set_role(session, found, body.role)
            _tell(ctx, session, "a user's role was changed", found, actor, role=found.role)
        if body.disabled is True:
            users.disable(session, found)
            _tell(ctx, session, "a user was disabled", found, actor)
        elif body.disabled is False:
            users.enable(session, found)
            attempts.forgive(session, "user", found.name)
            _tell(ctx, session, "a user was enabled", found, actor)
        return Versioned(users.document(found), _version(found))


@router.put(
    "/users/{name}/password",
    summary="Give a user a password",
    **answers.returns(dict[str, Any], 200, 404, 409),
)
def set_password(ctx: Ctx, actor: Manager, name: str, body: PasswordBody, if_match: IfMatch = None) -> Versioned:
    """Sessions of the user end, and failed sign-ins are forgiven."""
    passwords.require_good(body.password, user=users.folded(name), least=ctx.settings.users.password_length)
    hash_ = passwords.hashed(body.password)
    with ctx.db.begin() as session:
        found = _to_change(session, name, if_match)
        users.set_password(session, found, hash_)
        attempts.forgive(session, "user", found.name)
        _tell(ctx, session, "a user was given a password", found, actor)
        return Versioned(users.document(found), _version(found))


@router.delete("/users/{name}", summary="Remove a user", responses=answers.problems(404, 409))
def remove(ctx: Ctx, actor: Manager, name: str, if_match: IfMatch = None) -> dict[str, Any]:
    """With sessions and tokens; the document is the user's as it was."""
    with ctx.db.begin() as session:
        found = _to_change(session, name, if_match)
        document = users.document(found)
        users.remove(session, found)
        _tell(ctx, session, "a user was removed", found, actor)
        return document


@router.get("/roles", summary="Roles and rights", dependencies=[needs("account.own")])
def roles_and_rights() -> dict[str, Any]:
    """``roles``, the least first; ``rights``, each with the least role that has it."""
    rights = [{"right": one.name, "role": one.role, "text": one.text} for one in roles.rights().values()]
    return {"roles": list(roles.roles()), "rights": rights}


# --- API tokens -------------------------------------------------------------------------------------------------------


@router.get("/tokens", summary="API tokens, the newest first", dependencies=[needs("users.manage")])
def tokens(ctx: Ctx, limit: answers.Limit = answers.DEFAULT_PAGE, cursor: answers.Cursor = None) -> dict[str, Any]:
    with ctx.db.read() as session:
        return answers.page_of([sessions.token_document(*one) for one in sessions.tokens(session)], limit, cursor)


@router.post("/tokens", status_code=201, summary="Make an API token of a user", responses=answers.problems(404, 409))
def add_token(ctx: Ctx, actor: Manager, body: TokenBody) -> dict[str, Any]:
    """The document has ``secret``, which is shown this once and kept nowhere."""
    with ctx.db.begin() as session:
        return _new_token(ctx, session, users.by_name(session, body.user), body, actor)


@router.delete("/tokens/{token}", summary="Revoke an API token", responses=answers.problems(404))
def revoke(ctx: Ctx, actor: Manager, token: TokenId) -> dict[str, Any]:
    with ctx.db.begin() as session:
        return _revoked(ctx, session, actor, sessions.revoke(session, number("T", token)))


# --- One's own account ------------------------------------------------------------------------------------------------


@router.get("/me", summary="Who asks, and what they may")
def me(actor: Own) -> dict[str, Any]:
    return {
        "user": actor.name,
        "role": actor.role,
        "how": actor.how,
        "rights": [right for right in roles.rights() if actor.may(right)],
    }


@router.put("/me/password", summary="Change one's own password", responses=answers.problems(409))
def own_password(ctx: Ctx, actor: Own, body: OwnPasswordBody) -> dict[str, Any]:
    """All other sessions end."""
    return change_own_password(ctx, actor, body.old, body.new)


def change_own_password(ctx: Ctx, actor: Actor, old: str, new: str) -> dict[str, Any]:
    """NotAllowed where the old one is wrong, UsageError for what the new one lacks, TooManyAttempts."""
    user_id = _person(actor)
    passwords.require_good(new, user=actor.name, least=ctx.settings.users.password_length)
    try:
        signin.check(ctx, actor.name, old, address=actor.address)
    except signin.SignInRefused as error:
        raise NotAllowed("the old password is wrong") from error
    hash_ = passwords.hashed(new)
    with ctx.db.begin() as session:
        found = session.get_one(User, user_id)
        users.set_password(session, found, hash_, but=actor.session)
        _tell(ctx, session, "a user has changed the password", found, actor)
        return users.document(found)


@router.get("/me/tokens", summary="One's own API tokens")
def own_tokens(
    ctx: Ctx, actor: Own, limit: answers.Limit = answers.DEFAULT_PAGE, cursor: answers.Cursor = None
) -> dict[str, Any]:
    with ctx.db.read() as session:
        found = sessions.tokens(session, actor.user_id) if actor.user_id is not None else []
        return answers.page_of([sessions.token_document(*one) for one in found], limit, cursor)


@router.post("/me/tokens", status_code=201, summary="Make an API token of one's own", responses=answers.problems(409))
def add_own_token(ctx: Ctx, actor: Own, body: OwnTokenBody) -> dict[str, Any]:
    """The document has ``secret``, which is shown this once and kept nowhere."""
    return make_own_token(ctx, actor, body)


def make_own_token(ctx: Ctx, actor: Actor, body: OwnTokenBody) -> dict[str, Any]:
    """A token cannot make one: it would outlive itself, or gain scopes."""
    user_id = _person(actor)
    with ctx.db.begin() as session:
        return _new_token(ctx, session, session.get_one(User, user_id), body, actor)


@router.delete("/me/tokens/{token}", summary="Revoke an API token of one's own", responses=answers.problems(404))
def revoke_own(ctx: Ctx, actor: Own, token: TokenId) -> dict[str, Any]:
    return revoke_own_token(ctx, actor, token)


def revoke_own_token(ctx: Ctx, actor: Actor, token: str) -> dict[str, Any]:
    """UnknownUser for one that is another's."""
    with ctx.db.begin() as session:
        own = actor.user_id if actor.user_id is not None else -1
        return _revoked(ctx, session, actor, sessions.revoke(session, number("T", token), own))


# --- The first start --------------------------------------------------------------------------------------------------


@router.post(
    "/setup",
    status_code=201,
    summary="Make the first administrator, by the one-time code of the first start; needs no token",
    responses=answers.problems(409),
    dependencies=[for_everybody],
)
def setup(ctx: Ctx, request: Request, body: SetupBody) -> dict[str, Any]:
    return make_first(ctx, request, body.code, body.user, body.password)


def make_first(ctx: Ctx, request: Request, code: str, name: str, password: str) -> dict[str, Any]:
    """The first administrator's document; NotDone where there is a user."""
    one_time: signin.Setup | None = getattr(request.app.state, "setup", None)
    if one_time is None or not one_time.open(ctx.db):
        raise NotDone("Burnish is set up already; sign in, or ask an administrator for an account", "SET_UP")
    address = request.client.host if request.client else ""
    made = one_time.first(ctx, code, name, password, address=address)
    with ctx.db.read() as session:
        return users.document(users.by_name(session, made))


def _new_token(ctx: Ctx, session: Session, owner: User, body: OwnTokenBody, actor: Actor) -> dict[str, Any]:
    lasts = timedelta(days=body.days or ctx.settings.users.token_days)
    token, secret = sessions.make_token(session, owner, name=body.name, scopes=body.scopes, lasts=lasts, by=actor.name)
    _tell(ctx, session, "an API token was made", owner, actor, token=f"T{token.id}", scopes=token.scopes)
    return sessions.token_document(token, owner.name) | {"secret": secret}


def _revoked(ctx: Ctx, session: Session, actor: Actor, row: tuple[ApiToken, str]) -> dict[str, Any]:
    token, _ = row
    owner = session.get_one(User, token.user_id)
    _tell(ctx, session, "an API token was revoked", owner, actor, token=f"T{token.id}")
    return sessions.token_document(token, owner.name)


def _person(actor: Actor) -> int:
    """The user's number; NotAllowed for programs."""
    if actor.how != "session" or actor.user_id is None:
        raise NotAllowed("this takes somebody who is signed in at the page; an administrator can do it for others")
    return actor.user_id


def _tell(ctx: Ctx, session: Session, what: str, about: User, actor: Actor, **more: Any) -> None:
    """A change of who may do what, in the audit trail and the log; the last thing that a transaction does."""
    words = ", ".join([what, *(f"{key}: {value}" for key, value in more.items())])
    kind = "roles" if "role" in more else "user"
    ctx.audit.record(session, alert(kind, Who(actor.name, actor.address), words, about=about.name))
    logger("service.users").info(what, user=about.name, by=actor.name, **more)
