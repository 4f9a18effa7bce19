"""The command ``verify``: read discs again, one or a whole shelf, and say what is lost."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.commands.common import (
    ConfigOption,
    DataOption,
    JsonOption,
    bar,
    load_settings,
    operations,
    plain,
    print_json,
    say,
)
from service.errors import Refusal, UsageError, as_refusal

if TYPE_CHECKING:
    from config.settings import Settings
    from media.loss import Lost
    from service.contract import Document, Operations
    from service.verification import Examined

_LOST_SHOWN = 200
"""Instances that are named on a terminal; ``--json`` names them all."""


def verify(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Disc images, devices or mounted file-sets.")],
    profile: Annotated[str | None, typer.Option("--profile", metavar="P", help="Check its rules too.")] = None,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", help="Public key (PEM) that must have signed the discs.")
    ] = None,
    catalogue: Annotated[
        bool | None,
        typer.Option(
            "--catalogue/--no-catalogue", help="Compare with the catalogue (default: where there is one at hand)."
        ),
    ] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Have the catalogue keep the result; a bad one flags the disc.")
    ] = False,
    disc: Annotated[str, typer.Option("--disc", metavar="ID", help="With --record: which of the copies it is.")] = "",
    bulk: Annotated[
        bool, typer.Option("--bulk", help="PATHs are drives, or folders full of images and file-sets.")
    ] = False,
    watch: Annotated[
        float,
        typer.Option("--watch", metavar="SECONDS", min=0, help="With --bulk: wait for further discs for so long."),
    ] = 0.0,
    eject: Annotated[bool, typer.Option("--eject", help="With --bulk: open the drive after each disc.")] = False,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Read discs like a stranger, and compare them with the catalogue. Needs neither service nor data folder."""
    absent = [str(path) for path in paths if not path.exists()]
    if absent:
        raise UsageError(f"there is no {', '.join(absent)}")
    if key is not None and not key.is_file():
        raise UsageError(f"there is no {key}")
    if (watch or eject) and not bulk:
        raise UsageError("--watch and --eject go with --bulk")
    if disc and (not record or bulk or len(paths) > 1):
        raise UsageError("--disc goes with --record and a single PATH")
    if record and catalogue is False:
        raise UsageError("--record needs the catalogue")
    wanted = catalogue or (True if record else catalogue)
    with catalogue_at_hand(wanted, config, data) as known:
        each = _Each(known, profile, key.read_bytes() if key else None, record=record, disc=disc)
        if bulk:
            good = _tell_bulk(_bulk(each, paths, watch=watch, eject=eject, json=json), json=json, record=record)
        else:
            found = [each.read(path) for path in paths]
            _tell(found, asked=known is not None, key=key is not None, json=json)
            good = not any(one.problems or (record and not one.recorded) for one in found)
    if not good:
        raise typer.Exit(1)


class _Each:
    """What is done with each disc."""

    def __init__(
        self, catalogue: Operations | None, profile: str | None, key: bytes | None, *, record: bool, disc: str
    ) -> None:
        self._catalogue = catalogue
        self._profile = profile
        self._key = key
        self._record = record
        self._disc = disc

    def read(self, path: Path, *, lenient: bool = False) -> Examined:
        """Examine a medium, and record the result where that is asked for.

        Where it is not clear which of several copies the medium is, that is said before it is read; ``lenient``: in a
        note.
        """
        from dataclasses import replace

        from service import verification

        which, note = "", ""

        def before(known: Document | None) -> None:
            nonlocal which, note
            if not self._record:
                return
            if known is None:
                note = "not recorded: the catalogue does not know it"
                return
            try:
                which = verification.disc_read(known, path, self._disc)
            except UsageError as error:
                if not lenient:
                    raise
                note = f"not recorded: {error}"

        with _reading(path) as told:
            examined = verification.examine(
                path, self._catalogue, profile=self._profile, key=self._key, progress=told, before=before
            )
        if which and self._catalogue is not None:
            verification.record(examined, self._catalogue, which)
            examined = replace(examined, recorded=which)
        if note:
            examined = replace(examined, notes=(*examined.notes, note))
        return examined


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    with bar(f"reading {path.name}", None, bytes_=True) as advance:
        before = 0

        def told(done: int, _total: int) -> None:
            nonlocal before
            advance(done - before)
            before = done

        yield told


@contextmanager
def catalogue_at_hand(wanted: bool | None, config: Path | None, data: Path | None) -> Iterator[Operations | None]:
    """The catalogue; None where none is at hand or wanted. ``wanted``: True: there must be one, None: if there is."""
    if wanted is False:
        yield None
        return
    settings = load_settings(config, data)
    if not wanted and not _at_hand(settings):
        yield None
        return
    with ExitStack() as stack:
        asked: Operations | None = None
        try:
            asked = stack.enter_context(operations(settings))
        except Exception as error:
            refusal = as_refusal(error)
            if wanted or refusal is None or isinstance(refusal, UsageError):
                raise
            say(f"the catalogue cannot be asked, so discs are compared with themselves only: {refusal}")
        yield asked


def _at_hand(settings: Settings) -> bool:
    from service.lock import running_service

    if settings.database.url or (settings.data / "burnish.db").is_file():
        return True
    try:
        return running_service(settings.data) is not None
    except Refusal:
        return False


# ------------------------------------------------------------------ one or a few


