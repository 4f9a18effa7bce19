"""Local drives: blanks, discs, ends of burns, and what a service finds that comes back; on xorriso's pseudo-drives."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from burners import drive as driving
from burners import drive_work
from burners.base import BurnerOptionsError, BurnRefused, BurnState, DriverState, Outcome, Ticket
from burners.drive import LocalDrive
from burners.drive_record import Run
from media.verify import Expected, verify_path
from tests.burners.drives import (
    APPENDABLE,
    CLOSED,
    NO_MEDIUM,
    PREMATURE,
    REFUSED,
    WRITTEN,
    FakeTool,
    blank,
    drive,
    gone,
    impatient,
    in_state,
    kill_tree,
    load_blank,
    loop_device,
    small_file_system,
)
from tests.burners.orders import SlowImage, an_image, ended, order
from tests.waiting import wait_for

pytestmark = pytest.mark.peer("xorriso")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(monkeypatch)
    monkeypatch.setattr(driving, "_LOOK_SECONDS", 0.02)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeTool]:
    tool = FakeTool(tmp_path / "tool")
    yield tool
    tool.hold(False)


def begun(burner: LocalDrive, **more: Any) -> Ticket:
    given = order(**more)
    ticket = burner.prepare(given)
    burner.submit(given, ticket)
    return ticket


def digest(path: Path, sectors: int) -> str:
    with path.open("rb") as file:
        return hashlib.sha256(file.read(sectors * 2048)).hexdigest()


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({}, "xorriso -devices lists them"),
        ({"drive": "/dev/sr0", "drives": ["/dev/sr1"]}, "say one of"),
        ({"drives": []}, "no drive"),
        ({"drives": ["/dev/sr0", "/dev/sr0"]}, "each once"),
        ({"drive": 5}, "no drive"),
        ({"drive": "/dev/sr0", "tool": "nero"}, "'nero'"),
        ({"drive": "/dev/sr0", "source": "tape"}, "'tape'"),
        ({"drive": "/dev/sr0", "speed": "fast"}, "'fast'"),
        ({"drive": "/dev/sr0", "speed": "8 blank=all"}, "speed"),
        ({"drive": "/dev/sr0", "erase": "yes"}, "erase"),
        ({"drive": "/dev/sr\n0"}, "character"),
        ({"drive": "/dev/sr0", "colour": "red"}, "'colour'"),
    ],
)
def test_wrong_options_are_named(tmp_path: Path, options: dict[str, Any], fault: str) -> None:
    with pytest.raises(BurnerOptionsError) as caught:
        LocalDrive("b1", options, data=tmp_path)
    assert fault in str(caught.value)


# ---------------------------------------------------------------------- burning, and reading back


@pytest.mark.parametrize("source", ["image", "stream"])
def test_a_disc_has_the_image_and_its_digest(data: Path, source: str) -> None:
    path = load_blank(data)
    burner, image = drive(data, source=source), an_image(size=5_000_000)
    ticket = begun(burner, image=image)
    report = ended(burner, ticket)
    assert (report.state, report.image) == (BurnState.BURNT, path), report.message
    assert report.sha256 == digest(path, image.sectors)
    assert not report.device_free  # it must be read back before another disc comes
    assert burner.finish(ticket, Outcome.GOOD) == str(path)
    assert burner.poll(ticket).device_free
    assert sorted(item.name for item in Path(ticket["run"]).iterdir()) == [
        *("end.json", "finished.json", "helper.log", "lock", "order.json", "started.json", "transcript")
    ]


def test_the_record_has_process_time_drive_and_medium(data: Path) -> None:
    load_blank(data)
    burner = drive(data)
    ticket = begun(burner)
    ended(burner, ticket)
    started = Run(Path(ticket["run"])).read("started")
    assert started is not None
    assert set(started) == {"pid", "start", "boot", "drive", "medium", "at"}
    assert started["drive"] == f"stdio:{data / 'disc'}" and started["medium"]["profile"].startswith("stdio")


def test_the_next_disc_asks_for_the_next_blank(data: Path) -> None:
    first = load_blank(data)
    burner = drive(data)
    one = begun(burner, disc="D1")
    assert ended(burner, one).state is BurnState.BURNT
    burner.finish(one, Outcome.GOOD)
    before = first.read_bytes()
    two = begun(burner, disc="D2", copy=2)
    report = in_state(burner, two, BurnState.WAITING)
    assert "copy 2" in report.message and "made by Burnish" in report.message and "BURNISH_0000001" in report.message
    assert first.read_bytes() == before
    load_blank(data)
    assert ended(burner, two).state is BurnState.BURNT
    assert (data / "disc.taken1").read_bytes() == before == (data / "disc").read_bytes()


def test_a_written_disc_is_never_written_over(data: Path) -> None:
    """An overwritable medium is blank to the tool, whatever is on it."""
    path = load_blank(data)
    path.write_bytes(bytes(1 << 20) + b"somebody's file system" + bytes(5000))
    before = path.read_bytes()
    burner = drive(data)
    ticket = begun(burner)
    report = in_state(burner, ticket, BurnState.WAITING)
    assert "nothing is written over" in report.message and "blank" in report.message
    burner.cancel(ticket)
    assert in_state(burner, ticket, BurnState.CANCELLED).device_free
    assert burner.finish(ticket, Outcome.CANCELLED) == ""
    assert path.read_bytes() == before


def test_what_is_written_is_erased_only_when_told_to_and_ours_never(data: Path) -> None:
    path = load_blank(data)
    path.write_bytes(b"an old file system" * 1000)
    burner = drive(data, erase=True)
    one = begun(burner, disc="D1")
    assert ended(burner, one).state is BurnState.BURNT
    burner.finish(one, Outcome.GOOD)
    before = path.read_bytes()
    two = begun(burner, disc="D2")
    assert "never written over" in in_state(burner, two, BurnState.WAITING).message
    assert path.read_bytes() == before
    burner.close()


def test_two_drives_work_side_by_side_and_the_third_disc_waits(data: Path, fake: FakeTool) -> None:
    fake.hold(True)
    for name in ("a", "b"):
        load_blank(data, name)
    fake.says(medium=blank("stdio file, overwriteable", 90_000))
    burner = drive(data, drives=["stdio:a", "stdio:b"], program=str(fake.program))
    assert burner.slots == 2
    tickets = [begun(burner, disc=f"D{number}") for number in (1, 2, 3)]
    wait_for(lambda: len(fake.burns()) == 2, "two burns at once")
    assert {word for line in fake.burns() for word in line.split() if word.startswith("dev=")} == {
        f"dev=stdio:{data / 'a'}",
        f"dev=stdio:{data / 'b'}",
    }
    assert [drive["state"] for drive in burner.probe().as_json()["drives"]] == ["burning", "burning"]
    expected = ["BURNING", "BURNING", "WAITING"]
    wait_for(lambda: sorted(burner.poll(ticket).state for ticket in tickets) == expected, "the third to wait")
    assert len(fake.burns()) == 2
    fake.hold(False)
    burner.close()


def test_a_blank_in_the_other_drive_is_taken(data: Path) -> None:
    load_blank(data, "b")
    burner = drive(data, drives=["stdio:a", "stdio:b"])
    report = ended(burner, begun(burner))
    assert (report.state, report.image) == (BurnState.BURNT, data / "b")


def test_a_simulation_makes_no_disc(data: Path) -> None:
    path = load_blank(data)
    burner = drive(data, simulate=True)
    ticket = begun(burner)
    report = ended(burner, ticket)
    assert report.state is BurnState.CANCELLED and "nothing was written" in report.message
    assert burner.finish(ticket, Outcome.CANCELLED) == "" and path.stat().st_size == 0


def test_speed_open_disc_and_cd_modes_reach_the_tool(data: Path, fake: FakeTool) -> None:
    disc = load_blank(data)
    options = {"drive": str(disc), "program": str(fake.program), "speed": "4d"}
    burner = drive(data, **options)
    one = begun(burner, disc="D1", medium="CD-R-80")
    in_state(burner, one, BurnState.BURNT)
    burner.finish(one, Outcome.GOOD)
    fake.says(medium=blank())
    load_blank(data)
    open_burner = drive(data, **options, close=False)
    two = begun(open_burner, disc="D2", medium="CD-R-80")
    in_state(open_burner, two, BurnState.BURNT)
    closed, left_open = fake.burns()
    assert {"speed=4d", "-sao", "padsize=0", f"tsize={an_image().sectors}s"} <= set(closed.split())
    assert {"-multi", "padsize=150s"} <= set(left_open.split()) and "-sao" not in left_open


# ---------------------------------------------------------------------- size limits and write errors


def test_a_medium_that_is_too_small_is_told_before_anything_is_written(tmp_path: Path, data: Path) -> None:
    with small_file_system(tmp_path / "small", "4m") as folder:
        (folder / "disc").touch()
        burner = drive(data, drive=f"stdio:{folder / 'disc'}")
        ticket = begun(burner, image=an_image(size=9 << 20))
        assert "too small" in in_state(burner, ticket, BurnState.WAITING).message
        assert (folder / "disc").stat().st_size == 0
        burner.cancel(ticket)
        in_state(burner, ticket, BurnState.CANCELLED)
        other = begun(burner, disc="D13", image=an_image(size=1 << 20))
        assert ended(burner, other).state is BurnState.BURNT
        burner.close()


def test_a_device_of_exactly_the_size_is_written_and_one_block_less_is_not(tmp_path: Path, data: Path) -> None:
    image = an_image(size=(2 << 20) - 5000)
    size = -(-image.sectors // 32) * 32 * 2048
    with loop_device(tmp_path / "loop", size) as device:
        burner = drive(data, drive=f"stdio:{device}")
        ticket = begun(burner, image=image)
        report = ended(burner, ticket)
        assert (report.state, report.image) == (BurnState.BURNT, Path(device)), report.message
        assert digest(Path(device), image.sectors) == report.sha256
        burner.finish(ticket, Outcome.GOOD)
    with loop_device(tmp_path / "loop2", size - 32 * 2048) as device:
        burner = drive(data, drive=f"stdio:{device}")
        ticket = begun(burner, disc="D13", image=image)
        assert "too small" in in_state(burner, ticket, BurnState.WAITING).message
        burner.close()


def test_a_write_error_spoils_the_blank(data: Path) -> None:
    burner = drive(data, drive="stdio:/dev/full")
    report = ended(burner, begun(burner))
    assert report.state is BurnState.FAILED and report.device_free
    assert "spoilt" in report.message and "No space left" in report.message, report.message


def test_a_medium_that_became_too_small_since_it_was_looked_at(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_file_system(tmp_path / "small", "12m") as folder:
        (folder / "disc").touch()

        def fill(run: Run, token: str) -> subprocess.Popen[bytes]:
            (folder / "other").write_bytes(bytes(6 << 20))
            return drive_work.start_helper(run, token)

        monkeypatch.setattr(driving, "start_helper", fill)
        burner = drive(data, drive=f"stdio:{folder / 'disc'}")
        report = ended(burner, begun(burner, image=an_image(size=9 << 20)))
        assert report.state is BurnState.FAILED and "exceeds free space" in report.message
        assert "spoilt" not in report.message and (folder / "disc").stat().st_size == 0


def test_no_room_for_the_image_is_refused_at_once(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    load_blank(data)
    usage = shutil.disk_usage(data)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=17 << 20))
    with pytest.raises(BurnRefused, match="stream"):
        drive(data).prepare(order(an_image(size=9 << 20)))
    assert drive(data, source="stream").prepare(order(an_image(size=9 << 20)))


# ---------------------------------------------------------------------- what the tool says


@pytest.mark.parametrize(
    ("medium", "words"),
    [
        (NO_MEDIUM, "no medium"),
        (CLOSED.replace("DVD-RW sequential recording", "CD-R"), "the disc in it is written (closed)"),
        (APPENDABLE.replace("DVD-RW sequential recording", "CD-R"), "the disc in it is written (appendable)"),
        (CLOSED, "another kind of medium: DVD-RW sequential recording, closed"),
        (blank("DVD+R", 2_295_104), "another kind of medium: DVD+R, blank"),
        (blank("CD-RW", 359_845), "CD-RW is not taken"),
        (blank("CD-R", 20), "too small, 20 sectors"),
        (blank("CD-R", status="is blank , but next track is damaged"), "cannot be used"),
        (blank("is not recognizable", status="is not recognizable"), "cannot be used"),
        ("libburn : FAILURE : Cannot access '/dev/sr0' as SG_IO CDROM drive\n", "Cannot access"),
    ],
)
def test_what_will_not_do_is_said_and_the_right_blank_goes_on(
    data: Path, fake: FakeTool, medium: str, words: str
) -> None:
    disc = load_blank(data)
    fake.says(medium=medium)
    burner = drive(data, drive=str(disc), program=str(fake.program))
    ticket = begun(burner, medium="CD-R-80")
    report = in_state(burner, ticket, BurnState.WAITING)
    assert words in report.message and "load a blank CD-R-80 of" in report.message
    assert not fake.burns()
    fake.says(medium=blank())
    driving.drive_tray.sign, kept = (lambda name: ("changed",)), driving.drive_tray.sign
    try:
        assert in_state(burner, ticket, BurnState.BURNT)
    finally:
        driving.drive_tray.sign = kept
    assert len(fake.burns()) == 1


@pytest.mark.parametrize(
    ("said", "status", "reason"),
    [
        (PREMATURE, "5", "Premature end of input"),
        (PREMATURE, "0", "Premature end of input"),
        (REFUSED, "5", "Closed media with data detected"),
        ("Beginning to write data track.\n", "0", "without saying that it was successful"),
        ("", "1", "ended with status 1"),
        (WRITTEN, "32", "ended with status 32"),
    ],
)
def test_a_burn_that_did_not_end_well_has_failed_and_is_not_done_again(
    data: Path, fake: FakeTool, said: str, status: str, reason: str
) -> None:
    disc = load_blank(data)
    fake.says(burn=said, status=status)
    burner = drive(data, drive=str(disc), program=str(fake.program))
    ticket = begun(burner)
    report = ended(burner, ticket)
    assert report.state is BurnState.FAILED and reason in report.message
    later = drive(data, drive=str(disc), program=str(fake.program))
    later.submit(order(epoch=8), ticket)
    assert later.poll(ticket).state is BurnState.FAILED
    assert len(fake.burns()) == 1


def test_status_0_and_fine_words_do_not_make_a_disc(data: Path, fake: FakeTool) -> None:
    """Half of the image is on the disc: the read-back sees it."""
    disc, image = load_blank(data), an_image(size=200_000)
    fake.says(bytes="300000")
    burner = drive(data, drive=str(disc), program=str(fake.program))
    ticket = begun(burner, image=image)
    report = ended(burner, ticket)
    assert report.state is BurnState.BURNT and report.image is not None
    result = verify_path(report.image, expect=Expected(image_sha256=report.sha256, image_bytes=image.sectors * 2048))
    assert not result.ok
    assert burner.finish(ticket, Outcome.BAD)
    assert burner.poll(ticket).state is BurnState.FAILED


def test_progress_is_told_while_it_burns(data: Path, fake: FakeTool) -> None:
    disc = load_blank(data)
    fake.says(burn="xorriso : UPDATE :    3 of    9 MB written (fifo 99%) [buf  50%]   0.9x.\n" + WRITTEN)
    fake.hold(True)
    burner = drive(data, drive=str(disc), program=str(fake.program))
    ticket = begun(burner)
    wait_for(lambda: "3 of 9 MB at 0.9x" in burner.poll(ticket).message, "the tool's progress")
    report = burner.poll(ticket)
    assert report.state is BurnState.BURNING and 0.4 < report.progress < 0.6 and not report.device_free
    fake.hold(False)
    in_state(burner, ticket, BurnState.BURNT)


def test_a_tool_that_has_long_said_nothing_needs_a_look(
    data: Path, fake: FakeTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    disc = load_blank(data)
    fake.hold(True)
    burner = drive(data, drive=str(disc), program=str(fake.program))
    ticket = begun(burner)
    wait_for(fake.burns, "the tool")
    monkeypatch.setattr(driving, "_QUIET_SECONDS", -1.0)
    assert "look at it" in in_state(burner, ticket, BurnState.WAITING).message
    monkeypatch.setattr(driving, "_QUIET_SECONDS", 600.0)
    in_state(burner, ticket, BurnState.BURNING)


# ---------------------------------------------------------------------- cancel


def test_cancel_while_it_burns_ends_the_tool_in_order(data: Path, fake: FakeTool) -> None:
    disc = load_blank(data)
    fake.hold(True)
    burner = drive(data, drive=str(disc), program=str(fake.program))
    ticket = begun(burner)
    wait_for(fake.burns, "the tool")
    burner.cancel(ticket)
    report = ended(burner, ticket)
    assert report.state is BurnState.CANCELLED and "spoilt" in report.message
    assert "Drive is released" in (Path(ticket["run"]) / "transcript").read_text()
    assert burner.finish(ticket, Outcome.CANCELLED) == ""


def test_cancel_while_a_real_tool_burns(data: Path) -> None:
    load_blank(data)
    burner = drive(data, source="stream")
    ticket = begun(burner, image=an_image(size=100 << 20))
    wait_for(Run(Path(ticket["run"])).transcript.exists, "the tool")
    burner.cancel(ticket)
    report = ended(burner, ticket)
    assert report.state in (BurnState.CANCELLED, BurnState.BURNT), report.message  # BURNT: it was too late
    burner.finish(ticket, Outcome.CANCELLED)


# ---------------------------------------------------------------------- the service dies, or the helper does


def pids(ticket: Ticket) -> list[int]:
    """The helper and its tool."""
    started = Run(Path(ticket["run"])).read("started")
    assert started is not None
    children = Path(f"/proc/{started['pid']}/task/{started['pid']}/children").read_text().split()
    return [started["pid"], *map(int, children)]


def test_a_burn_goes_on_without_the_service_and_is_adopted(data: Path, fake: FakeTool) -> None:
    disc = load_blank(data)
    fake.hold(True)
    options = {"drive": str(disc), "program": str(fake.program)}
    burner = drive(data, **options)
    ticket = begun(burner)
    wait_for(fake.burns, "the tool")
    burner.close()
    later = drive(data, **options)
    assert later.poll(ticket).state is BurnState.BURNING and not later.poll(ticket).device_free
    later.submit(order(epoch=8), ticket)
    other = begun(later, disc="D13")
    assert "no drive is free" in in_state(later, other, BurnState.WAITING).message
    fake.hold(False)
    assert in_state(later, ticket, BurnState.BURNT).image == disc
    assert len(fake.burns()) == 1
    later.close()


@pytest.mark.parametrize("whole", [True, False])
def test_a_burn_that_was_cut_off_is_read_back_and_never_done_again(data: Path, fake: FakeTool, whole: bool) -> None:
    disc, image = load_blank(data), an_image(size=200_000)
    fake.hold(True)
    fake.says(bytes="1000000000" if whole else "20000")  # cut off before its volume descriptor was written
    options = {"drive": str(disc), "program": str(fake.program)}
    burner = drive(data, **options)
    ticket = begun(burner, image=image)
    wait_for(lambda: disc.stat().st_size >= (image.size if whole else 20_000), "the tool to have written")
    kill_tree(pids(ticket))
    later = drive(data, **options)
    report = in_state(later, ticket, BurnState.BURNT, BurnState.FAILED)
    if whole:
        assert (report.state, report.image) == (BurnState.BURNT, disc)
        assert verify_path(disc, expect=Expected(image_sha256=report.sha256, image_bytes=image.size)).image_sha256
    else:
        assert report.state is BurnState.FAILED and "nothing is burnt again unless asked" in report.message
    later.submit(order(image, epoch=8), ticket)
    assert later.poll(ticket).state is report.state and len(fake.burns()) == 1


def test_an_end_between_two_looks_is_no_cut_off(data: Path, fake: FakeTool, monkeypatch: pytest.MonkeyPatch) -> None:
    disc = load_blank(data)
    fake.hold(True)
    burner = drive(data, drive=str(disc), program=str(fake.program))
    ticket = begun(burner)
    wait_for(fake.burns, "the tool")
    helper = pids(ticket)[0]

    def alive(_run: Run) -> bool:
        fake.hold(False)
        wait_for(lambda: gone(helper), "the helper to end")
        return False

    monkeypatch.setattr(Run, "alive", alive)
    assert burner.poll(ticket).state is BurnState.BURNT and not burner._reloading


def test_an_empty_drive_after_a_burn_that_was_cut_off(data: Path, fake: FakeTool) -> None:
    load_blank(data)
    fake.hold(True)
    burner = drive(data, program=str(fake.program))
    fake.says(medium=blank("stdio file, overwriteable", 90_000))
    ticket = begun(burner)
    wait_for(fake.burns, "the tool")
    kill_tree(pids(ticket))
    (data / "disc").unlink()
    report = in_state(drive(data, program=str(fake.program)), ticket, BurnState.FAILED)
    assert "its tray is empty" in report.message


def test_the_tool_outlives_a_helper_that_is_killed(data: Path, fake: FakeTool) -> None:
    disc = load_blank(data)
    fake.hold(True)
    options = {"drive": str(disc), "program": str(fake.program)}
    burner = drive(data, **options)
    ticket = begun(burner)
    wait_for(fake.burns, "the tool")
    helper, tool = pids(ticket)
    os.kill(helper, signal.SIGKILL)
    wait_for(lambda: gone(helper), "the helper to die")
    assert not gone(tool)
    later = drive(data, **options)
    assert later.poll(ticket).state is BurnState.BURNING
    fake.hold(False)
    assert in_state(later, ticket, BurnState.BURNT).image == disc


def test_a_folder_is_burnt_once_whoever_is_started(data: Path, fake: FakeTool) -> None:
    disc = load_blank(data)
    burner = drive(data, drive=str(disc), program=str(fake.program))
    ticket = begun(burner)
    ended(burner, ticket)
    token = json.loads((Path(ticket["run"]) / "order.json").read_text())["token"]
    for given in (token, "another"):
        command = [sys.executable, "-m", "burners.drive_run", ticket["run"], given]
        assert subprocess.run(command, check=False, capture_output=True).returncode == 1
    assert len(fake.burns()) == 1


def test_a_helper_that_never_came_leaves_the_order_to_be_given_again(
    data: Path, fake: FakeTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    disc = load_blank(data)
    monkeypatch.setattr("burners.drive.start_helper", lambda run, token: subprocess.Popen(["true"]))
    burner = drive(data, drive=str(disc), program=str(fake.program))
    ticket = begun(burner)
    in_state(burner, ticket, BurnState.UNKNOWN)
    monkeypatch.undo()
    impatient(monkeypatch)
    burner.submit(order(epoch=8), ticket)
    assert in_state(burner, ticket, BurnState.BURNT)
    assert len(fake.burns()) == 1


def test_what_was_on_its_way_but_not_begun_begins_anew(data: Path) -> None:
    burner = drive(data)
    ticket = begun(burner)
    in_state(burner, ticket, BurnState.WAITING)
    burner.close()
    later = drive(data)
    assert later.poll(ticket).state is BurnState.UNKNOWN
    load_blank(data)
    later.submit(order(epoch=8), ticket)
    assert ended(later, ticket).state is BurnState.BURNT


def test_another_machine_does_not_guess(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_blank(data)
    ticket = drive(data).prepare(order())
    monkeypatch.setattr(driving, "_machine", lambda: "another one")
    other = drive(data)
    assert other.poll(ticket).state is BurnState.FAILED and "another machine" in other.poll(ticket).message
    other.submit(order(), ticket)
    assert (data / "disc").stat().st_size == 0
    assert other.finish(ticket, Outcome.BAD) == ""


def test_a_disc_that_was_taken_out_too_early_is_asked_for(data: Path) -> None:
    disc = load_blank(data)
    burner = drive(data)
    ticket = begun(burner)
    assert ended(burner, ticket).state is BurnState.BURNT
    taken = disc.rename(data / "on the table")
    assert "back into" in in_state(burner, ticket, BurnState.WAITING).message
    assert burner.poll(ticket).device_free
    cancelled = drive(data)
    (Path(ticket["run"]) / "cancel").touch()  # as cancel() leaves it
    assert "never read back" in in_state(cancelled, ticket, BurnState.CANCELLED).message
    (Path(ticket["run"]) / "cancel").unlink()
    disc.touch()  # a blank is not that disc
    assert "back into" in in_state(burner, ticket, BurnState.WAITING).message
    taken.rename(disc)
    in_state(burner, ticket, BurnState.BURNT)


def test_a_crash_between_verification_and_catalogue_loses_nothing(data: Path) -> None:
    load_blank(data)
    burner = drive(data)
    ticket = begun(burner)
    ended(burner, ticket)
    place = burner.finish(ticket, Outcome.GOOD)
    later = drive(data)
    report = later.poll(ticket)
    assert (report.state, report.image, report.device_free) == (BurnState.BURNT, None, True)
    assert later.finish(ticket, Outcome.GOOD) == place


def test_an_instance_that_changed_since_it_was_planned_spoils_no_blank(data: Path, tmp_path: Path) -> None:
    from media.iso9660 import IsoImage
    from media.items import DiscFile

    path = load_blank(data)
    source = tmp_path / "instance"
    source.write_bytes(b"what was planned" * 1000)
    file = DiscFile(("A",), 16_000, hashlib.sha256(source.read_bytes()).hexdigest(), source)
    image = IsoImage((file,), "DISC_1", an_image().created)
    source.write_bytes(b"what is now here" * 1000)
    burner = drive(data, source="stream")
    report = ended(burner, begun(burner, image=image))
    assert report.state is BurnState.FAILED and "A" in report.message and path.stat().st_size == 0


# ---------------------------------------------------------------------- how it stands


def test_drives_are_listed_with_what_lies_in_them(data: Path, fake: FakeTool) -> None:
    disc = load_blank(data)
    burner = drive(data, drive=str(disc), program=str(fake.program))
    found = burner.probe().as_json()
    (listed,) = found["drives"]
    assert found["state"] == "READY" and found["supplies"] == {"blanks": 1}
    assert (listed["medium"], listed["status"], listed["writable_sectors"]) == ("CD-R", "blank", 359_845)
    assert listed["speeds"] == ["10.0x CD", "24.0x CD", "48.0x CD"] and listed["model"] == "TSSTcorp CDDVDW SH-S203B"
    assert listed["medium_id"] == "97m15s17f/79m59s71f , Ritek Corp"
    fake.says(medium=CLOSED)
    (listed,) = burner.probe().as_json()["drives"]
    assert (listed["medium"], listed["status"], listed["blank"]) == ("DVD-RW sequential recording", "closed", False)
    fake.says(medium=NO_MEDIUM)
    assert burner.probe().as_json()["drives"][0]["state"] == "empty"


def test_a_drive_that_is_not_there_is_told_with_those_that_are(data: Path, fake: FakeTool) -> None:
    fake.says(devices="0  -dev '/dev/sr0' rwrw-- :  'TSSTcorp' 'CDDVDW SH-S203B'\n")
    status = drive(data, drive="/dev/sr99", program=str(fake.program)).probe()
    assert status.state is DriverState.OFFLINE
    assert "/dev/sr99" in status.reason and "/dev/sr0 (TSSTcorp CDDVDW SH-S203B)" in status.reason


def test_a_disc_that_is_read_back_is_not_disturbed(data: Path, fake: FakeTool) -> None:
    disc = load_blank(data)
    burner = drive(data, drive=str(disc), program=str(fake.program))
    ticket = begun(burner)
    in_state(burner, ticket, BurnState.BURNT)
    fake.says(medium="libburn : FAILURE : nobody may ask now\n")
    assert burner.probe().as_json()["drives"][0]["state"] == "reading back"
    burner.finish(ticket, Outcome.GOOD)
    assert "nobody may ask" in burner.probe().reason


def test_one_tool_at_a_time_has_a_drive(data: Path, fake: FakeTool, monkeypatch: pytest.MonkeyPatch) -> None:
    disc = load_blank(data)
    burner = drive(data, drive=str(disc), program=str(fake.program))
    monkeypatch.setattr(driving, "_PROBE_SECONDS", 0.0)
    with burner._drives.asking(str(disc), patience=0.0) as alone:
        assert alone and burner.probe().as_json()["drives"][0]["state"] == "busy"
        ticket = begun(burner)
        wait_for(lambda: burner.poll(ticket).progress >= 0.2, "the image")
        assert not fake.burns()
    in_state(burner, ticket, BurnState.BURNT)


def test_an_image_that_cannot_be_described_is_made_first(data: Path) -> None:
    path = load_blank(data)
    image = SlowImage(an_image(size=200_000))  # holds a lock, which cannot be written down
    image.go.set()
    report = ended(drive(data, source="stream"), begun(drive(data, source="stream"), image=image))
    assert report.state is BurnState.BURNT and digest(path, image.sectors) == report.sha256


def test_a_tool_that_is_not_installed_is_told(data: Path) -> None:
    burner = drive(data, program="/nowhere/xorriso")
    assert burner.probe().state is DriverState.OFFLINE and "not installed" in burner.probe().reason
    with pytest.raises(BurnRefused, match="not installed"):
        burner.prepare(order())


def test_what_is_no_disc_is_refused(data: Path) -> None:
    with pytest.raises(BurnRefused, match="USB"):
        drive(data).prepare(order(medium="USB"))
