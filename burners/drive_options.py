"""The options of the driver ``drive``, checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from burners.base import BurnerOptionsError
from burners.drive_programs import TOOLS

KNOWN = (
    "drive",
    "drives",
    "tool",
    "program",
    "source",
    "speed",
    "close",
    "erase",
    "cd_rw",
    "simulate",
    "eject",
    "staging",
)
_SPEED = re.compile(r"[0-9]{1,6}(\.[0-9])?[cdbkm]?")
_DRIVES_LIMIT = 16


@dataclass(frozen=True, slots=True)
class Options:
    """See docs/burners/drive.md for what each one means."""

    drives: tuple[str, ...]
    tool: str
    program: str
    stream: bool
    speed: str
    close: bool
    erase: bool
    cd_rw: bool
    simulate: bool
    eject: bool
    staging: Path | None


def check(options: Mapping[str, Any], data: Path) -> Options:
    """Raises BurnerOptionsError that lists every fault."""
    faults = [f"unknown option {key!r}; known are {', '.join(KNOWN)}" for key in options if key not in KNOWN]
    drives = _drives(options, data, faults)
    tool, source = options.get("tool", "xorriso"), options.get("source", "image")
    if tool not in TOOLS:
        faults.append(f"tool: {tool!r} is none of {', '.join(TOOLS)}")
    if source not in ("image", "stream"):
        faults.append(f"source: {source!r} is neither image nor stream")
    speed = str(options.get("speed", ""))
    if speed and not _SPEED.fullmatch(speed):
        faults.append(f"speed: {speed!r} is no speed such as 8 or 4d")
    for key in ("close", "erase", "cd_rw", "simulate", "eject"):
        if not isinstance(options.get(key, False), bool):
            faults.append(f"{key}: {options[key]!r} is neither true nor false")
    for key in ("program", "staging"):
        if not isinstance(options.get(key, ""), str | Path):
            faults.append(f"{key}: {options[key]!r} is no path")
    if faults:
        raise BurnerOptionsError("; ".join(faults))
    staging = options.get("staging", "")
    return Options(
        drives=drives,
        tool=tool,
        program=str(options.get("program", "")),
        stream=source == "stream",
        speed="" if speed == "0" else speed,
        close=options.get("close", True),
        erase=options.get("erase", False),
        cd_rw=options.get("cd_rw", False),
        simulate=options.get("simulate", False),
        eject=options.get("eject", True),
        staging=data / Path(staging).expanduser() if staging else None,
    )


def _drives(options: Mapping[str, Any], data: Path, faults: list[str]) -> tuple[str, ...]:
    one, many = options.get("drive"), options.get("drives")
    if (one is None) == (many is None):
        faults.append(
            'say one of drive = "/dev/sr0" and drives = ["/dev/sr0", "/dev/sr1"]; xorriso -devices lists them'
        )
        return ()
    given = [one] if many is None else many
    if (
        not isinstance(given, list)
        or not given
        or not all(isinstance(drive, str | Path) and str(drive) for drive in given)
    ):
        faults.append(f"{'drive' if many is None else 'drives'}: {one if many is None else many!r} is no drive")
        return ()
    named = tuple(_absolute(str(drive), data) for drive in given)
    if len(set(named)) != len(named) or len(named) > _DRIVES_LIMIT:
        faults.append(f"drives: at most {_DRIVES_LIMIT}, each once")
    faults += [f"drive {drive!r} has a character that no path has" for drive in named if not drive.isprintable()]
    return named


def _absolute(drive: str, data: Path) -> str:
    """``stdio:disc.iso`` is a file in the data folder, like every relative path of the settings."""
    if drive.startswith("stdio:"):
        return f"stdio:{data.absolute() / Path(drive.removeprefix('stdio:')).expanduser()}"
    return str(data.absolute() / drive)
