"""Label fields by position, for a label design on the robot's computer: the option ``merge`` of some dialects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from burners.hotfolder_dialect import RobotOrder, TextFile
from burners.hotfolder_text import clean

MERGE_FILE = "merge.txt"


def merge_names(options: Mapping[str, Any], faults: list[str]) -> tuple[str, ...]:
    """The option ``merge``: names of label fields in the order in which the design has them.

    A name that no label has is a fault: its place on every disc would be blank.
    """
    names = options.get("merge", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        faults.append(f"merge: {names!r} is not a list of names of label fields")
        return ()
    from media.labelfacts import LabelFacts, merge_fields

    known = merge_fields(LabelFacts((), "", "", ""))
    unknown = [name for name in names if name not in known]
    if unknown:
        faults.append(f"merge: there is no label field {unknown[0]!r}; there are {', '.join(known)}")
    return tuple(names)


def merge_values(order: RobotOrder, names: Sequence[str]) -> list[str]:
    """The fields of a design, without what could end a field; none where the label is no design."""
    if not order.label_is_design:
        return []
    return [clean(order.label_fields.get(name, ""), forbidden=',"') for name in names]


def merge_file(order: RobotOrder, names: Sequence[str]) -> Sequence[TextFile]:
    """One line of fields between commas, in UTF-8 with a byte order mark; no field has a comma of its own."""
    values = merge_values(order, names)
    return (TextFile(MERGE_FILE, ",".join(values) + "\n", "utf-8-sig"),) if values else ()
