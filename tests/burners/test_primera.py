"""Orders for PTBurn, what its files and status mean, and a simulated PTBurn with its own faults."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from burners.base import BurnerOptionsError, BurnState, DriverState, Outcome, Ticket
from burners.hotfolder_dialect import Phase, RobotJob, RobotState, StatusFolder
from burners.hotfolder_options import check
from burners.hotfolder_papers import Papers
from burners.primera import Primera, PrimeraDialect
from burners.primera_label import to_bmp
from tests.burners.orders import an_image, ended, order
from tests.burners.robots import Running
from tests.waiting import wait_for

ROBOT_PATH = r"\\robot\jobs"
KEYS = ["JobID", "ClientID", "ImageFile", "Copies", "CloseDisc", "RejectIfNotBlank", "VerifyDisc", "DeleteFiles"]


def options(folder: Path, **more: Any) -> dict[str, Any]:
    return Primera.example(folder) | more


def papers(folder: Path, patient: Mapping[str, str], **more: Any) -> str:
    """The text of an order for a disc with such a label."""
    checked, dialect = check(options(folder, **more), folder, PrimeraDialect)
    place = checked.images / "B12-D1"
    place.mkdir(parents=True, exist_ok=True)
    ticket: Ticket = {"mark": "B12-D1", "volume_id": "BURNISH_0000001", "family": "CD"}
    text, _ = Papers(checked, dialect).order(order(label=patient), ticket, place)
    return text


def lines(text: str) -> list[list[str]]:
    return [line.split(" = ", 1) for line in text.removesuffix("\n").split("\n")]


def test_an_order_says_what_it_must(tmp_path: Path) -> None:
    found = dict(lines(papers(tmp_path, {})))
    assert list(found) == KEYS
    assert found["ImageFile"] == r"\\robot\jobs\burnish\B12-D1\image.iso"
    assert (found["Copies"], found["RejectIfNotBlank"], found["CloseDisc"], found["VerifyDisc"]) == (
        "1",
        "YES",
        "YES",
        "YES",
    )


@given(st.dictionaries(st.sampled_from(["patient_name", "patient_id"]), st.text(max_size=300)))
def test_no_patient_can_add_a_line_or_a_key(patient: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        more = {"label": r"C:\design.std", "merge": ["patient_name", "patient_id", "study_date"]}
        found = lines(papers(Path(folder), patient, **more))
    keys = [key for key, _ in found]
    merged = [value for key, value in found if key == "MergeField"]
    assert [key for key in keys if key != "MergeField"] == [*KEYS, "PrintLabel"]
    assert len(merged) == (3 if any(merged) else 0)
    assert not any(character in value for value in merged for character in "\r\n\t,\x85\u2028\0")


@pytest.mark.parametrize(
    "name",
    ["A\nJobID = X", "A\r\nDeleteFiles = YES", "A\x85Copies = 9", "A\u2028Copies = 9", "A\x0bB", "A\0B", "A,B\tC"],
)
def test_names_that_try(tmp_path: Path, name: str) -> None:
    text = papers(tmp_path, {"patient_name": name}, label=r"C:\design.std", merge=["patient_name"])
    assert [key for key, _ in lines(text)].count("MergeField") == 1
    assert len(text.splitlines()) == len(KEYS) + 2


def test_a_code_page_for_the_names(tmp_path: Path) -> None:
    text = papers(tmp_path, {"patient_name": "山田^太郎"}, label=r"C:\d.std", merge=["patient_name"], code_page="cp932")
    assert "MergeField = 山田^太郎" in text
    text = papers(tmp_path, {"patient_name": "山田 Łuk"}, label=r"C:\d.std", merge=["patient_name"])
    assert "MergeField = ?? ?uk" in text


def test_wrong_options_are_all_told(tmp_path: Path) -> None:
    wrong = {
        "robot": "a/b",
        "client_id": "a b",
        "bin": 3,
        "importance": True,
        "verify": "yes",
        "merge": "x",
        "speed": -1,
    }
    with pytest.raises(BurnerOptionsError) as raised:
        Primera("b1", options(tmp_path, **wrong), data=tmp_path)
    assert all(f"{key}:" in str(raised.value) for key in wrong)


# What files and status mean.

_SYSTEM = (
    "[RobotList]\nRobot0=Bravo\nRobot1=Disc\n[System]\nSysErrorNumber={error}\nServerTickCount=7\n[Bravo]\n[Disc]\n"
)


def judged(folder: Path, suffixes: str, job: str, *, other: str = "", error: int = 0) -> RobotJob:
    (folder / "status").mkdir(exist_ok=True)
    (folder / "status" / "SYSTEMSTATUS.TXT").write_text(_SYSTEM.format(error=error))
    (folder / "status" / "bravo.txt").write_text(f"[b12-d1]\n{job}\n" if job else "")
    (folder / "status" / "Disc.txt").write_text(f"[B12-D1]\n{other}\n" if other else "")
    dialect = PrimeraDialect({}, [])
    status = dialect.status(StatusFolder(folder, code_page="cp1252"))
    assert status.state is (RobotState.READY if error == 0 else RobotState.WAITING)
    return dialect.judge("B12-D1", frozenset(suffixes.split()), status)


GOOD = "JobState=2\nCurrentStatusState=10\nGoodDiscs=1\nBadDiscs=0\nJobErrorNumber=0"
RUNNING = "JobState=1\nCurrentStatusState=0\nGoodDiscs=0\nBadDiscs=0\nJobErrorNumber=0"


@pytest.mark.parametrize(
    ("suffixes", "job", "state"),
    [
        ("", "", Phase.ABSENT),
        (".JRQ", "", Phase.OFFERED),
        (".QRJ", "", Phase.QUEUED),
        (".QRJ", "JobState=0", Phase.QUEUED),
        (".INP", "", Phase.WORKING),
        (".INP", RUNNING, Phase.WORKING),
        (".INP .PTM", RUNNING, Phase.WORKING),
        (".INP", "JobState=1\nCurrentStatusState=11", Phase.PAUSED),
        (".INP", GOOD, Phase.WORKING),  # its name will say so in a moment
        (".DON", GOOD, Phase.GOOD),
        ("", GOOD, Phase.GOOD),  # removed after Status_Time
        ("", RUNNING, Phase.WORKING),
        (".DON", "", Phase.ENDED),
        (".DON", RUNNING, Phase.ENDED),
        (".DON", "JobState=2\nGoodDiscs=1", Phase.ENDED),
        (".DON", GOOD.replace("BadDiscs=0", "BadDiscs=x"), Phase.ENDED),
        (".DON", GOOD.replace("BadDiscs=0", "BadDiscs=1"), Phase.BAD),
        (".DON", GOOD.replace("GoodDiscs=1", "GoodDiscs=0"), Phase.BAD),
        (".DON", GOOD.replace("GoodDiscs=1", "GoodDiscs=2"), Phase.BAD),
        (".DON", GOOD.replace("State=10", "State=13"), Phase.BAD),
        (".DON", GOOD.replace("State=10", "State=15"), Phase.BAD),
        (".DON", GOOD.replace("ErrorNumber=0", "ErrorNumber=19"), Phase.BAD),
        (".DON", GOOD.replace("JobState=2", "JobState=3"), Phase.BAD),
        (".DON", GOOD.replace("JobState=2", "JobState=7"), Phase.ENDED),
        (".DON", GOOD + "\nJobID=B13", Phase.ENDED),
        (".ERR", GOOD, Phase.BAD),
        (".ERR .DON", GOOD, Phase.BAD),
        (".ERR", "", Phase.ENDED),
        (".ERR", "JobState=3\nCurrentStatusState=13\nGoodDiscs=0\nBadDiscs=1", Phase.CANCELLED),
        (".ERR", "JobState=3\nJobErrorNumber=16", Phase.CANCELLED),
        (".ERR", "JobState=3\nCurrentStatusState=13\nGoodDiscs=1\nBadDiscs=0", Phase.BAD),
        (".ERR", "JobState=3\nJobErrorNumber=20", Phase.BAD),
        (".TMP", "", Phase.ABSENT),
    ],
)
def test_what_a_job_is(tmp_path: Path, suffixes: str, job: str, state: Phase) -> None:
    assert judged(tmp_path, suffixes, job).state is state


def test_a_job_that_was_moved_to_another_robot(tmp_path: Path) -> None:
    assert judged(tmp_path, ".DON", "JobState=4", other=GOOD).state is Phase.GOOD
    assert judged(tmp_path, ".INP", "JobState=4", other=RUNNING).message == "recording"
    assert judged(tmp_path, ".DON", "JobState=4").state is Phase.ENDED


@given(st.text(alphabet=st.sampled_from("[]=B12-D1\nJobStateGdiscBErNumr0259x "), max_size=200))
def test_rubbish_is_never_a_good_disc(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = judged(Path(folder), ".DON", text)
    assert found.state is Phase.ENDED or "JobState" in text


@given(st.integers(0, len(GOOD)), st.integers(0, len(GOOD)))
def test_a_status_with_a_hole_is_never_better_than_the_whole(start: int, end: int) -> None:
    """A bad disc's status, read while it is written over."""
    bad = GOOD.replace("BadDiscs=0", "BadDiscs=1")
    with tempfile.TemporaryDirectory() as folder:
        assert judged(Path(folder), ".DON", bad[: min(start, end)] + bad[max(start, end) :]).state is not Phase.GOOD


