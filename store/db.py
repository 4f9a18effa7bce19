"""Opening the database: SQLite (embedded) or PostgreSQL, migrated by Alembic, transactions that are durable."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from store.models_nodes import Counter

IDLE_TRANSACTION_SECONDS = 15
"""PostgreSQL ends a transaction in which nothing was asked for so long, and lets go of its locks."""

_QUERY_SECONDS = 600


class Database:
    """One connection pool; every unit of work is ``with db.begin() as session``.

    On SQLite a transaction begins IMMEDIATE (it waits for the writer before it, instead of failing in its middle), the
    file is in WAL with ``synchronous=FULL``: when a commit returns it survives a power cut.
    """

    def __init__(self, url: str, *, pool_size: int = 8, for_queries: bool = False) -> None:
        """``for_queries``: for reading many rows by cursors, as fast or slow as somebody takes them."""
        self.url = url
        parsed = make_url(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        if self.is_sqlite:
            if parsed.database not in (None, "", ":memory:"):
                made_private(Path(parsed.database))
            self.engine: Engine = create_engine(
                url, connect_args={"timeout": 60, "check_same_thread": False}, hide_parameters=True
            )
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        else:
            self.engine = create_engine(
                url, pool_size=pool_size, max_overflow=32, pool_pre_ping=True, hide_parameters=True
            )
            event.listen(self.engine, "connect", _prepare_queries if for_queries else _prepare_postgresql)

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """A transaction that may write; committed at the end of the block, rolled back on an error."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that only reads, on a consistent view; never waits for a writer."""
        with (
            self.engine.connect().execution_options(burnish_read_only=True) as connection,
            Session(connection, expire_on_commit=False, autoflush=False) as session,
        ):
            yield session
            session.expunge_all()  # what was read stays readable after the transaction
            session.rollback()

    def close(self) -> None:
        self.engine.dispose()


def next_numbers(session: Session, name: str, count: int = 1) -> int:
    """Take ``count`` running numbers of this name; returns the first. Never gives a number twice."""
    locked = select(Counter).where(Counter.name == name).with_for_update()
    row = session.execute(locked).scalar_one_or_none()
    if row is None:
        try:
            with session.begin_nested():
                session.add(Counter(name=name, value=0))
        except IntegrityError:  # another began with this name at the same moment, and has ended by now
            session.expire_all()
        row = session.execute(locked).scalar_one()
    first = row.value + 1
    row.value += count
    session.flush()
    return first


def enter(session: Session, row: Any) -> bool:
    """Insert a row; False where another with its key was entered at the same moment."""
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError:
        if session.get(type(row), inspect(type(row)).primary_key_from_instance(row)) is None:
            raise  # something else is wrong with it
        return False
    return True


def made_private(path: Path) -> None:
    """A database file, if there is none yet: it is its owner's to read. SQLite makes -wal and -shm alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions are ours to begin
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "busy_timeout=60000",
        "cache_size=-16000",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _prepare_postgresql(connection: Any, _record: Any) -> None:
    """A process that is stopped in the middle of a transaction must not keep its rows locked for all others."""
    with connection.cursor() as cursor:
        cursor.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_TRANSACTION_SECONDS}s'")
        cursor.execute("SET jit = off")  # compiling takes longer than what our queries do
    connection.commit()


def _prepare_queries(connection: Any, _record: Any) -> None:
    """Transactions that only read lock nobody out; of a cursor the whole result counts, not its first rows."""
    with connection.cursor() as cursor:
        cursor.execute(f"SET idle_in_transaction_session_timeout = '{_QUERY_SECONDS}s'")
        cursor.execute("SET cursor_tuple_fraction = 1")
        cursor.execute("SET default_transaction_read_only = on")
    connection.commit()


def _begin_sqlite(connection: Connection) -> None:
    read_only = connection.get_execution_options().get("burnish_read_only", False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
