"""Epson Discproducer by TD Bridge: orders are JDF files, cancellations JCF files, the status is ``TDBStatus.txt``.

Source: TD Bridge Technical Reference Guide. An order's file is renamed .JDF -> .RJD -> .INP (or .STP: paused) -> .DON
or .ERR. DON comes after a cancellation too, so only the status tells whether a disc is good.
"""

from __future__ import annotations

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
from burners.hotfolder_text import number, read_ini

_OPEN = frozenset((".JDF", ".RJD", ".INP", ".STP"))
_INKS = {
    "INK_C": "cyan",
    "INK_M": "magenta",
    "INK_Y": "yellow",
    "INK_LC": "light cyan",
    "INK_LM": "light magenta",
    "INK_B": "black",
}
_PRINTER_FINE = (1, 2, 3, 4, 6)
_DETAILS = {
    1: "being received",
    2: "waiting its turn",
    3: "publishing",
    4: "pausing",
    5: "about to go on",
    6: "cancelling",
    7: "paused",
    8: "waiting to go on",
    9: "done",
    10: "done, with an alarm",
    11: "done, with an alarm and a bad disc",
    12: "cancelled by a user",
    13: "cancelled for an error",
    14: "refused",
}
_DVD_LAYER_SECTORS = 2_298_496
_BD_LAYER_SECTORS = 12_219_392


