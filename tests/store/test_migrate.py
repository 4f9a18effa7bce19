"""The schema is what Alembic makes of it, up and down, on both databases."""

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect

from store import migrate
from store.db import Database, next_numbers
from store.models import Base, Counter


def test_migrated_schema_is_the_models(database: Database) -> None:
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    assert migrate.current(database) == migrate.head(database)


def test_down_and_up_again(database: Database) -> None:
    with database.begin() as session:
        session.add(Counter(name="file_set", value=7))
    migrate.downgrade(database, "base")
    assert inspect(database.engine).get_table_names() == ["alembic_version"]
    migrate.upgrade(database)
    with database.begin() as session:
        assert next_numbers(session, "file_set", 3) == 1
        assert next_numbers(session, "file_set") == 4
