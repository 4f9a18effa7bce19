"""The transition tables, pair by pair, and a job's state from its discs'."""

from __future__ import annotations

import itertools

import pytest

from store.states import (
    DISC_FINAL,
    JOB_FINAL,
    JOB_PREPARING,
    DiscState,
    IllegalTransition,
    JobState,
    check_disc,
    check_job,
    job_state_of,
)

LEGAL_JOB = """
QUEUED PLANNING | QUEUED FAILED | QUEUED CANCELLED
PLANNING CONFORMING | PLANNING READY | PLANNING FAILED | PLANNING CANCELLED
CONFORMING READY | CONFORMING FAILED | CONFORMING CANCELLED
READY BURNING | READY FAILED | READY CANCELLED
BURNING WAITING | BURNING DONE | BURNING FAILED | BURNING CANCELLED
WAITING BURNING | WAITING DONE | WAITING FAILED | WAITING CANCELLED | WAITING READY
FAILED QUEUED | FAILED READY
CANCELLED QUEUED | CANCELLED READY
"""
LEGAL_DISC = """
PLANNED SUBMITTED | PLANNED FAILED | PLANNED CANCELLED
SUBMITTED BURNING | SUBMITTED BURNT | SUBMITTED FAILED | SUBMITTED CANCELLED
BURNING BURNT | BURNING FAILED | BURNING CANCELLED
BURNT VERIFYING | BURNT FAILED | BURNT CANCELLED
VERIFYING VERIFIED | VERIFYING FAILED | VERIFYING CANCELLED
"""


def pairs(text: str) -> set[tuple[str, str]]:
    found = [tuple(pair.split()) for line in text.strip().splitlines() for pair in line.split("|")]
    return {(old, new) for old, new in found}


@pytest.mark.parametrize(("old", "new"), itertools.product(JobState, JobState))
def test_each_pair_of_job_states(old: JobState, new: JobState) -> None:
    if (old.value, new.value) in pairs(LEGAL_JOB):
        check_job(old, new)
    else:
        with pytest.raises(IllegalTransition):
            check_job(old, new)


@pytest.mark.parametrize(("old", "new"), itertools.product(DiscState, DiscState))
def test_each_pair_of_disc_states(old: DiscState, new: DiscState) -> None:
    if (old.value, new.value) in pairs(LEGAL_DISC):
        check_disc(old, new)
    else:
        with pytest.raises(IllegalTransition):
            check_disc(old, new)


def test_the_final_states() -> None:
    assert {DiscState.VERIFIED, DiscState.FAILED, DiscState.CANCELLED} == DISC_FINAL
    assert {JobState.DONE, JobState.FAILED, JobState.CANCELLED} == JOB_FINAL


@pytest.mark.parametrize("states", itertools.combinations_with_replacement(DiscState, 3))
def test_a_jobs_state_follows_from_its_discs(states: tuple[DiscState, ...]) -> None:
    found = job_state_of(states)
    assert (found is JobState.DONE) == all(state is DiscState.VERIFIED for state in states)
    assert (found in JOB_FINAL) == all(state in DISC_FINAL for state in states)
    if found is JobState.FAILED:
        assert DiscState.FAILED in states
    if found is JobState.CANCELLED:
        assert DiscState.CANCELLED in states and DiscState.FAILED not in states
    assert (found is JobState.READY) == all(state is DiscState.PLANNED for state in states)
    assert found not in JOB_PREPARING
    waiting = job_state_of(states, waiting=True)
    assert waiting is (JobState.WAITING if found in (JobState.BURNING, JobState.FAILED) else found)


def test_a_job_without_discs_has_no_such_state() -> None:
    with pytest.raises(ValueError, match="discs"):
        job_state_of([])
