"""Commands that make discs: ``plan``, ``burn``, ``job``, ``jobs``, ``cancel``, ``retry``."""

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
    print_json,
    say,
)
from service.commands.groups import Said, asks_for_discs, request_options, selection, selects
from service.errors import UsageError

JobArgument = Annotated[str, typer.Argument(metavar="ID", help="A job's ID, e.g. J12.")]


@selects
@asks_for_discs()
def plan(
    *,
    selected: Said,
    asked: Said,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """A dry run: which volumes, how full, what is changed, supplied or refused. `burn --plan` burns exactly that."""
    chosen = selection(selected)
    options = request_options(asked)
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


@selects
@asks_for_discs()
def burn(
    *,
    selected: Said,
    plan_id: Annotated[str | None, typer.Option("--plan", metavar="ID", help="Burn this plan, exactly.")] = None,
    asked: Said,
    burner: Annotated[str | None, typer.Option("--burner", metavar="NAME", help="A burner of the settings.")] = None,
    copies: Annotated[int | None, typer.Option("--copies", metavar="N", help="Copies of each volume.")] = None,
    priority: Annotated[str | None, typer.Option("--priority", metavar="high|med|low", help="Who goes first.")] = None,
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
    if plan_id is not None and any(selected.values()):
        raise UsageError("say either SELECT or --plan: a plan has its own selection")
    chosen = selection(selected) if plan_id is None else None
    options = request_options(
        {**asked, "burner": burner, "copies": copies, "priority": priority, "pull_from": pull_from}
    )

    def ask(ops: Any) -> dict[str, Any]:
        document: dict[str, Any] = ops.burn(
            selection=chosen,
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
