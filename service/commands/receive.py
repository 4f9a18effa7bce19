"""Commands about what is received and held: ``import``, ``studies``, ``purge``, ``delete``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.commands.common import (
    ConfigOption,
    DataOption,
    JsonOption,
    api,
    bar,
    coerce_rules,
    load_settings,
    operations,
    plain,
    print_json,
    say,
    size_text,
    table,
)
from service.commands.groups import Said, selection, selects
from service.errors import UsageError

if TYPE_CHECKING:
    from config.settings import Settings
    from service.contract import Operations


def import_(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Files, folders, file-sets, disc images.")],
    to: Annotated[str | None, typer.Option("--to", metavar="NODE", help="Send on to this remote node.")] = None,
    reconcile: Annotated[
        Path | None,
        typer.Option(
            "--reconcile", metavar="FILE", help="Rules (TOML) by which instances are corrected on their way in."
        ),
    ] = None,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Take in Part 10 files, folders, DICOMDIR file-sets and ISO images; send them on, if wanted."""
    from service.forwarding import send_on
    from service.importing import bring_in, survey

    settings = load_settings(config, data)
    rules = coerce_rules(reconcile)
    taken: list[int] = []
    with ExitStack() as media:
        found = survey(paths, media)
        digest = _prepared(settings, to, rules) if to or rules else ""
        with operations(settings) as ops:
            with bar("importing", found.bytes, bytes_=True) as advance:
                document = bring_in(ops, found, progress=advance, reconcile=digest, taken=taken)
            if to is not None and taken:
                with bar(f"sending to {to}", len(taken)) as advance:
                    document["sent_on"] = send_on(taken, partial(_send, ops, to, advance))
    if json:
        print_json(document)
    failed = _say_imported(document, quiet=json)
    if failed or (document["refused"] and not taken):
        raise typer.Exit(1)


def _prepared(settings: Settings, to: str | None, rules: list[dict[str, Any]] | None) -> str:
    """The digest under which the rules are kept; UsageError, before anything is taken in, for a node that is none."""
    with api(settings) as call:
        if to and to not in [node["name"] for node in call("GET", "/nodes")["items"]]:
            raise UsageError(f"there is no remote node {to}; see `burnish nodes list`")
        return str(call("POST", "/reconciliations", {"rules": rules})["reconcile"]) if rules else ""


def _send(ops: Operations, node: str, advance: Callable[[int], None], numbers: list[int]) -> dict[str, Any]:
    done = 0

    def told(progress: dict[str, Any]) -> None:
        nonlocal done
        advance(progress["done"] - done)
        done = progress["done"]

    return ops.send(node, {"instance": numbers}, told)


def _say_imported(document: dict[str, Any], *, quiet: bool) -> bool:
    """What was taken in, changed, refused and sent on, for people; whether the other node did not take all of it."""
    refused, sent = document["refused"], document.get("sent_on")
    of_ours = f" ({document['conformed']} as conformed for our discs)" if "conformed" in document else ""
    say(
        f"{document['imported']} imported, {document['duplicates']} duplicates{of_ours}, "
        f"{document['conflicts']} conflicts, {len(refused)} refused"
    )
    if "changes" in document:
        say(f"{document['reconciled']} reconciled")
    for one in document.get("changes", ()) if not quiet else ():
        say(f"  {one['tag']} {plain(one['old'])!r} -> {plain(one['new'])} ({len(one['instances'])} instances)")
    for one in refused if not quiet else ():
        say(f"  refused: {plain(one['path'])}: {plain(one['reason'])}")
    if sent is None:
        return False
    say(f"{sent['sent']} of {sent['instances']} sent on to {sent['node']}")
    for one in sent["failed"] if not quiet else ():
        say(f"  not sent: {plain(one['sop_instance_uid'])}: {plain(one['reason'])}")
    return bool(sent["failed"])


def studies(json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """List the studies that were received."""
    with operations(load_settings(config, data)) as ops:
        documents = ops.studies()
    if json:
        print_json(documents)
        return
    if not documents:
        say("no studies yet; send some by C-STORE, or `burnish import PATH`")
        return
    table(
        "",
        ("Date", "Patient ID", "Patient name", "Series", "Instances", "In spool", "Size", "Study Instance UID"),
        [
            (
                study["study_date"],
                study["patient_id"],
                study["patient_name"],
                study["series"],
                study["instances"],
                in_spool_words(study),
                size_text(study["bytes"]),
                study["study_instance_uid"],
            )
            for study in documents
        ],
        right=("Series", "Instances", "In spool", "Size"),
    )


def in_spool_words(study: dict[str, Any]) -> str:
    """How much of a study is in the spool; the rest was purged, or entered from discs."""
    if study["in_spool"] == study["instances"]:
        return "all"
    here = str(study["in_spool"] or "none")
    return f"{here}, {study['back']} back" if study.get("back") else here


def purge(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be freed.")] = False,
    min_copies: Annotated[
        int | None,
        typer.Option("--min-copies", metavar="N", help="Discs that must hold an instance (default: by the settings)."),
    ] = None,
    older_than: Annotated[
        int | None, typer.Option("--older-than", metavar="DAYS", min=0, help="Only what was received so long ago.")
    ] = None,
    to_low_mark: Annotated[
        bool, typer.Option("--to-low-mark", help="No more than brings the spool down to retention.low_percent.")
    ] = False,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Free the spool of what is on enough discs and needed by nobody, what has been there longest at first."""
    if min_copies is not None and min_copies < 1:
        raise UsageError("--min-copies must be at least 1: what is on no disc is removed by `burnish delete`")
    body = {
        "min_copies": min_copies,
        "older_than_days": older_than,
        "to_low_mark": to_low_mark,
        "dry_run": dry_run,
    }
    with api(load_settings(config, data), locked_for="purge") as call:
        document = call("POST", "/spool/purge", body)
    if json:
        print_json(document)
    elif document["studies"]:
        _show_purged(document["studies"])
    verb = "would be freed" if dry_run else "freed"
    say(
        f"{document['instances']} instances and {document['derived']} conformed copies {verb}, "
        f"{size_text(document['bytes'])}; {document['kept']} instances stay in the spool"
    )


def _show_purged(studies: list[dict[str, Any]]) -> None:
    table(
        "",
        ("Study date", "Patient ID", "Patient name", "Instances", "Size", "Discs", "Study Instance UID"),
        [
            (
                study["study_date"],
                study["patient_id"],
                study["patient_name"],
                study["instances"],
                size_text(study["bytes"]),
                study["copies"],
                study["study_instance_uid"],
            )
            for study in studies
        ],
        right=("Instances", "Size", "Discs"),
    )


@selects
def delete(
    *,
    selected: Said,
    yes: Annotated[bool, typer.Option("--yes", help="Really delete.")] = False,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Remove instances from the spool for good, on disc or not."""
    chosen = selection(selected)
    if not yes:
        raise UsageError("what is deleted is gone; say --yes")
    with operations(load_settings(config, data), locked_for="delete") as ops:
        document = ops.delete(chosen)
    if json:
        print_json(document)
    say(f"{document['instances']} instances deleted, {size_text(document['bytes'])} freed")
