"""Commands about discs as things that are kept: where they are, who has them, which are lost."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

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
)
from service.commands.show import standing
from service.errors import UsageError

_PURPOSES = ("archive", "backup", "handout")

discs = typer.Typer(help="Discs: where they are, who has them, which are lost.", no_args_is_help=True)
DiscArgument = Annotated[str, typer.Argument(metavar="DISC", help="The disc, D12, as `burnish discs list` names it.")]
ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept with the disc.")]


@discs.command("list")
def list_(
    *,
    pool: Annotated[str, typer.Option("--pool", metavar="NAME", help="Of this pool.")] = "",
    purpose: Annotated[str, typer.Option("--purpose", metavar="P", help="archive, backup, handout or unknown.")] = "",
    shelf: Annotated[str, typer.Option("--shelf", metavar="TEXT", help="Whose shelf begins so.")] = "",
    volume: Annotated[str, typer.Option("--volume", metavar="ID", help="Copies of this volume (File-set ID).")] = "",
    marked: Annotated[bool, typer.Option("--marked", help="Marked as lost or damaged.")] = False,
    out: Annotated[bool, typer.Option("--out", help="Checked out.")] = False,
    flagged: Annotated[bool, typer.Option("--flagged", help="Found worn or damaged when read again.")] = False,
    every: Annotated[bool, typer.Option("--every", help="Also discs that failed or are not made yet.")] = False,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """The discs that there are; --marked, --out and --flagged together mean any of these."""
    criteria: dict[str, Any] = {"pool": pool, "purpose": purpose, "shelf": shelf, "file_set_id": volume}
    criteria |= {key: "true" for key, on in (("marked", marked), ("out", out), ("flagged", flagged)) if on}
    with api(load_settings(config, data)) as call:
        documents = everything(call, "/discs", **criteria, **({"every": "true"} if every else {}))
    if json:
        print_json(documents)
        return
    if not documents:
        say("no such disc")
        return
    table(
        "",
        ("Disc", "File-set ID", "Volume", "Copy", "Purpose", "Pool", "How it is", "Shelf", "With", "Checked"),
        [
            (
                disc["disc"],
                disc["file_set_id"],
                f"{disc['volume']} of {disc['of']}",
                disc["copy"],
                disc["purpose"],
                disc["pool"],
                standing(disc),
                disc["shelf"],
                disc["checked_out_to"],
                (disc["checked_at"] or disc["verified_at"] or "")[:10],
            )
            for disc in documents
        ],
        right=("Copy",),
    )


@discs.command("show")
def show(disc: DiscArgument, json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """One disc: what is on it, every reading of it, what happened to it."""
    with api(load_settings(config, data)) as call:
        document = call("GET", f"/discs/{quote(disc.strip().upper(), safe='')}")
    if json:
        print_json(document)
        return
    table(
        f"{document['disc']}: copy {document['copy']} of {document['file_set_id']}, "
        f"volume {document['volume']} of {document['of']}",
        ("What", "How it is"),
        [
            ("state", standing(document)),
            ("copies", f"{document['good_copies']} good, {document['wanted_copies']} wanted"),
            ("purpose", " of pool ".join(filter(None, (document["purpose"], document["pool"])))),
            ("shelf", document["shelf"]),
            ("with", f"{document['checked_out_to']} since {document['checked_out_at'][:10]}")
            if document["checked_out_to"]
            else ("with", "" if document["marked"] else "nobody: it is in its place"),
            ("file", document["location"]),
            ("verified", f"{(document['verified_at'] or '')[:16].replace('T', ' ')} by {document['verified_by']}"),
            ("holds", f"{document['instances']} instances of {len(document['studies'])} studies"),
            *(("", uid) for uid in document["studies"][:20]),
        ],
    )
    if document["checks"]:
        table(
            "Read again",
            ("At", "Result", "What was read", "Sectors", "Unreadable", "Seconds"),
            [
                (
                    check["at"][:16].replace("T", " "),
                    check["result"],
                    check["how"],
                    check["sectors"],
                    check["unreadable"],
                    f"{check['seconds']:.1f}" if check["seconds"] is not None else "",
                )
                for check in document["checks"]
            ],
            right=("Sectors", "Unreadable", "Seconds"),
        )
    table(
        "What happened",
        ("At", "What", "From", "To", "By"),
        [
            (
                event["at"][:16].replace("T", " "),
                event["detail"].get("action") or event["kind"],
                event["old"],
                event["new"],
                event["detail"].get("by", ""),
            )
            for event in document["events"]
        ],
    )


@discs.command("due")
def due(
    months: Annotated[int, typer.Option("--months", metavar="N", min=1, help="Not read for so long.")] = 12,
    pool: Annotated[str, typer.Option("--pool", metavar="NAME", help="Of this pool.")] = "",
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Discs that are to be read again, oldest first: those at hand, and those to be inserted."""
    with api(load_settings(config, data)) as call:
        documents = everything(call, "/discs/due", months=months, pool=pool)
    if json:
        print_json(documents)
        return
    if not documents:
        say(f"every disc was read within {months} months")
        return
    table(
        "",
        ("Disc", "File-set ID", "Copy", "Last read", "Shelf", "With", "Where it can be read"),
        [
            (
                one["disc"],
                one["file_set_id"],
                one["copy"],
                one["last_read"][:10],
                one["shelf"],
                one["checked_out_to"],
                one["path"] or "please insert it",
            )
            for one in documents
        ],
        right=("Copy",),
    )


