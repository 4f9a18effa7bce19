"""Commands that make discs: ``plan``, ``burn``, ``job``, ``jobs``, ``cancel``, ``retry``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from service.commands import show
from service.commands.common import (
    AccessionOption,
    AllOption,
    AllowLossyOption,
    BarcodeOption,
    CallingAeOption,
    CapacityOption,
    CatalogueOption,
    CoerceOption,
    CompressOption,
    ConfigOption,
    ConflictsOption,
    DataOption,
    DateRangeOption,
    IodOption,
    JsonOption,
    LabelTextOption,
    MediumOption,
    ModalityOption,
    NoSplittingOption,
    NotOnDiscOption,
    PatientIdOption,
    PatientsOption,
    PrefixOption,
    ProfileOption,
    ProtectOption,
    ProtectPercentOption,
    PurposeOption,
    SeriesOption,
    SkipRefusedOption,
    SopOption,
    StudyOption,
    SymbologyOption,
    coerce_rules,
    load_settings,
    operations,
    print_json,
    say,
    selection,
)
from service.errors import UsageError

JobArgument = Annotated[str, typer.Argument(metavar="ID", help="A job's ID, e.g. J12.")]


def plan(
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
    medium: MediumOption = None,
    capacity_sectors: CapacityOption = None,
    patients_per_disc: PatientsOption = None,
    conflicts: ConflictsOption = None,
    skip_refused: SkipRefusedOption = False,
    compress: CompressOption = None,
    allow_lossy: AllowLossyOption = False,
    coerce: CoerceOption = None,
    coerce_catalogue: CatalogueOption = False,
    iod: IodOption = None,
    protect: ProtectOption = None,
    protect_percent: ProtectPercentOption = None,
    no_splitting: NoSplittingOption = False,
    file_set_prefix: PrefixOption = None,
    purpose: PurposeOption = None,
    label_text: LabelTextOption = None,
    barcode: BarcodeOption = None,
    barcode_symbology: SymbologyOption = None,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """A dry run: which volumes, how full, what is changed, supplied or refused. `burn --plan` burns exactly that."""
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
    options = _options(
        profile=profile,
        medium=medium,
        capacity_sectors=capacity_sectors,
        patients_per_disc=patients_per_disc,
        conflicts=conflicts,
        skip_refused=skip_refused or None,
        compress=compress,
        allow_lossy=allow_lossy or None,
        coerce=coerce_rules(coerce),
        coerce_catalogue=coerce_catalogue or None,
        iod=iod,
        protect=protect,
        protect_percent=protect_percent,
        allow_splitting=False if no_splitting else None,
        file_set_prefix=file_set_prefix,
        purpose=purpose,
        label_text=label_text,
        barcode_value=barcode,
        barcode_symbology=barcode_symbology,
    )
    with (
        operations(load_settings(config, data), locked_for="plan") as ops,
        show.phases() as told,
    ):
        document = ops.plan(chosen, options, told)
    if json:
        print_json(document)
    else:
        show.plan(document)
    if not document["volumes"]:
        say("no disc can be made of this: every instance is refused")
        raise typer.Exit(1)


def burn(
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
    plan_id: Annotated[str | None, typer.Option("--plan", metavar="ID", help="Burn this plan, exactly.")] = None,
    profile: ProfileOption = None,
    medium: MediumOption = None,
    capacity_sectors: CapacityOption = None,
    burner: Annotated[str | None, typer.Option("--burner", metavar="NAME", help="A burner of the settings.")] = None,
    copies: Annotated[int | None, typer.Option("--copies", metavar="N", help="Copies of each volume.")] = None,
    priority: Annotated[str | None, typer.Option("--priority", metavar="high|med|low", help="Who goes first.")] = None,
    patients_per_disc: PatientsOption = None,
    conflicts: ConflictsOption = None,
    skip_refused: SkipRefusedOption = False,
    compress: CompressOption = None,
    allow_lossy: AllowLossyOption = False,
    coerce: CoerceOption = None,
    coerce_catalogue: CatalogueOption = False,
    iod: IodOption = None,
    protect: ProtectOption = None,
    protect_percent: ProtectPercentOption = None,
    no_splitting: NoSplittingOption = False,
    file_set_prefix: PrefixOption = None,
    purpose: PurposeOption = None,
    label_text: LabelTextOption = None,
    barcode: BarcodeOption = None,
    barcode_symbology: SymbologyOption = None,
    pull_from: Annotated[
        str | None,
        typer.Option("--from", metavar="NODE", help="Fetch the studies from this remote node before they are planned."),
    ] = None,
    idempotency_key: Annotated[
        str | None, typer.Option("--idempotency-key", metavar="X", help="The same key gives the same job.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end of the job, showing its progress.")] = False,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Make verified discs of a selection or of a plan."""
    chosen: dict[str, Any] = {
        "study": study,
        "series": series,
        "sop": sop,
        "patient_id": patient_id,
        "accession": accession,
        "date_range": date_range,
        "modality": modality,
        "calling_ae": calling_ae,
        "all": all_,
        "not_on_disc": not_on_disc,
    }
    if plan_id is None:
        chosen = selection(**chosen)
    elif any(chosen.values()):
        raise UsageError("say either SELECT or --plan: a plan has its own selection")
    options = _options(
        pull_from=pull_from,
        profile=profile,
        medium=medium,
        capacity_sectors=capacity_sectors,
        burner=burner,
        copies=copies,
        priority=priority,
        patients_per_disc=patients_per_disc,
        conflicts=conflicts,
        skip_refused=skip_refused or None,
        compress=compress,
        allow_lossy=allow_lossy or None,
        coerce=coerce_rules(coerce),
        coerce_catalogue=coerce_catalogue or None,
        iod=iod,
        protect=protect,
        protect_percent=protect_percent,
        allow_splitting=False if no_splitting else None,
        file_set_prefix=file_set_prefix,
        purpose=purpose,
        label_text=label_text,
        barcode_value=barcode,
        barcode_symbology=barcode_symbology,
    )

    def ask(ops: Any) -> dict[str, Any]:
        document: dict[str, Any] = ops.burn(
            selection=chosen if plan_id is None else None,
            plan=plan_id,
            options=options,
            idempotency_key=idempotency_key,
        )
        return document

    _run(ask, wait=wait, json=json, settings=load_settings(config, data), command="burn")


