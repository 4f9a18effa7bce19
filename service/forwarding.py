"""Sending on what was just taken in: ``burnish import --to NODE`` and what watched places bring."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from service.contract import Document

AT_ONCE = 5000
"""Instances of one association."""

Send = Callable[[list[int]], Document]
"""Sends instances of these numbers: the document of ``burnish send``."""


def send_on(taken: Sequence[int], send: Send) -> Document:
    """Send each of these instances once; one document of all, as ``burnish send`` has it.

    By number and not by UID: of two instances under one UID, it is the one that was brought which goes on.
    """
    numbers = list(dict.fromkeys(taken))
    whole: dict[str, Any] = {"instances": 0, "sent": 0, "warnings": [], "failed": []}
    for start in range(0, len(numbers), AT_ONCE):
        part = send(numbers[start : start + AT_ONCE])
        whole["node"] = part["node"]
        for key in ("instances", "sent", "warnings", "failed"):
            whole[key] += part[key]
    return whole