def test_no_status_is_offline(tmp_path: Path) -> None:
    found = PrimeraDialect({}, []).status(StatusFolder(tmp_path, code_page="cp1252"))
    assert found.state is RobotState.OFFLINE and "PTBurn does not run" in found.reason
    judged(tmp_path, "", "")
    found = PrimeraDialect({"robot": "Other"}, []).status(StatusFolder(tmp_path, code_page="cp1252"))
    assert found.state is RobotState.OFFLINE and "Bravo, Disc" in found.reason


def test_a_label_becomes_a_bitmap() -> None:
    import imagecodecs

    picture = numpy.zeros((4, 6, 4), numpy.uint8)
    picture[:, :, 0], picture[:, :, 3] = 200, 255
    picture[0, 0] = 0  # transparent: the disc's white
    png = imagecodecs.png_encode(picture)
    found = imagecodecs.bmp_decode(to_bmp(png))
    assert found.shape == (4, 6, 3)
    assert list(found[0, 0]) == [255, 255, 255] and list(found[1, 1]) == [200, 0, 0]
    assert int.from_bytes(to_bmp(png)[38:42], "little") == 50  # 6 pixels over a disc of 120 mm
    physical = b"pHYs" + (11811).to_bytes(4, "big") * 2 + b"\x01"
    chunk = (9).to_bytes(4, "big") + physical + zlib.crc32(physical).to_bytes(4, "big")
    assert int.from_bytes(to_bmp(png[:33] + chunk + png[33:])[38:42], "little") == 11811  # 300 dpi
    for rubbish in (b"", b"\x89PNG\r\n\x1a\n" + bytes(40), b"%PDF-1.7"):
        with pytest.raises(ValueError, match="label"):
            to_bmp(rubbish)


