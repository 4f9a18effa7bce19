"""kill -9 of the service while a disc in a local drive is in each of its states: never a second disc unasked."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config.settings import Settings, load
from store import jobs
from tests import soak
from tests.burners.drives import gone
from tests.crash.harness import Service, Site
from tests.waiting import wait_for

pytestmark = [pytest.mark.crash, pytest.mark.peer("xorriso")]

_TOOL = """#!/bin/sh
here=$(dirname "$0")
case " $* " in *" cdrecord "*)
    echo "$$" >>"$here/burns"
    while [ -e "$here/hold" ]; do sleep 0.02; done ;;
esac
exec xorriso "$@"
"""


class DriveSite(Site):
    """A site with one pseudo-drive, whose tool can be held up before it writes."""

    def settings_of(self, node: str) -> Settings:
        data = super().settings_of(node).data
        self.tool = self.folder / "xorriso-slow"
        if not self.tool.exists():  # a helper that lives on may run it just now
            self.tool.write_text(_TOOL)
            self.tool.chmod(0o755)
        self.disc = self.folder / "disc"
        config = self.folder / f"{node}.toml"
        with config.open("a") as file:
            file.write(
                f"[burners.dvd]\ndriver = 'drive'\ndrive = {json.dumps(f'stdio:{self.disc}')}\n"
                f"program = {json.dumps(str(self.tool))}\n"
            )
        return load(config=config, data=data)

    def blank(self) -> None:
        """The disc is taken out, a blank comes in."""
        if self.disc.exists():
            self.disc.rename(self.folder / f"taken-{len(list(self.folder.glob('taken-*')))}")
        self.disc.touch()

    def hold(self, wanted: bool) -> None:
        path = self.folder / "hold"
        path.touch() if wanted else path.unlink(missing_ok=True)

    def held(self) -> bool:
        return (self.folder / "hold").exists()

    def burns(self) -> list[int]:
        """Process of each run of the tool that was about to write."""
        path = self.folder / "burns"
        return [int(line) for line in path.read_text().splitlines()] if path.exists() else []

    def discs_of(self, job: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.document(job)["discs"]
        return found

    def needs(self, job: int) -> str:
        return " ".join(need["what"] for need in self.document(job)["needs"])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[DriveSite]:
    made = DriveSite(tmp_path / "site")
    yield made
    made.hold(False)
    made.close()


def kill(service: Service) -> None:
    """Of the service alone: what burns lives on."""
    service.process.kill()
    service.process.wait()


MOMENTS: dict[str, frozenset[str]] = {
    "waiting for a blank": frozenset(("SUBMITTED", "BURNING")),
    "ticket stored": frozenset(("SUBMITTED", "BURNING")),
    "burning": frozenset(("BURNING",)),
    "burnt": frozenset(("BURNT", "VERIFYING", "VERIFIED")),
    "verifying": frozenset(("VERIFYING", "VERIFIED")),
}


def _moments() -> list[str]:
    return list(MOMENTS) if soak.FULL else ["waiting for a blank", "burning", "verifying"]


def test_killed_in_each_state_each_disc_is_burnt_once(site: DriveSite) -> None:
    study = site.receive(1, 3, size=4 << 20)
    service = site.start()
    for number, moment in enumerate(_moments(), 1):
        states = MOMENTS[moment]
        without_blank = moment == "waiting for a blank"
        site.hold(moment == "burning")
        if not without_blank:
            site.blank()
        job = site.order(study, burner="dvd")

        def came(job: int = job, states: frozenset[str] = states, waits: bool = without_blank, n: int = number) -> bool:
            seen = {disc["state"] for disc in site.discs_of(job)} & states
            return (
                bool(seen) and (not waits or bool(site.needs(job))) and (site.held() is False or len(site.burns()) == n)
            )

        wait_for(came, moment)
        kill(service)
        site.hold(False)  # what burns ends while nobody is there
        assert len(site.burns()) <= number
        if without_blank:
            assert not site.burns()
            site.blank()
        service = site.start()
        site.wait_done([job])
        (disc,) = site.discs_of(job)
        assert (disc["state"], disc["verified_by"], disc["attempt"]) == ("VERIFIED", "read-back", 1), disc["error"]
        assert len(site.burns()) == number and site.disc.stat().st_size >= disc["sectors"] * 2048
    soak.told("kills with a drive", f"{len(site.burns())} discs, each burnt once; {', '.join(_moments())}")


def test_the_second_copy_waits_for_its_blank_over_a_restart(site: DriveSite) -> None:
    study = site.receive(1, 2)
    job = site.order(study, burner="dvd", copies=2)
    site.blank()
    service = site.start()

    def asked() -> bool:
        needs = site.needs(job)
        return site.job_in("WAITING") and "copy 2" in needs and "made by Burnish" in needs

    wait_for(asked, "the second blank to be asked for")
    first = site.disc.read_bytes()
    kill(service)
    site.start()
    wait_for(lambda: len(site.burns()) == 1 and "copy 2" in site.needs(job), "it to be asked for again")
    assert site.disc.read_bytes() == first
    site.blank()
    site.wait_done([job])
    assert [disc["state"] for disc in site.discs_of(job)] == ["VERIFIED"] * 2 and len(site.burns()) == 2
    assert (site.folder / "taken-0").read_bytes() == first == site.disc.read_bytes()


def test_a_burn_that_died_with_the_service_has_failed_until_a_person_says_otherwise(site: DriveSite) -> None:
    """As when the power fails: service, helper and tool are gone, and the disc is what it is."""
    study = site.receive(1, 2)
    job = site.order(study, burner="dvd")
    site.blank()
    site.hold(True)
    service = site.start()
    wait_for(lambda: bool(site.burns()) and site.disc_in("BURNING"), "the burn")
    (run,) = [path.parent for path in (site.settings.data / "drives").glob("dvd/*/started.json")]
    helper = json.loads((run / "started.json").read_text())["pid"]
    kill(service)
    for pid in (helper, *site.burns()):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: all(gone(pid) for pid in (helper, *site.burns())), "everything to be dead")
    site.hold(False)
    site.start()

    def given_up() -> bool:
        (disc,) = site.discs_of(job)
        return disc["state"] == "FAILED" and site.document(job)["state"] == "WAITING"

    wait_for(given_up, "the disc to be given up")
    (disc,) = site.discs_of(job)
    assert "cut off" in disc["error"] and "burnish retry J1" in site.needs(job)
    site.blank()
    other = site.order(study, burner="dvd")  # somebody else's job goes on
    site.wait_done([other])
    assert site.document(job)["state"] == "WAITING" and len(site.burns()) == 2
    site.blank()
    with site.db.begin() as session:
        jobs.retry(session, job)
    site.wait_done([job])
    assert site.document(job)["state"] == "DONE" and len(site.burns()) == 3
