"""What all simulated robots have in common: orders that live, drives, ink, blanks, faults, a clock that can run fast.

A simulator is a subclass that knows the files of one make (``Simulator``'s abstract methods). It takes an order only
through its file, reads the image only by the name that the robot has for it, and "burns" by copying it into the output
folder: ``JOB.iso`` is a good disc, ``JOB.bad`` a spoilt one. ``step`` does what is due; ``run`` calls it until stopped.
"""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import ClassVar

from burners.hotfolder_paths import OutsideShare, PathMap

GROUP = "burnish.simulators"
FAULTS = {
    "out-of-ink": "the ink is used up before the label is printed; somebody changes it after a minute",
    "no-blanks": "the input is empty; somebody fills it after a minute",
    "half-read": "the image cannot be read to its end; the disc is spoilt",
    "bad-disc": "the disc does not compare with the image",
    "cancel": "somebody cancels at the robot",
    "stall": "the robot stands still in the middle until the order is cancelled",
    "garbage-status": "the status files are rubbish while the order is worked on, and a while after",
    "delete-file": "somebody deletes the order's file while the robot is at work on it",
    "refuse": "the robot refuses the order",
    "offline": "the robot's program hangs for two minutes",
}
_STEP_SECONDS = 0.02
_CHUNK = 1 << 20
_NEVER = float("inf")


class Stage(StrEnum):
    """How far a simulated order is."""

    NEW = "NEW"
    TAKEN = "TAKEN"
    """Being checked."""
    QUEUED = "QUEUED"
    BURNING = "BURNING"
    VERIFYING = "VERIFYING"
    PRINTING = "PRINTING"
    PAUSED = "PAUSED"
    GOOD = "GOOD"
    BAD = "BAD"
    """Ended with a spoilt disc."""
    CANCELLED = "CANCELLED"
    REFUSED = "REFUSED"
    """Never begun."""
    FAILED = "FAILED"

    @property
    def ended(self) -> bool:
        return self in (Stage.GOOD, Stage.BAD, Stage.CANCELLED, Stage.REFUSED, Stage.FAILED)


class Refused(Exception):
    """The robot does not take the order; the text is its error code."""


class _Cancelled(Exception):
    """Raised within an order's life."""


@dataclass
class Work:
    """What an order asks for, as the simulator read it from the file."""

    image: str
    """As the robot names it."""
    label: str = ""
    files: Sequence[str] = ()
    """Further files that must be there (a merge file)."""


@dataclass(eq=False)
class Job:
    """An order on its way."""

    job_id: str
    """As in the order."""
    name: str
    """Of its file, without suffix."""
    path: Path | None
    """Its file now; None: somebody deleted it."""
    stage: Stage = Stage.NEW
    progress: float = 0.0
    good: int = 0
    bad: int = 0
    error: str = ""
    cancel: bool = False
    fault: str = ""
    stalled: bool = False
    """It stands still until somebody cancels it."""
    drive: int | None = None
    created: float = 0.0
    """Simulated seconds; of the end likewise."""
    ended: float = 0.0
    seen: Stage = Stage.NEW
    """Stage in which it was paused."""
    life: Generator[None, None, None] | None = field(default=None, repr=False)


