"""An Instance, a change and a disc file as this layer sees them: plain values, no SQL."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Header:
    """What is extracted from an Instance once, at receipt (so that nothing is read again for a plan or DICOMDIR).

    Text is Unicode, decoded by the instance's Specific Character Set (ISO 2022 included); person names keep all their
    component groups, joined by ``=``. An absent or empty attribute is ``""`` (numbers: ``None``). Attribute names are
    the keywords of PS3.6 in snake case.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    specific_character_set: str = ""
    patient_id: str = ""
    issuer_of_patient_id: str = ""
    patient_name: str = ""
    patient_birth_date: str = ""
    patient_sex: str = ""
    study_date: str = ""
    study_time: str = ""
    study_id: str = ""
    study_description: str = ""
    accession_number: str = ""
    referring_physician_name: str = ""
    modality: str = ""
    series_number: int | None = None
    series_description: str = ""
    body_part_examined: str = ""
    institution_name: str = ""
    station_name: str = ""
    manufacturer: str = ""
    instance_number: int | None = None
    rows: int | None = None
    columns: int | None = None
    number_of_frames: int | None = None
    photometric_interpretation: str = ""
    has_pixel_data: bool = False
    directory_keys: bytes = b""
    """Explicit VR Little Endian data set (no preamble, no meta) with every element that any directory record of this
    instance can need, at all of its levels, values as received in the instance's own Specific Character Set, which is
    included. Sorted by tag, defined lengths, nothing else."""
    dataset_bytes: int = 0
    """Length of the data set as received, without preamble and file meta information."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change to an instance, recorded on it and in every report: tag ``(gggg,eeee)``, values as readable text."""

    sop_instance_uid: str
    tag: str
    old: str
    new: str

    def as_json(self) -> dict[str, str]:
        return {"sop_instance_uid": self.sop_instance_uid, "tag": self.tag, "old": self.old, "new": self.new}


@dataclass(frozen=True, slots=True)
class Supplied:
    """A type 1 key that the instance lacks and that stands in the directory record only (PS3.11 D.3.3.1 note)."""

    record_type: str
    tag: str
    vr: str
    value: str


@dataclass(frozen=True, slots=True)
class Icon:
    """The icon image of an instance's directory record: a file with the content of its item (``media.icons``)."""

    source: Path
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Item:
    """An instance on its way to a disc: what the planner, the directory writer and the image writer need of it."""

    key: int
    """The caller's handle (the Instance's primary key)."""
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    """Transfer Syntax of the file that goes on the disc (after conforming)."""
    study_instance_uid: str
    series_instance_uid: str
    patient: Hashable
    """Identity of the patient: items with equal ``patient`` may share a PATIENT record, others never do."""
    patient_id: str
    """As in the instance; two different ``patient`` with one ``patient_id`` never share a volume."""
    record_type: str
    """Directory record type, e.g. ``IMAGE`` or ``SR DOCUMENT`` (config/records.toml)."""
    directory_keys: bytes
    source: Path
    """A complete PS3.10 file whose bytes go on the disc as they are."""
    size: int
    """Bytes of ``source``."""
    sha256: str
    """Digest of ``source``, lower-case hex."""
    supplied: tuple[Supplied, ...] = ()
    icon: Icon | None = None
    """Of its own record, where the profile has icons."""


@dataclass(frozen=True, slots=True)
class DiscFile:
    """A file on a disc: its File ID components (names without ``;1``), and where its bytes come from."""

    file_id: tuple[str, ...]
    size: int
    sha256: str
    """Lower-case hex; empty where it cannot be known beforehand (the manifest itself)."""
    source: Path | bytes = field(repr=False)

    @property
    def path(self) -> str:
        """The name from the root of the disc, with slashes."""
        return "/".join(self.file_id)
