"""What is lost of a damaged medium, down to the instance, in the words of its patients, studies and series."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from media.dicomdir_reader import Directory
from media.problems import Problem, ProblemKind

_TEXTS = {
    "PATIENT": {"patient_id": 0x00100020, "patient_name": 0x00100010},
    "STUDY": {"study_instance_uid": 0x0020000D, "study_date": 0x00080020, "study_description": 0x00081030},
    "SERIES": {
        "series_instance_uid": 0x0020000E,
        "modality": 0x00080060,
        "series_number": 0x00200011,
        "series_description": 0x0008103E,
    },
}
_INSTANCE_NUMBER = 0x00200013
_CUT_OFF = ("Its data set is damaged", "It is empty", "It is no DICOM file")
"""How verification tells of a file that was damaged for certain; other wrongs of structure are of its maker."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A file of a file-set that is not on the medium any more, or not as it was. What is not known is empty."""

    file: str
    """Canonical name."""
    kind: str
    """As of the problem: ``MISSING``, ``UNREADABLE``, ``DIGEST`` (it was changed), ``STRUCTURE``."""
    patient_id: str = ""
    patient_name: str = ""
    study_instance_uid: str = ""
    study_date: str = ""
    study_description: str = ""
    series_instance_uid: str = ""
    modality: str = ""
    series_number: str = ""
    series_description: str = ""
    sop_instance_uid: str = ""
    instance_number: str = ""

    def as_json(self) -> dict[str, str]:
        return asdict(self)

    @property
    def series_text(self) -> str:
        """Patient, study and series for a person, e.g. ``Doe^John (ID 1), study 20240101 CT Abdomen, series 2 CT``."""
        patient = f"{self.patient_name or 'unknown patient'} (ID {self.patient_id})" if self.patient_id else ""
        study = " ".join(filter(None, (self.study_date, self.study_description or self.study_instance_uid)))
        series = " ".join(filter(None, (self.series_number, self.modality, self.series_description)))
        parts = (patient or self.patient_name, f"study {study}" if study else "", f"series {series}" if series else "")
        return ", ".join(filter(None, parts)) or "unknown patient"

    @property
    def instance_text(self) -> str:
        """The instance itself, e.g. ``instance 7 (1.2.3), DICOM/IM000007``."""
        number = f"instance {self.instance_number} " if self.instance_number else "instance "
        return f"{number}({self.sop_instance_uid}), {self.file}" if self.sop_instance_uid else self.file


_NAMES = frozenset(field.name for field in fields(Lost))


def lost_by_directory(
    directory: Directory,
    referenced: Mapping[str, int],
    manifest: Mapping[str, str],
    digests: Mapping[str, str],
    problems: Iterable[Problem],
) -> tuple[Lost, ...]:
    """Files that a directory references (canonical name -> index of the record) and that are not whole, in its order.

    ``manifest``: what the digests should be, where that is known; else a data set that is damaged counts as lost.
    """
    kinds = _kinds(problems)
    found = []
    for name, index in referenced.items():
        kind = _kind(name, manifest.get(name), digests, kinds.get(name, ()), structure=name not in manifest)
        if kind:
            found.append(Lost(name, kind, **_words(directory, index)))
    return tuple(found)


def lost_by_list(
    wanted: Mapping[str, str], digests: Mapping[str, str], problems: Iterable[Problem]
) -> tuple[Lost, ...]:
    """The same by a list of digests alone."""
    return lost_by_catalogue([{"file": name, "sha256": digest} for name, digest in wanted.items()], digests, problems)


def lost_by_catalogue(
    instances: Iterable[Mapping[str, Any]], digests: Mapping[str, str], problems: Iterable[Problem]
) -> tuple[Lost, ...]:
    """The same by what a catalogue has: ``file``, ``sha256`` and, where they are known, the fields of ``Lost``."""
    kinds = _kinds(problems)
    found = []
    for instance in instances:
        name = instance["file"]
        kind = _kind(name, instance["sha256"], digests, kinds.get(name, ()), structure=False)
        if kind:
            known = {key: str(value) for key, value in instance.items() if key in _NAMES and key != "file"}
            found.append(Lost(name, kind, **known))
    return tuple(found)


def _kinds(problems: Iterable[Problem]) -> dict[str, set[ProblemKind]]:
    kinds: dict[str, set[ProblemKind]] = {}
    for problem in problems:
        if problem.kind is not ProblemKind.STRUCTURE or problem.detail.startswith(_CUT_OFF):
            kinds.setdefault(problem.file, set()).add(problem.kind)
    return kinds


def _kind(
    name: str, digest: str | None, digests: Mapping[str, str], kinds: Iterable[ProblemKind], *, structure: bool
) -> str:
    """Why a file counts as lost; empty: it does not."""
    if name not in digests:
        return (ProblemKind.UNREADABLE if ProblemKind.MISSING not in kinds else ProblemKind.MISSING).value
    if digest is not None and digests[name] != digest:
        return ProblemKind.DIGEST.value
    if structure and ProblemKind.STRUCTURE in kinds:
        return ProblemKind.STRUCTURE.value
    return ""


def _words(directory: Directory, index: int) -> dict[str, str]:
    record = directory.records[index]
    words = {
        "sop_instance_uid": record.referenced_sop_instance_uid,
        "instance_number": record.text(_INSTANCE_NUMBER),
    }
    for at in directory.path(index):
        above = directory.records[at]
        for name, tag in _TEXTS.get(above.type, {}).items():
            words[name] = above.text(tag)
    return words
