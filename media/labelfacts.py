"""What a label tells, as values: of a volume's plan, its request and its site. And the same as flat merge fields."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from media.labelcodes import LINEAR, symbology_of
from media.labeltext import Name, clean, name_of
from media.readme import shown_date

DICOM_ONLY = "DICOM ONLY"
"""What is on a disc, as IHE PDI wants it to stand on the label (RAD TF-3, 4.47)."""
SEE_README = "see README.TXT"
_MERGED = 20
"""Patients or studies that are named in one merge field."""


@dataclass(frozen=True, slots=True)
class LabelStudy:
    """A study on the volume; values as received."""

    study_date: str = ""
    study_description: str = ""
    modalities: tuple[str, ...] = ()
    accession_number: str = ""
    institution_name: str = ""


@dataclass(frozen=True, slots=True)
class LabelPatient:
    """A patient on the volume; values as received, the name as a PN."""

    patient_name: str = ""
    patient_id: str = ""
    patient_birth_date: str = ""
    patient_sex: str = ""
    studies: tuple[LabelStudy, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelFacts:
    """Everything that a label may show."""

    patients: tuple[LabelPatient, ...]
    file_set_id: str
    file_set_uid: str
    created: str
    """``YYYY-MM-DD``."""
    volume: int = 1
    volumes: int = 1
    copy: int = 0
    """0: not known, or of no matter."""
    disc: str = ""
    job: str = ""
    profile: str = ""
    content: str = DICOM_ONLY
    institution: str = ""
    """Of the site that makes the disc."""
    contact: str = ""
    extracted: bool = True
    """Label Using Information Extracted From Instances (2200,0001)."""
    label_text: str = ""
    """Label Text (2200,0002)."""
    disposition: str = ""
    """Media Disposition (2200,0004)."""
    barcode_value: str = ""
    barcode_symbology: str = ""
    shown: str = "name"
    """What the label shows of patients: ``name`` (names, birth dates and IDs), ``id`` (IDs only) or ``none``."""


def entry(facts: LabelFacts, patient: LabelPatient) -> dict[str, str]:
    """A patient as the label shows it; what must not be shown is empty."""
    open_name = facts.shown == "name"
    name = name_of(patient.patient_name) if open_name else Name()
    first = name.groups[0] if name.groups else ""
    return {
        "name": first or ("(no name)" if open_name else ""),
        "ideographic": name.ideographic if first != name.ideographic else "",
        "phonetic": name.phonetic if first != name.phonetic else "",
        "id": clean(patient.patient_id) if facts.shown != "none" else "",
        "birth_date": clean(shown_date(patient.patient_birth_date), 20) if open_name else "",
        "sex": clean(patient.patient_sex, 8) if open_name else "",
    }


def context(facts: LabelFacts) -> dict[str, Any]:
    """What the rows of a layout may name; all of it harmless text, numbers and truth values."""
    patients = [entry(facts, patient) for patient in facts.patients] if facts.extracted else []
    studies = [study for patient in facts.patients for study in patient.studies] if facts.extracted else []
    dates = sorted({clean(shown_date(study.study_date), 20) for study in studies if study.study_date.strip()})
    modalities = _distinct(modality for study in studies for modality in study.modalities)
    origins = _distinct(study.institution_name for study in studies)
    institution = clean(facts.institution) or (origins[0] if len(origins) == 1 else "")
    kind = symbology_of(facts.barcode_symbology) if facts.barcode_value else ""
    value = facts.barcode_value
    linear = kind in LINEAR
    return {
        "patient": patients[0]
        if patients
        else dict.fromkeys(("name", "ideographic", "phonetic", "id", "birth_date", "sex"), ""),
        "patients": len(patients),
        "studies": len(studies),
        "summary": _summary(len(patients), len(studies), modalities, dates),
        "modalities": ", ".join(modalities),
        "dates": _span(dates),
        "institution": institution,
        "origin": "Images of " + "; ".join(origins) if origins and origins != [institution] else "",
        "contact": clean(facts.contact),
        "created": facts.created,
        "content": facts.content,
        "volume": facts.volume,
        "volumes": facts.volumes,
        "copy": facts.copy,
        "file_set_id": facts.file_set_id,
        "file_set_uid": facts.file_set_uid,
        "disc": facts.disc,
        "job": facts.job,
        "profile": facts.profile,
        "extracted": facts.extracted,
        "label_text": "\n".join(line for part in facts.label_text.splitlines()[:6] if (line := clean(part))),
        "disposition": clean(facts.disposition),
        "linear_value": value if linear else "",
        "linear_symbology": kind if linear else "",
        "matrix_value": value if kind and not linear else "",
        "matrix_symbology": kind if not linear else "",
    }


def patient_lines(facts: LabelFacts, level: int, most: int) -> list[str]:
    """A line for each patient: 0 with all that is shown, 1 what tells them apart; the first ``most``."""
    lines: list[str] = []
    if facts.shown == "none":
        return lines
    for patient in facts.patients[:most]:
        shown = entry(facts, patient)
        number = shown["id"] and f"ID\u00a0{shown['id']}"
        if level:  # in a list, what belongs together must be seen
            name = _isolated(shown["name"])
            lines.append(f"{name} ({number})" if name and number else name or number)
            continue
        names = " ".join(_isolated(shown[group]) for group in ("name", "ideographic", "phonetic") if shown[group])
        born = shown["birth_date"] and f"*{shown['birth_date']}"
        count = f"{len(patient.studies)} studies" if len(patient.studies) > 1 else ""
        lines.append(_joined([names, number, born, count]))
    return [line or "(no ID)" for line in lines]


def study_lines(facts: LabelFacts, level: int, most: int) -> list[str]:
    """A line for each study: 0 with its accession number, 1 short; on a disc of several patients with whose it is.

    The first ``most`` of them.
    """
    lines: list[str] = []
    several = len(facts.patients) > 1
    for patient in facts.patients:
        if len(lines) >= most:
            break
        shown = entry(facts, patient)
        whose = _isolated(shown["name"] or shown["id"]) if several else ""
        for study in sorted(patient.studies, key=lambda study: study.study_date, reverse=True):
            when = "\u00a0".join(
                filter(None, (clean(shown_date(study.study_date), 20), clean("/".join(study.modalities), 40)))
            )
            what = _isolated(clean(study.study_description, 120 if not level else 60))
            what = " ".join(filter(None, (when, what)))
            what = what or "study without date"
            if level:
                lines.append(f"{what} ({whose})" if whose else what)
            else:
                lines.append(_joined([what, clean(study.accession_number, 40), whose]))
    return lines[:most]


def merge_fields(facts: LabelFacts) -> dict[str, str]:
    """The label's facts by name, one line of harmless text each, for a template of the robot's own.

    The names are a promise (``docs/labels.md``); all are always there, those without a value empty.
    """
    known = context(facts)
    shown = [entry(facts, patient) for patient in facts.patients] if facts.extracted else []
    first = shown[0] if len(shown) == 1 else {}
    studies = [study for patient in facts.patients for study in patient.studies] if facts.extracted else []
    only = studies[0] if len(studies) == 1 else None
    lines = study_lines(facts, 1, _MERGED) if facts.extracted else []
    names = [name for patient in shown if (name := " ".join(filter(None, (patient["name"], patient["ideographic"]))))]
    return {
        "patient_name": first.get("name", "") if len(shown) <= 1 else f"{len(shown)} patients",
        "patient_name_ideographic": first.get("ideographic", ""),
        "patient_name_phonetic": first.get("phonetic", ""),
        "patient_id": first.get("id", ""),
        "patient_birth_date": first.get("birth_date", ""),
        "patient_sex": first.get("sex", ""),
        "patient_names": _listed(names, len(shown), "patients"),
        "patients": str(len(shown)),
        "study_date": clean(shown_date(only.study_date)) if only else known["dates"],
        "study_description": clean(only.study_description) if only else "",
        "accession_number": clean(only.accession_number) if only else "",
        "modalities": known["modalities"],
        "study_list": _plain(_listed(lines, len(studies), "studies")),
        "studies": str(len(studies)),
        "summary": known["summary"],
        "institution": known["institution"],
        "created": facts.created,
        "content": facts.content,
        "volume": str(facts.volume),
        "volumes": str(facts.volumes),
        "copy": str(facts.copy or ""),
        "disc": facts.disc,
        "job": facts.job,
        "file_set_id": facts.file_set_id,
        "file_set_uid": facts.file_set_uid,
        "profile": facts.profile,
        "label_text": known["label_text"].replace("\n", " "),
        "disposition": known["disposition"],
        "barcode_value": clean(facts.barcode_value, 1000),
        "barcode_symbology": symbology_of(facts.barcode_symbology) if facts.barcode_value else "",
    }


def more(count: int, what: str) -> str:
    """The line that stands for what is not listed."""
    return f"+ {count} more {what if count != 1 else {'patients': 'patient', 'studies': 'study'}[what]}, {SEE_README}"


def _listed(lines: list[str], total: int, what: str) -> str:
    shown = lines[:_MERGED]
    return "; ".join(shown + ([more(total - len(shown), what)] if total > len(shown) else []))


def _summary(patients: int, studies: int, modalities: list[str], dates: list[str]) -> str:
    if not studies or (patients <= 1 and studies == 1):
        return ""
    return _joined([f"{studies} studies", ", ".join(modalities), _span(dates)])


def _span(dates: list[str]) -> str:
    return dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}" if dates else ""


def _joined(parts: Iterable[str]) -> str:
    return " · ".join(part for part in parts if part)


def _isolated(text: str) -> str:
    from media.labelbidi import isolated

    return isolated(text)


def _plain(text: str) -> str:
    """Without the marks of isolates and the blanks that keep together, which only our own drawing understands."""
    return text.replace("\u2068", "").replace("\u2069", "").replace("\u00a0", " ")


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(text for value in values if (text := clean(value, 120))))
