"""Media creation requests of the network (PS3.4 Annex S) in SQL, and how they stand, told from the job's facts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from store.bulk import chunks
from store.guard import rows_changed
from store.models import Instance
from store.models_base import now
from store.models_jobs import Disc, Job, MediaCreation, Plan, Volume
from store.presence import is_here
from store.states import DiscState, JobState

# Failure Reason (0008,1197) as PS3.3 C.22.4 and PS3.4 S.3.2.4 define it.
PROCESSING_FAILURE = 0x0110
NO_SUCH_INSTANCE = 0x0112
CLASS_INSTANCE_CONFLICT = 0x0119
PROFILES_CONFLICT = 0x0201
PROFILE_INSTANCE_CONFLICT = 0x0202
PROFILE_COMPRESSION_CONFLICT = 0x0203
PROFILE_UNSUPPORTED = 0x0204
INSTANCE_SIZE_EXCEEDED = 0x0205

_REASON_OF_CODE = {
    "NO_INSTANCE": NO_SUCH_INSTANCE,
    "INST_AP_CONFLICT": PROFILE_INSTANCE_CONFLICT,
    "INST_OVERSIZED": INSTANCE_SIZE_EXCEEDED,
    "NOT_SUPPORTED": PROFILE_UNSUPPORTED,
}
"""Failure Reason of an instance that a plan refused, by our code; others are 0110H."""

STATUS_INFO = frozenset(
    {
        "NORMAL",
        "CHECK_MCD_OP",
        "CHECK_MCD_SRV",
        "DIR_PROC_ERR",
        "DUPL_REF_INST",
        "INST_AP_CONFLICT",
        "INST_OVERSIZED",
        "INSUFFIC_MEMORY",
        "MCD_BUSY",
        "MCD_FAILURE",
        "NO_INSTANCE",
        "NOT_SUPPORTED",
        "OUT_OF_SUPPLIES",
        "PROC_FAILURE",
        "QUEUED",
        "SET_OVERSIZED",
        "UNKNOWN",
    }
)
"""Defined Terms of Execution Status Info (2100,0030), PS3.3 C.22.2."""


class DuplicateCreation(Exception):
    """There is a media creation request with this SOP Instance UID already."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A line of the Referenced SOP Sequence (0008,1199)."""

    sop_class_uid: str
    sop_instance_uid: str
    profile: str = ""
    """Requested Media Application Profile (2200,000C)."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A line of the Failed SOP Sequence (0008,1198)."""

    sop_class_uid: str
    sop_instance_uid: str
    reason: int


@dataclass(frozen=True, slots=True)
class Result:
    """What N-GET tells (PS3.4 S.3.2.4)."""

    status: str
    """Execution Status: IDLE, PENDING, CREATING, DONE, FAILURE."""
    info: str
    """Execution Status Info."""
    pieces: int
    """Discs that are made and verified."""
    media: tuple[tuple[str, str], ...]
    """File-set ID and UID of each volume of which there is one."""
    failed: tuple[Failed, ...]

    @property
    def ended(self) -> bool:
        return self.status in ("DONE", "FAILURE")


def create(
    session: Session,
    sop_instance_uid: str,
    *,
    calling_ae: str,
    source: str,
    attributes: dict[str, Any],
    references: Iterable[Reference],
) -> int:
    """Enter a request; returns its id. Raises DuplicateCreation, for a UID of the past too."""
    creation = MediaCreation(
        sop_instance_uid=sop_instance_uid,
        calling_ae=calling_ae,
        source=source,
        created_at=now(),
        attributes=attributes,
        references=[[each.sop_class_uid, each.sop_instance_uid, each.profile] for each in references],
        initiated_at=None,
        failure=None,
        request_id=None,
        job_id=None,
        cancelled_at=None,
    )
    session.add(creation)
    try:
        session.flush()
    except IntegrityError as error:
        raise DuplicateCreation(sop_instance_uid) from error
    return creation.id


def find(session: Session, sop_instance_uid: str) -> MediaCreation | None:
    """The request as its SCU knows it; None where there is none, or it was cancelled."""
    return session.execute(
        select(MediaCreation).where(
            MediaCreation.sop_instance_uid == sop_instance_uid, MediaCreation.cancelled_at.is_(None)
        )
    ).scalar_one_or_none()


def references_of(creation: MediaCreation) -> list[Reference]:
    return [Reference(*row) for row in creation.references]


