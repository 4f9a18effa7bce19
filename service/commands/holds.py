"""Command ``keep``: studies that are held in the spool, whatever is purged."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from service.commands.common import (
    ConfigOption,
    DataOption,
    JsonOption,
    api,
    everything,
    load_settings,
    print_json,
    say,
    table,
)
from service.commands.groups import Said, selection, selects
from service.errors import UsageError


@selects
def keep(
    *,
    selected: Said,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; needed.")] = "",
    until: Annotated[str, typer.Option("--until", metavar="DAY", help="The last day, YYYY-MM-DD; else for ever.")] = "",
    list_: Annotated[bool, typer.Option("--list", help="Show the holds in force.")] = False,
    every: Annotated[bool, typer.Option("--every", help="With --list: also those over or released.")] = False,
    release: Annotated[
        list[str] | None, typer.Option("--release", metavar="ID", help="Let go of a hold; repeatable.")
    ] = None,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Hold whole studies in the spool, whatever is purged; show the holds, let go of them."""
    if ((list_ or release) and any([*selected.values(), reason, until])) or (list_ and release):
        raise UsageError("--list and --release ID stand alone; SELECT with --reason makes a hold")
    settings = load_settings(config, data)
    if list_:
        with api(settings) as call:
            _show_holds(everything(call, "/holds", **({"every": "true"} if every else {})), json=json)
        return
    if release:
        with api(settings) as call:
            document = call("POST", "/holds/release", {"holds": release})
        say(f"{document['released']} holds released")
    else:
        chosen = selection(selected)
        if not reason.strip():
            raise UsageError("say why: --reason TEXT")
        with api(settings) as call:
            document = call("POST", "/holds", {"selection": chosen, "reason": reason, "until": until})
        away = f"; {document['not_in_spool']} of their instances are on discs alone" if document["not_in_spool"] else ""
        say(f"{len(document['holds'])} studies are held in the spool ({', '.join(document['holds'][:10])}){away}")
    if json:
        print_json(document)


def _show_holds(documents: list[dict[str, Any]], *, json: bool) -> None:
    if json:
        print_json(documents)
        return
    if not documents:
        say("nothing is held")
        return
    table(
        "",
        ("Hold", "Study Instance UID", "Patient ID", "Patient name", "Study date", "Reason", "By", "Since", "Until"),
        [
            (
                hold["hold"],
                hold["study_instance_uid"],
                hold["patient_id"],
                hold["patient_name"],
                hold["study_date"],
                hold["reason"],
                hold["by"],
                hold["created_at"][:10],
                "released" if hold["released_at"] else (hold["until"] or "")[:16].replace("T", " "),
            )
            for hold in documents
        ],
    )
