"""Pseudo-drives, and a tool that replays what real ones said."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from burners import drive_work
from burners.base import BurnReport, BurnState, Ticket
from burners.drive import LocalDrive
from tests.waiting import wait_for

HEADER = "xorriso 1.5.4 : RockRidge filesystem manipulator, libburnia project.\n\n"

NO_MEDIUM = f"""{HEADER}Drive current: -outdev '/dev/sr0'
Drive type   : vendor 'TSSTcorp' product 'CDDVDW SH-S203B' revision 'SB03'
Media current: is not recognizable
Media status : is not present
"""

CLOSED = f"""{HEADER}Drive current: -outdev '/dev/sr0'
Drive type   : vendor 'TSSTcorp' product 'CDDVDW SH-S203B' revision 'SB03'
Media current: DVD-RW sequential recording
Media product: RITEKW06 , Ritek Corp
Media status : is written , is closed
Media blocks : 306592 readable , 0 writable , 2298496 overall
TOC layout   : Idx ,  sbsector ,       Size , Volume Id
ISO session  :   1 ,         0 ,    162129s , FEDORA_12_1
Media summary: 1 session, 306592 data blocks,  599m data,     0 free
"""

APPENDABLE = CLOSED.replace("is closed", "is appendable").replace("0 writable", "1991904 writable")


def blank(profile: str = "CD-R", writable: int = 359_845, status: str = "is blank") -> str:
    """What ``-toc`` says of a blank."""
    return f"""{HEADER}Drive current: -outdev '/dev/sr0'
Drive type   : vendor 'TSSTcorp' product 'CDDVDW SH-S203B' revision 'SB03'
Media current: {profile}
Media product: 97m15s17f/79m59s71f , Ritek Corp
Media status : {status}
Media blocks : 0 readable , {writable} writable , {writable} overall
Media summary: 0 sessions, 0 data blocks,     0 data,  703m free
Write speed  :  1764k , 10.0xC
Write speed  :  4234k , 24.0xC
Write speed L:  1764k , 10.0xC
Write speed H:  8467k , 48.0xC
"""


WRITTEN = """Beginning to write data track.
xorriso : UPDATE :    3 of    9 MB written (fifo 99%) [buf  50%]   0.9x.
xorriso : UPDATE :    9 of    9 MB written (fifo  0%) [buf  50%]   1.9x.
Writing to '/dev/sr0' completed successfully.
"""

PREMATURE = """Beginning to write data track.
xorriso : UPDATE :    3 of    9 MB written (fifo 99%) [buf  50%]   0.9x.
libburn : FAILURE : Premature end of input encountered. Missing: 5699328 bytes
xorriso : FAILURE : libburn indicates failure with writing.
"""

REFUSED = """libburn : FAILURE : Closed media with data detected. Need blank or appendable media.
xorriso : FAILURE : Could not begin to write
"""

ABORTED = """
xorriso : ABORT : Trying to shut down busy drives
xorriso : ABORT : Drive is released
"""

_SCRIPT = """#!/bin/sh
here=$(dirname "$0")
case " $* " in
*" cdrecord "*) ;;
*" -devices "*) cat "$here/devices"; exit 0 ;;
*) cat "$here/medium"; exit 0 ;;
esac
trap 'cat "$here/aborted"; exit 1' TERM INT
echo "$*" >>"$here/burns"
for word; do
    source=$word
    case $word in dev=*) drive=${word#dev=stdio:}; drive=${drive#dev=} ;; esac
done
head -1 "$here/burn"
[ "$source" = - ] && exec <&0
if [ -e "$here/bytes" ]; then head -c "$(cat "$here/bytes")" "$source" >"$drive"; fi
while [ -e "$here/hold" ]; do sleep 0.02; done
sed 1d "$here/burn"
exit "$(cat "$here/status")"
"""


class FakeTool:
    """A program that says of medium and burn what the test wants, writes so many bytes of the image, and waits."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.program = folder / "xorriso"
        self.program.write_text(_SCRIPT)
        self.program.chmod(0o755)
        self.says(medium=blank(), burn=WRITTEN, status="0", aborted=ABORTED, devices="", bytes="1000000000")

    def says(self, **files: str) -> None:
        for name, text in files.items():
            temporary = self.folder / f".{name}"
            temporary.write_text(text)
            temporary.rename(self.folder / name)

    def hold(self, wanted: bool) -> None:
        """Let burns last until they are let go."""
        path = self.folder / "hold"
        path.touch() if wanted else path.unlink(missing_ok=True)

    def burns(self) -> list[str]:
        path = self.folder / "burns"
        return path.read_text().splitlines() if path.exists() else []


def drive(data: Path, **options: Any) -> LocalDrive:
    """A burner, and another one each time, as after a restart."""
    given = options if "drives" in options or "drive" in options else {"drive": "stdio:disc", **options}
    return LocalDrive("b1", given, data=data)


def load_blank(data: Path, name: str = "disc") -> Path:
    """Lay a blank into a pseudo-drive; what was in it is taken away."""
    path = data / name
    if path.exists():
        number = 1
        while path.with_name(f"{name}.taken{number}").exists():
            number += 1
        path.rename(path.with_name(f"{name}.taken{number}"))
    data.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def in_state(burner: LocalDrive, ticket: Ticket, *states: BurnState) -> BurnReport:
    """Poll until it is so; what it said then."""
    said: list[BurnReport] = []

    def seen() -> bool:
        said.append(burner.poll(ticket))
        return said[-1].state in states

    wait_for(seen, f"{states}, not {burner.poll(ticket)}")
    return said[-1]


def impatient(monkeypatch: Any) -> None:
    monkeypatch.setattr(drive_work, "LOOK_SECONDS", 0.02)


@contextmanager
def small_file_system(folder: Path, size: str) -> Iterator[Path]:
    """A tmpfs of this size, mounted; the test is skipped where that may not be."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "burnish-test", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False) if shutil.which("mount") else None
    if done is None or done.returncode:
        pytest.skip(f"cannot mount: {done.stderr if done else 'there is no mount'}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


@contextmanager
def loop_device(file: Path, size: int) -> Iterator[str]:
    """A block device of this many bytes, zeros; the test is skipped where that may not be."""
    with file.open("wb") as handle:
        handle.truncate(size)
    command = ["losetup", "--find", "--show", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False) if shutil.which("losetup") else None
    if done is None or done.returncode:
        pytest.skip(f"no loop devices: {done.stderr if done else 'there is no losetup'}")
    device = done.stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "-d", device], capture_output=True, check=False)


def gone(pid: int) -> bool:
    """No such process, or one that only waits to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def kill_tree(pids: list[int]) -> None:
    import signal

    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    wait_for(lambda: all(gone(pid) for pid in pids), "them to die")
