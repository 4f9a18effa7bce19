"""Primera disc publishers, driven by PTBurn: orders ``.JRQ``, cancellations ``.PTM``, status below ``Status``.

Keys, states and numbers are those of the PTBurn 3 SDK manual, revision 3.24. An order's file goes
``.JRQ`` -> ``.QRJ`` (seen) -> ``.INP`` -> ``.DON`` or ``.ERR`` (failed, or aborted). A disc is good only if the robot's
status says so: job state 2, one good disc, no bad one, no error; the file's name alone is never enough.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from burners.hotfolder import HotFolder
from burners.hotfolder_dialect import (
    Dialect,
    Phase,
    RobotJob,
    RobotOrder,
    RobotState,
    RobotStatus,
    StatusFolder,
    TextFile,
)
from burners.hotfolder_merge import merge_names, merge_values
from burners.hotfolder_text import clean
from burners.primera_label import convert
from burners.primera_status import (
    ERROR_ABORTED,
    ERRORS,
    JobSection,
    JobState,
    RobotSection,
    Section,
    Step,
    folded,
    job_section,
    job_sections,
    robot_section,
    robots,
)

_CLIENT = re.compile(r"[A-Za-z0-9_-]{1,32}")
_LIFE = (".ERR", ".DON", ".INP", ".QRJ", ".JRQ")
_DISC_TYPES = {"CD": "CDR", "DVD": "DVDR", "BD": "BDR"}
_SYSTEM = "Status/SystemStatus.txt"


class PrimeraDialect:
    """PTBurn's language; its options are in ``docs/burners/primera.md``."""

    name: ClassVar[str] = "primera"
    option_names: ClassVar[tuple[str, ...]] = (
        "robot",
        "client_id",
        "bin",
        "importance",
        "speed",
        "verify",
        "print_quality",
        "merge",
    )
    order_suffix: ClassVar[str] = ".JRQ"
    template: ClassVar[str] = """\
JobID = {job_id}
ClientID = {client_id}
Importance = {importance}
RobotName = {robot}
BinID = {bin}
ImageFile = {image}
Copies = 1
CloseDisc = YES
RejectIfNotBlank = YES
BurnSpeed = {speed}
VerifyDisc = {verify}
DeleteFiles = NO
PrintLabel = {label}
PrintQuality = {print_quality}
MergeField = {merge}
"""
    line_end: ClassVar[str] = "\r\n"
    code_page: ClassVar[str] = "cp1252"
    forbidden: ClassVar[str] = ","
    example: ClassVar[Mapping[str, Any]] = {}
    label_suffix: ClassVar[str] = ".bmp"
    cancel_answers: ClassVar[tuple[str, ...]] = ()
    withdraws: ClassVar[bool] = False
    """PTBurn may have read an order before it renames it, so one that has gone may be made all the same."""

    def __init__(self, options: Mapping[str, Any], faults: list[str]) -> None:
        self._robot = str(options.get("robot", ""))
        if clean(self._robot) != self._robot or "/" in self._robot or "\\" in self._robot:
            faults.append(f"robot: {self._robot!r} is no name of a robot, as SystemStatus.txt lists it")
        self._client = str(options.get("client_id", "Burnish"))
        if not _CLIENT.fullmatch(self._client):
            faults.append(f"client_id: {self._client!r} is not 1 to 32 of A-Z a-z 0-9 _ -")
        self._bin = _number(options, "bin", 0, 2, faults)
        self._importance = _number(options, "importance", 0, 400, faults)
        self._quality = _number(options, "print_quality", 0, 4, faults)
        self._speed = _number(options, "speed", 0, 100, faults)
        self._verify = options.get("verify", True)
        if not isinstance(self._verify, bool):
            faults.append(f"verify: {self._verify!r} is not true or false")
        self._merge = merge_names(options, faults)

    def companions(self, order: RobotOrder) -> Sequence[TextFile]:
        return ()

    def adapt_label(self, drawn: Path) -> Path:
        if drawn.suffix.lower() != ".png":
            return drawn
        picture = drawn.with_suffix(".bmp")
        convert(drawn, picture)
        return picture

    def fields(self, order: RobotOrder) -> Mapping[str, str | Sequence[str]]:
        return {
            "job_id": order.job_id,
            "image": order.image,
            "label": order.label,
            "robot": self._robot,
            "client_id": self._client,
            "bin": self._bin,
            "importance": self._importance,
            "speed": self._speed,
            "verify": "YES" if self._verify else "NO",
            "disc_type": _DISC_TYPES.get(order.family, ""),
            "print_quality": self._quality if order.label else "",
            "merge": merge_values(order, self._merge),
        }

    def escape(self, value: str) -> str:
        return value

    def cancellation(self, job_id: str) -> TextFile | None:
        return TextFile(f"{job_id}.PTM", f"Message = ABORT\nClientID = {self._client}\n")

    def status(self, folder: StatusFolder) -> RobotStatus:
        found = folder.read(_SYSTEM)
        if found is None:
            return RobotStatus(
                RobotState.OFFLINE, f"there is no {_SYSTEM}: PTBurn does not run, or uses another folder"
            )
        system = folded(found.text)
        names = robots(system)
        mine = self._robot or (names[0] if names else "")
        jobs: dict[str, Section] = {}
        machine: RobotSection | None = None
        for name in names:
            text = folder.read(f"Status/{name}.txt")
            told = folded(text.text) if text is not None else {}
            # A job that PTBurn moved to another robot stands with both; the one that has it now counts.
            jobs |= {key: section for key, section in job_sections(told).items() if section.get("jobstate") != "4"}
            if name.lower() == mine.lower():
                machine = robot_section(system, told, name)
        if machine is None:
            state = RobotState.UNKNOWN if not names else RobotState.OFFLINE
            listed = ", ".join(clean(name, longest=40) for name in names) or "no robot"
            reason = f"{_SYSTEM} does not list {mine or 'a robot'}; it has {listed}"
            return RobotStatus(state, reason, beat=found.beat, age=found.age, jobs=jobs)
        state, reason = _stands(machine)
        supplies: dict[str, Any] = {}
        if machine.ink:
            supplies["ink"] = dict(machine.ink)
        if machine.bins:
            supplies["bins"] = dict(machine.bins)
        if machine.free_mb is not None:
            supplies["free_mb"] = machine.free_mb
        return RobotStatus(
            state, reason, supplies, machine.drives, beat=machine.beat or found.beat, age=found.age, jobs=jobs
        )

    def judge(self, job_id: str, suffixes: frozenset[str], status: RobotStatus) -> RobotJob:
        section = status.jobs.get(job_id.lower())
        told = job_section(section, job_id) if section is not None else None
        file = next((suffix for suffix in _LIFE if suffix in suffixes), "")
        end = _end(told) if told is not None else None
        if file == ".ERR" and end is not None and end.state is Phase.GOOD:
            return RobotJob(Phase.BAD, end.discs_good, end.discs_bad, "PTBurn's file says error, its status says good")
        if file in (".ERR", ".DON"):
            untold = f"the order's file is {file}, the status does not say how it ended"
            return end or RobotJob(Phase.ENDED, message=untold, progress=1.0)
        if file == ".JRQ":
            return RobotJob(Phase.OFFERED)
        if file == "":
            # Removed by PTBurn after its Status_Time, or by somebody; the status may still have it.
            return end or (_running(told) if told is not None else RobotJob(Phase.ABSENT))
        if end is not None:
            return RobotJob(Phase.WORKING, end.discs_good, end.discs_bad, "finishing", 1.0)
        if told is None:
            return RobotJob(Phase.QUEUED if file == ".QRJ" else Phase.WORKING)
        return _running(told)


