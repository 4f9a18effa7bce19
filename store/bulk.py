"""Many rows entered in a table, or looked up, at a time, with little work for each of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from sqlalchemy import Column, Connection, Dialect, Table, insert, select

_Process = Callable[[Any], Any]
_One = TypeVar("_One")

CHUNK = 500
"""Values of one statement: databases bind a limited number, and what is short holds others up for less long."""


def chunks(values: Sequence[_One], size: int = CHUNK) -> Iterator[Sequence[_One]]:
    """The values in their order, ``size`` at a time; none of none."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def insert_rows(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows that all name the same columns, in the same order, and every one that has no default.

    What the session holds is not flushed before.
    """
    if not rows:
        return
    if connection.dialect.name != "sqlite":
        connection.execute(insert(table), rows)
        return
    # SQLAlchemy takes longer to look up the values of a row than SQLite to enter it.
    sql, processes = _statement(table, tuple(rows[0]), connection.dialect)
    values = [list(row.values()) for row in rows]
    for place, process in processes:
        for row in values:
            row[place] = process(row[place])
    connection.exec_driver_sql(sql, [tuple(row) for row in values])


def rows_with(
    connection: Connection,
    columns: Sequence[Column[Any]],
    column: Column[Any],
    values: Collection[str] | Collection[int],
) -> list[Any]:
    """These columns of the rows that have one of ``values``, some thousand at most, in ``column``.

    All of them are text or numbers, which databases give as they are.
    """
    table = column.table
    if connection.dialect.name != "sqlite":
        return list(connection.execute(select(*columns).where(column.in_(values))))
    quoted = connection.dialect.identifier_preparer.quote
    names = ", ".join(quoted(one.name) for one in columns)
    places = ", ".join("?" * len(values))
    sql = f"SELECT {names} FROM {quoted(table.name)} WHERE {quoted(column.name)} IN ({places})"
    return list(connection.exec_driver_sql(sql, tuple(values)))


@lru_cache(32)
def _statement(table: Table, names: tuple[str, ...], dialect: Dialect) -> tuple[str, list[tuple[int, _Process]]]:
    """The statement with a question mark for each column, and what makes values of them that the driver takes."""
    quoted = dialect.identifier_preparer.quote
    columns = ", ".join(quoted(name) for name in names)
    sql = f"INSERT INTO {quoted(table.name)} ({columns}) VALUES ({', '.join('?' * len(names))})"
    processes: list[tuple[int, _Process]] = []
    for place, name in enumerate(names):
        process = table.c[name].type.dialect_impl(dialect).bind_processor(dialect)
        if process is not None:
            processes.append((place, process))
    return sql, processes
