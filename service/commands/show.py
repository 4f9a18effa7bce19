"""How plans and jobs are shown to people: tables on stdout, live progress on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer

from service.commands.common import console, plain, say, size_text, table

_SECTOR = 2048
_MANY = 10
"""Lines of a list that a person reads; the JSON document has all."""


def plan(document: dict[str, Any]) -> None:
    """A plan: a bar for each volume, then what is changed, supplied and refused."""
    from rich.table import Table
    from rich.text import Text

    made = Table(title=f"Plan {document['plan']}", title_justify="left")
    for column, justify in (
        ("Volume", "left"),
        ("File-set ID", "left"),
        ("Fill", "left"),
        ("", "right"),
        ("Size", "right"),
        ("Instances", "right"),
        ("Patients", "left"),
    ):
        made.add_column(column, justify="right" if justify == "right" else "left", overflow="fold")
    for volume in document["volumes"]:
        share = volume["sectors"] / volume["capacity_sectors"]
        made.add_row(
            f"{volume['number']} of {volume['of']}",
            volume["file_set_id"],
            _bar(share),
            f"{share:.1%}",
            size_text(volume["sectors"] * _SECTOR),
            str(volume["instances"]),
            Text(", ".join(plain(patient) for patient in volume["patients"])),
        )
    out = console()
    if not out.is_terminal:
        out.width = max(out.width, 160)
    out.print(made)
    chosen(document)
    changed(document)
    _some("supplied in the directory", document["supplied"], _pairs)
    _some("refused", document["refused"], lambda one: f"{one['sop_instance_uid']}: {one['reason']}")
    iod(document)
    for volume in document["volumes"]:
        if volume.get("protection"):
            spent = size_text((volume["sectors"] - volume["iso_sectors"]) * _SECTOR)
            how = f"{volume['protection'].upper()}, {volume['redundancy']:g} % redundancy, {spent}"
            typer.echo(f"error-correction data of volume {volume['number']}: {how}")
    for note in document.get("notes", ()):
        typer.echo(f"note: {plain(note)}")
    _labels(document)
    if document["volumes"]:
        say(f"burnish burn --plan {document['plan']} burns exactly this")


def changed(document: dict[str, Any]) -> None:
    """What a plan changes, in groups: what is changed alike in many instances is one line."""
    ways = document.get("compression") or []
    for one in ways[:_MANY]:
        note = f": {plain(one['note'])}" if one["note"] else ""
        typer.echo(f"pixel data of {_count(one['instances'])}: {plain(one['what'])}{note}")
    if len(ways) > _MANY:
        typer.echo(f"  ... and {len(ways) - _MANY} more ways or reasons (--json has all)")
    groups = document.get("changed") or []
    if not groups:
        return
    touched = len({one["sop_instance_uid"] for one in document["changes"]})
    typer.echo(f"changed: {_count(touched)}, {len(document['changes'])} changes")
    for one in groups[:_MANY]:
        what = f"{one['tag']} {one['name']}".rstrip()
        old, new = one["old"] or "(various)", one["new"] or "(various)"
        typer.echo(f"  {plain(what)} of {_count(one['instances'])}: {plain(old)} -> {plain(new)}")
    if len(groups) > _MANY:
        typer.echo(f"  ... and {len(groups) - _MANY} more attributes (--json has all)")


def _count(instances: int) -> str:
    return f"{instances} instance{'s' if instances != 1 else ''}"


def _labels(document: dict[str, Any]) -> None:
    """What will stand on the discs."""
    told = [(volume, volume["label"]) for volume in document["volumes"] if volume.get("label")]
    for volume, label in told[:_MANY]:
        lines = label["lines"]
        text = " / ".join([*lines[:_MANY], *(["..."] if len(lines) > _MANY else [])])
        typer.echo(f"label {volume['number']} of {volume['of']}: {plain(text)}")
        for notice in label["notices"]:
            typer.echo(f"  note: {plain(notice)}")


def _bar(share: float, width: int = 24) -> str:
    """A capacity bar that is seen without colour, in a file too; something on it always shows."""
    full = min(width, max(1, round(share * width))) if share > 0 else 0
    return "\N{FULL BLOCK}" * full + "\N{LIGHT SHADE}" * (width - full)


def chosen(document: dict[str, Any]) -> None:
    """What `--profile auto` chose, why, and what came next."""
    found = document.get("chosen")
    if not isinstance(found, dict):
        return
    typer.echo(f"chosen: {found['profile']} on {found['medium']}: {found['reason']}")
    for other in found["others"]:
        least = "" if other["examined"] else "at least "
        typer.echo(
            f"  next: {other['profile']} on {other['medium']}: {least}{other['refused']} refused, "
            f"{other['changed']} changed, about {other['discs']} disc{'s' if other['discs'] != 1 else ''}"
        )


def iod(document: dict[str, Any]) -> None:
    """What the IOD check found: a line of totals and at most ten more."""
    found = document.get("iod")
    if isinstance(found, dict):
        for number, line in enumerate(found["lines"]):
            typer.echo(f"{'  ' if number else ''}{plain(line)}")


def _pairs(one: Any) -> str:
    return ", ".join(f"{key} {value}" for key, value in one.items()) if isinstance(one, dict) else str(one)


def _some(what: str, entries: list[Any], text: Callable[[Any], str]) -> None:
    if not entries:
        return
    typer.echo(f"{what}: {len(entries)}")
    for one in entries[:_MANY]:
        typer.echo(f"  {plain(text(one))}")
    if len(entries) > _MANY:
        typer.echo(f"  ... and {len(entries) - _MANY} more (--json has all)")


def reason(document: dict[str, Any]) -> str:
    """Why a job failed, in words."""
    return plain(": ".join(str(part) for part in (document.get("reason"), document.get("error")) if part))


def job(document: dict[str, Any], *, full: bool = False) -> None:
    """A job: its state, and each disc with where its image is."""
    typer.echo(f"{document['job']}  {document['state']}" + (f"  {_phase(document)}" if full else ""))
    if document["state"] != "DONE" and reason(document):
        typer.echo(f"  {reason(document)}")
    for need in document.get("needs") or ():
        typer.echo(f"  NEEDS A PERSON: {need['disc']}: {plain(need['what'])}")
    if document["discs"]:
        table(
            "",
            ("File-set ID", "Volume", "Copy", "State", "Verified by", "Size", "Image"),
            [
                (
                    disc["file_set_id"],
                    disc["volume"],
                    disc["copy"],
                    disc["state"],
                    disc["verified_by"],
                    size_text(disc.get("sectors", 0) * _SECTOR),
                    disc["image"] or "",
                )
                for disc in document["discs"]
            ],
            right=("Volume", "Copy", "Size"),
        )
    report = document.get("report")
    if isinstance(report, dict) and full:
        changed(report)
        for what in ("supplied", "refused"):
            _some(what, list(report.get(what) or ()), _pairs)
        iod(report)


def jobs(documents: list[dict[str, Any]]) -> None:
    """The list of jobs."""
    if not documents:
        say("no jobs yet; `burnish burn --all` makes discs of everything")
        return
    table(
        "",
        ("Job", "State", "Created", "Profile", "Discs"),
        [
            (
                one["job"],
                one["state"],
                str(one["created"])[:19].replace("T", " "),
                one["profile"],
                len(one["discs"]) if isinstance(one["discs"], list) else one["discs"],
            )
            for one in documents
        ],
        right=("Discs",),
    )


def _phase(document: dict[str, Any]) -> str:
    progress = document.get("progress") or {}
    if not progress.get("total"):
        return str(progress.get("phase") or "")
    if document.get("needs"):  # they say what it waits for
        return f"{progress['done']} of {progress['total']} {progress.get('unit', '')}".rstrip()
    return f"{progress['phase']}: {progress['done']} of {progress['total']} {progress.get('unit', '')}".rstrip()


@contextmanager
def phases() -> Iterator[Callable[[dict[str, Any]], None]]:
    """Live progress of planning, on a terminal; the yielded function is told ``{"phase", "done", "total", "unit"}``."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    out = console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=out,
        disable=not out.is_terminal,
        transient=True,
    ) as bars:
        tasks: dict[str, TaskID] = {}

        def told(progress: dict[str, Any]) -> None:
            phase = str(progress.get("phase", ""))
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase.lower(), total=None)
            bars.update(tasks[phase], total=progress.get("total") or None, completed=progress.get("done", 0))

        yield told


