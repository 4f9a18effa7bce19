"""Two services on one PostgreSQL: they share the work, and take over from one that is killed or only stopped."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from store.models_jobs import Disc
from store.models_nodes import Event, Node
from tests import soak
from tests.crash.harness import Service, Site
from tests.waiting import wait_for

pytestmark = [pytest.mark.crash, pytest.mark.postgres]

MEGABYTE = 1 << 20
LEASE = 2.0


@pytest.fixture
def site(tmp_path: Path, postgres_url: str) -> Iterator[Site]:
    made = Site(tmp_path / "site", database_url=postgres_url, lease_seconds=LEASE)
    yield made
    made.close()


@pytest.fixture
def pair(site: Site) -> tuple[Service, Service]:
    first, second = site.start("a"), site.start("b")
    first.ready(), second.ready()
    return first, second


def nodes_of(site: Site) -> set[str]:
    """Who did anything for a disc."""
    with site.db.read() as session:
        events = session.scalars(select(Event.detail).where(Event.kind == "disc"))
        return {detail["node"] for detail in events if "node" in detail}


def taken_over(site: Site, node: str) -> bool:
    with site.db.read() as session:
        return session.scalar(select(Node.owner).where(Node.name == node)) is not None


def test_two_services_share_the_work(site: Site, pair: tuple[Service, Service]) -> None:
    study = site.receive(1, 3)
    for _ in range(20):  # on a busy machine one of them may be quick enough to take all of so little work
        job_ids = [site.order(study) for _ in range(8)]
        site.wait_done(job_ids)
        site.check(job_ids)
        if nodes_of(site) == {"a", "b"}:
            break
    assert nodes_of(site) == {"a", "b"}


def burning_on(site: Site, node: str) -> bool:
    """A disc of this node is half written, or just about to be published."""
    return site.disc_in("SUBMITTED", "BURNING", node=node) and site.half_written()


def conforming_on(site: Site, node: str) -> bool:
    return site.job_in("PLANNING", "CONFORMING") and site.disc_in("SUBMITTED", "BURNING", "VERIFYING", node=node)


def test_the_survivor_finishes_what_the_dead_began(site: Site, pair: tuple[Service, Service]) -> None:
    study = site.receive(1, 3, size=16 * MEGABYTE)
    job_ids = [site.order(study, copies=2) for _ in range(2)]
    first, second = pair
    wait_for(lambda: burning_on(site, "a") or burning_on(site, "b"), "a disc half written")
    dead = first if burning_on(site, "a") else second
    dead.kill()
    site.wait_done(job_ids)
    site.check(job_ids)
    wait_for(lambda: taken_over(site, dead.node), "the take-over")


@pytest.mark.parametrize("attempt", range(soak.size(1, 8)))
def test_one_that_was_only_stopped_makes_nothing_twice(
    site: Site, pair: tuple[Service, Service], attempt: int, record_property: Callable[[str, object], None]
) -> None:
    dice = random.Random(soak.SEED + attempt)
    study = site.receive(1, 3, size=24 * MEGABYTE)
    job_ids = [site.order(study, copies=2) for _ in range(2)]
    wait_for(lambda: burning_on(site, "a") or burning_on(site, "b"), "a disc half written")
    if attempt:
        time.sleep(dice.uniform(0, 0.4))
    first, second = pair
    stopped, other = (first, second) if site.disc_in("SUBMITTED", "BURNING", node="a") else (second, first)
    stopped.stop()
    wait_for(lambda: taken_over(site, stopped.node), "the take-over")
    if attempt % 2:
        time.sleep(dice.uniform(0, 1))
    else:
        site.wait_done(job_ids)
    stopped.go_on()
    site.wait_done(job_ids)

    wait_for(lambda: not taken_over(site, stopped.node), "the stopped one to join again")
    # What it still had in hand when it was stopped must not appear now: let it do other work first.
    other.end()
    more = [site.order(study) for _ in range(2)]
    site.wait_done(more)
    site.check([*job_ids, *more])
    with site.db.read() as session:
        last = session.scalars(select(Disc.node).where(Disc.job_id.in_(more))).all()
    assert set(last) == {stopped.node}
    assert stopped.process.poll() is None
    record_property("seed", soak.SEED + attempt)
    soak.told(
        "a node stopped and continued", f"{len(job_ids) + len(more)} jobs, each disc once", seed=soak.SEED + attempt
    )


def test_nodes_come_and_go_while_jobs_are_done(site: Site) -> None:
    dice = random.Random(soak.SEED)
    study = site.receive(1, 2, size=8 * MEGABYTE)
    running: dict[str, Service] = {name: site.start(name) for name in ("a", "b")}
    for service in running.values():
        service.ready()
    job_ids: list[int] = []
    kills = soak.size(2, 12)
    for _ in range(kills):
        job_ids += [site.order(study, copies=2) for _ in range(2)]
        time.sleep(dice.uniform(0.2, 2.0))
        name = dice.choice(sorted(running))
        running[name].kill()
        if dice.random() < 0.7:
            time.sleep(dice.uniform(0, 1.5 * LEASE))
        running[name] = site.start(name)
        running[name].ready()
    site.wait_done(job_ids)
    site.check(job_ids)
    soak.told("nodes come and go", f"{kills} kills, {len(job_ids)} jobs, each disc once")
