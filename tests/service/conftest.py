"""A store with a few instances, and settings whose ports are free ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from config.settings import Settings, load
from service import opening, passwords
from service.operations import StoreOperations
from store import migrate
from store.db import Database
from tests.makers import PATIENTS, Made, study
from tests.service.door import Door, cheap_hasher


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder that is not there yet; nothing of the environment gets in."""
    monkeypatch.delenv("BURNISH_DATA", raising=False)
    return tmp_path / "data"


@pytest.fixture
def settings(data: Path) -> Settings:
    return load(data=data, overrides={"dicom": {"port": 0, "acceptors": 1}, "http": {"port": 0}})


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder with three CT instances of one patient and two MR of another."""
    folder = tmp_path / "made"
    write(folder, study("CT", 3, seed=1))
    write(folder, study("MR", 2, seed=2, patient=PATIENTS["german"]))
    return folder


def write(folder: Path, instances: Iterator[Made] | list[Made]) -> list[Path]:
    return [one.write(folder / f"{one.kind}-{number}.dcm") for number, one in enumerate(instances, 1)]


@pytest.fixture
def opened(settings: Settings) -> Iterator[Callable[[], StoreOperations]]:
    """Opens the store as a command without a service does."""
    contexts = []

    def open_one() -> StoreOperations:
        context = opening.open_context(settings)
        contexts.append(context)
        return StoreOperations(context, source="cli")

    yield open_one
    for context in contexts:
        opening.close_context(context)


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords cost little."""
    hasher = cheap_hasher()
    monkeypatch.setattr(passwords, "_hasher", lambda: hasher)
    passwords._nobody.cache_clear()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with our tables, as Alembic makes them, to be copied."""
    path = tmp_path_factory.mktemp("empty") / "burnish.db"
    db = Database(f"sqlite:///{path}")
    migrate.upgrade(db)
    db.close()
    assert not path.with_name("burnish.db-wal").exists(), "all of it is in the one file"
    return path


@pytest.fixture
def door(opened: Callable[[], StoreOperations], settings: Settings, empty_database: Path, cheap: None) -> Door:
    """The application behind its guard, on a store without users."""
    settings.data.mkdir(mode=0o700)
    shutil.copyfile(empty_database, settings.data / "burnish.db")
    return Door(opened())
