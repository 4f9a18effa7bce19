"""Commands that look and change nothing: ``verify``, ``find``, ``doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from media.problems import Problem, ProblemKind
from media.signing import fingerprint
from service.commands.common import (
    ConfigOption,
    DataOption,
    JsonOption,
    bar,
    load_settings,
    operations,
    plain,
    print_json,
    say,
    table,
)
from service.errors import UsageError

if TYPE_CHECKING:
    from media.verify import VerifyResult


def verify(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Disc images, devices or mounted file-sets.")],
    profile: Annotated[str | None, typer.Option("--profile", metavar="P", help="Check its rules too.")] = None,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", help="Public key (PEM) that must have signed the discs.")
    ] = None,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Read discs like a stranger: structure, DICOMDIR, digests. Needs neither service nor data folder."""
    del data, config  # taken because every command takes them
    absent = [str(path) for path in paths if not path.exists()]
    if absent:
        raise UsageError(f"there is no {', '.join(absent)}")
    if key is not None and not key.is_file():
        raise UsageError(f"there is no {key}")
    documents: list[dict[str, Any]] = []
    signers: list[str] = []
    for path in paths:
        result = _verify_one(path, profile)
        found = [*result.problems, *_signed_by_another(result, key)]
        signers.append(fingerprint(result.signer) if result.signer else "")
        for problem in found:
            document: dict[str, Any] = problem.as_json()
            documents.append({**document, "path": str(path)} if len(paths) > 1 else document)
        if not json:
            say(f"{path}: {'is right' if not found else f'{len(found)} problems'}")
            if signers[-1]:
                say(f"  signed with the key {signers[-1]}")
            for problem in found:
                where = f"{plain(problem.file)}: " if problem.file else ""
                typer.echo(f"{problem.kind.value:12} {where}{plain(problem.detail)}")
    if json:
        print_json({"ok": not documents, "problems": documents} | ({"signed_by": signers} if key else {}))
    if documents:
        raise typer.Exit(1)


def conformance(json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """Print the DICOM conformance statement with the settings in force (Markdown)."""
    from service.conformance import statement

    text = statement(load_settings(config, data).model_dump(), site=True)
    if json:
        print_json({"statement": text})
    else:
        typer.echo(text, nl=False)


def _signed_by_another(result: VerifyResult, key: Path | None) -> list[Problem]:
    """A medium that is signed wrongly has had its problem already."""
    from media.signing import SIGNATURE_FILE

    if key is None or any(problem.kind is ProblemKind.SIGNATURE for problem in result.problems):
        return []
    if result.signer is None:
        return [Problem(ProblemKind.SIGNATURE, SIGNATURE_FILE, "The medium is not signed.")]
    if result.signer.split() != key.read_bytes().split():
        detail = f"It is signed with another key, that with the fingerprint {fingerprint(result.signer)}."
        return [Problem(ProblemKind.SIGNATURE, SIGNATURE_FILE, detail)]
    return []


def _verify_one(path: Path, profile: str | None) -> VerifyResult:
    from media.verify import verify_path

    with bar(f"reading {path.name}", None, bytes_=True) as advance:
        before = 0

        def told(done: int, _total: int) -> None:
            nonlocal before
            advance(done - before)
            before = done

        return verify_path(path, profile=profile, progress=told)


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
                disc["state"],
                f"{disc['verified_at'][:16].replace('T', ' ')} by {disc['verified_by']}" if disc["verified_at"] else "",
                len(disc["instances"]),
                disc["location"],
            )
            for disc in documents
        ],
        right=("Copy", "Instances"),
    )


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
