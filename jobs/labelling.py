"""Labels of planned volumes and of their discs: facts from the rows of the plan, style from the settings."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from jobs.context import Context
from media.labelfacts import LabelFacts, LabelPatient, LabelStudy, merge_fields
from media.problems import MediaError
from store.models import Derived, Instance, Patient, Series, Study
from store.models_jobs import Disc, Job, Plan, Request, Volume, VolumeInstance

if TYPE_CHECKING:
    from config.settings import Settings
    from media.label import Label, LabelStyle

_PREVIEWS = 24
"""Volumes of a plan whose labels its document tells; of the others they can be asked for."""
_NO_LABEL = "no label can be drawn"


def facts_of(session: Session, settings: Settings, volume: Volume) -> LabelFacts:
    """What the label of a volume tells; of no particular disc."""
    row = session.execute(
        select(Plan.profile, Request.options)
        .join(Request, Request.id == Plan.request_id)
        .where(Plan.id == volume.plan_id)
    ).one()
    asked: dict[str, Any] = row.options
    return LabelFacts(
        patients=_patients(session, volume.id),
        file_set_id=volume.file_set_id,
        file_set_uid=volume.file_set_uid,
        created=f"{volume.created_at.astimezone(UTC):%Y-%m-%d}",
        volume=volume.number,
        volumes=volume.of,
        profile=row.profile,
        institution=settings.site.institution,
        contact=settings.site.contact,
        extracted=asked.get("label_using_information_extracted_from_instances", True),
        label_text=asked.get("label_text", ""),
        disposition=asked.get("media_disposition", ""),
        barcode_value=asked.get("barcode_value", ""),
        barcode_symbology=asked.get("barcode_symbology", ""),
        shown=settings.label.patient,
    )


def facts_of_disc(session: Session, settings: Settings, disc: Disc, volume: Volume) -> LabelFacts:
    """The same of one disc. Which copy it is stands there only if there are several: one disc needs no number."""
    copies = session.execute(select(Job.copies).where(Job.id == disc.job_id)).scalar_one()
    copy = disc.copy if copies > 1 else 0
    return replace(facts_of(session, settings, volume), disc=f"D{disc.id}", job=f"J{disc.job_id}", copy=copy)


def style_of(session: Session, settings: Settings, volume: Volume) -> tuple[LabelStyle, tuple[str, ...]]:
    """How the label looks, and a word where the request's Label Style Selection (2200,0003) is none of ours."""
    from media.labeltables import layouts

    wanted = session.execute(
        select(Request.options).join(Plan, Plan.request_id == Request.id).where(Plan.id == volume.plan_id)
    ).scalar_one()
    asked = str(wanted.get("label_style_selection", ""))
    # From the network: a name of ours, never a path.
    chosen = next((name for name in layouts() if name.lower() == asked.strip().lower()), "")
    unknown = (f"the label style {asked!r} is not known: the site's own is used",) if asked and not chosen else ()
    return _style(settings, chosen), unknown


def _style(settings: Settings, layout: str = "") -> LabelStyle:
    from media.label import LabelStyle

    section = settings.label
    own = str(settings.data / section.layout) if section.layout.endswith(".toml") else section.layout
    return LabelStyle(
        printer=section.printer,
        layout=layout or own,
        logo=settings.data / section.logo if section.logo else None,
        fonts=tuple(settings.data / font for font in section.fonts),
        outer_mm=section.outer_mm,
        inner_mm=section.inner_mm,
    )


def try_style(settings: Settings) -> None:
    """Raises MediaError where no label can be drawn with the settings: printer, layout, logo or a font is wrong."""
    from media.label import label_of

    patient = LabelPatient("Doe^Jane", "1", studies=(LabelStudy("20260101", "Study", ("CT",)),))
    label_of(LabelFacts((patient,), "SAMPLE", "1.2.3", "2026-01-01"), _style(settings)).drawn("svg")


def draw(session: Session, settings: Settings, facts: LabelFacts, volume: Volume, *, printer: str = "") -> Label:
    """Lay out a label. Raises MediaError where the settings or the printer's name are wrong."""
    from media.label import label_of

    style, unknown = style_of(session, settings, volume)
    label = label_of(facts, style, printer_name=printer)
    return replace(label, notices=(*unknown, *label.notices))


def label_document(
    session: Session, settings: Settings, facts: LabelFacts, volume: Volume, *, printer: str = ""
) -> dict[str, Any]:
    """The text of a label: its lines, what of it a person must know, and the fields for templates of a robot's own."""
    label = draw(session, settings, facts, volume, printer=printer)
    return {
        "volume": volume.number,
        "of": volume.of,
        "file_set_id": volume.file_set_id,
        "disc": facts.disc or None,
        "printer": label.arranged.printer.name,
        "lines": label.lines,
        "notices": list(label.notices),
        "fields": merge_fields(facts),
    }


def with_labels(session: Session, settings: Settings, document: dict[str, Any]) -> dict[str, Any]:
    """A plan's document (``burnish plan --json``) whose volumes tell what is on their labels."""
    plan_id = int(document["plan"][1:])
    for told in document["volumes"][:_PREVIEWS]:
        volume = session.scalars(select(Volume).where(Volume.plan_id == plan_id, Volume.number == told["number"])).one()
        try:
            label = draw(session, settings, facts_of(session, settings, volume), volume)
            told["label"] = {"lines": label.lines, "notices": list(label.notices)}
        except MediaError as error:  # a wrong setting of the label is no reason to make no plan
            told["label"] = {"lines": [], "notices": [f"{_NO_LABEL}: {error}"]}
    return document


