"""The documents that the API answers with, as its description has them. Answers are not held against these as they go
out, the tests do; a version may add keys."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

Time = str
"""RFC 3339 in UTC."""


class Page(BaseModel):
    next: str | None = Field(description="`cursor` of the next page; null on the last one")


# --- Studies ----------------------------------------------------------------------------------------------------------


class StudyDoc(BaseModel):
    model_config = ConfigDict(title="Study")
    study_instance_uid: str
    patient_id: str
    patient_name: str = Field(description="All component groups, joined by =")
    patient_birth_date: str
    patient_sex: str
    study_date: str
    study_time: str
    study_description: str
    accession_number: str
    referring_physician_name: str
    modalities: list[str]
    series: int
    instances: int
    bytes: int
    in_spool: int = Field(description="Instances that are in the spool, as received")
    back: int = Field(description="Others that are back from a disc, as they were changed for it")
    on_disc: int = Field(description="Instances on a disc that is counted on")
    conflicts: int = Field(description="Instances received again under the same UID with other content")
    received_at: Time | None = Field(description="When the last instance came")


class StudyList(Page):
    items: list[StudyDoc]


class SeriesDoc(BaseModel):
    model_config = ConfigDict(title="Series")
    series_instance_uid: str
    modality: str
    series_number: int | None
    series_description: str
    body_part_examined: str
    station_name: str
    instances: int
    images: int = Field(description="Instances with pixel data")
    bytes: int


class SeriesList(Page):
    items: list[SeriesDoc]


class OnDiscDoc(BaseModel):
    model_config = ConfigDict(title="OnDisc")
    disc: str
    file_set_id: str
    volume: int
    of: int
    copy_: int = Field(alias="copy")
    shelf: str | None
    location: str | None
    instances: int


class WholeStudy(StudyDoc):
    series_list: list[SeriesDoc]
    discs: list[OnDiscDoc]


class InstanceDoc(BaseModel):
    model_config = ConfigDict(title="Instance")
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    instance_number: int | None
    rows: int | None
    columns: int | None
    number_of_frames: int | None
    has_pixel_data: bool
    bytes: int
    sha256: str = Field(description="Of the data set as received")
    online: bool
    conflict: bool = Field(description="Received after another with the same UID and other content")
    calling_ae: str
    received_at: Time


class InstanceList(Page):
    items: list[InstanceDoc]


class Ingested(BaseModel):
    outcome: str = Field(description="stored, duplicate or conflict")
    sop_instance_uid: str


# --- Plans ------------------------------------------------------------------------------------------------------------


class ChangeDoc(BaseModel):
    model_config = ConfigDict(title="Change")
    sop_instance_uid: str
    tag: str
    old: str
    new: str


class LabelText(BaseModel):
    lines: list[str]
    notices: list[str]


class VolumeDoc(BaseModel):
    model_config = ConfigDict(title="Volume")
    number: int
    of: int
    file_set_id: str
    file_set_uid: str
    sectors: int
    capacity_sectors: int
    instances: int
    studies: list[str]
    patients: list[str]
    label: LabelText


class RefusedDoc(BaseModel):
    model_config = ConfigDict(title="Refused")
    sop_instance_uid: str


class PlanDoc(BaseModel):
    model_config = ConfigDict(title="Plan")
    plan: str
    request: str
    profile: str
    medium: str
    created: Time
    volumes: list[VolumeDoc]
    changes: list[ChangeDoc]
    changed: list[dict[str, Any]]
    compression: list[dict[str, Any]]
    supplied: list[dict[str, Any]]
    refused: list[RefusedDoc]
    reasons: list[str]
    conflicts: list[Any]
    notes: list[str]
    lower_bound: int
    iod: dict[str, Any] | None
    chosen: dict[str, Any] | None


class Fitness(BaseModel):
    profile: str
    chosen: dict[str, Any] | None
    instances: int
    fit: int
    conform: int
    refused: list[RefusedDoc]
    conflicts: list[Any]
    iod: dict[str, Any] | None


# --- Jobs -------------------------------------------------------------------------------------------------------------


class JobDisc(BaseModel):
    disc: str
    volume: int
    of: int
    copy_: int = Field(alias="copy")
    attempt: int
    file_set_id: str
    file_set_uid: str
    image: str | None
    sha256: str | None
    sectors: int
    state: str
    progress: float
    verified_by: str | None
    verified_at: Time | None
    location: str | None
    error: str | None


class Need(BaseModel):
    disc: str
    what: str


class Progress(BaseModel):
    phase: str
    done: int
    total: int
    unit: str
    fraction: float
    volumes: list[dict[str, Any]]
    note: str | None = None


class JobDoc(BaseModel):
    model_config = ConfigDict(title="Job")
    job: str
    state: str
    discs: list[JobDisc]
    needs: list[Need] = Field(description="What a person must do")
    created: Time
    finished: Time | None
    attempt: int
    plan: str | None
    profile: str | None
    burner: str
    copies: int
    priority: str
    source: str
    cancel_requested: bool
    reason: str | None
    error: str | None
    progress: Progress
    report: dict[str, Any] = Field(description="The plan's report, and `events` in order")


class JobRow(BaseModel):
    job: str
    state: str
    created: Time
    profile: str | None
    discs: int
    verified: int
    priority: str
    reason: str | None
    error: str | None


class JobList(Page):
    items: list[JobRow]


# --- Discs and the catalogue ------------------------------------------------------------------------------------------


class FoundDisc(BaseModel):
    disc: str
    job: str
    volume: int
    of: int
    copy_: int = Field(alias="copy")
    file_set_id: str
    file_set_uid: str
    state: str
    verified_by: str | None
    verified_at: Time | None
    location: str | None
    sha256: str | None
    protection: str | None
    redundancy: float | None
    checked_at: Time | None
    checked_result: str | None
    checked_how: str | None
    instances: list[str] = Field(description="SOP Instance UIDs, as on the disc, of what matched")
    originals: dict[str, str] = Field(default={}, description="By UID on the disc: the UID as received")


class FoundList(Page):
    items: list[FoundDisc]


class MediumDoc(BaseModel):
    model_config = ConfigDict(title="Medium")
    known: bool
    file_set_id: str | None = None
    file_set_uid: str | None = None
    sectors: int | None = None
    image_sha256: str | None = None
    discs: list[dict[str, Any]] | None = None
    instances: list[dict[str, Any]] | None = None


class CheckDoc(BaseModel):
    model_config = ConfigDict(title="Check")
    disc: str


class Reading(BaseModel):
    at: Time
    result: str
    how: str


class Report(BaseModel):
    disc: str
    file_set_id: str
    file_set_uid: str
    state: str
    verified_by: str | None
    verified_at: Time | None
    sha256: str | None
    sectors: int
    checks: list[Reading]
    events: list[dict[str, Any]]


class Purged(BaseModel):
    instances: int
    derived: int
    bytes: int
    kept: int
    dry_run: bool


class Deleted(BaseModel):
    instances: int
    bytes: int


# --- Nodes, burners, labels, state ------------------------------------------------------------------------------------


class NodeDoc(BaseModel):
    model_config = ConfigDict(title="Node")
    name: str
    ae_title: str
    host: str
    port: int
    retrieve: str
    tls: bool


class NodeList(Page):
    items: list[NodeDoc]


class Echoed(NodeDoc):
    seconds: float


class NotSent(BaseModel):
    sop_instance_uid: str
    reason: str


class PulledStudy(BaseModel):
    study_instance_uid: str
    instances: int
    already: int
    received: int
    missing: list[NotSent]


class Pulled(BaseModel):
    node: str
    studies: list[PulledStudy]
    instances: int
    received: int
    missing: int


class Sent(BaseModel):
    node: str
    instances: int
    sent: int
    warnings: list[Any]
    failed: list[NotSent]
    commitment: dict[str, Any] | None


class BurnerDoc(BaseModel):
    model_config = ConfigDict(title="Burner")
    name: str
    driver: str
    state: str
    reason: str
    supplies: dict[str, Any]
    drives: list[dict[str, Any]]
    age_seconds: float


class BurnerList(Page):
    items: list[BurnerDoc]


class LabelDoc(BaseModel):
    model_config = ConfigDict(title="Label")
    volume: int
    of: int
    file_set_id: str
    disc: str | None
    printer: str
    lines: list[str]
    notices: list[str]
    fields: dict[str, Any]


class DoctorDoc(BaseModel):
    model_config = ConfigDict(title="Doctor")
    ok: bool
    settings: dict[str, Any]
    state: dict[str, Any]
    burners: list[BurnerDoc]
    problems: list[Any]


class Health(BaseModel):
    status: str


class EventDoc(BaseModel):
    model_config = ConfigDict(title="Event")
    event: int
    at: Time
    kind: str
    job: str | None
    disc: str | None
    instance: int | None
    old: str | None
    new: str | None
    detail: Any


class EventList(Page):
    items: list[EventDoc]
