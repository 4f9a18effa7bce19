"""What leaves the spool: what nobody wants (``delete``); what is safe on discs is ``store.purging``'s.

First the rows change and the change is committed with an Event that names the files; then the files go. A crash in
between leaves files that no row names, and ``sweep`` removes them at the next start by that Event. Names in the spool
are never used twice, so a file that arrives anew is never mistaken for one that was removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import delete as delete_rows
from sqlalchemy import exists, select, update
from sqlalchemy.orm import Session

from store.audit import Trail
from store.auditwhat import OURSELVES, Who, deleted
from store.bulk import chunks
from store.db import Database
from store.holds import in_force
from store.models import Derived, Instance, Patient, Series, Study
from store.models_archive import Hold
from store.models_base import now
from store.models_jobs import Job, Plan, RequestInstance, Volume, VolumeInstance
from store.models_nodes import Event
from store.spool import Spool

_BATCH = 500
_ENDED = ("DONE", "FAILED", "CANCELLED")
_UNFINISHED_SECONDS = 86_400
_SWEEP_DAYS = 30


class NeededByJob(Exception):
    """Instances cannot be deleted while a job that is not ended needs them, or a hold is on them; the text names it."""


@dataclass(slots=True)
class Files:
    """Files that no row names any more, and what they held."""

    spool: list[str] = field(default_factory=list)
    derived: list[str] = field(default_factory=list)
    bytes: int = 0

    def remove(self, spool: Spool, derived_dir: Path) -> None:
        for path in self.spool:
            spool.remove(path)
        for path in self.derived:
            (derived_dir / path).unlink(missing_ok=True)


def delete(
    db: Database,
    spool: Spool,
    derived_dir: Path,
    ids: Sequence[int],
    *,
    trail: Trail | None = None,
    by: Who | None = None,
) -> dict[str, Any]:
    """Remove these instances for good, from the spool and from the list of studies.

    What a disc was made of keeps its row, so that the catalogue still finds the disc. Raises ``NeededByJob``, before
    anything is removed, where an open job needs one of them. ``trail`` hears whose they were and who removed them
    (``by``); we keep no name of those of whom nothing is left. Returns ``{"instances", "bytes"}``.
    """
    with db.read() as session:
        for chunk in chunks(ids, _BATCH):
            _refuse_needed(session, chunk)
    count = size = 0
    for chunk in chunks(ids, _BATCH):
        with db.begin() as session:
            _refuse_needed(session, chunk)  # a job may have come in between
            rows = list(session.scalars(select(Instance).where(Instance.id.in_(chunk))))
            messages = deleted(session, chunk, by or Who(OURSELVES)) if trail is not None else []
            files = Files(
                spool=[row.spool_path for row in rows if row.spool_path],
                bytes=sum(row.file_bytes for row in rows if row.spool_path),
            )
            on_disc = set(
                session.scalars(
                    select(VolumeInstance.instance_id)
                    .join(Volume, Volume.id == VolumeInstance.volume_id)
                    .join(Job, Job.plan_id == Volume.plan_id)
                    .where(VolumeInstance.instance_id.in_(chunk))
                )
            )
            count += sum(1 for row in rows if row.spool_path or row.id not in on_disc)
            _delete_plans(session, [row.id for row in rows if row.id not in on_disc])
            _delete_derived(session, rows, files)
            note(session, "delete", files, [row.id for row in rows], uids=[row.sop_instance_uid for row in rows])
            forget_spool_paths(session, [row.id for row in rows if row.id in on_disc])
            _delete_instances(session, [row for row in rows if row.id not in on_disc])
            if trail is not None:
                for message in messages:
                    trail.record(session, message)
        files.remove(spool, derived_dir)
        size += files.bytes
    return {"instances": count, "bytes": size}


def _refuse_needed(session: Session, ids: Sequence[int]) -> None:
    jobs = list(
        session.scalars(
            select(Job.id)
            .join(RequestInstance, RequestInstance.request_id == Job.request_id)
            .where(RequestInstance.instance_id.in_(ids), Job.state.not_in(_ENDED))
            .distinct()
            .order_by(Job.id)
        )
    )
    if jobs:
        names = ", ".join(f"J{job}" for job in jobs)
        raise NeededByJob(f"{names} needs instances of this selection; wait for its end or cancel it")
    kept = session.scalars(
        select(Hold.id)
        .join(Study, Study.study_instance_uid == Hold.study_instance_uid)
        .join(Series, Series.study_id == Study.id)
        .join(Instance, Instance.series_id == Series.id)
        .where(Instance.id.in_(ids), in_force())
        .distinct()
        .order_by(Hold.id)
    ).all()
    if kept:
        names = ", ".join(f"H{hold}" for hold in kept)
        raise NeededByJob(f"{names} holds instances of this selection; release it first (`burnish keep --release`)")


def _delete_derived(session: Session, rows: Sequence[Instance], files: Files) -> None:
    """Conformed copies of these instances: the files of all, the rows of those that the catalogue does not name."""
    keys = {(row.digest, row.sop_instance_uid) for row in rows}
    found = [
        one
        for one in session.scalars(select(Derived).where(Derived.source_digest.in_({digest for digest, _ in keys})))
        if (one.source_digest, one.sop_instance_uid) in keys
    ]
    files.derived += [one.path for one in found]
    files.bytes += sum(one.size for one in found)
    forget_derived(session, [one.id for one in found])


def _delete_plans(session: Session, ids: Sequence[int]) -> None:
    """Plans that nobody burnt fall with their instances: they could not be burnt any more."""
    plans = select(Volume.plan_id).join(VolumeInstance).where(VolumeInstance.instance_id.in_(ids))
    session.execute(delete_rows(Plan).where(Plan.id.in_(plans)), execution_options={"synchronize_session": False})


def _delete_instances(session: Session, rows: Sequence[Instance]) -> None:
    ids = [row.id for row in rows]
    if not ids:
        return
    session.execute(delete_rows(RequestInstance).where(RequestInstance.instance_id.in_(ids)))
    for first in ids:
        later = list(
            session.scalars(
                select(Instance.id).where(Instance.conflict_of == first, Instance.id.not_in(ids)).order_by(Instance.id)
            )
        )
        if later:  # the next one takes the place of the first received
            session.execute(update(Instance).where(Instance.id == later[0]).values(conflict_of=None))
            session.execute(update(Instance).where(Instance.id.in_(later[1:])).values(conflict_of=later[0]))
    session.execute(update(Instance).where(Instance.id.in_(ids)).values(conflict_of=None))
    session.execute(delete_rows(Instance).where(Instance.id.in_(ids)))
    _delete_empty_parents(session, {row.series_id for row in rows if row.series_id is not None})


def _delete_empty_parents(session: Session, series: set[int]) -> None:
    """No name of a patient stays of whom nothing is left."""
    studies = set(session.scalars(select(Series.study_id).where(Series.id.in_(series))))
    patients = set(session.scalars(select(Study.patient_id).where(Study.id.in_(studies))))
    for model, ids, empty in (
        (Series, series, ~exists().where(Instance.series_id == Series.id)),
        (Study, studies, ~exists().where(Series.study_id == Study.id)),
        (Patient, patients, ~exists().where(Study.patient_id == Patient.id)),
    ):
        session.execute(
            delete_rows(model).where(model.id.in_(ids), empty), execution_options={"synchronize_session": False}
        )


def forget_spool_paths(session: Session, ids: Sequence[int]) -> None:
    """Instances are in the spool no more."""
    session.execute(
        update(Instance).where(Instance.id.in_(ids)).values(spool_path=None),
        execution_options={"synchronize_session": False},
    )


def forget_derived(session: Session, ids: Sequence[int]) -> None:
    """Conformed files go: their rows too, unless a plan or the catalogue names them."""
    session.execute(
        delete_rows(Derived).where(Derived.id.in_(ids), ~exists().where(VolumeInstance.derived_id == Derived.id)),
        execution_options={"synchronize_session": False},
    )
    session.execute(
        update(Derived).where(Derived.id.in_(ids)).values(purged_at=now(), restored_at=None),
        execution_options={"synchronize_session": False},
    )


def note(session: Session, kind: str, files: Files, ids: Sequence[int], **detail: Any) -> None:
    """The Event of a removal. It also tells ``sweep`` which files had to go."""
    session.add(
        Event(
            at=now(),
            kind=kind,
            instance_id=ids[0] if len(ids) == 1 else None,
            detail={
                "instances": list(ids),
                "spool": files.spool,
                "derived": files.derived,
                "bytes": files.bytes,
                **detail,
            },
        )
    )


def sweep(db: Database, spool: Spool, derived_dir: Path) -> int:
    """Remove files that a crash left behind after their rows were changed; returns how many there were."""
    count = 0
    with db.read() as session:
        events = session.scalars(
            select(Event.detail)
            .where(Event.kind.in_(("purge", "delete")), Event.at > now() - timedelta(days=_SWEEP_DAYS))
            .execution_options(yield_per=50)
        )
        for detail in events:
            # The cache may have made a conformed copy anew under its old name.
            derived = [path for path in detail.get("derived", ()) if (derived_dir / path).exists()]
            named = set(session.scalars(select(Derived.path).where(Derived.path.in_(derived)))) if derived else set()
            left = Files(
                spool=[path for path in detail.get("spool", ()) if spool.path_of(path).exists()],
                derived=[path for path in derived if path not in named],
            )
            left.remove(spool, derived_dir)
            count += len(left.spool) + len(left.derived)
    return count + _sweep_unfinished(derived_dir) + _sweep_unnamed(db, derived_dir)


def _sweep_unnamed(db: Database, derived_dir: Path) -> int:
    """Remove conformed files that a crash left before their rows were: a day old, and named by none."""
    oldest = now().timestamp() - _UNFINISHED_SECONDS
    old = []
    for path in derived_dir.rglob("*.dcm"):
        try:
            if not path.name.startswith(".") and path.stat().st_mtime < oldest:
                old.append(path)
        except FileNotFoundError:  # removed at this moment
            continue
    count = 0
    for paths in chunks(old, _BATCH):
        chunk = {str(path.relative_to(derived_dir)): path for path in paths}
        with db.read() as session:
            named = set(session.scalars(select(Derived.path).where(Derived.path.in_(chunk))))
        for name in chunk.keys() - named:
            chunk[name].unlink(missing_ok=True)
            count += 1
    return count


def _sweep_unfinished(derived_dir: Path) -> int:
    """Remove what a killed helper was writing: temporary names (``.*.part*``) that nobody touched for a day.

    A day, because other nodes that share the cache may be at work on theirs.
    """
    count = 0
    oldest = now().timestamp() - _UNFINISHED_SECONDS
    for path in derived_dir.rglob(".*.part*"):
        try:
            if path.stat().st_mtime < oldest:
                path.unlink()
                count += 1
        except FileNotFoundError:  # renamed or removed at this moment
            continue
    return count


def expire_plans(db: Database, *, keep_days: int) -> int:
    """Forget plans that nobody burnt within so many days; returns how many."""
    with db.begin() as session:
        old = list(
            session.scalars(
                select(Plan.id).where(
                    Plan.created_at < now() - timedelta(days=keep_days), ~exists().where(Job.plan_id == Plan.id)
                )
            )
        )
        for chunk in chunks(old, _BATCH):
            session.execute(delete_rows(Plan).where(Plan.id.in_(chunk)))
    return len(old)
