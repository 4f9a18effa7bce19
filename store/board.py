"""What the board shows: jobs by what they need, read in a handful of statements however many jobs there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, exists, func, or_, select
from sqlalchemy.orm import Session

from store.bulk import chunks
from store.jobs import OTHERS
from store.models import Instance, Patient, Series, Study
from store.models_base import now
from store.models_jobs import Disc, Job, Plan, Request, RequestInstance, Volume
from store.models_nodes import Event
from store.states import DISC_FINAL, JOB_FINAL, DiscState, JobState

DISMISSED = "dismissed"
"""Kind of the Event by which a person has taken note of a failed job, so that it leaves the board."""
FAILED_DAYS = 30
"""A failed job stays on the board so long if nobody takes note of it."""
_BURNING = (DiscState.SUBMITTED, DiscState.BURNING, DiscState.BURNT, DiscState.VERIFYING)


@dataclass(slots=True)
class DiscRow:
    """A disc of a job on the board: the latest attempt of its copy."""

    id: int
    volume: int
    of: int
    copy: int
    attempt: int
    file_set_id: str
    state: str
    progress: float
    burner: str
    error: str | None
    verified_by: str | None
    sectors: int
    started: datetime | None = None
    """When the device got it."""

    @property
    def done(self) -> float:
        """0 to 1 of the whole work: writing is one half, reading back the other."""
        if self.state in DISC_FINAL:
            return 1.0
        if self.state == DiscState.VERIFYING:
            return 0.5 + self.progress / 2
        return {DiscState.BURNING: self.progress / 2, DiscState.BURNT: 0.5}.get(DiscState(self.state), 0.0)


@dataclass(slots=True)
class JobRow:
    """A job on the board."""

    id: int
    request_id: int
    state: str
    priority: int
    burner: str
    copies: int
    cancel_requested: bool
    progress: dict[str, Any]
    reason: str | None
    error: str | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    source: str
    profile: str
    medium: str
    discs: list[DiscRow] = field(default_factory=list)
    people: Sequence[tuple[str, str]] = ()
    """Name and Patient ID of whose studies it is about, at most ``_PEOPLE`` of them."""

    @property
    def waits(self) -> list[tuple[str, str]]:
        """Disc and what a person must do for it."""
        return list(((self.progress or {}).get("waiting") or {}).items())

    @property
    def phase(self) -> str:
        """What is being done to prepare it; its state where nobody says."""
        return str((self.progress or {}).get("phase") or self.state)

    @property
    def fraction(self) -> float:
        if self.discs:
            return sum(disc.done for disc in self.discs) / len(self.discs)
        total = (self.progress or {}).get("total") or 0
        return min(1.0, self.progress.get("done", 0) / total) if total else 0.0

    @property
    def verified(self) -> int:
        return sum(disc.state == DiscState.VERIFIED for disc in self.discs)

    @property
    def refuses_instances(self) -> bool:
        """It failed before any disc was spent, because the plan leaves instances out and the request forbids that; the
        others could be burnt."""
        told = self.error or ""
        return self.state == JobState.FAILED and not self.discs and told.startswith("refused: ") and OTHERS in told

    @property
    def undecided(self) -> bool:
        """It waits because nobody knows what became of a disc; a person must look and decide."""
        ended = bool(self.discs) and all(disc.state in DISC_FINAL for disc in self.discs)
        return self.state == JobState.WAITING and ended

    def seconds_left(self, at: datetime) -> float | None:
        """A guess from what is done since the first of the discs in work began; None where nothing tells yet."""
        begun = [disc.started for disc in self.discs if disc.started is not None]
        working = [disc for disc in self.discs if disc.state in _BURNING and disc.started is not None]
        if not begun or not working:
            return None
        passed = (at - min(begun)).total_seconds()
        finished = sum(disc.done for disc in self.discs if disc.started is not None)
        left = len(self.discs) - sum(disc.done for disc in self.discs)
        if passed < 2 or finished < 0.03:
            return None
        return passed / finished * left


_PEOPLE = 3


@dataclass(frozen=True, slots=True)
class Board:
    """The jobs of the board by what they need."""

    needs: list[JobRow]
    """A person must do or decide something."""
    running: list[JobRow]
    queued: list[JobRow]
    failed: list[JobRow]
    done: list[JobRow]
    """Since the day began, the newest first."""
    counts: dict[str, int]
    """How many there are of each, by these names; the lists may be shorter."""


def board(session: Session, *, day: datetime, limit: int = 40) -> Board:
    """``day``: when today began. At most ``limit`` of each kind come with their discs."""
    jobs = _jobs(session, day)
    groups: dict[str, list[JobRow]] = {"needs": [], "running": [], "queued": [], "failed": [], "done": []}
    for job in jobs:
        groups[_group(job)].append(job)
    counts = {name: len(found) for name, found in groups.items()}
    shown = {name: found[:limit] for name, found in groups.items()}
    chosen = [job for found in shown.values() for job in found]
    with_discs(session, chosen)
    with_people(session, chosen)
    for job in [job for job in shown["failed"] if job.refuses_instances]:
        shown["failed"].remove(job)
        shown["needs"].append(job)
        counts["failed"] -= 1
        counts["needs"] += 1
    return Board(**shown, counts=counts)


def _group(job: JobRow) -> str:
    state = JobState(job.state)
    if state is JobState.WAITING or (state is JobState.BURNING and job.waits):
        return "needs"
    if state is JobState.FAILED:
        return "failed"
    if state is JobState.DONE:
        return "done"
    return "queued" if state in (JobState.QUEUED, JobState.READY) else "running"


def one(session: Session, job_id: int) -> JobRow | None:
    """One job as the board has it."""
    row = session.execute(_select().where(Job.id == job_id)).first()
    if row is None:
        return None
    job = JobRow(*row)
    with_discs(session, [job])
    with_people(session, [job])
    return job


def page_of_jobs(session: Session, *, before: int | None, state: str = "", limit: int = 50) -> list[JobRow]:
    """All jobs, newest first, ``limit`` at a time: those with smaller IDs than ``before``."""
    query = _select().order_by(Job.id.desc()).limit(limit)
    if before is not None:
        query = query.where(Job.id < before)
    if state:
        query = query.where(Job.state == state)
    found = [JobRow(*row) for row in session.execute(query)]
    with_discs(session, found)
    with_people(session, found)
    return found


def _select() -> Any:
    # Neither the request's options nor the plan's report as a whole: they may have a line for each instance.
    return (
        select(
            Job.id,
            Job.request_id,
            Job.state,
            Job.priority,
            Job.burner,
            Job.copies,
            Job.cancel_requested,
            Job.progress,
            Job.reason,
            Job.error,
            Job.created_at,
            Job.updated_at,
            Job.finished_at,
            Request.source,
            func.coalesce(Plan.profile, Request.options["profile"].as_string(), ""),
            func.coalesce(Plan.medium, Request.options["medium"].as_string(), ""),
        )
        .join(Request, Request.id == Job.request_id)
        .outerjoin(Plan, Plan.id == Job.plan_id)
    )


def _jobs(session: Session, day: datetime) -> list[JobRow]:
    open_states = [state for state in JobState if state not in JOB_FINAL]
    noted = exists().where(Event.job_id == Job.id, Event.kind == DISMISSED, Event.at >= Job.finished_at)
    late = now() - timedelta(days=FAILED_DAYS)
    ended = [
        (JobState.FAILED, and_(Job.finished_at >= late, ~noted), Job.finished_at.desc()),
        (JobState.DONE, Job.finished_at >= day, Job.finished_at.desc()),
    ]
    rows = list(session.execute(_select().where(Job.state.in_(open_states)).order_by(Job.priority, Job.id)))
    for state, condition, order in ended:
        rows += session.execute(_select().where(Job.state == state, condition).order_by(order).limit(1000))
    return [JobRow(*row) for row in rows]


def with_discs(session: Session, jobs: Sequence[JobRow]) -> None:
    """Give jobs the latest attempt of each copy of their volumes, and when those in work began."""
    by_id = {job.id: job for job in jobs}
    latest: dict[tuple[int, int, int], DiscRow] = {}
    owner: dict[int, int] = {}
    for chunk in chunks(list(by_id)):
        rows = session.execute(
            select(
                Disc.job_id,
                Disc.id,
                Volume.number,
                Volume.of,
                Disc.copy,
                Disc.attempt,
                Volume.file_set_id,
                Disc.state,
                Disc.progress,
                Disc.burner,
                Disc.error,
                Disc.verified_by,
                Volume.sectors,
            )
            .join(Volume, Volume.id == Disc.volume_id)
            .where(Disc.job_id.in_(chunk))
            .order_by(Disc.job_id, Volume.number, Disc.copy, Disc.attempt)
        )
        for job_id, *values in rows:
            disc = DiscRow(*values)
            latest[job_id, disc.volume, disc.copy] = disc
            owner[disc.id] = job_id
    for disc in latest.values():
        by_id[owner[disc.id]].discs.append(disc)
    active = {disc.id: disc for disc in latest.values() if disc.state in _BURNING}
    busy = {owner[disc_id] for disc_id in active}
    begun = {disc.id: disc for disc in latest.values() if owner[disc.id] in busy and disc.state != DiscState.PLANNED}
    for chunk in chunks(list(begun)):
        starts = select(Event.disc_id, func.min(Event.at)).where(
            Event.disc_id.in_(chunk), Event.new.in_([DiscState.SUBMITTED, DiscState.BURNING])
        )
        for disc_id, at in session.execute(starts.group_by(Event.disc_id)):
            if disc_id is not None:
                begun[disc_id].started = at


_people_of: dict[tuple[str, int], tuple[tuple[str, str], ...]] = {}
"""By database and request: what a request is about is frozen, so it is read once."""
_REMEMBERED = 5000


def with_people(session: Session, jobs: Sequence[JobRow]) -> None:
    """Give jobs the patients that their requests are about."""
    url = str(session.get_bind().engine.url)
    wanted = [job.request_id for job in jobs if (url, job.request_id) not in _people_of]
    found: dict[int, list[tuple[str, str]]] = {}
    for chunk in chunks(wanted):
        series = (
            select(RequestInstance.request_id, Instance.series_id)
            .join(Instance, Instance.id == RequestInstance.instance_id)
            .where(RequestInstance.request_id.in_(chunk), Instance.series_id.is_not(None))
            .distinct()
            .subquery()
        )
        rows = session.execute(
            select(series.c.request_id, Patient.id, Patient.patient_name, Patient.patient_id)
            .join(Series, Series.id == series.c.series_id)
            .join(Study, Study.id == Series.study_id)
            .join(Patient, Patient.id == Study.patient_id)
            .distinct()
            .order_by(series.c.request_id, Patient.id)
        )
        for request_id, _, name, patient_id in rows:
            found.setdefault(request_id, []).append((name, patient_id))
    if len(_people_of) > _REMEMBERED:
        _people_of.clear()
    for request_id, people in found.items():
        _people_of[url, request_id] = tuple(people[: _PEOPLE + 1])
    for job in jobs:
        job.people = _people_of.get((url, job.request_id), ())


def signature(session: Session) -> tuple[Any, ...]:
    """Changes whenever anything on the board does; cheap enough to be asked every second."""
    events = session.execute(select(func.max(Event.id))).scalar_one()
    jobs = session.execute(select(func.count(), func.max(Job.updated_at)).where(Job.state.notin_([*JOB_FINAL]))).one()
    discs = session.execute(select(func.count(), func.max(Disc.updated_at)).where(Disc.state.in_(_BURNING))).one()
    received = session.execute(select(func.max(Instance.id))).scalar_one()
    return (events, tuple(jobs), tuple(discs)), received


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that people who asked for it are called for."""

    event: int
    job: int
    state: str
    reason: str
    """Why it failed, as a code: a job's error may quote an instance, and a call is seen by whoever is near."""
    waits: str


def alarms(session: Session, after: int) -> list[Alarm]:
    """Jobs that have failed, or begun to wait for a person, in Events later than ``after``."""
    rows = session.execute(
        select(Event.id, Event.job_id, Event.new, Job.reason, Job.progress)
        .join(Job, Job.id == Event.job_id)
        .where(
            Event.id > after,
            Event.kind == "job",
            or_(Event.new == JobState.FAILED, Event.new == JobState.WAITING),
            or_(Event.old.is_(None), Event.old != Event.new),
        )
        .order_by(Event.id)
        .limit(20)
    )
    return [
        Alarm(number, job, state, reason or "", "; ".join(((progress or {}).get("waiting") or {}).values()))
        for number, job, state, reason, progress in rows
    ]


def last_event(session: Session) -> int:
    return session.execute(select(func.max(Event.id))).scalar_one() or 0
