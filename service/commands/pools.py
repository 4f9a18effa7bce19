"""Commands about pools: ``pool``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from service.commands import show as shown
from service.commands.common import (
    ConfigOption,
    DataOption,
    JsonOption,
    api,
    everything,
    load_settings,
    plain,
    print_json,
    say,
    size_text,
    table,
)
from service.commands.groups import Said, asks_for_discs, group, request_options, selection, selects
from service.errors import UsageError

_SHOWN = 20

pool = typer.Typer(
    help="Pools: discs that are filled, kept and counted together.", no_args_is_help=True, rich_markup_mode=None
)
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The pool, as `burnish pool list` names it.")]
BurnerOption = Annotated[str | None, typer.Option("--burner", metavar="NAME", help="A burner of the settings.")]
PriorityOption = Annotated[
    str | None, typer.Option("--priority", metavar="high|med|low", help="Of its jobs among others.")
]
_keeps = group(
    "kept",
    {
        "copies": Annotated[int | None, typer.Option("--copies", metavar="N", help="Copies of each volume.")],
        "required_copies": Annotated[
            int | None,
            typer.Option(
                "--required-copies", metavar="N", help="Verified discs before the spool may be purged; as --copies."
            ),
        ],
        "shelf": Annotated[
            list[str] | None,
            typer.Option(
                "--shelf", metavar="PLACE", help="Where a copy is to be put: once for each copy, in their order."
            ),
        ],
        "min_fill": Annotated[
            float | None,
            typer.Option("--min-fill", metavar="PERCENT", help="When a disc is full enough to be burnt; 97."),
        ],
        "latest_days": Annotated[
            int | None, typer.Option("--latest-days", metavar="N", help="Burn what has waited so long, however little.")
        ],
        "keep_days": Annotated[
            int | None, typer.Option("--keep-days", metavar="N", help="Keep in the spool so long after receipt; 0.")
        ],
        "quiet_minutes": Annotated[
            int | None,
            typer.Option("--quiet-minutes", metavar="N", help="Leave studies to which something came lately; 10."),
        ],
    },
)
_asks = asks_for_discs(but=("coerce_catalogue", "iod", "no_splitting", "purpose"))


@pool.command("add")
@_keeps
@_asks
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it.")],
    *,
    kind: Annotated[
        str, typer.Option("--kind", metavar="archive|backup", help="Whether the catalogue finds what is on its discs.")
    ] = "archive",
    asked: Said,
    burner: BurnerOption = None,
    priority: PriorityOption = None,
    kept: Said,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Make a pool."""
    values = {"kind": kind, **_values(kept)}
    options = request_options({**asked, "burner": burner, "priority": priority})
    with api(load_settings(config, data)) as call:
        document = call("POST", "/pools", {"name": name, **values, "options": options})
    _told(document, json=json)


