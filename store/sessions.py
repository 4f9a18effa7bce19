"""Sessions of browsers, API tokens of programs: found by the digest of a secret that only the other side has."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, delete, or_, select, update
from sqlalchemy.orm import Session

from config import roles
from store.db import Database
from store.models_base import now
from store.models_users import ApiToken, OidcLogin, User, UserSession
from store.users import BadUser, UnknownUser, UserError

TOKEN_PREFIX = "burnish_"
SEEN_SECONDS = 60
"""That something was used is written down no more often."""


def digest(secret: str) -> str:
    """Of a secret that is random and long: no salt, no slow hash is needed."""
    return hashlib.sha256(secret.encode()).hexdigest()


def begin(session: Session, user: User, *, how: str, address: str, lasts: timedelta) -> str:
    """Sign a user in; returns the new session's secret."""
    secret, at = secrets.token_urlsafe(32), now()
    session.add(
        UserSession(
            digest=digest(secret),
            user_id=user.id,
            created_at=at,
            seen_at=at,
            expires_at=at + lasts,
            how=how,
            address=address[:64],
        )
    )
    user.signed_in_at = at
    session.flush()
    return secret


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a session or a token."""

    user_id: int
    name: str
    role: str
    used_at: datetime | None
    """When it was used last, as far as it was written down."""
    digest: str
    token_id: int = 0
    scopes: tuple[str, ...] = ()


# Asked at every request, so without what the ORM costs.
_OF_SESSION = (
    select(User.id, User.name, User.role, UserSession.seen_at)
    .join(User, User.id == UserSession.user_id)
    .where(
        UserSession.digest == bindparam("digest"),
        UserSession.expires_at > bindparam("at"),
        UserSession.seen_at > bindparam("since"),
        User.disabled_at.is_(None),
    )
)
_OF_TOKEN = (
    select(User.id, User.name, User.role, ApiToken.used_at, ApiToken.id, ApiToken.scopes)
    .join(User, User.id == ApiToken.user_id)
    .where(
        ApiToken.digest == bindparam("digest"),
        ApiToken.expires_at > bindparam("at"),
        ApiToken.revoked_at.is_(None),
        User.disabled_at.is_(None),
    )
)


def find(db: Database, secret: str, *, idle: timedelta, at: datetime) -> Holder | None:
    """Whose session that is; None where it ended, was idle for too long, or its user may not be here any more."""
    key = digest(secret)
    with db.engine.connect().execution_options(burnish_read_only=True) as connection:
        row = connection.execute(_OF_SESSION, {"digest": key, "at": at, "since": at - idle}).one_or_none()
    return Holder(row[0], row[1], row[2], row[3], key) if row is not None else None


def seen(session: Session, session_digest: str, at: datetime) -> None:
    """Somebody uses the session. Says nothing where it has just ended."""
    session.execute(
        update(UserSession).where(UserSession.digest == session_digest, UserSession.seen_at < at).values(seen_at=at)
    )


def end(session: Session, secret: str) -> None:
    session.execute(delete(UserSession).where(UserSession.digest == digest(secret)))


def of_user(session: Session, user_id: int) -> list[UserSession]:
    """The newest first."""
    return list(
        session.scalars(
            select(UserSession).where(UserSession.user_id == user_id).order_by(UserSession.created_at.desc())
        )
    )


def sweep(session: Session, *, idle: timedelta) -> int:
    """Forget sessions that have ended, sign-ins by OpenID that were given up, tokens long gone; how many."""
    at = now()
    count = 0
    for statement in (
        delete(UserSession).where(or_(UserSession.expires_at <= at, UserSession.seen_at <= at - idle)),
        delete(OidcLogin).where(OidcLogin.created_at <= at - timedelta(hours=1)),
        delete(ApiToken).where(
            or_(ApiToken.expires_at <= at - timedelta(days=366), ApiToken.revoked_at <= at - timedelta(days=366))
        ),
    ):
        count += int(session.execute(statement).rowcount)  # type: ignore[attr-defined]
    return count


# --- API tokens -------------------------------------------------------------------------------------------------------


def make_token(
    session: Session, user: User, *, name: str, scopes: list[str], lasts: timedelta, by: str
) -> tuple[ApiToken, str]:
    """A new token of a user, and its text, which is nowhere kept. Raises BadUser for a name or scopes that are none,
    and for scopes that the user does not have.
    """
    name = name.strip()
    if not 1 <= len(name) <= 64 or not name.isprintable():
        raise BadUser("TOKEN_NAME", "a token's name says what it is for, in 1 to 64 printable characters")
    if not scopes:
        raise BadUser("TOKEN_SCOPE", "a token needs a scope: a right, or a role for all that it may")
    if wrong := roles.wrong_scopes(scopes):
        raise BadUser("TOKEN_SCOPE", f"{wrong[0]!r} is no right and no role; docs/users.md lists them")
    beyond = [scope for scope in scopes if not _within(user.role, scope)]
    if beyond:
        raise BadUser("TOKEN_SCOPE", f"{user.name} is {user.role} and has not {', '.join(beyond)}")
    secret, at = TOKEN_PREFIX + secrets.token_urlsafe(32), now()
    token = ApiToken(
        name=name,
        user_id=user.id,
        digest=digest(secret),
        prefix=secret[: len(TOKEN_PREFIX) + 4],
        scopes=sorted(set(scopes)),
        created_at=at,
        created_by=by,
        expires_at=at + lasts,
    )
    session.add(token)
    session.flush()
    return token, secret


def _within(role: str, scope: str) -> bool:
    order = roles.roles()
    return order.index(scope) <= order.index(role) if scope in order else roles.has(role, scope)


def find_token(db: Database, secret: str, *, at: datetime) -> Holder | None:
    """Whose token that is; None where it is none, has expired, was revoked, or its user may not be here any more."""
    key = digest(secret)
    with db.engine.connect().execution_options(burnish_read_only=True) as connection:
        row = connection.execute(_OF_TOKEN, {"digest": key, "at": at}).one_or_none()
    return Holder(row[0], row[1], row[2], row[3], key, row[4], tuple(row[5])) if row is not None else None


def token_used(session: Session, token_id: int, at: datetime) -> None:
    session.execute(update(ApiToken).where(ApiToken.id == token_id).values(used_at=at))


def tokens(session: Session, user_id: int | None = None) -> list[tuple[ApiToken, str]]:
    """All tokens, or those of a user, the newest first, each with its user's name."""
    wanted = select(ApiToken, User.name).join(User, User.id == ApiToken.user_id).order_by(ApiToken.id.desc())
    if user_id is not None:
        wanted = wanted.where(ApiToken.user_id == user_id)
    return [(row[0], row[1]) for row in session.execute(wanted)]


