"""The programs that burn: xorriso and cdrskin."""

from __future__ import annotations

from burners.drive_cdrskin import Cdrskin
from burners.drive_tools import Tool
from burners.xorriso import Xorriso

_PROGRAMS: dict[str, type[Cdrskin | Xorriso]] = {"xorriso": Xorriso, "cdrskin": Cdrskin}
TOOLS = tuple(_PROGRAMS)


def tool_of(name: str, program: str = "") -> Tool:
    """``xorriso`` or ``cdrskin``; ``program``: where it is, else it is looked for on PATH."""
    return _PROGRAMS[name](program or name)
