"""The driver of hot folders itself: claims, crashes, lost orders, paths, options. The dialect is Epson's, by hand."""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from burners.base import BurnerOptionsError, BurnOrder, BurnRefused, BurnState, DriverState, Outcome, Ticket
from burners.epson import Epson
from burners.hotfolder_paths import OutsideShare, PathMap
from burners.hotfolder_text import check_code_page, clean, encodable
from tests.burners import stf
from tests.burners.orders import SlowImage, an_image, order
from tests.waiting import wait_for

PATIENT = {"stale_seconds": 60, "lost_seconds": 60, "stall_minutes": 5, "cancel_minutes": 5}
"""So that nothing is given up while this machine is slow; a test that waits for that says so."""
SOON = 0.3


class Place(NamedTuple):
    """A hot folder, and a driver on it."""

    folder: Path

    def driver(self, **options: Any) -> Epson:
        return Epson("r", Epson.example(self.folder) | PATIENT | options, data=self.folder)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir() if path.is_file() and path.name != "TDBStatus.txt")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path / "robot")
    made.folder.mkdir()
    stf.write(made.folder)
    return made


def handed(robot: Epson, place: Place, given: BurnOrder | None = None) -> Ticket:
    """An order that lies in the folder."""
    given = given or order()
    ticket = robot.prepare(given)
    robot.submit(given, ticket)
    wait_for((place.folder / f"{ticket['mark']}.JDF").exists, "the order to be handed over")
    wait_for(lambda: robot.poll(ticket).state is not BurnState.BURNING, "the writer to end")
    return ticket


def test_the_robot_finds_what_the_order_names(place: Place) -> None:
    image = an_image(size=2 << 20)
    ticket = handed(place.driver(), place, order(image))
    text = (place.folder / f"{ticket['mark']}.JDF").read_bytes().decode("cp1252")
    assert text.count("\r\n") == len(text.splitlines()) == text.count("\n")
    named = next(line.removeprefix("IMAGE=") for line in text.splitlines() if line.startswith("IMAGE="))
    assert named == rf"\\robot\jobs\burnish\{ticket['mark']}\image.iso"
    found = PathMap(place.folder, r"\\robot\jobs").to_local(named)
    chunks: list[bytes] = []
    image.write(lambda data: chunks.append(bytes(data)))
    assert found.read_bytes() == b"".join(chunks)


def test_two_claims_hand_over_once(place: Place) -> None:
    """The robot is off; a node holds an order back, is taken over, and both go on when the robot comes."""
    (place.folder / "TDBStatus.txt").unlink()
    old, new = place.driver(), place.driver()
    given = order()
    ticket = old.prepare(given)
    old.submit(given, ticket)
    wait_for(lambda: old.poll(ticket).state is BurnState.WAITING, "the order to be held back")
    assert "TD Bridge has not been started" in old.poll(ticket).message
    new.submit(order(epoch=8), ticket)
    wait_for(lambda: new.poll(ticket).state is BurnState.WAITING, "the other to hold it back")
    assert place.names() == [f"{ticket['mark']}.8.tmp"], "the old claim cannot hand over any more"
    stf.write(place.folder)
    order_file = place.folder / f"{ticket['mark']}.JDF"
    wait_for(order_file.exists, "the order to be handed over")
    order_file.rename(order_file.with_suffix(".INP"))
    for robot in (old, new):
        wait_for(lambda robot=robot: robot.poll(ticket).state is BurnState.QUEUED, "both to see it taken")
    assert place.names() == [f"{ticket['mark']}.INP"]


def test_a_claim_that_was_lost_hands_nothing_over(place: Place) -> None:
    robot = place.driver()
    given = order(mine=lambda: False)
    ticket = robot.prepare(given)
    robot.submit(given, ticket)
    wait_for(lambda: robot.poll(ticket).device_free, "it to give up")
    assert robot.poll(ticket).state is BurnState.UNKNOWN
    assert place.names() == []


