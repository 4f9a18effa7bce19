"""What differs from robot to robot: the language of its hot folder.

A dialect knows the text of an order, the names that the order's file goes through, the status files, and how to ask for
a cancellation. It has no threads, writes nothing and keeps no state: all of that is ``burners.hotfolder``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Protocol

_LONGEST_STATUS = 4 << 20
_ATTEMPTS = 6


class Phase(StrEnum):
    """How an order stands, as far as files and status of the robot tell."""

    ABSENT = "ABSENT"
    """Neither a file nor the status knows of it."""
    OFFERED = "OFFERED"
    """Its file lies in the folder and the robot has not taken it."""
    QUEUED = "QUEUED"
    """Taken, not begun."""
    WORKING = "WORKING"
    PAUSED = "PAUSED"
    """A person is needed; the message says what for. It goes on by itself."""
    GOOD = "GOOD"
    """Ended, and the robot says that the disc is good."""
    BAD = "BAD"
    """Ended without a good disc, or with a bad one in the output."""
    CANCELLED = "CANCELLED"
    """Ended by a cancellation, and no disc came out."""
    ENDED = "ENDED"
    """Ended, but nothing tells how. The status may follow in a moment; a disc that nobody vouches for is not good."""

    @property
    def final(self) -> bool:
        return self in (Phase.GOOD, Phase.BAD, Phase.CANCELLED)


@dataclass(frozen=True, slots=True)
class RobotJob:
    """One order as the robot shows it."""

    state: Phase
    discs_good: int | None = None
    """None: the robot does not count."""
    discs_bad: int | None = None
    message: str = ""
    """For a person at the robot: raw codes included."""
    progress: float = 0.0
    """0 to 1."""


class RobotState(StrEnum):
    READY = "READY"
    WAITING = "WAITING"
    """It lacks something, or stands still until a person comes."""
    OFFLINE = "OFFLINE"
    """Its status file is missing or says so. That a status is too old, ``burners.hotfolder`` finds out."""
    UNKNOWN = "UNKNOWN"
    """Its status cannot be understood, or it has none."""


@dataclass(frozen=True, slots=True)
class RobotStatus:
    """The robot as its status files show it, read at one moment."""

    state: RobotState
    reason: str = ""
    """What is missing, for people; for OFFLINE and UNKNOWN, why."""
    supplies: Mapping[str, Any] = field(default_factory=dict)
    """Ink, stackers or bins, drive life ... as the robot counts them."""
    drives: Sequence[Mapping[str, Any]] = ()
    """As ``DriverStatus.drives``."""
    beat: str = ""
    """Something that changes as long as the robot's program lives (a counter, the file's time); empty: nothing does."""
    age: float | None = None
    """Seconds since the status was written, by the clock of the file server; None: not known."""
    jobs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Keys and values of each order, by its job ID, as the status has them."""


@dataclass(frozen=True, slots=True)
class RobotOrder:
    """What a dialect needs for an order. All text is clean: no control character, no line end, no tab."""

    job_id: str
    """1 to 32 of ``A-Z a-z 0-9 _ -``; also the name of the order's file, without suffix."""
    image: str
    """The ISO 9660 image, as the robot names it."""
    folder: str
    """The folder of the image, label and further files, as the robot names it."""
    volume_id: str
    family: str
    """``CD``, ``DVD`` or ``BD``."""
    sectors: int
    label: str = ""
    """Label picture or design, as the robot names it; empty: nothing is printed."""
    label_is_design: bool = False
    """The label is the site's design, to be filled with ``label_fields``."""
    label_fields: Mapping[str, str] = field(default_factory=dict)
    """Patient names, dates ...; clean, and encodable in the code page."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Further files that ``companions`` asked for: by name, as the robot names them."""


@dataclass(frozen=True, slots=True)
class TextFile:
    """A file to be written for the robot."""

    name: str
    text: str
    """Lines end with ``\\n`` here; the driver writes the dialect's line ends."""
    encoding: str = ""
    """Empty: the code page of the settings."""


