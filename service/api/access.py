"""Who asks, what they may do, and how routes come to the operations of the running service.

``service.auth.Guard`` finds out who asks, before any route is looked at. Each route and page names the right that it
takes (config/roles.toml), or that it is for everybody:

    @router.get("/jobs", dependencies=[needs("jobs.read")])
    def jobs(ops: Ops) -> ...

    @router.post("/jobs")
    def burn(ops: Ops, actor: Annotated[Actor, needs("jobs.make")], body: JobBody) -> ...
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import anyio.to_thread
from fastapi import Depends, Request

from config import roles
from jobs.context import Context
from service.errors import Refusal
from service.operations import StoreOperations

LOOK_AGAIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks."""

    name: str
    """Of the user; ``cli`` for the command line of whoever runs the service."""
    role: str
    how: Literal["local", "session", "token"]
    """By the command line's token of this start, signed in at the page, or by an API token."""
    user_id: int | None = None
    scopes: tuple[str, ...] | None = None
    """Of an API token: rights, or roles for all that they may; None: everything that the role may."""
    session: str = ""
    """Digest of the session's secret, where there is a session."""
    csrf: str = ""
    """What a form or a header X-CSRF-Token must bring, where there is a session."""
    address: str = ""
    """Where the request came from."""

    def may(self, right: str) -> bool:
        """Whether this request may do what takes ``right``."""
        return roles.has(self.role, right) and (self.scopes is None or roles.allows(self.scopes, right))


class NotSignedIn(Refusal):
    """Nobody has said who asks."""

    http_status = 401

    def __init__(self, text: str = "a valid token or a session is needed") -> None:
        super().__init__(text, "NOT_SIGNED_IN")


class NotAllowed(Refusal):
    """Whoever asks may not do this."""

    http_status = 403

    def __init__(self, text: str) -> None:
        super().__init__(text, "NOT_ALLOWED")


def actor_of(request: Request) -> Actor | None:
    """Who asks; None where nobody has said so (which only gets as far as what is for everybody)."""
    actor = request.scope.get("state", {}).get("actor")
    return actor if isinstance(actor, Actor) else None


async def while_allowed(request: Request, right: str, stream: AsyncIterator[str]) -> AsyncIterator[str]:
    """Pass a long stream on for as long as whoever listens may: sessions end, tokens are revoked, roles change.

    Before a piece is passed on it is looked up again, at most every few seconds.
    """
    again: Callable[[], Actor | None] | None = request.scope.get("state", {}).get("again")
    looked = time.monotonic()
    async for piece in stream:
        if again is not None and time.monotonic() - looked >= LOOK_AGAIN_SECONDS:
            actor = await anyio.to_thread.run_sync(again)
            if actor is None or not actor.may(right):
                return
            looked = time.monotonic()
        yield piece


class Needs:
    """A dependency that lets only those pass who have the right, and gives them to the route."""

    def __init__(self, right: str) -> None:
        if right not in roles.rights():
            raise ValueError(f"{right!r} is no right of config/roles.toml")
        self.right = right

    async def __call__(self, request: Request) -> Actor:
        actor = actor_of(request)
        if actor is None:
            raise NotSignedIn
        require(actor, self.right)
        return actor


def require(actor: Actor, right: str) -> None:
    """NotAllowed for whom has not the right: of what a request may ask for besides that which its route names."""
    if actor.may(right):
        return
    known = roles.rights()[right]
    lacks = "its token has not the scope for it" if roles.has(actor.role, right) else f"is {actor.role}"
    raise NotAllowed(f"{actor.name} {lacks}; this needs the right {known.name} ({known.role}): {known.text}")


class Public:
    """A dependency that marks a route as one for everybody."""

    async def __call__(self, request: Request) -> None:
        return None


def needs(right: str) -> Any:
    """For ``dependencies=[needs("jobs.read")]``, or ``Annotated[Actor, needs("jobs.make")]`` to know who asks.

    ValueError at once for a right that config/roles.toml does not have.
    """
    return Depends(Needs(right))


signed_in = needs("account.own")
"""For pages that everybody has who is signed in; who is not, was sent to /login by the guard."""

for_everybody = Depends(Public())
"""For routes that need no sign-in; the guard must know their paths, too (service.auth)."""


async def _operations(request: Request) -> StoreOperations:
    operations: StoreOperations = request.app.state.operations
    return operations


async def _context(request: Request) -> Context:
    operations: StoreOperations = request.app.state.operations
    return operations.context


Ops = Annotated[StoreOperations, Depends(_operations)]
Ctx = Annotated[Context, Depends(_context)]
"""The settings in force, the open database, the spool."""
