"""What was asked for: requests, and the instances that each has frozen, as they are when discs are planned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Select, insert, select
from sqlalchemy.orm import Session, aliased

from media.items import Change
from store.bulk import chunks
from store.db import next_numbers
from store.models import Derived, Instance, Patient, Series, Study
from store.models_base import now
from store.models_jobs import Request, RequestInstance
from store.whole import is_of_another, with_conformed

_CHUNK = 2000
"""Rows of one statement; SQLite allows 32,766 bound values."""


@dataclass(frozen=True, slots=True)
class InstanceRow:
    """An Instance with what stands above it, as planning needs it; satisfies ``media.contents.Facts``."""

    id: int
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    digest: str
    file_sha256: str
    file_bytes: int
    spool_path: str | None
    instance_number: int | None
    photometric_interpretation: str
    has_pixel_data: bool
    directory_keys: bytes
    series_instance_uid: str
    series_number: int | None
    modality: str
    study_instance_uid: str
    study_date: str
    study_time: str
    study_description: str
    patient: int | None
    """Primary key of the Patient; None for objects that belong to none."""
    patient_id: str
    patient_name: str
    patient_birth_date: str
    restored: RestoredFile | None = None
    """Its file, where it is not in the spool, but came back from a disc as it had been conformed for that: then size,
    transfer syntax, directory keys and all that was corrected are those of this file."""
    why_not: str = ""
    """Why what came back of it cannot be put on a disc."""


@dataclass(frozen=True, slots=True)
class RestoredFile:
    """A conformed file that came back from a disc."""

    derived_id: int
    path: str
    """Relative to the derived folder."""
    recipe: str
    modality: str = ""
    """As received, where that was corrected."""
    changes: tuple[Change, ...] = ()
    """What was changed in it ..."""
    facts: Mapping[str, Any] | None = None
    """... and the attributes that are others since, as ``Derived.facts`` has them."""
    directory_keys: bytes | None = None
    """As they are since; None: as received."""


def key_is_ours(session: Session) -> None:
    """Until the end of this transaction nobody else looks for an idempotency key, or uses one: of several who bring one
    key at once, each later one finds what the first has made."""
    next_numbers(session, "idempotency_key")


def add_request(
    session: Session,
    ids: Sequence[int],
    *,
    selection: dict[str, Any],
    options: dict[str, Any],
    source: str,
    idempotency_key: str | None,
    pool: str | None = None,
) -> int:
    """Freeze a list of instances; returns the Request's id. The same idempotency key gives the same Request."""
    if idempotency_key is not None:
        key_is_ours(session)
        known = session.scalar(select(Request.id).where(Request.idempotency_key == idempotency_key))
        if known is not None:
            return known
    request = Request(
        created_at=now(),
        source=source,
        idempotency_key=idempotency_key,
        selection=selection,
        options=options,
        pool=pool,
    )
    session.add(request)
    session.flush()
    freeze(session, request.id, ids)
    return request.id


def freeze(session: Session, request_id: int, ids: Sequence[int]) -> None:
    """Fix which instances a request is about; once a request."""
    for chunk in chunks(ids, _CHUNK):
        session.execute(insert(RequestInstance), [{"request_id": request_id, "instance_id": i} for i in chunk])


def instances_of(session: Session, request_id: int) -> list[InstanceRow]:
    """The frozen list with everything that planning needs, in order of receipt."""
    return rows_of(session, _requested(request_id))


def _requested(request_id: int) -> Select[int]:
    return select(RequestInstance.instance_id).where(RequestInstance.request_id == request_id)


