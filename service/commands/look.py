"""Commands that look and change nothing: ``find``, ``doctor``, ``conformance``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

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


def conformance(json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """Print the DICOM conformance statement with the settings in force (Markdown)."""
    from service.conformance import statement

    text = statement(load_settings(config, data).model_dump(), site=True)
    if json:
        print_json({"statement": text})
    else:
        typer.echo(text, nl=False)


def find(
    *,
    patient_id: Annotated[str, typer.Option("--patient-id", metavar="X", help="Patient ID.")] = "",
    patient_name: Annotated[
        str,
        typer.Option(
            "--patient-name", metavar="X", help="Name; * and ? are wildcards, case and accents do not matter."
        ),
    ] = "",
    study: Annotated[str, typer.Option("--study", metavar="UID", help="Study Instance UID.")] = "",
    accession: Annotated[str, typer.Option("--accession", metavar="X", help="Accession Number.")] = "",
    series: Annotated[str, typer.Option("--series", metavar="UID", help="Series Instance UID.")] = "",
    sop: Annotated[str, typer.Option("--sop", metavar="UID", help="SOP Instance UID.")] = "",
    modality: Annotated[str, typer.Option("--modality", metavar="M", help="Modality.")] = "",
    date_range: Annotated[str, typer.Option("--date-range", metavar="A-B", help="Study dates.")] = "",
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Which discs hold what is looked for."""
    criteria = {
        "patient_id": patient_id,
        "patient_name": patient_name,
        "study": study,
        "accession": accession,
        "series": series,
        "sop": sop,
        "modality": modality,
        "date_range": date_range,
    }
    with operations(load_settings(config, data)) as ops:
        documents = ops.find(criteria)
    if json:
        print_json(documents)
        return
    if not documents:
        say("no disc holds that")
        return
    table(
        "",
        ("File-set ID", "Volume", "Copy", "State", "Verified", "Instances", "Where"),
        [
            (
                disc["file_set_id"],
                f"{disc['volume']} of {disc['of']}" if "of" in disc else disc["volume"],
                disc["copy"],
                disc["marked"]
                or (
                    f"found {disc['checked_result']} {disc['checked_at'][:10]}"
                    if disc["checked_result"]
                    else disc["state"]
                )
                + (", purpose unknown" if disc["purpose"] == "unknown" else ""),
                f"{disc['verified_at'][:16].replace('T', ' ')} by {disc['verified_by']}" if disc["verified_at"] else "",
                len(disc["instances"]),
                _where(disc),
            )
            for disc in documents
        ],
        right=("Copy", "Instances"),
    )


def _where(disc: dict[str, Any]) -> str:
    """Who has a disc, or its shelf; else where its file is."""
    if disc["checked_out_to"]:
        return f"with {disc['checked_out_to']}"
    return f"shelf {disc['shelf']}" if disc["shelf"] else disc["location"] or ""


def doctor(json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """Settings in force, database, burners, space; what is wrong and how to mend it."""
    from service.doctor import report

    settings = load_settings(config, data)
    document = report(settings)
    if json:
        print_json(document)
    else:
        _show_doctor(document)
    if document["problems"]:
        raise typer.Exit(1)


def _show_doctor(document: dict[str, Any]) -> None:
    table("Settings in force", ("Setting", "Value"), list(document["settings"].items()))
    table("State", ("What", "How it is"), list(document["state"].items()))
    table(
        "Burners",
        ("Name", "Driver", "State", "Reason"),
        [(one["name"], one["driver"], one["state"], one["reason"]) for one in document["burners"]],
    )
    if not document["problems"]:
        typer.echo("Nothing is wrong.")
    for problem in document["problems"]:
        typer.echo(f"WRONG: {plain(problem['what'])}\n  mend: {plain(problem['mend'])}")
