"""What may be burnt onto what; how the tools' words are read; the tray."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from burners import drive_tray, xorriso
from burners.base import BurnState, DriverState, Outcome
from burners.drive_cdrskin import Cdrskin
from burners.drive_cdrskin import parse_medium as parse_minfo
from burners.drive_find import system_drives
from burners.drive_media import Content, Fill, Medium, look, why_not
from burners.drive_tools import Burn, ToolError, worst
from burners.drive_tray import Tray
from tests.burners.drives import CLOSED, NO_MEDIUM, PREMATURE, WRITTEN, blank, drive, load_blank
from tests.burners.orders import an_image, ended, order

EMPTY = Content(empty=True)
OURS = Content(empty=False, volume_id="BURNISH_0000001", ours=True)
FOREIGN = Content(empty=False, volume_id="HOLIDAYS")
SCRATCHED = Content(empty=False, unreadable="Input/output error")


def medium(profile: str, fill: Fill = Fill.BLANK, sectors: int = 2_295_104) -> Medium:
    return Medium(fill, profile, sectors if fill is Fill.BLANK else 0, sectors)


@pytest.mark.parametrize(
    ("lies", "content", "wanted", "more", "reason"),
    [
        (medium("CD-R", sectors=359_845), EMPTY, "CD", {}, ""),
        (medium("CD-R", sectors=359_845), EMPTY, "", {}, ""),
        (medium("CD-R", sectors=359_845), EMPTY, "DVD", {}, "another kind"),
        (medium("CD-RW", sectors=359_845), EMPTY, "CD", {}, "CD-RW is not taken"),
        (medium("CD-RW", sectors=359_845), EMPTY, "CD", {"cd_rw": True}, ""),
        (medium("CD-R", sectors=999), EMPTY, "CD", {}, "too small, 999"),
        (medium("DVD-R sequential recording"), EMPTY, "DVD", {}, ""),
        (medium("DVD-RW restricted overwrite"), EMPTY, "DVD", {}, ""),
        (medium("DVD-RW restricted overwrite"), OURS, "DVD", {"erase": True}, "never written over"),
        (medium("DVD+R/DL", sectors=4_173_824), EMPTY, "DVD", {}, ""),
        (medium("DVD+RW"), EMPTY, "DVD", {}, ""),
        (medium("DVD+RW"), FOREIGN, "DVD", {}, "written (HOLIDAYS)"),
        (medium("DVD+RW"), FOREIGN, "DVD", {"erase": True}, ""),
        (medium("DVD+RW"), SCRATCHED, "DVD", {"erase": True}, "cannot be read"),
        (medium("DVD-RAM"), EMPTY, "DVD", {}, "DVD-RAM is not taken"),
        (medium("BD-R sequential recording", sectors=11_826_176), EMPTY, "BD", {}, ""),
        (medium("BD-RE", sectors=11_826_176), OURS, "BD", {"erase": True}, "never written over"),
        (medium("DVD-R sequential recording", Fill.CLOSED), FOREIGN, "DVD", {"erase": True}, "written (HOLIDAYS)"),
        (medium("DVD+R", Fill.APPENDABLE), FOREIGN, "DVD", {}, "written"),
        (medium("CD-RW", Fill.CLOSED, 359_845), FOREIGN, "CD", {"erase": True, "cd_rw": True}, ""),
        (medium("CD-RW", Fill.CLOSED, 999), FOREIGN, "CD", {"erase": True, "cd_rw": True}, "too small, 999"),
        (medium("DVD-ROM", Fill.CLOSED), FOREIGN, "DVD", {}, "another kind"),
        (medium("stdio file, overwriteable"), EMPTY, "CD", {}, ""),
        (medium("stdio file, overwriteable"), OURS, "CD", {}, "never written over"),
        (Medium(Fill.ABSENT), EMPTY, "CD", {}, "no medium"),
    ],
)
def test_what_may_be_burnt_onto_what(
    lies: Medium, content: Content, wanted: str, more: dict[str, bool], reason: str
) -> None:
    found = why_not(lies, content, wanted=wanted, sectors=1000, **more)
    assert (reason in found) if reason else found == "", found


@pytest.mark.parametrize(
    ("data", "empty"),
    [
        (b"", True),
        (bytes(3 << 20), True),
        (bytes(1 << 20) + b"x", False),
        (b"\xeb\x3c\x90MSDOS5.0", False),
        (bytes(1080) + b"\x53\xef" + bytes(100), False),
        (bytes(2048 * 256) + b"\x02\x00", False),  # UDF's anchor
    ],
)
def test_a_medium_is_empty_when_nothing_stands_at_its_beginning(tmp_path: Path, data: bytes, empty: bool) -> None:
    path = tmp_path / "disc"
    path.write_bytes(data)
    assert look(f"stdio:{path}").empty is empty


def test_a_disc_of_ours_is_known(tmp_path: Path) -> None:
    path = tmp_path / "disc"
    with path.open("wb") as file:
        an_image("HOSPITAL_12").write(file)
    found = look(str(path))
    assert (found.empty, found.volume_id, found.ours) == (False, "HOSPITAL_12", True)
    assert look(str(tmp_path / "nothing")).unreadable


def test_xorriso_on_media() -> None:
    found = xorriso.parse_medium(blank("DVD+R/DL", 4_173_824))
    assert (found.fill, found.kind, found.family, found.writable) == (Fill.BLANK, "DVD+R", "DVD", 4_173_824)
    assert found.speeds == ("10.0x CD", "24.0x CD", "48.0x CD") and found.product == "97m15s17f/79m59s71f , Ritek Corp"
    closed = xorriso.parse_medium(CLOSED)
    assert (closed.fill, closed.overall, closed.writable) == (Fill.CLOSED, 2_298_496, 0)
    assert closed.rewritable and not closed.overwritable
    assert xorriso.parse_medium(NO_MEDIUM).fill is Fill.ABSENT
    assert xorriso.parse_medium(blank("DVD-RW restricted overwrite", status="is blank , is POW formatted")).overwritable
    with pytest.raises(ToolError, match="Cannot access"):
        xorriso.parse_medium("libburn : FAILURE : Cannot access '/dev/sr0' as SG_IO CDROM drive\n")


def test_worst_words() -> None:
    assert worst(PREMATURE).startswith("Premature end of input")
    assert worst(WRITTEN) == "" and worst("xorriso : SORRY : Cannot set speed\n") == ""
    assert worst("xorriso : SORRY : Cannot set speed\n", small=True) == "Cannot set speed"
    assert worst("xorriso : NOTE : Tolerated problem event of severity 'FAILURE : '") == ""


MINFO = """Vendor_info    : 'HL-DT-ST'
Identifikation : 'BD-RE  BH16NS40 '
Mounted media class:      DVD
Mounted media type:       DVD+R
disk status:              {}
"""


def test_cdrskin_on_media() -> None:
    found = parse_minfo(MINFO.format("empty"), "cdrskin: beginning\n2295104\n")
    assert (found.fill, found.kind, found.writable) == (Fill.BLANK, "DVD+R", 2_295_104)
    assert found.drive == "HL-DT-ST BD-RE  BH16NS40"
    assert parse_minfo(MINFO.format("complete"), "").fill is Fill.CLOSED
    assert parse_minfo(MINFO.format("incomplete/appendable"), "").fill is Fill.APPENDABLE
    assert parse_minfo("cdrskin: SORRY : No media found in drive\n", "").fill is Fill.ABSENT
    with pytest.raises(ToolError, match="cannot find"):
        parse_minfo("cdrskin: FATAL : cannot find '/dev/sr0' among accessible drive devices.\n", "")


def test_cdrskin_is_asked_in_its_own_words() -> None:
    tool = Cdrskin("cdrskin")
    words = tool.command(Burn("/dev/sr0", 5000, "image.iso", speed="4d", close=False, simulate=True))
    assert words[:3] == ["cdrskin", "--no_rc", "dev=/dev/sr0"] and words[-2:] == ["tsize=5000s", "image.iso"]
    assert {"-multi", "-dummy", "speed=4d", "padsize=0"} <= set(words)
    assert tool.progress("Track 01:    5 of    8 MB written (fifo 100%) [buf  50%]  196.6x.").fraction == 5 / 8
    assert tool.failure("cdrskin: burning done\n", 0) == ""
    assert tool.failure("cdrskin: burning failed\n", 0) and tool.failure("", 0) and tool.failure("", 10)


def may_emulate() -> bool:
    """cdrskin(1), FILES: root must permit pseudo-drives by this file."""
    return os.geteuid() != 0 or Path("/root/cdrskin_permissions/allow_emulated_drives").exists()


@pytest.mark.peer("cdrskin")
@pytest.mark.parametrize("source", ["image", "stream"])
def test_cdrskin_burns_the_same_disc(tmp_path: Path, source: str) -> None:
    if not may_emulate():
        pytest.skip("cdrskin permits root no pseudo-drives here (see cdrskin(1), FILES)")
    path, image = load_blank(tmp_path), an_image(size=2_000_000)
    burner = drive(tmp_path, tool="cdrskin", source=source)
    assert burner.probe().state is DriverState.READY and burner.probe().supplies["blanks"] == 1
    given = order(image)
    ticket = burner.prepare(given)
    burner.submit(given, ticket)
    report = ended(burner, ticket)
    assert report.state is BurnState.BURNT, report.message
    with (tmp_path / "expected").open("wb") as file:
        assert image.write(file) == report.sha256
    assert path.read_bytes()[: image.size] == (tmp_path / "expected").read_bytes()
    burner.finish(ticket, Outcome.GOOD)
    assert burner.probe().supplies["blanks"] == 0


class FakeTray:
    """A drive's ioctls."""

    def __init__(self, *, closes: bool = True) -> None:
        self.status = 4
        self.calls: list[int] = []
        self._closes = closes

    def __call__(self, _descriptor: int, request: int, _argument: Any = 0) -> int:
        self.calls.append(request)
        if request == drive_tray._EJECT:
            self.status = 2
        elif request == drive_tray._CLOSE_TRAY:
            if not self._closes:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            self.status = 4
        return self.status if request == drive_tray._DRIVE_STATUS else 0


