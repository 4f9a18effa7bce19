"""Commands about what is told to webhooks and people: ``notices list``, ``notices test``, ``notices retry``."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from service.commands.common import ConfigOption, DataOption, JsonOption, api, load_settings, print_json, say, table

notices = typer.Typer(
    help="What webhooks and people were told of jobs, discs and recalls.", no_args_is_help=True, rich_markup_mode=None
)


@notices.command("list")
def list_(
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=1000, help="So many, newest first.")] = 50,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """List what was told, or is tried, or was given up."""
    with api(load_settings(config, data)) as call:
        found = call("GET", "/notices", limit=limit)["items"]
    if json:
        print_json(found)
    elif not found:
        say("nothing was told yet; [[webhooks]] and [[mails]] of the settings say who hears of what")
    else:
        rows = [
            (
                one["notice"],
                one["target"],
                one["event"],
                one.get("job") or one.get("recall") or one.get("file_set_id"),
                "told" if one["told_at"] else "tried" if one["next_at"] else "given up",
                one["error"] or "",
            )
            for one in found
        ]
        table("", ("Notice", "Target", "Event", "Of", "State", "Problem"), rows)


@notices.command("test")
def test(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A webhook or e-mail of the settings.")],
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Tell a target something, to see whether it hears."""
    with api(load_settings(config, data)) as call:
        document = call("POST", f"/notices/targets/{quote(name, safe='')}/test", {})
    if json:
        print_json(document)
    else:
        say(f"{name} was told")


@notices.command("retry")
def retry(
    notice: Annotated[str, typer.Argument(metavar="NOTICE", help="As `burnish notices list` shows it, e.g. N12.")],
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Try again to tell what was given up."""
    with api(load_settings(config, data)) as call:
        document = call("POST", f"/notices/{quote(notice, safe='')}/retry", {})
    if json:
        print_json(document)
    else:
        say(f"{document['notice']} is tried again")
