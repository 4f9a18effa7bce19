"""The program dvdisaster: adds error-correction data to an image, tests it, repairs an image with it.

Its exit status says little (a test ends with 0 whatever it finds), so what it prints is read, and what it did is
checked.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from media.device import SECTOR
from media.ecc import RS02, Layout, rs02_request
from media.problems import MediaError

PROGRAM = "dvdisaster"
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)%")
_GOOD = re.compile(r"- good image(/file)?\s*:")
_STALLED_SECONDS = 900.0
_LOOK_SECONDS = 0.3
_KEPT = 1 << 16
"""Characters of what it prints that are kept from the beginning, and as many from the end."""
_FAULTS_TOLD = 5
_SURPLUS_LINES = re.compile(r"^(dvdisaster |Copyright|This software|is free software|under the cond|See the file)")


class ToolMissing(MediaError):
    """The program is not installed here."""


class ToolFailed(MediaError):
    """The program did not do what it was told; the text has its own words."""


class ToolCancelled(MediaError):
    """The caller's ``cancelled`` said so."""


@dataclass(frozen=True, slots=True)
class Tested:
    """What a test found."""

    good: bool
    """Every sector is there, and data, checksums and correction data fit each other."""
    faults: tuple[str, ...]
    """The program's own words about what is wrong."""
    recoverable: bool
    """Whether no data is damaged, or the program expects to repair all of it."""


def installed() -> str | None:
    """Path of the program; None: it is not installed."""
    return shutil.which(PROGRAM)


def require() -> str:
    """Path of the program. Raises ToolMissing that says what to do."""
    found = installed()
    if found is None:
        raise ToolMissing(
            "dvdisaster is not installed here, so error-correction data can be neither made nor used; "
            "install it (Debian: apt install dvdisaster), or plan without (--protect none)."
        )
    return found