def initiate(
    session: Session,
    creation: MediaCreation,
    *,
    request_id: int | None,
    job_id: int | None,
    failure: tuple[str, list[Failed]] | None = None,
) -> bool:
    """Note what the request became; False where it was initiated or cancelled meanwhile."""
    statement = (
        update(MediaCreation)
        .where(
            MediaCreation.id == creation.id,
            MediaCreation.initiated_at.is_(None),
            MediaCreation.cancelled_at.is_(None),
        )
        .values(
            initiated_at=now(),
            request_id=request_id,
            job_id=job_id,
            failure=None
            if failure is None
            else {
                "info": failure[0],
                "failed": [[each.sop_class_uid, each.sop_instance_uid, each.reason] for each in failure[1]],
            },
        )
    )
    return rows_changed(session, statement) == 1


def cancel(session: Session, creation: MediaCreation) -> bool:
    """It is no more for its SCU (S.3.2.3.2); False where that is so already."""
    statement = (
        update(MediaCreation)
        .where(MediaCreation.id == creation.id, MediaCreation.cancelled_at.is_(None))
        .values(cancelled_at=now())
    )
    return rows_changed(session, statement) == 1


def held(session: Session, references: list[Reference]) -> tuple[list[int], list[Failed]]:
    """The instances that are asked for and in the spool, in order of receipt, and what cannot be put on a disc.

    Of several with one UID all are listed: the request's way with conflicts decides.
    """
    ids: list[int] = []
    classes: dict[str, set[str]] = {}
    for chunk in chunks(sorted({each.sop_instance_uid for each in references})):
        rows = session.execute(
            select(Instance.id, Instance.sop_instance_uid, Instance.sop_class_uid).where(
                Instance.sop_instance_uid.in_(chunk), is_here()
            )
        )
        for instance_id, sop_instance_uid, sop_class_uid in rows:
            ids.append(instance_id)
            classes.setdefault(sop_instance_uid, set()).add(sop_class_uid)
    failed = []
    for each in references:
        known = classes.get(each.sop_instance_uid)
        if known is None:
            failed.append(Failed(each.sop_class_uid, each.sop_instance_uid, NO_SUCH_INSTANCE))
        elif each.sop_class_uid not in known:
            failed.append(Failed(each.sop_class_uid, each.sop_instance_uid, CLASS_INSTANCE_CONFLICT))
    return sorted(ids), failed


def result_of(session: Session, creation: MediaCreation) -> Result:
    """How a request stands now, from the facts of its job."""
    if creation.initiated_at is None:
        return Result("IDLE", "NORMAL", 0, (), ())
    if creation.failure is not None:
        failed = tuple(Failed(*row) for row in creation.failure["failed"])
        return Result("FAILURE", creation.failure["info"], 0, (), failed)
    assert creation.job_id is not None
    job = session.get_one(Job, creation.job_id)
    made = session.execute(
        select(Volume.number, Volume.file_set_id, Volume.file_set_uid)
        .join(Disc, Disc.volume_id == Volume.id)
        .where(Disc.job_id == job.id, Disc.state == DiscState.VERIFIED)
        .order_by(Volume.number, Disc.copy)
    ).all()
    media = tuple(dict.fromkeys((row.file_set_id, row.file_set_uid) for row in made))
    status, info = _status(job)
    refused = _refused(session, job, creation) if status in ("FAILURE", "DONE") else ()
    return Result(status, info, len(made), media, refused)


def _status(job: Job) -> tuple[str, str]:
    state = JobState(job.state)
    if state in (JobState.QUEUED, JobState.READY):
        return "PENDING", "QUEUED"
    if state is JobState.WAITING:
        return "CREATING", "CHECK_MCD_OP"
    if state is JobState.DONE:
        return "DONE", "NORMAL"
    if state in (JobState.FAILED, JobState.CANCELLED):
        reason = job.reason or ""
        return "FAILURE", reason if reason in STATUS_INFO else "PROC_FAILURE" if job.plan_id is None else "MCD_FAILURE"
    return "CREATING", "NORMAL"


def _refused(session: Session, job: Job, creation: MediaCreation) -> tuple[Failed, ...]:
    """What the plan left out, and why."""
    of_job = Plan.id == job.plan_id if job.plan_id is not None else Plan.request_id == job.request_id
    plan = session.execute(select(Plan).where(of_job).order_by(Plan.id.desc()).limit(1)).scalar_one_or_none()
    if plan is None:
        return ()
    classes = {uid: sop_class for sop_class, uid, _ in creation.references}
    found: dict[str, Failed] = {}
    for refusal in plan.report.get("refused", ()):
        uid = refusal["sop_instance_uid"]
        reason = _REASON_OF_CODE.get(refusal["reason"].partition(":")[0], PROCESSING_FAILURE)
        found.setdefault(uid, Failed(classes.get(uid, ""), uid, reason))
    return tuple(found.values())