class EpsonDialect:
    """JDF, JCF and STF."""

    name: ClassVar[str] = "epson"
    option_names: ClassVar[tuple[str, ...]] = (
        "publisher",
        "in_stackers",
        "out_stacker",
        "writing_speed",
        "compare",
        "priority",
        "label_type",
        "print_mode",
        "status_file",
    )
    example: ClassVar[Mapping[str, Any]] = {}
    order_suffix: ClassVar[str] = ".JDF"
    line_end: ClassVar[str] = "\r\n"
    code_page: ClassVar[str] = "cp1252"
    forbidden: ClassVar[str] = ""
    label_suffix: ClassVar[str] = ".png"
    cancel_answers: ClassVar[tuple[str, ...]] = (".CDN", ".CER")
    withdraws: ClassVar[bool] = False
    """A JCF file may be given for a JDF that is not yet taken, and that file must not be renamed by others."""
    template: ClassVar[str] = """\
# Burnish
JOB_ID={job_id}
PUBLISHER={publisher}
COPIES=1
OUT_STACKER={out_stacker}
DISC_TYPE={disc_type}
WRITING_SPEED={writing_speed}
COMPARE={compare}
CLOSE_DISC=YES
IMAGE={image}
LABEL={label}
REPLACE_FIELD={merge}
LABEL_TYPE={label_type}
PRINT_MODE={print_mode}
PRIORITY={priority}
"""

    def __init__(self, options: Mapping[str, Any], faults: list[str]) -> None:
        self._publisher = _line(options, "publisher", 64, faults)
        self._status_file = _line(options, "status_file", 64, faults) or "TDBStatus.txt"
        self._priority = _line(options, "priority", 16, faults)
        if self._priority not in ("", "HIGH"):
            faults.append(f"priority: {self._priority!r} is not HIGH")
        self._compare = options.get("compare", True)
        if not isinstance(self._compare, bool):
            faults.append(f"compare: {self._compare!r} is not true or false")
        self._numbers = {
            key: _choice(options, key, allowed, faults)
            for key, allowed in (
                ("out_stacker", (2, 4)),
                ("label_type", (1, 2, 3)),
                ("print_mode", (1, 2, 3)),
                ("writing_speed", tuple(range(1, 65))),
            )
        }
        self._in_stackers = options.get("in_stackers", [1])
        if not isinstance(self._in_stackers, list) or any(one not in (1, 2, 3) for one in self._in_stackers):
            faults.append(f"in_stackers: {self._in_stackers!r} is not a list of 1, 2, 3")
            self._in_stackers = []

    def companions(self, order: RobotOrder) -> Sequence[TextFile]:
        if not order.label_is_design:
            return ()
        lines = [f"{key}={value}" for key, value in order.label_fields.items()]
        return (TextFile("label.dat", "".join(f"{line}\n" for line in lines)),)

    def adapt_label(self, drawn: Path) -> Path:
        return drawn

    def fields(self, order: RobotOrder) -> Mapping[str, str]:
        return {
            **self._numbers,
            "job_id": order.job_id,
            "publisher": self._publisher,
            "disc_type": _disc_type(order),
            "compare": "YES" if self._compare else "NO",
            "image": order.image,
            "volume_id": order.volume_id,
            "label": order.label,
            "merge": order.files.get("label.dat", ""),
            "priority": self._priority,
        }

    def escape(self, value: str) -> str:
        return value

    def cancellation(self, job_id: str) -> TextFile | None:
        return TextFile(f"{job_id}.JCF", f"[CANCEL]\nJOB_ID={job_id}\n")

    def status(self, folder: StatusFolder) -> RobotStatus:
        found = folder.read(self._status_file)
        if found is None:
            return RobotStatus(RobotState.OFFLINE, f"there is no {self._status_file}: TD Bridge has not been started")
        sections = read_ini(found.text)
        publisher = self._own_publisher(sections)
        if publisher is None:
            wanted = f"names no publisher {self._publisher!r}" if self._publisher else "cannot be understood"
            return RobotStatus(RobotState.UNKNOWN, f"{self._status_file} {wanted}", beat=found.beat, age=found.age)
        missing = self._missing(publisher)
        if any(number(section.get("STATUS")) == 3 for section in sections.values()):
            missing.append("it has paused: " + (", ".join(_codes(publisher)) or "look at its cover and its display"))
        return RobotStatus(
            RobotState.WAITING if missing else RobotState.READY,
            "; ".join(missing),
            _supplies(publisher),
            _drives(publisher),
            beat=found.beat,
            age=found.age,
            jobs=sections,
        )

    def judge(self, job_id: str, suffixes: frozenset[str], status: RobotStatus) -> RobotJob:
        said = status.jobs.get(job_id, {})
        state, detail = number(said.get("STATUS")), number(said.get("DETAIL_STATUS"))
        good, bad = number(said.get("COMPLETION_NUMBER")), number(said.get("ERRORDISC_NUMBER"))
        words = _words(said, detail, suffixes)

        def job(phase: Phase, progress: float = 0.0) -> RobotJob:
            return RobotJob(phase, good, bad, words, progress)

        if ".ERR" in suffixes:  # until the status has followed, it tells of the time before
            return job(Phase.BAD) if state in (5, 6) else RobotJob(Phase.BAD, good, bad)
        if suffixes & _OPEN or (not suffixes & {".DON"} and state in (1, 2, 3)):
            if ".STP" in suffixes or state == 3:
                paused = words if state == 3 else "paused"  # the status follows the rename in some seconds
                return RobotJob(Phase.PAUSED, good, bad, paused)
            if ".JDF" in suffixes:
                return job(Phase.OFFERED)
            return job(Phase.WORKING, _progress(status)) if state == 2 else job(Phase.QUEUED)
        if state in (5, 6) or detail in (11, 13, 14) or bad:
            return job(Phase.BAD)
        if state == 4 and detail == 12:
            return job(Phase.CANCELLED if good == 0 else Phase.BAD)
        if ".CDN" in suffixes and not good:
            return job(Phase.CANCELLED)
        # Older versions have no DETAIL_STATUS: there the count alone tells a done order from a cancelled one. That the
        # key is missing, and not only not yet written, a section that follows shows.
        known = detail in (9, 10) or ("DETAIL_STATUS" not in said and list(status.jobs)[-1:] != [job_id])
        if state == 4 and known and _all_done(said) and not said.get("ERROR"):
            return job(Phase.GOOD, 1.0)
        return job(Phase.ENDED if ".DON" in suffixes or said else Phase.ABSENT)

    def _own_publisher(self, sections: Mapping[str, Mapping[str, str]]) -> Mapping[str, str] | None:
        """The section of the machine that is set, or of the first; None where the status has none."""
        machines = [values for name, values in sorted(sections.items()) if name.startswith("PUBLISHER")]
        if self._publisher:
            machines = [values for values in machines if values.get("NAME") == self._publisher]
        return machines[0] if machines else None

    def _missing(self, publisher: Mapping[str, str]) -> list[str]:
        """What a person must see to before the machine can go on."""
        found = [f"the ink {name} is used up" for key, name in _INKS.items() if number(publisher.get(key)) == 0]
        levels = [number(publisher.get(f"STACKER{one}")) for one in self._in_stackers]
        if levels and all(level == 0 for level in levels):
            found.append(f"no blanks in stacker {', '.join(map(str, self._in_stackers))}")
        printer = number(publisher.get("PRINTER_STATUS"))
        if printer is not None and printer not in _PRINTER_FINE:
            found.append(f"the printer reports status {printer}")
        drives = _drives(publisher)
        if drives and all(drive["state"] != "READY" for drive in drives):
            found.append("no drive is fit")
        if (space := number(publisher.get("MAINTENANCE_BOX_FREE_SPACE"))) is not None and space == 0:
            found.append("the maintenance box is full")
        return found


