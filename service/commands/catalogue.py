"""Commands that let the catalogue outlive the machine: ``catalogue rebuild``, ``export``, ``import``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from service.commands.common import (
    ConfigOption,
    DataOption,
    JsonOption,
    api,
    bar,
    load_settings,
    patient_words,
    plain,
    print_json,
    say,
)
from service.errors import Refusal, UsageError

_LOST_SHOWN = 20
_PAGE = 500
_BATCH = 500
_BATCH_BYTES = 512 << 10

catalogue = typer.Typer(
    help="The catalogue outlives the machine: rebuilt from discs, written to a file, read again.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@catalogue.command("rebuild")
def rebuild(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH", help="Disc images, drives, mounted discs, folders full of images."),
    ],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read the discs and say what would be entered.")] = False,
    another_copy: Annotated[
        bool,
        typer.Option(
            "--another-copy",
            help="What is read is a further copy, where it might be one whose place cannot be seen from here.",
        ),
    ] = False,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Enter what discs hold, from the discs alone; what is in the catalogue already is not entered twice."""
    body = {"paths": [str(path.absolute()) for path in paths], "dry_run": dry_run, "another_copy": another_copy}
    told = _Told(quiet=json)
    with api(load_settings(config, data)) as call, bar("reading", None, bytes_=True) as advance:
        told.advance = advance
        document = call.told("rebuild", "/catalogue/rebuild", body, told.hear)
    if json:
        print_json(document)
    else:
        _tell(document)
    summary = document["summary"]
    if summary["damaged"] or summary["not_entered"] or not summary["media"]:
        raise typer.Exit(1)


