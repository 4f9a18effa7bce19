"""A simulated Epson Discproducer with TD Bridge: checks a JDF strictly, renames it, writes its status.

Source: TD Bridge Technical Reference Guide. The status is written every 5 s, in place; keys that the guide gives to
orders under way are there only then. Codes of faults during work are not in the parts of the guide that were at hand:
``PUBnnn`` here are invented.
"""

from __future__ import annotations

import re
from pathlib import Path

from burners.simulated.base import Job, Refused, Simulator, Stage, Work

_SUFFIX = {
    Stage.NEW: ".JDF",
    Stage.TAKEN: ".RJD",
    Stage.QUEUED: ".INP",
    Stage.BURNING: ".INP",
    Stage.VERIFYING: ".INP",
    Stage.PRINTING: ".INP",
    Stage.PAUSED: ".STP",
    Stage.GOOD: ".DON",
    Stage.BAD: ".DON",
    Stage.CANCELLED: ".DON",
    Stage.REFUSED: ".ERR",
    Stage.FAILED: ".ERR",
}
_STATUS = {
    Stage.TAKEN: "1",
    Stage.QUEUED: "1",
    Stage.PAUSED: "3",
    Stage.GOOD: "4",
    Stage.BAD: "4",
    Stage.CANCELLED: "4",
    Stage.FAILED: "5",
    Stage.REFUSED: "6",
}
_DETAIL = {
    Stage.QUEUED: "2",
    Stage.PAUSED: "7",
    Stage.GOOD: "9",
    Stage.BAD: "11",
    Stage.CANCELLED: "12",
    Stage.FAILED: "13",
    Stage.REFUSED: "14",
}
_CODES = {Stage.REFUSED: "SYS003", Stage.FAILED: "PUB002", Stage.BAD: "PUB001"}
_DISC_TYPES = ("CD", "DVD", "DVD-DL", "BD", "BD-DL")


class EpsonSimulator(Simulator):
    """TD Bridge with one machine."""

    def start(self) -> None:
        for path in self.folder.iterdir():
            if path.suffix.upper() in (".RJD", ".INP", ".STP"):
                path.rename(path.with_suffix(".ERR"))

    def new_orders(self) -> list[tuple[str, Path]]:
        return [(path.stem, path) for path in sorted(self.folder.iterdir()) if path.suffix.upper() == ".JDF"]

    def read(self, job: Job) -> Work:
        keys = _keys(job.path)
        job.job_id = keys.get("JOB_ID", job.name)
        if len(job.job_id) > 40:
            raise Refused("JDF0101")
        if not re.fullmatch(r"[A-Za-z0-9_-]+", job.job_id):
            raise Refused("JDF0102")
        if any(other.job_id == job.job_id and other is not job for other in self.jobs):
            raise Refused("JDF0100")
        if len(keys.get("PUBLISHER", "")) > 64:
            raise Refused("JDF0200")
        if not _in_range(keys.get("COPIES", "1"), 1, 1000):
            raise Refused("JDF0300")
        if keys.get("OUT_STACKER", "2") not in ("2", "4"):
            raise Refused("JDF0400")
        if "DISC_TYPE" not in keys:
            raise Refused("JDF0501")
        if keys["DISC_TYPE"] not in _DISC_TYPES:
            raise Refused("JDF0502")
        if not keys.get("WRITING_SPEED", "1").isdecimal():
            raise Refused("JDF0600")
        if keys.get("COMPARE", "NO") not in ("YES", "NO"):
            raise Refused("JDF0700")
        if "IMAGE" not in keys:
            raise Refused("JDF0001")
        merge = keys.get("REPLACE_FIELD", "")
        design = keys.get("LABEL", "").lower().endswith(".tdd")  # it lies on the machine's own disk
        return Work(keys["IMAGE"], "" if design else keys.get("LABEL", ""), (merge,) if merge else ())

    def show(self, job: Job) -> None:
        if job.path is None or not job.path.exists():
            return
        target = self.folder / f"{job.name}{_SUFFIX[job.stage]}"
        if target != job.path:
            job.path = job.path.rename(target)

    def look_for_cancellations(self) -> None:
        for path in sorted(self.folder.iterdir()):
            if path.suffix.upper() == ".JCF":
                wanted = _keys(path).get("JOB_ID", "")
                path.rename(path.with_suffix(".CDN" if self.ask_cancel(wanted) else ".CER"))

    def code(self, stage: Stage) -> str:
        return _CODES.get(stage, "")

    def status(self) -> dict[Path, str]:
        active = [job for job in self.jobs if not job.stage.ended and job.stage is not Stage.NEW]
        ended = sorted((job for job in self.jobs if job.stage.ended), key=lambda job: -job.ended)
        lines = ["[ACTIVE_JOB]", *(f"JOB{number}={job.job_id}" for number, job in enumerate(active, 1))]
        lines += ["[COMPLETE_JOB]", *(f"JOB{number}={job.job_id}" for number, job in enumerate(ended, 1))]
        for job in (*active, *ended):
            lines += [f"[{job.job_id}]", *_of_job(job)]
        lines += ["[PUBLISHER1]", *self._of_publisher(), "[TDB_INFO]", "TDB_ID=1", "VERSION=3.20"]
        return {self.folder / "TDBStatus.txt": "".join(f"{line}\r\n" for line in lines)}

    def _of_publisher(self) -> list[str]:
        burning = {job.drive: int(100 * job.progress) for job in self.jobs if job.drive is not None}
        lines = ["NAME=PP-100II 1", f"STACKER1={min(100, 2 * self.blanks)}", f"STACKER2={min(100, 2 * self.delivered)}"]
        lines += ["STACKER3=-1", "STACKER4=0"]
        lines += [f"INK_{ink}={self.ink if ink == 'Y' else 70}" for ink in ("C", "M", "Y", "LC", "LM", "B")]
        if self.ink <= 0 or self.blanks <= 0:
            lines.append("INFO1=HST3001")
        lines += [f"PRINTER_STATUS={1 if self.ink > 0 else 5}", "MAINTENANCE_BOX_FREE_SPACE=90"]
        for drive in range(1, self.drives + 1):
            lines += [f"DRIVE{drive}_STATUS=1", f"DRIVE{drive}_LIFE=12"]
            lines += [f"DRIVE{drive}_PROGRESS={burning.get(drive, 0)}"]
        return lines


def _of_job(job: Job) -> list[str]:
    status, error = _STATUS.get(job.stage, "2"), job.error
    if job.stage is Stage.TAKEN:
        return [f"STATUS={status}", "ERROR="]
    return [
        "PUBLISHER=PP-100II 1",
        f"STATUS={status}",
        "PUBLICATION_NUMBER=1",
        f"COMPLETION_NUMBER={job.good}",
        f"ERRORDISC_NUMBER={0 if job.stage is Stage.CANCELLED else job.bad}",
        "IN_STACKER=1",
        "OUT_STACKER=2",
        f"ESTIMATION_TIME_REMAIN={int(180 * (1 - job.progress))}",
        f"ERROR={error}",
        f"DETAIL_STATUS={_DETAIL.get(job.stage, '3')}",
    ]


def _keys(path: Path | None) -> dict[str, str]:
    """Keys of a JDF: in capitals, nothing around them; other lines are passed over."""
    if path is None:
        return {}
    lines = path.read_bytes().decode("cp1252", "replace").splitlines()
    pairs = (line.partition("=") for line in lines if re.match(r"[A-Z_]+=", line))
    return {key: value for key, _, value in pairs}


def _in_range(text: str, least: int, most: int) -> bool:
    return text.isdecimal() and least <= int(text) <= most
