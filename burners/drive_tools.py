"""What the programs that burn have in common: how they are called, and how their words are read.

A tool's exit status alone is worth nothing: a stream that ends early, or a medium that does not match, may leave 0. A
burn counts as ended well only with status 0, the tool's own words for success, and no word of failure.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import Protocol

from burners.drive_media import Medium

_ASK_SECONDS = 90.0
"""A drive that spins up a bad disc may take that long to answer."""


@dataclass(frozen=True, slots=True)
class Burn:
    """One run of a tool."""

    drive: str
    sectors: int
    source: str
    """Path of the image, or ``-``: the standard input."""
    speed: str = ""
    """Upper limit, as the tool takes it (``8``, ``4d``); empty: as fast as it goes."""
    close: bool = True
    """False: the disc is left open for further sessions."""
    blank: bool = False
    """The medium is blanked first."""
    simulate: bool = False
    """The laser stays off."""
    cd: bool = False
    """The medium is a CD, and blank."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a transcript tells of a burn that runs."""

    fraction: float = 0.0
    words: str = ""
    began: bool = False
    """The tool has begun to write: the blank is no blank any more."""


@dataclass(frozen=True, slots=True)
class Drive:
    """A drive that was found."""

    name: str
    model: str


class ToolError(Exception):
    """The tool is not there, or does not answer; the text is for people."""


class Tool(Protocol):
    """A burning program."""

    name: str
    program: str

    def devices(self) -> list[Drive]:
        """Drives that this user may use. Raises ToolError."""
        ...

    def medium(self, drive: str) -> Medium:
        """What lies in a drive. Raises ToolError when the drive cannot be had."""
        ...

    def command(self, burn: Burn) -> list[str]:
        """The command line of a burn."""
        ...

    def progress(self, transcript: str) -> Progress: ...

    def failure(self, transcript: str, status: int) -> str:
        """Why a burn that has ended did not end well; empty: it did."""
        ...


_OF = re.compile(r"(\d+) of +(\d+) MB written")
_SPEED = re.compile(r"\] +([\d.]+x)")


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a tool for a short question; output and errors come as one text. Raises ToolError."""
    if shutil.which(arguments[0]) is None:
        raise ToolError(f"the program {arguments[0]} is not installed")
    try:
        return subprocess.run(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(),
            text=True,
            errors="replace",
            timeout=_ASK_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{arguments[0]} has not answered for {_ASK_SECONDS:.0f} s; the drive hangs") from error
    except OSError as error:
        raise ToolError(f"{arguments[0]}: {error.strerror or error}") from error


def environment() -> dict[str, str]:
    """Words in English, whatever the site speaks."""
    return {**os.environ, "LC_ALL": "C", "LANGUAGE": "C"}


def written_megabytes(transcript: str, *, began: bool) -> Progress:
    """The last ``N of M MB written`` of a libburn program, both of which word it alike."""
    found = list(_OF.finditer(transcript))
    if not found:
        return Progress(words="waiting for the drive" if not began else "beginning to write", began=began)
    last = found[-1]
    done, total = int(last[1]), int(last[2])
    speed = _SPEED.search(transcript, last.end())
    words = f"writing, {done} of {total} MB" + (f" at {speed[1]}" if speed else "")
    return Progress(done / total if total else 0.0, words, began=True)


def worst(transcript: str, *, small: bool = False) -> str:
    """The first line that tells of a failure, in the tool's words; ``small``: one that it went on after will do."""
    severities = "FAILURE|FATAL|ABORT|SORRY" if small else "FAILURE|FATAL|ABORT"
    for line in transcript.replace("\r", "\n").split("\n"):
        found = re.search(rf"\b(?:{severities}) +: +(.*)", line)
        if found and "Tolerated" not in line:
            return found[1].strip()[:300]
    return ""
