"""Commands about schedules: ``schedule``."""

from __future__ import annotations

import json as json_text
from typing import Annotated, Any
from urllib.parse import quote

import typer

from service.commands import schedule_text
from service.commands.common import (
    ConfigOption,
    DataOption,
    DateRangeOption,
    JsonOption,
    api,
    everything,
    load_settings,
    print_json,
    say,
    table,
    tell,
)
from service.commands.groups import Said, group
from service.errors import UsageError

schedule = typer.Typer(
    help="Schedules: what is archived, purged or read again, and when.", no_args_is_help=True, rich_markup_mode=None
)
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The schedule, as `burnish schedule list` names it.")]
CronOption = Annotated[
    str | None,
    typer.Option("--cron", metavar="LINE", help="When: minute hour day month weekday, e.g. '0 22 * * mon-fri'."),
]
EveryOption = Annotated[str | None, typer.Option("--every", metavar="INTERVAL", help="Or how often: 30m, 6h, 7d, 1w.")]
ZoneOption = Annotated[
    str | None, typer.Option("--timezone", metavar="ZONE", help="Of cron line and blackouts: an IANA name; UTC.")
]
BlackoutOption = Annotated[
    list[str] | None,
    typer.Option("--blackout", metavar="WINDOW", help="Nothing begins in it: 'mon-fri 07:00-19:00'; repeatable."),
]
PoolOption = Annotated[str | None, typer.Option("--pool", metavar="NAME", help="The pool that its studies go to.")]
ModalityRule = Annotated[
    list[str] | None, typer.Option("--modality", metavar="M", help="Studies with this modality; repeatable.")
]
CallingRule = Annotated[
    list[str] | None, typer.Option("--calling-ae", metavar="X", help="Studies from this AE title; repeatable.")
]
CalledRule = Annotated[
    list[str] | None, typer.Option("--called-ae", metavar="X", help="Studies sent to this AE title; repeatable.")
]
StationRule = Annotated[
    list[str] | None, typer.Option("--station", metavar="X", help="Studies of this Station Name; repeatable.")
]
MinAgeRule = Annotated[
    float | None, typer.Option("--min-age-hours", metavar="N", help="Nothing of the study came for so long.")
]
MaxAgeRule = Annotated[
    float | None, typer.Option("--max-age-days", metavar="N", help="Something of the study came within so many days.")
]
NotOnRule = Annotated[
    int | None, typer.Option("--not-on-discs", metavar="N", help="Only what fewer than N verified discs hold.")
]
OptionOption = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="KEY=VALUE", help="How it is done, e.g. profile=STD-GEN-DVD; repeatable."),
]


_DECIDED: dict[str, Any] = {
    "cron": CronOption,
    "every": EveryOption,
    "timezone": ZoneOption,
    "blackout": BlackoutOption,
    "pool": PoolOption,
    "modality": ModalityRule,
    "calling_ae": CallingRule,
    "called_ae": CalledRule,
    "station": StationRule,
    "date_range": DateRangeOption,
    "min_age_hours": MinAgeRule,
    "max_age_days": MaxAgeRule,
    "not_on_discs": NotOnRule,
    "option": OptionOption,
}
_RULES = tuple(_DECIDED)[5:-1]
decides = group("decided", _DECIDED)
"""The command takes what is decided about a schedule: when, which studies, how."""


@schedule.command("add")
@decides
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it.")],
    *,
    kind: Annotated[
        str, typer.Option("--kind", metavar="KIND", help="What it does: archive, purge, reverify.")
    ] = "archive",
    decided: Said,
    disabled: Annotated[bool, typer.Option("--disabled", help="It does not fire until it is enabled.")] = False,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Make a schedule: either --cron or --every; rules say which studies, --pool or --option how."""
    if decided["cron"] is None and decided["every"] is None:
        raise UsageError("say when: either --cron or --every")
    values = _values(decided) | {"name": name, "kind": kind, "enabled": not disabled}
    with api(load_settings(config, data)) as call:
        document = call("POST", "/schedules", values)
    _told(document, json=json)


@schedule.command("edit")
@decides
def edit(
    name: NameArgument,
    *,
    decided: Said,
    without: Annotated[
        list[str] | None,
        typer.Option("--without", metavar="WHAT", help="Take away: blackout, pool, a rule or an option; repeatable."),
    ] = None,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Change a schedule; rules and options that are not named stay."""
    settings = load_settings(config, data)
    values = _values(decided)
    rules, options = values.pop("rules", {}), values.pop("options", {})
    with api(settings) as call:
        before = call("GET", f"/schedules/{quote(name, safe='')}") if without else {}
        for what in (one.replace("-", "_") for one in without or ()):
            if what in ("blackout", "blackouts"):
                values["blackouts"] = []
            elif what == "pool":
                values["pool"] = None
            elif what in before["rules"]:
                rules[what] = None
            elif what in before["options"]:
                options[what] = None
            else:
                raise UsageError(f"schedule {name} has no rule or option {what!r}")
        if rules:
            values["rules"] = rules
        if options:
            values["options"] = options
        if not values:
            raise UsageError("say what to change; `burnish schedule edit --help` lists it")
        document = call("PATCH", f"/schedules/{quote(name, safe='')}", values)
    _told(document, json=json)


