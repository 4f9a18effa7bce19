"""How commands show schedules to people."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from service.commands.common import plain, say

_SHOWN = 20


def when(document: dict[str, Any]) -> str:
    """When a schedule fires."""
    trigger = document["trigger"]
    if "cron" in trigger:
        return f"{trigger['cron']} ({document['timezone']})"
    seconds = trigger["every_seconds"]
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds % length == 0:
            return f"every {seconds // length}{unit}"
    return f"every {seconds}s"


def window(window: dict[str, Any]) -> str:
    """A blackout window."""
    days = ",".join(window.get("days") or ())
    return f"{days} {window['from']}-{window['to']}".strip()


def local(text: str | None) -> str:
    """A moment in the time zone of who reads it."""
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M") if text else ""


def result(run: dict[str, Any]) -> str:
    """What came of a run, if it has ended."""
    return outcome(run["result"]) if run["finished"] else "runs"


def outcome(result: dict[str, Any] | None) -> str:
    """What came of a firing."""
    return pairs(result or {}) or "nothing to do"


def pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {text(value) if value != [] else 'none'}" for key, value in values.items())


def listed(key: str, value: Any) -> None:
    """A value of a document for people; of a list of documents some, a line each."""
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        say(f"{key}: {text(value)}")
        return
    say(f"{key}: {len(value)}")
    for one in value[:_SHOWN]:
        say("    " + "  ".join(text(part) for part in one.values()))
    if len(value) > _SHOWN:
        say(f"    ... and {len(value) - _SHOWN} more (--json has all)")


def text(value: Any) -> str:
    if not isinstance(value, list):
        return plain(value)
    more = f" and {len(value) - _SHOWN} more" if len(value) > _SHOWN else ""
    return plain(", ".join(_short(one) for one in value[:_SHOWN]) + more)


def _short(value: Any) -> str:
    """Of a document that tells of a disc only which, what was found and what came of it (--json has all)."""
    if not isinstance(value, dict):
        return str(value)
    parts = (value.get("checked_result"), (value.get("refresh") or {}).get("words"))
    told = ": ".join(str(part) for part in parts if part)
    return f"{value.get('disc', '')}" + (f" ({told})" if told else "")
