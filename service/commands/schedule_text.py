"""How commands show schedules to people."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from service.commands.common import patient_words, plain, size_text, tell

_STUDIES_SHOWN = 8
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
        tell(f"{key}: {text(value)}")
        return
    tell(f"{key}: {len(value)}")
    for one in value[:_SHOWN]:
        tell("    " + "  ".join(text(part) for part in one.values()))
    if len(value) > _SHOWN:
        tell(f"    ... and {len(value) - _SHOWN} more (--json has all)")


def preview(document: dict[str, Any]) -> None:
    """What a schedule would do, as the API tells it."""
    if "discs" not in document:
        for key, value in document.items():
            if key != "upcoming":
                listed(key, value)
        return
    tell(
        f"{document['instances']} instances more would be taken; with what waits {document['studies']} studies, "
        f"{size_text(document['bytes'])}, for {document['copies']} x {document['medium']} ({document['profile']})"
    )
    for number, disc in enumerate(document["discs"], 1):
        what = "would be burnt" if disc["burnt"] else "would wait for more"
        tell(f"disc {number}: {disc['fill']:g} % full, {disc['instances']} instances; {what}")
        for study in disc["studies"][:_STUDIES_SHOWN]:
            tell(
                f"    {patient_words(study['patient_id'], study['patient_name'])}  {plain(study['study_date'])}  "
                f"{study['instances']} instances  {study['study_instance_uid']}"
            )
        if len(disc["studies"]) > _STUDIES_SHOWN:
            tell(f"    ... and {len(disc['studies']) - _STUDIES_SHOWN} studies more (--json has all)")
    left = document["left_waiting"]
    if left["studies"]:
        tell(
            f"{left['studies']} studies are left waiting, {left['instances']} instances: something came in the last "
            f"{left['quiet_minutes']} minutes"
        )
    if (further := document["studies"] - document["packed_studies"] - left["studies"]) > 0:
        tell(f"... and {further} studies on further discs")
    if document["conformed"]:
        tell(f"{document['conformed']} instances are changed on their way to a disc: sizes are those as received")
    for one in document["refused"][:_SHOWN]:
        tell(f"refused: {one['sop_instance_uid']}: {plain(one['reason'])}")


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
