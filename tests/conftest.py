"""Fixtures that every room's tests share: real files, databases built by Alembic, peers."""

from __future__ import annotations

import copy
import functools
import gc
import os
import shutil
import sqlite3
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import typer.testing
from hypothesis import HealthCheck, settings
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import OperationalError

from jobs import engine
from service import calls
from service.operations import StoreOperations
from store import migrate
from store.db import Database
from tests import soak

IN_CI = os.environ.get("CI") == "true"
POSTGRES_BIN = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)

# One commit has one result: the examples are the same in every run but the full one, and a slow machine is no fault.
settings.register_profile(
    "suite",
    derandomize=True,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("soak", settings.get_profile("suite"), derandomize=False, max_examples=2000)
settings.load_profile("soak" if soak.FULL else "suite")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Rooms whose tests take longest come first, and in one piece: workers without work take from the end."""
    rooms = ("web", "archive", "crash")
    items.sort(key=lambda item: rooms.index(item.path.parent.name) if item.path.parent.name in rooms else len(rooms))


def pytest_collection_finish() -> None:
    """Thousands of tests and all our modules stay: looking through them for garbage takes a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(30_000, 10, 10)


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """A property test at full size tells what it did, as campaigns do."""
    if soak.FULL and item.get_closest_marker("hypothesis"):
        many = item.function._hypothesis_internal_use_settings.max_examples
        seed = item.config.getoption("hypothesis_seed", None) or "at random"
        soak.told(item.name, f"up to {many} examples", seed=seed)


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

    run(POSTGRES_BIN / "initdb", "-D", folder / "db", "-U", "burnish", "-A", "trust", "-N", "-E", "UTF8", "--locale=C")
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c max_connections=200"
    options += " -c fsync=off -c full_page_writes=off -c autovacuum=off"  # nobody cuts this machine's power
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


@pytest.fixture(scope="session", autouse=True)
def _prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What every test would wait for is done once in a process.

    A new SQLite file gets our tables as a copy of what Alembic made of the first one, not by all migrations again. A
    new file of the engine is a copy, too, of the first with the same burners: DBOS looks for new queues once a second.
    It looks for work more often than elsewhere. Commands, and the routes that they call, are got ready when first used.
    """
    folder = tmp_path_factory.mktemp("prepared")
    upgrade, launch = migrate.upgrade, engine.Engine._launch

    def upgraded(db: Database, revision: str = "head") -> None:
        path = make_url(db.url).database if db.is_sqlite else None
        if revision != "head" or path is None or not _is_empty(path):
            return upgrade(db, revision)
        made = folder / "burnish.db"
        if made.exists():
            return _copied(made, path)
        upgrade(db)
        return _kept(path, made)

    def launched(self: engine.Engine) -> None:
        path = self._ctx.settings.data / "engine.db"
        if not self._ctx.db.is_sqlite or path.exists():
            return launch(self)
        made = folder / f"engine {' '.join(sorted(self._work.burners.usable))}.db"
        if made.exists():
            engine._dbos_url(self._ctx)  # makes the file, whose mode is the product's matter
            _copied(made, path)
        launch(self)
        return None if made.exists() else _kept(path, made)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.testing, "_get_command", functools.cache(typer.main.get_command))
        patch.setattr(calls.LocalCall, "__init__", _local_call())
        patch.setattr(migrate, "upgrade", upgraded)
        patch.setattr(engine.Engine, "_launch", launched)
        patch.setattr(engine, "_POLL_SECONDS", 0.05)
        yield


def _local_call() -> Callable[..., None]:
    """``LocalCall.__init__`` with an application like the first, its routes got ready, with the state of its own."""
    begin = calls.LocalCall.__init__
    first: list[Any] = []

    def begun(self: calls.LocalCall, operations: StoreOperations) -> None:
        begin(self, operations)
        own = self._app.app
        if not first:
            own.middleware_stack = own.build_middleware_stack()
            first.append(own)
        like = copy.copy(first[0])
        like.state = own.state
        self._app.app = like

    return begun


def _is_empty(path: str) -> bool:
    connection = sqlite3.connect(path, timeout=60)
    try:
        return connection.execute("SELECT 1 FROM sqlite_master").fetchone() is None
    finally:
        connection.close()


def _copied(source: str | Path, target: str | Path) -> None:
    """A database file that may be open, and in WAL mode."""
    one, other = sqlite3.connect(source, timeout=60), sqlite3.connect(target, timeout=60)
    try:
        other.execute("PRAGMA synchronous=OFF")
        one.backup(other)
    finally:
        one.close()
        other.close()


def _kept(source: str | Path, target: Path) -> None:
    """A copy for later, whole or not there."""
    part = target.with_suffix(".part")
    _copied(source, part)
    part.rename(target)


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


_EMPTY = """
DO $$ DECLARE one record; used text := '';
BEGIN
  SET LOCAL session_replication_role = replica;  -- the audit trail's triggers forbid it
  FOR one IN SELECT c.oid::regclass AS name FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relkind = 'r' AND nspname IN ('public', 'burnish_engine') AND pg_relation_size(c.oid) > 0
    AND relname NOT IN ('alembic_version', 'dbos_migrations', 'application_versions', 'queues')
  LOOP used := used || ', ' || one.name; END LOOP;
  IF used <> '' THEN EXECUTE 'TRUNCATE ' || substr(used, 3) || ' CASCADE'; END IF;
  FOR one IN SELECT format('%I.%I', schemaname, sequencename) AS name FROM pg_sequences WHERE last_value IS NOT NULL
  LOOP EXECUTE 'ALTER SEQUENCE ' || one.name || ' RESTART'; END LOOP;
  DELETE FROM pg_statistic;
END $$
"""
"""No rows, no counters and no statistics, but what a new database has, too."""

_SCHEMA = """
SELECT md5(string_agg(line, ';' ORDER BY line)) FROM (
  SELECT format('%s.%s %s %s %s', attrelid::regclass, attname, atttypid::regtype, attnotnull,
    (SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = attrelid AND adnum = attnum)) AS line
    FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped
  UNION ALL SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace
  UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
  UNION ALL SELECT format('%s %s', pg_get_triggerdef(oid), tgenabled) FROM pg_trigger WHERE NOT tgisinternal
  UNION ALL SELECT version_num FROM alembic_version) AS lines
"""


class Reused:
    """A PostgreSQL database with our tables that one test after the other gets empty, under a name of its own."""

    def __init__(self, server: str, template: str) -> None:
        self._server, self._template = server, template
        self._name, self._schema = "", ""

    def url(self) -> str:
        """Of the database, for one more test."""
        name = f"t{uuid.uuid4().hex}"
        old, self._name = self._name, ""
        if not old or not self._emptied(old, name):
            _on_server(self._server, f'CREATE DATABASE "{name}" TEMPLATE "{self._template}"')
            self._schema = self._schema or self._asked(name, _SCHEMA)
        self._name = name
        return self._server.format(name=name)

    def _emptied(self, old: str, name: str) -> bool:
        """Take the last test's, which no thread of that test can find any more; False where its tables are changed, or
        a thread that it left behind does not let go of it."""
        try:
            _on_server(
                self._server,
                f'ALTER DATABASE "{old}" ALLOW_CONNECTIONS false',
                f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{old}'",
                f'ALTER DATABASE "{old}" RENAME TO "{name}"',
                f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true',
            )
        except OperationalError:  # it is in use
            return False
        if self._asked(name, _SCHEMA) == self._schema:
            self._asked(name, _EMPTY)
            return True
        _on_server(self._server, f'DROP DATABASE "{name}"')
        return False

    def _asked(self, name: str, question: str) -> str:
        import psycopg

        url = make_url(self._server.format(name=name))
        with psycopg.connect(
            dbname=name, user=url.username, host=str(url.query["host"]), autocommit=True
        ) as connection:
            cursor = connection.execute(question)
            return str(cursor.fetchone()) if cursor.description else ""


@pytest.fixture(scope="session")
def reused_postgres(postgres_server: str, postgres_template: str) -> Reused:
    return Reused(postgres_server, postgres_template)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database with our tables, built by Alembic, once of each kind."""
    if request.param == "sqlite":
        shutil.copyfile(request.getfixturevalue("sqlite_template"), tmp_path / "burnish.db")
        url = f"sqlite:///{tmp_path / 'burnish.db'}"
    else:
        url = request.getfixturevalue("reused_postgres").url()
    db = Database(url)
    yield db
    db.close()
