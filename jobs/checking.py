"""Which of the requested instances can go on a disc, and why the others cannot."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jobs.compression import Compression, Decision
from jobs.conform_pool import Cancelled
from media.edits import NO_EDITS, Edit, Edits
from media.encoding import split
from media.items import Supplied
from media.problems import InstanceRefused
from media.profile_keys import key_set
from media.profile_rules import Lacking, judge
from media.profiles import Profile
from media.records import ROOT_RECORDS, WITHOUT_RECORD, Numbers, record_type, require_added, supply
from store.requested import InstanceRow

_TOLD_EVERY = 200
"""Files that are judged between two words of progress."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An instance that can go on a disc, once ``recipe`` was applied to it."""

    row: InstanceRow
    record_type: str
    recipe: str | None
    """As the compression policy wants it; what is edited without any is made by ``media.recipes.EDIT_RECIPE``."""
    supplied: tuple[Supplied, ...]
    instead: str | None = None
    """For a lossy recipe: the one to use where the pixel data does not suit it."""
    note: str = ""
    """Why the instance is not compressed as was wanted."""
    values: tuple[Edit, ...] = ()
    """Elements that are corrected, or supplied empty."""
    renamed: bool = False
    """It gets another SOP Instance UID because there are two with this one."""
    edits: Edits = NO_EDITS
    """All that is edited in it (``jobs.editing``)."""

    @property
    def changes(self) -> bool:
        """Whether another file than the one received goes on the disc."""
        return self.recipe is not None or bool(self.values) or self.renamed or bool(self.edits)

    @property
    def new_uid(self) -> str:
        """The SOP Instance UID on the disc."""
        return self.edits.new_sop_instance_uid or self.row.sop_instance_uid


@dataclass(frozen=True, slots=True)
class Refusal:
    """An instance that cannot, with the failure's defined term (PS3.3 C.22.2) and the reason in words."""

    row: InstanceRow
    code: str
    reason: str

    def as_json(self) -> dict[str, str]:
        return {"sop_instance_uid": self.row.sop_instance_uid, "reason": f"{self.code}: {self.reason}"}


@dataclass(slots=True)
class Checked:
    """The outcome for every requested instance."""

    candidates: list[Candidate] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    conflicts: list[dict[str, Any]] = field(default_factory=list)
    """``{"sop_instance_uid", "used", "left_out"}``: instances received with one UID and different content."""
    renamed: set[int] = field(default_factory=set)
    """Of those, the ones that go on a disc beside the first, under a UID of their own."""


def check(
    rows: Iterable[InstanceRow],
    *,
    profile: Profile,
    conflicts: Mapping[str, list[int]],
    policy: str,
    compression: Compression,
    has_source: Callable[[InstanceRow], bool],
    is_lossy_already: Callable[[InstanceRow], bool],
    values: Mapping[int, tuple[Edit, ...]] | None = None,
    modalities: Mapping[int, str] | None = None,
) -> Checked:
    """Check each instance against the profile and the directory's needs.

    ``conflicts`` are the instances that share a UID and differ, ``policy`` is ``first``, ``latest``, ``refuse`` or
    ``keep-both``; ``has_source`` says whether an instance's bytes are still in the spool. Of instances that may be
    compressed lossily ``is_lossy_already`` looks into the file; all else that is asked stands in a row. ``values`` are
    corrections by Instance id, which the rows have already; ``modalities`` those as received of corrected ones.
    """
    checked = Checked()
    kept = list(without_conflicts(rows, conflicts, policy, checked))
    numbers = _numbers(kept)

    def decide(row: InstanceRow) -> Decision:
        return compression.decide(
            row,
            profile,
            is_lossy_already=lambda: has_source(row) and is_lossy_already(row),
            received_as=(modalities or {}).get(row.id, ""),
        )

    for row in kept:
        try:
            candidate = _candidate(row, profile, numbers[row.id], decide)
        except InstanceRefused as error:
            checked.refused.append(Refusal(row, error.code, error.reason))
            continue
        if not has_source(row):
            reason = row.why_not or "it is no longer in the spool; `burnish recall` brings it back"
            checked.refused.append(Refusal(row, "NO_INSTANCE", reason))
            continue
        corrected = (values or {}).get(row.id, ())
        checked.candidates.append(replace(candidate, renamed=row.id in checked.renamed, values=corrected))
    return checked


def refuse_unfit(
    checked: Checked,
    *,
    profile: Profile,
    path_of: Callable[[Candidate], Path],
    progress: Callable[[int, int], None],
    cancelled: Callable[[], bool],
) -> None:
    """Move to the refused what is not as the profile's rules demand; what lacks attributes of type 2 gets them, empty.

    Of what goes on the disc byte for byte all rules are asked; of what is yet to be conformed those on attributes that
    conforming never changes, so that nothing large is conformed in vain. ``path_of`` says where an instance's file is.
    Opens each (some 0.2 ms), but only where the profile has rules. Raises ``Cancelled``.
    """
    if not profile.rules:
        return
    kept: list[Candidate] = []
    for done, candidate in enumerate(checked.candidates):
        if done % _TOLD_EVERY == 0:
            progress(done, len(checked.candidates))
            if cancelled():
                raise Cancelled
        refusal, lacking = judge(profile, path_of(candidate), to_be_conformed=candidate.changes)
        if refusal is not None:
            checked.refused.append(Refusal(candidate.row, *refusal))
            continue
        given = {edit.tag for edit in candidate.values}
        empty = [Edit(one.tag, one.vr, "", _supplied_empty(one)) for one in lacking if one.tag not in given]
        kept.append(replace(candidate, values=(*candidate.values, *empty)) if empty else candidate)
    checked.candidates = kept


