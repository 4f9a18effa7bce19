"""What a plan changes, in groups: five hundred instances that are changed alike are one line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from media.elements import dictionary_vr
from media.recipes import is_lossy
from media.syntaxes import transfer_syntax

_ALIKE = 3
"""Ways of one attribute to change up to which each is a group of its own."""
_FOLLOWS = "the reference follows the new SOP Instance UID"


def change_groups(changes: Iterable[Mapping[str, str]]) -> list[dict[str, Any]]:
    """``[{"tag", "name", "old", "new", "instances", "changes"}]``, corrections and then the most frequent first.

    ``old`` or ``new`` is empty where it is another in each of many instances; ``changes`` counts places,
    ``instances`` what has any of them.
    """
    by_tag: dict[str, dict[tuple[str, str], list[str]]] = {}
    for change in changes:
        new = _FOLLOWS if change["new"].endswith(_FOLLOWS) else change["new"]
        old = "" if new == _FOLLOWS else change["old"]
        by_tag.setdefault(change["tag"], {}).setdefault((old, new), []).append(change["sop_instance_uid"])
    found = []
    for tag, ways in by_tag.items():
        groups = ways
        if len(ways) > _ALIKE:
            one_old, one_new = ({pair[side] for pair in ways} for side in (0, 1))
            told = (one_old.pop() if len(one_old) == 1 else "", one_new.pop() if len(one_new) == 1 else "")
            groups = {told: [uid for uids in ways.values() for uid in uids]}
        found += [
            {
                "tag": tag,
                "name": _name(tag),
                "old": old,
                "new": new,
                "instances": len(set(uids)),
                "changes": len(uids),
            }
            for (old, new), uids in groups.items()
        ]
    return sorted(found, key=lambda group: (not _corrects(group), -group["instances"], group["tag"], group["new"]))


def _corrects(group: Mapping[str, Any]) -> bool:
    """Whether somebody asked for just this: such changes are told before those that follow from a recipe."""
    why = str(group["new"]).rpartition(": ")[2]
    return why.startswith("rule ") or why == "as in the catalogue"


def compression_groups(instances: Iterable[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """``[{"what", "note", "instances"}]`` of recipe, transfer syntax on the disc and note of each instance.

    What is not touched and has no note is not told.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for recipe, written, note in instances:
        if recipe:
            counts[f"{'lossy, ' if is_lossy(recipe) else ''}{transfer_syntax(written)}", note] += 1
        elif note:
            counts[f"as received, {transfer_syntax(written)}", note] += 1
    return [
        {"what": what, "note": note, "instances": count}
        for (what, note), count in sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    ]


def _name(tag: str) -> str:
    number = int(tag[1:5] + tag[6:10], 16)
    if number >> 16 & 1 or not dictionary_vr(number):
        return ""
    from pydicom.datadict import dictionary_description

    try:
        return str(dictionary_description(number))
    except KeyError:
        return ""
