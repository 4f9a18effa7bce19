"""Users: who may sign in, as what.

A change of what somebody may do ends this user's sessions in the same transaction.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from config import roles
from config.worded import Worded
from store.db import next_numbers
from store.models_base import now
from store.models_users import ApiToken, User, UserSession

_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
ADMINISTRATOR = "administrator"


class UserError(Exception):
    """Something about a user cannot be done; the text says why."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class BadUser(UserError):
    """A value can be none of a user."""


class UnknownUser(UserError):
    """There is no such user."""


def folded(name: str) -> str:
    """A user's name as it is kept and compared: in lower case, without blanks around it."""
    return name.strip().lower()


def possible(name: str) -> bool:
    """Whether a user can have that name at all: what cannot is not asked of the database."""
    return _NAME.fullmatch(name) is not None


def checked_role(role: str) -> str:
    """Raises BadUser for what is no role."""
    if role not in roles.roles():
        raise BadUser("ROLE", f"{role!r} is no role; there are {', '.join(roles.roles())}")
    return role


def any_user(session: Session) -> bool:
    """Whether anybody was ever entered who is still there."""
    return session.scalar(select(User.id).limit(1)) is not None


def add(
    session: Session,
    name: str,
    role: str,
    *,
    by: str,
    password: str | None = None,
    identity: tuple[str, str] | None = None,
) -> User:
    """Enter a user. ``password`` is a hash; ``identity`` issuer and subject of one whom a provider vouches for.

    Raises BadUser for a name or role that can be none, UserError where the name is taken.
    """
    name = folded(name)
    if not possible(name):
        words = "a user's name has 1 to 64 of a-z 0-9 . _ @ - and begins with a letter or digit"
        raise BadUser("USER_NAME", Worded("user_name", words))
    if name == "cli":
        raise BadUser("USER_NAME", "the name cli is the command line's")
    checked_role(role)
    _one_at_a_time(session)
    if session.scalar(select(User.id).where(User.name == name)) is not None:
        raise UserError("USER_KNOWN", Worded("user_known", "there is a user {user} already", user=name))
    at = now()
    issuer, subject = identity or (None, None)
    user = User(
        name=name,
        role=role,
        password=password,
        issuer=issuer,
        subject=subject,
        created_at=at,
        created_by=by,
        password_at=at if password else None,
    )
    session.add(user)
    session.flush()
    return user


def add_first(session: Session, name: str, *, password: str, by: str) -> User:
    """Enter the first user, an administrator. UserError where there is a user: of two at once, one comes first."""
    _one_at_a_time(session)
    if any_user(session):
        raise UserError("SET_UP", "Burnish is set up already; sign in, or ask an administrator for an account")
    return add(session, name, ADMINISTRATOR, by=by, password=password)


def listed(session: Session) -> list[User]:
    """All of them, by name."""
    return list(session.scalars(select(User).order_by(User.name)))


def by_name(session: Session, name: str, *, lock: bool = False) -> User:
    """``lock``: nobody else changes the user until the end of the transaction. Raises UnknownUser."""
    wanted = folded(name)
    query = select(User).where(User.name == wanted)
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    user = session.scalar(query) if possible(wanted) else None
    if user is None:
        raise UnknownUser("NOT_FOUND", Worded("no_user", "there is no such user; `burnish users list` names them"))
    return user


def by_identity(session: Session, issuer: str, subject: str) -> User | None:
    """Whom a provider knows under that subject."""
    return session.scalar(select(User).where(User.issuer == issuer, User.subject == subject))


def set_role(session: Session, user: User, role: str, *, forced: bool = False) -> None:
    """From now on, also for requests of sessions and tokens. Raises UserError for the last administrator.

    ``forced``: whoever gives the roles is not us (an OpenID provider), and the last administrator may go.
    """
    checked_role(role)
    if user.role == role:
        return
    if role != ADMINISTRATOR and not forced:
        _keeps_an_administrator(session, user)
    user.role = role
    end_sessions(session, user)


def set_password(session: Session, user: User, password: str, *, but: str = "") -> None:
    """``password`` is a hash. Ends the user's sessions, but the one of the digest ``but``.

    UserError for a user of an OpenID provider: who signs in there has no password here.
    """
    if user.issuer is not None:
        raise UserError("OIDC_USER", f"{user.name} signs in by the OpenID provider and has no password here")
    user.password, user.password_at = password, now()
    end_sessions(session, user, but=but)


def disable(session: Session, user: User) -> None:
    """No sign-in, no session, no token of this user counts from now on. UserError for the last administrator."""
    if user.disabled_at is None:
        _keeps_an_administrator(session, user)
        user.disabled_at = now()
    end_sessions(session, user)


def enable(session: Session, user: User) -> None:
    """May sign in again; tokens count again."""
    user.disabled_at = None


def remove(session: Session, user: User) -> None:
    """With sessions and tokens. UserError for the last administrator."""
    _keeps_an_administrator(session, user)
    session.execute(delete(UserSession).where(UserSession.user_id == user.id))
    session.execute(delete(ApiToken).where(ApiToken.user_id == user.id))
    session.delete(user)
    session.flush()


def end_sessions(session: Session, user: User, *, but: str = "") -> int:
    """End all sessions of a user, but that of a digest; how many."""
    ended = session.execute(delete(UserSession).where(UserSession.user_id == user.id, UserSession.digest != but))
    return int(ended.rowcount)  # type: ignore[attr-defined]


def document(user: User) -> dict[str, Any]:
    """A user as the API tells of one."""
    return {
        "user": user.name,
        "role": user.role,
        "kind": "local" if user.issuer is None else "oidc",
        "password": user.password is not None,
        "disabled": user.disabled_at is not None,
        "created_at": _text(user.created_at),
        "created_by": user.created_by,
        "password_at": _text(user.password_at),
        "signed_in_at": _text(user.signed_in_at),
    }


def _keeps_an_administrator(session: Session, user: User) -> None:
    """Somebody must be left who can give rights; of two who would go at once, one comes first and the other is told."""
    if user.role != ADMINISTRATOR or user.disabled_at is not None:
        return
    _one_at_a_time(session)
    others = select(func.count()).where(User.role == ADMINISTRATOR, User.disabled_at.is_(None), User.id != user.id)
    if not session.scalar(others):
        raise UserError(
            "LAST_ADMINISTRATOR",
            Worded("last_administrator", "{user} is the last administrator; make another one first", user=user.name),
        )


def _one_at_a_time(session: Session) -> None:
    """Hold, until this transaction ends, the row that every such change takes."""
    next_numbers(session, "user_changes")


def _text(at: datetime | None) -> str | None:
    return at.isoformat() if at else None