@catalogue.command("export")
def export(
    to: Annotated[
        Path, typer.Argument(metavar="TO", help="A new file; with --format csv a new or empty folder; - for stdout.")
    ],
    format_: Annotated[
        str, typer.Option("--format", metavar="jsonl|csv", help="JSON Lines, or CSV with a file for each table.")
    ] = "jsonl",
    *,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Write the catalogue to a file: all that is or was on discs, and the discs themselves."""
    from service.catalogue_files import write_csv, write_jsonl, written

    if format_ not in ("jsonl", "csv"):
        raise UsageError(f"--format is {format_!r}; it may be jsonl or csv")
    stdout = str(to) == "-"
    if stdout and (format_ == "csv" or json):
        raise UsageError("- goes with --format jsonl, and without --json")
    if not stdout and format_ == "jsonl" and to.exists():
        raise UsageError(f"{to} is there already")
    with api(load_settings(config, data)) as call:
        records = _exported(call)
        if format_ == "csv":
            counts = write_csv(to, records)
        else:
            with written(to) as out:
                counts = write_jsonl(out, records)
    if json:
        print_json({"to": str(to), "format": format_, "counts": counts})
    else:
        say(", ".join(f"{count} {table}" for table, count in counts.items()) or "the catalogue is empty")


def _exported(call: Any) -> Iterator[dict[str, Any]]:
    from store.exchange import TABLES

    head = call("GET", "/catalogue/export")
    yield head
    for table in TABLES:
        cursor: str | None = None
        while True:
            page = call("GET", f"/catalogue/export/{table}", limit=_PAGE, cursor=cursor, until=head["until"].get(table))
            yield from page["items"]
            cursor = page["next"]
            if cursor is None:
                break


@catalogue.command("import")
def import_(
    source: Annotated[
        Path, typer.Argument(metavar="FROM", help="What `catalogue export` wrote: a file, a folder, or - for stdin.")
    ],
    *,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Read an exported catalogue into this one; what is there already stays as it is."""
    from service.catalogue_files import opened

    totals: dict[str, dict[str, int]] = {}
    with opened(source) as (head, records), api(load_settings(config, data)) as call:
        number = head.get("file_set_number")
        first = {"file_set_number": number} if type(number) is int and 0 <= number <= 10**9 else {}
        for places, batch in _batches(records):
            try:
                counts = call("POST", "/catalogue/import", {"records": batch, **first})
            except Refusal as error:
                raise UsageError(f"{_where(places, str(error))}: {error}", error.code) from None
            first = {}
            for table, told in counts.items():
                total = totals.setdefault(table, {"new": 0, "known": 0})
                total["new"] += told["new"]
                total["known"] += told["known"]
    if json:
        print_json({"from": str(source), "counts": totals})
    else:
        typer.echo(", ".join(f"{t['new']} {name} new, {t['known']} known" for name, t in totals.items()) or "nothing")


def _where(places: list[str], told: str) -> str:
    """Where the record stands that an error names by its place among those that went in together."""
    number = re.search(r"\brecord (\d+)\b", told)
    if number is not None and 1 <= int(number[1]) <= len(places):
        return places[int(number[1]) - 1]
    return places[0] if len(places) == 1 else f"{places[0]} to {places[-1]}"


def _batches(records: Iterator[tuple[str, dict[str, Any]]]) -> Iterator[tuple[list[str], list[dict[str, Any]]]]:
    """Records that go in together, with where each stands."""
    import json as json_

    places: list[str] = []
    batch: list[dict[str, Any]] = []
    size = 0
    for where, record in records:
        length = len(json_.dumps(record))
        if batch and (size + length > _BATCH_BYTES or len(batch) >= _BATCH):
            yield places, batch
            places, batch, size = [], [], 0
        places.append(where)
        batch.append(record)
        size += length
    if batch:
        yield places, batch


class _Told:
    """Progress of a rebuild, as it comes."""

    def __init__(self, *, quiet: bool) -> None:
        self.advance: Any = lambda _count: None
        self._quiet = quiet
        self._done: dict[str, int] = {}

    def hear(self, progress: dict[str, Any]) -> None:
        if "disc" in progress:
            if not self._quiet:
                _tell_disc(progress["disc"])
        elif "done" in progress:
            before = self._done.get(progress["path"], 0)
            self._done[progress["path"]] = progress["done"]
            self.advance(max(0, progress["done"] - before))


def _tell_disc(disc: dict[str, Any]) -> None:
    name = disc["file_set_id"] or "-"
    which = f"volume {disc['volume']} of {disc['of']}" if disc["volume"] and disc["maker"] == "Burnish" else ""
    of_others = disc["disc"] and disc["maker"] != "Burnish"
    maker = f"made by {disc['maker'] or 'an unnamed program'}" if of_others else ""
    counts = f"{disc['instances']} instances, {disc['new_instances']} of them new" if disc["disc"] else disc["reason"]
    what = ", ".join(filter(None, (which, maker, counts, disc["disc"] or "")))
    say(plain(f"{disc['result']:11} {name:16} {disc['path']}: {what}"))
    for note in disc["notes"][:_LOST_SHOWN]:
        say(plain(f"  {note}"))
    for lost in disc["lost"][:_LOST_SHOWN]:
        say(plain(f"  lost: {lost['file']}: {lost['reason']}"))
    if disc["lost_count"] > _LOST_SHOWN:
        say(f"  ... and {disc['lost_count'] - _LOST_SHOWN} more; --json names them")
    for problem in disc["problems"][:_LOST_SHOWN]:
        say(plain(f"  {problem['kind']} {problem['file']}: {problem['detail']}"))


def _tell(document: dict[str, Any]) -> None:
    for one in document["missing"]:
        for volume in one["missing"]:
            name = volume["file_set_id"] or "an unknown File-set ID"
            there = ", ".join(one["there"])
            say(plain(f"missing: volume {volume['volume']} of {one['of']}, {name} (of its set there is {there})"))
            for study in volume["studies"][:_LOST_SHOWN]:
                whose = patient_words(study["patient_id"], study["patient_name"])
                say(f"  {whose}, {plain(study['study_date']) or 'no date'}: {study['instances']} instances")
            if len(volume["studies"]) > _LOST_SHOWN:
                say(f"  ... and {len(volume['studies']) - _LOST_SHOWN} more studies; --json names them")
    total = document["summary"]
    verb = "would be " if document["dry_run"] else ""
    typer.echo(
        f"{total['media']} media: {total['entered']} {verb}entered, {total['known']} known before, "
        f"{total['damaged']} damaged, {total['not_entered']} not entered; {total['instances']} instances, "
        f"{total['new_instances']} new; {total['lost']} lost; {total['missing_volumes']} volumes missing"
    )
    if total["purpose_unknown"]:
        say(
            f"{total['purpose_unknown']} of these discs do not say what they are for: they are found, but nothing is "
            "purged because of them until somebody says that they are kept here: "
            "burnish discs purpose --all-unknown archive"
        )