@schedule.command("list")
def list_(json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """The schedules, when each fires next and what came of it last."""
    with api(load_settings(config, data)) as call:
        documents = everything(call, "/schedules")
    if json:
        print_json(documents)
        return
    if not documents:
        say("no schedules yet; make one: burnish schedule add NAME --cron '0 22 * * *' --pool NAME")
        return
    table(
        "",
        ("Schedule", "Kind", "When", "Pool", "Next", "Last", "Result"),
        [
            (
                one["schedule"],
                one["kind"],
                schedule_text.when(one),
                one["pool"],
                one["problem"] or (schedule_text.local(one["next"]) if one["enabled"] else "disabled"),
                schedule_text.local(one["runs"][0]["fire_at"]) if one["runs"] else "",
                schedule_text.result(one["runs"][0]) if one["runs"] else "",
            )
            for one in documents
        ],
    )


@schedule.command("show")
def show(name: NameArgument, json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """A schedule, its next firings and its newest runs."""
    with api(load_settings(config, data)) as call:
        document = call("GET", f"/schedules/{quote(name, safe='')}")
    if json:
        print_json(document)
        return
    upcoming = [one[:16].replace("T", " ") for one in document["upcoming"]]
    rows = [
        ("kind", document["kind"]),
        ("when", schedule_text.when(document)),
        ("nothing begins", "; ".join(schedule_text.window(one) for one in document["blackouts"])),
        (
            "which",
            schedule_text.pairs(document["rules"]) or "everything",
        ),
        ("how", schedule_text.pairs(document["options"])),
        ("pool", document["pool"] or ""),
        ("next", schedule_text.local(document["next"]) if document["enabled"] else "disabled"),
        (f"then ({document['timezone']})", ", ".join(upcoming) if document["enabled"] else ""),
        ("problem", document["problem"] or ""),
    ]
    table(f"Schedule {document['schedule']}", ("", ""), [row for row in rows if row[1]])
    if document["runs"]:
        table(
            "",
            ("Fired", "Begun", "Ended", "Result"),
            [
                (
                    schedule_text.local(run["fire_at"]),
                    schedule_text.local(run["started"]),
                    schedule_text.local(run["finished"]),
                    schedule_text.result(run),
                )
                for run in document["runs"]
            ],
        )


@schedule.command("enable")
def enable(name: NameArgument, json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """Let a schedule fire, from now on."""
    _switch(name, True, json, data, config)


@schedule.command("disable")
def disable(name: NameArgument, json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """Let a schedule not fire until it is enabled."""
    _switch(name, False, json, data, config)


@schedule.command("remove")
def remove(name: NameArgument, json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """Remove a schedule; what it has made stays."""
    with api(load_settings(config, data)) as call:
        document = call("DELETE", f"/schedules/{quote(name, safe='')}")
    if json:
        print_json(document)
    say(f"{name} is no schedule any more")


@schedule.command("run")
def run(name: NameArgument, json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """Fire a schedule now, whether it is due, enabled or in a blackout window or not."""
    with api(load_settings(config, data), locked_for="schedule run") as call:
        document = call("POST", f"/schedules/{quote(name, safe='')}/run", {})
    if json:
        print_json(document)
    say(f"{name}: {schedule_text.outcome(document['result'])}")


@schedule.command("preview")
@decides
def preview(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="The schedule; with options: as it would be with them.")
    ] = None,
    *,
    kind: Annotated[
        str | None,
        typer.Option("--kind", metavar="KIND", help="Of one not made yet: archive, purge, reverify."),
    ] = None,
    decided: Said,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """What a schedule would do now, and on which discs; nothing is done. Without NAME: one that is not made yet."""
    values = _values(decided) | ({"kind": kind} if kind is not None else {})
    if name is None and not values:
        raise UsageError("say which schedule, or what one would do: burnish schedule preview --pool NAME --modality CT")
    with api(load_settings(config, data)) as call:
        if name is not None and not values:
            document = call("GET", f"/schedules/{quote(name, safe='')}/preview")
        else:
            document = call("POST", "/schedules/preview", values | {"schedule": name})
    if json:
        print_json(document)
        return
    for at in document["upcoming"][:1] if values else ():
        tell(f"it would fire next at {at[:16].replace('T', ' ')}")
    schedule_text.preview(document)


def _switch(name: str, enabled: bool, json: bool, data: Any, config: Any) -> None:
    with api(load_settings(config, data)) as call:
        document = call("PATCH", f"/schedules/{quote(name, safe='')}", {"enabled": enabled})
    _told(document, json=json)


def _values(decided: Said) -> dict[str, Any]:
    """What was said, as the API takes it; what was not is left out."""
    from jobs.triggers import blackout_document, interval_seconds

    if decided["cron"] is not None and decided["every"] is not None:
        raise UsageError("say either --cron or --every")
    values = {name: decided[name] for name in ("cron", "timezone", "pool") if decided[name] is not None}
    if decided["every"] is not None:
        values["every_seconds"] = interval_seconds(decided["every"])
    if decided["blackout"]:
        values["blackouts"] = [blackout_document(text) for text in decided["blackout"]]
    rules = {name: decided[name] for name in _RULES if decided[name] not in (None, [])}
    options = _options(decided["option"])
    return values | ({"rules": rules} if rules else {}) | ({"options": options} if options else {})


def _options(texts: list[str] | None) -> dict[str, Any]:
    """``KEY=VALUE`` as options: numbers, true and false as such, all else as text."""
    found: dict[str, Any] = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"--option {text!r}: KEY=VALUE is meant")
        try:
            found[key.replace("-", "_")] = json_text.loads(value)
        except ValueError:
            found[key.replace("-", "_")] = value
    return found


def _told(document: dict[str, Any], *, json: bool) -> None:
    if json:
        print_json(document)
        return
    following = schedule_text.local(document["next"]) if document["enabled"] else "when it is enabled"
    say(f"{document['schedule']}: {schedule_text.when(document)}; next: {following}")
