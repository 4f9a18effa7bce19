"""Reading PTBurn's status files: ``SystemStatus.txt`` of the server and ``<RobotName>.txt`` of each robot.

Both are INI text that another machine rewrites while we read, so any line may be missing, cut or nonsense. What cannot
be understood is left out; nothing is guessed. Names and numbers are those of the PTBurn 3 SDK manual (revision 3.24).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from burners.hotfolder_text import clean, number, read_ini

MAX_ROBOTS = 32
_CARTRIDGE = re.compile(r"cartridgetype([0-9]{1,2})")
_DRIVE_JOB = re.compile(r"drivejob([0-9]{1,2})")
_DRIVE = re.compile(r"drivestate([0-9]{1,2})")

Section = Mapping[str, str]
Ini = Mapping[str, Section]
"""Sections by name and their values by key, both in lower case; the last of equal keys counts."""


class Step(IntEnum):
    """``CurrentStatusState``."""

    RECORDING = 0
    READING = 1
    VERIFYING = 2
    PRINTING = 3
    LOADING = 4
    UNLOADING = 5
    WAIT_PRINTER = 6
    WAIT_RECORDER = 7
    FINISHING = 8
    REJECTING = 9
    COMPLETE = 10
    PAUSED = 11
    RESUMED = 12
    ABORTED = 13
    INITIALISING = 14
    FAILED = 15
    PREMASTERING = 16
    SYSTEM_OK = 17

    @property
    def words(self) -> str:
        return self.name.lower().replace("_", " ")


class JobState(IntEnum):
    NOT_STARTED = 0
    RUNNING = 1
    OK = 2
    FAILED = 3
    MOVED = 4
    """To another robot of the same server, which goes on with it."""


ERROR_ABORTED = 16
ERRORS: Mapping[int, str] = {
    1: "engine error",
    2: "job processor error",
    3: "robotics error",
    4: "invalid files",
    5: "too many files",
    6: "image file not found",
    7: "label file not found or wrong",
    8: "the order file is not understood",
    9: "status file error",
    10: "invalid medium",
    11: "not enough space on the medium",
    12: "the disc is not blank",
    13: "a drive does not open or close",
    14: "a drive is not ready",
    15: "not a drive of the robot",
    16: "aborted",
    17: "wrong DVD structure",
    18: "recording error",
    19: "verification error",
    20: "too many rejected discs",
    21: "session error",
    22: "this client is not authorised",
}
"""Error numbers of jobs and discs in words."""


@dataclass(frozen=True, slots=True)
class JobSection:
    """What the robot's status file says of one job. None: not told, or not understood."""

    state: JobState | None
    step: Step | None
    good: int | None
    bad: int | None
    ahead: int | None
    error: int | None
    error_text: str
    disc_errors: tuple[str, ...]
    percent: int | None
    """Of the drive that works on the job."""


@dataclass(frozen=True, slots=True)
class RobotSection:
    """What the status files say of one robot."""

    name: str
    error: int | None
    """``SysErrorNumber`` of the robot, else of the server; 0: all is well."""
    error_text: str
    status: str
    beat: str
    """``ServerTickCount``: grows by one a second while PTBurn lives; ``""``: not told."""
    bins: Mapping[str, int]
    """Discs by bin, ``left`` and ``right``; a bin that the robot does not count is not there."""
    ink: Mapping[str, int]
    """Per cent by cartridge."""
    drives: tuple[Mapping[str, str], ...]
    free_mb: int | None


def folded(text: str) -> Ini:
    """Sections and their values, names and keys in lower case."""
    return {
        name.lower(): {key.lower(): value for key, value in section.items()} for name, section in read_ini(text).items()
    }


def robots(system: Ini) -> list[str]:
    """Names of the robots that the server has, as ``[RobotList]`` gives them."""
    listed = system.get("robotlist", {})
    names = [value for key, value in sorted(listed.items()) if re.fullmatch(r"robot[0-9]{1,3}", key) and value]
    return names[:MAX_ROBOTS]