class Simulator(ABC):
    """A robot. Times are in the robot's seconds; ``speed`` of them pass in a second."""

    faults: ClassVar[tuple[str, ...]] = tuple(FAULTS)
    """Those that this make can have."""
    shows_supplies: ClassVar[bool] = True
    """Its status says when ink or blanks are missing."""
    own_faults: ClassVar[Mapping[str, str]] = {}
    """What is in ``faults`` of this make alone, with words for people."""
    drives: ClassVar[int] = 2
    take_seconds: ClassVar[float] = 3.0
    """Until a new order is found."""
    check_seconds: ClassVar[float] = 3.0
    load_seconds: ClassVar[float] = 10.0
    burn_bytes: ClassVar[float] = 6e6
    """Written in a second (CD, 40x)."""
    least_burn_seconds: ClassVar[float] = 30.0
    print_seconds: ClassVar[float] = 25.0
    refill_seconds: ClassVar[float] = 60.0
    hang_seconds: ClassVar[float] = 120.0
    status_seconds: ClassVar[float] = 5.0
    forget_seconds: ClassVar[float] = 3600.0
    """After an order's end its files are moved to the log folder, and its status is forgotten."""

    def __init__(
        self,
        folder: Path,
        out: Path,
        *,
        robot_path: str = "",
        faults: Sequence[str] = (),
        seed: int = 0,
        speed: float = 1.0,
        tell: Callable[[str], None] = lambda line: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``faults`` are names of ``FAULTS``: with ``NAME:SHARE`` that share of the orders has it, else each one.

        Raises ValueError for a fault that is not known.
        """
        self.folder = Path(os.path.abspath(folder))  # noqa: PTH100 - links stay, dots go
        self.out = out
        self.share = PathMap(self.folder, robot_path or str(self.folder))
        self.jobs: list[Job] = []
        self.ink = 100
        self.blanks = 50
        self.delivered = 0
        self._faults = [self._fault(text) for text in faults]
        self._seed = seed
        self.speed = speed
        self._clock = clock
        self._began = clock()
        self._tell = tell
        self._frozen_until = 0.0
        self._garbage: dict[str, float] = {}
        self._status_due = 0.0
        self._person_at = _NEVER
        folder.mkdir(parents=True, exist_ok=True)
        out.mkdir(parents=True, exist_ok=True)
        self.start()

    # What a make of robot knows.

    @abstractmethod
    def start(self) -> None:
        """Make the folders of the robot; end what a robot that was switched off had under way."""

    @abstractmethod
    def new_orders(self) -> list[tuple[str, Path]]:
        """Names and files of orders that have come, those too that are known already."""

    @abstractmethod
    def read(self, job: Job) -> Work:
        """Read the order's file; sets ``job.job_id``. Raises Refused."""

    @abstractmethod
    def show(self, job: Job) -> None:
        """Rename the order's file as its stage demands."""

    @abstractmethod
    def look_for_cancellations(self) -> None:
        """Take the files that ask for it, call ``ask_cancel``, and answer."""

    @abstractmethod
    def status(self) -> dict[Path, str]:
        """The status files with their text."""

    def code(self, stage: Stage) -> str:
        """The make's error code for an order that ended so."""
        return ""

    # What they share.

    @property
    def now(self) -> float:
        """The robot's seconds since it was switched on."""
        return (self._clock() - self._began) * self.speed

    def run(self, stop: threading.Event) -> None:
        """Be a robot until ``stop`` is set."""
        while not stop.wait(_STEP_SECONDS):
            self.step()

    def step(self) -> None:
        """Do what is due."""
        if self.now < self._frozen_until:
            return
        known = {job.name for job in self.jobs}
        for name, path in self.new_orders():
            if name not in known:
                job = Job(job_id=name, name=name, path=path, created=self.now)
                job.life = self._live(job)
                self.jobs.append(job)
        with suppress(FileNotFoundError):
            self.look_for_cancellations()
        for job in list(self.jobs):
            if job.life is not None:
                self._go_on(job)
            elif self.now - job.ended > self.forget_seconds:
                self._forget(job)
        self._fill_up()
        if self.now >= self._status_due:
            self._status_due = self.now + self.status_seconds
            self._write_status()

    def ask_cancel(self, job_id: str) -> bool:
        """False when there is no such order, or it has ended."""
        for job in self.jobs:
            if job.job_id == job_id and not job.stage.ended:
                job.cancel = True
                return True
        return False

    @property
    def paused(self) -> list[Job]:
        return [job for job in self.jobs if job.stage is Stage.PAUSED]

    def _go_on(self, job: Job) -> None:
        assert job.life is not None
        try:
            next(job.life)
        except StopIteration:
            job.life = None
        except _Cancelled:
            self._spoil_unless_whole(job)
            self._end(job, Stage.CANCELLED)
        except Refused as error:
            self._end(job, Stage.REFUSED, str(error))
        except OSError as error:
            self._spoil_unless_whole(job)
            self._tell(f"{job.job_id}: {error}")
            self._end(job, Stage.FAILED)

    def _live(self, job: Job) -> Generator[None, None, None]:
        """The life of an order, from its file to a disc."""
        yield from self._wait(job, self.take_seconds)
        if job.path is None or not job.path.exists():
            self.jobs.remove(job)  # taken back before it was found
            return
        work = self.read(job)
        job.fault = self._chosen(job)
        if job.fault == "refuse":
            raise Refused(self.code(Stage.REFUSED))
        if job.fault == "garbage-status":
            self._garbage[job.name] = _NEVER
        self._move(job, Stage.TAKEN)
        yield from self._wait(job, self.check_seconds)
        image = self._local(work.image)
        for name in (work.label, *work.files):
            if name:
                self._local(name)
        size = image.stat().st_size
        self._move(job, Stage.QUEUED)
        while len([other for other in self.jobs if other.drive is not None]) >= self.drives or self.paused:
            yield from self._wait(job, 0)
        job.drive = next(
            number for number in range(1, self.drives + 1) if all(other.drive != number for other in self.jobs)
        )
        yield from self._load(job)
        self._move(job, Stage.BURNING)
        yield from self._burn(job, image, size)
        self._move(job, Stage.VERIFYING)
        yield from self._wait(job, max(self.least_burn_seconds, size / self.burn_bytes) / 2)
        if job.fault == "bad-disc":
            self._part(job).rename(self.out / f"{job.name}.bad")
            job.bad = 1
            self._end(job, Stage.BAD)
            return
        if work.label or job.fault == "out-of-ink":
            yield from self._print(job, self._local(work.label) if work.label else None)
        self._part(job).rename(self.out / f"{job.name}.iso")
        job.good = 1
        self.delivered += 1
        self._end(job, Stage.GOOD)

    def _load(self, job: Job) -> Generator[None, None, None]:
        if job.fault == "no-blanks":
            self.blanks = 0
        if self.blanks <= 0:
            yield from self._pause(job, "no blanks", lambda: self.blanks <= 0)
        self.blanks -= 1
        yield from self._wait(job, self.load_seconds)

    def _burn(self, job: Job, image: Path, size: int) -> Generator[None, None, None]:
        """Copy the image as fast as a drive would, and check that all of it came."""
        seconds = max(self.least_burn_seconds, size / self.burn_bytes)
        began = self.now
        done = 0
        with image.open("rb") as source, self._part(job).open("wb") as target:
            while done < size:
                wanted = min(size, int(size * min(1.0, (self.now - began) / seconds)))
                while done < wanted:
                    data = source.read(min(_CHUNK, wanted - done))
                    if not data:
                        raise OSError("the image ends too early")
                    target.write(data)
                    done += len(data)
                job.progress = done / size
                if done >= size // 2 and job.fault:
                    yield from self._strike(job)
                yield from self._wait(job, 0)
        if image.stat().st_size != size:
            raise OSError("the image changed while it was burnt")

    def _strike(self, job: Job) -> Generator[None, None, None]:
        """Faults that come in the middle of a burn."""
        fault, job.fault = job.fault, "" if job.fault in ("stall", "offline", "delete-file") else job.fault
        if fault == "half-read":
            raise OSError("the image cannot be read any further")
        if fault == "cancel":
            raise _Cancelled
        if fault == "offline":
            self._frozen_until = self.now + self.hang_seconds
            yield
        if fault == "delete-file" and job.path is not None:
            job.path.unlink(missing_ok=True)
            job.path = None
        while fault == "stall":
            job.stalled = True
            yield from self._wait(job, 0)

    def _print(self, job: Job, label: Path | None) -> Generator[None, None, None]:
        self._move(job, Stage.PRINTING)
        if job.fault == "out-of-ink":
            self.ink = 0
        if self.ink <= 0:
            yield from self._pause(job, "out of ink", lambda: self.ink <= 0)
        yield from self._wait(job, self.print_seconds)
        if label is not None:
            shutil.copyfile(label, self.out / f"{job.name}{label.suffix.lower()}")

    def _pause(self, job: Job, what: str, lacks: Callable[[], bool]) -> Generator[None, None, None]:
        """Until somebody has filled up what is missing."""
        job.seen = job.stage
        self._move(job, Stage.PAUSED)
        self._tell(f"{job.job_id}: {what}; somebody comes in {self.refill_seconds:.0f} s")
        while lacks():
            yield from self._wait(job, 0)
        self._move(job, job.seen)

    def _fill_up(self) -> None:
        """Somebody comes a while after something has run out, whatever becomes of the order that needed it."""
        if self.ink > 0 and self.blanks > 0:
            self._person_at = _NEVER
        elif self._person_at == _NEVER:
            self._person_at = self.now + self.refill_seconds
        elif self.now >= self._person_at:
            self.ink = self.ink if self.ink > 0 else 100
            self.blanks = self.blanks if self.blanks > 0 else 50
            self._person_at = _NEVER

    def _wait(self, job: Job, seconds: float) -> Generator[None, None, None]:
        until = self.now + seconds
        while True:
            if job.cancel:
                raise _Cancelled
            yield
            if self.now >= until:
                return

    def _move(self, job: Job, stage: Stage) -> None:
        job.stage = stage
        self.show(job)
        self._tell(f"{job.job_id}: {stage.value.lower()}")

    def _end(self, job: Job, stage: Stage, error: str = "") -> None:
        job.error = error or (self.code(stage) if stage is not Stage.GOOD else "")
        job.drive = None
        job.progress = 1.0
        job.ended = self.now
        job.life = None
        if job.name in self._garbage:
            self._garbage[job.name] = self.now + 4 * self.status_seconds
        self._move(job, stage)

    def _spoil_unless_whole(self, job: Job) -> None:
        part = self._part(job)
        if part.exists():
            part.rename(self.out / f"{job.name}.bad")
            job.bad = 1

    def _part(self, job: Job) -> Path:
        return self.out / f".{job.name}.burning"

    def _forget(self, job: Job) -> None:
        log = self.folder / "log"
        log.mkdir(exist_ok=True)
        for path in self.folder.iterdir():
            if path.is_file() and path.name.partition(".")[0] == job.name and not path.name.endswith(".tmp"):
                path.replace(log / path.name)
        self.jobs.remove(job)

    def _local(self, name: str) -> Path:
        """A file by the robot's name for it. Raises FileNotFoundError where the robot cannot find it."""
        try:
            path = self.share.to_local(name)
        except OutsideShare as error:
            raise FileNotFoundError(str(error)) from error
        if not path.is_file():
            raise FileNotFoundError(f"the robot finds no file {name}")
        return path

    def _write_status(self) -> None:
        """In place, as the real ones do: a reader may see half of it."""
        self._garbage = {name: until for name, until in self._garbage.items() if self.now < until}
        for path, text in self.status().items():
            if self._garbage:
                dice = random.Random(f"{self._seed} {self.now}")
                data = text.encode("cp1252", "replace")
                cut = data[: dice.randrange(len(data) + 1)]
                path.write_bytes(dice.choice((cut, dice.randbytes(300), b"", cut[::-1])))
            else:
                _write_over(path, text.encode("cp1252", "replace"))

    def _chosen(self, job: Job) -> str:
        """The fault of an order: by the disc's number at the end of its ID, so that a seed strikes the same ones."""
        disc = job.job_id.rpartition("-")[2]
        for name, share in self._faults:
            if random.Random(f"{self._seed} {disc} {name}").random() < share:
                return name
        return ""

    def _fault(self, text: str) -> tuple[str, float]:
        name, _, share = text.partition(":")
        if name not in self.faults:
            raise ValueError(f"there is no fault {name!r} here; there are {', '.join(self.faults)}")
        try:
            part = float(share or 1)
        except ValueError:
            part = -1
        if not 0 <= part <= 1:
            raise ValueError(f"fault {text!r}: the share is a number from 0 to 1")
        return name, part


def simulators() -> dict[str, EntryPoint]:
    """The simulated robots that are installed, by the name of the driver that they are for."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _write_over(path: Path, data: bytes) -> None:
    """New content over the old one, which is not emptied before: whoever reads it meanwhile sees either, or its end."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        os.pwrite(file, data, 0)
        os.ftruncate(file, len(data))
    finally:
        os.close(file)