def augment(
    image: Path,
    layout: Layout,
    *,
    progress: Callable[[float], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    keep: Sequence[int] = (),
) -> None:
    """Add error-correction data to an image in its place. ``keep``: descriptors that the program inherits.

    Raises ToolMissing, ToolFailed (also where the image did not get the size of ``layout``), ToolCancelled. The image
    is of no use then.
    """
    if layout.method == RS02:
        arguments = ["-mRS02", "-n", str(rs02_request(layout))]
    else:
        arguments = ["-mRS03", "-o", "image", "-x", str(min(8, os.cpu_count() or 1))]
    text = _run(["-i", str(image), *arguments, "-c"], progress=progress, cancelled=cancelled, keep=keep)
    size = image.stat().st_size
    if "Image has been augmented" not in text or size != layout.sectors * SECTOR:
        raise ToolFailed(
            f"dvdisaster made an image of {size} bytes where {layout.sectors * SECTOR} were planned: {_words(text)}"
        )


def test(
    image: Path,
    *,
    progress: Callable[[float], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Tested:
    """Test an image against its error-correction data. Raises ToolMissing, ToolFailed, ToolCancelled."""
    return judged(_run(["-i", str(image), "-a", "RS02,RS03", "-t"], progress=progress, cancelled=cancelled))


def judged(text: str) -> Tested:
    """What the text of a test says."""
    lines = _lines(text)
    faults = [line.lstrip("* ") for line in lines if line.startswith("*") and line.strip("* ")]
    if not any("RS02" in line or "RS03" in line for line in lines if re.match(r"- method\s*:", line)):
        faults.append("no error-correction data was recognised")
    elif not any(_GOOD.match(line) for line in lines) and not faults:
        faults.append("the program did not say that the image is good")
    expects = [line for line in lines if re.match(r"- prognosis\s*:", line)]
    if expects:
        hopeful = all("(100.0%)" in line for line in expects)
    else:  # it expects nothing where no data is damaged
        hopeful = not any("no error-correction data" in fault or "data md5sum" in fault for fault in faults)
    return Tested(not faults, tuple(faults[:_FAULTS_TOLD]), hopeful)


def fix(
    image: Path,
    method: str,
    *,
    progress: Callable[[float], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> tuple[bool, str]:
    """Repair an image in its place; whether the program says that all is repaired, and its words.

    Raises ToolMissing, ToolFailed, ToolCancelled.
    """
    # After RS03 has repaired all it ends with 1; what counts is that it came to its end.
    arguments = ["-i", str(image), "-a", method.upper(), "-f"]
    text = _run(arguments, progress=progress, cancelled=cancelled, done=("Good!", "Repaired sectors:"))
    told = [line for line in _lines(text) if line.startswith(("Good!", "Repaired sectors", "*")) and line.strip("* ")]
    return any(line.startswith("Good!") for line in told), "; ".join(line.lstrip("* ") for line in told[-_FAULTS_TOLD:])


def _run(
    arguments: Sequence[str],
    *,
    progress: Callable[[float], None] | None,
    cancelled: Callable[[], bool] | None,
    keep: Sequence[int] = (),
    done: tuple[str, ...] = (),
) -> str:
    """Run the program to its end; what it printed. It has no home: it would write its settings there.

    ``done``: beginnings of lines by which it is known to have done its work, whatever its exit status.
    """
    command = [require(), *arguments]
    guard = shutil.which("setpriv")
    if guard:  # it dies with us, so that what is begun anew after a crash is alone
        command = [guard, "--pdeathsig", "KILL", "--", *command]
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/nonexistent", "LC_ALL": "C", "LANGUAGE": "C"}
    try:
        process = subprocess.Popen(
            command,
            cwd="/",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=keep,
        )
    except OSError as error:
        raise ToolFailed(f"dvdisaster cannot be started: {error.strerror or error}.") from error
    try:
        text = _listen(process, progress, cancelled)
        status = process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        assert process.stdout is not None
        process.stdout.close()
    if status and not any(line.startswith(done) for line in _lines(text) if done):
        raise ToolFailed(f"dvdisaster ended with status {status}: {_words(text)}")
    return text


def _listen(
    process: subprocess.Popen[bytes],
    progress: Callable[[float], None] | None,
    cancelled: Callable[[], bool] | None,
) -> str:
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    head, tail = "", ""
    heard = time.monotonic()
    while True:
        if cancelled is not None and cancelled():
            raise ToolCancelled("Working on error-correction data was cancelled.")
        if not select.select([pipe], [], [], _LOOK_SECONDS)[0]:
            if time.monotonic() - heard > _STALLED_SECONDS:
                raise ToolFailed(f"dvdisaster has said nothing for {_STALLED_SECONDS:.0f} seconds; it was stopped.")
            continue
        chunk = os.read(pipe, 1 << 16)
        if not chunk:
            return head + tail
        heard = time.monotonic()
        text = chunk.decode("utf-8", "replace")
        found = _PERCENT.findall(text)
        if found and progress is not None:
            progress(min(1.0, float(found[-1]) / 100))
        # Progress is printed over itself; of that only the latest is kept.
        if len(head) < _KEPT:
            head = _settled(head + text)
        else:
            tail = _settled(tail + text)[-_KEPT:]


def _settled(text: str) -> str:
    """Text without what was printed over by backspaces."""
    lines = text.split("\n")
    return "\n".join([*(line.rpartition("\b")[2] for line in lines[:-1]), lines[-1][-4096:]])


def _lines(text: str) -> list[str]:
    """The lines that say something."""
    found = (line.rpartition("\b")[2].rpartition("\r")[2].rstrip() for line in text.split("\n"))
    return [line for line in found if line and not _SURPLUS_LINES.match(line)]


def _words(text: str) -> str:
    """The end of what it said, in one line."""
    return " / ".join(line.strip("* ") for line in _lines(text)[-_FAULTS_TOLD:] if line.strip("* ")) or "no word"
