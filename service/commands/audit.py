"""Commands about the audit trail: ``audit list``, ``audit verify``."""

from __future__ import annotations

from typing import Annotated

import typer

from service.commands.common import (
    ConfigOption,
    DataOption,
    JsonOption,
    api,
    load_settings,
    print_json,
    say,
    table,
)

audit = typer.Typer(
    help="Who did what, as messages of PS3.15 A.5 in a chain.", no_args_is_help=True, rich_markup_mode=None
)
_OUTCOMES = {0: "done", 4: "minor failure", 8: "refused", 12: "major failure"}


@audit.command("list")
def list_(
    event: Annotated[str, typer.Option("--event", metavar="KIND", help="Only these, e.g. export or query.")] = "",
    user: Annotated[str, typer.Option("--user", metavar="NAME", help="Only what this user or AE asked for.")] = "",
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="From then on, e.g. 2026-01-31T08:00.")] = "",
    until: Annotated[str, typer.Option("--until", metavar="TIME", help="Before then.")] = "",
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=1000, help="So many, newest first.")] = 50,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """List records of the audit trail, the newest first; --json has the messages."""
    with api(load_settings(config, data)) as call:
        found = call("GET", "/audit", event=event, user=user, since=since, until=until, limit=limit)["items"]
    if json:
        print_json(found)
        return
    rows = [
        (one["number"], one["at"][:19].replace("T", " "), one["meaning"], one["user"], _OUTCOMES[one["outcome"]])
        for one in found
    ]
    table("", ("Number", "Time (UTC)", "Event", "Who", "Outcome"), rows, right=("Number",))


@audit.command("verify")
def verify(json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """Find out whether a record was altered or removed: exit status 1 where one was."""
    with api(load_settings(config, data)) as call:
        found = call("GET", "/audit/verification")
    if json:
        print_json(found)
    else:
        for problem in found["problems"]:
            say(problem)
        if found["ok"]:
            say(f"{found['records']} records, none altered or removed")
            if found["anchor"] is None and found["records"]:
                say("there is no anchor in the data folder: records that are missing at the end could not be noticed")
            if found["waiting"]:
                say(f"{found['waiting']} not sent to a receiver")
    if not found["ok"]:
        raise typer.Exit(1)