def revoke(session: Session, token_id: int, user_id: int | None = None) -> tuple[ApiToken, str]:
    """It counts no more; again is no error. UnknownUser where there is none (of that user)."""
    wanted = select(ApiToken, User.name).join(User, User.id == ApiToken.user_id).where(ApiToken.id == token_id)
    if user_id is not None:
        wanted = wanted.where(ApiToken.user_id == user_id)
    row = session.execute(wanted).one_or_none()
    if row is None:
        raise UnknownUser("NOT_FOUND", "there is no such token; `burnish tokens list` names them")
    token: ApiToken = row[0]
    token.revoked_at = token.revoked_at or now()
    return token, row[1]


def token_document(token: ApiToken, user: str) -> dict[str, Any]:
    """A token as the API tells of it: not itself."""
    at = now()
    return {
        "token": f"T{token.id}",
        "name": token.name,
        "user": user,
        "begins": token.prefix,
        "scopes": list(token.scopes),
        "state": "REVOKED" if token.revoked_at else "EXPIRED" if token.expires_at <= at else "VALID",
        "created_at": token.created_at.isoformat(),
        "created_by": token.created_by,
        "expires_at": token.expires_at.isoformat(),
        "used_at": token.used_at.isoformat() if token.used_at else None,
    }


# --- Sign-ins by OpenID Connect on their way --------------------------------------------------------------------------


def send_off(session: Session, *, state: str, browser: str, nonce: str, verifier: str, then: str) -> None:
    """Somebody goes to the provider, and shall come back with ``state`` and the cookie ``browser``."""
    session.add(
        OidcLogin(
            state=digest(state), browser=digest(browser), nonce=nonce, verifier=verifier, next=then, created_at=now()
        )
    )


def forget_sent_off(session: Session, *, within: timedelta, most: int) -> None:
    """Those who did not come back in time, and the first of those who are more than ``most``."""
    session.execute(delete(OidcLogin).where(OidcLogin.created_at < now() - within))
    last = select(OidcLogin.created_at).order_by(OidcLogin.created_at.desc()).offset(most).limit(1)
    session.execute(delete(OidcLogin).where(OidcLogin.created_at <= last.scalar_subquery()))


def come_back(session: Session, *, state: str, browser: str, within: timedelta) -> OidcLogin:
    """What was sent off; it is gone then. UserError for a state that is unknown, used, old, or another browser's."""
    row = session.get(OidcLogin, digest(state), with_for_update=True)
    if row is None or row.browser != digest(browser) or row.created_at < now() - within:
        raise UserError("OIDC_STATE", "this sign-in was not begun here, or too long ago; begin it again")
    session.delete(row)
    session.flush()
    return row
