"""Signing in: by name and password, by the one-time code of a first start. Counted, locked, answered in equal time."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from config.sections import Users
from jobs.context import Context
from service import passwords
from service.errors import Refusal
from service.lock import write_private
from service.logs import logger
from store import attempts, sessions, users
from store.auditwhat import Who, alert, authentication
from store.db import Database
from store.models_base import now
from store.models_users import User

_SETUP = attempts.Limit(10, timedelta(minutes=1))
_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"


class SignInRefused(Refusal):
    """Name or password is wrong; which of them is not said."""

    http_status = 401

    def __init__(self, text: str = "the name or the password is wrong", code: str = "SIGN_IN") -> None:
        super().__init__(text, code)


class TooManyAttempts(Refusal):
    """Locked for a time, whatever the password."""

    http_status = 429

    def __init__(self, until: datetime) -> None:
        self.seconds = max(1, round((until - now()).total_seconds()))
        wait = f"{self.seconds} seconds" if self.seconds < 120 else f"{round(self.seconds / 60)} minutes"
        super().__init__(f"too many failed attempts; try again in {wait}", "TOO_MANY_ATTEMPTS")


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Who is in, and the secret of the new session."""

    user: str
    role: str
    secret: str


def limits(settings: Users) -> tuple[attempts.Limit, attempts.Limit]:
    """Of a name, of an address."""
    lock = timedelta(minutes=settings.lock_minutes)
    return attempts.Limit(settings.failures_per_user, lock), attempts.Limit(settings.failures_per_address, lock)


def by_password(ctx: Context, name: str, password: str, *, address: str, old: str = "") -> SignedIn:
    """A new session; the one of the secret ``old`` ends. Raises SignInRefused, TooManyAttempts."""
    name = users.folded(name)[:256]
    check(ctx, name, password, address=address)
    with ctx.db.begin() as session:
        user = users.by_name(session, name)
        if user.disabled_at is not None:  # since we looked
            raise SignInRefused
        return begun(ctx, session, user, how="password", address=address, old=old)


def check(ctx: Context, name: str, password: str, *, address: str) -> None:
    """That this is the user's password. Raises SignInRefused, TooManyAttempts."""
    db = ctx.db
    by_name, by_address = limits(ctx.settings.users)
    with db.begin() as session:
        until = attempts.reserve(session, "address", address, by_address)
        if until is None:
            until = attempts.reserve(session, "user", name, by_name)
            if until is not None:
                attempts.right(session, "address", address, by_address)  # it was not even tried
    if until is not None:  # what led to the lock was told; a flood shall not fill log and audit trail
        raise TooManyAttempts(until)
    with db.read() as session:
        wanted = select(User).where(User.name == name, User.disabled_at.is_(None))
        user = session.scalar(wanted) if users.possible(name) else None
    kept = user.password if user else None
    if not passwords.verify(kept, password):
        _refused(ctx, user, address, "wrong name or password")
        raise SignInRefused
    assert user is not None
    assert kept is not None
    anew = passwords.hashed(password) if passwords.outdated(kept) else None
    with db.begin() as session:
        attempts.right(session, "user", name, by_name)
        attempts.right(session, "address", address, by_address)
        if anew is not None:
            row = session.get(User, user.id)
            if row is not None and row.password == kept:
                row.password = anew


def begun(ctx: Context, session: Session, user: User, *, how: str, address: str, old: str = "") -> SignedIn:
    """The session of a user who has shown who it is; the last thing that a transaction does."""
    if old:
        sessions.end(session, old)
    lasts = timedelta(hours=ctx.settings.users.session_hours)
    secret = sessions.begin(session, user, how=how, address=address, lasts=lasts)
    ctx.audit.record(session, authentication("login", Who(user.name, address)))
    return SignedIn(user.name, user.role, secret)


def sign_out(ctx: Context, secret: str, name: str, *, address: str) -> None:
    """The session of the secret ends."""
    with ctx.db.begin() as session:
        sessions.end(session, secret)
        ctx.audit.record(session, authentication("logout", Who(name, address)))


def _refused(ctx: Context, user: User | None, address: str, problem: str) -> None:
    """A name that nobody has is not kept: people type passwords where names belong."""
    name = user.name if user is not None else "(no such user)"
    logger("service.users").warning("a sign-in was refused", reason=problem, address=address)
    with ctx.db.begin() as session:
        ctx.audit.record(session, authentication("login", Who(name, address), problem=problem))


class Setup:
    """The one-time code by which the first administrator is made; void as soon as there is a user."""

    def __init__(self, data: Path) -> None:
        """Makes the code and writes it to ``DATA/setup-code`` (0600)."""
        parts = ("".join(secrets.choice(_ALPHABET) for _ in range(4)) for _ in range(3))
        self.code = "-".join(parts)
        self.path = data / "setup-code"
        write_private(self.path, self.code + "\n")

    @classmethod
    def where_needed(cls, db: Database, data: Path) -> Setup | None:
        """None where there is a user already."""
        with db.read() as session:
            needed = not users.any_user(session)
        if needed:
            return cls(data)
        (data / "setup-code").unlink(missing_ok=True)
        return None

    def open(self, db: Database) -> bool:
        """Whether the first user is still to be made."""
        with db.read() as session:
            return not users.any_user(session)

    def first(self, ctx: Context, code: str, name: str, password: str, *, address: str) -> str:
        """Make the first administrator; returns the name. SignInRefused for another code, TooManyAttempts."""
        db, settings = ctx.db, ctx.settings.users
        with db.begin() as session:
            until = attempts.reserve(session, "setup", "", _SETUP)
        if until is not None:
            raise TooManyAttempts(until)
        given = "".join(code.upper().split()).replace("-", "").encode("utf-8", "replace")
        if not hmac.compare_digest(given, self.code.replace("-", "").encode()):
            _refused(ctx, None, address, "wrong set-up code")
            raise SignInRefused("this is not the set-up code of this start", "SETUP_CODE")
        with db.begin() as session:
            attempts.forgive(session, "setup", "")
        name = users.folded(name)
        passwords.require_good(password, user=name, least=settings.password_length)
        hash_ = passwords.hashed(password)
        with db.begin() as session:
            user = users.add_first(session, name, password=hash_, by=f"set-up from {address}"[:64])
            told = alert("user", Who(user.name, address), "the first administrator was made", about=user.name)
            ctx.audit.record(session, told)
        self.path.unlink(missing_ok=True)
        logger("service.users").info("the first administrator was made")
        return user.name
