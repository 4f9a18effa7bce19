"""What a person must do is told by the job, for each disc that waits, as long as it waits."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from burners.base import BurnReport, BurnState, Ticket
from burners.registry import Burners
from store import jobs
from store.states import JobState
from tests.fakes import FakeRobot
from tests.jobs.conftest import House
from tests.jobs.test_workflow import document, with_robot
from tests.waiting import wait_for


def test_what_is_needed_is_told_anew_when_it_changes_and_not_any_more_at_the_end(house: House) -> None:
    robot = with_robot(house, out_of_ink=True)
    wishes = ["out of ink"]
    tell = robot.poll

    def poll(ticket: Ticket) -> BurnReport:
        report = tell(ticket)
        return BurnReport(report.state, message=wishes[0]) if report.state is BurnState.WAITING else report

    robot.poll = poll  # type: ignore[method-assign]
    house.receive(2)
    job_id = house.order()
    engine = house.engine()
    engine.start()
    wait_for(lambda: document(house, job_id)["state"] == "WAITING", "the job to wait")
    assert document(house, job_id)["needs"] == [{"disc": "D1", "what": "out of ink"}]
    wishes[0] = "out of blanks"
    wait_for(lambda: document(house, job_id)["needs"] == [{"disc": "D1", "what": "out of blanks"}], "the new wish")
    assert document(house, job_id)["progress"]["phase"] == "waiting: out of blanks"
    robot.out_of_ink = False
    assert engine.wait(job_id, timeout=120) is JobState.DONE
    assert document(house, job_id)["needs"] == []


class OneWaits(FakeRobot):
    """Of two discs the first waits for a person, and the second is burnt."""

    def poll(self, ticket: Ticket) -> BurnReport:
        with self.one_at_a_time:
            self.out_of_ink = "-D1-" in ticket["order"] and self.wanting
            return super().poll(ticket)

    wanting = True
    one_at_a_time = threading.Lock()


def test_a_job_waits_as_long_as_one_of_its_discs_does(house: House) -> None:
    robot = OneWaits("iso", {"folder": "robot", "slots": 2}, data=house.data)
    house.burners = Burners({"iso": robot})
    house.receive(2)
    job_id = house.order(copies=2)
    engine = house.engine()
    engine.start()

    def states() -> list[Any]:
        return [disc["state"] for disc in document(house, job_id)["discs"]]

    wait_for(lambda: states()[1:] == ["VERIFIED"], "the second disc")
    found = document(house, job_id)
    assert found["state"] == "WAITING" and [need["disc"] for need in found["needs"]] == ["D1"]
    robot.wanting = False
    assert engine.wait(job_id, timeout=120) is JobState.DONE


def test_a_failed_job_says_how_it_is_done_again(house: House) -> None:
    with_robot(house, spoil=True)
    house.receive(2)
    job_id = house.order()
    engine = house.engine()
    engine.start()
    assert engine.wait(job_id, timeout=120) is JobState.FAILED
    (need,) = document(house, job_id)["needs"]
    assert need["disc"] == "D1" and "burnish retry J1" in need["what"]


class CutOff(FakeRobot):
    """Its discs fail, and it cannot say whether they are discs."""

    def poll(self, ticket: Ticket) -> BurnReport:
        report = super().poll(ticket)
        return replace(report, undecided=True)


@pytest.mark.parametrize("decision", ["retry", "cancel"])
def test_a_job_waits_until_a_person_has_decided_about_a_disc_that_nobody_can_answer_for(
    house: House, decision: str
) -> None:
    robot = CutOff("iso", {"folder": "robot", "spoil": True}, data=house.data)
    house.burners = Burners({"iso": robot})
    house.receive(2)
    job_id = house.order()
    engine = house.engine()
    engine.start()
    wait_for(lambda: document(house, job_id)["state"] == "WAITING", "the job to ask")
    found = document(house, job_id)
    (need,) = found["needs"]
    assert found["discs"][0]["state"] == "FAILED" and found["finished"] is None
    assert "write error" in need["what"] and "burnish retry J1" in need["what"] and "burnish cancel J1" in need["what"]
    robot.spoil = False
    with house.db.begin() as session:
        (jobs.retry if decision == "retry" else jobs.request_cancel)(session, job_id)
    if decision == "retry":
        assert engine.wait(job_id, timeout=120) is JobState.DONE
        assert document(house, job_id)["discs"][0]["attempt"] == 2
    else:
        assert document(house, job_id)["state"] == "FAILED" and len(robot.made()) == 0
