"""The catalogue as records that outlive the database: written out table by table, in the order in which they are read.

A record is a JSON object of plain values that names other rows by what identifies them anywhere: a patient by the
digest of its identity, a study by that and its UID, an instance by SOP Instance UID and digest, a volume by its
File-set UID, a disc by volume, copy and attempt. Only what was put on discs is in it; what
the spool holds is not.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, exists, func, or_, select
from sqlalchemy.orm import Session, aliased

from store.models import Derived, Instance, Patient, Series, Study
from store.models_archive import DiscCheck, Pool
from store.models_base import now
from store.models_jobs import Disc, Job, Plan, Request, Volume, VolumeInstance
from store.models_nodes import Counter
from store.states import DISC_FINAL

FORMAT = "Burnish catalogue"
VERSION = 1
TABLES = ("pool", "patient", "study", "series", "instance", "derived", "volume", "file", "disc", "check")
"""In this order: a record refers to earlier ones only."""
_ENDED = [state.value for state in DISC_FINAL]
_NOT_KEPT = ("coerce",)


@dataclass(frozen=True, slots=True)
class _Table:
    key: Any
    statement: Callable[[], Any]
    record: Callable[[Any], dict[str, Any]]


def head(session: Session, *, site: str, software: str) -> dict[str, Any]:
    """The first record; ``until`` says which rows there were, so that what comes later does not get in between."""
    until = {
        name: session.scalar(select(func.max(table.key))) or 0 for name, table in _TABLES.items() if name != "pool"
    }
    number = session.scalar(select(Counter.value).where(Counter.name == "file_set")) or 0
    return {
        "record": "catalogue",
        "format": FORMAT,
        "version": VERSION,
        "created": moment(now()),
        "site": site,
        "software": software,
        "file_set_number": number,
        "until": until,
    }


def page(
    session: Session, table: str, *, after: int | str, until: int, limit: int
) -> tuple[list[dict[str, Any]], int | str | None]:
    """Some records of a table behind ``after`` (0: from the first on), and what the next page is behind; None: none."""
    kind = _TABLES[table]
    statement = kind.statement()
    if table == "pool":
        statement = statement.where(kind.key > (after or ""))
    elif table == "file":
        volume, position = (int(part) for part in str(after or "0:0").split(":"))
        behind = and_(kind.key == volume, VolumeInstance.position > position)
        statement = statement.where(or_(kind.key > volume, behind), kind.key <= until)
        statement = statement.order_by(kind.key, VolumeInstance.position)
    else:
        statement = statement.where(kind.key > int(after), kind.key <= until)
    rows = list(session.execute(statement.order_by(kind.key).limit(limit + 1)))
    found = [{"record": table, **kind.record(row)} for row in rows[:limit]]
    if len(rows) <= limit:
        return found, None
    last = rows[limit - 1]
    return found, f"{last[0]}:{last[1].position}" if table == "file" else last[0]


def moment(value: datetime | None) -> str | None:
    return None if value is None else value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def binary(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode("ascii")


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return moment(value)
    return binary(value) if isinstance(value, bytes) else value


def plain_columns(row: Any, *without: str) -> dict[str, Any]:
    """A row's columns as plain values, but for its number and those that refer to other rows."""
    return {
        column.key: _plain(getattr(row, column.key))
        for column in row.__table__.columns
        if column.key != "id" and column.key not in without
    }


# --- What is written of each table -----------------------------------------------------------------------------------


def _has_disc() -> ColumnElement[bool]:
    return exists().where(Disc.volume_id == Volume.id, Disc.state.in_(_ENDED))


def _named() -> ColumnElement[bool]:
    """True for an Instance that a disc holds or held."""
    return exists().where(
        VolumeInstance.instance_id == Instance.id,
        Volume.id == VolumeInstance.volume_id,
        Disc.volume_id == Volume.id,
        Disc.state.in_(_ENDED),
    )


def _patient(row: Any) -> dict[str, Any]:
    return plain_columns(row[1], "name_search", "name_search_2", "name_search_3")


def _study(row: Any) -> dict[str, Any]:
    return {"patient": row.identity, **plain_columns(row[1], "patient_id")}


def _series(row: Any) -> dict[str, Any]:
    return {"patient": row.identity, "study": row.study_instance_uid, **plain_columns(row[1], "study_id")}


def _instance(row: Any) -> dict[str, Any]:
    return {
        "patient": row.identity,
        "study": row.study_instance_uid,
        "series": row.series_instance_uid,
        "conflict_of": row.first,
        **plain_columns(row[1], "series_id", "spool_path", "conflict_of"),
    }


def _derived(row: Any) -> dict[str, Any]:
    made = plain_columns(row[1], "path", "restored_at")
    if made["facts"]:
        made["facts"] = {name: value for name, value in made["facts"].items() if name != "name_search"}
    return made