def test_a_tray_goes_out_and_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path / "sr0"
    device.touch()
    tray = FakeTray()
    monkeypatch.setattr(fcntl, "ioctl", tray)
    assert drive_tray.state(str(device)) is Tray.LOADED
    assert drive_tray.reload(str(device)) == ""
    moves = [call for call in tray.calls if call in (drive_tray._EJECT, drive_tray._CLOSE_TRAY)]
    assert moves == [drive_tray._EJECT, drive_tray._CLOSE_TRAY]
    for status, expected in ((1, Tray.EMPTY), (2, Tray.OPEN), (3, Tray.NOT_READY), (0, Tray.UNKNOWN)):
        tray.status = status
        assert drive_tray.state(str(device)) is expected
    assert drive_tray.state(str(tmp_path / "sr9")) is Tray.GONE


def test_a_slim_drive_must_be_closed_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path / "sr0"
    device.touch()
    monkeypatch.setattr(fcntl, "ioctl", FakeTray(closes=False))
    monkeypatch.setattr(drive_tray, "_SPIN_UP_SECONDS", 0.02)
    monkeypatch.setattr(drive_tray, "_STEP_SECONDS", 0.001)
    assert "push the tray" in drive_tray.reload(str(device))


def test_a_tray_that_does_not_open_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path / "sr0"
    device.touch()

    def locked(_descriptor: int, request: int, _argument: Any = 0) -> int:
        if request == drive_tray._EJECT:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return 4

    monkeypatch.setattr(fcntl, "ioctl", locked)
    assert "does not open" in drive_tray.reload(str(device))


def test_an_open_tray_is_not_pulled_in_by_the_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path / "sr0"
    device.touch()
    tray = FakeTray()
    tray.status = 2
    monkeypatch.setattr(fcntl, "ioctl", tray)
    burner = drive(tmp_path, drive=str(device), program=shutil.which("false") or "/bin/false")
    (shown,) = burner.probe().as_json()["drives"]
    assert shown["state"] == "open"
    assert tray.calls == [drive_tray._DRIVE_STATUS]


def test_drives_of_the_machine_are_found_without_opening_them(tmp_path: Path) -> None:
    for name, vendor, model in (("sr0", "HL-DT-ST", "BD-RE  BH16NS40 "), ("sr1", "", ""), ("sda", "X", "Y")):
        device = tmp_path / name / "device"
        device.mkdir(parents=True)
        if vendor:
            (device / "vendor").write_text(f"{vendor}\n")
            (device / "model").write_text(f"{model}\n")
    assert [(drive.name, drive.model) for drive in system_drives(tmp_path)] == [
        ("/dev/sr0", "HL-DT-ST BD-RE  BH16NS40"),
        ("/dev/sr1", ""),
    ]
    assert system_drives(tmp_path / "none") == []
