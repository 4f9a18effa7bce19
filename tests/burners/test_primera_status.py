"""PTBurn's status files: what is told, and that nothing in them can be taken for what it is not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from burners.primera_status import JobSection, JobState, Step, folded, job_section, job_sections, robot_section, robots

SYSTEM = """
[RobotList]
Robot0=Bravo 4100
Robot1=Second

[System]
SysErrorString=No errors
SysErrorNumber=0
ServerTickCount=4711
DriveSpace=51200

[Bravo 4100]
RobotType=10
NumJobs=1
SysErrorNumber=6
SysErrorString=Ink low: magenta
DiscsInRightBin=42
DiscsInLeftBin=-1
CartridgeType0=Cyan
CartridgeFill0=80
CartridgeType1=Magenta
CartridgeFill1=3
"""

ROBOT = """
[JobList]
Job0=B12

[System]
DriveState0=0
DriveJob0=B12
DrivePercent0=37
DriveState1=0
DriveJob1=

[B12]
JobID=B12
ClientID=Burnish
JobsAhead=0
GoodDiscs=0
BadDiscs=1
CurrentStatus=Recording disc
CurrentStatusState=0
JobState=1
JobErrorNumber=0
DiscErrorIndex0=1
DiscErrorNumber0=18
"""


def job(text: str, job_id: str = "B12") -> JobSection | None:
    section = job_sections(folded(text)).get(job_id.lower())
    return None if section is None else job_section(section, job_id)


def test_a_job_and_the_drive_that_works_on_it() -> None:
    found = job(ROBOT, "b12")
    assert found is not None
    assert (found.state, found.step, found.good, found.bad, found.percent) == (
        JobState.RUNNING,
        Step.RECORDING,
        0,
        1,
        37,
    )
    assert found.disc_errors == ("recording error",)


def test_a_robot_and_its_supplies() -> None:
    robot = robot_section(folded(SYSTEM), folded(ROBOT), "bravo 4100")
    assert robot is not None
    assert (robot.error, robot.error_text, robot.beat) == (6, "Ink low: magenta", "4711")
    assert (robot.ink, robot.bins) == ({"Cyan": 80, "Magenta": 3}, {"right": 42})
    assert [drive["state"] for drive in robot.drives] == ["busy", "idle"]
    assert robots(folded(SYSTEM)) == ["Bravo 4100", "Second"]
    assert robot_section(folded(SYSTEM), {}, "Third") is None


def test_a_section_of_another_job_is_not_ours() -> None:
    assert job("[B12]\nJobID=B13\nJobState=2\nGoodDiscs=1\nBadDiscs=0") is None
    assert job("[B120]\nJobState=2") is None


def test_numbers_outside_their_list_say_nothing() -> None:
    found = job("[B12]\nJobState=9\nCurrentStatusState=-1\nGoodDiscs=1e3\nBadDiscs=two")
    assert found is not None
    assert (found.state, found.step, found.good, found.bad) == (None, None, None, None)


@given(st.text(max_size=2000))
def test_any_text_is_read(text: str) -> None:
    found = folded(text)
    robot_section(found, found, "Bravo 4100")
    for section in job_sections(found).values():
        job_section(section, "B12")


@given(st.integers(0, len(SYSTEM)), st.integers(0, len(ROBOT)))
def test_a_file_cut_anywhere_tells_no_more_than_the_whole(system: int, robot: int) -> None:
    """What a reader sees while the file is being written."""
    found = job(ROBOT[:robot])
    if found is not None:
        assert found.state in (None, JobState.RUNNING)
        assert found.good in (None, 0)
    machine = robot_section(folded(SYSTEM[:system]), {}, "Bravo 4100")
    if machine is not None:
        assert set(machine.ink) <= {"Cyan", "Magenta"} and machine.bins.get("right") in (None, 4, 42)
