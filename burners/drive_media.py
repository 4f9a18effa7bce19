"""What lies in a drive, and whether a volume may be burnt onto it.

Burning tools hold every overwritable medium for blank: DVD+RW, DVD-RAM, BD-RE, formatted DVD-RW and every pseudo-drive
(a file or block device). So what is written on such a medium is looked at here, by its bytes, and not by the tool.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

SECTOR = 2048
HEAD_SECTORS = 17
"""System area and primary volume descriptor (ECMA-119 6.2.1, 8.4): label, size and date of the volume stand there."""
_DESCRIPTOR = 16 * SECTOR
_LOOK_BYTES = 2 << 20
"""FAT, ext, ISO 9660, UDF (anchor in sector 256) and partition tables all have something within the first 2 MiB."""
_BURNISH = b"BURNISH"

_FAMILIES = (
    ("CD", ("CD-R", "CD-RW")),
    ("DVD", ("DVD-R", "DVD-RW", "DVD+R", "DVD+RW", "DVD-RAM")),
    ("BD", ("BD-R", "BD-RE")),
)
_TAKEN = {
    "CD": ("CD-R",),  # PS3.12 Annex F knows no CD-RW
    "DVD": ("DVD-R", "DVD-RW", "DVD+R", "DVD+RW"),  # Annex P; DVD-RAM is Annex J's, with UDF
    "BD": ("BD-R", "BD-RE"),  # Annex X
}


class Fill(StrEnum):
    """What a medium is filled with, as far as the tool knows."""

    ABSENT = "no medium"
    BLANK = "blank"
    APPENDABLE = "appendable"
    CLOSED = "closed"
    UNUSABLE = "not usable"


@dataclass(frozen=True, slots=True)
class Medium:
    """What a tool says of the medium in a drive."""

    fill: Fill
    profile: str = ""
    """As the tool names it: ``DVD+R/DL``, ``BD-R sequential recording``, ``stdio file, overwriteable``."""
    writable: int = 0
    """Sectors that can still be written."""
    overall: int = 0
    """Sectors of the whole medium, written or not."""
    product: str = ""
    """The maker's ID of the blank, where the drive tells it."""
    speeds: tuple[str, ...] = ()
    """At which it can be written, e.g. ``4.0x DVD``."""
    detail: str = ""
    """In the tool's words, where something is wrong."""
    drive: str = ""
    """Vendor and product of the drive."""

    @property
    def kind(self) -> str:
        """``CD-R``, ``DVD+RW`` ...; ``FILE`` for a pseudo-drive; empty: not known."""
        if self.profile.startswith("stdio"):
            return "FILE"
        return self.profile.replace("/DL", "").split(" ")[0]

    @property
    def family(self) -> str:
        """``CD``, ``DVD``, ``BD``, ``FILE``; empty: not known."""
        if self.kind == "FILE":
            return "FILE"
        return next((family for family, kinds in _FAMILIES if self.kind in kinds), "")

    @property
    def overwritable(self) -> bool:
        """Its old content stays until it is written over, and no tool minds."""
        return (
            self.kind in ("DVD+RW", "DVD-RAM", "BD-RE", "FILE")
            or "overwrite" in self.profile
            or "formatted" in self.detail
        )

    @property
    def rewritable(self) -> bool:
        return self.overwritable or self.kind in ("CD-RW", "DVD-RW")

    def in_words(self) -> str:
        """For people: ``DVD+R, blank, 2295104 sectors``."""
        if self.fill is Fill.ABSENT:
            return "no medium"
        words = [self.profile or "an unknown medium", self.fill.value]
        if self.fill is Fill.BLANK:
            words.append(f"{self.writable} sectors")
        if self.detail:
            words.append(self.detail)
        return ", ".join(words)