def _supplied_empty(lacking: Lacking) -> str:
    return f"{lacking.clause} wants it to be there, even without a value"


def without_conflicts(
    rows: Iterable[InstanceRow], conflicts: Mapping[str, list[int]], policy: str, checked: Checked
) -> Iterable[InstanceRow]:
    """One instance for each SOP Instance UID: a file-set never holds one UID twice. ``checked`` takes what is told."""
    rows = list(rows)
    requested = {row.id for row in rows}
    for row in rows:
        ids = conflicts.get(row.sop_instance_uid)
        if ids is None:
            yield row
            continue
        if policy == "refuse":
            reason = f"{len(ids)} instances with this SOP Instance UID and different content were received"
            checked.refused.append(Refusal(row, "DUPL_REF_INST", reason))
            continue
        if policy == "keep-both":
            first, *later = ids
            if row.id in later:
                checked.renamed.add(row.id)
            there = [one for one in ids if one in requested]
            if row.id == there[0]:
                told = {"sop_instance_uid": row.sop_instance_uid, "used": row.id, "left_out": []}
                checked.conflicts.append(told | {"renamed": [one for one in there if one != first]})
            yield row
            continue
        used = ids[0] if policy == "first" else ids[-1]
        if used not in requested:
            reason = (
                f"another instance with this SOP Instance UID and different content was received {policy}, "
                "and it is not part of this request"
            )
            checked.refused.append(Refusal(row, "DUPL_REF_INST", reason))
        elif row.id == used:
            others = [other for other in ids if other != used]
            checked.conflicts.append({"sop_instance_uid": row.sop_instance_uid, "used": used, "left_out": others})
            yield row


def _candidate(
    row: InstanceRow, profile: Profile, numbers: Numbers, decide: Callable[[InstanceRow], Decision]
) -> Candidate:
    kind = record_type(row.sop_class_uid)
    if kind is None:
        name = WITHOUT_RECORD.get(row.sop_class_uid, "private or unknown")
        raise InstanceRefused(
            "NOT_SUPPORTED", f"no directory record can reference its SOP Class {row.sop_class_uid} ({name})"
        )
    if kind not in ROOT_RECORDS and not row.study_instance_uid:
        raise InstanceRefused("DIR_PROC_ERR", "it has no Study Instance UID (0020,000D)")
    violation = profile.class_violation(row.sop_class_uid)
    if violation is not None:
        raise InstanceRefused("INST_AP_CONFLICT", violation)
    decision = decide(row)
    elements = split(row.directory_keys)
    supplied = supply(elements, kind, numbers)
    require_added(elements, kind, key_set(profile.directory_keys), row.sop_class_uid)
    return Candidate(row, kind, decision.recipe, supplied, decision.instead, decision.note)


def _numbers(rows: list[InstanceRow]) -> dict[int, Numbers]:
    """Values for instances that lack a key which a directory record must have (PS3.11 D.3.3.1 note).

    They are numbers that no instance beside them has: Study IDs by the order of a patient's studies, Series Numbers and
    Instance Numbers after the highest there is.
    """
    studies: dict[int | None, set[tuple[str, str, str]]] = defaultdict(set)
    series: dict[tuple[int | None, str], dict[str, int | None]] = defaultdict(dict)
    for row in rows:
        studies[row.patient].add((row.study_date, row.study_time, row.study_instance_uid))
        series[(row.patient, row.study_instance_uid)].setdefault(row.series_instance_uid, row.series_number)
    study_ids: dict[tuple[int | None, str], int] = {}
    for patient, keys in studies.items():
        for number, (_, _, uid) in enumerate(sorted(keys), 1):
            study_ids.setdefault((patient, uid), number)
    series_numbers: dict[tuple[int | None, str, str], int] = {}
    for (patient, study), numbered in series.items():
        highest = max((n for n in numbered.values() if n is not None), default=0)
        lacking = sorted(uid for uid, number in numbered.items() if number is None)
        for number, uid in enumerate(lacking, max(highest, 0) + 1):
            series_numbers[(patient, study, uid)] = number
    highest_instance: dict[str, int] = defaultdict(int)
    for row in rows:
        if row.instance_number is not None:
            highest_instance[row.series_instance_uid] = max(
                highest_instance[row.series_instance_uid], row.instance_number
            )
    found = {}
    for row in rows:
        instance_number = 0
        if row.instance_number is None:
            highest_instance[row.series_instance_uid] += 1
            instance_number = highest_instance[row.series_instance_uid]
        found[row.id] = Numbers(
            patient_id=f"NOID_{row.patient or 0}",
            study_id=str(study_ids[(row.patient, row.study_instance_uid)]),
            series_number=str(series_numbers.get((row.patient, row.study_instance_uid, row.series_instance_uid), 0)),
            instance_number=str(instance_number),
        )
    return found
