"""Rows of the catalogue that come from discs, not from the network: entered where they are not there yet, never twice.

Instances so entered are not in the spool. What identifies a row is what identifies it anywhere: an instance by SOP
Instance UID and digest, a conformed file by source and recipe, a volume by its File-set UID.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Table, insert, select, update
from sqlalchemy.orm import Session

from media.items import Header
from store.bulk import insert_rows, rows_with
from store.db import next_numbers
from store.models import Derived, Instance
from store.models_archive import Pool, PoolInstance
from store.models_base import now
from store.models_jobs import Job, Plan, Request, RequestInstance, Volume
from store.models_nodes import Counter, Event
from store.registration import (
    Provenance,
    enter_study,
    header_columns,
    patient_identity,
    provenance_columns,
    series_of,
)
from store.search import folded
from store.states import JobState

_INSTANCES: Table = Instance.__table__  # type: ignore[assignment]
_REQUESTED: Table = RequestInstance.__table__  # type: ignore[assignment]

SOURCE = "rebuild"
"""``Request.source`` of what was never asked for here; lists of jobs may leave it out."""
ABSENT = ".absent"
"""How the paths of conformed files end of which there never was a file here."""
BURNER = "rebuilt"
"""As the burner of jobs and discs whose burner nobody knows."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """An instance as it was received once."""

    header: Header
    digest: str
    file_sha256: str
    file_bytes: int
    received_at: datetime
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class Made:
    """A file that was made of an instance for a disc."""

    recipe: str
    size: int
    sha256: str
    transfer_syntax_uid: str
    changes: Sequence[Mapping[str, str]]
    new_sop_instance_uid: str | None
    directory_keys: bytes | None
    facts: Mapping[str, Any] | None
    created_at: datetime


def enter_instances(
    session: Session, arrived: Sequence[Arrived], studies: Mapping[tuple[str, str], Header]
) -> tuple[list[int], int]:
    """The Instance of each, in their order, and how many of them are new. Some hundred at a time.

    ``studies``: what a set's catalogue says of studies, by patient's identity and Study Instance UID; rows of patients
    and studies are made of that rather than of the first instance that comes. A row that is there stays as it is.
    """
    known = _known(session, arrived)
    fresh: dict[tuple[str, str], Arrived] = {}
    for one in arrived:
        key = (one.header.sop_instance_uid, one.digest)
        if key not in known:
            fresh.setdefault(key, one)
    if fresh:
        connection = session.connection()
        new = list(fresh.values())
        for key in sorted({(patient_identity(one.header), one.header.study_instance_uid) for one in new}):
            if key in studies:
                enter_study(connection, studies[key])
        series = series_of(connection, [one.header for one in new])
        values = [
            {
                **header_columns(one.header),
                **provenance_columns(one.provenance),
                "series_id": series_id,
                "digest": one.digest,
                "dataset_bytes": one.header.dataset_bytes,
                "file_sha256": one.file_sha256,
                "file_bytes": one.file_bytes,
                "spool_path": None,
                "conflict_of": None,
                "received_at": one.received_at,
            }
            for one, series_id in zip(new, series, strict=True)
        ]
        insert_rows(connection, _INSTANCES, values)
        known = _known(session, arrived)
        if len(known) > len({uid for uid, _ in known}):
            settle_conflicts(session, {uid for uid, _ in fresh})
    return [known[one.header.sop_instance_uid, one.digest] for one in arrived], len(fresh)


def _known(session: Session, arrived: Sequence[Arrived]) -> dict[tuple[str, str], int]:
    column = _INSTANCES.c
    uids = {one.header.sop_instance_uid for one in arrived}
    rows = rows_with(
        session.connection(), (column.sop_instance_uid, column.digest, column.id), column.sop_instance_uid, uids
    )
    return {(uid, digest): row_id for uid, digest, row_id in rows}


def settle_conflicts(session: Session, uids: set[str]) -> None:
    """Of several instances with one UID the one received first is that which the others are in conflict with."""
    by_uid: dict[str, list[tuple[datetime, int, int | None]]] = {}
    rows = session.execute(
        select(Instance.sop_instance_uid, Instance.received_at, Instance.id, Instance.conflict_of).where(
            Instance.sop_instance_uid.in_(uids)
        )
    )
    for uid, received, row_id, conflict in rows:
        by_uid.setdefault(uid, []).append((received, row_id, conflict))
    for rivals in by_uid.values():
        if len(rivals) == 1:
            continue
        (_, first, _), *others = sorted(rivals, key=lambda rival: rival[:2])
        session.execute(update(Instance).where(Instance.id == first).values(conflict_of=None))
        for _, row_id, conflict in others:
            if conflict == first:
                continue
            session.execute(update(Instance).where(Instance.id == row_id).values(conflict_of=first))
            detail = {"conflict_of": first, "how": SOURCE}
            session.add(Event(at=now(), kind="conflict", instance_id=row_id, detail=detail))


def enter_made(session: Session, made: Mapping[tuple[str, str, str], Made]) -> dict[tuple[str, str, str], int]:
    """Rows of the derived-file cache by (source digest, SOP Instance UID, recipe); their files are not there."""
    found = _known_made(session, made)
    new = [(key, one) for key, one in made.items() if key not in found]
    if new:
        session.execute(insert(Derived), [_derived_row(key, one) for key, one in new])
        found = _known_made(session, made)
    return found


def _known_made(session: Session, made: Mapping[tuple[str, str, str], Made]) -> dict[tuple[str, str, str], int]:
    rows = session.execute(
        select(Derived.source_digest, Derived.sop_instance_uid, Derived.recipe, Derived.id).where(
            Derived.source_digest.in_({digest for digest, _, _ in made})
        )
    )
    return {(digest, uid, recipe): row_id for digest, uid, recipe, row_id in rows if (digest, uid, recipe) in made}


def absent_path(digest: str, recipe: str) -> str:
    """A name in the derived folder where no file lies: what is needed again is made again."""
    return f"{digest[:2]}/{digest}.{recipe.replace('/', '-')}{ABSENT}"


def _derived_row(key: tuple[str, str, str], one: Made) -> dict[str, Any]:
    digest, uid, recipe = key
    facts = dict(one.facts) if one.facts else None
    if facts and "patient_name" in facts:
        facts["name_search"] = folded(facts["patient_name"])
    return {
        "source_digest": digest,
        "sop_instance_uid": uid,
        "recipe": recipe,
        "path": absent_path(digest, recipe),
        "size": one.size,
        "sha256": one.sha256,
        "transfer_syntax_uid": one.transfer_syntax_uid,
        "changes": [dict(change) for change in one.changes],
        "new_sop_instance_uid": one.new_sop_instance_uid,
        "directory_keys": one.directory_keys,
        "facts": facts,
        "created_at": one.created_at,
        "restored_at": None,
    }


@dataclass(frozen=True, slots=True)
class NewSet:
    """What is known of the request that a volume was made for."""

    profile: str
    medium: str
    capacity_sectors: int
    created_at: datetime
    options: Mapping[str, Any]
    pool: str | None
    copies: int


def enter_set(session: Session, new: NewSet) -> Plan:
    """A request with its plan and its finished job, as if it had been made here."""
    request = Request(
        created_at=new.created_at, source=SOURCE, idempotency_key=None, selection={}, options={}, pool=None
    )
    session.add(request)
    session.flush()
    plan = Plan(
        request_id=request.id,
        created_at=new.created_at,
        profile="",
        medium="",
        capacity_sectors=0,
        report={**_REPORT, "notes": ["entered from its discs"]},
    )
    session.add(plan)
    tell_set(session, plan, new)
    return plan


def tell_set(session: Session, plan: Plan, new: NewSet) -> None:
    """What is known of a set: of one that was just entered, or of which only a damaged disc was known until now."""
    plan.profile, plan.medium, plan.capacity_sectors = new.profile, new.medium, new.capacity_sectors
    request = session.get_one(Request, plan.request_id)
    request.options, request.pool = dict(new.options), new.pool
    session.flush()
    enter_job(session, plan, new.copies).copies = new.copies


_REPORT: Mapping[str, Any] = {
    "changes": [],
    "changed": [],
    "compression": [],
    "supplied": [],
    "refused": [],
    "reasons": [],
    "conflicts": [],
    "lower_bound": 1,
}
"""Parts of a plan's report that are on no disc."""