def rows_of(session: Session, wanted: Select[int]) -> list[InstanceRow]:
    """The same for the instances whose ids ``wanted`` selects."""
    rows = session.execute(
        select(
            Instance.id,
            Instance.sop_class_uid,
            Instance.sop_instance_uid,
            Instance.transfer_syntax_uid,
            Instance.digest,
            Instance.file_sha256,
            Instance.file_bytes,
            Instance.spool_path,
            Instance.instance_number,
            Instance.photometric_interpretation,
            Instance.has_pixel_data,
            Instance.directory_keys,
            Series.series_instance_uid,
            Series.series_number,
            Series.modality,
            Study.study_instance_uid,
            Study.study_date,
            Study.study_time,
            Study.study_description,
            Patient.id,
            Patient.patient_id,
            Patient.patient_name,
            Patient.patient_birth_date,
        )
        .outerjoin(Series, Series.id == Instance.series_id)
        .outerjoin(Study, Study.id == Series.study_id)
        .outerjoin(Patient, Patient.id == Study.patient_id)
        .where(Instance.id.in_(wanted))
        .order_by(Instance.id)
        .execution_options(yield_per=_CHUNK)
    )
    # Columns from outer joins are None for objects without a patient; numbers and the Patient's key may be None anyway.
    may_be_none = {"spool_path", "instance_number", "series_number", "patient"}
    names = InstanceRow.__slots__[:-2]
    text = [index for index, name in enumerate(names) if name not in may_be_none]
    found: list[InstanceRow] = []
    for row in rows:
        values = list(row)
        for index in text:
            if values[index] is None:
                values[index] = ""
        found.append(InstanceRow(*values))
    return _with_restored(session, found)


def _with_restored(session: Session, rows: list[InstanceRow]) -> list[InstanceRow]:
    """What is not in the spool may be back from a disc, as it was corrected for that. Not taken is what names another
    patient there: who asks for this one's instances is not given somebody else's."""
    purged = [row.id for row in rows if row.spool_path is None]
    back: dict[int, Derived] = {}
    another: set[int] = set()
    for chunk in chunks(purged, _CHUNK):
        found = (
            with_conformed(select(Instance.id, Derived, is_of_another()))
            .where(Instance.id.in_(chunk), Derived.restored_at.is_not(None), Derived.new_sop_instance_uid.is_(None))
            # Of several the one in which nothing was corrected, then the latest.
            .order_by(Derived.facts.is_(None), Derived.restored_at)
        )
        for row_id, file, is_anothers in session.execute(found):
            if is_anothers:
                another.add(row_id)
            else:
                back[row_id] = file
    return [
        _as_restored(row, back[row.id])
        if row.id in back
        else replace(row, why_not=_ANOTHERS)
        if row.id in another
        else row
        for row in rows
    ]


_ANOTHERS = (
    "it came back from its disc as rules had changed it for that, under another patient's name or number; it goes on "
    "no new disc, but another copy of that disc can be made"
)


def _as_restored(row: InstanceRow, file: Derived) -> InstanceRow:
    facts = {name: value for name, value in (file.facts or {}).items() if name in InstanceRow.__slots__}
    changes = (Change(row.sop_instance_uid, str(one["tag"]), str(one["old"]), str(one["new"])) for one in file.changes)
    return replace(
        row,
        **facts,
        restored=RestoredFile(
            file.id,
            file.path,
            file.recipe,
            row.modality if facts.get("modality", row.modality) != row.modality else "",
            tuple(changes),
            file.facts,
            file.directory_keys,
        ),
        directory_keys=file.directory_keys if file.directory_keys is not None else row.directory_keys,
        file_bytes=file.size,
        file_sha256=file.sha256,
        transfer_syntax_uid=file.transfer_syntax_uid,
    )


def conflicts_of_request(session: Session, request_id: int) -> dict[str, list[int]]:
    """Instances, requested or not, that share a SOP Instance UID with a requested one and differ: UID -> ids."""
    return conflicts_of(session, _requested(request_id))


def conflicts_of(session: Session, wanted: Select[int]) -> dict[str, list[int]]:
    """The same for the instances whose ids ``wanted`` selects."""
    later, first = aliased(Instance), aliased(Instance)
    pairs = session.execute(
        select(later.sop_instance_uid, later.id, first.id)
        .join(first, later.conflict_of == first.id)
        .where(later.id.in_(wanted) | first.id.in_(wanted) | first.id.in_(_firsts_of(wanted)))
    )
    found: dict[str, set[int]] = {}
    for uid, one, other in pairs:
        found.setdefault(uid, set()).update((one, other))
    return {uid: sorted(ids) for uid, ids in found.items()}


def _firsts_of(wanted: Any) -> Any:
    return select(Instance.conflict_of).where(Instance.id.in_(wanted), Instance.conflict_of.is_not(None))
