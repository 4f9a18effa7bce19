"""Opening what a node holds: data folder, database (migrated), spool. Used by the service and by a CLI without one."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from config.settings import Settings
from jobs.context import Context
from media.mounts import Place
from media.problems import MediaError
from media.signing import SiteKey
from service import telling
from service.errors import NotDone, UsageError
from store import migrate
from store.db import Database
from store.spool import Spool


def node_name(settings: Settings) -> str:
    """This node among several on one database: as the settings say, else host name and an ID of the data folder."""
    if settings.node.name:
        return settings.node.name
    file = settings.data / "node-id"
    try:
        own = file.read_text().strip()
    except FileNotFoundError:
        settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = file.with_name(f".node-id.{os.getpid()}")
        temporary.write_text(secrets.token_hex(4) + "\n")
        try:
            os.link(temporary, file)  # the first of several processes wins
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
        own = file.read_text().strip()
    host = re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname().partition(".")[0])[:40]
    return f"{host}-{own}"


def open_database(settings: Settings) -> Database:
    """Connect, and bring the tables to the schema of this version. Raises ``NotDone`` where that cannot be."""
    try:
        settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise NotDone(f"the data folder {settings.data} cannot be made: {error.strerror}", "DATA") from error
    db = connect(settings)
    try:
        bring_up_to_date(db, settings.data)
    except BaseException:
        db.close()
        raise
    return db


def parsed_url(settings: Settings) -> URL:
    """Where the database is. UsageError for a URL that is none, or of another kind of database."""
    try:
        url = make_url(settings.database_url)
    except ArgumentError as error:
        raise UsageError("database.url is no URL such as postgresql+psycopg://user@host/name") from error
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise UsageError(f"database.url: Burnish works on SQLite and PostgreSQL, not on {url.get_backend_name()}")
    return url


def connect(settings: Settings) -> Database:
    """The database of the settings, as it is. UsageError as above, and where its driver is not installed."""
    parsed_url(settings)
    try:
        return Database(settings.database_url)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"database.url: the package {error.name} is not installed; for postgresql+psycopg://: "
            "pip install 'burnish[postgres]'"
        ) from error


def bring_up_to_date(db: Database, data: Path) -> None:
    """Migrate where needed; several processes that start at once do so one after the other."""
    from alembic.script.revision import ResolutionError
    from alembic.util.exc import CommandError

    head = migrate.head(db)
    if migrate.current(db) == head:
        return
    try:
        with _one_at_a_time(db, data):
            if migrate.current(db) != head:
                migrate.upgrade(db)
    except (CommandError, ResolutionError) as error:
        raise NotDone(
            f"the database has revision {migrate.current(db)}, which this version of Burnish does not know: "
            "it was used by a newer version; install that one again",
            "DATABASE_NEWER",
        ) from error


@contextmanager
def _one_at_a_time(db: Database, data: Path) -> Iterator[None]:
    if db.is_sqlite:
        fd = os.open(data / "migrate.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)
    else:
        with db.engine.connect() as connection:  # ends with the connection, however that ends
            connection.exec_driver_sql("SELECT pg_advisory_lock(7302881946)")
            connection.commit()
            try:
                yield
            finally:
                connection.exec_driver_sql("SELECT pg_advisory_unlock(7302881946)")
                connection.commit()


def open_context(settings: Settings) -> Context:
    """Everything that operations on the store need; close it with ``close_context``."""
    db = open_database(settings)
    try:
        for folder in (settings.spool_dir, settings.derived_dir):
            Place(folder, settings.data).require()
        spool = Spool(
            settings.spool_dir,
            node=node_name(settings),
            high_water_percent=settings.spool.high_water_percent,
            max_bytes=settings.spool.max_bytes,
        )
        settings.derived_dir.mkdir(parents=True, exist_ok=True)
        if settings.signing_key is not None:
            SiteKey.open(settings.signing_key)
    except MediaError as error:
        db.close()
        raise NotDone(str(error), "KEY") from error
    except OSError as error:
        db.close()
        raise NotDone(f"{error.filename or settings.spool_dir}: {error.strerror}", "DATA") from error
    except BaseException:
        db.close()
        raise
    return Context(settings=settings, db=db, spool=spool)


def close_context(context: Context) -> None:
    telling.finish(context.db)
    context.db.close()
