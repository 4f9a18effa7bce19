"""An exported catalogue as files: JSON Lines (one file), or CSV (a folder with a file for each table).

Both are written and read record by record. A cell of a CSV file that a spreadsheet might take for a formula begins with
an apostrophe, which is taken away again when the file is read.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from service.errors import UsageError
from store.exchange import FORMAT, TABLES, VERSION

HEAD, END = "catalogue", "end"
_LINE_LIMIT = 1 << 30
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "'")
_EMPTY, _NULL = '""', ""
Record = dict[str, Any]


class Bad(UsageError):
    """A file is not the export of a catalogue, or not a whole one; the text names file and line."""

    def __init__(self, text: str) -> None:
        super().__init__(text, "BAD_EXPORT")


# --- Writing ----------------------------------------------------------------------------------------------------------


def write_jsonl(out: IO[str], records: Iterable[Record]) -> dict[str, int]:
    """Head, records and end, a line each; returns how many of each table."""
    counts: dict[str, int] = {}
    for record in records:
        name = record["record"]
        if name != HEAD:
            counts[name] = counts.get(name, 0) + 1
        out.write(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n")
    out.write(json.dumps({"record": END, "counts": counts}) + "\n")
    return counts


def write_csv(folder: Path, records: Iterable[Record]) -> dict[str, int]:
    """``catalogue.csv`` with the head, and a file for each table that has rows, in a folder that is new or empty."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty")
    counts: dict[str, int] = {}
    current: tuple[str, Any, IO[str], list[str]] | None = None
    head: Record = {}
    try:
        for record in records:
            name = record["record"]
            if name == HEAD:
                head = record
                continue
            if current is None or current[0] != name:
                if current is not None:
                    current[2].close()
                stream = (folder / f"{name}.csv").open("x", encoding="utf-8", newline="")
                columns = [key for key in record if key != "record"]
                writer = csv.writer(stream)
                writer.writerow(columns)
                current = (name, writer, stream, columns)
            current[1].writerow([_cell(record[column]) for column in current[3]])
            counts[name] = counts.get(name, 0) + 1
    finally:
        if current is not None:
            current[2].close()
    # Last, so that a folder that has it is a whole export.
    with (folder / f"{HEAD}.csv").open("x", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        head = {**{key: value for key, value in head.items() if key != "record"}, "counts": counts}
        writer.writerow(list(head))
        writer.writerow([_cell(value) for value in head.values()])
    return counts


def _cell(value: Any) -> str:
    """A value as it stands in a cell: text as it is, but guarded; nothing for null; anything else as JSON."""
    if value is None:
        return _NULL
    if isinstance(value, str):
        if not value:
            return _EMPTY
        guarded = value.startswith(_FORMULA) or (value[:1] in '"[{0123456789tfn' and _is_json(value))
        return f"'{value}" if guarded else value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


# --- Reading ----------------------------------------------------------------------------------------------------------


@contextmanager
def opened(path: Path) -> Iterator[tuple[Record, Iterator[tuple[str, Record]]]]:
    """The head of an export, and its records, each with where it stands. Raises ``Bad`` here and while they are read.

    ``path``: a folder of CSV files, a file of JSON Lines, or ``-`` for standard input.
    """
    if path.is_dir():
        yield _csv_head(path), _csv_records(path)
        return
    if str(path) == "-":
        yield _jsonl(sys.stdin.buffer, "standard input")
        return
    try:
        stream = path.open("rb")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    with stream:
        yield _jsonl(stream, path.name)


def _jsonl(stream: IO[bytes], name: str) -> tuple[Record, Iterator[tuple[str, Record]]]:
    head = _line(stream.readline(_LINE_LIMIT), f"{name}, line 1")
    _check_head(head, name, head.get("record") == HEAD)
    return head, _lines(stream, name)


def _lines(stream: IO[bytes], name: str) -> Iterator[tuple[str, Record]]:
    counts: dict[str, int] = {}
    number = 1
    while line := stream.readline(_LINE_LIMIT):
        number += 1
        where = f"{name}, line {number}"
        record = _line(line, where)
        table = record.get("record")
        if table == END:
            if record.get("counts") != counts:
                raise Bad(f"{where}: it says how many records there are, and these are others: something is missing")
            if stream.read(1):
                raise Bad(f"{where}: something stands behind the end")
            return
        if table not in TABLES:
            raise Bad(f"{where} is of no table that there is")
        counts[table] = counts.get(table, 0) + 1
        yield where, record
    raise Bad(f"{name} ends after line {number} without its last record: it is cut off")


def _line(line: bytes, where: str) -> Record:
    try:
        if len(line) >= _LINE_LIMIT:
            raise ValueError
        record = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        raise Bad(f"{where} is no JSON object in UTF-8") from None
    if not isinstance(record, dict):
        raise Bad(f"{where} is no JSON object in UTF-8")
    return record


def _check_head(head: Mapping[str, Any], name: str, begins: bool) -> None:
    if not begins or head.get("format") != FORMAT:
        raise Bad(f"{name} is no export of a catalogue: it does not begin with its head")
    version = head.get("version")
    if type(version) is not int or version > VERSION:
        raise Bad(f"{name} is of version {version}; this Burnish reads up to {VERSION}")


def _csv_head(folder: Path) -> Record:
    path = folder / f"{HEAD}.csv"
    if not path.is_file():
        raise Bad(f"{folder} has no {path.name}: it is no export, or not a whole one")
    rows = list(_rows(path))
    if len(rows) != 1:
        raise Bad(f"{path.name} has {len(rows)} rows; it must have one")
    head = rows[0][1]
    _check_head(head, path.name, True)
    return {"record": HEAD, **head}


def _csv_records(folder: Path) -> Iterator[tuple[str, Record]]:
    counts = _csv_head(folder).get("counts")
    for table in TABLES:
        path = folder / f"{table}.csv"
        number = 0
        if path.is_file():
            for where, record in _rows(path):
                number += 1
                yield where, {"record": table, **record}
        wanted = counts.get(table, 0) if isinstance(counts, dict) else 0
        if number != wanted:
            raise Bad(f"{path.name} has {number} rows; {HEAD}.csv says {wanted}")


def _rows(path: Path) -> Iterator[tuple[str, Record]]:
    limit = csv.field_size_limit(_LINE_LIMIT)
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            columns = next(reader, None)
            if not columns or len(set(columns)) != len(columns):
                raise Bad(f"{path.name} does not begin with the names of its columns")
            for row in reader:
                where = f"{path.name}, line {reader.line_num}"
                if len(row) != len(columns):
                    raise Bad(f"{where} has {len(row)} cells; there are {len(columns)} columns")
                yield where, {column: _value(cell) for column, cell in zip(columns, row, strict=True)}
    except csv.Error as error:
        raise Bad(f"{path.name}: {error}") from None
    except UnicodeDecodeError:
        raise Bad(f"{path.name} is not in UTF-8") from None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    finally:
        csv.field_size_limit(limit)


def _value(cell: str) -> Any:
    if cell == _NULL:
        return None
    if cell.startswith("'"):
        return cell[1:]
    if cell[0] in '"[{-0123456789tfn':
        try:
            return json.loads(cell)
        except (ValueError, RecursionError):
            return cell
    return cell


@contextmanager
def written(path: Path) -> Iterator[IO[str]]:
    """A file that is complete or not there; ``-``: standard output."""
    if str(path) == "-":
        yield sys.stdout
        return
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("x", encoding="utf-8", newline="\n") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
