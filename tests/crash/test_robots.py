"""kill -9 of the service while a disc is in each state that a robot can have it in: no second disc is burnt unasked.

All makes of robots hang on one service, each with a job of its own between two kills; the moment of a kill is that of
one of them. The robots run on: they know nothing of our troubles, and every order runs out of ink once.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import select

from burners import registry
from media.verify import verify_path
from store.models_jobs import Volume
from tests import soak
from tests.burners.robots import ROBOTS, Running
from tests.crash.harness import Site
from tests.crash.test_kill import until

pytestmark = pytest.mark.crash

SPEED = 120.0
"""A disc takes about one and a half seconds."""
MEGABYTE = 1 << 20


@pytest.fixture
def floor(tmp_path: Path) -> Iterator[Floor]:
    made = Floor(tmp_path)
    yield made
    made.close()


class Floor:
    """A service with a robot of each make."""

    def __init__(self, folder: Path) -> None:
        self._stack = ExitStack()
        self.robots: dict[str, Running] = {}
        self.folders: dict[str, Path] = {}
        settings = ""
        for name in ROBOTS:
            self.folders[name] = folder / "robots" / name
            options = registry.drivers()[name].load().example(self.folders[name])
            robot = Running.on(name, self.folders[name], options, faults=["out-of-ink"], speed=SPEED)
            self.robots[name] = self._stack.enter_context(robot)
            lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in options.items())
            settings += f"[burners.{name}]\ndriver = {json.dumps(name)}\n{lines}"
        self.site = Site(folder / "site", more_settings=settings)

    def close(self) -> None:
        self.site.close()
        self._stack.close()

    def orders(self, name: str) -> int:
        """Order files that the robot has not taken."""
        suffix = registry.drivers()[name].load().dialect.order_suffix
        return len(list(self.folders[name].glob(f"*{suffix}")))

    def burning(self, name: str) -> bool:
        return any(path.suffix == ".burning" for path in self.robots[name].robot.out.iterdir())

    def finished_unseen(self, name: str) -> bool:
        """A disc has come out, and the service has not noted it."""
        made = {disc.stem.rpartition("-D")[2] for disc in self.robots[name].discs()}
        noted = {path.name.partition(".")[0].rpartition("-D")[2] for path in self._notes(name, "*.outcome.json")}
        return bool(made - noted)

    def exporting(self, name: str) -> bool:
        return bool(self._notes(name, "*/*.part"))

    def half_handed(self, name: str) -> bool:
        """The order's text is written, and has not got its name."""
        return any(self.folders[name].glob("*.tmp"))

    def _notes(self, name: str, pattern: str) -> list[Path]:
        try:
            return list((self.folders[name] / "burnish").glob(pattern))
        except FileNotFoundError:  # put away while we look
            return []


def moments(floor: Floor) -> dict[str, Callable[[str], bool]]:
    """When to strike, by what a robot's folder shows; the first ones always, the others in a long run."""
    site = floor.site
    return {
        "handed over": lambda name: floor.orders(name) > 0,
        "finished, not noted": floor.finished_unseen,
        "image half written": floor.exporting,
        "burning": floor.burning,
        "order written": floor.half_handed,
        "out of ink": lambda name: bool(floor.robots[name].robot.paused),
        "noted": lambda name: site.disc_in("BURNT", "VERIFYING"),
        "ticket stored": lambda name: site.disc_in("SUBMITTED"),
    }


def test_killed_in_each_state_no_disc_is_burnt_twice(
    floor: Floor, record_property: Callable[[str, object], None]
) -> None:
    site = floor.site
    dice = random.Random(soak.SEED)
    studies = [site.receive(1, 4), site.receive(2, 1, size=16 * MEGABYTE)]
    kinds = list(moments(floor).items())
    kills = [(kind, name) for kind in kinds for name in ROBOTS]
    few = list(zip(kinds[:3], dice.sample(ROBOTS, k=3), strict=True))
    chosen = kills if soak.FULL else few
    ordered: Counter[str] = Counter()
    jobs: list[int] = []
    struck: list[str] = []
    for (moment, here), watched in chosen:
        for name in ROBOTS:
            copies = 2 if name == watched else 1
            study = studies[1] if name == watched else studies[0]
            jobs.append(site.order(study, burner=name, copies=copies))
            ordered[name] += copies
        service = site.start()
        came = until(lambda here=here, watched=watched: here(watched), service, seconds=soak.size(30, 60))  # type: ignore[misc]
        service.kill()
        struck.append(f"{watched}: {moment}" if came else f"({watched}: {moment} did not come)")
    site.start()
    site.wait_done(jobs, seconds=soak.size(200, 900))
    soak.told(
        "kills with robots", f"{len(struck)} kills, {len(jobs)} jobs, {ordered.total()} discs; {'; '.join(struck)}"
    )
    record_property("seed", soak.SEED)
    assert sum("did not come" not in moment for moment in struck) >= len(struck) / 3, struck

    found = {name: [disc for job in jobs for disc in _discs(site, job, name)] for name in ROBOTS}
    with site.db.read() as session:
        digests = dict(session.execute(select(Volume.file_set_uid, Volume.image_sha256)).tuples().all())
    for name, robot in floor.robots.items():
        assert len(found[name]) == ordered[name]
        assert {(disc["state"], disc["attempt"], disc["verified_by"]) for disc in found[name]} == {
            ("VERIFIED", 1, "robot")
        }
        made = {disc.stem.rpartition("-")[2]: disc for disc in robot.discs()}
        assert sorted(made) == sorted(disc["disc"] for disc in found[name]), "each disc once, and no other"
        assert len(robot.discs()) == len(made) and robot.discs(".bad") == []
        for disc in found[name]:
            result = verify_path(made[disc["disc"]])
            assert result.ok, result.problems[:3]
            assert result.image_sha256 == digests[disc["file_set_uid"]] and result.file_set_uid == disc["file_set_uid"]
        taken = Counter(line.partition(":")[0] for line in robot.lines if line.endswith(": taken"))
        assert set(taken.values()) == {1} and len(taken) == ordered[name], "no order was given twice"
        left = [path for path in self_made(floor.folders[name]) if path.suffix in (".iso", ".part", ".tmp")]
        assert left == [], "what was for the robot alone is gone"


def _discs(site: Site, job: int, name: str) -> list[dict]:
    document = site.document(job)
    assert document["state"] == "DONE", (document["error"], site.services[-1].log_text()[-4000:])
    return document["discs"] if document["burner"] == name else []


def self_made(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
