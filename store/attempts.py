"""Failed attempts to sign in, counted by name and by address, in the database: a restart does not forgive them.

An attempt is counted before the password is looked at and given back when it was right, so that many at once are no
more than as many. Names are counted whether there is such a user or not, so that nobody learns which there are.
"""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from store.models_base import now
from store.models_users import LoginAttempt

Kind = Literal["user", "address", "setup"]
WINDOW = timedelta(minutes=15)
"""Failures that are further apart than this from their first are counted anew."""
FORGIVEN_AFTER = timedelta(days=1)
LONGEST_LOCK = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Limit:
    """How many failures lock, and for how long at first; each further lock is twice as long, up to LONGEST_LOCK."""

    failures: int
    lock: timedelta


def key(kind: Kind, value: str) -> str:
    """Digest of what is counted. Of IPv6 a network of 64 bits counts: one subscriber has all its addresses."""
    if kind == "address":
        try:
            address = ipaddress.ip_address(value)
            if isinstance(address, ipaddress.IPv6Address):
                value = str(address.ipv4_mapped or ipaddress.ip_network((address, 64), strict=False))
        except ValueError:
            pass  # no address at all (a test, a local socket): counted as it is
    return hashlib.sha256(f"{kind}:{value}".encode("utf-8", "surrogatepass")).hexdigest()


def reserve(session: Session, kind: Kind, value: str, limit: Limit, at: datetime | None = None) -> datetime | None:
    """Count an attempt as failed until it turns out right. Until when it is locked, where it may not be made now."""
    at = at or now()
    row = _row(session, key(kind, value), at)
    if row.locked_until is not None:
        if row.locked_until > at:
            return row.locked_until
        if at - row.locked_until > FORGIVEN_AFTER:
            row.locks = 0
        row.locked_until, row.failures, row.since = None, 0, at
    elif at - row.since > WINDOW:
        if at - row.since > FORGIVEN_AFTER:
            row.locks = 0
        row.failures, row.since = 0, at
    row.failures += 1
    if row.failures >= limit.failures:
        row.locked_until = at + min(limit.lock * 2 ** min(row.locks, 16), LONGEST_LOCK)
        row.locks += 1
    return None


def right(session: Session, kind: Kind, value: str, limit: Limit) -> None:
    """The attempt was right. By name all is forgiven; by address only this one is given back, or somebody with an
    account of their own could try those of others for ever.
    """
    row = session.get(LoginAttempt, key(kind, value), with_for_update=True)
    if row is None:
        return
    if kind != "address":
        session.delete(row)
        return
    if row.failures == limit.failures and row.locked_until is not None:  # locked by this very attempt
        row.locked_until, row.locks = None, max(0, row.locks - 1)
    row.failures = max(0, row.failures - 1)


def forgive(session: Session, kind: Kind, value: str) -> None:
    """Nothing is counted of it any more: an administrator has said so."""
    session.execute(delete(LoginAttempt).where(LoginAttempt.key == key(kind, value)))


def sweep(session: Session) -> int:
    """Forget what is counted no more; how many."""
    old = delete(LoginAttempt).where(
        LoginAttempt.since <= now() - FORGIVEN_AFTER,
        (LoginAttempt.locked_until.is_(None)) | (LoginAttempt.locked_until <= now() - FORGIVEN_AFTER),
    )
    return int(session.execute(old).rowcount)  # type: ignore[attr-defined]


def _row(session: Session, wanted: str, at: datetime) -> LoginAttempt:
    """The row, locked until this transaction ends; made where there is none."""
    locked = select(LoginAttempt).where(LoginAttempt.key == wanted).with_for_update()
    row = session.scalar(locked)
    if row is None:
        try:
            with session.begin_nested():
                session.add(LoginAttempt(key=wanted, failures=0, since=at, locks=0))
        except IntegrityError:  # another began to count at the same moment
            session.expire_all()
        row = session.scalars(locked).one()
    return row
