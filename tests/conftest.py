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
from sqlalchemy import create_engine, make_url, text

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
    name = f"t{uuid.uuid4().hex}"
    _on_server(postgres_server, f'CREATE DATABASE "{name}"')
    return postgres_server.format(name=name)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a new empty database, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'burnish.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with our tables, built by Alembic; the migrations run once and not for every test."""
    path = tmp_path_factory.mktemp("template") / "burnish.db"
    _migrated(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str) -> str:
    """Name of a PostgreSQL database with our tables, built by Alembic."""
    _on_server(postgres_server, 'CREATE DATABASE "burnish_template"')
    _migrated(postgres_server.format(name="burnish_template"))
    return "burnish_template"


def _migrated(url: str) -> None:
    db = Database(url)
    migrate.upgrade(db)
    db.close()


def _on_server(server: str, *statements: str) -> None:
    engine = create_engine(server.format(name="postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


@pytest.fixture
def database(request: pytest.FixtureRequest, database_url: str) -> Iterator[Database]:
    """A database with our tables, built by Alembic, once of each kind."""
    url = make_url(database_url)
    assert url.database is not None
    if url.get_backend_name() == "sqlite":
        shutil.copyfile(request.getfixturevalue("sqlite_template"), url.database)
    else:
        template = request.getfixturevalue("postgres_template")
        _on_server(
            request.getfixturevalue("postgres_server"),
            f'DROP DATABASE "{url.database}"',
            f'CREATE DATABASE "{url.database}" TEMPLATE "{template}"',
        )
    db = Database(database_url)
    yield db
    db.close()
