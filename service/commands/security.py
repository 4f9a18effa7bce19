"""Commands about who may connect: ``passcode``."""

from __future__ import annotations

from typing import Annotated

import typer

from service.errors import UsageError


def passcode(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The user name that the other side gives.")],
) -> None:
    """Print a line for `dicom.users_file`: a user name and the digest of a passcode, which is asked for."""
    from scp.identity import digest

    if not name.strip() or any(not character.isprintable() for character in name):
        raise UsageError("a user name has printable characters only")
    given = typer.prompt("Passcode", hide_input=True, confirmation_prompt=True, err=True)
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    typer.echo(f'"{quoted}" = "{digest(given)}"')