def enter_job(session: Session, plan: Plan, copies: int) -> Job:
    """The finished job of a plan; the one that it has, if it has one."""
    job = session.scalars(select(Job).where(Job.plan_id == plan.id)).first()
    if job is None:
        job = Job(
            request_id=plan.request_id,
            plan_id=plan.id,
            state=JobState.DONE,
            priority=2,
            burner=BURNER,
            copies=copies,
            attempt=1,
            cancel_requested=False,
            progress={},
            reason=None,
            error=None,
            node=None,
            created_at=plan.created_at,
            updated_at=now(),
            finished_at=plan.created_at,
        )
        session.add(job)
        session.flush()
    return job


def add_requested(session: Session, request_id: int, ids: Sequence[int]) -> None:
    """These instances belong to what was asked for; the pool that asked, where it is known here, has taken them."""
    wanted = set(ids)
    column = _REQUESTED.c
    rows = rows_with(session.connection(), (column.instance_id, column.request_id), column.instance_id, wanted)
    there = {row_id for row_id, by in rows if by == request_id}
    new = [{"request_id": request_id, "instance_id": row_id} for row_id in sorted(wanted - there)]
    if new:
        insert_rows(session.connection(), _REQUESTED, new)
        _take_for_pool(session, session.get_one(Request, request_id), [row["instance_id"] for row in new])


def _take_for_pool(session: Session, request: Request, ids: Sequence[int]) -> None:
    """So that nothing is put on the pool's discs twice, and what comes later of its studies is known to be late."""
    if request.pool is None or session.get(Pool, request.pool) is None:
        return
    of_pool = (PoolInstance.pool == request.pool, PoolInstance.instance_id.in_(ids))
    there = set(session.scalars(select(PoolInstance.instance_id).where(*of_pool)))
    own = {"pool": request.pool, "added_at": request.created_at, "request_id": request.id}
    if values := [{**own, "instance_id": row_id} for row_id in ids if row_id not in there]:
        session.execute(insert(PoolInstance), values)


def volume_by_uid(session: Session, file_set_uid: str) -> Volume | None:
    return session.scalars(select(Volume).where(Volume.file_set_uid == file_set_uid)).first()


def raise_number(session: Session, name: str, value: int) -> None:
    """Running numbers of this name go on behind ``value``, at least."""
    next_numbers(session, name, 0)  # the row is there, and locked
    session.execute(
        update(Counter).where(Counter.name == name, Counter.value < value).values(value=value),
        execution_options={"synchronize_session": "fetch"},
    )


def note_import(session: Session, new: Mapping[str, int], *, by: str) -> None:
    """The Event of records that came in from an export."""
    session.add(Event(at=now(), kind="import", detail={"by": by, "new": dict(new)}))
