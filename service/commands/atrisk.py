"""Commands about what is on too few discs: ``at-risk``, ``reburn``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

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
    study_words,
)
from service.commands.show import job as show_job
from service.commands.show import phases, standing


def at_risk(
    *,
    in_spool: Annotated[
        bool, typer.Option("--in-spool", help="Also volumes on too few discs of which everything is in the spool.")
    ] = False,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """What is on too few discs and not in the spool, and from what it can be made again. Exit status 1 if anything."""
    query: dict[str, Any] = {"in_spool": "true"} if in_spool else {}
    with api(load_settings(config, data)) as call:
        documents = everything(call, "/at-risk", **query)
        unsure = call("GET", "/at-risk", limit=1, **query)["purpose_unknown"]
    if json:
        print_json(documents)
    else:
        for document in documents:
            show_volume(document)
    if unsure["volumes"]:
        say(
            f"{unsure['volumes']} volumes are on discs alone of which nobody said what they are for: say of those that "
            "are kept here `burnish discs purpose --all-unknown archive` (`burnish discs list --purpose unknown`)"
        )
    elif not documents:
        say("nothing is at risk")
    if unsure["volumes"] or any(document["at_risk"] for document in documents):
        raise typer.Exit(1)


def show_volume(document: dict[str, Any]) -> None:
    """A volume on too few discs: its discs, what of it is at risk, and what it can be made from."""
    worst = "NOTHING IS LEFT of a study" if document["gone"] else "at risk" if document["at_risk"] else "in the spool"
    typer.echo(
        f"{document['file_set_id']}: {document['good_copies']} of {document['wanted_copies']} discs are good ({worst})"
    )
    for disc in document["discs"]:
        where = ", ".join(filter(None, (disc["shelf"], disc["checked_out_to"] and f"with {disc['checked_out_to']}")))
        typer.echo(f"  {disc['disc']:6} copy {disc['copy']}: {standing(disc)}{f' ({plain(where)})' if where else ''}")
    for study in document["studies"]:
        if study["at_risk"] or not document["at_risk"]:
            typer.echo(f"  {study_words(study)}: {study['at_risk']} of {study['instances']} instances at risk")
    offer = document["reburn"]
    source = {"disc": f"{offer['disc']}", "damaged disc": f"what can be read of {offer['disc']}"}
    if offer["command"]:
        typer.echo(f"  make it again from {source.get(offer['from'], 'the spool')}: {offer['command']}")
    else:
        typer.echo("  there is nothing that it could be made from")


def reburn(
    of: Annotated[str, typer.Argument(metavar="DISC|VOLUME", help="A disc (D12), a File-set ID or File-set UID.")],
    *,
    from_: Annotated[
        Path | None, typer.Option("--from", metavar="PATH", help="An image, a folder or a drive to make it from.")
    ] = None,
    copies: Annotated[int | None, typer.Option("--copies", metavar="N", min=1, help="How many discs.")] = None,
    burner: Annotated[str, typer.Option("--burner", metavar="B", help="Else the one that made it before.")] = "",
    priority: Annotated[str, typer.Option("--priority", metavar="high|med|low", help="Of the job.")] = "med",
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end of the job, showing its progress.")] = False,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Make another copy of a volume: from the spool where all of it is there, else from another copy."""
    from service import waiting
    from service.calls import LocalCall, RunningCall
    from service.client import ServiceOperations

    body = {
        "of": of,
        "copies": copies,
        "burner": burner,
        "from": str(from_.absolute()) if from_ is not None else "",
        "priority": priority,
    }

    def ask(ops: Any) -> dict[str, Any]:
        call = RunningCall(ops) if isinstance(ops, ServiceOperations) else LocalCall(ops)
        with phases() as told:
            document = call.told("reburn", "/reburns", body, told)
        back = f"; {document['restored']} files were read back into the spool" if document["restored"] else ""
        say(f"{document['job']} makes it from {plain(document['from'])}{back}")
        job: dict[str, Any] = ops.job(document["job"])
        return job

    document = waiting.run(load_settings(config, data), ask, command="reburn", wait=wait)
    if json:
        print_json({key: value for key, value in document.items() if key not in ("progress", "report")})
    else:
        show_job(document)
    if document["state"] in ("FAILED", "CANCELLED"):
        raise typer.Exit(1)
