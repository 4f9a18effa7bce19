"""The Epson dialect: text of orders, and what its status means."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from burners.base import BurnerOptionsError, BurnState, DriverState
from burners.epson import Epson, EpsonDialect
from burners.hotfolder_dialect import Phase, RobotJob, RobotOrder, RobotState, RobotStatus, StatusFolder
from burners.hotfolder_text import read_ini, render
from tests.burners import stf
from tests.burners.orders import order
from tests.waiting import wait_for

GIVEN = RobotOrder(
    job_id="B123-D1",
    image=r"\\robot\jobs\burnish\B123-D1\image.iso",
    folder=r"\\robot\jobs\burnish\B123-D1",
    volume_id="BURNISH_0000001",
    family="CD",
    sectors=1000,
)


def said(**keys: str) -> dict[str, str]:
    return {**stf.DONE, **keys}


def judged(suffixes: set[str], keys: dict[str, str] | None) -> RobotJob:
    jobs = {"J": keys} if keys is not None else {}
    status = RobotStatus(RobotState.READY, jobs=jobs | {"PUBLISHER1": stf.MACHINE})
    return EpsonDialect({}, []).judge("J", frozenset(suffixes), status)


def text(dialect: EpsonDialect, given: RobotOrder) -> list[str]:
    return render(dialect.template, dialect.fields(given), escape=dialect.escape).splitlines()


def test_the_text_of_an_order() -> None:
    assert text(EpsonDialect({}, []), GIVEN) == [
        "# Burnish",
        "JOB_ID=B123-D1",
        "COPIES=1",
        "DISC_TYPE=CD",
        "COMPARE=YES",
        "CLOSE_DISC=YES",
        r"IMAGE=\\robot\jobs\burnish\B123-D1\image.iso",
    ]


def test_every_option_is_in_the_order() -> None:
    faults: list[str] = []
    options: dict[str, Any] = {
        "publisher": "PP-100II 1",
        "out_stacker": 4,
        "writing_speed": 16,
        "compare": False,
        "priority": "HIGH",
        "label_type": 2,
        "print_mode": 1,
    }
    dialect = EpsonDialect(options, faults)
    assert not faults
    given = replace(GIVEN, label=r"C:\site.tdd", label_is_design=True, label_fields={"patient": "Doe John, jr"})
    assert [(one.name, one.text) for one in dialect.companions(given)] == [("label.dat", "patient=Doe John, jr\n")]
    given = replace(given, files={"label.dat": r"\\robot\label.dat"})
    assert set(text(dialect, given)) >= {
        "PUBLISHER=PP-100II 1",
        "OUT_STACKER=4",
        "WRITING_SPEED=16",
        "COMPARE=NO",
        r"LABEL=C:\site.tdd",
        r"REPLACE_FIELD=\\robot\label.dat",
        "LABEL_TYPE=2",
        "PRINT_MODE=1",
        "PRIORITY=HIGH",
    }


@pytest.mark.parametrize(
    ("family", "sectors", "disc_type"),
    [("CD", 1, "CD"), ("DVD", 1, "DVD"), ("DVD", 2_298_497, "DVD-DL"), ("BD", 1, "BD"), ("BD", 12_300_000, "BD-DL")],
)
def test_the_kind_of_disc(family: str, sectors: int, disc_type: str) -> None:
    given = replace(GIVEN, family=family, sectors=sectors)
    assert f"DISC_TYPE={disc_type}" in text(EpsonDialect({}, []), given)


def test_wrong_options_are_all_told(tmp_path: Path) -> None:
    wrong = {"out_stacker": 3, "writing_speed": True, "compare": "yes", "priority": "LOW", "in_stackers": [7]}
    with pytest.raises(BurnerOptionsError) as told:
        Epson("r", Epson.example(tmp_path) | wrong, data=tmp_path)
    for key in wrong:
        assert key in str(told.value)


@pytest.mark.parametrize(
    ("suffixes", "keys", "phase"),
    [
        (set(), None, Phase.ABSENT),
        ({".JDF"}, None, Phase.OFFERED),
        ({".RJD"}, {"STATUS": "1", "ERROR": ""}, Phase.QUEUED),
        ({".INP"}, None, Phase.QUEUED),
        ({".INP"}, said(STATUS="1", DETAIL_STATUS="2", COMPLETION_NUMBER="0"), Phase.QUEUED),
        ({".INP"}, said(STATUS="2", DETAIL_STATUS="3", COMPLETION_NUMBER="0"), Phase.WORKING),
        ({".STP"}, None, Phase.PAUSED),
        ({".INP"}, said(STATUS="3", DETAIL_STATUS="7", COMPLETION_NUMBER="0"), Phase.PAUSED),
        # The status is ahead of the rename: not before both agree.
        ({".INP"}, said(), Phase.QUEUED),
        ({".DON"}, said(), Phase.GOOD),
        ({".DON"}, said(DETAIL_STATUS="10"), Phase.GOOD),
        # DON is no success by itself.
        ({".DON"}, None, Phase.ENDED),
        ({".DON"}, {}, Phase.ENDED),
        ({".DON"}, {"STATUS": "1", "ERROR": ""}, Phase.ENDED),
        ({".DON"}, said(STATUS="2", DETAIL_STATUS="3"), Phase.ENDED),
        ({".DON"}, said(STATUS="99", DETAIL_STATUS="99"), Phase.ENDED),
        ({".DON"}, said(DETAIL_STATUS="99"), Phase.ENDED),
        ({".DON"}, said(STATUS="x"), Phase.ENDED),
        ({".DON"}, said(COMPLETION_NUMBER="-1"), Phase.ENDED),
        ({".DON"}, said(COMPLETION_NUMBER="0"), Phase.ENDED),
        ({".DON"}, said(ERROR="PUB001"), Phase.ENDED),
        ({".DON"}, said(DETAIL_STATUS="11", ERRORDISC_NUMBER="1"), Phase.BAD),
        ({".DON"}, said(ERRORDISC_NUMBER="1"), Phase.BAD),
        ({".DON"}, said(DETAIL_STATUS="12", COMPLETION_NUMBER="0"), Phase.CANCELLED),
        ({".DON"}, said(DETAIL_STATUS="12"), Phase.BAD),
        ({".DON", ".CDN"}, None, Phase.CANCELLED),
        ({".DON"}, said(DETAIL_STATUS="13", COMPLETION_NUMBER="0"), Phase.BAD),
        ({".DON"}, said(STATUS="5", DETAIL_STATUS="11"), Phase.BAD),
        ({".ERR"}, None, Phase.BAD),
        ({".ERR"}, said(STATUS="6", DETAIL_STATUS="14", ERROR="JDF0500"), Phase.BAD),
        # Its file is gone: what the status says holds.
        (set(), said(), Phase.GOOD),
        (set(), said(STATUS="2", DETAIL_STATUS="3", COMPLETION_NUMBER="0"), Phase.WORKING),
        (set(), said(STATUS="5"), Phase.BAD),
        # Without DETAIL_STATUS (older versions) the count tells.
        ({".DON"}, {key: value for key, value in stf.DONE.items() if key != "DETAIL_STATUS"}, Phase.GOOD),
    ],
)
def test_what_becomes_of_an_order(suffixes: set[str], keys: dict[str, str] | None, phase: Phase) -> None:
    assert judged(suffixes, keys).state is phase


def test_codes_are_shown() -> None:
    job = judged({".ERR"}, said(STATUS="6", DETAIL_STATUS="14", ERROR="JDF0500"))
    assert job.message == "refused, error JDF0500, STATUS 6"


def test_a_status_that_is_cut_anywhere_never_makes_a_good_disc() -> None:
    endings = [
        said(DETAIL_STATUS="12", COMPLETION_NUMBER="0"),
        said(DETAIL_STATUS="11", ERRORDISC_NUMBER="1"),
        said(DETAIL_STATUS="99"),
        said(STATUS="5", COMPLETION_NUMBER="0"),
    ]
    for keys in endings:
        whole = stf.text({"J": keys})
        for cut in range(len(whole)):
            read = whole[:cut].replace("\r\n", "\n")
            sections = read_ini(read[: read.rfind("\n") + 1])
            status = RobotStatus(RobotState.READY, jobs=sections)
            job = EpsonDialect({}, []).judge("J", frozenset({".DON"}), status)
            assert job.state is not Phase.GOOD, whole[:cut]


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        ({"INK_Y": "0"}, "ink yellow"),
        ({"STACKER1": "0"}, "no blanks in stacker 1"),
        ({"PRINTER_STATUS": "5"}, "printer"),
        ({"DRIVE1_STATUS": "2"}, "no drive is fit"),
        ({"DRIVE1_LIFE": "100"}, "no drive is fit"),
        ({"MAINTENANCE_BOX_FREE_SPACE": "0"}, "maintenance box"),
    ],
)
def test_what_is_missing(machine: dict[str, str], reason: str, tmp_path: Path) -> None:
    robot = Epson("r", Epson.example(tmp_path / "robot"), data=tmp_path)
    stf.write(tmp_path / "robot", machine=machine)
    status = robot.probe()
    assert status.state is DriverState.WAITING, "it is there; it only waits"
    assert reason in status.reason
    assert status.supplies["ink_percent"]["cyan"] == 70
    assert status.drives[0]["name"] == "drive 1"


def test_unknown_levels_are_nothing_missing(tmp_path: Path) -> None:
    robot = Epson("r", Epson.example(tmp_path / "robot"), data=tmp_path)
    stf.write(tmp_path / "robot", machine={"STACKER1": "-1", "INK_Y": "", "INFO1": "HST3001"})
    status = robot.probe()
    assert (status.state, status.reason) == (DriverState.READY, f"folder {tmp_path / 'robot'}")
    assert status.supplies["codes"] == ["HST3001"]


def test_a_machine_by_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "robot"
    robot = Epson("r", Epson.example(folder) | {"publisher": "PP-100II 2"}, data=tmp_path)
    stf.write(folder)
    assert robot.probe().state is DriverState.OFFLINE
    assert "names no publisher 'PP-100II 2'" in robot.probe().reason
    stf.write(folder, machine={"NAME": "PP-100II 2", "INK_C": "0"})
    wait_for(lambda: "cyan" in robot.probe().reason, "the machine to be seen")


def test_a_status_in_any_case_and_with_blanks(tmp_path: Path) -> None:
    (tmp_path / "tdbstatus.TXT").write_bytes(b"\xef\xbb\xbf[ PUBLISHER1 ]\r\nNAME = X \r\nrubbish\r\nINK_C=5\r\nINK_M=")
    dialect = EpsonDialect({}, [])
    status = dialect.status(StatusFolder(tmp_path, code_page="utf-8"))
    assert status.supplies == {"ink_percent": {"cyan": 5}}


def test_cancelled_at_the_machine_is_a_failure_and_by_us_is_not(tmp_path: Path) -> None:
    for asked in (False, True):
        folder = tmp_path / f"robot{asked}"
        robot = Epson("r", Epson.example(folder), data=tmp_path)
        stf.write(folder)
        given = order()
        ticket = robot.prepare(given)
        robot.submit(given, ticket)
        job_id = ticket["mark"]
        wait_for((folder / f"{job_id}.JDF").exists, "the order")
        (folder / f"{job_id}.JDF").rename(folder / f"{job_id}.INP")
        wait_for(lambda robot=robot, ticket=ticket: robot.poll(ticket).state is BurnState.QUEUED, "it to be seen")
        if asked:
            robot.cancel(ticket)
            robot.poll(ticket)
            assert (folder / f"{job_id}.JCF").read_bytes() == f"[CANCEL]\r\nJOB_ID={job_id}\r\n".encode()
        (folder / f"{job_id}.INP").rename(folder / f"{job_id}.DON")
        stf.write(folder, {job_id: said(DETAIL_STATUS="12", COMPLETION_NUMBER="0")})
        wait_for(lambda robot=robot, ticket=ticket: robot.poll(ticket).state.ended, "the end")
        report = robot.poll(ticket)
        assert report.state is (BurnState.CANCELLED if asked else BurnState.FAILED)
        assert "cancelled" in report.message
