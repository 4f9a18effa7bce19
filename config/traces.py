"""How a log tells of an error that nobody foresaw: its kind and where it came from, never its words.

What libraries say of a value quotes it, and values here are names and IDs of patients. Who looks for a fault, with data
of nobody, sets ``BURNISH_DEBUG=1`` and is shown the words, too.
"""

from __future__ import annotations

import os
import traceback
from typing import Any

_DEPTH = 10
"""Errors that led to one another; more tell nothing new."""


def told(error: BaseException) -> str:
    """The error and those that it came from, the first one first, each with its way through the code."""
    if os.environ.get("BURNISH_DEBUG"):
        return "".join(traceback.format_exception(error)).rstrip("\n")
    chain: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and len(chain) < _DEPTH and at not in chain:
        chain.append(at)
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    return "\n".join(_one(each) for each in reversed(chain))


def _one(error: BaseException) -> str:
    frames = "".join(traceback.format_tb(error.__traceback__))
    kind = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    words = f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
    return f"Traceback (most recent call last):\n{frames}{kind}{words}"


def formatted(exc_info: Any) -> str:
    """The same of what ``sys.exc_info()`` gives; empty for none."""
    error = exc_info[1] if isinstance(exc_info, tuple) else exc_info
    return told(error) if isinstance(error, BaseException) else ""
