"""Commands about what is received and held: ``import``, ``studies``, ``purge``, ``delete``."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from service.commands.common import (
    AccessionOption,
    AllOption,
    CallingAeOption,
    ConfigOption,
    DataOption,
    DateRangeOption,
    JsonOption,
    ModalityOption,
    NotOnDiscOption,
    PatientIdOption,
    SeriesOption,
    SopOption,
    StudyOption,
    bar,
    load_settings,
    operations,
    plain,
    print_json,
    say,
    selection,
    size_text,
    table,
)
from service.errors import UsageError


def import_(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Files, folders, file-sets, disc images.")],
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Take in Part 10 files, folders, DICOMDIR file-sets and ISO images."""
    from service.importing import bring_in, survey

    settings = load_settings(config, data)
    with ExitStack() as media:
        found = survey(paths, media)
        with operations(settings) as ops, bar("importing", found.bytes, bytes_=True) as advance:
            document = bring_in(ops, found, progress=advance)
    refused = document["refused"]
    if json:
        print_json(document)
    say(
        f"{document['imported']} imported, {document['duplicates']} duplicates, "
        f"{document['conflicts']} conflicts, {len(refused)} refused"
    )
    for one in refused if not json else ():
        say(f"  refused: {plain(one['path'])}: {plain(one['reason'])}")
    if refused and not document["imported"] + document["duplicates"] + document["conflicts"]:
        raise typer.Exit(1)


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
        ("Date", "Patient ID", "Patient name", "Series", "Instances", "Size", "Study Instance UID"),
        [
            (
                study["study_date"],
                study["patient_id"],
                study["patient_name"],
                study["series"],
                study["instances"],
                size_text(study["bytes"]),
                study["study_instance_uid"],
            )
            for study in documents
        ],
        right=("Series", "Instances", "Size"),
    )


def purge(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be freed.")] = False,
    min_copies: Annotated[
        int, typer.Option("--min-copies", metavar="N", help="Verified discs that must hold an instance.")
    ] = 1,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Free the spool of what is on enough verified discs and in no open job."""
    with operations(load_settings(config, data), locked_for="purge") as ops:
        document = ops.purge(min_copies=min_copies, dry_run=dry_run)
    if json:
        print_json(document)
    verb = "would be freed" if dry_run else "freed"
    say(
        f"{document['instances']} instances and {document['derived']} conformed copies {verb}, "
        f"{size_text(document['bytes'])}; {document['kept']} instances stay in the spool"
    )


def delete(
    *,
    study: StudyOption = None,
    series: SeriesOption = None,
    sop: SopOption = None,
    patient_id: PatientIdOption = None,
    accession: AccessionOption = None,
    date_range: DateRangeOption = None,
    modality: ModalityOption = None,
    calling_ae: CallingAeOption = None,
    all_: AllOption = False,
    not_on_disc: NotOnDiscOption = False,
    yes: Annotated[bool, typer.Option("--yes", help="Really delete.")] = False,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Remove instances from the spool for good, on disc or not."""
    chosen = selection(
        study=study,
        series=series,
        sop=sop,
        patient_id=patient_id,
        accession=accession,
        date_range=date_range,
        modality=modality,
        calling_ae=calling_ae,
        all=all_,
        not_on_disc=not_on_disc,
    )
    if not yes:
        raise UsageError("what is deleted is gone; say --yes")
    with operations(load_settings(config, data), locked_for="delete") as ops:
        document = ops.delete(chosen)
    if json:
        print_json(document)
    say(f"{document['instances']} instances deleted, {size_text(document['bytes'])} freed")
