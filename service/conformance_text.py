"""What the parts of the conformance statement share: tables in Markdown, and the names of UIDs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from media.syntaxes import transfer_syntaxes

Values = Mapping[str, Mapping[str, Any]]
"""Settings by section and key."""


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(str(cell).replace('|', '/') for cell in row)} |" for row in rows]
    return "\n".join(lines)


def uid_name(uid: str) -> str:
    """A UID's name in PS3.6; the UID itself where it has none."""
    from pydicom._uid_dict import UID_dictionary

    known = transfer_syntaxes().get(uid)
    if known is not None:
        return known.name
    return str(UID_dictionary[uid][0]) if uid in UID_dictionary else _keywords().get(uid, uid)


@cache
def _keywords() -> Mapping[str, str]:
    """Of storage SOP classes that are newer than pydicom's dictionary."""
    from pynetdicom import sop_class

    classes = {**sop_class._STORAGE_CLASSES, **sop_class._NON_PATIENT_OBJECT_CLASSES}
    return {str(uid): re.sub(r"(?<=[a-z])(?=[A-Z])", " ", keyword) for keyword, uid in classes.items()}
