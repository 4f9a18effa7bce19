"""VOLUMES.TXT: what an archive disc tells of its whole volume set, so that a catalogue can be rebuilt from discs alone.

One JSON document a line, UTF-8. First ``{"format": ...}`` about this volume, then its set: ``{"volume": ...}`` for each
volume 1..n, ``{"study": ...}`` for each study with its patient and the volumes that it is on, ``{"sender": ...}`` and
``{"changes": ...}`` for what many instances share; then ``{"file": ...}`` for each instance of this volume; blanks fill
up to the size that was planned. docs/archive-catalogue.md has the fields.

The set's part is as large on every volume, whatever it says there: that size is reserved before volumes are packed.
The lines of instances are counted one by one, as those of the manifest are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from media.problems import MediaError

FILE_NAME = "VOLUMES.TXT"
FORMAT = "Burnish volume set"
VERSION = 1
"""Raised when a reader of the version before could misunderstand; further fields alone do not raise it."""
_ABOUT = "What is on the discs of this set, one JSON document a line. The file DICOMDIR is what programs read."


@dataclass(frozen=True, slots=True)
class SetFacts:
    """What is the same on all volumes of a set."""

    software: str
    """Name and version of what made the discs."""
    site: str
    profile: str
    medium: str
    capacity_sectors: int
    created: datetime
    """UTC, without fractions of a second."""
    purpose: str
    """``archive`` or ``backup``."""
    pool: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the request, as far as they are worth keeping."""
    private: bool = False
    """Whether a volume names the studies of its own patients only: then nobody reads of others on a patient's disc."""


@dataclass(frozen=True, slots=True)
class SetVolume:
    """A volume of the set."""

    number: int
    file_set_id: str
    file_set_uid: str

    def line(self) -> bytes:
        return _line({"volume": self.number, "file_set_id": self.file_set_id, "file_set_uid": self.file_set_uid})


@dataclass(frozen=True, slots=True)
class SetStudy:
    """A study with its patient, and how many of its instances are on which volumes."""

    attributes: Mapping[str, str]
    """As on the discs, by keyword in snake case; ``study_instance_uid`` first."""
    volumes: Mapping[int, int]
    received: Mapping[str, str] = field(default_factory=dict)
    """Those that were others when the study was received, as they were."""

    def line(self) -> bytes:
        named = {"study": self.attributes["study_instance_uid"]}
        named |= {name: value for name, value in self.attributes.items() if name != "study_instance_uid"}
        counts = {str(number): count for number, count in sorted(self.volumes.items())}
        return _line({**named, **({"received": dict(self.received)} if self.received else {}), "instances": counts})


@dataclass(frozen=True, slots=True)
class Protected:
    """Error-correction data behind the file system."""

    method: str
    roots: int
    sectors: int
    """Of the image with it."""


STUDY_FIELDS = (
    "study_instance_uid",
    "study_date",
    "study_time",
    "study_id",
    "study_description",
    "accession_number",
    "referring_physician_name",
    "institution_name",
    "patient_id",
    "issuer_of_patient_id",
    "patient_name",
    "patient_birth_date",
    "patient_sex",
)
"""What a study's line has, in this order."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Where instances came from."""

    calling_ae: str
    called_ae: str
    source: str