@contextmanager
def following() -> Iterator[Callable[[dict[str, Any]], None]]:
    """Live progress of a job: a bar for its phase and one for each disc; on a terminal redrawn, else a line a change.

    The yielded function is told the job's document again and again.
    """
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    out = console(stderr=True)
    live = out.is_terminal
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        console=out,
        disable=not live,
    ) as bars:
        tasks: dict[str, TaskID] = {}
        said: dict[str, str] = {}

        def tell(key: str, text: str, share: float | None) -> None:
            if live:
                if key not in tasks:
                    tasks[key] = bars.add_task(text, total=1.0)
                bars.update(tasks[key], description=text, total=None if share is None else 1.0, completed=share or 0.0)
            elif said.get(key) != text:
                say(text)
            said[key] = text

        def told(document: dict[str, Any]) -> None:
            name = document["job"]
            progress = document.get("progress") or {}
            ended = document["state"] in ("DONE", "FAILED", "CANCELLED")
            total = progress.get("total")
            share = 1.0 if ended else (progress.get("done", 0) / total if total else None)
            phase = str(progress.get("phase") or "")
            shown = f"{name} {document['state']}"
            if phase and phase != document["state"] and not ended:
                # What a person is asked for has names in it.
                shown += f" ({phase if phase.startswith('waiting: ') else phase.lower()})"
            tell("job", shown, share)
            for disc in document["discs"]:
                key = f"{disc['volume']}/{disc['copy']}"
                tell(
                    key,
                    f"{name} volume {disc['volume']} copy {disc['copy']} {disc['file_set_id']} {disc['state']}",
                    1.0 if disc["state"] == "VERIFIED" else disc.get("progress"),
                )

        yield told


def standing(disc: dict[str, Any]) -> str:
    """How a disc stands, in a word or two."""
    if disc["marked"]:
        return f"{disc['marked']} since {disc['marked_at'][:10]}" if "marked_at" in disc else str(disc["marked"])
    return f"{disc['state']}, found {disc['checked_result']}" if disc["checked_result"] else str(disc["state"])