@pool.command("edit")
@_keeps
@_asks
def edit(
    name: NameArgument,
    *,
    asked: Said,
    burner: BurnerOption = None,
    priority: PriorityOption = None,
    kept: Said,
    no_latest: Annotated[bool, typer.Option("--no-latest", help="What waits may wait for ever.")] = False,
    default: Annotated[
        list[str] | None,
        typer.Option("--default", metavar="OPTION", help="As the settings say again, e.g. medium; repeatable."),
    ] = None,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Change a pool; discs that exist stay as they are."""
    values = _values(kept)
    options: dict[str, Any] = dict.fromkeys((one.replace("-", "_") for one in default or ()), None)
    options |= request_options({**asked, "burner": burner, "priority": priority})
    if no_latest:
        values["latest_days"] = None
    if options:
        values["options"] = options
    if not values:
        raise UsageError("say what to change; `burnish pool edit --help` lists it")
    with api(load_settings(config, data)) as call:
        document = call("PATCH", f"/pools/{_path(name)}", values)
    _told(document, json=json)


@pool.command("list")
def list_(
    closed: Annotated[bool, typer.Option("--closed", help="Those that are closed, too.")] = False,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """The pools: what waits in them, and their discs."""
    with api(load_settings(config, data)) as call:
        documents = everything(call, "/pools", **({"closed": "true"} if closed else {}))
    if json:
        print_json(documents)
        return
    if not documents:
        say("no pools yet; make one: burnish pool add NAME")
        return
    table(
        "",
        ("Pool", "Kind", "Profile", "Medium", "Copies", "Waiting", "", "Due", "Discs", "Verified"),
        [
            (
                one["pool"] + (" (closed)" if one["closed"] else ""),
                one["kind"],
                one["options"].get("profile", "default"),
                one["options"].get("medium", "default"),
                f"{one['copies']} ({one['required_copies']} required)",
                f"{one['waiting']['studies']} studies",
                size_text(one["waiting"]["bytes"]),
                (one["waiting"]["due"] or "")[:10],
                one["discs"]["made"],
                one["discs"]["verified"],
            )
            for one in documents
        ],
        right=("Discs", "Verified"),
    )


@pool.command("show")
def show(name: NameArgument, json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """A pool: what waits, what its discs cannot hold, jobs that have not made their discs."""
    with api(load_settings(config, data)) as call:
        document = call("GET", f"/pools/{_path(name)}")
    if json:
        print_json(document)
        return
    waiting, discs = document["waiting"], document["discs"]
    options = ", ".join(f"{key} {value}" for key, value in sorted(document["options"].items())) or "as in the settings"
    rows = [
        ("kind", document["kind"]),
        ("discs are made", options),
        ("copies", f"{document['copies']}, of which {document['required_copies']} must be good"),
        ("shelves", "; ".join(document["shelves"])),
        ("full enough", f"from {document['min_fill']:g} % on"),
        ("waits at most", f"{document['latest_days']} days" if document["latest_days"] else "for ever"),
        ("kept in the spool", f"{document['keep_days']} days"),
        ("left waiting", f"studies to which something came in the last {document['quiet_minutes']} minutes"),
        (
            "waiting",
            f"{waiting['instances']} instances of {waiting['studies']} studies, {size_text(waiting['bytes'])}"
            + (f", about {waiting['fill']:g} % of a medium" if waiting["fill"] is not None else ""),
        ),
        ("due", waiting["due"] or ""),
        (
            "discs",
            f"{discs['made']}: {discs['verified']} verified, {discs['open']} being made, {discs['failed']} failed",
        ),
        ("closed", document["closed"] or ""),
        ("problem", document["problem"] or ""),
    ]
    table(f"Pool {document['pool']}", ("", ""), [row for row in rows if row[1]])
    for one in document["open_jobs"][:_SHOWN]:
        say(f"{one['job']} is {one['state']}, {one['instances']} instances" + _because(one["error"]))
    if document["refused"]["instances"]:
        say(f"{document['refused']['instances']} instances cannot be on its discs:")
        for one in document["refused"]["items"][:_SHOWN]:
            say(f"  {one['sop_instance_uid']}: {plain(one['reason'])}")


@pool.command("remove")
def remove(name: NameArgument, json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """Remove a pool; one that has discs is closed: it takes nothing any more."""
    with api(load_settings(config, data)) as call:
        document = call("DELETE", f"/pools/{_path(name)}")
    if json:
        print_json(document)
    say(f"{name} is removed" if document["removed"] else f"{name} is closed; its discs stay")


@pool.command("put")
@selects
def put(
    name: NameArgument,
    *,
    selected: Said,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Let instances wait for a pool's discs, as a schedule does."""
    chosen = selection(selected)
    with api(load_settings(config, data)) as call:
        document = call("POST", f"/pools/{_path(name)}/instances", {"selection": chosen})
    if json:
        print_json(document)
    say(f"{document['instances']} instances more wait for discs of {name}")


@pool.command("burn-now")
def burn_now(
    name: NameArgument, json: JsonOption = False, data: DataOption = None, config: ConfigOption = None
) -> None:
    """Make discs of all that waits, however little."""
    with api(load_settings(config, data), locked_for="pool burn-now") as call, shown.phases() as told:
        document = call.told("burn", f"/pools/{_path(name)}/burn", {}, told)
    if json:
        print_json(document)
    elif document["jobs"]:
        say(f"{', '.join(document['jobs'])}: see `burnish jobs`")
    else:
        say(f"nothing that waits in {name} can be put on a disc" if document["waiting"] else f"nothing waits in {name}")


def _told(document: dict[str, Any], *, json: bool) -> None:
    if json:
        print_json(document)
    else:
        say(
            f"{document['pool']}: {document['kind']} discs, {document['copies']} "
            f"{'copies' if document['copies'] > 1 else 'copy'} of each volume; "
            f"{document['waiting']['instances']} instances wait"
        )


def _because(error: str | None) -> str:
    return f": {plain(error)}" if error else ""


def _values(kept: Said) -> dict[str, Any]:
    """How a pool is kept as the API takes it; what was not said is left out."""
    values = {name: value for name, value in kept.items() if value is not None}
    shelves = values.pop("shelf", None)
    return {**values, "shelves": shelves} if shelves else values


def _path(name: str) -> str:
    from urllib.parse import quote

    return quote(name, safe="")
