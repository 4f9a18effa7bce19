"""README.TXT of a disc, as IHE PDI asks (RAD TF-2 4.47): who made it, what is on it, what is missing, how to check it.

Built of blocks whose lengths depend on nothing that is known only after packing (numbers have fixed widths), so the
planner adds up the same blocks that are written. ASCII where the names are, else UTF-8; CR LF; at most 80 columns.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from media.problems import MediaError

FILE_NAME = "README.TXT"

_COLUMNS = 80
_VALUE_LIMIT = 240
"""Characters of one value that came with an instance; what is longer is cut."""
_VOLUME_LIMIT = 9999
_INSTANCE_LIMIT = 9_999_999

DISCLAIMER = (
    "This disc holds confidential medical data. It is meant for the patients named here and for those who treat "
    "them. The data were copied as they had been received; their content was not examined. Whoever uses them for "
    "a diagnosis has to make sure that the programs and displays used are fit for it."
)


@dataclass(frozen=True, slots=True)
class DiscText:
    """What README.TXT says apart from the contents; the same on every volume of a request."""

    product: str
    """Name and version of the application that made the disc."""
    profile: str
    """Application profile of PS3.11, e.g. ``STD-GEN-CD``."""
    medium: str
    """Media type, e.g. ``CD-R-80``."""
    medium_note: str = ""
    """Where the medium falls short of PS3.12."""
    institution: str = ""
    contact: str = ""
    disclaimer: str = DISCLAIMER


@dataclass(frozen=True, slots=True)
class Missing:
    """An instance that was asked for and is on no disc, and why."""

    sop_instance_uid: str
    reason: str


@dataclass(frozen=True, slots=True)
class PatientFacts:
    """A patient as README.TXT names them. Values as in the instances; ``patient_name`` as a PN."""

    patient_id: str
    patient_name: str
    patient_birth_date: str
    missing: tuple[Missing, ...] = ()


@dataclass(frozen=True, slots=True)
class StudyFacts:
    """A study as README.TXT names it."""

    study_date: str
    study_description: str
    modalities: tuple[str, ...]
    instances: int
    """How many the request has of it, on all volumes together."""


def readme_bytes(
    text: DiscText,
    *,
    created: datetime,
    file_set_id: str,
    number: int,
    of: int,
    contents: Sequence[tuple[PatientFacts, Sequence[tuple[StudyFacts, int]]]],
    keys_supplied: bool,
) -> bytes:
    """The whole file. ``contents``: each patient with each study and how many of its instances are on this volume."""
    blocks = [head(text, created=created, file_set_id=file_set_id, number=number, of=of)]
    for patient, studies in contents:
        blocks.append(patient_block(patient))
        blocks.extend(study_block(study, here) for study, here in studies)
    blocks.append(tail(text, keys_supplied=keys_supplied))
    return b"".join(blocks)


def head(text: DiscText, *, created: datetime, file_set_id: str, number: int, of: int) -> bytes:
    """Everything before the contents. Its length depends on ``text`` only."""
    if not 1 <= number <= of <= _VOLUME_LIMIT:
        raise MediaError(f"Volume {number} of {of}: a set has 1 to {_VOLUME_LIMIT} volumes.")
    if len(file_set_id) > 16:
        raise MediaError(f"File-set ID {file_set_id!r} has more than 16 characters.")
    lines = [
        "DICOM images and documents: see the file DICOMDIR.",
        "",
        f"File-set ID:   {file_set_id:16}",
        f"Volume:        {number:4} of {of:4}",
        f"Created:       {created.astimezone(UTC):%Y-%m-%d %H:%M} UTC",
    ]
    for label, value in (
        ("Created by:", text.product),
        ("Institution:", text.institution),
        ("Contact:", text.contact),
        ("Profile:", text.profile),
        ("Medium:", text.medium),
        ("Note:", text.medium_note),
    ):
        first = True
        for line in value.splitlines():
            if _clean(line):
                lines += _wrapped(f"{label if first else '':15}", line, limit=10_000)
                first = False
    return _encoded([*lines, "", "CONTENTS"])


def patient_block(patient: PatientFacts) -> bytes:
    """A patient's lines, with what is missing of theirs."""
    lines = ["", *_wrapped("Patient:       ", person_name(patient.patient_name) or "(no name)")]
    lines += _wrapped("  Patient ID:  ", patient.patient_id or "(none)")
    if patient.patient_birth_date:
        lines += _wrapped("  Born:        ", shown_date(patient.patient_birth_date))
    if patient.missing:
        lines.append(f"  MISSING, on no disc of this request: {len(patient.missing)}")
        for missing in patient.missing:
            lines += _wrapped("    ", f"{missing.sop_instance_uid} {missing.reason}")
    return _encoded(lines)