class Primera(HotFolder):
    """The driver ``primera``."""

    dialect: ClassVar[type[Dialect]] = PrimeraDialect


def _stands(machine: RobotSection) -> tuple[RobotState, str]:
    if machine.error is None:
        return RobotState.UNKNOWN, "the status has no error number"
    if machine.error == 0:
        return RobotState.READY, machine.status
    return RobotState.WAITING, f"{machine.error_text or 'PTBurn wants a person'} (system error {machine.error})"


def _running(told: JobSection) -> RobotJob:
    words = told.step.name.lower().replace("_", " ") if told.step is not None else ""
    progress = (told.percent or 0) / 100
    if told.step is Step.PAUSED:
        return RobotJob(Phase.PAUSED, told.good, told.bad, "paused at the robot", progress)
    if told.state is JobState.NOT_STARTED:
        ahead = f"{told.ahead} jobs before it" if told.ahead else ""
        return RobotJob(Phase.QUEUED, told.good, told.bad, ahead)
    return RobotJob(Phase.WORKING, told.good, told.bad, words, progress)


def _end(told: JobSection) -> RobotJob | None:
    """How the job ended; None while it has not, or where the numbers leave it open."""
    aborted = told.step is Step.ABORTED or told.error == ERROR_ABORTED
    if told.state is JobState.FAILED and aborted and not told.good:
        spoilt = f"; {told.bad} disc spoilt" if told.bad else ""
        return RobotJob(Phase.CANCELLED, told.good, told.bad, f"aborted{spoilt}")
    if told.state is JobState.FAILED:
        return RobotJob(Phase.BAD, told.good, told.bad, _why(told))
    if told.state is not JobState.OK:
        return None
    if aborted or told.step is Step.FAILED or told.error:
        return RobotJob(Phase.BAD, told.good, told.bad, _why(told))
    if told.good is None or told.bad is None or told.error is None:
        return None
    if told.good == 1 and told.bad == 0:
        return RobotJob(Phase.GOOD, 1, 0, "", 1.0)
    return RobotJob(Phase.BAD, told.good, told.bad, _why(told))


def _why(told: JobSection) -> str:
    parts = list(told.disc_errors)
    if told.error:
        parts.insert(0, f"{told.error_text or ERRORS.get(told.error, 'unknown error')} (job error {told.error})")
    if told.good is not None and told.bad is not None:
        parts.append(f"{told.good} good and {told.bad} bad discs")
    return "; ".join(dict.fromkeys(parts))


def _number(options: Mapping[str, Any], key: str, lowest: int, highest: int, faults: list[str]) -> str:
    """A number of the settings as text; empty where it is not set."""
    value = options.get(key)
    if value is None:
        return ""
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        faults.append(f"{key}: {value!r} is not a number from {lowest} to {highest}")
    return str(value)
