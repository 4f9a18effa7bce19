"""Alembic's way in: the engine comes from the caller (``store.migrate``), the wanted schema from ``store.models*``."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, Engine, text

from store import models_archive, models_audit, models_nodes, models_users  # noqa: F401 - tables of the schema
from store.models_base import Base


def _references(connection: Connection, state: str) -> None:
    """SQLite changes a table by making it anew: dropping the old one must not take along what refers to its rows."""
    driver = connection.connection.dbapi_connection
    assert driver is not None
    driver.execute(f"PRAGMA foreign_keys={state}")


engine: Engine = context.config.attributes["engine"]

with engine.connect() as connection:
    if engine.dialect.name == "postgresql":
        # Two nodes that start together must not migrate together.
        connection.execute(text("SELECT pg_advisory_lock(7236001)"))
        connection.commit()
    else:
        _references(connection, "OFF")
    try:
        context.configure(
            connection=connection, target_metadata=Base.metadata, render_as_batch=True, transaction_per_migration=True
        )
        with context.begin_transaction():
            context.run_migrations()
        connection.commit()
    finally:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_unlock(7236001)"))
            connection.commit()
        else:
            _references(connection, "ON")
