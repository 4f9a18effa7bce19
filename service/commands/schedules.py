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
    patient_words,
    plain,
    print_json,
    say,
    size_text,
    table,
)
from service.errors import UsageError

_SHOWN = 20
_STUDIES_SHOWN = 8

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


@schedule.command("add")
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it.")],
    *,
    kind: Annotated[
        str, typer.Option("--kind", metavar="KIND", help="What it does: archive, purge, reverify.")
    ] = "archive",
    cron: CronOption = None,
    every: EveryOption = None,
    timezone: ZoneOption = None,
    blackout: BlackoutOption = None,
    pool: PoolOption = None,
    modality: ModalityRule = None,
    calling_ae: CallingRule = None,
    called_ae: CalledRule = None,
    station: StationRule = None,
    date_range: DateRangeOption = None,
    min_age_hours: MinAgeRule = None,
    max_age_days: MaxAgeRule = None,
    not_on_discs: NotOnRule = None,
    option: OptionOption = None,
    disabled: Annotated[bool, typer.Option("--disabled", help="It does not fire until it is enabled.")] = False,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Make a schedule: either --cron or --every; rules say which studies, --pool or --option how."""
    if (cron is None) == (every is None):
        raise UsageError("say when: either --cron or --every")
    values = _values(cron, every, timezone, blackout)
    rules = _rules(modality, calling_ae, called_ae, station, date_range, min_age_hours, max_age_days, not_on_discs)
    values |= {"name": name, "kind": kind, "enabled": not disabled, "rules": rules, "options": _options(option)}
    if pool is not None:
        values["pool"] = pool
    with api(load_settings(config, data)) as call:
        document = call("POST", "/schedules", values)
    _told(document, json=json)


@schedule.command("edit")
def edit(
    name: NameArgument,
    *,
    cron: CronOption = None,
    every: EveryOption = None,
    timezone: ZoneOption = None,
    blackout: BlackoutOption = None,
    pool: PoolOption = None,
    modality: ModalityRule = None,
    calling_ae: CallingRule = None,
    called_ae: CalledRule = None,
    station: StationRule = None,
    date_range: DateRangeOption = None,
    min_age_hours: MinAgeRule = None,
    max_age_days: MaxAgeRule = None,
    not_on_discs: NotOnRule = None,
    option: OptionOption = None,
    without: Annotated[
        list[str] | None,
        typer.Option("--without", metavar="WHAT", help="Take away: blackout, pool, a rule or an option; repeatable."),
    ] = None,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Change a schedule; rules and options that are not named stay."""
    if cron is not None and every is not None:
        raise UsageError("say either --cron or --every")
    settings = load_settings(config, data)
    values = _values(cron, every, timezone, blackout)
    rules: dict[str, Any] = _rules(
        modality, calling_ae, called_ae, station, date_range, min_age_hours, max_age_days, not_on_discs
    )
    options: dict[str, Any] = _options(option)
    if pool is not None:
        values["pool"] = pool
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
def preview(name: NameArgument, json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """What a schedule would do now, and on which discs; nothing is done."""
    with api(load_settings(config, data)) as call:
        document = call("GET", f"/schedules/{quote(name, safe='')}/preview")
    if json:
        print_json(document)
        return
    if "discs" not in document:
        for key, value in document.items():
            schedule_text.listed(key, value)
        return
    say(
        f"{document['instances']} instances more would be taken; with what waits {document['studies']} studies, "
        f"{size_text(document['bytes'])}, for {document['copies']} x {document['medium']} ({document['profile']})"
    )
    for number, disc in enumerate(document["discs"], 1):
        what = "would be burnt" if disc["burnt"] else "would wait for more"
        say(f"disc {number}: {disc['fill']:g} % full, {disc['instances']} instances; {what}")
        for study in disc["studies"][:_STUDIES_SHOWN]:
            say(
                f"    {patient_words(study['patient_id'], study['patient_name'])}  {plain(study['study_date'])}  "
                f"{study['instances']} instances  {study['study_instance_uid']}"
            )
        if len(disc["studies"]) > _STUDIES_SHOWN:
            say(f"    ... and {len(disc['studies']) - _STUDIES_SHOWN} studies more (--json has all)")
    if document["packed_studies"] < document["studies"]:
        say(f"... and {document['studies'] - document['packed_studies']} studies on further discs")
    if document["conformed"]:
        say(f"{document['conformed']} instances are changed on their way to a disc: sizes are those as received")
    for one in document["refused"][:_SHOWN]:
        say(f"refused: {one['sop_instance_uid']}: {plain(one['reason'])}")


def _switch(name: str, enabled: bool, json: bool, data: Any, config: Any) -> None:
    with api(load_settings(config, data)) as call:
        document = call("PATCH", f"/schedules/{quote(name, safe='')}", {"enabled": enabled})
    _told(document, json=json)


def _values(cron: str | None, every: str | None, timezone: str | None, blackout: list[str] | None) -> dict[str, Any]:
    from jobs.triggers import blackout_document, interval_seconds

    values: dict[str, Any] = {}
    if cron is not None:
        values["cron"] = cron
    if every is not None:
        values["every_seconds"] = interval_seconds(every)
    if timezone is not None:
        values["timezone"] = timezone
    if blackout:
        values["blackouts"] = [blackout_document(text) for text in blackout]
    return values


def _rules(
    modality: list[str] | None,
    calling_ae: list[str] | None,
    called_ae: list[str] | None,
    station: list[str] | None,
    date_range: str | None,
    min_age_hours: float | None,
    max_age_days: float | None,
    not_on_discs: int | None,
) -> dict[str, Any]:
    given = {
        "modality": modality or None,
        "calling_ae": calling_ae or None,
        "called_ae": called_ae or None,
        "station": station or None,
        "date_range": date_range,
        "min_age_hours": min_age_hours,
        "max_age_days": max_age_days,
        "not_on_discs": not_on_discs,
    }
    return {key: value for key, value in given.items() if value is not None}


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