class StatusFolder:
    """Reads files of the robot: their names in any case, never locked, never more than 4 MiB."""

    def __init__(self, folder: Path, *, code_page: str, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._code_page = code_page
        self._clock = clock

    def read(self, name: str) -> StatusText | None:
        """A file by its name below the folder (``Status/SystemStatus.txt``); None where there is none.

        A last line without its end is left out: the robot is still writing it. Raises OSError where the folder cannot
        be read.
        """
        path = self._find(name)
        if path is None:
            return None
        try:
            data, facts = _opened(path)
        except FileNotFoundError:  # renamed at this moment
            return None
        whole = data[: data.rfind(b"\n") + 1]
        text = whole.decode(self._code_page, "replace").replace("\r\n", "\n").replace("\r", "\n").lstrip("\ufeff")
        return StatusText(text, self._clock() - facts.st_mtime, f"{facts.st_mtime_ns}-{facts.st_size}", data)

    def names(self, below: str = "") -> list[str]:
        """Names of the files in the folder or one below it; empty where that is not there."""
        folder = self._find(below) if below else self._folder
        return _names(folder, missing_ok=bool(below)) if folder is not None else []

    def _find(self, name: str) -> Path | None:
        path = self._folder
        for part in name.split("/"):
            if part in ("", ".", "..") or "\\" in part or "\0" in part:
                return None
            if (path / part).exists():
                path = path / part
                continue
            known = _names(path, missing_ok=path != self._folder)
            there = [entry for entry in known if entry.casefold() == part.casefold()]
            if not there:
                return None
            path = path / there[0]
        return path


def _opened(path: Path) -> tuple[bytes, os.stat_result]:
    """Content and facts of a file that the robot's Windows may hold for a moment: tried for a tenth of a second."""
    for attempt in range(_ATTEMPTS):
        try:
            with path.open("rb") as file:
                return file.read(_LONGEST_STATUS), os.fstat(file.fileno())
        except PermissionError:
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(0.02)
    raise AssertionError


def _names(folder: Path, *, missing_ok: bool) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        if not missing_ok:
            raise
        return []


@dataclass(frozen=True, slots=True)
class StatusText:
    text: str
    age: float
    """Seconds since it was written, by the file server's clock."""
    beat: str
    """Its time and size."""
    data: bytes = b""
    """The file as it is, for what is no text by lines (XML)."""


class Dialect(Protocol):
    """The language of one make of robot. Made once for each burner, from the checked common options."""

    name: ClassVar[str]
    option_names: ClassVar[tuple[str, ...]]
    """Settings beyond the common ones."""
    order_suffix: ClassVar[str]
    """Of a new order's file, e.g. ``.JDF``."""
    template: ClassVar[str]
    """Text of an order: ``{name}`` stands for a field of ``fields``. A line with an empty field is left out; a line
    with a field that has several values is repeated."""
    line_end: ClassVar[str]
    code_page: ClassVar[str]
    """Used where the settings name none."""
    forbidden: ClassVar[str]
    """Characters that the label's fields must not have in this language (a comma); they become blanks."""
    example: ClassVar[Mapping[str, Any]]
    """Options of its own with which it works with its simulator; mostly none."""
    label_suffix: ClassVar[str]
    """Of a drawn label that the robot prints: ``.png``, ``.pdf`` or any that ``adapt_label`` makes; empty: none."""
    cancel_answers: ClassVar[tuple[str, ...]]
    """Suffixes that the file of a cancellation gets as the robot's answer; after one it is not asked again."""
    withdraws: ClassVar[bool]
    """An order that the robot has not taken may be taken back by renaming its file, while the robot is at work too.
    (Where the robot is offline, that is done in any case.)"""

    def __init__(self, options: Mapping[str, Any], faults: list[str]) -> None:
        """Takes the options of ``option_names``; appends what is wrong with them to ``faults``."""
        ...

    def companions(self, order: RobotOrder) -> Sequence[TextFile]:
        """Further files beside the image (a merge file); ``order.files`` has their names for the robot afterwards."""
        ...

    def adapt_label(self, drawn: Path) -> Path:
        """Make the robot's kind of picture of a drawn label (``.png`` or ``.pdf``); most return it as it is."""
        ...

    def fields(self, order: RobotOrder) -> Mapping[str, str | Sequence[str]]:
        """What the template's names stand for."""
        ...

    def escape(self, value: str) -> str:
        """Make a value harmless in the language of the order (XML); most return it as it is."""
        ...

    def cancellation(self, job_id: str) -> TextFile | None:
        """The file that asks the robot to cancel, to be written in the hot folder; None where there is no such way."""
        ...

    def status(self, folder: StatusFolder) -> RobotStatus:
        """How the robot stands. Raises OSError where the folder cannot be read."""
        ...

    def judge(self, job_id: str, suffixes: frozenset[str], status: RobotStatus) -> RobotJob:
        """How an order stands.

        ``suffixes`` are those of the files in the hot folder whose name is the job ID, in capitals (``.INP``): read
        before the status was. Anything that is not understood is WORKING or ENDED, never GOOD.
        """
        ...
