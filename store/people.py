"""What the catalogue knows of patients and studies, by the keywords of PS3.6, for correcting instances."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.bulk import chunks
from store.models import Patient, Study

_CUT = 255
"""A column that is full may have been cut; such a value corrects nothing."""


def known(session: Session, wanted: Iterable[tuple[int | None, str]]) -> dict[tuple[int | None, str], dict[str, str]]:
    """Of each patient (primary key) and his study (UID): values by keyword, without those that are empty."""
    pairs = set(wanted)
    found: dict[tuple[int | None, str], dict[str, str]] = {}
    uids = sorted({uid for _, uid in pairs})
    for chunk in chunks(uids):
        rows = session.execute(
            select(Patient, Study)
            .join(Study, Study.patient_id == Patient.id)
            .where(Study.study_instance_uid.in_(chunk))
        )
        for patient, study in rows:
            if (patient.id, study.study_instance_uid) in pairs:
                found[(patient.id, study.study_instance_uid)] = _sound(
                    _patient(patient)
                    | {
                        "StudyDate": study.study_date,
                        "StudyTime": study.study_time,
                        "StudyID": study.study_id,
                        "StudyDescription": study.study_description,
                        "AccessionNumber": study.accession_number,
                        "ReferringPhysicianName": study.referring_physician_name,
                    }
                )
    return found


def people_with(session: Session, patient_id: str, issuer: str) -> list[dict[str, str]]:
    """Everybody with this Patient ID, and of this issuer where one is given: values by keyword."""
    query = select(Patient).where(Patient.patient_id == patient_id).order_by(Patient.id)
    if issuer:
        query = query.where(Patient.issuer_of_patient_id == issuer)
    return [
        _sound(_patient(patient) | {"IssuerOfPatientID": patient.issuer_of_patient_id})
        for patient in session.scalars(query)
    ]


def _patient(patient: Patient) -> dict[str, str]:
    return {
        "PatientName": patient.patient_name,
        "PatientBirthDate": patient.patient_birth_date,
        "PatientSex": patient.patient_sex,
    }


def _sound(values: dict[str, str]) -> dict[str, str]:
    """Without what is empty, was cut, or was not readable when it came."""
    return {key: value for key, value in values.items() if value and len(value) < _CUT and "\ufffd" not in value}