def job(job_id: JobArgument, json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """A job with its discs, progress and report."""
    with operations(load_settings(config, data)) as ops:
        document = ops.job(job_id)
    if json:
        print_json(document)
    else:
        show.job(document, full=True)


def jobs(json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """List all jobs, newest first."""
    with operations(load_settings(config, data)) as ops:
        documents = ops.jobs()
    if json:
        print_json(documents)
    else:
        show.jobs(documents)


def cancel(job_id: JobArgument, json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """Ask a job to stop; what is on a disc already stays."""
    with operations(load_settings(config, data)) as ops:
        document = ops.cancel(job_id)
    if json:
        print_json(document)
    say(f"{document['job']} is {document['state']}" + ("" if _ended(document) else ", and will be cancelled"))


def retry(
    job_id: JobArgument,
    *,
    burner: Annotated[str, typer.Option("--burner", metavar="B", help="On another burner.")] = "",
    skip_refused: Annotated[
        bool, typer.Option("--skip-refused", help="Without the instances that are refused; the report names them.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end of the job, showing its progress.")] = False,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Make again what failed or was cancelled; good discs are kept."""

    def ask(ops: Any) -> Any:
        return ops.retry(job_id, burner=burner, skip_refused=skip_refused)

    _run(ask, wait=wait, json=json, settings=load_settings(config, data), command="retry")


def _options(**options: Any) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}


def _ended(document: dict[str, Any]) -> bool:
    from service.contract import TERMINAL

    return document["state"] in TERMINAL


def _run(ask: Any, *, wait: bool, json: bool, settings: Any, command: str) -> None:
    """Queue a job and, if so wished, wait for its end: by the service, or by an engine in this process."""
    from service import waiting

    document = waiting.run(settings, ask, command=command, wait=wait)
    if json:
        print_json({key: value for key, value in document.items() if key not in ("progress", "report")})
    else:
        show.job(document)
    if document["state"] in ("FAILED", "CANCELLED"):
        if document.get("error"):
            say(f"error: {document['job']}: {show.reason(document)}")
        raise typer.Exit(1)
