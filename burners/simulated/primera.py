"""A simulated Primera disc publisher with PTBurn, by the PTBurn 3 SDK manual: ``burnish simulate primera``.

The error numbers of missing discs are made up (the manual's list of system errors was not available to us).
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from burners.primera_status import ERRORS, JobState, Step
from burners.simulated.base import FAULTS, Job, Refused, Simulator, Stage, Work

ROBOT = "Bravo 4100"
_PRINTABLE = (".bmp", ".jpg", ".std", ".prn")
_KEYS = """jobid clientid importance imagefile imagetype closedisc copies printlabel burnspeed verifydisc
rejectifnotblank deletefiles robotname binid printquality mergefield volumename disctype"""
_SUFFIX = {
    Stage.TAKEN: "QRJ",
    Stage.QUEUED: "QRJ",
    Stage.BURNING: "INP",
    Stage.VERIFYING: "INP",
    Stage.PRINTING: "INP",
    Stage.PAUSED: "INP",
    Stage.GOOD: "DON",
    Stage.BAD: "DON",  # the status tells that the disc is bad
    Stage.CANCELLED: "ERR",
    Stage.REFUSED: "ERR",
    Stage.FAILED: "ERR",
}
_STEPS = {
    Stage.NEW: Step.INITIALISING,
    Stage.TAKEN: Step.INITIALISING,
    Stage.QUEUED: Step.WAIT_RECORDER,
    Stage.BURNING: Step.RECORDING,
    Stage.VERIFYING: Step.VERIFYING,
    Stage.PRINTING: Step.PRINTING,
    Stage.PAUSED: Step.PAUSED,
    Stage.GOOD: Step.COMPLETE,
    Stage.BAD: Step.COMPLETE,
    Stage.CANCELLED: Step.ABORTED,
    Stage.REFUSED: Step.FAILED,
    Stage.FAILED: Step.FAILED,
}
_STATES = {
    Stage.NEW: JobState.NOT_STARTED,
    Stage.TAKEN: JobState.NOT_STARTED,
    Stage.QUEUED: JobState.NOT_STARTED,
    Stage.GOOD: JobState.OK,
    Stage.BAD: JobState.OK,
    Stage.CANCELLED: JobState.FAILED,
    Stage.REFUSED: JobState.FAILED,
    Stage.FAILED: JobState.FAILED,
}
_CODES = {Stage.CANCELLED: "16", Stage.REFUSED: "8", Stage.FAILED: "18"}
_INK_LOW, _NO_DISCS = 5, 99


class PrimeraSimulator(Simulator):
    """PTBurn with one robot of two drives and one cartridge. Messages are looked for every ten seconds."""

    own_faults: ClassVar[Mapping[str, str]] = {
        "rejected-disc": "the first disc from the input is not blank; it is rejected and the next one taken"
    }
    faults = (*FAULTS, *own_faults)
    status_seconds = 2.0
    message_seconds: ClassVar[float] = 10.0

    def start(self) -> None:
        self._messages_due = 0.0
        self._created: dict[str, str] = {}
        self._clients: dict[str, str] = {}
        (self.folder / "Status").mkdir(exist_ok=True)
        for path in _files(self.folder, ("qrj", "inp")):
            path.rename(path.with_suffix(".ERR"))

    def new_orders(self) -> list[tuple[str, Path]]:
        return [(path.stem, path) for path in _files(self.folder, ("jrq",))]

    def read(self, job: Job) -> Work:
        assert job.path is not None
        keys: dict[str, str] = {}
        for line in job.path.read_text(encoding="cp1252", errors="replace").splitlines():
            key, equals, value = line.partition("=")
            if not line.strip():
                continue
            if not equals or key.strip().lower() not in _KEYS.split():
                raise Refused("8")
            keys[key.strip().lower()] = value.strip()
        job.job_id = keys.get("jobid", job.name)
        self._clients[job.name] = keys.get("clientid", "Unknown")
        label = keys.get("printlabel", "")
        if label and not label.lower().endswith(_PRINTABLE):
            raise Refused("7")
        if not keys.get("imagefile") or keys.get("copies", "1") != "1" or keys.get("robotname", ROBOT) != ROBOT:
            raise Refused("8")
        # A design is on the robot's own disc: the simulator has none to look at.
        return Work(keys["imagefile"], label if label.lower().endswith((".bmp", ".jpg")) else "")

    def show(self, job: Job) -> None:
        if job.path is None:
            return
        suffix = "QRJ" if job.stage is Stage.PAUSED and job.drive is None else _SUFFIX[job.stage]
        target = job.path.with_name(f"{job.name}.{suffix}")
        with suppress(FileNotFoundError):
            job.path = job.path.rename(target)

    def look_for_cancellations(self) -> None:
        if self.now < self._messages_due:
            return
        self._messages_due = self.now + self.message_seconds
        for path in _files(self.folder, ("ptm",)):
            told = dict(_pairs(path.read_text(encoding="cp1252", errors="replace")))
            path.unlink()
            found = [job for job in self.jobs if job.name == path.stem]
            client = told.get("clientid", "")
            allowed = client == "Administrator" or client == self._clients.get(path.stem, client)
            if told.get("message", "").upper() == "ABORT" and found and allowed:
                self.ask_cancel(found[0].job_id)

    def code(self, stage: Stage) -> str:
        return _CODES.get(stage, "")

    def status(self) -> dict[Path, str]:
        folder = self.folder / "Status"
        return {
            folder / "SystemStatus.txt": self._system_text(),
            folder / f"{ROBOT}.txt": self._robot_text(),
        }

    def _load(self, job: Job) -> Generator[None, None, None]:
        yield from super()._load(job)
        if job.fault == "rejected-disc":
            job.bad += 1
            self._tell(f"{job.job_id}: a disc is not blank and is rejected")
            yield from super()._load(job)

    def _system_text(self) -> str:
        number, words = 0, "No errors"
        if self.ink <= 0:
            number, words = _INK_LOW, "Ink low: color cartridge"
        elif self.blanks <= 0:
            number, words = _NO_DISCS, "No discs in the input bin"
        live = [job for job in self.jobs if not job.stage.ended]
        sections: dict[str, dict[str, object]] = {
            "RobotList": {"Robot0": ROBOT},
            "System": {
                "SysErrorString": words,
                "SysErrorNumber": number,
                "ServerTickCount": int(self.now),
                "ServerTime": _now(),
                "DriveSpace": 51_200,
            },
            ROBOT: {
                "SystemDrives": self.drives,
                "RobotType": 10,
                "NumJobs": len(live),
                "StatusFile": f"{ROBOT}.txt",
                "DiscsInRightBin": max(0, self.blanks),
                "DiscsInLeftBin": -1,
                "CartridgeType0": "Color",
                "CartridgeFill0": max(0, self.ink),
                "SysErrorString": words,
                "SysErrorNumber": number,
            },
        }
        return _ini(sections)

    def _robot_text(self) -> str:
        live = [job for job in self.jobs if not job.stage.ended]
        drives: dict[str, object] = {}
        for number in range(self.drives):
            job = next((each for each in live if each.drive == number + 1), None)
            drives |= {
                f"DriveState{number}": 0,
                f"DriveJob{number}": job.name if job else "",
                f"DrivePercent{number}": int(100 * job.progress) if job else 0,
            }
        sections: dict[str, dict[str, object]] = {
            "JobList": {f"Job{number}": job.name for number, job in enumerate(live)},
            "CompletedJobs": {
                f"Job{number}": job.name for number, job in enumerate(each for each in self.jobs if each.stage.ended)
            },
            "System": drives,
        }
        for ahead, job in enumerate(job for job in self.jobs if job.stage is not Stage.NEW):
            sections[job.name] = self._job_text(job, min(ahead, len(live)))
        return _ini(sections)

    def _job_text(self, job: Job, ahead: int) -> dict[str, object]:
        error = int(job.error) if job.error.isdecimal() else 0
        section: dict[str, object] = {
            "JobID": job.job_id,
            "ClientID": self._clients.get(job.name, "Unknown"),
            "JobsAhead": ahead if job.stage in (Stage.TAKEN, Stage.QUEUED) else 0,
            "DiscsRemaining": 0 if job.stage.ended else 1,
            "GoodDiscs": job.good,
            "BadDiscs": job.bad,
            "CurrentStatus": _STEPS[job.stage].name.title(),
            "CurrentStatusState": int(_STEPS[job.stage]),
            "TimeCreated": self._created.setdefault(job.name, _now()),
            "JobState": int(_STATES.get(job.stage, JobState.RUNNING)),
            "JobErrorNumber": error,
            "JobErrorString": ERRORS.get(error, "No errors"),
        }
        if job.bad and job.stage.ended:
            number = 12 if job.good else 19 if job.stage is Stage.BAD else 18
            section |= {"DiscErrorIndex0": 1, "DiscErrorNumber0": number, "DiscErrorString0": ERRORS[number]}
        return section


def _files(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    wanted = tuple(suffixes)
    return sorted(path for path in folder.iterdir() if path.suffix[1:].lower() in wanted and path.is_file())


def _pairs(text: str) -> Iterable[tuple[str, str]]:
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals:
            yield key.strip().lower(), value.strip()


def _ini(sections: dict[str, dict[str, object]]) -> str:
    lines = []
    for name, keys in sections.items():
        lines += [f"[{name}]", *(f"{key}={value}" for key, value in keys.items()), ""]
    return "\r\n".join(lines) + "\r\n"


def _now() -> str:
    return time.strftime("%m/%d/%Y %H:%M:%S")