def test_killed_right_before_the_rename_it_is_handed_over_again(place: Place) -> None:
    robot = place.driver()
    ticket = handed(robot, place)
    order_file = place.folder / f"{ticket['mark']}.JDF"
    order_file.rename(place.folder / f"{ticket['mark']}.7.tmp")  # as it was a moment before
    later = place.driver()
    assert later.poll(ticket).state is BurnState.UNKNOWN
    later.submit(order(epoch=8), ticket)
    wait_for(order_file.exists, "the order to be handed over")
    assert place.names() == [f"{ticket['mark']}.JDF"]


def test_killed_right_after_the_rename_it_is_not_handed_over_again(place: Place) -> None:
    ticket = handed(place.driver(), place)
    later = place.driver()
    assert later.poll(ticket).state is BurnState.QUEUED
    later.submit(order(epoch=8), ticket)
    (place.folder / f"{ticket['mark']}.JDF").rename(place.folder / f"{ticket['mark']}.inp")
    later.submit(order(epoch=9), ticket)
    wait_for(lambda: later.poll(ticket).state is BurnState.QUEUED, "the end of nothing")
    assert place.names() == [f"{ticket['mark']}.inp"], "suffixes count in any case"


def test_an_order_that_vanished_fails_and_is_never_given_again(place: Place) -> None:
    robot = place.driver(lost_seconds=SOON)
    ticket = handed(robot, place)
    (place.folder / f"{ticket['mark']}.JDF").unlink()
    assert not robot.poll(ticket).state.ended, "it may show up again in a moment"
    wait_for(lambda: robot.poll(ticket).state.ended, "it to be given up")
    report = robot.poll(ticket)
    assert report.state is BurnState.FAILED and "may or may not exist" in report.message
    robot.submit(order(epoch=8), ticket)
    robot.finish(ticket, Outcome.BAD)
    later = place.driver()
    later.submit(order(epoch=9), ticket)
    assert later.poll(ticket).state is BurnState.FAILED
    assert place.names() == []


def test_a_restored_database_does_not_burn_again(place: Place) -> None:
    robot = place.driver()
    ticket = handed(robot, place)
    with pytest.raises(BurnRefused, match="a disc of it may exist"):
        place.driver().prepare(order())
    (place.folder / f"{ticket['mark']}.JDF").rename(place.folder / f"{ticket['mark']}.DON")
    stf.write(place.folder, {ticket["mark"]: stf.DONE})
    wait_for(lambda: robot.poll(ticket).state is BurnState.BURNT, "the end")
    assert robot.finish(ticket, Outcome.GOOD) == "output of r"
    (place.folder / f"{ticket['mark']}.DON").unlink()
    stf.write(place.folder)  # the robot has forgotten it
    assert place.driver().poll(ticket).state is BurnState.BURNT
    with pytest.raises(BurnRefused, match="a disc of it may exist"):
        place.driver().prepare(order())


def test_notes_that_somebody_deleted_do_not_burn_a_second_disc(place: Place) -> None:
    robot = place.driver()
    ticket = handed(robot, place)
    shutil.rmtree(place.folder / "burnish")
    (place.folder / f"{ticket['mark']}.JDF").unlink()
    assert robot.poll(ticket).state is not BurnState.UNKNOWN, "this process knows that it was handed over"
    stf.write(place.folder, {ticket["mark"]: stf.DONE | {"STATUS": "2", "DETAIL_STATUS": "3"}})
    later = place.driver()
    wait_for(lambda: later.poll(ticket).state is BurnState.BURNING, "another to see it in the status")
    later.submit(order(epoch=8), ticket)
    assert later.poll(ticket).state is BurnState.BURNING
    later.cancel(ticket)
    assert not later.poll(ticket).state.ended
    assert place.names() == [f"{ticket['mark']}.JCF"]


