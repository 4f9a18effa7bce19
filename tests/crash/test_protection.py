"""kill -9 of the service while a volume is staged, its error-correction data is made, or its copies are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import soak
from tests.crash.harness import Site
from tests.waiting import wait_for

pytestmark = [pytest.mark.crash, pytest.mark.peer("dvdisaster")]

MEGABYTE = 1 << 20


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "site")
    yield made
    made.close()


def test_a_protected_job_goes_on_and_its_copies_are_equal(site: Site) -> None:
    study = site.receive(1, 3, size=MEGABYTE)
    job = site.order(study, copies=2, protect="rs02", protect_percent=100.0)
    staging = site.settings.data / "staging"

    def staged(least: int) -> bool:
        parts = staging.glob(".*.part") if staging.is_dir() else ()
        return any(size_of(part) >= least for part in parts)

    moments: list[tuple[str, Callable[[], bool]]] = [
        ("staging", lambda: staged(1)),
        ("making the data", lambda: staged(3 * MEGABYTE + (1 << 19))),
        ("writing copies", site.half_written),
    ]
    struck = []
    for what, moment in moments * soak.size(1, 6):
        if site.job_in("DONE"):
            break
        struck.append(what)
        service = site.start()
        wait_for(lambda moment=moment: moment() or site.job_in("DONE"), what)  # type: ignore[misc]
        service.kill()
    site.start()
    site.wait_done([job])
    assert site.check([job]) == 2
    discs = site.document(job)["discs"]
    assert len({Path(disc["image"]).read_bytes() for disc in discs}) == 1
    assert {disc["protection"] for disc in discs} == {"rs02"}
    wait_for(lambda: not [one for one in staging.iterdir() if one.suffix != ".lock"], "the staged image to go")
    soak.told("kills while protecting", f"{len(struck)} kills, 2 copies, equal; {', '.join(struck)}")


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