# With the simulated robot.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "jobs"


def _draw(path: Path, printer: str) -> None:
    import imagecodecs

    path.write_bytes(imagecodecs.png_encode(numpy.zeros((8, 8, 3), numpy.uint8)))


@pytest.fixture
def robot(folder: Path, request: pytest.FixtureRequest) -> Iterator[Running]:
    faults = getattr(request, "param", ())
    with Running.on("primera", folder, options(folder), faults=faults) as running:
        yield running


def test_a_disc_with_its_label(folder: Path, robot: Running) -> None:
    burner = Primera("b1", options(folder), data=folder)
    given_order = order(write_label=_draw)
    ticket = burner.prepare(given_order)
    burner.submit(given_order, ticket)
    report = ended(burner, ticket)
    assert report.state is BurnState.BURNT, report.message
    [disc] = robot.discs()
    chunks: list[bytes] = []
    an_image().write(lambda data: chunks.append(bytes(data)))
    assert disc.read_bytes() == b"".join(chunks)
    assert disc.with_suffix(".bmp").read_bytes().startswith(b"BM")
    status = burner.probe()
    assert status.state is DriverState.READY
    assert status.supplies["ink"] == {"Color": 100}
    wait_for(lambda: burner.probe().supplies["bins"] == {"right": 49}, "the bin to be counted")
    assert len(status.drives) == 2
    assert burner.finish(ticket, Outcome.GOOD) == "output of b1"


@pytest.mark.parametrize("robot", [("rejected-disc",)], indirect=True)
def test_a_good_disc_after_a_rejected_one_is_no_success(folder: Path, robot: Running) -> None:
    """Two discs left the input for one that was ordered: a person has to look which is which."""
    burner = Primera("b1", options(folder), data=folder)
    ticket = burner.prepare(order())
    burner.submit(order(), ticket)
    report = ended(burner, ticket)
    assert report.state is BurnState.FAILED
    assert "1 good and 1 bad" in report.message and "not blank" in report.message
    assert burner.finish(ticket, Outcome.BAD) == ""


def test_cancelled_by_message(folder: Path, robot: Running) -> None:
    robot.burns_until_cancelled()
    burner = Primera("b1", options(folder), data=folder)
    given_order = order(an_image(size=3 << 20))
    ticket = burner.prepare(given_order)
    burner.submit(given_order, ticket)
    wait_for(lambda: any(folder.glob("*.INP")), "the robot to burn")
    burner.cancel(ticket)
    report = ended(burner, ticket)
    assert report.state is BurnState.CANCELLED, report.message
    assert not robot.discs()


def test_an_order_that_ptburn_may_have_read_is_not_renamed_away(folder: Path) -> None:
    with Running.on("primera", folder, options(folder)) as robot:
        robot.takes_nothing()
        burner = Primera("b1", options(folder), data=folder)
        ticket = burner.prepare(order())
        burner.submit(order(), ticket)
        wait_for(lambda: any(folder.glob("*.JRQ")), "the order")
        burner.cancel(ticket)
        report = ended(burner, ticket)
        assert report.state is BurnState.CANCELLED
        assert "cancelled by the robot" in report.message
        assert not robot.discs() and not any(folder.glob("*.PTM"))