def _volume(row: Any) -> dict[str, Any]:
    _, volume, plan, request, job, siblings = row
    return {
        **plain_columns(volume, "plan_id", "good_copies", "wanted_copies"),
        "set": {
            "volumes": sorted((siblings or "").split(",")),
            "profile": plan.profile,
            "medium": plan.medium,
            "capacity_sectors": plan.capacity_sectors,
            "created_at": moment(plan.created_at),
            "source": request.source,
            "pool": request.pool,
            "options": {key: value for key, value in request.options.items() if key not in _NOT_KEPT},
            "copies": job.copies,
            "burner": job.burner,
        },
    }


def _file(row: Any) -> dict[str, Any]:
    return {
        "volume": row.file_set_uid,
        "instance": row.sop_instance_uid,
        "digest": row.digest,
        "recipe": row.recipe,
        **plain_columns(row[1], "volume_id", "instance_id", "derived_id"),
    }


def _disc(row: Any) -> dict[str, Any]:
    return {
        "volume": row.file_set_uid,
        **plain_columns(row[1], "job_id", "volume_id", "ticket", "node", "epoch", "progress"),
    }


def _check(row: Any) -> dict[str, Any]:
    return {
        "volume": row.file_set_uid,
        "copy": row.copy,
        "attempt": row.attempt,
        **plain_columns(row[1], "disc_id"),
    }


def _above() -> Any:
    return exists().where(Series.study_id == Study.id, Instance.series_id == Series.id, _named())


_First = aliased(Instance)
_Sibling = aliased(Volume)


def _volumes() -> Select[Any]:
    siblings = (
        select(func.aggregate_strings(_Sibling.file_set_uid, ","))
        .where(_Sibling.plan_id == Volume.plan_id)
        .correlate(Volume)
        .scalar_subquery()
    )
    return (
        select(Volume.id, Volume, Plan, Request, Job, siblings)
        .join(Plan, Plan.id == Volume.plan_id)
        .join(Request, Request.id == Plan.request_id)
        .join(Job, Job.plan_id == Plan.id)
        .where(_has_disc())
    )


_TABLES: Mapping[str, _Table] = {
    "pool": _Table(
        Pool.name, lambda: select(Pool.name, Pool), lambda row: plain_columns(row[1], "look_at", "seen_instance")
    ),
    "patient": _Table(
        Patient.id,
        lambda: select(Patient.id, Patient).where(exists().where(Study.patient_id == Patient.id, _above())),
        _patient,
    ),
    "study": _Table(
        Study.id,
        lambda: select(Study.id, Study, Patient.identity).join(Patient).where(_above()),
        _study,
    ),
    "series": _Table(
        Series.id,
        lambda: (
            select(Series.id, Series, Study.study_instance_uid, Patient.identity)
            .join(Study, Study.id == Series.study_id)
            .join(Patient, Patient.id == Study.patient_id)
            .where(exists().where(Instance.series_id == Series.id, _named()))
        ),
        _series,
    ),
    "instance": _Table(
        Instance.id,
        lambda: (
            select(
                Instance.id,
                Instance,
                Series.series_instance_uid,
                Study.study_instance_uid,
                Patient.identity,
                _First.digest.label("first"),
            )
            .outerjoin(Series, Series.id == Instance.series_id)
            .outerjoin(Study, Study.id == Series.study_id)
            .outerjoin(Patient, Patient.id == Study.patient_id)
            .outerjoin(_First, _First.id == Instance.conflict_of)
            .where(_named())
        ),
        _instance,
    ),
    "derived": _Table(
        Derived.id,
        lambda: select(Derived.id, Derived).where(
            exists().where(
                VolumeInstance.derived_id == Derived.id,
                Disc.volume_id == VolumeInstance.volume_id,
                Disc.state.in_(_ENDED),
            )
        ),
        _derived,
    ),
    "volume": _Table(Volume.id, _volumes, _volume),
    "file": _Table(
        VolumeInstance.volume_id,
        lambda: (
            select(
                VolumeInstance.volume_id,
                VolumeInstance,
                Volume.file_set_uid,
                Instance.sop_instance_uid,
                Instance.digest,
                Derived.recipe,
            )
            .join(Volume, Volume.id == VolumeInstance.volume_id)
            .join(Instance, Instance.id == VolumeInstance.instance_id)
            .outerjoin(Derived, Derived.id == VolumeInstance.derived_id)
            .where(_has_disc())
        ),
        _file,
    ),
    "disc": _Table(
        Disc.id,
        lambda: (
            select(Disc.id, Disc, Volume.file_set_uid)
            .join(Volume, Volume.id == Disc.volume_id)
            .where(Disc.state.in_(_ENDED))
        ),
        _disc,
    ),
    "check": _Table(
        DiscCheck.id,
        lambda: (
            select(DiscCheck.id, DiscCheck, Volume.file_set_uid, Disc.copy, Disc.attempt)
            .join(Disc, Disc.id == DiscCheck.disc_id)
            .join(Volume, Volume.id == Disc.volume_id)
            .where(Disc.state.in_(_ENDED))
        ),
        _check,
    ),
}