@dataclass(frozen=True, slots=True)
class Before:
    """What an instance was when it was received, where the file on the disc is made of it and differs."""

    recipe: str
    """How the file was made; with the digest this is the key of the derived-file cache."""
    sop_instance_uid: str
    transfer_syntax_uid: str
    dataset_bytes: int
    file_sha256: str
    """Of the PS3.10 file that the spool had."""
    file_bytes: int
    changes: Sequence[Mapping[str, str]] = ()
    """``{"tag", "old", "new"}``."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Fields of ``media.items.Header`` that were others, as they were."""
    keys: Mapping[str, str | None] | None = None
    """Elements of its directory keys that were others, by tag (8 hex digits), in base64; None: there was none. None
    instead of all: the attributes were not edited, so that the keys are the same."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An instance of the volume, beyond what its file and the manifest tell."""

    digest: str
    """SHA-256 of the data set as received."""
    received: datetime
    sender: int
    """Index into the set's senders."""
    supplied: Sequence[Sequence[str]] = ()
    """As ``VolumeInstance.supplied``."""
    before: Before | None = None
    """None: the file on the disc is as it was received."""
    changes: int | None = None
    """Index into the set's lists of changes, instead of those in ``before``."""

    def line(self, path: str) -> bytes:
        document: dict[str, Any] = {
            "file": path,
            "digest": self.digest,
            "received": time_text(self.received),
            "sender": self.sender,
        }
        if self.supplied:
            document["supplied"] = [list(key) for key in self.supplied]
        if self.before is not None:
            before = self.before
            document["before"] = {
                "recipe": before.recipe,
                "sop_instance_uid": before.sop_instance_uid,
                "transfer_syntax_uid": before.transfer_syntax_uid,
                "dataset_bytes": before.dataset_bytes,
                "file_sha256": before.file_sha256,
                "file_bytes": before.file_bytes,
                **({"attributes": dict(before.attributes)} if before.attributes else {}),
                **({"keys": dict(before.keys)} if before.keys is not None else {}),
            }
            document["changes"] = [dict(each) for each in before.changes] if self.changes is None else self.changes
        return _line(document)

    def length(self, path_length: int) -> int:
        """Bytes of the line, the path's characters being known by number only (they are plain ASCII)."""
        return len(self.line("")) + path_length


def time_text(at: datetime) -> str:
    """``2026-11-21T10:15:00.123456Z``: always as long."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def head_line(
    facts: SetFacts, volume: SetVolume, of: int, instances: int, sectors: int, protection: Protected | None
) -> bytes:
    """The first line. ``sectors``: of the file system."""
    return _line(
        {
            "format": FORMAT,
            "version": VERSION,
            "about": _ABOUT,
            "volume": volume.number,
            "of": of,
            "file_set_id": volume.file_set_id,
            "file_set_uid": volume.file_set_uid,
            "created": time_text(facts.created),
            "site": facts.site,
            "software": facts.software,
            "profile": facts.profile,
            "medium": facts.medium,
            "capacity_sectors": facts.capacity_sectors,
            "purpose": facts.purpose,
            "pool": facts.pool,
            "options": dict(facts.options),
            "all_studies": not facts.private,
            "instances": instances,
            "sectors": sectors,
            "protection": None
            if protection is None
            else {"method": protection.method, "roots": protection.roots, "sectors": protection.sectors},
        }
    )


def sender_line(number: int, sender: Sender) -> bytes:
    return _line(
        {"sender": number, "calling_ae": sender.calling_ae, "called_ae": sender.called_ae, "source": sender.source}
    )


def changes_line(number: int, changes: Sequence[Mapping[str, str]]) -> bytes:
    return _line({"changes": number, "list": [dict(each) for each in changes]})


def catalogue_bytes(set_part: Sequence[bytes], reserved: int, lines: Iterable[bytes]) -> bytes:
    """The whole file: the set's lines, the instances', blanks. MediaError where more than ``reserved`` is needed."""
    length = sum(map(len, set_part))
    if length > reserved:
        raise MediaError(f"{FILE_NAME} needs {length} bytes for its set, and {reserved} were reserved.")
    rest = reserved - length
    fill = b" " * (rest - 1) + b"\n" if rest else b""
    return b"".join((*set_part, *lines, fill))


def _line(document: Mapping[str, Any]) -> bytes:
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    # What is no text in UTF-8 (half of a surrogate pair) stands there as an escape.
    return text.encode("utf-8", "backslashreplace") + b"\n"


def lines_of(data: bytes) -> Iterator[bytes]:
    """The lines of a file that are not blank, without copying it whole."""
    start = 0
    while start < len(data):
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        if line := data[start:end].strip():
            yield line
        start = end + 1