def study_block(study: StudyFacts, here: int) -> bytes:
    """A study's lines. The length does not depend on ``here``, the number of its instances on this volume."""
    if study.instances > _INSTANCE_LIMIT:
        raise MediaError(f"A study of {study.instances} instances is beyond README.TXT.")
    what = [study.study_description, f"({', '.join(study.modalities)})" if study.modalities else ""]
    lines = _wrapped("  Study:       ", " ".join([shown_date(study.study_date) or "(no date)", *what]))
    lines.append(f"               {here:7} of {study.instances:7} instances are on this disc")
    return _encoded(lines)


def tail(text: DiscText, *, keys_supplied: bool) -> bytes:
    """Everything after the contents."""
    lines = [""]
    if keys_supplied:
        lines += _wrapped(
            "",
            "Some instances lack values that a DICOMDIR must have. Such values were supplied in the file DICOMDIR only "
            'and are listed in the file MANIFEST.TXT, in lines that begin with "# supplied". The instances themselves '
            "were not changed.",
            limit=10_000,
        )
        lines.append("")
    lines += _wrapped(
        "", "To check that every file of this disc can still be read as it was written, run in its folder:"
    )
    lines += ["", "    sha256sum -c MANIFEST.TXT", ""]
    for paragraph in text.disclaimer.splitlines():
        lines += _wrapped("", paragraph, limit=10_000)
    return _encoded(lines)


def person_name(value: str) -> str:
    """A PN for people: ``Doe^John^^Dr=...`` becomes ``Doe, John, Dr (...)``."""
    groups = []
    for group in value.split("="):
        family, given, middle, prefix, suffix = [_clean(part) for part in (*group.split("^"), *[""] * 5)[:5]]
        first_names = " ".join(part for part in (given, middle) if part)
        shown = ", ".join(part for part in (family, first_names, prefix, suffix) if part)
        if shown:
            groups.append(shown)
    return groups[0] + "".join(f" ({group})" for group in groups[1:]) if groups else ""


def shown_date(value: str) -> str:
    """A DA for people: ``19700131`` becomes ``1970-01-31``; anything else stays."""
    value = value.strip()
    return f"{value[:4]}-{value[4:6]}-{value[6:]}" if len(value) == 8 and value.isascii() and value.isdigit() else value


def _clean(value: str) -> str:
    """Without control, formatting (bidirectional overrides) and other unprintable characters; blanks collapsed."""
    return " ".join("".join(character if character.isprintable() else " " for character in value).split())


def _wrapped(label: str, value: str, *, limit: int = _VALUE_LIMIT) -> list[str]:
    """``label`` and ``value`` in lines of at most 80 columns, further lines indented below the value."""
    indent = " " * len(label)
    value = _clean(value)
    if len(value) > limit:
        value = value[: limit - 3] + "..."
    room = _COLUMNS - len(label)
    lines: list[str] = []
    line = ""
    for word in _words(value, room):
        if line and _columns(line) + 1 + _columns(word) > room:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    lines.append(line)
    return [((indent if index else label) + line).rstrip() for index, line in enumerate(lines)]


def _words(value: str, room: int) -> Iterable[str]:
    """The words of a text; one that is wider than a line comes in pieces."""
    for word in value.split(" "):
        piece = ""
        width = 0
        for character in word:
            columns = _columns(character)
            if width + columns > room:
                yield piece
                piece, width = "", 0
            piece += character
            width += columns
        yield piece


def _columns(text: str) -> int:
    """Columns that a text takes on a screen: East Asian wide characters two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def _encoded(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\r\n" for line in lines).encode("utf-8")
