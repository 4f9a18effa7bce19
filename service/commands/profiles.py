"""Commands about Application Profiles: ``profiles``, ``check``."""

from __future__ import annotations

from typing import Any

import typer

from service.commands import show
from service.commands.common import (
    ConfigOption,
    DataOption,
    JsonOption,
    load_settings,
    operations,
    plain,
    print_json,
    say,
    table,
)
from service.commands.groups import Said, asks_for_discs, request_options, selection, selects

_MANY = 10


def profiles(json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """Application Profiles: what each allows, and whether it is written yet."""
    del data, config  # taken because every command takes them
    documents = _documents()
    if json:
        print_json(documents)
        return
    table(
        "",
        ("Profile", "PS3.11", "Roles", "Media", "Contents"),
        [
            (
                one["profile"],
                one["annex"],
                ", ".join(one["roles"]),
                ", ".join(one["media"]),
                one["description"] if one["status"] == "ready" else f"not yet: {one['reason']}",
            )
            for one in documents
        ],
    )


def _documents() -> list[dict[str, Any]]:
    from media.profile_keys import key_set
    from media.profiles import profiles as rows

    found = []
    for row in rows().values():
        icon = key_set(row.directory_keys).icon
        found.append(
            {
                "profile": row.identifier,
                "description": row.description,
                "annex": row.annex,
                "status": row.status,
                "reason": row.reason,
                "roles": list(row.roles),
                "media": list(row.media),
                "default_medium": row.default_medium,
                "sop_classes": sorted(row.sop_classes),
                "writes": list(row.writes),
                "reads": list(row.reads),
                "by_class": {uid: list(syntaxes) for uid, syntaxes in sorted(row.by_class.items())},
                "rules": list(row.rules),
                "directory_keys": row.directory_keys,
                "icons": {"size": icon.size, "required": icon.required} if icon else None,
                "random_file_ids": row.random_file_ids,
                "security": row.security,
            }
        )
    return found


@selects
@asks_for_discs("profile", "medium", "compress", "allow_lossy", "coerce", "coerce_catalogue", "iod", "conflicts")
def check(
    *,
    selected: Said,
    asked: Said,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Why instances cannot be on a disc of a profile, with the clause of PS3.11. Nothing is conformed or planned."""
    with operations(load_settings(config, data)) as ops:
        document = ops.check(selection(selected), request_options(asked))
    if json:
        print_json(document)
    else:
        show.chosen(document)
        _show(document)
        show.iod(document)
    if document["refused"]:
        raise typer.Exit(1)


def _show(document: dict[str, Any]) -> None:
    """By reason: a thousand instances that fail alike are one line."""
    say(
        f"{document['profile']}: {document['fit']} fit as they are, {document['conform']} after conforming, "
        f"{len(document['refused'])} do not"
    )
    by_reason: dict[str, list[str]] = {}
    for one in document["refused"]:
        by_reason.setdefault(one["reason"], []).append(one["sop_instance_uid"])
    for reason, uids in sorted(by_reason.items(), key=lambda each: -len(each[1]))[:_MANY]:
        typer.echo(f"{len(uids)} x {plain(reason)}")
        typer.echo(f"    {plain(uids[0])}" + (f" and {len(uids) - 1} more" if len(uids) > 1 else ""))
    if len(by_reason) > _MANY:
        typer.echo(f"... and {len(by_reason) - _MANY} more reasons (--json has all)")