def test_settings_that_lead_to_another_robot_do_not_burn_a_second_disc(place: Place) -> None:
    ticket = handed(place.driver(), place)
    report = place.driver(robot_path=r"\\other\jobs").poll(ticket)
    assert report.state is BurnState.FAILED and "a disc may exist" in report.message


def test_killed_while_it_took_an_order_back(place: Place) -> None:
    ticket = handed(place.driver(), place)
    (place.folder / f"{ticket['mark']}.JDF").rename(place.folder / f"{ticket['mark']}.withdrawn")
    assert place.driver().poll(ticket).state is BurnState.CANCELLED
    assert place.names() == []


def test_a_robot_that_said_no_is_not_asked_again(place: Place) -> None:
    robot = place.driver(cancel_minutes=5)
    ticket = handed(robot, place)
    mark = ticket["mark"]
    (place.folder / f"{mark}.JDF").rename(place.folder / f"{mark}.INP")
    robot.cancel(ticket)
    robot.poll(ticket)
    (place.folder / f"{mark}.JCF").rename(place.folder / f"{mark}.CER")
    later = place.driver(cancel_minutes=5)
    assert later.poll(ticket).message == "the robot cannot cancel it"
    assert place.names() == [f"{mark}.CER", f"{mark}.INP"]
    (place.folder / f"{mark}.INP").rename(place.folder / f"{mark}.DON")
    stf.write(place.folder, {mark: stf.DONE})
    wait_for(lambda: later.poll(ticket).state is BurnState.BURNT, "the end")


def test_the_share_goes_away_while_the_image_is_written(place: Place) -> None:
    robot = place.driver()
    slow = SlowImage(an_image())
    given = order(slow)
    ticket = robot.prepare(given)
    robot.submit(given, ticket)
    wait_for(slow.started.is_set, "the writing")
    place.folder.rename(place.folder.with_name("away"))
    slow.go.set()
    wait_for(lambda: robot.poll(ticket).state is BurnState.WAITING, "it to be noticed")
    robot.cancel(ticket)
    robot.submit(given, ticket)
    assert robot.poll(ticket).state is BurnState.WAITING
    place.folder.with_name("away").rename(place.folder)
    wait_for(lambda: robot.poll(ticket).state is BurnState.UNKNOWN, "it to be back")
    robot.submit(given, ticket)
    wait_for((place.folder / f"{ticket['mark']}.JDF").exists, "the order")


def test_a_good_disc_stays_good_when_the_share_goes_away(place: Place) -> None:
    robot = place.driver()
    ticket = handed(robot, place)
    (place.folder / f"{ticket['mark']}.JDF").rename(place.folder / f"{ticket['mark']}.DON")
    stf.write(place.folder, {ticket["mark"]: stf.DONE})
    wait_for(lambda: robot.poll(ticket).state is BurnState.BURNT, "the end")
    place.folder.rename(place.folder.with_name("away"))
    assert robot.finish(ticket, Outcome.GOOD) == "output of r"
    report = robot.poll(ticket)
    assert (report.state, report.device_free) == (BurnState.BURNT, True)


def test_the_reason_of_a_failure_is_waited_for(place: Place) -> None:
    robot = place.driver(lost_seconds=30)
    ticket = handed(robot, place)
    mark = ticket["mark"]
    (place.folder / f"{mark}.JDF").rename(place.folder / f"{mark}.ERR")
    assert not robot.poll(ticket).state.ended
    stf.write(place.folder, {mark: {"STATUS": "6", "DETAIL_STATUS": "14", "ERROR": "JDF0500"}})
    wait_for(lambda: robot.poll(ticket).state.ended, "the end")
    assert robot.poll(ticket).message == "refused, error JDF0500, STATUS 6"


def test_a_failure_without_a_reason_is_one_in_the_end(place: Place) -> None:
    robot = place.driver(lost_seconds=SOON)
    ticket = handed(robot, place)
    (place.folder / f"{ticket['mark']}.JDF").rename(place.folder / f"{ticket['mark']}.ERR")
    (place.folder / "TDBStatus.txt").unlink()
    wait_for(lambda: robot.poll(ticket).state.ended, "the end")
    assert robot.poll(ticket).state is BurnState.FAILED


