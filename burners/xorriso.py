"""xorriso as burning tool, by its emulation of cdrecord: one image, one track, one run.

The emulation and not the native mode burns what is burnt: it takes an image whose size is announced, refuses before
the first sector when it does not fit, and ends with status 5 when its input ends early.
"""

from __future__ import annotations

import re

from burners.drive_media import Fill, Medium
from burners.drive_tools import Burn, Drive, Progress, ToolError, run, worst, written_megabytes

_DEVICE = re.compile(r"^\d+ +-dev '([^']+)' +\S+ +: +'([^']*)' '([^']*)'", re.MULTILINE)
_TYPE = re.compile(r"^Drive type +: vendor '([^']*)' product '([^']*)'", re.MULTILINE)
_CURRENT = re.compile(r"^Media current: (.*)$", re.MULTILINE)
_STATUS = re.compile(r"^Media status : (.*)$", re.MULTILINE)
_BLOCKS = re.compile(r"^Media blocks : \d+ readable , (\d+) writable , (\d+) overall", re.MULTILINE)
_PRODUCT = re.compile(r"^Media product: (.*)$", re.MULTILINE)
_WRITE_SPEED = re.compile(r"^Write speed .?: +\d+k +, +([\d.]+)x([CDB])", re.MULTILINE)
_LETTERS = {"C": "CD", "D": "DVD", "B": "BD"}
_NONE = ("is not present", "no media")


class Xorriso:
    """xorriso, at a path or on PATH."""

    name = "xorriso"

    def __init__(self, program: str) -> None:
        self.program = program

    def devices(self) -> list[Drive]:
        found = run([self.program, "-no_rc", "-devices"])
        return [
            Drive(name, f"{vendor.strip()} {product.strip()}")
            for name, vendor, product in _DEVICE.findall(found.stdout)
        ]

    def medium(self, drive: str) -> Medium:
        answer = run([self.program, "-no_rc", "-abort_on", "FATAL", "-outdev", drive, "-toc", "-list_speeds"])
        return parse_medium(answer.stdout)

    def command(self, burn: Burn) -> list[str]:
        words = [self.program, "-no_rc", "-as", "cdrecord", "-v", f"dev={burn.drive}", "fs=16m"]
        words += [f"speed={burn.speed}"] if burn.speed else []
        # A CD track of its exact length can be read to its end; behind a track of the other kind the last blocks are
        # not, so it gets 150 blocks behind the image. The image itself is never changed.
        words += ["-sao", "padsize=0"] if burn.cd and burn.close else [f"padsize={'150s' if burn.cd else '0'}"]
        words += [] if burn.close else ["-multi"]
        words += ["blank=as_needed"] if burn.blank else []
        words += ["-dummy"] if burn.simulate else []
        return [*words, f"tsize={burn.sectors}s", burn.source]

    def progress(self, transcript: str) -> Progress:
        return written_megabytes(transcript, began="Beginning to write data track" in transcript)

    def failure(self, transcript: str, status: int) -> str:
        if status:
            return worst(transcript, small=True) or f"xorriso ended with status {status}"
        if trouble := worst(transcript):
            return trouble
        return "" if "completed successfully." in transcript else "xorriso ended without saying that it was successful"


def parse_medium(text: str) -> Medium:
    """The answer to ``-toc``. Raises ToolError when the drive could not be had."""
    current, status = _last(_CURRENT, text), _last(_STATUS, text)
    blocks = _BLOCKS.findall(text)
    model = _TYPE.findall(text)
    speeds = dict.fromkeys(f"{float(factor):.1f}x {_LETTERS[letter]}" for factor, letter in _WRITE_SPEED.findall(text))
    if not current and not status:
        if "No media detected" in text:
            return Medium(Fill.ABSENT)
        raise ToolError(worst(text, small=True) or "the drive does not answer")
    writable, overall = (int(blocks[-1][0]), int(blocks[-1][1])) if blocks else (0, 0)
    return Medium(
        fill=_fill(status, current),
        profile=current,
        writable=writable,
        overall=overall,
        product=_last(_PRODUCT, text),
        speeds=tuple(speeds),
        detail=_detail(status),
        drive=" ".join(part.strip() for part in model[-1]) if model else "",
    )


def _fill(status: str, current: str) -> Fill:
    if any(words in status or words in current for words in _NONE):
        return Fill.ABSENT
    if "not recognizable" in status or "unsuitable" in status or "not recognizable" in current:
        return Fill.UNUSABLE
    if "damaged" in status or "no writable address" in status:
        return Fill.UNUSABLE
    if "is blank" in status:
        return Fill.BLANK
    if "is appendable" in status:
        return Fill.APPENDABLE
    return Fill.CLOSED if "is written" in status or "is closed" in status else Fill.UNUSABLE


def _detail(status: str) -> str:
    """What a status says beyond blank, appendable and closed."""
    known = ("is blank", "is written", "is appendable", "is closed", "is not present")
    return ", ".join(part.strip() for part in status.split(" ,") if part.strip() and part.strip() not in known)


def _last(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.findall(text)
    return found[-1].strip() if found else ""
