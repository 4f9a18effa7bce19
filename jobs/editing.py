"""Which instances of a request get a new SOP Instance UID, and which refer to them and must follow.

An instance that is compressed lossily is another instance (PS3.3 C.7.6.1.1.5, PS3.4), and so is the second of two that
came under one UID. Whatever of the same request refers to the first kind is edited to refer to the new one, and keeps
its own UID. References from and to what is not part of the request stay as they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from jobs.checking import Candidate
from jobs.conform_pool import Cancelled
from media.editing import uids_in
from media.edits import Edits, derived_uid
from media.problems import NotDicom
from media.recipes import EDIT_RECIPE, is_lossy, may_shift

_TOLD_EVERY = 50
References = Mapping[int, frozenset[str]]
"""SOP Instance UIDs of the request that an instance refers to, by Instance id."""


def is_another(candidate: Candidate) -> bool:
    """Whether others that refer to this instance must follow it."""
    return candidate.recipe is not None and is_lossy(candidate.recipe) and not candidate.renamed


def references(
    candidates: list[Candidate],
    *,
    path_of: Callable[[Candidate], Path],
    progress: Callable[[int, int], None],
    cancelled: Callable[[], bool],
) -> References:
    """Which of them refer to which that will be another; reads every file's data set, but not its pixel data.

    One that cannot be followed refers to nothing. Raises ``Cancelled``.
    """
    others = {candidate.row.sop_instance_uid for candidate in candidates if is_another(candidate)}
    found: dict[int, frozenset[str]] = {}
    if not others:
        return found
    for done, candidate in enumerate(candidates):
        if done % _TOLD_EVERY == 0:
            progress(done, len(candidates))
            if cancelled():
                raise Cancelled
        try:
            named = others.intersection(uids_in(path_of(candidate)))
        except NotDicom:
            continue
        if named := named - {candidate.row.sop_instance_uid}:
            found[candidate.row.id] = frozenset(named)
    progress(len(candidates), len(candidates))
    return found


_SHOWN_BY = frozenset(("PRESENTATION", "VALUE MAP"))
"""Directory record types of what says how stored values of other instances are to be understood."""


def spare_shown(candidates: list[Candidate], refer: References) -> list[Candidate]:
    """The same candidates, without lossy JPEG for what a presentation state or value map of the request refers to.

    Such a codec may shift stored values (``media.lossy``). The image's own rescaling makes up for that, but a
    presentation state with a modality LUT of its own would show wrong values.
    """
    shown = frozenset[str]().union(
        *(refer.get(candidate.row.id, frozenset()) for candidate in candidates if candidate.record_type in _SHOWN_BY)
    )
    return [
        replace(candidate, recipe=candidate.instead, instead=None, note=_SHOWN)
        if candidate.row.sop_instance_uid in shown and candidate.recipe and may_shift(candidate.recipe)
        else candidate
        for candidate in candidates
    ]


_SHOWN = "not lossy: a presentation state or value map of the request depends on its stored values"


def with_edits(candidates: list[Candidate], refer: References) -> list[Candidate]:
    """The same candidates, each with all that is edited in it; the same ones get the same edits each time."""
    others = {candidate.row.sop_instance_uid: candidate for candidate in candidates if is_another(candidate)}
    new = {uid: _new_uid(candidate, others, refer) for uid, candidate in others.items()}
    made = []
    for candidate in candidates:
        named = refer.get(candidate.row.id, frozenset()) & new.keys()
        own = new.get(candidate.row.sop_instance_uid, "") if is_another(candidate) else ""
        if candidate.renamed:
            own = _new_uid(candidate, others, refer)
        made.append(replace(candidate, edits=Edits(candidate.values, own, {uid: new[uid] for uid in sorted(named)})))
    return made


def recipe_of(candidate: Candidate) -> str | None:
    """What is done to an instance whose edits are known; None: nothing."""
    return candidate.recipe or (EDIT_RECIPE if candidate.edits else None)


def _new_uid(candidate: Candidate, others: Mapping[str, Candidate], refer: References) -> str:
    """A UID by what the instance is and what it refers to, however remotely: one UID is never given to two contents.

    Corrected attributes do not count: an instance is the same whatever its patient is called.
    """
    row = candidate.row
    seen: set[str] = set()
    todo = [*(refer.get(row.id, frozenset()) & others.keys())]
    while todo:
        uid = todo.pop()
        if uid not in seen:
            seen.add(uid)
            todo += refer.get(others[uid].row.id, frozenset()) & others.keys()
    mine = f"{candidate.recipe or EDIT_RECIPE}"
    if seen:
        around = "\0".join(sorted(f"{others[uid].row.digest} {uid} {others[uid].recipe}" for uid in seen))
        mine = f"{mine} {hashlib.sha256(around.encode()).hexdigest()}"
    return derived_uid(row.digest, row.sop_instance_uid, mine)
