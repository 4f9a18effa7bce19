"""Sizes of the campaigns: small and seeded in ``make test``, full with ``BURNISH_SOAK=full`` (``make soak``)."""

from __future__ import annotations

import os

FULL = os.environ.get("BURNISH_SOAK", "") == "full"
SEED = int(os.environ.get("BURNISH_SEED", "20240229"))
"""Of every random choice in a campaign; printed with its result."""


def size(small: int, full: int) -> int:
    """How many rounds a campaign has in this run."""
    return full if FULL else small


def told(campaign: str, result: str, *, seed: int | str = SEED) -> None:
    """Print the one line of a campaign: how much was done and what came of it, and the seed to do it again."""
    print(f"campaign {campaign}, {'full' if FULL else 'small'}, seed {seed}: {result}")