def job_sections(robot: Ini) -> dict[str, Section]:
    """The sections of all jobs, by the names of their order files in lower case; ``drive percent`` is ours."""
    system = robot.get("system", {})
    percent: dict[str, str] = {}
    for key, value in system.items():
        match = _DRIVE_JOB.fullmatch(key)
        if match and value:
            percent[value.lower()] = system.get(f"drivepercent{match[1]}", "")
    others = ("system", "joblist", "completedjobs", "")
    return {
        name: {**section, "drive percent": percent.get(name, "")}
        for name, section in robot.items()
        if name not in others
    }


def job_section(section: Section, job_id: str) -> JobSection | None:
    """What a section tells of a job; None where it is that of another."""
    told = section.get("jobid", job_id)
    if told.lower() != job_id.lower():
        return None
    state, step = _known(section, "jobstate", 0, max(JobState)), _known(section, "currentstatusstate", 0, max(Step))
    return JobSection(
        state=JobState(state) if state is not None else None,
        step=Step(step) if step is not None else None,
        good=_known(section, "gooddiscs", 0, 10_000),
        bad=_known(section, "baddiscs", 0, 100_000),
        ahead=_known(section, "jobsahead", 0, 100_000),
        error=_known(section, "joberrornumber", 0, 100_000),
        error_text=clean(section.get("joberrorstring", "")),
        disc_errors=_disc_errors(section),
        percent=_known(section, "drive percent", 0, 100),
    )


def robot_section(system: Ini, robot: Ini, name: str) -> RobotSection | None:
    """What is told of a robot; None where the server does not list it."""
    if name.lower() not in (each.lower() for each in robots(system)):
        return None
    server, own = system.get("system", {}), system.get(name.lower(), {})
    error, text = number(own.get("syserrornumber")), own.get("syserrorstring", "")
    if not error:
        error, text = number(server.get("syserrornumber")), server.get("syserrorstring", "")
    return RobotSection(
        name=name,
        error=error,
        error_text=clean(text),
        status=clean(own.get("status", "")),
        beat=clean(server.get("servertickcount", "")),
        bins=_bins(own),
        ink=_ink(own),
        drives=_drives(robot.get("system", {})),
        free_mb=number(server.get("drivespace")),
    )


def _known(section: Section, key: str, lowest: int, highest: int) -> int | None:
    found = number(section.get(key))
    return found if found is not None and lowest <= found <= highest else None


def _disc_errors(section: Section) -> tuple[str, ...]:
    """``DiscErrorNumberX`` and ``DiscErrorStringX`` in words, those of 0 left out."""
    found = []
    for key in sorted(section):
        match = re.fullmatch(r"discerrornumber([0-9]{1,5})", key)
        code = number(section[key]) if match else None
        if match and code:
            found.append(clean(section.get(f"discerrorstring{match[1]}", "")) or ERRORS.get(code, f"error {code}"))
    return tuple(found[:8])


def _bins(own: Section) -> dict[str, int]:
    found = {}
    for side in ("left", "right"):
        count = number(own.get(f"discsin{side}bin"))
        if count is not None and count >= 0:
            found[side] = count
    return found


def _ink(own: Section) -> dict[str, int]:
    found = {}
    for key in sorted(own):
        match = _CARTRIDGE.fullmatch(key)
        fill = number(own.get(f"cartridgefill{match[1]}")) if match else None
        if match and fill is not None and 0 <= fill <= 100:
            found[clean(own[key]) or match[1]] = fill
    return found


def _drives(system: Section) -> tuple[dict[str, str], ...]:
    """The manual's numbers of ``DriveStateX`` are not known to us, so a drive is busy when it has a job."""
    found = []
    for key in sorted(system):
        match = _DRIVE.fullmatch(key)
        if match:
            state = "busy" if system.get(f"drivejob{match[1]}") else "idle"
            found.append({"name": f"drive {match[1]}", "state": state, "medium": ""})
    return tuple(found)