class Epson(HotFolder):
    """The driver ``epson``."""

    dialect: ClassVar[type[Dialect]] = EpsonDialect


def _words(said: Mapping[str, str], detail: int | None, suffixes: frozenset[str]) -> str:
    """What the status says of an order, with its raw codes."""
    parts = [_DETAILS.get(detail, f"DETAIL_STATUS {detail}") if detail is not None else ""]
    if said.get("ERROR"):
        parts.append(f"error {said['ERROR'][:64]}")
    if number(said.get("STATUS")) in (5, 6):
        parts.append(f"STATUS {said['STATUS']}")
    if number(said.get("ERRORDISC_NUMBER")):
        parts.append(f"{said['ERRORDISC_NUMBER']} bad disc in the output")
    if ".CER" in suffixes:
        parts.append("the robot cannot cancel it")
    return ", ".join(part for part in parts if part)


def _all_done(said: Mapping[str, str]) -> bool:
    ordered, done = number(said.get("PUBLICATION_NUMBER")), number(said.get("COMPLETION_NUMBER"))
    return ordered == done == 1 and number(said.get("ERRORDISC_NUMBER")) == 0


def _progress(status: RobotStatus) -> float:
    """Of the drive that is furthest: the status does not say which drive works for which order."""
    found = [drive["progress"] for drive in status.drives if drive.get("progress") is not None]
    return max(found, default=0) / 100


def _supplies(publisher: Mapping[str, str]) -> dict[str, Any]:
    """Levels in per cent (older versions count discs in the stackers)."""
    ink = {name: level for key, name in _INKS.items() if (level := number(publisher.get(key))) is not None}
    stackers = {
        str(one): level for one in (1, 2, 3, 4) if (level := number(publisher.get(f"STACKER{one}"))) not in (None, -1)
    }
    found: dict[str, Any] = {"ink_percent": ink, "stackers": stackers}
    if (space := number(publisher.get("MAINTENANCE_BOX_FREE_SPACE"))) is not None:
        found["maintenance_box_free"] = space
    if codes := _codes(publisher):
        found["codes"] = codes
    return {key: value for key, value in found.items() if value not in ({}, [])}


def _codes(publisher: Mapping[str, str]) -> list[str]:
    """Codes that the machine shows (HST3001)."""
    return [value[:64] for key, value in sorted(publisher.items()) if key.startswith("INFO") and value]


def _drives(publisher: Mapping[str, str]) -> list[dict[str, Any]]:
    drives: list[dict[str, Any]] = []
    for one in (1, 2):
        state, life = number(publisher.get(f"DRIVE{one}_STATUS")), number(publisher.get(f"DRIVE{one}_LIFE"))
        progress = number(publisher.get(f"DRIVE{one}_PROGRESS"))
        if state is None and progress is None:
            continue
        fine = state in (None, 1) and (life is None or life < 100)
        drive: dict[str, Any] = {"name": f"drive {one}", "state": "READY" if fine else "FAULTY", "medium": ""}
        if life is not None:
            drive["life_used_percent"] = life
        if progress is not None:
            drive["progress"] = progress
        drives.append(drive)
    return drives


def _disc_type(order: RobotOrder) -> str:
    """DISC_TYPE; that of Blu-ray models is not confirmed by a machine."""
    layer = _DVD_LAYER_SECTORS if order.family == "DVD" else _BD_LAYER_SECTORS
    return f"{order.family}-DL" if order.family != "CD" and order.sectors > layer else order.family


def _line(options: Mapping[str, Any], key: str, longest: int, faults: list[str]) -> str:
    value = options.get(key, "")
    if not isinstance(value, str) or len(value) > longest or not (value == "" or value.isprintable()):
        faults.append(f"{key}: {value!r} is no text of at most {longest} characters")
        return ""
    return value


def _choice(options: Mapping[str, Any], key: str, allowed: Sequence[int], faults: list[str]) -> str:
    value = options.get(key)
    if value is None:
        return ""
    if isinstance(value, bool) or value not in allowed:
        faults.append(f"{key}: {value!r} is not one of {', '.join(map(str, allowed))}")
        return ""
    return str(value)
