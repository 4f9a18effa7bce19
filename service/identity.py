"""Who asks: found by what a request brings, a bearer token or a session's cookie."""

from __future__ import annotations

import hashlib
import hmac
from datetime import timedelta
from typing import TYPE_CHECKING

from service.api.access import Actor
from store import sessions
from store.models_base import now

if TYPE_CHECKING:
    from datetime import datetime

    from config.sections import Users
    from store.db import Database


def csrf(secret: str) -> str:
    """What forms must bring of whoever has this secret in a cookie: nobody makes it who does not know the secret."""
    return hmac.new(secret.encode(), b"csrf", hashlib.sha256).hexdigest()


class Identity:
    """Looks up sessions and tokens, at every request: what was ended or changed counts at once."""

    def __init__(self, db: Database, settings: Users) -> None:
        self._db = db
        self._idle = timedelta(minutes=settings.idle_minutes)

    def by_token(self, token: str, address: str) -> Actor | None:
        """Whoever an API token acts for."""
        if not token.startswith(sessions.TOKEN_PREFIX):
            return None
        at = now()
        found = sessions.find_token(self._db, token, at=at)
        if found is None:
            return None
        if _long_ago(found.used_at, at):
            with self._db.begin() as session:
                sessions.token_used(session, found.token_id, at)
        return Actor(found.name, found.role, "token", found.user_id, found.scopes, address=address)

    def by_session(self, secret: str, address: str, *, in_use: bool = True) -> Actor | None:
        """Whoever is signed in. ``in_use``: a person does something, so the session is not idle."""
        at = now()
        found = sessions.find(self._db, secret, idle=self._idle, at=at)
        if found is None:
            return None
        if in_use and _long_ago(found.used_at, at):
            with self._db.begin() as session:
                sessions.seen(session, found.digest, at)
        return Actor(found.name, found.role, "session", found.user_id, None, found.digest, csrf(secret), address)


def _long_ago(then: datetime | None, at: datetime) -> bool:
    return then is None or (at - then).total_seconds() >= sessions.SEEN_SECONDS
