"""Two names for one place: a folder as we see it, and as the robot's computer sees it (a share, a drive letter)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

_WINDOWS = re.compile(r"[A-Za-z]:[\\/]?|\\\\")
_HOSTILE = re.compile(r'[\x00-\x1f"*/:<>?\\|]')


class OutsideShare(ValueError):
    """A path that the robot cannot reach."""


@dataclass(frozen=True, slots=True)
class PathMap:
    """A local folder and the robot's name for it."""

    local: Path
    robot: str

    def to_robot(self, path: Path) -> str:
        """The robot's name for a file in the folder. Raises OutsideShare for any other."""
        inside = _inside(self.local, path)
        if inside is None:
            raise OutsideShare(f"{path} is outside of {self.local}, which is all that the robot can reach")
        bad = [part for part in inside.parts if _HOSTILE.search(part)]
        if bad:
            raise OutsideShare(f"{path}: {bad[0]!r} is no name for the robot's computer")
        if _WINDOWS.match(self.robot):
            return str(PureWindowsPath(self.robot, *inside.parts))
        return str(PurePosixPath(self.robot, *inside.parts))

    def to_local(self, name: str) -> Path:
        """Our path of what the robot names so; simulators use it. Raises OutsideShare."""
        windows = bool(_WINDOWS.match(self.robot))
        given: PureWindowsPath | PurePosixPath = PureWindowsPath(name) if windows else PurePosixPath(name)
        base: PureWindowsPath | PurePosixPath = PureWindowsPath(self.robot) if windows else PurePosixPath(self.robot)
        if not given.is_relative_to(base) or ".." in given.parts:
            raise OutsideShare(f"the robot cannot reach {name!r}; it has {self.robot!r}")
        return self.local.joinpath(*given.relative_to(base).parts)


def _inside(folder: Path, path: Path) -> Path | None:
    """The path below the folder, links followed; None where it leads out."""
    resolved, base = path.resolve(), folder.resolve()
    return resolved.relative_to(base) if resolved.is_relative_to(base) else None
