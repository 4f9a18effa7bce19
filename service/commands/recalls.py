"""Commands about what is wanted back from discs: ``recall``, ``recalls``, ``insert``, ``refuse``."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from service.commands import show
from service.commands.atrisk import show_volume
from service.commands.common import (
    ConfigOption,
    DataOption,
    JsonOption,
    api,
    everything,
    load_settings,
    plain,
    print_json,
    say,
    table,
    tell,
)
from service.commands.groups import Said, selection, selects_known
from service.lock import running_service

_OPEN = ("WAITING", "RESTORED")
_SHOWN = 20
RecallArgument = Annotated[
    str, typer.Argument(metavar="RECALL", help="The recall, C12, as `burnish recalls` names it.")
]


@selects_known
def recall(
    *,
    selected: Said,
    to: Annotated[str, typer.Option("--to", metavar="NODE", help="Then send them to this node.")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the recall has ended.")] = False,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Bring instances back from discs: from images that are online, else people are asked for discs."""
    chosen = selection(selected)
    settings = load_settings(config, data)
    with api(settings) as call:
        document = call("POST", "/recalls", {"selection": chosen, "to": to})
        name = document["recall"]
        if wait and not json:
            _tell(document)
        while wait and document["state"] in _OPEN:
            if running_service(settings.data) is None:
                say("no service runs: `burnish insert PATH` reads a disc that was inserted")
                break
            time.sleep(0.5)
            document = call("GET", f"/recalls/{name}")
    if json:
        print_json(document)
    else:
        _tell(document)
    if document["state"] not in (*_OPEN, "DONE") or (wait and document["state"] != "DONE"):
        raise typer.Exit(1)


def recalls(
    name: Annotated[str | None, typer.Argument(metavar="[RECALL]", help="One recall, C12, with all of it.")] = None,
    every: Annotated[bool, typer.Option("--every", help="Also recalls that have ended.")] = False,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Open recalls, and the discs that are wanted: please insert them."""
    with api(load_settings(config, data)) as call:
        if name is not None:
            document = call("GET", f"/recalls/{name}")
            print_json(document) if json else _tell(document, tell)
            return
        found = everything(call, "/recalls", **({"every": "true"} if every else {}))
        asks = everything(call, "/recalls/asks")
    if json:
        print_json({"recalls": found, "asks": asks})
        return
    if not found:
        say("no recall is open")
    else:
        rows = [
            (
                one["recall"],
                one["state"],
                one["source"] if one["source"] != "cli" else one["by"],
                f"{one['here'] + one['restored']} of {one['instances']}",
                one["destination"] or "",
                one["error"] or "",
            )
            for one in found
        ]
        table("", ("Recall", "State", "For", "Here", "Goes to", "Words"), rows)
    for ask in asks:
        tell(f"{plain(ask['words'])} ({ask['instances']} instances for {', '.join(ask['recalls'])})")


def insert(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="Where the disc is: a drive, a mounted disc, an image, a folder.")
    ],
    place: Annotated[str, typer.Option("--place", metavar="TEXT", help="What people call the drive.")] = "",
    disc: Annotated[
        str | None, typer.Option("--disc", metavar="DISC", help="Which copy it is, D12, where you know that.")
    ] = None,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Say that a disc was inserted: it is recognised, and read for every recall that needs it."""
    body = {"path": str(path.absolute()), "place": place, "disc": disc}
    with api(load_settings(config, data)) as call, show.phases() as told:
        document = call.told("insert", "/recalls/insert", body, told)
    if json:
        print_json(document)
    else:
        say(plain(document["words"]))
        if document["too_few"]:
            show_volume(document["too_few"])
        for one in document["recalls"]:
            _tell(one)
        if document["result"] == "READ":
            for ask in document["asks"]:
                say(plain(ask["words"]))
    if document["result"] != "READ" or document["failed"]:
        raise typer.Exit(1)


def refuse(
    name: RecallArgument,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; who asked is told.")] = "",
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """End a recall: its discs will not be brought."""
    with api(load_settings(config, data)) as call:
        document = call("POST", f"/recalls/{name}/refuse", {"reason": reason})
    if json:
        print_json(document)
    else:
        _tell(document)


def _tell(document: dict[str, Any], line: Callable[[str], None] = say) -> None:
    here = document["here"] + document["restored"]
    words = f": {plain(document['error'])}" if document["error"] else ""
    line(f"{document['recall']} {document['state']}, {here} of {document['instances']} instances are here{words}")
    changed = document.get("as_on_disc", {"instances": 0, "another_patient": 0})
    if changed["instances"]:
        line(
            f"  {changed['instances']} of them as they were changed for their disc (compressed, corrected), "
            "not as received"
        )
    if changed["another_patient"]:
        line(
            f"  {changed['another_patient']} of them under the name or number of another patient, "
            "as their disc has them: they go on no new disc"
        )
    for ask in document.get("asks", ()):
        line(f"  {plain(ask['words'])}")
    for one in document["missing"][:_SHOWN]:
        line(f"  {one['sop_instance_uid']}: {plain(one['reason'])}")
    if document["failed"] > min(_SHOWN, len(document["missing"])):
        line(f"  ... {document['failed']} in all")
