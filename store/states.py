"""States of jobs and discs, which may follow which, and a job's state from its discs'. Terms that users see."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class JobState(StrEnum):
    QUEUED = "QUEUED"
    PLANNING = "PLANNING"
    CONFORMING = "CONFORMING"
    READY = "READY"
    """Planned; its discs wait for the burner."""
    BURNING = "BURNING"
    """At least one disc is being made or verified."""
    WAITING = "WAITING"
    """The burner waits for a person."""
    DONE = "DONE"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class DiscState(StrEnum):
    PLANNED = "PLANNED"
    SUBMITTED = "SUBMITTED"
    """Its ticket is stored; the device has it, or will have it."""
    BURNING = "BURNING"
    BURNT = "BURNT"
    VERIFYING = "VERIFYING"
    VERIFIED = "VERIFIED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


JOB_TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.PLANNING, JobState.FAILED, JobState.CANCELLED}),
    JobState.PLANNING: frozenset({JobState.CONFORMING, JobState.READY, JobState.FAILED, JobState.CANCELLED}),
    JobState.CONFORMING: frozenset({JobState.READY, JobState.FAILED, JobState.CANCELLED}),
    JobState.READY: frozenset({JobState.BURNING, JobState.FAILED, JobState.CANCELLED}),
    JobState.BURNING: frozenset({JobState.WAITING, JobState.DONE, JobState.FAILED, JobState.CANCELLED}),
    JobState.WAITING: frozenset(
        # READY: a person decided that a disc whose end nobody knew is made again.
        {JobState.BURNING, JobState.DONE, JobState.FAILED, JobState.CANCELLED, JobState.READY}
    ),
    JobState.DONE: frozenset(),
    # A retry: planned again where there is no good plan, else only what is not verified is made again.
    JobState.FAILED: frozenset({JobState.QUEUED, JobState.READY}),
    JobState.CANCELLED: frozenset({JobState.QUEUED, JobState.READY}),
}

DISC_TRANSITIONS: dict[DiscState, frozenset[DiscState]] = {
    DiscState.PLANNED: frozenset({DiscState.SUBMITTED, DiscState.FAILED, DiscState.CANCELLED}),
    DiscState.SUBMITTED: frozenset({DiscState.BURNING, DiscState.BURNT, DiscState.FAILED, DiscState.CANCELLED}),
    DiscState.BURNING: frozenset({DiscState.BURNT, DiscState.FAILED, DiscState.CANCELLED}),
    DiscState.BURNT: frozenset({DiscState.VERIFYING, DiscState.FAILED, DiscState.CANCELLED}),
    DiscState.VERIFYING: frozenset({DiscState.VERIFIED, DiscState.FAILED, DiscState.CANCELLED}),
    # Final: a spoiled blank is a fact. A retry is a new Disc.
    DiscState.VERIFIED: frozenset(),
    DiscState.FAILED: frozenset(),
    DiscState.CANCELLED: frozenset(),
}

JOB_PREPARING = frozenset({JobState.QUEUED, JobState.PLANNING, JobState.CONFORMING})
"""Without discs yet."""
JOB_FINAL = frozenset({JobState.DONE, JobState.FAILED, JobState.CANCELLED})
DISC_FINAL = frozenset(state for state, following in DISC_TRANSITIONS.items() if not following)


class IllegalTransition(Exception):
    """The tables know no such step: a fault in the program."""


def check_job(old: JobState, new: JobState) -> None:
    if new not in JOB_TRANSITIONS[old]:
        raise IllegalTransition(f"a job does not go from {old} to {new}")


def check_disc(old: DiscState, new: DiscState) -> None:
    if new not in DISC_TRANSITIONS[old]:
        raise IllegalTransition(f"a disc does not go from {old} to {new}")


def job_state_of(discs: Iterable[DiscState], *, waiting: bool = False) -> JobState:
    """The state of a planned job: ``discs`` is the latest attempt of every copy of every volume.

    DONE only if all are VERIFIED. A failed disc does not stop the others: the job fails when the last has ended.
    ``waiting``: a person is needed, by a burner or to decide about a failed disc. Raises ValueError for a job without
    discs.
    """
    states = set(discs)
    if not states:
        raise ValueError("a planned job has discs")
    if states == {DiscState.VERIFIED}:
        return JobState.DONE
    if states <= DISC_FINAL:
        if waiting and DiscState.FAILED in states:
            return JobState.WAITING
        return JobState.FAILED if DiscState.FAILED in states else JobState.CANCELLED
    if states == {DiscState.PLANNED}:
        return JobState.READY
    return JobState.WAITING if waiting else JobState.BURNING
