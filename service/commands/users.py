"""Commands about who may do what: ``users``, ``tokens``."""

from __future__ import annotations

import sys
from typing import Annotated, Any
from urllib.parse import quote

import typer

from service.commands.common import ConfigOption, DataOption, JsonOption, api, load_settings, print_json, say, table
from service.errors import UsageError

users = typer.Typer(help="Users of the page and the API.", no_args_is_help=True, rich_markup_mode=None)
tokens = typer.Typer(help="API tokens, by which programs act for users.", no_args_is_help=True, rich_markup_mode=None)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The user.")]
StdinOption = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input, its first line.")
]


def _password(from_stdin: bool) -> str:
    if from_stdin:
        line = sys.stdin.readline().rstrip("\r\n")
        if not line:
            raise UsageError("there is no password on standard input")
        return line
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))


def _path(name: str) -> str:
    if not name.strip():
        raise UsageError("say which user")
    return f"/users/{quote(name.strip(), safe='')}"


def _everything(call: Any, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        page = call("GET", path, limit=1000, cursor=cursor)
        found += page["items"]
        cursor = page["next"]
        if cursor is None:
            return found


@users.command("add")
def add(
    name: NameArgument,
    role: Annotated[str, typer.Option("--role", metavar="ROLE", help="viewer, operator, archivist or administrator.")],
    no_password: Annotated[
        bool, typer.Option("--no-password", help="No sign-in at the page: for a program with API tokens.")
    ] = False,
    password_stdin: StdinOption = False,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Enter a user; asks for the password."""
    settings = load_settings(config, data)
    body: dict[str, Any] = {"user": name, "role": role}
    if not no_password:
        body["password"] = _password(password_stdin)
    with api(settings) as call:
        document = call("POST", "/users", body)
    _say(document, f"{document['user']} is {document['role']}", json=json)


@users.command("list")
def list_(json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """All users."""
    with api(load_settings(config, data)) as call:
        found = _everything(call, "/users")
    if json:
        print_json(found)
        return
    rows = [
        (
            one["user"],
            one["role"],
            "OpenID" if one["kind"] == "oidc" else "password" if one["password"] else "tokens only",
            "disabled" if one["disabled"] else "",
            (one["signed_in_at"] or "never")[:19].replace("T", " "),
        )
        for one in found
    ]
    table("", ("user", "role", "signs in by", "state", "last signed in (UTC)"), rows)


@users.command("passwd")
def passwd(
    name: NameArgument,
    password_stdin: StdinOption = False,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Give a user a password; the user's sessions end, failed sign-ins are forgiven."""
    settings = load_settings(config, data)
    password = _password(password_stdin)
    with api(settings) as call:
        document = call("PUT", f"{_path(name)}/password", {"password": password})
    _say(document, f"{document['user']} has a new password", json=json)


@users.command("role")
def role(
    name: NameArgument,
    role: Annotated[str, typer.Argument(metavar="ROLE", help="viewer, operator, archivist or administrator.")],
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Give a user another role; the user's sessions end."""
    with api(load_settings(config, data)) as call:
        document = call("PATCH", _path(name), {"role": role})
    _say(document, f"{document['user']} is {document['role']}", json=json)


@users.command("disable")
def disable(name: NameArgument, json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """No sign-in, no session, no token of this user counts any more."""
    with api(load_settings(config, data)) as call:
        document = call("PATCH", _path(name), {"disabled": True})
    _say(document, f"{document['user']} is disabled", json=json)


@users.command("enable")
def enable(name: NameArgument, json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """Let a user in again, and forgive failed sign-ins."""
    with api(load_settings(config, data)) as call:
        document = call("PATCH", _path(name), {"disabled": False})
    _say(document, f"{document['user']} may sign in", json=json)


@users.command("remove")
def remove(name: NameArgument, json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """Remove a user with sessions and tokens."""
    with api(load_settings(config, data)) as call:
        document = call("DELETE", _path(name))
    _say(document, f"{document['user']} is removed", json=json)


@tokens.command("add")
def add_token(
    name: Annotated[str, typer.Argument(metavar="TEXT", help="What it is for.")],
    user: Annotated[str, typer.Option("--user", metavar="NAME", help="The user that it acts for.")],
    scope: Annotated[
        list[str],
        typer.Option(
            "--scope", metavar="RIGHT", help="What it may: a right, or a role for all its rights; repeatable."
        ),
    ],
    days: Annotated[
        int | None, typer.Option("--days", metavar="N", help="It expires then; users.token_days if left out.")
    ] = None,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Make an API token; it is printed on standard output, this once."""
    body = {"user": user, "name": name, "scopes": scope, "days": days}
    with api(load_settings(config, data)) as call:
        document = call("POST", "/tokens", body)
    if json:
        print_json(document)
        return
    say(f"{document['token']}, of {document['user']}, until {document['expires_at'][:10]}. It is not shown again:")
    typer.echo(document["secret"])


@tokens.command("list")
def list_tokens(json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """All API tokens, the newest first."""
    with api(load_settings(config, data)) as call:
        found = _everything(call, "/tokens")
    if json:
        print_json(found)
        return
    rows = [
        (
            one["token"],
            one["name"],
            one["user"],
            f"{one['begins']}...",
            ", ".join(one["scopes"]),
            one["state"],
            one["expires_at"][:10],
            (one["used_at"] or "never")[:19].replace("T", " "),
        )
        for one in found
    ]
    table("", ("token", "for", "user", "begins", "scopes", "state", "expires", "last used (UTC)"), rows)


@tokens.command("revoke")
def revoke(
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="T3, as `burnish tokens list` names it.")],
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """It counts no more, from now on."""
    from service.contract import number

    with api(load_settings(config, data)) as call:
        document = call("DELETE", f"/tokens/T{number('T', token)}")
    _say(document, f"{document['token']} is revoked", json=json)


def _say(document: dict[str, Any], text: str, *, json: bool) -> None:
    if json:
        print_json(document)
    else:
        say(text)
