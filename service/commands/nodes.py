"""Commands about nodes of others: ``nodes``, ``pull``, ``send``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from service.commands import show
from service.commands.common import (
    ConfigOption,
    DataOption,
    JsonOption,
    load_settings,
    operations,
    plain,
    print_json,
    say,
    table,
)
from service.commands.groups import Said, selection, selects
from service.errors import UsageError

_SHOWN = 20

nodes = typer.Typer(help="Nodes of others: PACS, workstations, archives.", no_args_is_help=True, rich_markup_mode=None)
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The node, as `burnish nodes list` names it.")]


@nodes.command("add")
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it here.")],
    ae_title: Annotated[str, typer.Argument(metavar="AE", help="Its AE title.")],
    host: Annotated[str, typer.Argument(metavar="HOST", help="Its name or address.")],
    port: Annotated[int, typer.Argument(metavar="PORT", help="Its DICOM port.")],
    retrieve: Annotated[
        str, typer.Option("--retrieve", metavar="move|get", help="How to fetch from it: C-MOVE to us, or C-GET.")
    ] = "move",
    tls: Annotated[bool, typer.Option("--tls", help="Associations with it are over TLS.")] = False,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Enter a node."""
    values = {"name": name, "ae_title": ae_title, "host": host, "port": port, "retrieve": retrieve, "tls": tls}
    with operations(load_settings(config, data)) as ops:
        document = ops.add_node(values)
    if json:
        print_json(document)
    else:
        say(f"{name}: {ae_title} at {host}:{port}; `burnish nodes echo {name}` tries it")


@nodes.command("list")
def list_(json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """List the nodes."""
    with operations(load_settings(config, data)) as ops:
        documents = ops.nodes()
    if json:
        print_json(documents)
    elif not documents:
        say("no nodes yet; enter one: burnish nodes add NAME AE HOST PORT")
    else:
        rows = [
            (one["name"], one["ae_title"], one["host"], one["port"], one["retrieve"], "yes" if one["tls"] else "no")
            for one in documents
        ]
        table("", ("Name", "AE title", "Host", "Port", "Retrieve", "TLS"), rows, right=("Port",))


@nodes.command("echo")
def echo(name: NameArgument, json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """Ask a node for a sign of life (C-ECHO)."""
    with operations(load_settings(config, data)) as ops:
        document = ops.echo_node(name)
    if json:
        print_json(document)
    else:
        say(f"{name} answers, in {document['seconds'] * 1000:.0f} ms")


@nodes.command("remove")
def remove(name: NameArgument, json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """Forget a node."""
    with operations(load_settings(config, data)) as ops:
        document = ops.remove_node(name)
    if json:
        print_json(document)
    else:
        say(f"{name} is no node any more")


def pull(
    name: NameArgument,
    *,
    study: Annotated[list[str] | None, typer.Option("--study", metavar="UID", help="A study; repeatable.")] = None,
    patient_id: Annotated[
        list[str] | None, typer.Option("--patient-id", metavar="ID", help="All studies of a Patient ID; repeatable.")
    ] = None,
    accession: Annotated[
        list[str] | None, typer.Option("--accession", metavar="X", help="By Accession Number; repeatable.")
    ] = None,
    date_range: Annotated[
        str, typer.Option("--date-range", metavar="A-B", help="Study dates YYYYMMDD-YYYYMMDD, either end may be open.")
    ] = "",
    by: Annotated[
        str | None, typer.Option("--by", metavar="move|get", help="How to fetch, instead of the node's own way.")
    ] = None,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Fetch studies from a node: found by C-FIND, brought by C-MOVE to ourselves or C-GET, counted."""
    criteria: dict[str, Any] = {
        "study": study or [],
        "patient_id": patient_id or [],
        "accession": accession or [],
        "date_range": date_range,
    }
    if not any(criteria.values()):
        raise UsageError("say what to pull: --study, --patient-id, --accession or --date-range")
    with operations(load_settings(config, data)) as ops, show.phases() as told:
        document = ops.pull(name, criteria, told, by=by)
    if json:
        print_json(document)
    studies = document["studies"]
    say(
        f"{len(studies)} studies, {document['instances']} instances: {document['received']} are here now, "
        f"{document['missing']} are missing"
    )
    _failures([missing for one in studies for missing in one["missing"]], json=json)
    if document["missing"]:
        raise typer.Exit(1)


@selects
def send(
    name: NameArgument,
    *,
    selected: Said,
    commit: Annotated[
        bool, typer.Option("--commit", help="Then ask the node to commit them, and wait for it.")
    ] = False,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Send instances of the spool to a node (C-STORE)."""
    chosen = selection(selected)
    with operations(load_settings(config, data)) as ops, show.phases() as told:
        document = ops.send(name, chosen, told, commit=commit)
    if json:
        print_json(document)
    failed = document["failed"]
    say(f"{document['sent']} of {document['instances']} instances sent, {len(failed)} failed")
    for one in document["warnings"][:_SHOWN] if not json else ():
        say(f"  taken, but {one['sop_instance_uid']}: {plain(one['reason'])}")
    _failures(failed, json=json)
    committed = document["commitment"]
    if committed is not None:
        say(f"storage commitment: {committed['state']}" + (f": {committed['reason']}" if committed["reason"] else ""))
        _failures(committed["failed"], json=json)
    if failed or (commit and (committed is None or committed["state"] != "committed")):
        raise typer.Exit(1)


def _failures(failed: list[dict[str, Any]], *, json: bool) -> None:
    if json:
        return
    for one in failed[:_SHOWN]:
        say(f"  {one['sop_instance_uid']}: {plain(one['reason'])}")
    if len(failed) > _SHOWN:
        say(f"  ... and {len(failed) - _SHOWN} more (--json has all)")
