"""Sessions appended by xorriso: to the disc in a drive, or to an image file.

xorriso loads the tree of the last session, adds to it, and writes new files and a whole new tree behind what is there.
Its session has level 1 names and nothing beside the primary tree, as the first has (PS3.12 Annex F).
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from burners import drive_tray
from burners.drive_media import Fill, is_pseudo
from burners.drive_tools import ToolError, environment, worst
from burners.xorriso import Xorriso
from media.problems import MediaError
from media.update_session import Session

_OPTIONS = "append.options"


def append(session: Session, target: str, *, program: str = "xorriso", close: bool = False) -> None:
    """Append a session to ``target``, an image file or a device; ``close``: the last one. Raises MediaError.

    A block device that is no optical drive is written like a rewritable disc.
    """
    drive = target if _is_optical(target) else f"stdio:{Path(target).absolute()}"
    _check_medium(drive, session.sectors, program)
    lines = [f"-rm /{name} --" for name in session.hidden]
    lines += [f"-map {name} /{path}" for name, path in session.files]
    (session.work / _OPTIONS).write_text("\n".join(lines) + "\n", encoding="ascii")
    command = [
        *(program, "-no_rc", "-abort_on", "FAILURE", "-return_with", "SORRY", "32"),
        *("-read_fs", "ecma119", "-rockridge", "off", "-joliet", "off", "-compliance", "clear:iso_9660_level=1"),
        *("-overwrite", "on", "-padding", "150s", "-dev", drive, "-options_from_file", _OPTIONS),
        *("-close", "on" if close else "off", "-commit", "-end"),
    ]
    try:
        done = subprocess.run(
            command,
            cwd=session.work,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment(),
            start_new_session=True,  # Ctrl-C ends us, but not a disc that is being written
            check=False,
        )
    except OSError as error:
        raise MediaError(f"the program {program}: {error.strerror or error}") from error
    if done.returncode or "completed successfully." not in done.stdout:
        reason = worst(done.stdout, small=True) or f"status {done.returncode}"
        raise MediaError(f"xorriso could not append a session to {target}: {reason}")


def ready(target: str) -> None:
    """Have the tray out and in, so that the system sees the new session. MediaError says what a person must do."""
    if _is_optical(target) and (todo := drive_tray.reload(target)):
        raise MediaError(f"the session was written; to have it read back {todo}, then say `burnish verify {target}`")


def _is_optical(target: str) -> bool:
    return Path(target).is_block_device() and drive_tray.state(target) is not drive_tray.Tray.UNKNOWN


def _check_medium(drive: str, sectors: int, program: str) -> None:
    """Raises MediaError for a medium that takes no further session, or not so large a one."""
    try:
        medium = Xorriso(program).medium(drive)
    except ToolError as error:
        raise MediaError(f"{drive}: {error}") from error
    if medium.fill is not Fill.APPENDABLE:
        raise MediaError(f"{drive}: nothing can be appended to it: {medium.in_words()}")
    if not is_pseudo(drive) and medium.writable < sectors:
        raise MediaError(f"{drive}: the session needs {sectors} sectors; {medium.writable} are free")
