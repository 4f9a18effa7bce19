"""What a request holds, as a tree of patients, studies, series and instances in the order in which they go on discs."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from media.items import Item
from media.problems import MediaError
from media.readme import Missing, PatientFacts, StudyFacts
from media.records import ROOT_RECORDS

_PATIENT_ID = "(0010,0020)"


class Facts(Protocol):
    """Attributes of an instance that decide its place and that README.TXT shows; ``items.Header`` has them."""

    @property
    def patient_name(self) -> str: ...
    @property
    def patient_birth_date(self) -> str: ...
    @property
    def study_date(self) -> str: ...
    @property
    def study_time(self) -> str: ...
    @property
    def study_description(self) -> str: ...
    @property
    def modality(self) -> str: ...
    @property
    def series_number(self) -> int | None: ...
    @property
    def instance_number(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class SeriesContent:
    """A series and those of its instances that were asked for, by instance number."""

    series_instance_uid: str
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class StudyContent:
    """A study and those of its series that were asked for, by series number."""

    study_instance_uid: str
    facts: StudyFacts
    series: tuple[SeriesContent, ...]


@dataclass(frozen=True, slots=True)
class PatientContent:
    """A patient and the studies that were asked for, by date."""

    patient: Hashable
    directory_patient_id: str
    """The Patient ID that the DICOMDIR will show: the instances' own or the one supplied."""
    facts: PatientFacts
    studies: tuple[StudyContent, ...]

    def with_missing(self, missing: Iterable[Missing]) -> PatientContent:
        """The same patient, with more that is missing."""
        return replace(self, facts=replace(self.facts, missing=(*self.facts.missing, *missing)))


@dataclass(frozen=True, slots=True)
class Contents:
    """All of a request."""

    patients: tuple[PatientContent, ...]
    root_items: tuple[Item, ...]
    """Objects whose records stand right under the root of the directory, e.g. hanging protocols."""


def arrange(
    entries: Iterable[tuple[Item, Facts]],
    *,
    root_records: Collection[str] = ROOT_RECORDS,
    missing: Mapping[Hashable, Sequence[Missing]] | None = None,
) -> Contents:
    """Order instances by patient, study date, series number and instance number, whatever their order was.

    ``root_records``: record types that belong to no patient. ``missing``: what was refused before, by patient.
    Raises MediaError when a SOP Instance UID comes twice.
    """
    by_patient: dict[Hashable, dict[str, dict[str, list[_Entry]]]] = {}
    roots: list[Item] = []
    uids: set[str] = set()
    for item, facts in entries:
        if item.sop_instance_uid in uids:
            raise MediaError(f"SOP Instance UID {item.sop_instance_uid} was given twice; a file-set holds it once.")
        uids.add(item.sop_instance_uid)
        if item.record_type in root_records:
            roots.append(item)
        else:
            studies = by_patient.setdefault(item.patient, {})
            series = studies.setdefault(item.study_instance_uid, {})
            series.setdefault(item.series_instance_uid, []).append((item, facts))
    patients = [
        _patient(patient, studies, tuple((missing or {}).get(patient, ()))) for patient, studies in by_patient.items()
    ]
    patients.sort(key=_patient_key)
    roots.sort(key=lambda item: (item.record_type, item.sop_instance_uid))
    return Contents(tuple(patients), tuple(roots))


_Entry = tuple[Item, Facts]


def _patient_key(patient: PatientContent) -> tuple[str, ...]:
    facts = patient.facts
    # The UID makes the order independent of how the caller numbers patients.
    return (facts.patient_id, facts.patient_name, facts.patient_birth_date, patient.studies[0].study_instance_uid)


def _patient(
    patient: Hashable, studies: dict[str, dict[str, list[_Entry]]], missing: tuple[Missing, ...]
) -> PatientContent:
    ordered = sorted((_study(uid, series) for uid, series in studies.items()), key=lambda found: found[0])
    first, facts = ordered[0][2]
    supplied = [key.value for key in first.supplied if key.tag.lower() == _PATIENT_ID]
    return PatientContent(
        patient=patient,
        directory_patient_id=(first.patient_id.strip() or (supplied[0] if supplied else "")),
        facts=PatientFacts(
            first.patient_id or (supplied[0] if supplied else ""), facts.patient_name, facts.patient_birth_date, missing
        ),
        studies=tuple(study for _, study, _ in ordered),
    )


def _study(uid: str, by_series: dict[str, list[_Entry]]) -> tuple[tuple[str, str, str], StudyContent, _Entry]:
    """Sort key, study, first instance."""
    series = []
    for entries in by_series.values():
        entries.sort(key=lambda entry: (_number(entry[1].instance_number), entry[0].sop_instance_uid))
        series.append(entries)
    series.sort(key=lambda entries: (_number(entries[0][1].series_number), entries[0][0].series_instance_uid))
    first, facts = series[0][0]
    content = StudyContent(
        study_instance_uid=uid,
        facts=StudyFacts(
            study_date=facts.study_date,
            study_description=facts.study_description,
            modalities=tuple(sorted({entries[0][1].modality for entries in series} - {""})),
            instances=sum(len(entries) for entries in series),
        ),
        series=tuple(
            SeriesContent(entries[0][0].series_instance_uid, tuple(item for item, _ in entries)) for entries in series
        ),
    )
    return (facts.study_date, facts.study_time, uid), content, (first, facts)


def _number(value: int | None) -> tuple[bool, int]:
    """Numbers in order, absent ones last."""
    return value is None, value or 0