@dataclass(frozen=True, slots=True)
class Content:
    """What stands on a medium that can be read, by its first bytes."""

    empty: bool
    volume_id: str = ""
    """Of an ISO 9660 volume."""
    ours: bool = False
    """Burnish made it."""
    head: str = ""
    """SHA-256 of the first ``HEAD_SECTORS``, by which a disc is known again."""
    unreadable: str = ""
    """Why nothing can be said."""


def device_of(drive: str) -> Path:
    """The path by which the system reads a drive: ``stdio:`` is the tools' word for a file used as one."""
    return Path(drive.removeprefix("stdio:"))


def is_pseudo(drive: str) -> bool:
    return drive.startswith("stdio:")


def _rest_is_empty(descriptor: int) -> bool:
    position = HEAD_SECTORS * SECTOR
    while position < _LOOK_BYTES:
        data = os.pread(descriptor, min(1 << 18, _LOOK_BYTES - position), position)
        if data.strip(b"\0"):
            return False
        if not data:
            break
        position += len(data)
    return True


def look(drive: str) -> Content:
    """Read the beginning of the medium, past the page cache. Never raises."""
    device = device_of(drive)
    try:
        descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        return Content(empty=False, unreadable=error.strerror or str(error))
    try:
        with suppress(OSError):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        data = os.pread(descriptor, HEAD_SECTORS * SECTOR, 0)
        empty = not data.strip(b"\0") and _rest_is_empty(descriptor)
    except OSError as error:
        return Content(empty=False, unreadable=error.strerror or str(error))
    finally:
        os.close(descriptor)
    volume = data[_DESCRIPTOR : _DESCRIPTOR + SECTOR]
    if volume[1:6] != b"CD001":
        return Content(empty=empty, head=head_digest(data))
    return Content(
        empty=False,
        volume_id=volume[40:72].decode("ascii", "replace").rstrip(),
        ours=volume[8:40].rstrip() == _BURNISH,
        head=head_digest(data),
    )


def head_digest(data: bytes) -> str:
    """By which a disc is known again; ``data`` begins with its first ``HEAD_SECTORS``."""
    return hashlib.sha256(data[: HEAD_SECTORS * SECTOR]).hexdigest()


def why_not(
    medium: Medium, content: Content, *, wanted: str, sectors: int, erase: bool = False, cd_rw: bool = False
) -> str:
    """Why a volume must not be burnt onto what lies in the drive; empty: it may.

    ``wanted``: family of the volume's medium, empty: any. ``erase``: written rewritables may be blanked, apart from
    discs that Burnish made. ``cd_rw``: CD-RW is taken for CD-R.
    """
    if medium.fill is Fill.ABSENT:
        return "there is no medium in it"
    if medium.fill is Fill.UNUSABLE:
        return f"what is in it cannot be used: {medium.in_words()}"
    if medium.family != "FILE":
        if wanted and medium.family != wanted:
            return f"it holds another kind of medium: {medium.in_words()}"
        if medium.kind not in _TAKEN.get(medium.family, ()) and not (medium.kind == "CD-RW" and cd_rw):
            return f"{medium.kind or 'its kind of medium'} is not taken"
    written = is_written(medium, content)
    if written and content.ours:
        return f"the disc in it is {content.volume_id}, made by Burnish; that is never written over"
    if written and not (erase and medium.rewritable and not content.unreadable):
        return f"the disc in it is {written}; nothing is written over"
    room = medium.overall if written else medium.writable
    if written and medium.kind == "FILE":
        room = sectors  # its size once emptied is known to nobody; the tool refuses what does not fit
    return f"the disc in it is too small, {room} sectors" if room < sectors else ""


def is_written(medium: Medium, content: Content) -> str:
    """What is on a medium, in words; empty: it is blank. Of an overwritable one its bytes tell, not the tool."""
    if not medium.overwritable and medium.fill is Fill.BLANK:
        return ""
    if content.unreadable:
        return f"written, or cannot be read ({content.unreadable})"
    if medium.overwritable and content.empty:
        return ""
    return f"written ({content.volume_id or medium.fill.value})"
