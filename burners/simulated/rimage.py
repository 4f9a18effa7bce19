"""Simulated Rimage systems: Network Publisher (``burnish simulate rimage``) and an agent beside the messaging server
(``burnish simulate rimage-xml``, its folder as in ``docs/burners/rimage.md``)."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from burners.rimage_xml import Element, XmlRefused, element, parse, render
from burners.simulated.base import FAULTS, Job, Refused, Simulator, Stage, Work

_LABELS = (".pdf", ".btw", ".prn", ".dml", ".pcl")
_WORDS = {
    Stage.BAD: "The disc does not compare with the image",
    Stage.CANCELLED: "Cancelled by operator",
    Stage.REFUSED: "The order is not valid",
    Stage.FAILED: "Recording failed",
}


class _Rimage(Simulator):
    """What both have in common."""

    suffix: ClassVar[str]
    """Of new orders."""

    def start(self) -> None:
        for path in self.folder.iterdir():
            if path.suffix.lower() == ".inp":
                path.rename(path.with_suffix(".ERR"))

    def new_orders(self) -> list[tuple[str, Path]]:
        found = (path for path in self.folder.iterdir() if path.suffix.lower() == self.suffix and path.is_file())
        return sorted((path.stem, path) for path in found)

    def code(self, stage: Stage) -> str:
        return _WORDS.get(stage, "")

    def _rename(self, job: Job, suffix: str) -> None:
        if job.path is not None:
            with suppress(FileNotFoundError):
                job.path = job.path.rename(job.path.with_name(f"{job.name}.{suffix}"))


class RimageSimulator(_Rimage):
    """Network Publisher: text orders, no status, no cancellation once an order is taken."""

    shows_supplies = False
    suffix = ".nwp"
    faults = tuple(name for name in FAULTS if name != "garbage-status")

    def read(self, job: Job) -> Work:
        assert job.path is not None
        keys: dict[str, str] = {}
        for line in job.path.read_text(encoding="cp1252", errors="replace").splitlines():
            key, equals, value = line.partition("=")
            if not equals or key not in ("order_id", "filetype", "file", "label", "merge", "copies") or key in keys:
                raise Refused(f"The line {line!r} is not understood")
            keys[key] = value
        job.job_id = keys.get("order_id", job.name)
        if keys.get("filetype") != "IMAGE" or keys.get("copies") != "1" or not keys.get("file"):
            raise Refused("The order is not valid")
        return _work(keys["file"], keys.get("label", ""), keys.get("merge", ""))

    def show(self, job: Job) -> None:
        if job.stage is Stage.GOOD:
            self._rename(job, "DON")
        elif job.stage.ended:
            log = self.folder / f"{job.name}.LOG"
            log.write_text(f"{job.error or 'Error'}\r\n", encoding="cp1252", errors="replace")
            self._rename(job, "ERR")
        else:
            self._rename(job, "INP")

    def look_for_cancellations(self) -> None:
        """There is no such file."""

    def status(self) -> dict[Path, str]:
        return {}


class RimageXmlSimulator(_Rimage):
    """The agent, and behind it the messaging server with a robot of two recorders and one printer."""

    suffix = ".xml"
    own_faults: ClassVar[Mapping[str, str]] = {
        "disconnected": "the agent loses its server for as long as a robot would hang"
    }
    faults = (*FAULTS, *own_faults)
    status_seconds = 2.0

    def start(self) -> None:
        self._lost_until = 0.0
        self._lost = False
        (self.folder / "status").mkdir(exist_ok=True)
        super().start()

    def read(self, job: Job) -> Work:
        assert job.path is not None
        try:
            root = parse(job.path.read_bytes())
        except XmlRefused as error:
            raise Refused(str(error)) from error
        tracks, labels, fixate = root.all("WriteTrack"), root.all("Label"), root.all("Fixate")
        if root.name != "ProductionOrder" or root.attributes.get("Copies") != "1" or len(tracks) != 1 or not fixate:
            raise Refused("The order is not valid")
        if len(root.all("Media")) != 1 or len(root.all("Target")) != 1 or len(labels) > 1:
            raise Refused("The order is not valid")
        job.job_id = root.attributes.get("OrderId", job.name)
        label = labels[0].attributes.get("Filename", "") if labels else ""
        merge = next((each.attributes.get("Merge_Filename", "") for each in root.all("BTW")), "")
        return _work(tracks[0].attributes.get("Filename", ""), label, merge)

    def step(self) -> None:
        super().step()
        if self._lost and self.now >= self._lost_until:
            self._lost = False
            for job in self.jobs:
                if job.stage is not Stage.NEW:
                    self.show(job)

    def show(self, job: Job) -> None:
        if self._lost:
            return  # the server goes on, and the agent hears of it later
        if not self._garbage:  # the agent writes the last status before it renames the order
            self._status_of(job.name).write_text(self._order_text(job), encoding="ascii")
        if job.stage in (Stage.GOOD, Stage.BAD):
            self._rename(job, "don")
        else:
            self._rename(job, "err" if job.stage.ended else "inp")

    def look_for_cancellations(self) -> None:
        if self._lost:
            return
        for path in self.folder.glob("*.can"):
            with suppress(XmlRefused):
                self.ask_cancel(parse(path.read_bytes()).attributes.get("OrderId", ""))
            path.unlink()

    def status(self) -> dict[Path, str]:
        told = [job for job in self.jobs if job.stage is not Stage.NEW and not self._lost]
        orders = {self._status_of(job.name): self._order_text(job) for job in told}
        return {self.folder / "status" / "agent.xml": self._agent_text(), **orders}

    def _strike(self, job: Job) -> Generator[None, None, None]:
        if job.fault == "disconnected":
            job.fault = ""
            self._lost, self._lost_until = True, self.now + self.hang_seconds
        yield from super()._strike(job)

    def _order_text(self, job: Job) -> str:
        ends = {Stage.GOOD: "COMPLETED", Stage.BAD: "COMPLETED", Stage.CANCELLED: "CANCELLED"}
        state = ends.get(job.stage, "FAILED" if job.stage.ended else "IN_PROCESS")
        stages = {
            Stage.BURNING: "Recording",
            Stage.VERIFYING: "Reading",
            Stage.PRINTING: "Printing",
            Stage.PAUSED: "Suspended",
        }
        told = {
            "State": state,
            "PercentCompleted": str(int(100 * job.progress)),
            "Stage": "Completed" if job.stage.ended else stages.get(job.stage, "Waiting"),
            "CurrentOperation": "" if job.stage.ended else job.stage.value.title(),
            "GoodDiscs": str(job.good),
            "BadDiscs": str(job.bad),
        }
        if job.error:
            told["ErrorMessage"] = job.error
        root = {"OrderId": job.job_id, "ClientId": "Burnish", "OriginalOrder": ""}
        return render(
            element("ProductionOrderStatus", root, element("Status", told)),
            dtd=r"\\SIMULATED\Rimage\XML\ProductionOrderStatus_1.10.DTD",
        )

    def _agent_text(self) -> str:
        alerts: list[Element] = []
        if self.ink <= 0:
            alerts.append(element("Alert", {"Message": "Replace the ribbon of printer 1"}))
        if self.blanks <= 0:
            alerts.append(element("Alert", {"Message": "Input bin 1 is empty"}))
        recorders = [
            element("Recorder", {"Number": str(number), "State": "Busy" if self._busy(number) else "Idle"})
            for number in range(1, self.drives + 1)
        ]
        root = {
            "Version": "1",
            "Beat": str(int(self.now)),
            "Connected": "false" if self._lost else "true",
        }
        bin_1 = element("Bin", {"Number": "1", "Setting": "CDRInputOnly", "DiscsRemaining": str(max(0, self.blanks))})
        printer = {"Number": "1", "Offline": "false", "RibbonPanelSetsRemaining": str(5 * max(0, self.ink))}
        return render(element("RimageAgent", root, bin_1, element("Printer", printer), *recorders, *alerts))

    def _busy(self, number: int) -> bool:
        return any(job.drive == number for job in self.jobs)

    def _status_of(self, name: str) -> Path:
        return self.folder / "status" / f"{name}.xml"

    def _forget(self, job: Job) -> None:
        super()._forget(job)
        self._status_of(job.name).unlink(missing_ok=True)


def _work(image: str, label: str, merge: str) -> Work:
    if label and not label.lower().endswith(_LABELS):
        raise Refused(f"The label {label!r} cannot be printed")
    # A design lies on the robot's own disc: the simulator has none to look at, and prints none.
    drawn = label if label.lower().endswith(".pdf") else ""
    return Work(image, drawn, (merge,) if merge else ())
