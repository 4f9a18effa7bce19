"""The catalogue of a volume set for the discs of an archive (``media.setcatalogue``), made with the plan.

What it tells of the set depends on how the set is packed, and how that is packed on its size: so a size is reserved,
and where that turns out too small all is packed again with more. In practice the first is enough.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from sqlalchemy import select

from jobs.checking import Candidate
from jobs.context import Context
from jobs.iconing import pins
from jobs.options import RequestOptions
from media import setcatalogue
from media.ecc import Layout
from media.encoding import split, value_of
from media.fileids import length_of
from media.isolayout import sectors_of
from media.items import Item
from media.profile_keys import KeySet
from media.setcatalogue import STUDY_FIELDS, Before, Entry, Protected, Sender, SetFacts, SetStudy, SetVolume
from media.setcatalogue_read import before_keys
from media.sizing import SetSizing
from media.volumes import Packing
from store.bulk import chunks
from store.models import Derived, Instance, Patient, Series, Study
from store.plans import FILE_SET_DIGITS

WITHOUT = frozenset(("handout",))
"""Purposes of discs that bear no such catalogue."""
_CHUNK = 2000
_TRIES = 8
_NOT_KEPT = ("coerce", "pull_from")
"""Options that are not written on discs: rules may hold whole lists of patients."""
_LEAST_SHARED = 2
_UID_LENGTH = 44
_ANY_PROTECTION = Protected("rs03", 199, 1 << 32)
_OF_PATIENT = ("patient_id", "issuer_of_patient_id", "patient_name", "patient_birth_date", "patient_sex")
_OF_STUDY = tuple(name for name in STUDY_FIELDS if name not in _OF_PATIENT)
_OF_SERIES = (
    "series_instance_uid",
    "modality",
    "series_number",
    "series_description",
    "body_part_examined",
    "station_name",
    "manufacturer",
)
_OF_INSTANCE = (
    "sop_class_uid",
    "instance_number",
    "rows",
    "columns",
    "number_of_frames",
    "photometric_interpretation",
    "has_pixel_data",
)
_CHARACTER_SET = 0x00080005


@dataclass(frozen=True, slots=True)
class _Study:
    attributes: Mapping[str, str]
    """As on the discs."""
    received: Mapping[str, str]
    """Those that were others."""

    @property
    def patient(self) -> tuple[str, ...]:
        """Whose it is on the discs; without a Patient ID nobody is known to be the same person."""
        whose = tuple(self.attributes[name] for name in _OF_PATIENT)
        return whose if self.attributes["patient_id"].strip() else (*whose, self.attributes["study_instance_uid"])


class SetBook:
    """What there is to tell of every instance and study of a request."""

    def __init__(
        self,
        ctx: Context,
        options: RequestOptions,
        *,
        profile: str,
        medium: str,
        capacity_sectors: int,
        candidates: Sequence[Candidate],
        derived: Mapping[int, Derived],
        items: Mapping[int, Item],
        keys: KeySet | None,
    ) -> None:
        self._facts: dict[str, Any] = {
            "software": f"Burnish {version('burnish')}",
            "site": ctx.settings.site.institution,
            "profile": profile,
            "medium": medium,
            "capacity_sectors": capacity_sectors,
            "purpose": purpose_of(options),
            "pool": getattr(options, "pool", None) or "",
            "options": {name: value for name, value in options.to_json().items() if name not in _NOT_KEPT},
            "private": options.patients_per_disc == "one",
        }
        self._prefix = options.file_set_prefix
        self._senders: dict[Sender, int] = {}
        self._entries: dict[int, Entry] = {}
        self._study_of: dict[int, int] = {}
        self._studies: dict[int, _Study] = {}
        self._numbers: dict[tuple[int, str], int] = {}
        self._shared = _shared(derived.values())
        self._shared_lines = [
            setcatalogue.changes_line(number, json.loads(text)) for text, number in self._shared.items()
        ]
        icon = keys.icon.recipe if keys is not None and keys.icon else None
        by_id = {candidate.row.id: candidate for candidate in candidates}
        self._load(ctx, by_id, derived, items, icon)
        self._lengths = {
            row_id: entry.length(length_of(items[row_id].record_type)) for row_id, entry in self._entries.items()
        }

    def _load(
        self,
        ctx: Context,
        candidates: Mapping[int, Candidate],
        derived: Mapping[int, Derived],
        items: Mapping[int, Item],
        icon: str | None,
    ) -> None:
        ids = sorted(items)
        for chunk in chunks(ids, _CHUNK):
            with ctx.db.read() as session:
                rows: Any = session.execute(
                    select(Instance, Series, Study, Patient)
                    .outerjoin(Series, Series.id == Instance.series_id)
                    .outerjoin(Study, Study.id == Series.study_id)
                    .outerjoin(Patient, Patient.id == Study.patient_id)
                    .where(Instance.id.in_(chunk))
                )
                for instance, series, study, patient in rows:
                    made = derived.get(instance.id)
                    if study is not None:
                        self._study_of[instance.id] = self._study(study, patient, made)
                    item = items[instance.id]
                    supplied = (*item.supplied, *(pins(item, icon) if icon is not None else ()))
                    self._entries[instance.id] = Entry(
                        digest=instance.digest,
                        received=instance.received_at,
                        sender=self._sender(instance),
                        supplied=[(key.record_type, key.tag, key.vr, key.value) for key in supplied],
                        before=_before(made, instance, series, study, patient) if made is not None else None,
                        changes=self._shared_number(made) if made is not None else None,
                    )
        assert len(self._entries) == len(candidates)

    def _study(self, study: Study, patient: Patient, made: Derived | None) -> int:
        """The number of a study as it is on the discs: what was corrected in only a part of it is another one."""
        received = _study_attributes(study, patient)
        facts = (made.facts if made is not None else None) or {}
        attributes = {name: str(facts.get(name, value)) for name, value in received.items()}
        number = self._numbers.setdefault((study.id, json.dumps(attributes)), len(self._numbers))
        if number not in self._studies:
            before = {name: value for name, value in received.items() if attributes[name] != value}
            self._studies[number] = _Study(attributes, before)
        return number

    def _sender(self, instance: Instance) -> int:
        sender = Sender(instance.calling_ae, instance.called_ae, instance.source)
        return self._senders.setdefault(sender, len(self._senders))

    def _shared_number(self, made: Derived) -> int | None:
        return self._shared.get(json.dumps(made.changes))

    # ------------------------------------------------------------------ sizes

    def sizing(self, reserved: int) -> SetSizing:
        return SetSizing(reserved, lambda item: self._lengths[item.key])

    def first_reserve(self, capacity_sectors: int, items: Iterable[Item]) -> int:
        """Bytes that are likely to be enough for the set's part."""
        sectors = sum(sectors_of(item.size) + 1 for item in items)
        volumes = 1 + int(1.05 * sectors / max(1, capacity_sectors))
        sizes: Counter[tuple[str, ...]] = Counter()
        for study in self._studies.values():
            length = len(SetStudy(study.attributes, {volumes: 1_000_000}, study.received).line())
            sizes[study.patient if self._facts["private"] else ()] += length
        if self._facts["private"]:
            volumes = max(volumes, len(sizes))
        placeholder = self._placeholders(volumes)
        head = self._head(datetime.now(UTC), placeholder[-1], volumes, 10_000_000, capacity_sectors, _ANY_PROTECTION)
        common = [head, *self._common(self._shared.values())]
        lines = sum(map(len, common)) + sum(len(volume.line()) for volume in placeholder)
        return lines + max(sizes.values(), default=0) + 12 * volumes + 256

    def needed(self, packing: Packing) -> int:
        """Bytes that the set's part really takes on the volume where that is longest."""
        placeholder = self._placeholders(len(packing.volumes))
        created = datetime.now(UTC)
        parts = self._set_parts(packing, placeholder, [_ANY_PROTECTION] * len(placeholder), created)
        return max((sum(map(len, part)) for part in parts), default=0)

    def _placeholders(self, count: int) -> list[SetVolume]:
        file_set_id = self._prefix + "0" * FILE_SET_DIGITS
        return [SetVolume(number, file_set_id, "2" * _UID_LENGTH) for number in range(1, count + 1)]

    # ------------------------------------------------------------------ content

    def _set_parts(
        self,
        packing: Packing,
        volumes: Sequence[SetVolume],
        protected: Sequence[Protected | None],
        created: datetime,
    ) -> list[list[bytes]]:
        """The set's lines for each volume, without those of its instances."""
        counts: dict[int, Counter[int]] = defaultdict(Counter)
        patients: list[set[tuple[str, ...]]] = []
        for planned in packing.volumes:
            here: set[tuple[str, ...]] = set()
            for item in planned.items:
                if (study := self._study_of.get(item.key)) is not None:
                    counts[study][planned.number] += 1
                    here.add(self._studies[study].patient)
            patients.append(here)
        told = ((self._studies[number], on) for number, on in counts.items())
        study_lines = [(one.patient, SetStudy(one.attributes, on, one.received).line()) for one, on in told]
        # The same for all volumes, of which there may be thousands: one object.
        everywhere = b"".join(volume.line() for volume in volumes)
        all_studies = b"" if self._facts["private"] else b"".join(line for _, line in study_lines)
        by_patient: dict[tuple[str, ...], list[bytes]] = defaultdict(list)
        for patient, line in study_lines:
            by_patient[patient].append(line)
        parts = []
        for planned, here, protection in zip(packing.volumes, patients, protected, strict=True):
            volume = volumes[planned.number - 1]
            head = self._head(created, volume, planned.of, len(planned.items), planned.sectors, protection)
            own = [line for patient in sorted(here) for line in by_patient[patient]] if self._facts["private"] else ()
            used = {self._entries[item.key].changes for item in planned.items}
            parts.append([head, everywhere, all_studies, *own, *self._common(used)])
        return parts

    def _head(
        self,
        created: datetime,
        volume: SetVolume,
        of: int,
        instances: int,
        sectors: int,
        protection: Protected | None,
    ) -> bytes:
        facts = SetFacts(created=created, **self._facts)
        return setcatalogue.head_line(facts, volume, of, instances, sectors, protection)

    def _common(self, used: Collection[int | None]) -> list[bytes]:
        """Senders, and those lists of changes."""
        numbers = sorted(number for number in used if number is not None)
        return [self._sender_lines(), *(self._shared_lines[number] for number in numbers)]

    def _sender_lines(self) -> bytes:
        return b"".join(setcatalogue.sender_line(number, sender) for sender, number in self._senders.items())

    def catalogues(
        self,
        packing: Packing,
        volumes: Sequence[SetVolume],
        files: Sequence[Sequence[tuple[Item, tuple[str, ...]]]],
        *,
        protected: Sequence[Layout],
        created: datetime,
        reserved: int,
    ) -> list[bytes]:
        """VOLUMES.TXT of each volume; ``files`` are its instances with their File IDs, in the order of the disc.

        ``protected``: how each volume is; empty: not at all.
        """
        by: list[Protected | None] = [Protected(one.method, one.roots, one.sectors) for one in protected]
        by = by or [None] * len(volumes)
        parts = self._set_parts(packing, volumes, by, created)
        return [
            setcatalogue.catalogue_bytes(
                part, reserved, (self._entries[item.key].line("/".join(file_id)) for item, file_id in placed)
            )
            for part, placed in zip(parts, files, strict=True)
        ]