@dataclass(frozen=True, slots=True)
class DiscLabel:
    """What a burner gets to label a disc with."""

    fields: dict[str, str]
    write: Callable[[Path, str], None] = field(repr=False)


def label_of_disc(ctx: Context, disc: Disc, volume: Volume) -> DiscLabel:
    """Merge fields, and a function that draws the label into a file; see ``burners.base.BurnOrder``."""
    with ctx.db.read() as session:
        facts = facts_of_disc(session, ctx.settings, disc, volume)

    def write(path: Path, printer: str) -> None:
        try:
            with ctx.db.read() as session:
                label = draw(session, ctx.settings, facts, volume, printer=printer)
            picture = label.drawn(path.suffix.lower().removeprefix("."), dpi=ctx.settings.label.dpi)
        except MediaError as error:
            raise OSError(f"{_NO_LABEL}: {error}") from error
        with path.open("wb") as file:
            file.write(picture)
            file.flush()
            os.fsync(file.fileno())

    return DiscLabel(merge_fields(facts), write)


# --- What is on a volume ----------------------------------------------------------------------------------------------

_NAMES = (
    "patient_id",
    "issuer_of_patient_id",
    "patient_name",
    "patient_birth_date",
    "patient_sex",
    "study_instance_uid",
    "study_date",
    "study_description",
    "accession_number",
    "institution_name",
    "modality",
)


@dataclass(slots=True)
class _Study:
    values: dict[str, str]
    modalities: dict[str, None] = field(default_factory=dict)


@dataclass(slots=True)
class _Person:
    values: dict[str, str]
    studies: dict[str, _Study] = field(default_factory=dict)


def _patients(session: Session, volume_id: int) -> tuple[LabelPatient, ...]:
    """Patients and studies as they are on the volume, corrections included, in the order of its files."""
    people: dict[tuple[str, ...], _Person] = {}
    for values in _distinct_values(session, volume_id):
        # Whose it is, as in ``store.registration.patient_identity``.
        key = tuple(values[name] for name in _NAMES[:4])
        if not values["patient_id"].strip():
            key += (values["study_instance_uid"],)
        person = people.setdefault(key, _Person(values))
        study = person.studies.setdefault(values["study_instance_uid"], _Study(values))
        if values["modality"]:
            study.modalities[values["modality"]] = None
    return tuple(
        LabelPatient(
            person.values["patient_name"],
            person.values["patient_id"],
            person.values["patient_birth_date"],
            person.values["patient_sex"],
            tuple(
                LabelStudy(
                    study.values["study_date"],
                    study.values["study_description"],
                    tuple(study.modalities),
                    study.values["accession_number"],
                    study.values["institution_name"],
                )
                for study in person.studies.values()
            ),
        )
        for person in people.values()
    )


def _distinct_values(session: Session, volume_id: int) -> list[dict[str, str]]:
    """The values of ``_NAMES`` of all series on a volume, each combination once."""
    columns = (
        Patient.patient_id,
        Patient.issuer_of_patient_id,
        Patient.patient_name,
        Patient.patient_birth_date,
        Patient.patient_sex,
        Study.study_instance_uid,
        Study.study_date,
        Study.study_description,
        Study.accession_number,
        Study.institution_name,
        Series.modality,
    )
    first = func.min(VolumeInstance.position)
    on_volume = (
        select(Series.id, first, *columns)
        .join(Instance, Instance.id == VolumeInstance.instance_id)
        .join(Series, Series.id == Instance.series_id)
        .join(Study, Study.id == Series.study_id)
        .join(Patient, Patient.id == Study.patient_id)
        .outerjoin(Derived, Derived.id == VolumeInstance.derived_id)
        .where(VolumeInstance.volume_id == volume_id)
    )
    received = session.execute(on_volume.where(Derived.facts.is_(None)).group_by(Series.id, *columns)).all()
    found = [(row[1], dict(zip(_NAMES, row[2:], strict=True))) for row in received]
    seen: set[tuple[str, ...]] = set()
    corrected = session.execute(
        select(VolumeInstance.position, Derived.facts, *columns)
        .join(Instance, Instance.id == VolumeInstance.instance_id)
        .join(Series, Series.id == Instance.series_id)
        .join(Study, Study.id == Series.study_id)
        .join(Patient, Patient.id == Study.patient_id)
        .join(Derived, Derived.id == VolumeInstance.derived_id)
        .where(VolumeInstance.volume_id == volume_id, Derived.facts.is_not(None))
        .order_by(VolumeInstance.position)
        .execution_options(yield_per=1000)
    )
    for position, facts, *received_values in corrected:
        values = dict(zip(_NAMES, received_values, strict=True))
        values |= {name: str(facts[name]) for name in _NAMES if facts.get(name) is not None}
        key = tuple(values.values())
        if key not in seen:
            seen.add(key)
            found.append((position, values))
    found.sort(key=lambda one: one[0])
    return [values for _, values in found]
