"""The command ``repair``: a damaged disc becomes a right image again, by its error-correction data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.commands.common import ConfigOption, DataOption, JsonOption, bar, plain, print_json, say
from service.commands.verify import catalogue_at_hand, tell_lost
from service.errors import UsageError


def repair(
    source: Annotated[Path, typer.Argument(metavar="IMAGE", help="Disc image, or a device with the disc.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the repaired image goes; a new file.")],
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Copy a damaged disc or image and repair the copy by its error-correction data; the original is only read."""
    from media import repair as repairing
    from service import verification

    if not source.exists():
        raise UsageError(f"there is no {source}")
    if out.exists():
        raise UsageError(f"{out} exists already; nothing is overwritten")
    if not out.parent.is_dir():
        raise UsageError(f"there is no folder {out.parent}")
    found: list[verification.Examined] = []
    with catalogue_at_hand(None, config, data) as catalogue:

        def check(copy: Path) -> bool:
            found.append(verification.examine(copy, catalogue))
            return not found[-1].problems

        with bar(f"reading {source.name}", None, bytes_=True) as advance:
            before = 0

            def told(done: int, _total: int) -> None:
                nonlocal before
                advance(done - before)
                before = done

            done = repairing.repair(source, out, check=check, progress=told)
    examined = found[-1]
    if json:
        print_json(
            {
                "ok": done.good,
                "out": str(done.path),
                "protection": done.layout.method,
                "redundancy": round(done.layout.redundancy, 1),
                "unreadable_sectors": repairing.lost_sectors(done),
                "repaired": done.complete,
                "words": done.words,
                "problems": [problem.as_json() for problem in examined.problems],
                "lost": [lost.as_json() for lost in examined.lost],
            }
        )
    else:
        say(f"{source}: {done.layout.text}; {repairing.lost_sectors(done)} sectors could not be read")
        say(f"  dvdisaster: {plain(done.words)}")
        say(f"{done.path}: {'is right' if done.good else f'{len(examined.problems)} problems are left'}")
        for problem in examined.problems:
            where = f"{plain(problem.file)}: " if problem.file else ""
            typer.echo(f"{problem.kind.value:12} {where}{plain(problem.detail)}")
        tell_lost(examined)
    if not done.good:
        raise typer.Exit(1)
