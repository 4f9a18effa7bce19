"""A process that fills a pool is killed with -9 at each of its commits: nothing is lost, nothing is taken twice."""

from __future__ import annotations

import os
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import event, func, select

from jobs.filling import fill
from store import migrate, waiting
from store.db import Database
from store.models import Instance
from store.models_archive import PoolInstance
from store.models_jobs import Job, Request, RequestInstance
from tests.jobs.conftest import House
from tests.jobs.test_pools import make_pool, put_all, receive


def fill_and_die(house: House, commits: int, *, after: bool) -> None:
    """Fill the pool in a process of its own, which kills itself just before or after so many commits."""
    house.db.close()
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        db = Database(house.db.url)
        seen = 0

        def count(_connection: object) -> None:
            nonlocal seen
            seen += 1
            if seen == commits:
                os.kill(os.getpid(), signal.SIGKILL)

        if after:  # the next transaction begins when the one before is durable
            commits += 1
            event.listen(db.engine, "begin", lambda connection: count(connection) if _writes(connection) else None)
        else:
            event.listen(db.engine, "commit", count)
        fill(replace(house.ctx, db=db), "arch", everything=True)
    finally:
        os._exit(0)


def _writes(connection: object) -> bool:
    return not connection.get_execution_options().get("burnish_read_only", False)  # type: ignore[attr-defined]


@pytest.mark.parametrize("after", [False, True])
def test_killed_at_each_commit(tmp_path: Path, after: bool) -> None:
    database = Database(f"sqlite:///{tmp_path / 'burnish.db'}")
    migrate.upgrade(database)
    house = House(database, tmp_path / "data")
    make_pool(house)
    for number in range(1, 10):
        receive(house, number)
    put_all(house)
    for commits in (1, 2, 3):
        fill_and_die(house, commits, after=after)
        check(house)
        if commits == 1:
            with house.db.read() as session:
                assert session.scalar(select(func.count()).select_from(Request)) == after, "it died where it should"
    fill(house.ctx, "arch", everything=True)
    check(house)
    with house.db.read() as session:
        assert waiting.summary(session, "arch").instances == 0
        assert session.scalar(select(func.count()).select_from(Job)) == 2, "as many jobs as without a crash"
    house.close()
    database.close()


def check(house: House) -> None:
    with house.db.read() as session:
        everything = session.scalars(select(Instance.id)).all()
        requested = Counter(session.scalars(select(RequestInstance.instance_id)))
        assert max(requested.values(), default=1) == 1, "nothing is taken twice"
        of_pool = dict(session.execute(select(PoolInstance.instance_id, PoolInstance.request_id)).tuples().all())
        assert sorted(of_pool) == sorted(everything), "nothing is lost"
        assert {one for one, request in of_pool.items() if request is not None} == set(requested)
        jobs = Counter(session.scalars(select(Job.request_id)))
        assert jobs == Counter(session.scalars(select(Request.id))), "each request has its job"
