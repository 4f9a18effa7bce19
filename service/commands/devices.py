"""Commands about the machines that make discs: ``burners``."""

from __future__ import annotations

from typing import Any

from service.commands.common import ConfigOption, DataOption, JsonOption, load_settings, print_json, say, table


def burners(json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """The burners of the settings: how each stands, its supplies, its drives and the medium in each."""
    from service.lock import running_service

    settings = load_settings(config, data)
    running = running_service(settings.data)
    if running is not None:
        from service.client import ServiceOperations

        operations = ServiceOperations(running)
        try:
            documents = operations.burners()
        finally:
            operations.close()
    else:
        # Without a database: a device can be tried out before anything else is set up.
        from service.operations import burner_documents

        documents = burner_documents(settings)
    if json:
        print_json(documents)
    else:
        _show(documents)
    from burners.drive_find import system_drives

    used = {str(drive.get("name", "")) for one in documents for drive in one["drives"]}
    for drive in system_drives():
        if drive.name not in used:
            say(f"no burner of the settings uses {drive.name} ({drive.model}); see docs/burners/drive.md")


def _show(documents: list[dict[str, Any]]) -> None:
    if not documents:
        say("the settings have no section [burners.NAME]")
        return
    table(
        "Burners",
        ("Name", "Driver", "State", "Reason", "Supplies"),
        [(one["name"], one["driver"], one["state"], one["reason"], _words(one["supplies"])) for one in documents],
    )
    drives = [(one["name"], drive) for one in documents for drive in one["drives"]]
    if drives:
        table(
            "Drives",
            ("Burner", "Drive", "State", "Medium", "More"),
            [
                (name, drive.get("name", ""), drive.get("state", ""), drive.get("medium", ""), _more(drive))
                for name, drive in drives
            ],
        )


def _more(drive: dict[str, Any]) -> str:
    return _words({key: value for key, value in drive.items() if key not in ("name", "state", "medium", "blank")})


def _words(values: dict[str, Any]) -> str:
    """``free_bytes 12, slots 1``; what is empty is left out."""
    return ", ".join(f"{key} {_word(value)}" for key, value in values.items() if value not in ("", None, [], {}))


def _word(value: Any) -> str:
    """``ink cyan 80 magenta 3`` for a table in a table."""
    if isinstance(value, list):
        return " ".join(map(_word, value))
    if isinstance(value, dict):
        return " ".join(f"{key} {_word(held)}" for key, held in value.items())
    return str(value)
