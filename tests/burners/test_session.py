"""Sessions appended by xorriso: what was there stays, byte for byte; what came counts only when it is whole."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import struct
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from burners import session
from media import device as devices
from media.device import Device
from media.items import Item
from media.problems import MediaError
from media.signing import SIGNATURE_FILE, SiteKey
from media.trees import IsoTree
from media.update import contents
from media.update_change import Change, Orders
from media.update_session import Session, append_to_disc, append_to_image
from media.verify import verify_path
from tests import makers
from tests.burners.drives import loop_device
from tests.makers import make, our_disc
from tests.service.test_cli import burnish

pytestmark = pytest.mark.peer("xorriso")
NOW = datetime(2025, 6, 7, tzinfo=UTC)
SECTOR = 2048


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return our_disc(tmp_path / "disc.iso", [make("CT", number=number) for number in (1, 2)])


def an_item(folder: Path, number: int = 9, kind: str = "MR") -> Item:
    folder.mkdir(exist_ok=True)
    item, _ = makers.item_of(make(kind, series=5, number=number), folder, 100 + number)
    return item


def orders(*items: Item, **more: Any) -> Orders:
    return Orders(items, frozenset(), NOW, None, more.get("seal"))


def differing(before: bytes, after: bytes) -> list[int]:
    """Sectors of the old part that are not as they were."""
    return [
        number
        for number in range(len(before) // SECTOR)
        if before[number * SECTOR :][:SECTOR] != after[number * SECTOR :][:SECTOR]
    ]


def appended(image: Path, *items: Item) -> Change:
    return append_to_image(image, orders(*items), session.append)


def test_sessions_leave_what_was_there(image: Path, tmp_path: Path) -> None:
    before = image.read_bytes()
    uid = verify_path(image).file_set_uid
    for number in (1, 2, 3):
        made = appended(image, an_item(tmp_path / "new", number))
        assert [path for path, _ in made.added] == [f"DICOM/P0000001/ST000001/SE000002/IM00000{number}"]
        found = verify_path(image)
        assert found.ok and len(found.instances) == 2 + number and found.file_set_uid == uid
    assert differing(before, image.read_bytes()) == [16]  # the volume descriptor, and nothing else
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disc.iso", "disc.spool", "new"]


def test_xorriso_sees_sessions_and_an_extracted_manifest_is_right(image: Path, tmp_path: Path) -> None:
    item = an_item(tmp_path / "new")
    made = appended(image, item)
    out = tmp_path / "out"
    subprocess.run(
        ["xorriso", "-no_rc", "-osirrox", "on", "-indev", image, "-extract", "/", out], check=True, capture_output=True
    )
    assert (out / made.added[0][0]).read_bytes() == item.source.read_bytes()
    subprocess.run(["sha256sum", "--quiet", "-c", "MANIFEST.TXT"], cwd=out, check=True)
    told = subprocess.run(["xorriso", "-no_rc", "-indev", image, "-toc"], check=True, capture_output=True, text=True)
    assert "Only_ECMA_119" in told.stdout + told.stderr


def test_what_is_there_already_makes_no_session(image: Path, tmp_path: Path) -> None:
    item = an_item(tmp_path / "new")
    appended(image, item)
    before = image.read_bytes()
    assert appended(image, item).already == (item.sop_instance_uid,)
    assert image.read_bytes() == before


def test_a_signed_disc_is_signed_anew_or_not_at_all(tmp_path: Path) -> None:
    key = SiteKey.open(tmp_path / "key.pem")
    image = our_disc(tmp_path / "disc.iso", [make("CT")], seal=key.seal)
    append_to_image(image, orders(an_item(tmp_path / "new", 1), seal=key.seal), session.append)
    assert verify_path(image).ok and verify_path(image).signer == key.public_key
    append_to_image(image, orders(an_item(tmp_path / "new", 2)), session.append)
    found = verify_path(image)
    assert found.ok and found.signer is None
    with IsoTree(image) as tree:
        assert SIGNATURE_FILE not in tree.files


def test_nothing_is_taken_away_by_a_session(image: Path) -> None:
    wanted = Orders((), frozenset({contents(image)[0].sop_instance_uid}), NOW, None, None)
    with pytest.raises(MediaError, match="takes nothing away"):
        append_to_image(image, wanted, session.append)


# ---------------------------------------------------------------------- what fails leaves the image as it was


def test_a_source_that_changed_is_found_before_anything_is_written(image: Path, tmp_path: Path) -> None:
    item = an_item(tmp_path / "new")
    item.source.write_bytes(item.source.read_bytes()[:-1] + b"?")
    before = image.read_bytes()
    with pytest.raises(MediaError, match="has changed"):
        appended(image, item)
    assert image.read_bytes() == before


def test_a_tool_that_lies_changes_nothing(image: Path, tmp_path: Path) -> None:
    before = image.read_bytes()

    def spoils(made: Session, place: str) -> None:
        session.append(made, place)
        with Path(place).open("r+b") as file, IsoTree(image) as tree:
            file.seek(tree.extents("DICOM/P0000001/ST000001/SE000001/IM000001")[0][0] + 1000)
            file.write(b"?")

    for liar in (spoils, lambda made, place: None):
        with pytest.raises(MediaError, match="not right with its new session"):
            append_to_image(image, orders(an_item(tmp_path / "new")), liar)
        assert image.read_bytes() == before and not (tmp_path / ".disc.iso.update").exists()


def test_a_tool_that_is_not_there_or_fails_is_told(image: Path, tmp_path: Path) -> None:
    before = image.read_bytes()
    failing = tmp_path / "failing"
    failing.write_text(
        '#!/bin/sh\ncase " $* " in *" -toc "*) exec xorriso "$@" ;; esac\n'
        'echo "libburn : FAILURE : SCSI error on write(192,16)"\nexit 5\n'
    )
    failing.chmod(0o755)
    for program, words in (("/nowhere/xorriso", "not installed"), (str(failing), "SCSI error on write")):

        def append(made: Session, place: str, program: str = program) -> None:
            session.append(made, place, program=program)

        with pytest.raises(MediaError, match=words):
            append_to_image(image, orders(an_item(tmp_path / "new")), append)
        assert image.read_bytes() == before


@pytest.mark.parametrize("late", [False, True])
def test_killed_in_the_middle_the_image_is_as_it_was(image: Path, tmp_path: Path, late: bool) -> None:
    before, item = image.read_bytes(), an_item(tmp_path / "new")

    def dies(made: Session, place: str) -> None:
        if late:
            session.append(made, place)
        else:
            with Path(place).open("ab") as file:
                file.write(b"half a session")
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        append_to_image(image, orders(item), dies)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert image.read_bytes() == before and (tmp_path / ".disc.iso.update").exists()
    appended(image, item)
    assert verify_path(image).ok and len(contents(image)) == 3
    assert not (tmp_path / ".disc.iso.update").exists()


# ---------------------------------------------------------------------- discs


def on_disc(device: str, item: Item, work: Path) -> Change:
    return append_to_disc(Path(device), orders(item), session.append, work, lambda: session.ready(device))


def test_a_rewritable_disc_gets_sessions_until_it_is_full(image: Path, tmp_path: Path) -> None:
    size = 600 * SECTOR
    with loop_device(tmp_path / "loop", size) as device:
        before = image.read_bytes()
        Path(device).write_bytes(before)
        added = 0
        with pytest.raises(MediaError, match=r"exceeds free space|could not append"):
            for number in range(1, 40):
                on_disc(device, an_item(tmp_path / "new", number), tmp_path / "work")
                added = number
        assert added >= 3
        found = verify_path(Path(device))
        assert found.ok and len(found.instances) == 2 + added  # the last whole session counts
        with Path(device).open("rb") as disc:
            assert differing(before, disc.read(len(before))) == [16]
        assert not (tmp_path / "work").exists()


def test_a_blank_takes_no_session(image: Path, tmp_path: Path) -> None:
    made = Session(tmp_path, (("t0", "DICOMDIR"),), (), 400)
    (tmp_path / "t0").write_bytes(b"x")
    (tmp_path / "blank").touch()
    with pytest.raises(MediaError, match="nothing can be appended to it"):
        session.append(made, str(tmp_path / "blank"))


def test_of_a_disc_with_sessions_the_last_one_is_read(image: Path, tmp_path: Path) -> None:
    """On CD-R nothing is written over: the first session's descriptor stays, and the drive names the last session."""
    first = image.read_bytes()[16 * SECTOR :][:SECTOR]
    appended(image, an_item(tmp_path / "new"))
    with image.open("r+b") as file:
        file.seek(16 * SECTOR)
        file.write(first)
    assert len(contents(image)) == 2

    class Drive(Device):
        def __init__(self, path: Path) -> None:
            super().__init__(path)
            self.session_start = 192

    with IsoTree(image, Drive(image)) as tree:
        assert "DICOM/P0000001/ST000001/SE000002/IM000001" in tree.files


