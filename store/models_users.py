"""Tables of users: accounts, sessions, API tokens, and what went wrong at signing in.

Secrets are not kept: of a session's cookie and of an API token only the SHA-256 digest, of a password the Argon2 hash.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from store.models_base import Base, BigId


class User(Base):
    """Somebody who may sign in."""

    __tablename__ = "user_account"
    __table_args__ = (UniqueConstraint("issuer", "subject"), {"sqlite_autoincrement": True})
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    """In lower case, of a few characters only; see ``store.users``."""
    role: Mapped[str] = mapped_column(String(16))
    """Of config/roles.toml."""
    password: Mapped[str | None] = mapped_column(Text)
    """Argon2id hash in PHC form; None: cannot sign in by a password."""
    issuer: Mapped[str | None] = mapped_column(String(512))
    """OpenID Connect: who vouches for this user (``iss``) ..."""
    subject: Mapped[str | None] = mapped_column(String(255))
    """... and who that is there (``sub``). Both None: a user of our own."""
    created_at: Mapped[datetime]
    created_by: Mapped[str] = mapped_column(String(64))
    password_at: Mapped[datetime | None]
    """When the password was set."""
    signed_in_at: Mapped[datetime | None]
    """When this user signed in last."""
    disabled_at: Mapped[datetime | None]
    """May not sign in, and nothing of this user's counts any more; None: may."""


class UserSession(Base):
    """Somebody is signed in at a browser."""

    __tablename__ = "user_session"
    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    """SHA-256 of the cookie's value, hexadecimal."""
    user_id: Mapped[int] = mapped_column(ForeignKey("user_account.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    """When it was used last, to the minute or so."""
    expires_at: Mapped[datetime] = mapped_column(index=True)
    """It ends then, used or not."""
    how: Mapped[str] = mapped_column(String(8))
    """``password`` or ``oidc``."""
    address: Mapped[str] = mapped_column(String(64))
    """Where it was begun."""


class ApiToken(Base):
    """A program may act for a user, within scopes and until a time."""

    __tablename__ = "api_token"
    __table_args__ = ({"sqlite_autoincrement": True},)
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    """What it is for."""
    user_id: Mapped[int] = mapped_column(ForeignKey("user_account.id", ondelete="CASCADE"), index=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    """SHA-256 of the token, hexadecimal."""
    prefix: Mapped[str] = mapped_column(String(16))
    """How the token begins, so that people can tell which it is."""
    scopes: Mapped[list[Any]]
    """Rights, or roles for all that they may (config/roles.toml); the user's own role bounds them."""
    created_at: Mapped[datetime]
    created_by: Mapped[str] = mapped_column(String(64))
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
    """When it was used last, to the minute or so."""
    revoked_at: Mapped[datetime | None]


class LoginAttempt(Base):
    """Failed attempts to sign in, by a name (whether there is such a user or not) or from an address."""

    __tablename__ = "login_attempt"
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    """SHA-256 of the kind and the name or address: people type passwords where names belong."""
    failures: Mapped[int]
    since: Mapped[datetime]
    """When they began to be counted."""
    locked_until: Mapped[datetime | None]
    locks: Mapped[int]
    """How often it was locked since anything went well; each time for longer."""


class OidcLogin(Base):
    """Somebody was sent to the OpenID provider and has not come back."""

    __tablename__ = "oidc_login"
    state: Mapped[str] = mapped_column(String(64), primary_key=True)
    """SHA-256 of the request's ``state``."""
    browser: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the cookie that the browser got with it."""
    nonce: Mapped[str] = mapped_column(String(64))
    verifier: Mapped[str] = mapped_column(String(128))
    """The code verifier of PKCE (RFC 7636)."""
    next: Mapped[str] = mapped_column(Text)
    """The page that was wanted."""
    created_at: Mapped[datetime]
