"""Whose request is being served: known all the way down, so that the audit trail names a person and not a program."""

from __future__ import annotations

from contextvars import ContextVar

from store.auditwhat import OURSELVES, Who

_who: ContextVar[Who | None] = ContextVar("who", default=None)


def begin(name: str, address: str = "") -> None:
    """From here on, in this request, it is this user who asks."""
    _who.set(Who(name, address))


def who() -> Who:
    """Who asks; ourselves where nobody does."""
    return _who.get() or Who(OURSELVES)


def source(default: str) -> str:
    """What a Request has for its source: ``user:NAME`` where a signed-in user asks, else ``default``."""
    asks = _who.get()
    return f"user:{asks.name}"[:64] if asks is not None and asks.name != LOCAL else default


LOCAL = "cli"
"""What the command line is called, whoever runs it."""
