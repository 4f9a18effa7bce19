"""The command that changes a medium which exists: ``update``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.commands import show
from service.commands.common import (
    AccessionOption,
    AllOption,
    AllowLossyOption,
    CallingAeOption,
    CatalogueOption,
    CoerceOption,
    CompressOption,
    ConfigOption,
    ConflictsOption,
    DataOption,
    DateRangeOption,
    JsonOption,
    ModalityOption,
    NotOnDiscOption,
    PatientIdOption,
    ProfileOption,
    SeriesOption,
    SkipRefusedOption,
    SopOption,
    StudyOption,
    coerce_rules,
    load_settings,
    operations,
    print_json,
    say,
    selection,
)
from service.errors import UsageError


def update(
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="A folder, mounted medium, image or drive.")],
    action: Annotated[str, typer.Argument(metavar="add|remove", help="What to do with the instances.")],
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
    profile: ProfileOption = None,
    conflicts: ConflictsOption = None,
    skip_refused: SkipRefusedOption = False,
    compress: CompressOption = None,
    allow_lossy: AllowLossyOption = False,
    coerce: CoerceOption = None,
    coerce_catalogue: CatalogueOption = False,
    copy: Annotated[
        bool, typer.Option("--copy", help="This is a copy of a disc, and the catalogue does not count on it.")
    ] = False,
    session: Annotated[
        bool, typer.Option("--session", help="Append a session, by xorriso; the disc in a drive always gets one.")
    ] = False,
    close: Annotated[
        bool, typer.Option("--close", help="Append the last session: the disc is closed, nothing comes after it.")
    ] = False,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Add instances to a file-set that exists, or remove some of it; its DICOMDIR is right at every moment."""
    from service import updating

    if action not in ("add", "remove"):
        raise UsageError(f"{action!r} is neither add nor remove")
    if not target.exists():
        raise UsageError(f"there is no {target}")
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
    settings = load_settings(config, data)
    changed = {
        "compress": compress,
        "allow_lossy": allow_lossy or None,
        "coerce": coerce_rules(coerce),
        "coerce_catalogue": coerce_catalogue or None,
    }
    if action == "remove":
        if profile or conflicts or skip_refused or session or close or any(changed.values()):
            raise UsageError(
                "--profile, --conflicts, --skip-refused, --compress, --allow-lossy, --coerce, --coerce-catalogue, "
                "--session and --close belong to add"
            )
        document = updating.remove(settings, target, chosen, copy=copy)
    else:
        options = {"profile": profile, "conflicts": conflicts, "skip_refused": skip_refused or None, **changed}
        with operations(settings, locked_for="update") as ops, show.phases() as told:
            document = updating.add(
                settings, ops, target, chosen, options, told, copy=copy, session=session, close=close
            )
    if json:
        print_json(document)
    say(
        f"{target}: {len(document['added'])} added, {len(document['removed'])} removed, "
        f"{len(document['already'])} were there; {document['instances']} instances now"
    )
