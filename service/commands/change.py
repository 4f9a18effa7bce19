"""The command that changes a medium which exists: ``update``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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


@selects
@asks_for_discs("profile", "conflicts", "skip_refused", "compress", "allow_lossy", "coerce", "coerce_catalogue")
def update(
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="A folder, mounted medium, image or drive.")],
    action: Annotated[str, typer.Argument(metavar="add|remove", help="What to do with the instances.")],
    *,
    selected: Said,
    asked: Said,
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
    chosen = selection(selected)
    settings = load_settings(config, data)
    options = request_options(asked)
    if action == "remove":
        if session or close or any(options.values()):
            raise UsageError(
                "--profile, --conflicts, --skip-refused, --compress, --allow-lossy, --coerce, --coerce-catalogue, "
                "--session and --close belong to add"
            )
        document = updating.remove(settings, target, chosen, copy=copy)
    else:
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