def _tell(found: list[Examined], *, asked: bool, key: bool, json: bool) -> None:
    if json:
        problems = [
            {**problem.as_json(), **({"path": str(one.path)} if len(found) > 1 else {})}
            for one in found
            for problem in one.problems
        ]
        document: dict[str, Any] = {"ok": not problems, "problems": problems}
        if key:
            document["signed_by"] = [one.signed_by for one in found]
        if asked or any(one.lost or one.result.unreadable for one in found):
            document["discs"] = [one.as_json() for one in found]
        print_json(document)
        return
    for one in found:
        say(f"{one.path}: {f'{len(one.problems)} problems' if one.problems else 'is right'}")
        if one.asked:
            known = f"the catalogue has it as {one.identity.file_set_id}, {one.whose}" if one.known else one.whose
            say(f"  {plain(known)}")
        if one.signed_by:
            say(f"  signed with the key {one.signed_by}")
        for note in one.notes:
            say(f"  {plain(note)}")
        for problem in one.problems:
            where = f"{plain(problem.file)}: " if problem.file else ""
            typer.echo(f"{problem.kind.value:12} {where}{plain(problem.detail)}")
        tell_lost(one)
        if one.recorded:
            say(f"  recorded for {one.recorded}: {'GOOD' if one.sound else 'DAMAGED'}")


def tell_lost(one: Examined, indent: str = "") -> None:
    """What is lost, a series a block."""
    if not one.lost:
        if one.problems and one.kind and (one.known is not None or one.result.instances):
            typer.echo(f"{indent}No instance is lost.")
        return
    total = len(one.known["instances"]) if one.known else None
    typer.echo(f"{indent}Lost: {len(one.lost)}{f' of {total}' if total else ''} instances")
    shown = one.lost[:_LOST_SHOWN]

    def series(lost: Lost) -> str:
        return lost.series_text

    for text, instances in groupby(shown, key=series):
        typer.echo(f"{indent}  {plain(text)}")
        for lost in instances:
            typer.echo(f"{indent}    {lost.kind:10} {plain(lost.instance_text)}")
    if len(one.lost) > len(shown):
        typer.echo(f"{indent}  ... and {len(one.lost) - len(shown)} more; --json names them all")


# ------------------------------------------------------------------ many


def _bulk(each: _Each, paths: list[Path], *, watch: float, eject: bool, json: bool) -> Iterator[Examined]:
    """Disc by disc, each told as soon as it was read. Ctrl-C ends the watching, with what was found so far."""
    from service.bulk import discs

    try:
        for path in discs(paths, watch=watch):
            one = each.read(path, lenient=True)
            _tell_line(one, json=json)
            yield one
            if eject and one.kind in ("drive", ""):
                _eject(path)
    except KeyboardInterrupt:
        if not watch:
            raise
        say("ended")


def _tell_line(one: Examined, *, json: bool) -> None:
    name = one.identity.file_set_id or "-"
    counts = f"{len(one.problems)} problems, {len(one.lost)} instances lost" if one.problems else "all there"
    line = f"{one.state:9} {name:16} {one.path}: {counts if one.kind else one.problems[0].detail} ({one.whose})"
    out = sys.stderr if json else sys.stdout
    out.write(plain(line) + "\n")
    for note in one.notes:
        out.write(f"  {plain(note)}\n")
    out.flush()
    if not json:
        tell_lost(one, "  ") if one.lost else None


def _eject(path: Path) -> None:
    tool = shutil.which("eject")
    done = tool and subprocess.run([tool, str(path)], capture_output=True, text=True, check=False)
    if not done or done.returncode:
        say(f"{path}: could not be ejected{f': {done.stderr.strip()}' if done else ' (no program eject here)'}")


def _tell_bulk(found: Iterator[Examined], *, json: bool, record: bool) -> bool:
    """Sum up what comes; whether all is well. Of a disc that was told only what the document needs is kept."""
    documents: list[Document] = []
    counts: Counter[str] = Counter()
    well = True
    for one in found:
        counts["discs"] += 1
        counts[one.state] += 1
        counts["known"] += one.known is not None
        counts["unknown"] += one.asked and one.known is None and bool(one.kind)
        counts["other_makers"] += bool(one.kind) and one.known is None and not one.identity.ours
        counts["lost"] += len(one.lost)
        counts["recorded"] += bool(one.recorded)
        # A disc that the catalogue does not know has nowhere to be recorded; that was told.
        well = well and not one.problems and not (record and one.known is not None and not one.recorded)
        if json:
            documents.append(one.as_json())
    summary = {
        "discs": counts["discs"],
        "good": counts["GOOD"],
        "damaged": counts["DAMAGED"],
        "faulty": counts["FAULTY"],
        "no_disc": counts["NO DISC"],
        "not_dicom": counts["NOT DICOM"],
        **{key: counts[key] for key in ("known", "unknown", "other_makers", "lost", "recorded")},
    }
    damaged = summary["discs"] - summary["good"]
    if json:
        print_json({"ok": not damaged, "discs": documents, "summary": summary})
    elif not summary["discs"]:
        say("no disc was found")
    else:
        typer.echo(
            f"{summary['discs']} discs: {summary['good']} good, {summary['damaged']} damaged, "
            f"{summary['faulty']} faulty, {summary['no_disc']} that could not be read as discs, "
            f"{summary['not_dicom']} without DICOMDIR; {summary['lost']} instances lost; "
            f"{summary['unknown']} not in the catalogue, {summary['other_makers']} of other makers"
        )
    return well and bool(summary["discs"])
