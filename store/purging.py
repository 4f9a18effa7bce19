"""Freeing the spool of what is on enough discs, oldest first.

An instance may go if as many discs hold it in full as the request for the purge, and every volume that it is on, want;
and if nobody needs it: no open job, no hold, no pool that waits for a disc, no recall, no storage commitment that is
not settled. What may go is looked for without locking anybody out. Then, batch by batch, one transaction locks the
instances and the volumes that they are counted on, looks again, and forgets the paths: whoever marks a disc as lost at
that moment either is waited for, or waits. Files are removed after the commit; ``store.retention.sweep`` removes what a
crash leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, and_, distinct, exists, func, or_, select
from sqlalchemy.orm import Session

from store import commitments, copies, recalls
from store.bulk import chunks
from store.checks import counts
from store.db import Database
from store.holds import held
from store.models import Derived, Instance, Patient, Series, Study
from store.models_archive import Pool, PoolInstance
from store.models_base import now
from store.models_jobs import Disc, Job, RequestInstance, Volume, VolumeInstance
from store.retention import Files, forget_derived, forget_spool_paths, note
from store.spool import Spool
from store.states import JOB_FINAL
from store.whole import holds_all, is_made_of, names_its_patient

_BATCH = 500
_SCANNED = 4
"""So many batches are looked at together."""
_ROBOT = "robot"


@dataclass(frozen=True, slots=True)
class Policy:
    """What may go."""

    min_copies: int = 1
    """Discs that must hold it; a volume that wants more has its way."""
    count_robots: bool = False
    """Whether a disc counts that nobody but the robot which made it has looked at."""
    to_free: int | None = None
    """Bytes after which it is enough (the last study goes as a whole); None: all that may go. What its pool wants to
    keep for some days goes only where this is not reached otherwise."""
    received_before: datetime | None = None
    recalled_hours: float = 0.0
    """What came back from a disc stays for so long after its recall has ended."""
    commitment_hours: float = 72.0
    """A storage commitment that we asked of others and that nobody answered binds for so long."""


@dataclass(frozen=True, slots=True)
class _Row:
    """An instance that may go."""

    id: int
    spool_path: str
    file_bytes: int
    study_id: int | None
    copies: int
    """Discs that hold it."""


@dataclass(slots=True)
class _Freed:
    instances: int = 0
    derived: int = 0
    bytes: int = 0
    studies: dict[int | None, list[int]] = field(default_factory=dict)
    """Instances, bytes and least copies by Study."""

    def add(self, row: _Row) -> None:
        self.instances += 1
        self.bytes += row.file_bytes
        study = self.studies.setdefault(row.study_id, [0, 0, row.copies])
        study[0] += 1
        study[1] += row.file_bytes
        study[2] = min(study[2], row.copies)


def purge(db: Database, spool: Spool, derived_dir: Path, policy: Policy, *, dry_run: bool) -> dict[str, Any]:
    """Free spool and cache.

    Returns ``{"instances", "derived", "bytes", "kept", "min_copies", "dry_run", "studies"}``: how many instances and
    conformed copies were (or would be) removed, how many instances stay in the spool, and by study, oldest first, what
    goes of it and the least number of discs that hold it.
    """
    work = _Purge(db, spool, derived_dir, policy, dry_run=dry_run)
    work.derived()
    work.instances(kept_by_pools=False)
    if policy.to_free is not None:
        work.instances(kept_by_pools=True)
    with db.read() as session:
        stay = session.scalar(select(func.count()).where(Instance.spool_path.is_not(None))) or 0
        studies = _studies(session, work.freed.studies)
    return {
        "instances": work.freed.instances,
        "derived": work.freed.derived,
        "bytes": work.freed.bytes,
        "kept": stay - (work.freed.instances if dry_run else 0),
        "min_copies": policy.min_copies,
        "dry_run": dry_run,
        "studies": studies,
    }


class _Purge:
    def __init__(self, db: Database, spool: Spool, derived_dir: Path, policy: Policy, *, dry_run: bool) -> None:
        self.freed = _Freed()
        self._db = db
        self._spool = spool
        self._derived_dir = derived_dir
        self._policy = policy
        self._dry_run = dry_run

    @property
    def _enough(self) -> bool:
        return self._policy.to_free is not None and self.freed.bytes >= self._policy.to_free

    def instances(self, *, kept_by_pools: bool) -> None:
        """Instances that a pool keeps for some days, or the others."""
        last = ""
        while not self._enough:
            with self._db.read() as session:
                here = (
                    select(Instance.spool_path)
                    .where(Instance.spool_path.is_not(None), Instance.spool_path > last)
                    .order_by(Instance.spool_path)
                    .limit(_SCANNED * _BATCH)
                )
                end = session.scalar(select(func.max(here.subquery().c.spool_path)))
                if end is None:
                    return
                # By their range, not by their numbers: a list of thousands of these takes longer than all else.
                these = and_(Instance.spool_path > last, Instance.spool_path <= end)
                keep = _kept_by_pool(session)
                rows = self._candidates(session, these, keep if kept_by_pools else ~keep)
            last = end
            if self._policy.to_free is not None:
                rows = self._until_enough(rows)
            self._free(rows)

    def _until_enough(self, rows: Sequence[_Row]) -> list[_Row]:
        """As many as are needed, the study of the last of them as a whole."""
        assert self._policy.to_free is not None
        left = self._policy.to_free - self.freed.bytes
        taken: list[_Row] = []
        for row in rows:
            if left <= 0:
                break
            taken.append(row)
            left -= row.file_bytes
        if left > 0 or not taken or taken[-1].study_id is None:
            return taken
        known = {row.id for row in taken}
        of_study = Instance.series_id.in_(select(Series.id).where(Series.study_id == taken[-1].study_id))
        with self._db.read() as session:
            more = self._candidates(session, of_study)
        return taken + [row for row in more if row.id not in known]

    def _candidates(self, session: Session, these: ColumnElement[bool], *further: ColumnElement[bool]) -> list[_Row]:
        """Those of these instances in the spool that may go, what came first at first.

        ``further``: what must be true of each besides.
        """
        discs = _safe(session, self._policy, these)
        if not discs:
            return []
        query = (
            select(Instance.id, Instance.spool_path, Instance.file_bytes, Instance.sop_instance_uid, Series.study_id)
            .outerjoin(Series, Series.id == Instance.series_id)
            .where(Instance.spool_path.is_not(None), these, ~_needed(self._policy), *further)
            .order_by(Instance.spool_path)
        )
        if self._policy.received_before is not None:
            query = query.where(Instance.received_at < self._policy.received_before)
        bound = commitments.bound_instances(session, hours=self._policy.commitment_hours)
        return [
            _Row(row.id, row.spool_path or "", row.file_bytes, row.study_id, discs[row.id])
            for row in session.execute(query)
            if row.id in discs and row.sop_instance_uid not in bound
        ]

    def _free(self, rows: Sequence[_Row]) -> None:
        if self._dry_run:
            for row in rows:
                self.freed.add(row)
            return
        for chunk in chunks(rows, _BATCH):
            ids = [row.id for row in chunk]
            with self._db.begin() as session:
                taken = self._take(session, ids)
                files = Files(spool=[row.spool_path for row in taken], bytes=sum(row.file_bytes for row in taken))
                if taken:
                    forget_spool_paths(session, [row.id for row in taken])
                    note(session, "purge", files, [row.id for row in taken], min_copies=self._policy.min_copies)
            files.remove(self._spool, self._derived_dir)
            for row in taken:
                self.freed.add(row)

    def _take(self, session: Session, ids: Sequence[int]) -> list[_Row]:
        """Those that may go still, locked."""
        return self._candidates(session, Instance.id.in_(_locked(session, ids)))

    def derived(self) -> None:
        """Conformed copies of what is safe. Their rows go too, unless a plan or the catalogue names them: then a plan
        that needs one again finds the file missing and makes it anew.
        """
        last = 0
        while not self._enough:
            with self._db.read() as session:
                here = session.scalars(
                    select(Derived.id).where(_there(), Derived.id > last).order_by(Derived.id).limit(_BATCH)
                ).all()
                batch = self._derived(session, Derived.id.in_(here))
            if not here:
                return
            last = here[-1]
            if batch and not self._dry_run:
                with self._db.begin() as session:
                    mine = _locked(session, [row.instance_id for row in batch])
                    batch = self._derived(session, Derived.id.in_([row.id for row in batch]), Instance.id.in_(mine))
                    files = self._derived_files(batch)
                    forget_derived(session, [row.id for row in batch])
                    if files.derived:
                        note(session, "purge", files, [], min_copies=self._policy.min_copies)
                files.remove(self._spool, self._derived_dir)
            else:
                files = self._derived_files(batch)
            self.freed.derived += len(files.derived)
            self.freed.bytes += files.bytes

    def _derived(self, session: Session, *these: ColumnElement[bool]) -> list[Any]:
        """Those of these conformed copies that may go and have not gone, each with its instance."""
        found = session.execute(_conformed(self._policy).where(*these).order_by(Derived.id)).all()
        safe = _safe(session, self._policy, Instance.id.in_([row.instance_id for row in found])) if found else {}
        return [row for row in found if row.returned or row.instance_id in safe]

    def _derived_files(self, rows: Sequence[Any]) -> Files:
        there = [row for row in rows if (self._derived_dir / row.path).is_file()]
        return Files(derived=[row.path for row in there], bytes=sum(row.size for row in there))


def _locked(session: Session, ids: Sequence[int]) -> Sequence[int]:
    """Those of these instances that this transaction has for itself, with the volumes that they are counted on.

    A request, recall or hold that takes one of them in at this moment has it locked already: it is left alone.
    """
    free = select(Instance.id).where(Instance.id.in_(ids)).order_by(Instance.id)
    mine = session.scalars(free.with_for_update(skip_locked=True)).all()
    on = select(VolumeInstance.volume_id).where(VolumeInstance.instance_id.in_(mine)).distinct()
    copies.lock(session, session.scalars(on))
    return mine


def _there() -> ColumnElement[bool]:
    """True for a Derived whose file is there; as its index has it."""
    return or_(Derived.purged_at.is_(None), Derived.restored_at.is_not(None))


def _conformed(policy: Policy) -> Any:
    """Conformed copies that have not gone and that nobody needs, each with its instance.

    ``returned``: it came back from a disc, and is on enough of them itself.
    """
    this_file = and_(VolumeInstance.instance_id == Instance.id, VolumeInstance.derived_id == Derived.id)
    # What came back from a disc because nothing better is to be had: copies of it are discs with this very file.
    on_discs = (
        select(func.count(distinct(Disc.id)))
        .join(VolumeInstance, VolumeInstance.volume_id == Disc.volume_id)
        .where(this_file, counts(), _trusted(policy))
        .correlate(Derived, Instance)
        .scalar_subquery()
    )
    wanted = (
        select(func.max(Volume.wanted_copies))
        .join(VolumeInstance, VolumeInstance.volume_id == Volume.id)
        .where(this_file)
        .correlate(Derived, Instance)
        .scalar_subquery()
    )
    returned = and_(
        Derived.restored_at.is_not(None), on_discs >= policy.min_copies, on_discs >= func.coalesce(wanted, 0)
    )
    return (
        select(Derived.id, Derived.path, Derived.size, Instance.id.label("instance_id"), returned.label("returned"))
        .join(Instance, is_made_of())
        .where(_there(), ~_needed(policy))
    )


def _trusted(policy: Policy) -> ColumnElement[bool]:
    if policy.count_robots:
        return counts()
    return or_(Disc.verified_by.is_(None), Disc.verified_by != _ROBOT, Disc.checked_result.is_not(None))


def _safe(session: Session, policy: Policy, these: ColumnElement[bool]) -> dict[int, int]:
    """Those of these instances that are on enough discs, as the purge and each volume that holds them in full want, and
    on how many that count.

    Discs are counted by volume: thousands of instances have the same ones.
    """
    rows = session.execute(
        select(VolumeInstance.instance_id, VolumeInstance.volume_id, names_its_patient())
        .join(Instance, Instance.id == VolumeInstance.instance_id)
        .where(these, holds_all())
    )
    held: dict[int, dict[int, bool]] = {}
    """By instance and volume: whether a file there names its patient."""
    for instance_id, volume_id, named in rows:
        volumes = held.setdefault(instance_id, {})
        volumes[volume_id] = bool(named) or volumes.get(volume_id, False)
    numbers = _numbers(session, policy, sorted({volume_id for volumes in held.values() for volume_id in volumes}))
    found = {}
    for instance_id, volumes in held.items():
        discs = sum(numbers[volume_id][1] for volume_id, named in volumes.items() if named)
        if discs >= max(1, policy.min_copies, *(numbers[volume_id][0] for volume_id in volumes)):
            found[instance_id] = discs
    return found


def _numbers(session: Session, policy: Policy, volume_ids: Sequence[int]) -> dict[int, tuple[int, int]]:
    """How many discs volumes want, and how many there are that count for a purge."""
    found: dict[int, tuple[int, int]] = {}
    for chunk in chunks(volume_ids):
        rows = session.execute(
            select(Volume.id, Volume.wanted_copies, func.count(Disc.id))
            .outerjoin(Disc, and_(Disc.volume_id == Volume.id, counts(), _trusted(policy)))
            .where(Volume.id.in_(chunk))
            .group_by(Volume.id)
        )
        found.update({volume_id: (wanted, good) for volume_id, wanted, good in rows})
    return found


def _needed(policy: Policy) -> ColumnElement[bool]:
    """True for an Instance that somebody wants in the spool."""
    in_open_job = exists().where(
        RequestInstance.instance_id == Instance.id,
        Job.request_id == RequestInstance.request_id,
        Job.state.not_in(JOB_FINAL),
    )
    waits_for_a_disc = exists().where(
        PoolInstance.instance_id == Instance.id, PoolInstance.request_id.is_(None), PoolInstance.refused.is_(None)
    )
    recalled = recalls.needed(now() - timedelta(hours=policy.recalled_hours))
    return or_(in_open_job, held(), waits_for_a_disc, recalled)


def _kept_by_pool(session: Session) -> ColumnElement[bool]:
    """True for an Instance that came so lately that one of its pools wants it to stay, if there is room."""
    at = now()
    rows = session.execute(select(Pool.name, Pool.keep_days).where(Pool.keep_days > 0)).tuples()
    of_pools = [
        and_(
            Instance.received_at > at - timedelta(days=days),
            exists().where(
                VolumeInstance.instance_id == Instance.id, Disc.volume_id == VolumeInstance.volume_id, Disc.pool == name
            ),
        )
        for name, days in rows
    ]
    return or_(*of_pools) if of_pools else Instance.id < 0


def _studies(session: Session, freed: dict[int | None, list[int]]) -> list[dict[str, Any]]:
    known: dict[int, Any] = {}
    for chunk in chunks([study for study in freed if study is not None]):
        rows = session.execute(
            select(Study.id, Study.study_instance_uid, Study.study_date, Patient.patient_id, Patient.patient_name)
            .join(Patient, Patient.id == Study.patient_id)
            .where(Study.id.in_(chunk))
        )
        known.update({row.id: row for row in rows})
    found = []
    for study, (count, size, least) in freed.items():
        row = known.get(study) if study is not None else None
        found.append(
            {
                "study_instance_uid": row.study_instance_uid if row else "",
                "study_date": row.study_date if row else "",
                "patient_id": row.patient_id if row else "",
                "patient_name": row.patient_name if row else "",
                "instances": count,
                "bytes": size,
                "copies": least,
            }
        )
    return found
