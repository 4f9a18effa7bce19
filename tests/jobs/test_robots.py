"""A hundred jobs in a row on each robot, random faults, an operator who retries: nobody gets a disc too many."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from burners import registry
from burners.simulated.base import FAULTS, Simulator, simulators
from jobs.engine import Engine
from store import jobs, migrate
from store.db import Database
from store.jobs import JobError
from store.models_jobs import BurnerSlot, Disc, Job, Volume
from store.selection import Selection
from store.states import JOB_FINAL, DiscState, JobState
from tests import soak
from tests.burners.robots import ROBOTS, Running
from tests.jobs.conftest import House
from tests.waiting import wait_for

pytestmark = pytest.mark.soak

JOBS = soak.size(4, 100)
SHARE = 0.06
"""Of the orders that each fault strikes; about half of all have none."""
QUICK = {"stale_seconds": 2.0, "lost_seconds": 5.0, "stall_minutes": 0.02, "cancel_minutes": 0.5}


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[str], House]]:
    database = Database(f"sqlite:///{tmp_path / 'burnish.db'}")
    migrate.upgrade(database)
    houses: list[House] = []

    def made(name: str) -> House:
        kind = registry.drivers()[name].load()
        options = kind.example(tmp_path / "robot") | QUICK | {"driver": name}
        houses.append(House(database, tmp_path / "data", {"burners": {"robot": options}, "burn": {"burner": "robot"}}))
        return houses[-1]

    yield made
    for house in houses:
        house.close()
    database.close()


def faults(name: str) -> list[str]:
    """Those after which files and status of this make tell the truth about the disc."""
    kind = simulators()[name].load()
    mute = () if kind.shows_supplies else ("delete-file",)
    deaf = () if registry.drivers()[name].load().dialect({}, []).cancellation("X") else ("stall",)
    return [fault for fault in FAULTS if fault in kind.faults and fault not in (*mute, *deaf)]


class Operator:
    """Cancels what stands still, when no other disc of the job is being made, and retries what failed."""

    def __init__(self, house: House, robot: Simulator) -> None:
        self._house = house
        self._robot = robot
        self._burner = house.burners.usable["robot"]
        self.retries = 0
        self.cancelled = 0

    def look(self) -> bool:
        """One round; True when all jobs are DONE."""
        with self._house.db.read() as session:
            rows = {job.id: JobState(job.state) for job in session.scalars(select(Job))}
            busy = list(session.scalars(select(Disc).where(Disc.state.in_(("SUBMITTED", "BURNING")))))
        at_robot = {job.job_id: job for job in list(self._robot.jobs)}
        moving = {
            disc.job_id
            for disc in busy
            if disc.ticket and (job := at_robot.get(disc.ticket["mark"])) and job.drive and not job.stalled
        }
        for disc in busy:
            if not disc.ticket or disc.job_id in moving:
                continue
            seen = at_robot.get(disc.ticket["mark"])
            if seen and seen.stalled and "has moved" in self._burner.poll(disc.ticket).message:
                self.cancelled += self._try(jobs.request_cancel, disc.job_id)
        for job_id, state in rows.items():
            if state in JOB_FINAL and state is not JobState.DONE:
                self.retries += self._try(jobs.retry, job_id)
        return set(rows.values()) == {JobState.DONE}

    def _try(self, what: Callable[..., None], job_id: int) -> int:
        try:
            with self._house.db.begin() as session:
                what(session, job_id)
        except JobError:
            return 0  # it has ended meanwhile
        return 1


@pytest.mark.timeout(180 + 12 * JOBS)
@pytest.mark.parametrize("name", ROBOTS)
def test_as_many_good_discs_as_were_ordered(name: str, make: Callable[[str], House], tmp_path: Path) -> None:
    dice = random.Random(soak.SEED)
    house = make(name)
    studies = [house.receive(2, seed=seed) for seed in (1, 2, 3)]
    chosen = [f"{fault}:{SHARE}" for fault in faults(name)]
    options = dict(house.settings.burners["robot"].options)
    ordered = 0
    with Running.on(name, tmp_path / "robot", options, faults=chosen, seed=soak.SEED) as robot:
        engine: Engine = house.engine()
        engine.start()
        for _ in range(JOBS):
            copies = dice.randint(1, 2)
            house.order(Selection(study=(dice.choice(studies),)), copies=copies)
            ordered += copies
        operator = Operator(house, robot.robot)
        began = time.monotonic()
        wait_for(operator.look, "all jobs to be done", seconds=60 + 12 * JOBS)
        took = time.monotonic() - began
        engine.stop()
        with house.db.read() as session:
            discs = list(session.execute(select(Disc, Volume).join(Volume, Volume.id == Disc.volume_id)))
            assert all(held is None for held in session.scalars(select(BurnerSlot.disc_id)))
        verified = {disc.ticket["mark"]: volume for disc, volume in discs if disc.state == DiscState.VERIFIED}
        good = {path.stem: path for path in robot.discs()}
        assert len(verified) == ordered
        # A disc may be good a moment before its cancellation arrives; then it is not counted.
        cancelled = {disc.ticket["mark"] for disc, _ in discs if disc.ticket and disc.state == DiscState.CANCELLED}
        late = set(good) - set(verified)
        odd = {disc.ticket["mark"]: (disc.state, disc.error) for disc, _ in discs if disc.ticket}
        assert late <= cancelled, {mark: odd[mark] for mark in late - cancelled}
        assert set(verified) <= set(good) and len(late) <= operator.cancelled
        for mark, volume in verified.items():
            assert hashlib.sha256(good[mark].read_bytes()).hexdigest() == volume.image_sha256
        spoilt, struck = len(robot.discs(".bad")), sum(1 for disc, _ in discs if disc.state != DiscState.VERIFIED)
        assert struck == len(discs) - ordered
        assert {disc.verified_by for disc, _ in discs if disc.state == DiscState.VERIFIED} == {"robot"}
    soak.told(
        f"jobs with faults, {name}",
        f"{JOBS} jobs, {ordered} discs ordered, {len(good)} good ({len(late)} when already cancelled), "
        f"{spoilt} spoilt, {struck} attempts failed or cancelled, {operator.retries} retries, "
        f"{operator.cancelled} cancellations, {took:.0f} s",
    )
