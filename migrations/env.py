"""Alembic's way in: the engine comes from the caller (``store.migrate``), the wanted schema from ``store.models``."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Engine, text

from store.models import Base

engine: Engine = context.config.attributes["engine"]

with engine.connect() as connection:
    if engine.dialect.name == "postgresql":
        # Two nodes that start together must not migrate together.
        connection.execute(text("SELECT pg_advisory_lock(7236001)"))
        connection.commit()
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
