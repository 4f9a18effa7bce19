"""Plan the volumes of a request: which instance goes on which disc (spanning), to the sector.

A study stays whole if it fits on one medium, else its series do, else they are cut between instances. One patient a
volume unless many are allowed; two patients who share a Patient ID never share a volume.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from media import isolayout as layout
from media import readme
from media.contents import Contents, PatientContent, SeriesContent, StudyContent
from media.items import Item
from media.packing import alone, lower_bound, pack_pieces
from media.problems import MediaError
from media.readme import Missing
from media.sizing import Fill, Load, Piece, Sizing, item_load, root_load, series_load, study_load


class SetOversized(MediaError):
    """What may not be split does not fit on one medium (PS3.3 C.22: SET_OVERSIZED)."""

    code = "SET_OVERSIZED"


@dataclass(frozen=True, slots=True)
class Refusal:
    """An instance that goes on no volume: ``code`` as in InstanceRefused, and why."""

    item: Item
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class VolumeStudy:
    """The part of a study that is on a volume (mostly all of it), in disc order."""

    content: StudyContent
    series: tuple[SeriesContent, ...]

    @property
    def instances(self) -> int:
        return sum(len(series.items) for series in self.series)


@dataclass(frozen=True, slots=True)
class VolumePatient:
    """A patient on a volume."""

    content: PatientContent
    studies: tuple[VolumeStudy, ...]


@dataclass(frozen=True, slots=True)
class VolumePlan:
    """One volume, ``number`` of ``of``: what is on it, in the order of the disc, and the exact size of its image."""

    number: int
    of: int
    sectors: int
    capacity_sectors: int
    patients: tuple[VolumePatient, ...]
    root_items: tuple[Item, ...]

    @property
    def items(self) -> tuple[Item, ...]:
        """Every instance in disc order; those without a patient come last."""
        return (
            *(
                item
                for patient in self.patients
                for study in patient.studies
                for series in study.series
                for item in series.items
            ),
            *self.root_items,
        )


@dataclass(frozen=True, slots=True)
class Packing:
    """All volumes of a request. ``lower_bound``: fewer volumes cannot hold it."""

    volumes: tuple[VolumePlan, ...]
    refused: tuple[Refusal, ...]
    lower_bound: int


def pack(
    contents: Contents,
    *,
    capacity_sectors: int,
    sizing: Sizing,
    many_patients: bool = False,
    splitting: bool = True,
    name_refused: bool = False,
    packer: Callable[[Sequence[Piece], Sizing, int], list[Fill]] = pack_pieces,
) -> Packing:
    """Plan the volumes of a request for media of ``capacity_sectors`` usable sectors.

    Instances that fit on no such medium are refused by name (INST_OVERSIZED) and the rest is planned; with
    ``name_refused`` README.TXT names them. ``splitting=False``: raises SetOversized when the content needs more than
    one medium, where patients who must not share one count each for themselves. ``packer``: another way to put pieces
    on volumes than ``pack_pieces``.
    """
    refused: list[Refusal] = []
    groups: list[list[Piece]] = []
    for index, patient in enumerate(contents.patients):
        pieces, too_large = _cut(index, patient, capacity_sectors, sizing, name_refused=name_refused)
        refused.extend(too_large)
        if pieces:
            groups.append(pieces)
    refused.extend(_load_root_items(contents.root_items, groups, capacity_sectors, sizing))
    if many_patients and groups:
        groups = [[piece for pieces in groups for piece in pieces]]

    fills: list[Fill] = []
    floor = 0
    for pieces in groups:
        found = packer(pieces, sizing, capacity_sectors)
        bound = lower_bound(pieces, sizing, capacity_sectors)
        if not splitting and len(found) > _unavoidable(pieces):
            raise SetOversized(
                f"SET_OVERSIZED: {len(found)} media of {capacity_sectors} sectors would be needed, and splitting is "
                f"not allowed ({_named(pieces)})."
            )
        fills.extend(found)
        floor += bound
    fills.sort(key=lambda fill: (not any(piece.root_items for piece in fill.pieces), _first(fill)))
    volumes = tuple(_plan(fill, number, len(fills), capacity_sectors) for number, fill in enumerate(fills, start=1))
    return Packing(volumes, tuple(refused), floor)


def _first(fill: Fill) -> tuple[int, ...]:
    return min(piece.position for piece in fill.pieces)


def _unavoidable(pieces: Sequence[Piece]) -> int:
    """How many volumes patients with one Patient ID ask for, however small they are."""
    patients = {(piece.patient.directory_patient_id, piece.patient.patient) for piece in pieces}
    return max(Counter(patient_id for patient_id, _ in patients).values())


def _named(pieces: Sequence[Piece]) -> str:
    ids = list(dict.fromkeys(piece.patient.facts.patient_id for piece in pieces))
    return f"Patient ID {ids[0]}" if len(ids) == 1 else f"{len(ids)} patients"


def _cut(
    index: int, patient: PatientContent, capacity: int, sizing: Sizing, *, name_refused: bool
) -> tuple[list[Piece], list[Refusal]]:
    """The pieces of a patient, each of which fits on a volume, and the instances for which there is none.

    To name a refused instance makes README.TXT longer, so all is looked at again after each refusal.
    """
    refused: list[Refusal] = []
    studies = patient.studies
    while True:
        content = replace(patient, studies=studies)
        if name_refused:
            content = content.with_missing(Missing(each.item.sop_instance_uid, each.reason) for each in refused)
        cutter = _Cutter(index, content, capacity, sizing)
        pieces = cutter.pieces()
        if not cutter.refused:
            return pieces, refused
        refused.extend(cutter.refused)
        studies = _without(studies, {each.item.sop_instance_uid for each in cutter.refused})
        if not studies:
            return [], refused


class _Cutter:
    """Cuts one patient's studies into pieces."""

    def __init__(self, index: int, patient: PatientContent, capacity: int, sizing: Sizing) -> None:
        self._index = index
        self._patient = patient
        self._capacity = capacity
        self._sizing = sizing
        self._patient_lines = len(readme.patient_block(patient.facts))
        self.refused: list[Refusal] = []

    def pieces(self) -> list[Piece]:
        pieces: list[Piece] = []
        for number, study in enumerate(self._patient.studies):
            pieces.extend(self._of_study((self._index, number), study))
        return pieces

    def _of_study(self, position: tuple[int, int], study: StudyContent) -> Iterator[Piece]:
        study_lines = len(readme.study_block(study.facts, 0))

        def piece(at: tuple[int, ...], items: tuple[Item, ...], load: Load) -> Piece:
            sizes = self._sizing.record_sizes(items[0])
            return Piece(at, self._patient, study, items, self._patient_lines, study_lines, load, sizes)

        loads: list[list[Load]] = []
        wholes: list[Load] = []
        for series in study.series:
            sizes = [self._sizing.record_sizes(item) for item in series.items]
            pairs = zip(series.items, sizes, strict=True)
            loads.append([item_load(item, size, self._sizing) for item, size in pairs])
            wholes.append(series_load(loads[-1], sizes[0].series))
        everything = tuple(item for series in study.series for item in series.items)
        record = self._sizing.record_sizes(everything[0]).study
        whole = piece(position, everything, study_load(wholes, record))
        if self._fits(whole):
            yield whole
            return
        for number, series in enumerate(study.series):
            part = piece((*position, number), series.items, wholes[number])
            if self._fits(part):
                yield part
                continue
            for order, item in enumerate(series.items):
                single = piece((*position, number, order), (item,), loads[number][order])
                if self._fits(single):
                    yield single

    def _fits(self, piece: Piece) -> bool:
        """Whether a piece fits on a volume of its own; a single instance that does not is refused."""
        limit = max(item.size for item in piece.items) >= layout.FILE_LIMIT
        fill = alone(piece, self._sizing)
        sectors = fill.sectors
        if not limit and sectors <= self._capacity and not fill.too_many:
            return True
        if len(piece.position) == 4:
            item = piece.items[0]
            reason = (
                f"{item.size} bytes; ISO 9660 level 1 takes less than 4 GiB - 1"
                if limit
                else f"{item.size} bytes; alone on a medium it needs {sectors} sectors of {self._capacity}"
            )
            self.refused.append(Refusal(item, "INST_OVERSIZED", reason))
        return False


