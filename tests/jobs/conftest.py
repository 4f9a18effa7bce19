"""A store with received instances, an ISO folder and an engine: what the tests of this room work on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from burners import registry
from burners.registry import Burners
from config.settings import load
from jobs.context import Context
from jobs.engine import Engine
from jobs.options import RequestOptions
from jobs.planning import create_request
from store import jobs, migrate
from store.db import Database
from store.instances import Provenance, Registrar, ingest_file
from store.selection import Selection
from store.spool import Spool
from tests.makers import PATIENTS, study


class House:
    """Everything below the service, on one database."""

    def __init__(self, database: Database, data: Path, overrides: dict[str, Any] | None = None) -> None:
        self.data = data
        given = {"database": {"url": database.url}, "node": {"lease_seconds": 60.0}} | (overrides or {})
        self.settings = load(data=data, overrides=given)
        self.settings.derived_dir.mkdir(parents=True, exist_ok=True)
        self.ctx = Context(self.settings, database, Spool(self.settings.spool_dir, node="n1"))
        self.burners: Burners = registry.load(self.settings.burners, data=data)
        self._engines: list[Engine] = []

    @property
    def db(self) -> Database:
        return self.ctx.db

    def receive(
        self, count: int = 3, *, modality: str = "CT", seed: int = 1, calling: str = "CT_1", **more: Any
    ) -> str:
        """A study of ``count`` instances comes in; returns its UID."""
        made = list(study(modality, count, seed=seed, patient=PATIENTS["ascii"], **more))
        registrar = Registrar(self.db, self.ctx.spool)
        folder = self.data / "incoming-test"
        folder.mkdir(exist_ok=True)
        for one in made:
            ingest_file(registrar, one.write(folder), provenance=Provenance(calling, "BURNISH", "test"))
        return str(made[0].dataset.StudyInstanceUID)

    def order(self, selection: Selection | None = None, **given: Any) -> int:
        """Queue a job, as a command would."""
        with self.db.begin() as session:
            options = RequestOptions.from_settings(self.settings, given)
            request = create_request(
                session, selection=selection or Selection(all=True), options=options, source="test"
            )
            return jobs.create_job(session, request, None, options)

    def engine(self, **more: Any) -> Engine:
        """Not started yet."""
        engine = Engine(self.ctx, self.burners, node="n1", **more)
        self._engines.append(engine)
        return engine

    def close(self) -> None:
        for engine in self._engines:
            engine.stop()
        self.burners.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """On SQLite."""
    database = Database(f"sqlite:///{tmp_path / 'burnish.db'}")
    migrate.upgrade(database)
    made = House(database, tmp_path / "data")
    yield made
    made.close()
    database.close()


@pytest.fixture
def any_house(database: Database, tmp_path: Path) -> Iterator[House]:
    """On SQLite and on PostgreSQL."""
    made = House(database, tmp_path / "data")
    yield made
    made.close()


@pytest.fixture
def make_house(database: Database, tmp_path: Path) -> Iterator[Callable[..., House]]:
    """The same with settings of the test's own."""
    houses: list[House] = []

    def make(**overrides: Any) -> House:
        houses.append(House(database, tmp_path / "data", overrides))
        return houses[-1]

    yield make
    for one in houses:
        one.close()