@discs.command("recount")
def recount(json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """Bring the numbers of good and wanted copies into agreement with the discs."""
    with api(load_settings(config, data)) as call:
        document = call("POST", "/discs/recount")
    if json:
        print_json(document)
    say(f"{document['recounted']} volumes were counted wrongly")


@discs.command("move")
def move(
    disc: DiscArgument,
    shelf: Annotated[str, typer.Option("--shelf", metavar="TEXT", help="Room, shelf, slot, or a robot's bin.")],
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Note where a disc is kept; an empty text: nowhere that has a name."""
    document = _post(disc, "move", {"shelf": shelf}, config, data, json=json)
    say(f"{document['disc']} is on shelf {plain(document['shelf'])}" if document["shelf"] else "its shelf is not named")


@discs.command("check-out")
def check_out(
    disc: DiscArgument,
    to: Annotated[str, typer.Option("--to", metavar="WHO", help="Who takes it.")],
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Note who takes a disc from its shelf. It is still counted on."""
    document = _post(disc, "check-out", {"to": to}, config, data, json=json)
    say(f"{document['disc']} is with {plain(document['checked_out_to'])}")


@discs.command("return")
def return_(
    disc: DiscArgument,
    shelf: Annotated[
        str | None, typer.Option("--shelf", metavar="TEXT", help="Where it is put, if not where it was.")
    ] = None,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Note that a disc is back."""
    document = _post(disc, "return", {"shelf": shelf}, config, data, json=json)
    say(f"{document['disc']} is back" + (f" on shelf {plain(document['shelf'])}" if document["shelf"] else ""))
    if document["marked"] == "LOST":
        say(f"it is marked as lost still: `burnish discs found {document['disc']}` makes it count again")


@discs.command("lost")
def lost(
    disc: DiscArgument,
    reason: ReasonOption = "",
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """A disc cannot be found: nobody counts on it any more."""
    _marked(disc, "LOST", reason, config, data, json=json)


@discs.command("damaged")
def damaged(
    disc: DiscArgument,
    reason: ReasonOption = "",
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """A disc is broken or scratched: nobody counts on it any more."""
    _marked(disc, "DAMAGED", reason, config, data, json=json)


@discs.command("found")
def found(
    disc: DiscArgument,
    reason: ReasonOption = "",
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """A disc marked as lost or damaged is there again, and sound."""
    document = _post(disc, "found", {"reason": reason}, config, data, json=json)
    if document["counts"]:
        say(f"{document['disc']} is counted on again; `burnish verify PATH --record` reads it")
    else:
        say(f"{document['disc']} is there; it does not count: {standing(document)}, {document['purpose']}")


@discs.command("purpose")
def purpose(
    which: Annotated[
        list[str],
        typer.Argument(metavar="[DISC]... archive|backup|handout", help="Discs, and what they are for from now on."),
    ],
    *,
    all_unknown: Annotated[
        bool, typer.Option("--all-unknown", help="Every disc of which nobody said what it is for.")
    ] = False,
    volume: Annotated[
        str, typer.Option("--volume", metavar="PATTERN", help="Those of them whose File-set ID is so; * and ?.")
    ] = "",
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Say what discs are for; only those of the archive are counted on."""
    *named, what = which
    if what not in _PURPOSES:
        raise UsageError(f"{what[:40]!r} is no purpose of a disc; the last word may be {', '.join(_PURPOSES)}")
    if len(named) == 1 and not all_unknown and not volume:
        document = _post(named[0], "purpose", {"purpose": what}, config, data, json=json)
        say(f"{document['disc']} is for {document['purpose']}")
        if document["too_few"] and not json:
            show_volume(document["too_few"])
        return
    names = [one.strip() for one in named]
    body = {"purpose": what, "discs": names, "all_unknown": all_unknown, "file_set_id": volume}
    with api(load_settings(config, data)) as call:
        document = call("POST", "/discs/purpose", body)
    if json:
        print_json(document)
    count = len(document["discs"])
    say(f"{count} {'disc is' if count == 1 else 'discs are'} for {document['purpose']}")
    if left := document["purpose_unknown"]:
        say(f"of {left} discs nobody said what they are for: burnish discs list --purpose unknown")


def _marked(disc: str, what: str, reason: str, config: Any, data: Any, *, json: bool) -> None:
    document = _post(disc, "mark", {"mark": what, "reason": reason}, config, data, json=json)
    say(f"{document['disc']} is {what}; nobody counts on it any more")
    if document["too_few"] and not json:
        show_volume(document["too_few"])


def _post(disc: str, action: str, body: dict[str, Any], config: Any, data: Any, *, json: bool) -> dict[str, Any]:
    with api(load_settings(config, data)) as call:
        document: dict[str, Any] = call("POST", f"/discs/{quote(disc.strip().upper(), safe='')}/{action}", body)
    if json:
        print_json(document)
    return document
