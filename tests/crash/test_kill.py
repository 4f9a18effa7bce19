"""kill -9 at any moment between the start of the process and DONE, again and again, with new jobs in between."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests import soak
from tests.crash.harness import Service, Site, descendants
from tests.ports import own_port

pytestmark = pytest.mark.crash

KILLS = soak.size(2, 30)
MEGABYTE = 1 << 20
CHANGED: dict[str, Any] = {
    "profile": "STD-GEN-DVD-J2K",
    "compress": "lossy",
    "allow_lossy": True,
    "coerce": [{"name": "moved", "set": {"StationName": "CT2", "PatientName": "Müller^Änne"}}],
}
"""Options of a job whose instances are all edited, and compressed lossily if their pixel data suits."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "site", acceptors=2)
    yield made
    made.close()


def until(condition: Callable[[], bool], service: Service, *, seconds: float) -> bool:
    """Look as fast as can be; False when the moment did not come."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and service.process.poll() is None:
        with suppress(FileNotFoundError):  # gone between being listed and being looked at
            if condition():
                return True
    return False


def moments(site: Site) -> dict[str, Callable[[Service, random.Random], bool]]:
    """When to strike. Each waits for its moment, and says whether it came."""

    def after(longest: float) -> Callable[[Service, random.Random], bool]:
        def wait(service: Service, dice: random.Random) -> bool:
            return not until(lambda: False, service, seconds=dice.uniform(0, longest))

        return wait

    def when(condition: Callable[[], bool]) -> Callable[[Service, random.Random], bool]:
        return lambda service, dice: until(condition, service, seconds=8)

    return {
        "planning": when(lambda: site.job_in("PLANNING", "CONFORMING")),
        "half written": when(site.half_written),
        "at any time": after(4.0),
        "verifying": when(lambda: site.disc_in("VERIFYING")),
        "while it starts": after(1.5),
        "ready to burn": when(lambda: site.disc_in("PLANNED")),
        "ticket stored": when(lambda: site.disc_in("SUBMITTED", "BURNING")),
        "burnt": when(lambda: site.disc_in("BURNT")),
    }


def test_killed_again_and_again_every_job_ends_done(site: Site, record_property: Callable[[str, object], None]) -> None:
    dice = random.Random(soak.SEED)
    studies = [site.receive(1, 6), site.receive(2, 4, size=8 * MEGABYTE), site.receive(3, 1, size=24 * MEGABYTE)]
    all_moments = list(moments(site).items())
    job_ids: list[int] = []
    struck: list[str] = []
    slowest = 0.0
    for kill in range(KILLS):
        name, wait = all_moments[kill % len(all_moments)]
        changed = CHANGED if kill % 3 == 1 else {}
        job_ids.append(site.order(studies[kill % len(studies)], copies=1 + kill % 2, **changed))
        service = site.start()
        came = wait(service, dice)
        slowest = max(slowest, service.kill())
        struck.append(name if came else f"({name} did not come)")
    job_ids.append(site.order(studies[0], priority="high"))
    site.start()
    site.wait_done(job_ids, seconds=soak.size(200, 900))
    discs = site.check(job_ids)
    record_property("seed", soak.SEED)
    soak.told(
        "kills at every moment",
        f"{KILLS} kills, {len(job_ids)} jobs, {discs} discs, helpers gone in {slowest:.2f} s; {', '.join(struck)}",
    )


def test_it_starts_again_at_once_on_the_same_ports(site: Site) -> None:
    dicom, http = own_port(), own_port()
    service = site.start(dicom_port=dicom, http_port=http)
    ready = service.ready()
    for _ in range(soak.size(1, 5)):
        assert len(descendants(service.process.pid)) >= 2  # the acceptors
        service.kill()
        service = site.start(dicom_port=dicom, http_port=http)
        again = service.ready()
        assert (again["dicom"]["port"], again["http"]["url"]) == (dicom, ready["http"]["url"])
