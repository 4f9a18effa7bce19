"""Rimage disc publishers by text orders (``.nwp``) of Rimage's Network Publisher.

Rimage's own text of this format was not available to us: keys and life cycle (``.nwp`` -> ``.INP`` -> ``.DON`` or
``.ERR`` with a ``.LOG``) are those that another maker documents who reads such orders too. The folder tells nothing of
ink, bins or liveness, and has no way to cancel once an order is taken; ``rimage-xml`` (``burners.rimage_orders``) has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
from burners.hotfolder_merge import MERGE_FILE, merge_file, merge_names
from burners.hotfolder_text import clean

_LIFE = (".ERR", ".DON", ".INP", ".NWP")
_LOG_LINES = 3


class RimageTextDialect:
    """Network Publisher's language. Option: ``merge``, the label fields of a design in their order."""

    name: ClassVar[str] = "rimage"
    option_names: ClassVar[tuple[str, ...]] = ("merge",)
    order_suffix: ClassVar[str] = ".nwp"
    template: ClassVar[str] = """\
order_id={job_id}
filetype=IMAGE
file={image}
label={label}
merge={merge_file}
copies=1
"""
    line_end: ClassVar[str] = "\r\n"
    code_page: ClassVar[str] = "cp1252"
    forbidden: ClassVar[str] = ',"'
    example: ClassVar[Mapping[str, Any]] = {}
    label_suffix: ClassVar[str] = ".pdf"
    cancel_answers: ClassVar[tuple[str, ...]] = ()
    withdraws: ClassVar[bool] = True

    def __init__(self, options: Mapping[str, Any], faults: list[str]) -> None:
        self._merge = merge_names(options, faults)

    def companions(self, order: RobotOrder) -> Sequence[TextFile]:
        return merge_file(order, self._merge)

    def adapt_label(self, drawn: Path) -> Path:
        return drawn

    def fields(self, order: RobotOrder) -> Mapping[str, str | Sequence[str]]:
        return {
            "job_id": order.job_id,
            "image": order.image,
            "label": order.label,
            "merge_file": order.files.get(MERGE_FILE, ""),
        }

    def escape(self, value: str) -> str:
        return value

    def cancellation(self, job_id: str) -> TextFile | None:
        return None

    def status(self, folder: StatusFolder) -> RobotStatus:
        """There is none; of orders that failed, the last lines of their logs."""

        def log(job_id: str) -> Mapping[str, str] | None:
            found = folder.read(f"{job_id}.LOG")
            lines = [clean(line) for line in found.text.splitlines() if line.strip()] if found is not None else []
            return {"log": clean("; ".join(lines[-_LOG_LINES:]))}

        return RobotStatus(
            RobotState.READY, "orders of this kind tell nothing of ink, bins or drives", jobs=OnDemand(log)
        )

    def judge(self, job_id: str, suffixes: frozenset[str], status: RobotStatus) -> RobotJob:
        file = next((suffix for suffix in _LIFE if suffix in suffixes), "")
        if file == ".ERR":
            log = status.jobs.get(job_id, {}).get("log", "")
            return RobotJob(Phase.BAD, message=log or "failed; there is no log")
        if file == ".DON":
            return RobotJob(Phase.GOOD, progress=1.0)
        if file == ".INP":
            return RobotJob(Phase.WORKING)
        return RobotJob(Phase.OFFERED if file else Phase.ABSENT)


class Rimage(HotFolder):
    """The driver ``rimage``."""

    dialect: ClassVar[type[Dialect]] = RimageTextDialect


class OnDemand(Mapping[str, Mapping[str, str]]):
    """``RobotStatus.jobs`` where each order has a file of its own, read only when somebody asks for the order."""

    def __init__(self, read: Callable[[str], Mapping[str, str] | None]) -> None:
        self._read = read

    def __getitem__(self, job_id: str) -> Mapping[str, str]:
        found = self._read(job_id)
        if found is None:
            raise KeyError(job_id)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0
