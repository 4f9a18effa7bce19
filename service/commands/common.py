"""What the commands share: options, where output goes, and who does the work (the service, or this process)."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from config.settings import Settings
    from service.calls import Call
    from service.client import ServiceOperations
    from service.contract import Operations
    from service.lock import DataLock
    from service.operations import StoreOperations

_PAGE = 1000
"""Items of a list that are asked for at a time."""

DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Data folder (also BURNISH_DATA).", file_okay=False),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Settings file (TOML).", dir_okay=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
DateRangeOption = Annotated[
    str | None,
    typer.Option("--date-range", metavar="A-B", help="SELECT: study dates YYYYMMDD-YYYYMMDD, either end may be open."),
]


def coerce_rules(path: Path | None) -> list[dict[str, Any]] | None:
    """The rules of ``--coerce FILE``. Raises ``UsageError`` that says what is wrong with them."""
    if path is None:
        return None
    from media.coercion import RulesError, read_rules

    try:
        return read_rules(path)
    except RulesError as error:
        raise UsageError(str(error)) from error


def load_settings(
    config: Path | None, data: Path | None, overrides: dict[str, dict[str, Any]] | None = None
) -> Settings:
    """The settings in force; SettingsError (exit status 2) names everything that is wrong."""
    from config.settings import load

    return load(config=config, data=data, overrides=overrides)


@contextmanager
def operations(settings: Settings, *, locked_for: str = "") -> Iterator[Operations]:
    """The running service, or the store opened in this process.

    ``locked_for`` names a command that must be alone on the data folder when no service runs.
    """
    with _opened(settings, locked_for) as opened:
        yield opened


@contextmanager
def api(settings: Settings, *, locked_for: str = "") -> Iterator[Call]:
    """The API of the running service, or the same application in this process; ``locked_for`` as above."""
    from service.calls import LocalCall, RunningCall
    from service.client import ServiceOperations

    with _opened(settings, locked_for) as opened:
        yield RunningCall(opened) if isinstance(opened, ServiceOperations) else LocalCall(opened)


@contextmanager
def _opened(settings: Settings, locked_for: str) -> Iterator[ServiceOperations | StoreOperations]:
    from service.lock import running_service

    running = running_service(settings.data)
    lock: DataLock | None = None
    if running is None and locked_for:
        lock, running = take_lock(settings, locked_for)
    try:
        opened: ServiceOperations | StoreOperations
        if running is not None:
            from service.client import ServiceOperations

            opened = ServiceOperations(running)
            try:
                yield opened
            finally:
                opened.close()
        else:
            from service import opening
            from service.operations import StoreOperations

            quiet_logs(settings)
            context = opening.open_context(settings)
            try:
                opened = StoreOperations(context, source="cli")
                try:
                    yield opened
                finally:
                    opened.close()
            finally:
                opening.close_context(context)
    finally:
        if lock is not None:
            lock.release()


def take_lock(settings: Settings, command: str) -> tuple[DataLock | None, Any]:
    """The lock; or, where a service took it at this very moment, that service. Waits for other commands to end."""
    from service.lock import DataLock, InUse, running_service

    lock = DataLock(settings.data)
    told = False

    def patience(holder: dict[str, Any]) -> float:
        nonlocal told
        if holder.get("what") == "serve":
            return 0.0
        if not told:
            told = True
            say(f"waiting for burnish {holder.get('what', '')} (process {holder.get('pid', '?')}) to end ...")
        return 3600.0

    try:
        lock.acquire(command, patience=patience)
    except InUse:
        running = running_service(settings.data)
        if running is None:
            raise
        return None, running
    return lock, None


def quiet_logs(settings: Settings) -> None:
    """A command without a service says what it has to say itself; only warnings of what it calls are shown."""
    from service.logs import configure

    configure(level="warning", style=settings.log.format)


def everything(call: Any, path: str, **query: Any) -> list[dict[str, Any]]:
    """Every item of a list, page by page."""
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        page = call("GET", path, limit=_PAGE, cursor=cursor, **query)
        found += page["items"]
        cursor = page["next"]
        if cursor is None:
            return found


def print_json(document: Any) -> None:
    """The one JSON document on stdout."""
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    # File names may hold bytes that are no UTF-8; Python carries them as lone surrogates.
    sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))
    sys.stdout.flush()


def say(text: str) -> None:
    """A line for people, on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def tell(text: str) -> None:
    """A line that was asked for, on stdout."""
    sys.stdout.flush()
    sys.stdout.buffer.write(f"{text}\n".encode("utf-8", "backslashreplace"))
    sys.stdout.flush()


def console(*, stderr: bool = False) -> Console:
    """Where tables for people go. Patient text is never read as markup."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, highlight=False, emoji=False, soft_wrap=False)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, right: Sequence[str] = ()) -> None:
    """Print a table on stdout; on a terminal as wide as it is, else as wide as the text."""
    from rich.table import Table
    from rich.text import Text

    made = Table(title=title or None, title_justify="left")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(plain(cell)) for cell in row))
    out = console()
    if not out.is_terminal:
        out.width = max(out.width, 200)
    out.print(made)


def plain(value: Any) -> str:
    """Text as it may be printed on a terminal: patient text may hold control characters."""
    text = "" if value is None else str(value)
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def patient_words(patient_id: str, name: str) -> str:
    """A patient in running text, also one of whom nothing is known."""
    return f"{plain(patient_id) or '(no Patient ID)'} {plain(name) or '(no name)'}"


def study_words(study: Mapping[str, Any]) -> str:
    """A study of a list, in running text."""
    uid = plain(study["study_instance_uid"]) or "(none)"
    whose = patient_words(study["patient_id"], study["patient_name"])
    return f"study {uid} of {whose}, {plain(study['study_date']) or 'no date'}"


def size_text(count: int) -> str:
    """Bytes as people read them."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


@contextmanager
def bar(text: str, total: int | None, *, bytes_: bool = False) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, shown on a terminal only; the yielded function advances it."""
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    out = console(stderr=True)
    amount = DownloadColumn() if bytes_ else MofNCompleteColumn()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        amount,
        TimeRemainingColumn(),
        console=out,
        disable=not out.is_terminal,
        transient=True,
    ) as progress:
        task = progress.add_task(text, total=total)
        yield lambda count: progress.advance(task, count)