def purpose_of(options: RequestOptions) -> str:
    """What the discs are for; see ``Disc.purpose``."""
    return str(getattr(options, "purpose", "handout"))


def reserve_again(needed: int) -> int:
    """What is reserved where so much was needed and was not there."""
    return needed + needed // 50 + 512


def tries() -> range:
    """How often it is packed again at most; more than the second time means that something is wrong."""
    return range(_TRIES)


def _shared(derived: Iterable[Derived]) -> dict[str, int]:
    """Lists of changes that several instances have, as JSON, numbered."""
    counted = Counter(json.dumps(one.changes) for one in derived)
    often = (text for text, count in counted.items() if count >= _LEAST_SHARED)
    return {text: number for number, text in enumerate(often)}


def _study_attributes(study: Study, patient: Patient) -> dict[str, str]:
    return {name: getattr(patient if name in _OF_PATIENT else study, name) for name in STUDY_FIELDS}


def _before(
    made: Derived, instance: Instance, series: Series | None, study: Study | None, patient: Patient | None
) -> Before:
    """What an instance was before it was conformed, by the rows that its receipt made."""
    received = split(instance.directory_keys)
    edited = made.directory_keys is not None
    # Without edits the decoding of pixel data may change this one, and nothing else that a header has.
    names = {*(made.facts or {})} if edited else {"photometric_interpretation"}
    attributes: dict[str, Any] = {}
    for row, columns in ((instance, _OF_INSTANCE), (series, _OF_SERIES), (study, _OF_STUDY), (patient, _OF_PATIENT)):
        if row is not None:
            attributes |= {name: getattr(row, name) for name in columns if name in names}
    if "specific_character_set" in names:
        element = received.get(_CHARACTER_SET)
        value = value_of(element) if element else b""
        attributes["specific_character_set"] = value.decode("ascii", "replace").strip(" \0")
    return Before(
        recipe=made.recipe,
        sop_instance_uid=instance.sop_instance_uid,
        transfer_syntax_uid=instance.transfer_syntax_uid,
        dataset_bytes=instance.dataset_bytes,
        file_sha256=instance.file_sha256,
        file_bytes=instance.file_bytes,
        changes=made.changes,
        attributes=attributes,
        keys=before_keys(split(made.directory_keys), received) if made.directory_keys is not None else None,
    )
