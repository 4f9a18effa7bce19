"""Problems with media and instances, as values and as errors."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ProblemKind(StrEnum):
    """The fixed kinds that ``burnish verify`` reports; scripts rely on them."""

    STRUCTURE = "STRUCTURE"
    MISSING = "MISSING"
    UNREADABLE = "UNREADABLE"
    DIGEST = "DIGEST"
    UNREFERENCED = "UNREFERENCED"
    UID = "UID"
    KEY = "KEY"
    PROFILE = "PROFILE"
    MANIFEST = "MANIFEST"
    SIGNATURE = "SIGNATURE"
    CATALOGUE = "CATALOGUE"
    PROTECTION = "PROTECTION"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a medium: what kind, in which file, and in words."""

    kind: ProblemKind
    file: str
    detail: str

    def as_json(self) -> dict[str, str]:
        return {"kind": self.kind.value, "file": self.file, "detail": self.detail}


class MediaError(Exception):
    """Root of the errors of ``media``; its text names what and where, fit to be shown to a user."""


class NotDicom(MediaError):
    """The bytes cannot be understood as a DICOM data set (answered Cxxx to a C-STORE)."""


class InstanceRefused(MediaError):
    """An instance cannot be put on this medium; ``code`` is a defined term (PS3.3 C.22), our own where it has none."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


class FileSetInvalid(MediaError):
    """A medium cannot be read as a DICOM file-set or ISO 9660 volume at all."""
