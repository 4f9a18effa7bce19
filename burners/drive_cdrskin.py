"""cdrskin as burning tool: the same library as xorriso's, with cdrecord's words."""

from __future__ import annotations

import re

from burners.drive_media import Fill, Medium
from burners.drive_tools import Burn, Drive, Progress, ToolError, run, worst, written_megabytes

_DEVICE = re.compile(r"^\d+ +dev='([^']+)' +\S+ +: +'([^']*)' '([^']*)'", re.MULTILINE)
_VENDOR = re.compile(r"^Vendor_info +: '([^']*)'", re.MULTILINE)
_MODEL = re.compile(r"^Identifikation : '([^']*)'", re.MULTILINE)
_TYPE = re.compile(r"^Mounted media type: +(.*)$", re.MULTILINE)
_STATUS = re.compile(r"^disk status: +(.*)$", re.MULTILINE)
_PRODUCT = re.compile(r"^Manufacturer: +(.*)$", re.MULTILINE)
_SPACE = re.compile(r"^(\d+)$", re.MULTILINE)
_FILLS = {"empty": Fill.BLANK, "incomplete/appendable": Fill.APPENDABLE, "complete": Fill.CLOSED}


class Cdrskin:
    """cdrskin, at a path or on PATH."""

    name = "cdrskin"

    def __init__(self, program: str) -> None:
        self.program = program

    def devices(self) -> list[Drive]:
        found = run([self.program, "--no_rc", "--devices"])
        return [
            Drive(name, f"{vendor.strip()} {product.strip()}")
            for name, vendor, product in _DEVICE.findall(found.stdout)
        ]

    def medium(self, drive: str) -> Medium:
        answer = run([*self._begin(drive), "-minfo"])
        space = run([*self._begin(drive), "--tell_media_space"])
        return parse_medium(answer.stdout, space.stdout)

    def command(self, burn: Burn) -> list[str]:
        words = [*self._begin(burn.drive), "-v", "fs=16m"]
        words += [f"speed={burn.speed}"] if burn.speed else []
        words += ["-sao", "padsize=0"] if burn.cd and burn.close else [f"padsize={'150s' if burn.cd else '0'}"]
        words += [] if burn.close else ["-multi"]
        words += ["blank=as_needed"] if burn.blank else []
        words += ["-dummy"] if burn.simulate else []
        return [*words, f"tsize={burn.sectors}s", burn.source]

    def progress(self, transcript: str) -> Progress:
        return written_megabytes(transcript, began="Starting to write CD/DVD" in transcript)

    def failure(self, transcript: str, status: int) -> str:
        if status:
            return worst(transcript, small=True) or f"cdrskin ended with status {status}"
        if (trouble := worst(transcript)) or "burning failed" in transcript:
            return trouble or "cdrskin: burning failed"
        return "" if "cdrskin: burning done" in transcript else "cdrskin ended without saying that it was successful"

    def _begin(self, drive: str) -> list[str]:
        # Pseudo-drives are refused unless this is said (to root, unless a file permits them: cdrskin(1), FILES).
        pseudo = ["--allow_emulated_drives"] if drive.startswith("stdio:") else []
        return [self.program, "--no_rc", *pseudo, f"dev={drive}"]


def parse_medium(text: str, space: str) -> Medium:
    """The answers to ``-minfo`` and ``--tell_media_space``. Raises ToolError when the drive could not be had."""
    if "No media found in drive" in text or "burn_disc_empty" in text:
        return Medium(Fill.ABSENT)
    profile, status = _TYPE.search(text), _STATUS.search(text)
    if profile is None or status is None:
        raise ToolError(worst(text, small=True) or "the drive does not answer")
    fill = _FILLS.get(status[1].strip(), Fill.UNUSABLE)
    free = _SPACE.findall(space)
    vendor, model, product = _VENDOR.search(text), _MODEL.search(text), _PRODUCT.search(text)
    return Medium(
        fill=fill,
        profile=profile[1].strip(),
        writable=int(free[-1]) if free else 0,
        overall=int(free[-1]) if free else 0,
        product=product[1].strip() if product else "",
        drive=f"{vendor[1].strip() if vendor else ''} {model[1].strip() if model else ''}".strip(),
        detail="" if fill is not Fill.UNUSABLE else f"status {status[1].strip()}",
    )
