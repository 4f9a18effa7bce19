"""Options that come in groups: SELECT, and what discs are asked for. A command names a group and gets what was said."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from service.commands.common import DateRangeOption, coerce_rules
from service.errors import UsageError

Command = Callable[..., None]
Said = dict[str, Any]
"""Values of a group's options, by name; None or False where one was not said."""

_Texts = list[str] | None
_ALL = typer.Option("--all", help="SELECT: everything in the spool.")
_ALL_KNOWN = typer.Option("--all", help="SELECT: everything that is known.")
_SELECT: dict[str, Any] = {
    "study": Annotated[_Texts, typer.Option("--study", metavar="UID", help="SELECT: a study; repeatable.")],
    "series": Annotated[_Texts, typer.Option("--series", metavar="UID", help="SELECT: a series; repeatable.")],
    "sop": Annotated[_Texts, typer.Option("--sop", metavar="UID", help="SELECT: an instance; repeatable.")],
    "patient_id": Annotated[
        _Texts, typer.Option("--patient-id", metavar="ID", help="SELECT: by Patient ID; repeatable.")
    ],
    "accession": Annotated[
        _Texts, typer.Option("--accession", metavar="X", help="SELECT: by Accession Number; repeatable.")
    ],
    "date_range": DateRangeOption,
    "modality": Annotated[_Texts, typer.Option("--modality", metavar="M", help="SELECT: by modality; repeatable.")],
    "calling_ae": Annotated[
        _Texts, typer.Option("--calling-ae", metavar="X", help="SELECT: by the sender's AE title; repeatable.")
    ],
}
"""Criteria that hold wherever an instance is."""
_IN_SPOOL: dict[str, Any] = {
    "all": Annotated[bool, _ALL],
    "not_on_disc": Annotated[bool, typer.Option("--not-on-disc", help="SELECT: what no verified disc holds.")],
}
_DISCS: dict[str, Any] = {
    "profile": Annotated[
        str | None,
        typer.Option("--profile", metavar="P", help="Application Profile, e.g. STD-GEN-CD, or auto."),
    ],
    "medium": Annotated[str | None, typer.Option("--medium", metavar="M", help="Medium, e.g. CD-R-80 or BD-25.")],
    "capacity_sectors": Annotated[
        int | None,
        typer.Option(
            "--capacity-sectors", metavar="N", help="Usable sectors of 2048 bytes, instead of the medium's own."
        ),
    ],
    "patients_per_disc": Annotated[
        str | None, typer.Option("--patients-per-disc", metavar="one|many", help="Whether patients may share a volume.")
    ],
    "conflicts": Annotated[
        str | None,
        typer.Option(
            "--conflicts", metavar="first|latest|refuse|keep-both", help="Instances with one UID and different content."
        ),
    ],
    "skip_refused": Annotated[
        bool, typer.Option("--skip-refused", help="Make the discs without the instances that are refused.")
    ],
    "compress": Annotated[
        str | None,
        typer.Option(
            "--compress",
            metavar="none|lossless|lossy|keep",
            help="Pixel data uncompressed, compressed, or as received; the profile permitting.",
        ),
    ],
    "allow_lossy": Annotated[
        bool, typer.Option("--allow-lossy", help="Lossy compression is allowed, but for what the site protects.")
    ],
    "coerce": Annotated[
        Path | None,
        typer.Option("--coerce", metavar="FILE", help="Rules (TOML) by which attributes are corrected on the disc."),
    ],
    "coerce_catalogue": Annotated[
        bool,
        typer.Option("--coerce-catalogue", help="Patient and study attributes as the catalogue has them."),
    ],
    "iod": Annotated[
        str | None,
        typer.Option(
            "--iod",
            metavar="off|report|strict",
            help="IOD check: what instances lack of what PS3.3 demands is told, or (strict) refused.",
        ),
    ],
    "protect": Annotated[
        str | None,
        typer.Option(
            "--protect",
            metavar="rs02|rs03|none",
            help="Error-correction data behind the file system, by dvdisaster: RS02 of any size, RS03 fills the "
            "medium.",
        ),
    ],
    "protect_percent": Annotated[
        float | None,
        typer.Option("--protect-percent", metavar="N", help="Least redundancy of error-correction data, percent."),
    ],
    "no_splitting": Annotated[
        bool, typer.Option("--no-splitting", help="Fail rather than spread the request over several volumes.")
    ],
    "file_set_prefix": Annotated[
        str | None, typer.Option("--file-set-prefix", metavar="X", help="Beginning of the File-set IDs, A-Z 0-9 _.")
    ],
    "purpose": Annotated[
        str | None,
        typer.Option(
            "--purpose",
            metavar="archive|backup|handout",
            help="What the discs are for; only those for the archive are places where the catalogue finds instances.",
        ),
    ],
    "label_text": Annotated[
        str | None, typer.Option("--label-text", metavar="TEXT", help="Text for the labels of the discs.")
    ],
    "barcode": Annotated[
        str | None, typer.Option("--barcode", metavar="VALUE", help="Barcode for the labels of the discs.")
    ],
    "barcode_symbology": Annotated[
        str | None, typer.Option("--barcode-symbology", metavar="X", help="Of the barcode, e.g. CODE128, CODE39, QR.")
    ],
}
"""What a request of discs can say (``jobs.options``)."""


def group(place: str, options: Mapping[str, Any]) -> Callable[[Command], Command]:
    """Decorates a command: these options stand where its parameter ``place`` does, which gets what was said."""

    def decorated(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True)
        given = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=False if get_args(hint)[0] is bool else None,
                annotation=hint,
            )
            for name, hint in options.items()
        ]
        parameters: list[inspect.Parameter] = []
        for parameter in own.parameters.values():
            parameters += given if parameter.name == place else [parameter]

        @functools.wraps(command)
        def run(*args: Any, **values: Any) -> None:
            said = {name: values.pop(name) for name in options}
            command(*args, **values, **{place: said})

        run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorated


selects = group("selected", {**_SELECT, **_IN_SPOOL})
"""The command takes SELECT, of what is in the spool."""
selects_known = group("selected", {**_SELECT, "all": Annotated[bool, _ALL_KNOWN]})
"""The command takes SELECT, of all that is known, on discs or in the spool."""


def asks_for_discs(*only: str, but: Collection[str] = ()) -> Callable[[Command], Command]:
    """The command takes what a request of discs can say: all of it, ``only`` these options, or all ``but`` these."""
    return group("asked", {name: _DISCS[name] for name in only or _DISCS if name not in but})


def selection(selected: Mapping[str, Any]) -> dict[str, Any]:
    """SELECT as a JSON document; what was not said is left out. Raises ``UsageError`` where nothing was."""
    given = {key: value for key, value in selected.items() if value}
    if not given:
        raise UsageError(
            "nothing is selected; say --study, --series, --sop, --patient-id, --accession, --date-range, "
            "--modality, --calling-ae, --all or --not-on-disc"
        )
    return given


def request_options(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a request as the API takes them; what was not said is left out. Raises ``UsageError``."""
    said = {name: value for name, value in asked.items() if value is not None and value is not False}
    if "coerce" in said:
        said["coerce"] = coerce_rules(said["coerce"])
    if said.pop("no_splitting", False):
        said["allow_splitting"] = False
    if "barcode" in said:
        said["barcode_value"] = said.pop("barcode")
    return said
