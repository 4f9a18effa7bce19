"""Orders for Rimage, as text and as XML; what files and status mean; simulated systems with their own faults."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burners.base import BurnerOptionsError, BurnRefused, BurnState, DriverState, Outcome, Ticket
from burners.hotfolder import HotFolder
from burners.hotfolder_dialect import Phase, RobotJob, RobotState, StatusFolder
from burners.hotfolder_merge import MERGE_FILE
from burners.hotfolder_options import check
from burners.hotfolder_papers import Papers
from burners.rimage import Rimage, RimageTextDialect
from burners.rimage_orders import RimageXml, RimageXmlDialect
from burners.rimage_xml import Element, parse
from tests.burners.orders import ended, order
from tests.burners.robots import Running
from tests.waiting import wait_for

NASTY = [
    "A\nfile=C:\\secret",
    'A","B',
    "A,B",
    "A\tB",
    "A\x85copies=9",
    '"><WriteTrack Filename="x"/>',
    "]]>&lt;&#10;",
    "A\u2028B\u202eC",
    "=cmd|' /C calc'!A0",
]
DESIGN = r"D:\labels\a & b.btw"


def papers(
    kind: type[HotFolder], folder: Path, patient: Mapping[str, str] | None = None, *, medium: str = "", **more: Any
) -> tuple[str, str]:
    """The text of an order for a disc with such a label, and that of its merge file."""
    checked, dialect = check(kind.example(folder) | more, folder, kind.dialect)
    place = checked.images / "B12-D1"
    place.mkdir(parents=True, exist_ok=True)
    written = Papers(checked, dialect)
    given_order = order(label=patient or {}, medium=medium)
    ticket: Ticket = {"mark": "B12-D1", "volume_id": "BURNISH_0000001", "family": written.family(given_order)}
    text, _ = written.order(given_order, ticket, place)
    merge = place / MERGE_FILE
    return text, merge.read_bytes().decode("utf-8-sig") if merge.exists() else ""


def xml(text: str) -> Element:
    return parse(text.encode("ascii"))


# Orders.


def test_a_text_order(tmp_path: Path) -> None:
    text, merge = papers(Rimage, tmp_path)
    assert text.splitlines() == [
        "order_id=B12-D1",
        "filetype=IMAGE",
        r"file=\\robot\jobs\burnish\B12-D1\image.iso",
        "copies=1",
    ]
    assert merge == ""


def test_an_xml_order(tmp_path: Path) -> None:
    root = xml(papers(RimageXml, tmp_path, input_bin="2", dtd=r"\\HOST\Rimage\XML\ProductionOrder_1.10.DTD")[0])
    assert root.attributes == {"OrderId": "B12-D1", "ClientId": "Burnish", "Copies": "1"}
    assert [each.name for each in root.children] == ["Media", "Target", "InOut", "Action", "Action"]
    [track] = root.all("WriteTrack")
    assert track.attributes["Filename"] == r"\\robot\jobs\burnish\B12-D1\image.iso"
    assert root.all("Fixate")[0].attributes == {"Type": "SAO", "Final": "true"}
    assert root.all("Media")[0].attributes == {"Type": "CDR"}


def test_a_design_with_its_fields(tmp_path: Path) -> None:
    patient = {"patient_name": "DOE, JOHN", "patient_id": "山"}
    more = {"label": DESIGN, "merge": ["patient_name", "study_date", "patient_id"]}
    text, merge = papers(RimageXml, tmp_path, patient, **more)
    [label] = xml(text).all("Label")
    assert label.attributes["Filename"] == DESIGN
    assert label.children[0].attributes["Merge_Filename"] == r"\\robot\jobs\burnish\B12-D1\merge.txt"
    assert merge == "DOE JOHN,,山\r\n"
    assert b"DOE" not in text.encode()
    text, merge = papers(Rimage, tmp_path, patient, **more)
    assert rf"label={DESIGN}" in text.splitlines()
    assert r"merge=\\robot\jobs\burnish\B12-D1\merge.txt" in text.splitlines()


@pytest.mark.parametrize("kind", [Rimage, RimageXml])
@pytest.mark.parametrize("name", NASTY)
def test_names_that_try(kind: type[HotFolder], tmp_path: Path, name: str) -> None:
    more = {"label": DESIGN, "merge": ["patient_name", "patient_id"]}
    plain, _ = papers(kind, tmp_path, {"patient_name": "DOE", "patient_id": "1"}, **more)
    text, merge = papers(kind, tmp_path, {"patient_name": name, "patient_id": "1"}, **more)
    assert text == plain
    [row] = csv.reader(merge.splitlines())
    assert len(row) == 2 and row[1] == "1"
    assert len(merge.splitlines()) == 1


@given(st.text(max_size=300), st.text(max_size=300))
def test_no_patient_can_add_a_field(name: str, number: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        more = {"label": DESIGN, "merge": ["patient_name", "patient_id"]}
        text, merge = papers(RimageXml, Path(folder), {"patient_name": name, "patient_id": number}, **more)
        plain, _ = papers(RimageXml, Path(folder), {}, **more)
    assert text == plain
    assert merge.count(",") == 1 and merge.count("\n") == 1 and '"' not in merge and "\t" not in merge


def test_media_that_the_server_has_words_for(tmp_path: Path) -> None:
    discs = {"discs": ["CD", "DVD", "BD"]}
    assert xml(papers(RimageXml, tmp_path, medium="DVD-R", **discs)[0]).all("Media")[0].attributes["Type"] == "DVDR"
    with pytest.raises(BurnRefused, match="media does not say what the server calls BD"):
        papers(RimageXml, tmp_path, medium="BD-25", **discs)
    text, _ = papers(RimageXml, tmp_path, medium="BD-25", media={"BD": "a<b"}, **discs)
    assert xml(text).all("Media")[0].attributes["Type"] == "a<b"


def test_wrong_options_are_all_told(tmp_path: Path) -> None:
    wrong = {"client_id": "a b", "server": 'x"', "dtd": "a\nb", "media": {"LP": "x"}, "merge": ["patient_nam"]}
    with pytest.raises(BurnerOptionsError) as raised:
        RimageXml("b1", RimageXml.example(tmp_path) | wrong, data=tmp_path)
    assert all(f"{key}:" in str(raised.value) for key in wrong)
    with pytest.raises(BurnerOptionsError, match="merge"):
        Rimage("b1", Rimage.example(tmp_path) | {"merge": [1]}, data=tmp_path)


# What files and status mean.


def judged_text(folder: Path, suffixes: str) -> RobotJob:
    dialect = RimageTextDialect({}, [])
    status = dialect.status(StatusFolder(folder, code_page="cp1252"))
    assert status.state is RobotState.READY
    return dialect.judge("B12-D1", frozenset(suffixes.split()), status)


@pytest.mark.parametrize(
    ("suffixes", "state"),
    [
        ("", Phase.ABSENT),
        (".NWP", Phase.OFFERED),
        (".INP", Phase.WORKING),
        (".DON", Phase.GOOD),
        (".ERR", Phase.BAD),
        (".ERR .DON", Phase.BAD),
        (".DON .INP", Phase.GOOD),
        (".LOG", Phase.ABSENT),
    ],
)
def test_what_a_text_order_is(tmp_path: Path, suffixes: str, state: Phase) -> None:
    assert judged_text(tmp_path, suffixes).state is state


def test_the_log_of_a_text_order_says_why(tmp_path: Path) -> None:
    (tmp_path / "B12-D1.log").write_bytes(b"started\r\n\x07Out of\tmemory \x93here\x94\r\n")
    assert judged_text(tmp_path, ".ERR").message == "started; Out of memory “here”"


AGENT = b'<RimageAgent Version="1" Beat="1" Connected="true"/>'


def judged(folder: Path, suffixes: str, status: bytes, agent: bytes = AGENT) -> RobotJob:
    (folder / "Status").mkdir(exist_ok=True)
    (folder / "Status" / "Agent.xml").write_bytes(agent)
    if status:
        (folder / "Status" / "B12-D1.XML").write_bytes(status)
    dialect = RimageXmlDialect({}, [])
    found = dialect.status(StatusFolder(folder, code_page="utf-8"))
    return dialect.judge("B12-D1", frozenset(suffixes.split()), found)


def status(attributes: str, order_id: str = "B12-D1") -> bytes:
    return (
        f'<?xml version="1.0"?><!DOCTYPE ProductionOrderStatus SYSTEM "x.dtd"><ProductionOrderStatus '
        f'OrderId="{order_id}"><Status {attributes}/></ProductionOrderStatus>'
    ).encode()


COMPLETED = status('State="COMPLETED" PercentCompleted="100" Stage="Completed"')


@pytest.mark.parametrize(
    ("suffixes", "document", "state"),
    [
        ("", b"", Phase.ABSENT),
        (".XML", b"", Phase.OFFERED),
        (".INP", b"", Phase.WORKING),
        (".INP", status('State="IN_PROCESS" Stage="Waiting"'), Phase.QUEUED),
        (".INP", status('State="IN_PROCESS" Stage="Recording"'), Phase.WORKING),
        (".INP", status('State="IN_PROCESS" Stage="Suspended"'), Phase.PAUSED),
        (".INP", status('State="DONE"'), Phase.WORKING),
        (".INP", COMPLETED, Phase.WORKING),  # its name will say so in a moment
        (".DON", COMPLETED, Phase.GOOD),
        ("", COMPLETED, Phase.GOOD),
        (".DON", status('State="COMPLETED" GoodDiscs="1" BadDiscs="0"'), Phase.GOOD),
        (".DON", status('State="COMPLETED" GoodDiscs="1" BadDiscs="1"'), Phase.BAD),
        (".DON", status('State="COMPLETED" BadDiscs="1"'), Phase.BAD),
        (".DON", status('State="COMPLETED" GoodDiscs="0" BadDiscs="0"'), Phase.BAD),
        (".DON", status('State="COMPLETED" ErrorMessage="?"'), Phase.BAD),
        (".DON", status('State="COMPLETED"', "B12-D10"), Phase.ENDED),
        (".DON", status('State="completed"'), Phase.ENDED),
        (".DON", status('State="IN_PROCESS"'), Phase.ENDED),
        (".DON", COMPLETED[:-5], Phase.ENDED),
        (".DON", b"", Phase.ENDED),
        (".DON", COMPLETED.replace(b'"x.dtd"', b'"x.dtd" [<!ENTITY a "b">]'), Phase.ENDED),
        (".DON", status('State="CANCELLED"'), Phase.CANCELLED),
        (".ERR", status('State="CANCELLED"'), Phase.CANCELLED),
        (".ERR", status('State="CANCELLED" GoodDiscs="1"'), Phase.BAD),
        (".ERR", status('State="FAILED" ErrorMessage="Recorder 2"'), Phase.BAD),
        (".ERR", COMPLETED, Phase.BAD),
        (".ERR", b"", Phase.ENDED),
        (".CAN .INP", b"", Phase.WORKING),
    ],
)
def test_what_an_xml_order_is(tmp_path: Path, suffixes: str, document: bytes, state: Phase) -> None:
    assert judged(tmp_path, suffixes, document).state is state


@given(st.binary(max_size=300), st.sampled_from([".DON", ".ERR", ".INP"]))
def test_rubbish_is_never_a_good_disc(document: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert judged(Path(folder), suffix, document, agent=document).state in (Phase.ENDED, Phase.WORKING)


@given(st.integers(0, len(COMPLETED)), st.integers(0, len(COMPLETED)))
def test_a_document_with_a_hole_is_never_better_than_the_whole(start: int, end: int) -> None:
    bad = status('State="COMPLETED" GoodDiscs="0" BadDiscs="1"')
    with tempfile.TemporaryDirectory() as folder:
        document = bad[: min(start, end)] + bad[max(start, end) :]
        found = judged(Path(folder), ".DON", document)
    assert found.state is not Phase.GOOD or b"BadDiscs" not in document


@pytest.mark.parametrize(
    ("agent", "state", "reason"),
    [
        (AGENT, RobotState.READY, ""),
        (AGENT.replace(b"true", b"false"), RobotState.OFFLINE, "no connection"),
        (AGENT.replace(b"true", b"maybe"), RobotState.OFFLINE, "no connection"),
        (AGENT.replace(b'"1" B', b'"2" B'), RobotState.UNKNOWN, "cannot be understood"),
        (AGENT[:-4], RobotState.UNKNOWN, "cannot be understood"),
        (AGENT[:-2] + b'><Alert Message="Fill bin 1"/></RimageAgent>', RobotState.WAITING, "Fill bin 1"),
    ],
)
def test_how_the_machine_stands(tmp_path: Path, agent: bytes, state: RobotState, reason: str) -> None:
    judged(tmp_path, "", b"", agent)
    found = RimageXmlDialect({}, []).status(StatusFolder(tmp_path, code_page="utf-8"))
    assert found.state is state and reason in found.reason


def test_no_agent_is_offline(tmp_path: Path) -> None:
    found = RimageXmlDialect({}, []).status(StatusFolder(tmp_path, code_page="utf-8"))
    assert found.state is RobotState.OFFLINE and "agent does not run" in found.reason


# With the simulated systems.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "jobs"


def _draw(path: Path, printer: str) -> None:
    path.write_bytes(b"%PDF-1.7\n")


@pytest.mark.parametrize(("name", "kind"), [("rimage", Rimage), ("rimage-xml", RimageXml)])
@pytest.mark.parametrize("label", ["drawn", DESIGN])
def test_a_disc_with_its_label(folder: Path, name: str, kind: type[HotFolder], label: str) -> None:
    more = kind.example(folder) | {"label": label, "merge": ["patient_name"]}
    with Running.on(name, folder, more) as robot:
        burner = kind("b1", more, data=folder)
        given_order = order(write_label=_draw, label={"patient_name": "DOE^JOHN"})
        ticket = burner.prepare(given_order)
        burner.submit(given_order, ticket)
        report = ended(burner, ticket)
        assert report.state is BurnState.BURNT, report.message
        [disc] = robot.discs()
        assert disc.with_suffix(".pdf").exists() == (label == "drawn")
        status = burner.probe()
        assert status.state is DriverState.READY
        if kind is RimageXml:
            assert status.supplies["printers"] == {"1": {"state": "online", "ribbon": 500}}
            wait_for(lambda: burner.probe().supplies["bins"] == {"1": 49}, "the bin to be counted")
            assert [drive["name"] for drive in status.drives] == ["recorder 1", "recorder 2"]
        assert burner.finish(ticket, Outcome.GOOD) == "output of b1"


def test_an_agent_without_its_server_is_offline_and_goes_on(folder: Path) -> None:
    options = RimageXml.example(folder)
    with Running.on("rimage-xml", folder, options, faults=("disconnected",)) as robot:
        robot.hold()
        burner = RimageXml("b1", options, data=folder)
        ticket = burner.prepare(order())
        burner.submit(order(), ticket)
        wait_for(lambda: "no connection" in burner.poll(ticket).message, "the agent to lose its server")
        assert burner.poll(ticket).state is BurnState.WAITING
        assert burner.probe().state is DriverState.OFFLINE
        robot.let_go()
        assert ended(burner, ticket).state is BurnState.BURNT
        wait_for(lambda: burner.probe().state is DriverState.READY, "the agent to say that it is connected")


def test_a_text_order_that_was_taken_cannot_be_cancelled(folder: Path) -> None:
    options = Rimage.example(folder)
    with Running.on("rimage", folder, options) as robot:
        burner = Rimage("b1", options, data=folder)
        ticket = burner.prepare(order())
        burner.submit(order(), ticket)
        wait_for(lambda: f"{ticket['mark']}: taken" in robot.lines, "the robot to take it")
        burner.cancel(ticket)
        assert ended(burner, ticket).state is BurnState.BURNT
        assert len(robot.discs()) == 1


@pytest.mark.parametrize(("name", "kind"), [("rimage", Rimage), ("rimage-xml", RimageXml)])
def test_taken_back_before_it_was_seen(folder: Path, name: str, kind: type[HotFolder]) -> None:
    options = kind.example(folder)
    with Running.on(name, folder, options) as robot:
        robot.takes_nothing()
        burner = kind("b1", options, data=folder)
        ticket = burner.prepare(order())
        burner.submit(order(), ticket)
        wait_for(lambda: any(path.suffix in (".nwp", ".xml") for path in folder.iterdir()), "the order")
        burner.cancel(ticket)
        assert ended(burner, ticket).state is BurnState.CANCELLED
        assert not [path for path in folder.iterdir() if path.suffix in (".nwp", ".xml", ".can")]
        assert not robot.discs()


def test_cancelled_through_the_agent(folder: Path) -> None:
    options = RimageXml.example(folder)
    with Running.on("rimage-xml", folder, options, faults=("stall",)) as robot:
        burner = RimageXml("b1", options, data=folder)
        ticket = burner.prepare(order())
        burner.submit(order(), ticket)
        wait_for(lambda: "Burning" in burner.poll(ticket).message, "the agent to tell that it burns")
        burner.cancel(ticket)
        report = ended(burner, ticket)
        assert report.state is BurnState.CANCELLED, report.message
        assert not robot.discs() and len(robot.discs(".bad")) == 1
        assert not any(folder.glob("*.can"))
