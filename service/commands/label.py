"""The command ``label``: what stands on a disc's label, and the label as a picture."""

from __future__ import annotations

from pathlib import Path
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
)
from service.errors import UsageError

_KINDS = ("png", "pdf", "svg")


def label(
    of: Annotated[str, typer.Argument(metavar="ID", help="Of a plan, job or disc, e.g. P12, J12, D12.")],
    volume: Annotated[int | None, typer.Option("--volume", metavar="K", help="Which volume of a plan or job.")] = None,
    out: Annotated[
        list[Path] | None,
        typer.Option("--out", metavar="FILE", help="Write the label: .png, .pdf or .svg; repeatable.", dir_okay=False),
    ] = None,
    png: Annotated[Path | None, typer.Option("--png", metavar="FILE", help="Write it as PNG.", dir_okay=False)] = None,
    pdf: Annotated[Path | None, typer.Option("--pdf", metavar="FILE", help="Write it as PDF.", dir_okay=False)] = None,
    svg: Annotated[Path | None, typer.Option("--svg", metavar="FILE", help="Write it as SVG.", dir_okay=False)] = None,
    printer: Annotated[
        str, typer.Option("--printer", metavar="NAME", help="A printer of labels.toml, instead of the settings' one.")
    ] = "",
    dpi: Annotated[int | None, typer.Option("--dpi", metavar="N", help="Dots per inch of a PNG, e.g. 600.")] = None,
    guides: Annotated[
        bool, typer.Option("--guides", help="Draw the edges of disc and printable ring, to look at; not for printing.")
    ] = False,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """The label of a disc, or of a planned volume: its text, and as a picture for a printer."""
    wanted: list[tuple[str, Path]] = [(_kind(path), path) for path in out or ()]
    wanted += [(kind, path) for kind, path in (("png", png), ("pdf", pdf), ("svg", svg)) if path is not None]
    with operations(load_settings(config, data)) as ops:
        document = ops.label(of, volume=volume, printer=printer)
        for kind, path in wanted:
            path.write_bytes(ops.label_picture(of, kind, volume=volume, printer=printer, dpi=dpi, guides=guides))
    if json:
        print_json(document)
    else:
        _show(document)
    for _, path in wanted:
        say(f"label written to {path}")


def _kind(path: Path) -> str:
    kind = path.suffix.lower().removeprefix(".")
    if kind not in _KINDS:
        raise UsageError(f"--out {path}: a label is written as .png, .pdf or .svg")
    return kind


def _show(document: dict[str, Any]) -> None:
    for line in document["lines"]:
        typer.echo(plain(line))
    for notice in document["notices"]:
        say(f"note: {plain(notice)}")
