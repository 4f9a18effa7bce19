"""Commands about watched folders and drives."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from service.commands.common import (
    ConfigOption,
    DataOption,
    JsonOption,
    api,
    load_settings,
    plain,
    print_json,
    say,
    table,
)

watch = typer.Typer(help="Watched folders and drives.", no_args_is_help=True, rich_markup_mode=None)


@watch.command("list")
def list_(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Tell what this one brought.")] = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", help="At most so many, the newest.", min=1, max=1000)
    ] = 20,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """List the watched places, or what one of them brought."""
    with api(load_settings(config, data)) as call:
        if name is None:
            documents = call("GET", "/watches")["items"]
        else:
            documents = call("GET", f"/watches/{name}/seen", limit=limit)["items"]
    if json:
        print_json(documents)
    elif name is not None:
        _tell_seen(documents)
    elif not documents:
        say("nothing is watched; see [[watch]] in docs/settings.md")
    else:
        rows = [(one["name"], one["path"], one["state"], one["seen"], _now(one)) for one in documents]
        table("", ("Name", "Place", "State", "Seen", "Now"), rows, right=("Seen",))


@watch.command("forget")
def forget(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The watched place.")],
    number: Annotated[int, typer.Argument(metavar="N", help="As `burnish watch list NAME` tells it.")],
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Have a disc dealt with again when it is next put there."""
    with api(load_settings(config, data)) as call:
        document = call("DELETE", f"/watches/{name}/seen/{number}")
    if json:
        print_json(document)
    say(f"{number} is forgotten")


def _now(one: dict[str, Any]) -> str:
    if one.get("busy"):
        progress = one.get("progress") or {}
        share = f" {100 * progress['done'] // progress['total']} %" if progress.get("total") else ""
        return f"{progress.get('phase', 'reads')}{share}: {one['busy']}"
    waiting = "; ".join(f"{item['path']}: {item['why']}" for item in one.get("waiting", ())[:3])
    return one.get("detail") or waiting


def said(result: dict[str, Any]) -> str:
    """What there is to say of one arrival, what did not go well first."""
    if result.get("busy"):
        return f"node {result['busy']} is dealing with it"
    said = [result.get("error")]
    if count := result.get("conflicts"):
        said.append(f"{count} differ from what is held under their UIDs")
    said += [one["reason"] for one in result.get("first_refused") or ()][:1]
    sent = result.get("sent_on") or {}
    said += [sent.get("error"), *[f"{sent['node']}: {one['reason']}" for one in sent.get("failed") or ()][:1]]
    said.append((result.get("recall") or {}).get("words"))
    return "; ".join(str(words) for words in said if words)


def _tell_seen(documents: list[dict[str, Any]]) -> None:
    if not documents:
        say("it has brought nothing yet")
        return
    rows = []
    for one in documents:
        result = one["result"]
        sent = result.get("sent_on") or {}
        rows.append(
            (
                one["seen"],
                one["at"][:19].replace("T", " "),
                one["path"].rpartition("/")[2],
                result.get("file_set_id", ""),
                result.get("verified", ""),
                result.get("imported", ""),
                result.get("duplicates", ""),
                result.get("refused", ""),
                sent.get("sent", "") if not one["result"]["to_send"] else f"{one['result']['to_send']} to send",
                said(result),
            )
        )
    columns = ("N", "When", "What", "File-set", "Verified", "Taken in", "Held", "Refused", "Sent on", "Said")
    table("", columns, [tuple(plain(cell) for cell in row) for row in rows], right=("N", "Taken in", "Held", "Refused"))