def test_done_without_a_word_in_the_status_is_no_success(place: Place) -> None:
    robot = place.driver(lost_seconds=SOON)
    ticket = handed(robot, place)
    (place.folder / f"{ticket['mark']}.JDF").rename(place.folder / f"{ticket['mark']}.DON")
    assert not robot.poll(ticket).state.ended
    wait_for(lambda: robot.poll(ticket).state.ended, "it to be given up")
    assert robot.poll(ticket).state is BurnState.FAILED
    assert "not vouched for" in robot.poll(ticket).message


def test_a_status_that_is_rubbish_is_waited_out(place: Place) -> None:
    robot = place.driver(stale_seconds=0.2, lost_seconds=0.4)
    ticket = handed(robot, place)
    (place.folder / f"{ticket['mark']}.JDF").rename(place.folder / f"{ticket['mark']}.DON")
    (place.folder / "TDBStatus.txt").write_bytes(random.Random(500).randbytes(500) + b"\n")
    wait_for(lambda: robot.poll(ticket).state is BurnState.WAITING, "it to be seen")
    give_up = time.monotonic() + 0.8  # longer than lost_seconds
    wait_for(lambda: time.monotonic() > give_up or robot.poll(ticket).state.ended, "some time to pass")
    assert robot.poll(ticket).state is BurnState.WAITING
    stf.write(place.folder, {ticket["mark"]: stf.DONE})
    wait_for(lambda: robot.poll(ticket).state is BurnState.BURNT, "the end")


def test_an_order_that_is_not_taken_makes_a_person_look(place: Place) -> None:
    robot = place.driver(lost_seconds=SOON)
    ticket = handed(robot, place)
    wait_for(lambda: robot.poll(ticket).state is BurnState.WAITING, "it to be noticed")
    assert "not taken for more than" in robot.poll(ticket).message


def test_a_cancellation_that_is_not_answered_ends_as_failed(place: Place) -> None:
    robot = place.driver(cancel_minutes=SOON / 60)
    ticket = handed(robot, place)
    (place.folder / f"{ticket['mark']}.JDF").rename(place.folder / f"{ticket['mark']}.INP")
    robot.cancel(ticket)
    wait_for(lambda: robot.poll(ticket).state.ended, "it to be given up")
    assert robot.poll(ticket).state is BurnState.FAILED
    assert "a disc may still come out" in robot.poll(ticket).message


def test_cancelled_while_the_image_is_written(place: Place) -> None:
    robot = place.driver()
    slow = SlowImage(an_image())
    given = order(slow)
    ticket = robot.prepare(given)
    robot.submit(given, ticket)
    wait_for(slow.started.is_set, "the writing")
    robot.cancel(ticket)
    wait_for(lambda: robot.poll(ticket).state.ended, "the end")
    assert robot.poll(ticket).state is BurnState.CANCELLED
    assert robot.finish(ticket, Outcome.CANCELLED) == ""
    assert place.names() == [] and not list(place.folder.glob("burnish/*/*"))


def test_a_status_that_stands_still_is_offline(place: Place) -> None:
    ahead = time.time() + 86_400  # by the file's time it never is old: what counts is when it was seen to change
    os.utime(place.folder / "TDBStatus.txt", (ahead, ahead))
    robot = place.driver(stale_seconds=SOON)
    assert robot.probe().state is DriverState.READY
    wait_for(lambda: robot.probe().state is DriverState.OFFLINE, "it to be noticed")
    assert "is its program running?" in robot.probe().reason
    stf.write(place.folder, machine={"STACKER1": "79"})
    os.utime(place.folder / "TDBStatus.txt", (ahead, ahead + 1))
    wait_for(lambda: robot.probe().state is DriverState.READY, "it to come back")
    # One that was old before we came is old at once.
    os.utime(place.folder / "TDBStatus.txt", (1, time.time() - 3600))
    assert place.driver(stale_seconds=30).probe().state is DriverState.OFFLINE