def test_the_drive_is_asked_where_its_last_session_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    def says(start: int, multi: int) -> Any:
        def ioctl(_descriptor: int, _request: int, question: bytearray) -> int:
            question[:] = struct.pack("=iBBxx", start, multi, 1)
            return 0

        return ioctl

    for start, multi, expected in ((11_400, 1, 11_400), (11_400, 0, 0), (-1, 1, 0)):
        monkeypatch.setattr(fcntl, "ioctl", says(start, multi))
        assert devices.last_session(0) == expected
    monkeypatch.undo()
    with Path(__file__).open("rb") as file:
        assert devices.last_session(file.fileno()) == 0


# ---------------------------------------------------------------------- the command


def test_the_command_appends_and_refuses(tmp_path: Path) -> None:
    data, files = tmp_path / "data", tmp_path / "files"
    files.mkdir()
    for number in (1, 2):
        make("CT", number=number).write(files)
    make("MR", seed=3).write(files)
    at = ("--data", data)
    burnish("import", files, *at)
    done = burnish("burn", "--modality", "CT", "--wait", *at, "--json")
    image = tmp_path / "copy.iso"
    shutil.copy(done["discs"][0]["image"], image)
    before = image.read_bytes()
    told = burnish("update", image, "add", "--modality", "MR", "--copy", "--session", *at, "--json")
    assert (len(told["added"]), told["instances"]) == (1, 3)
    assert told["file_set_uid"] == done["discs"][0]["file_set_uid"]
    assert differing(before, image.read_bytes()) == [16]
    assert verify_path(image).ok
    assert "belong to add" in burnish("update", image, "remove", "--all", "--session", *at, status=2)
    folder = tmp_path / "folder"
    folder.mkdir()
    assert "neither" in burnish("update", folder, "add", "--all", "--session", *at, status=2)
