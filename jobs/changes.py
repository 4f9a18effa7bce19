"""What a plan changes, in groups: five hundred instances that are changed alike are one line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from media.codecs import transfer_syntax
from media.elements import dictionary_vr
from media.recipes import EDIT_RECIPE, is_lossy, recipe_syntax

_FOLLOWS = "the reference follows the new SOP Instance UID"


def change_groups(changes: Iterable[Mapping[str, str]]) -> list[dict[str, Any]]:
    """``[{"tag", "name", "old", "new", "instances", "changes"}]``, the most frequent first.

    ``old`` or ``new`` is empty where it is another in each of many instances; ``changes`` counts places,
    ``instances`` what has any of them.
    """
    by_tag: dict[tuple[str, str], dict[str, Any]] = {}
    for change in changes:
        new = change["new"]
        kind = new.rpartition(": ")[2] if new.endswith(_FOLLOWS) else ""
        group = by_tag.setdefault(
            (change["tag"], kind), {"uids": set(), "old": Counter(), "new": Counter(), "changes": 0}
        )
        group["uids"].add(change["sop_instance_uid"])
        group["old"][change["old"]] += 1
        group["new"][kind or new] += 1
        group["changes"] += 1
    found = [
        {
            "tag": tag,
            "name": _name(tag),
            "old": _only(group["old"]),
            "new": _only(group["new"]),
            "instances": len(group["uids"]),
            "changes": group["changes"],
        }
        for (tag, _), group in by_tag.items()
    ]
    return sorted(found, key=lambda group: (-group["instances"], group["tag"]))


def compression_groups(instances: Iterable[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """``[{"what", "note", "instances"}]`` of recipe, transfer syntax as received and note of each instance.

    What is not touched and has no note is not told.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for recipe, received, note in instances:
        if recipe in ("", EDIT_RECIPE):
            what = f"as received, {transfer_syntax(received)}"
        else:
            what = f"{'lossy, ' if is_lossy(recipe) else ''}{transfer_syntax(recipe_syntax(recipe))}"
        if note or recipe not in ("", EDIT_RECIPE):
            counts[what, note] += 1
    return [
        {"what": what, "note": note, "instances": count}
        for (what, note), count in sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    ]


def _only(values: Counter[str]) -> str:
    return next(iter(values)) if len(values) == 1 else ""


def _name(tag: str) -> str:
    number = int(tag[1:5] + tag[6:10], 16)
    if number >> 16 & 1 or not dictionary_vr(number):
        return ""
    from pydicom.datadict import dictionary_description

    try:
        return str(dictionary_description(number))
    except KeyError:
        return ""
