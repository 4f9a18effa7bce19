"""Waiting by looking again, with an end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Seen = TypeVar("Seen")


def wait_for(condition: Callable[[], Seen], what: str, *, seconds: float = 120.0, every: float = 0.01) -> Seen:
    """Look ``every`` so many seconds until ``condition`` holds, and give what it said; fail the test after ``seconds``.

    A file that is gone when it is looked at means "not yet": others make and remove files meanwhile.
    """
    deadline = time.monotonic() + seconds
    while True:
        missing: FileNotFoundError | None = None
        try:
            if seen := condition():
                return seen
        except FileNotFoundError as error:
            missing = error
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain for {what}") from missing
        time.sleep(every)


def until(condition: Callable[[], Seen], seconds: float = 120.0) -> Seen:
    """``wait_for``, where the condition says what is waited for."""
    return wait_for(condition, "it to happen", seconds=seconds, every=0.02)
