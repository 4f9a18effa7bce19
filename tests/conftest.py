"""Fixtures that every room's tests share: real files, databases built by Alembic, peers."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from store import migrate
from store.db import Database

IN_CI = os.environ.get("CI") == "true"
POSTGRES_BIN = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


def _missing(what: str) -> None:
    """Skip with a reason; in CI a missing peer is a failure."""
    if IN_CI:
        pytest.fail(f"{what} is not installed, and CI may not skip it")
    pytest.skip(f"{what} is not installed (apt could not run here)")


@pytest.fixture(autouse=True)
def _peers(request: pytest.FixtureRequest) -> None:
    for mark in request.node.iter_markers("peer"):
        for program in mark.args:
            if shutil.which(program) is None:
                _missing(program)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the real files, ``BURNISH_SHARED_DATA`` or ``../shared/data/real``."""
    folder = Path(os.environ.get("BURNISH_SHARED_DATA", Path(__file__).parents[2] / "shared/data/real"))
    if not folder.is_dir():
        pytest.skip(f"the shared real files are not at {folder}")
    return folder


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL prefix of a PostgreSQL of our own on a free port; stopped at the end."""
    if POSTGRES_BIN is None or not (POSTGRES_BIN / "initdb").exists():
        _missing("postgresql")
    assert POSTGRES_BIN is not None
    folder = Path(tempfile.mkdtemp(prefix="burnish-pg-"))
    as_user: list[str] = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        shutil.chown(folder, "postgres", "postgres")
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]

    def run(*command: str | Path) -> None:
        subprocess.run([*as_user, *command], check=True, stdout=subprocess.DEVNULL, cwd="/")

    run(POSTGRES_BIN / "initdb", "-D", folder / "db", "-U", "burnish", "-A", "trust", "-N", "-E", "UTF8")
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c max_connections=200"
    control = [POSTGRES_BIN / "pg_ctl", "-D", folder / "db", "-w", "-l", folder / "log"]
    run(*control, "-o", options, "start")
    try:
        yield f"postgresql+psycopg://burnish@/{{name}}?host={folder}"
    finally:
        run(*control, "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """URL of a new empty PostgreSQL database."""
    from sqlalchemy import create_engine, text

    name = f"t{uuid.uuid4().hex}"
    engine = create_engine(postgres_server.format(name="postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}"'))
    engine.dispose()
    return postgres_server.format(name=name)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a new empty database, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'burnish.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database with our tables, built by Alembic, once of each kind."""
    db = Database(database_url)
    migrate.upgrade(db)
    yield db
    db.close()