def test_what_the_robot_has_no_blanks_for_is_refused(place: Place) -> None:
    with pytest.raises(BurnRefused, match="needs a BD"):
        place.driver().prepare(order(medium="BD-25"))
    assert place.driver(discs=["BD"]).prepare(order(medium="BD-25"))["family"] == "BD"
    with pytest.raises(BurnRefused, match="needs a DVD"):
        place.driver(discs=["CD"]).prepare(order(sectors=400_000))


def test_no_space_for_the_image(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(place.folder)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(BurnRefused, match="1000 bytes free"):
        place.driver().prepare(order())


def test_text_that_the_code_page_lacks_is_replaced_and_that_is_said(place: Place) -> None:
    robot = place.driver(label=r"C:\labels\site.tdd")
    given = order(label={"patient": "Łukasz\n山田 太郎", "study": "plain"})
    ticket = handed(robot, place, given)
    merge = (place.folder / "burnish" / ticket["mark"] / "label.dat").read_bytes()
    assert merge == b"patient=?ukasz ?? ??\r\nstudy=plain\r\n"
    (place.folder / f"{ticket['mark']}.JDF").rename(place.folder / f"{ticket['mark']}.DON")
    stf.write(place.folder, {ticket["mark"]: stf.DONE})
    wait_for(lambda: robot.poll(ticket).state is BurnState.BURNT, "the end")
    assert "5 characters of the label's text are not in cp1252" in robot.poll(ticket).message


def test_a_drawn_label_lies_beside_the_image(place: Place) -> None:
    def draw(path: Path, printer: str) -> None:
        path.write_bytes(f"label for {printer}".encode())

    ticket = handed(place.driver(label_printer="epson-pp100"), place, order(write_label=draw))
    drawn = place.folder / "burnish" / ticket["mark"] / "label.png"
    assert drawn.read_bytes() == b"label for epson-pp100"
    text = (place.folder / f"{ticket['mark']}.JDF").read_text()
    assert rf"LABEL=\\robot\jobs\burnish\{ticket['mark']}\label.png" in text


def test_a_label_that_cannot_be_drawn_fails_the_disc_before_a_blank_is_spent(place: Place) -> None:
    def draw(path: Path, printer: str) -> None:
        raise OSError(28, "No space left on device", str(path))

    robot = place.driver()
    given = order(write_label=draw)
    ticket = robot.prepare(given)
    robot.submit(given, ticket)
    wait_for(lambda: robot.poll(ticket).state.ended, "the end")
    assert robot.poll(ticket).state is BurnState.FAILED and "is full" in robot.poll(ticket).message
    assert robot.finish(ticket, Outcome.BAD) == ""
    assert place.names() == [] and not list(place.folder.glob("burnish/*/*"))


def test_old_endings_are_dropped_and_young_ones_are_not(place: Place) -> None:
    robot = place.driver()
    images = place.folder / "burnish"
    images.mkdir()
    for name, age in (("old", 200), ("young", 100)):
        (images / f"{name}.outcome.json").write_text("{}")
        os.utime(images / f"{name}.outcome.json", (1, time.time() - age * 86_400))
        (images / name).mkdir()
    robot.finish(robot.prepare(order()), Outcome.CANCELLED)
    wait_for(lambda: not (images / "old.outcome.json").exists(), "the old one to go")
    assert (images / "young.outcome.json").exists()
    wait_for(lambda: not (images / "young").exists(), "what was left of an order to go")


def test_images_elsewhere(place: Place, tmp_path: Path) -> None:
    images = tmp_path / "images"
    with pytest.raises(BurnerOptionsError, match="robot_images"):
        place.driver(images=str(images))
    ticket = handed(place.driver(images=str(images), robot_images="X:\\discs"), place)
    assert (images / ticket["mark"] / "image.iso").exists()
    text = (place.folder / f"{ticket['mark']}.JDF").read_text()
    assert rf"IMAGE=X:\discs\{ticket['mark']}\image.iso" in text


def test_a_template_of_the_site(place: Place, tmp_path: Path) -> None:
    template = tmp_path / "site.jdf"
    template.write_text("JOB_ID={job_id}\nCOPIES=1\nDISC_TYPE={disc_type}\nNOTE=Größe\nLABEL={label}\nIMAGE={image}\n")
    ticket = handed(place.driver(template=str(template)), place)
    text = (place.folder / f"{ticket['mark']}.JDF").read_bytes()
    assert b"NOTE=Gr\xf6\xdfe\r\n" in text and b"LABEL" not in text
    template.write_text("{patient_name}\n")
    with pytest.raises(BurnerOptionsError, match="patient_name"):
        place.driver(template=str(template))


def test_all_wrong_options_are_told_at_once(tmp_path: Path) -> None:
    wrong: dict[str, Any] = {
        "robot_path": "a\nb",
        "slots": 0,
        "discs": ["LP"],
        "code_page": "utf-16",
        "template": "nowhere",
        "lost_seconds": -1,
        "colour": "red",
        "status_file": 3,
    }
    with pytest.raises(BurnerOptionsError) as told:
        Epson("r", wrong, data=tmp_path)
    for key in (*wrong, "folder"):
        assert key in str(told.value)


@pytest.mark.parametrize(
    ("robot", "named"),
    [
        (r"\\robot\jobs", r"\\robot\jobs\burnish\J\image.iso"),
        ("\\\\robot\\jobs\\", r"\\robot\jobs\burnish\J\image.iso"),
        ("D:\\jobs", r"D:\jobs\burnish\J\image.iso"),
        ("D:", r"D:\burnish\J\image.iso"),
        ("/mnt/jobs", "/mnt/jobs/burnish/J/image.iso"),
    ],
)
def test_two_names_for_one_place(robot: str, named: str, tmp_path: Path) -> None:
    share = PathMap(tmp_path, robot)
    path = tmp_path / "burnish" / "J" / "image.iso"
    if robot != "D:":
        assert share.to_robot(path) == named
        assert share.to_local(named) == path


def test_nothing_outside_of_the_share_is_named(tmp_path: Path) -> None:
    inside, outside = tmp_path / "share", tmp_path / "other"
    inside.mkdir()
    outside.mkdir()
    (inside / "link").symlink_to(outside)
    share = PathMap(inside, r"\\robot\jobs")
    for path in (outside / "x", inside / ".." / "other" / "x", inside / "link" / "x", inside / "a:b", inside / "a\\b"):
        with pytest.raises(OutsideShare):
            share.to_robot(path)
    for name in (r"\\robot\other\x", r"\\robot\jobs\..\other\x", "C:\\x", ""):
        with pytest.raises(OutsideShare):
            share.to_local(name)


def test_code_pages_that_could_hide_a_line_end_are_refused() -> None:
    for name in ("utf-16", "utf-7", "iso2022_jp", "hz", "cp037", "rot13", "nonsense", "base64", ""):
        with pytest.raises(ValueError, match="code page"):
            check_code_page(name)
    for name in ("cp1252", "cp932", "utf-8", "gb18030", "euc_kr", "latin-1", "cp1251", "big5"):
        check_code_page(name)


def test_clean_text() -> None:
    assert clean("a\r\nb\tc\x00d\x85e\u2028f\u202eg") == "a b c d e f g"
    assert clean("a,b", forbidden=",") == "a b"
    assert len(clean("x" * 1000)) == 200
    assert encodable("Å\u0142Å", "cp1252") == ("Å?Å", 1)
    assert encodable("ő", "cp1252") == ("o", 1)
    assert encodable("e\u0301", "cp1252") == ("é", 0)