def _without(studies: Iterable[StudyContent], uids: set[str]) -> tuple[StudyContent, ...]:
    """The studies without these instances."""
    left = []
    for study in studies:
        series = []
        for each in study.series:
            items = tuple(item for item in each.items if item.sop_instance_uid not in uids)
            if items:
                series.append(SeriesContent(each.series_instance_uid, items))
        if series:
            facts = replace(study.facts, instances=sum(len(each.items) for each in series))
            left.append(StudyContent(study.study_instance_uid, facts, tuple(series)))
    return tuple(left)


def _load_root_items(
    items: Sequence[Item], groups: list[list[Piece]], capacity: int, sizing: Sizing
) -> Iterator[Refusal]:
    """Let objects without a patient ride along with the first piece that has room for them on its volume.

    That volume becomes number 1. Without studies there is no disc; what finds no room at all is refused.
    """
    if not items:
        return
    if not groups:
        for item in items:
            yield Refusal(item, "NO_INSTANCE", "it belongs to no patient and there is no study to go with it")
        return
    riding = list(items)
    for item in items:
        if item.size >= layout.FILE_LIMIT:
            yield Refusal(item, "INST_OVERSIZED", f"{item.size} bytes; ISO 9660 level 1 takes less than 4 GiB - 1")
            riding.remove(item)
    while riding:
        load = root_load(riding, sizing)
        for pieces in groups:
            for number, piece in enumerate(pieces):
                loaded = replace(piece, roots=load, root_items=tuple(riding))
                if alone(loaded, sizing).sectors <= capacity:
                    pieces[number] = loaded
                    return
        largest = max(riding, key=lambda item: (item.size, item.sop_instance_uid))
        yield Refusal(largest, "INST_OVERSIZED", f"{largest.size} bytes; no volume has room for it beside its studies")
        riding.remove(largest)


def _plan(fill: Fill, number: int, of: int, capacity: int) -> VolumePlan:
    """The volume's content in disc order."""
    patients: dict[int, tuple[PatientContent, dict[int, tuple[StudyContent, dict[int, list[Item]]]]]] = {}
    for piece in sorted(fill.pieces, key=lambda piece: piece.position):
        at = piece.position
        _, studies = patients.setdefault(at[0], (piece.patient, {}))
        _, by_series = studies.setdefault(at[1], (piece.study, {}))
        if len(at) == 2:
            by_series.update((order, list(series.items)) for order, series in enumerate(piece.study.series))
        else:
            by_series.setdefault(at[2], []).extend(piece.items)
    return VolumePlan(
        number=number,
        of=of,
        sectors=fill.sectors,
        capacity_sectors=capacity,
        patients=tuple(
            VolumePatient(
                patient,
                tuple(
                    VolumeStudy(
                        study,
                        tuple(
                            SeriesContent(study.series[order].series_instance_uid, tuple(items))
                            for order, items in by_series.items()
                        ),
                    )
                    for study, by_series in studies.values()
                ),
            )
            for patient, studies in patients.values()
        ),
        root_items=tuple(item for piece in fill.pieces for item in piece.root_items),
    )
