"""The ring of a disc that can be printed on, and the four zones of it that labels have.

Millimetres from the centre of the disc, y downwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

ZONES = ("top", "left", "right", "bottom")
_MIDDLE = 0.30
"""Half of the height of the zones beside the hole, as a part of the outer radius, where the hole is smaller."""
_GAP = 1.0
"""Between zones."""


@dataclass(frozen=True, slots=True)
class Ring:
    """Radii, margins already taken off."""

    outer: float
    inner: float

    @property
    def middle(self) -> float:
        """Half of the height of the zones beside the hole."""
        return max(self.inner, _MIDDLE * self.outer)

    def contains(self, left: float, top: float, right: float, bottom: float, *, slack: float = 1e-6) -> bool:
        """Whether a box lies wholly on the ring."""
        far = max(abs(left), abs(right)) ** 2 + max(abs(top), abs(bottom)) ** 2
        near_x = 0.0 if left <= 0 <= right else min(abs(left), abs(right))
        near_y = 0.0 if top <= 0 <= bottom else min(abs(top), abs(bottom))
        return far <= (self.outer + slack) ** 2 and near_x**2 + near_y**2 >= (self.inner - slack) ** 2


@dataclass(frozen=True, slots=True)
class Zone:
    """A part of the ring in which rows stand one below the other."""

    name: str
    ring: Ring

    @property
    def top(self) -> float:
        return {"top": -self.ring.outer, "bottom": self.ring.middle + _GAP / 2}.get(self.name, -self.ring.middle)

    @property
    def bottom(self) -> float:
        return {"top": -self.ring.middle - _GAP / 2, "bottom": self.ring.outer}.get(self.name, self.ring.middle)

    def span(self, top: float, bottom: float) -> tuple[float, float]:
        """Left and right end of the room that a box from ``top`` to ``bottom`` has; no room where they are equal."""
        if top < self.top - 1e-9 or bottom > self.bottom + 1e-9:
            return 0.0, 0.0
        far = max(abs(top), abs(bottom))
        half = sqrt(max(0.0, self.ring.outer**2 - far**2))
        if self.name in ("top", "bottom"):
            return -half, half
        near = 0.0 if top <= 0 <= bottom else min(abs(top), abs(bottom))
        hole = max(sqrt(max(0.0, self.ring.inner**2 - near**2)), _GAP / 2)
        if half <= hole:
            return 0.0, 0.0
        return (-half, -hole) if self.name == "left" else (hole, half)
