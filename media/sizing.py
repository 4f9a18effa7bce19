"""The exact size of a volume while it is being filled, kept in counters: adding a study or an instance costs the same.

Sizes are those of the image that ``iso9660`` will write of the files that ``fileset`` will build: directories, path
tables, DICOMDIR, README.TXT, MANIFEST.TXT and padding included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple, Protocol

from media import isolayout as layout
from media import manifest, readme, setcatalogue
from media.contents import PatientContent, StudyContent
from media.fileids import FOLDER, length_of
from media.isolayout import sectors_of
from media.items import Item
from media.readme import DiscText
from media.records import TYPES

FILE_RECORD = layout.record_length(len(layout.file_identifier("IM000001")))
DIRECTORY_RECORD = layout.record_length(8)
_PATH_RECORD = layout.path_record_length(8)
_FIXED_DIRECTORIES = 2
"""The root and DICOM."""
_FIXED_PATH_TABLE = layout.path_record_length(1) + layout.path_record_length(len(FOLDER))


class RecordSizes(Protocol):
    """Bytes of the directory records that an item takes, were it the first below each; 0 for those it has not."""

    @property
    def patient(self) -> int: ...
    @property
    def study(self) -> int: ...
    @property
    def series(self) -> int: ...
    @property
    def instance(self) -> int: ...


@dataclass(frozen=True, slots=True)
class SetSizing:
    """Bytes of the catalogue of a volume set on one of its volumes."""

    reserved: int
    """For what it tells of the set ..."""
    line: Callable[[Item], int]
    """... and for each instance of the volume."""


@dataclass(frozen=True, slots=True)
class Sizing:
    """What sizes depend on beside the items."""

    record_sizes: Callable[[Item], RecordSizes]
    dicomdir_header: int
    """Bytes of a DICOMDIR without any record."""
    text: DiscText
    listed: tuple[tuple[str, int], ...] = ()
    """Further files in the root, name and bytes, that the manifest lists."""
    unlisted: tuple[tuple[str, int], ...] = ()
    """Further files in the root that it cannot list."""
    set_catalogue: SetSizing | None = None
    """Of the file that tells of the whole volume set; None: there is none."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the further files that the manifest lists."""
        names = tuple(name for name, _ in self.listed)
        return names if self.set_catalogue is None else (*names, setcatalogue.FILE_NAME)

    @property
    def further_sectors(self) -> int:
        """Of the further files."""
        return sum(sectors_of(size) for _, size in (*self.listed, *self.unlisted))


@lru_cache
def _root_directory(further: tuple[str, ...]) -> int:
    """Sectors of the root directory."""
    files = sorted(("DICOMDIR", manifest.FILE_NAME, readme.FILE_NAME, *further))
    records = [(layout.record_length(len(layout.file_identifier(name))), 1) for name in files]
    # DICOM sorts before DICOMDIR, and both before all others that there are.
    return layout.directory_sectors([(layout.record_length(len(FOLDER)), 1), *records])


@lru_cache
def _readme_fixed(text: DiscText) -> tuple[int, int]:
    """Bytes of README.TXT without patients and studies: no keys supplied, keys supplied."""
    head = len(readme.head(text, created=datetime(2000, 1, 1, tzinfo=UTC), file_set_id="", number=1, of=1))
    return head + len(readme.tail(text, keys_supplied=False)), head + len(readme.tail(text, keys_supplied=True))


Position = tuple[int, ...]
"""Place on the disc: patient, study, series, instance, as far as they go."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one piece (a study, a series, an instance) adds to a volume, in sums that do not depend on the volume."""

    items: int = 0
    data_sectors: int = 0
    record_bytes: int = 0
    """Directory records inside the piece; those of what it is a piece of are counted when they are first needed."""
    manifest_bytes: int = 0
    supplied: int = 0
    directory_sectors: int = 0
    directories: int = 0
    catalogue_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """A study, a series of a study that is too large, or an instance of a series that is: what is put on volumes."""

    position: Position
    """Two indices for a study, three for a series, four for an instance."""
    patient: PatientContent
    study: StudyContent
    items: tuple[Item, ...]
    patient_lines: int
    study_lines: int
    """Bytes of their blocks in README.TXT."""
    load: Load
    sizes: RecordSizes
    """Of the first item: its records stand for patient, study and series when the piece comes first on a volume."""
    roots: Load = Load()
    root_items: tuple[Item, ...] = ()
    """Objects without a patient that ride along."""


def item_load(item: Item, sizes: RecordSizes, sizing: Sizing) -> Load:
    """What an instance adds by itself."""
    path_length = length_of(item.record_type)
    supplied = sum(manifest.supplied_line_length(path_length, key) for key in item.supplied)
    return Load(
        items=1,
        data_sectors=sectors_of(item.size),
        record_bytes=sizes.instance,
        manifest_bytes=manifest.file_line_length(path_length) + supplied,
        supplied=len(item.supplied),
        catalogue_bytes=sizing.set_catalogue.line(item) if sizing.set_catalogue is not None else 0,
    )


def root_load(items: Iterable[Item], sizing: Sizing) -> Load:
    """What objects right under the root of the directory add."""
    return _sum(item_load(item, sizing.record_sizes(item), sizing) for item in items)


def folder_sectors(record: int, count: int) -> int:
    """Sectors of a directory of ``count`` equal records, as ``isolayout.directory_sectors`` counts them."""
    first = (layout.SECTOR - 2 * layout.record_length(1)) // record
    return 1 if count <= first else 1 - (first - count) // (layout.SECTOR // record)


def series_load(items: Iterable[Load], series_record: int) -> Load:
    """A whole series: its instances, its directory, its record."""
    load = _sum(items)
    own = Load(record_bytes=series_record, directory_sectors=folder_sectors(FILE_RECORD, load.items), directories=1)
    return _sum((load, own))


def study_load(series: Iterable[Load], study_record: int) -> Load:
    """A whole study."""
    loads = list(series)
    own = Load(record_bytes=study_record, directory_sectors=folder_sectors(DIRECTORY_RECORD, len(loads)), directories=1)
    return _sum((*loads, own))


def _sum(loads: Iterable[Load]) -> Load:
    items = data = records = lines = supplied = sectors = directories = catalogue = 0
    for load in loads:
        items += load.items
        data += load.data_sectors
        records += load.record_bytes
        lines += load.manifest_bytes
        supplied += load.supplied
        sectors += load.directory_sectors
        directories += load.directories
        catalogue += load.catalogue_bytes
    return Load(items, data, records, lines, supplied, sectors, directories, catalogue)


@dataclass(frozen=True, slots=True)
class _Branch:
    """A patient, or a study or series that is on the volume in part: what it has there, and its record's size."""

    children: int
    first: Position
    record: int


class _Counters(NamedTuple):
    """Sums that make up the size of a volume."""

    dicomdir: int
    manifest: int
    readme: int
    supplied: int
    data_sectors: int
    items: int
    directories: int
    directory_sectors: int
    """Both without the root and DICOM."""
    patients: int
    roots_before: int
    """Objects without a patient whose names sort before those of patients..."""
    roots_after: int
    """...and behind them."""
    catalogue: int
    """Bytes of the set's catalogue; 0: there is none."""


def _too_many(counters: _Counters) -> bool:
    directories = counters.directories + _FIXED_DIRECTORIES
    return directories > layout.DIRECTORY_LIMIT or directories + counters.items > layout.ENTRY_LIMIT


class Fill:
    """A volume being filled. ``sectors`` is exact after every ``add``."""

    __slots__ = ("_branches", "_counters", "_further", "_readme_fixed", "_root_directory", "pieces", "sectors")

    def __init__(self, sizing: Sizing) -> None:
        self._branches: dict[Position, _Branch] = {}
        self._readme_fixed = _readme_fixed(sizing.text)
        self._further = sizing.further_sectors
        self._root_directory = _root_directory((*sizing.names, *(name for name, _ in sizing.unlisted)))
        listed = ("DICOMDIR", readme.FILE_NAME, *sizing.names)
        reserved = sizing.set_catalogue.reserved if sizing.set_catalogue is not None else 0
        generated = sum(manifest.file_line_length(len(name)) for name in listed)
        sums = generated + manifest.sealed_length()
        self._counters = _Counters(sizing.dicomdir_header, sums, 0, 0, 0, 0, 0, 0, 0, 0, 0, reserved)
        self.pieces: list[Piece] = []
        self.sectors = self._sectors(self._counters)

    def add(self, piece: Piece, capacity: int | None = None) -> bool:
        """Put the piece on the volume, unless the image would have more than ``capacity`` sectors, or more files and
        directories than a volume has; say whether.
        """
        counters, branches = self._with(piece)
        sectors = self._sectors(counters)
        if capacity is not None and (sectors > capacity or _too_many(counters)):
            return False
        self._counters = counters
        self._branches.update(branches)
        self.sectors = sectors
        self.pieces.append(piece)
        return True

    @property
    def too_many(self) -> bool:
        """Whether it has more files or directories than a volume may have."""
        return _too_many(self._counters)

    def _with(self, piece: Piece) -> tuple[_Counters, dict[Position, _Branch]]:
        """The counters with the piece, and the branches that change."""
        now, position, load = self._counters, piece.position, piece.load
        records, directories, sectors = load.record_bytes, load.directories, load.directory_sectors
        lines = piece.study_lines if len(position) == 2 else 0
        patients = 0
        changed: dict[Position, _Branch] = {}
        for level in range(1, len(position)):
            key = position[:level]
            record = (piece.sizes.patient, piece.sizes.study, piece.sizes.series)[level - 1]
            entry = FILE_RECORD if level == 3 else DIRECTORY_RECORD
            branch = self._branches.get(key)
            if branch is None:
                records += record
                directories += 1
                sectors += folder_sectors(entry, 1)
                patients += level == 1
                lines += (piece.patient_lines, piece.study_lines, 0)[level - 1]
                changed[key] = _Branch(1, position, record)
                continue
            children, first = branch.children, branch.first
            if level == len(position) - 1 or position[: level + 1] not in self._branches:
                children += 1
                sectors += folder_sectors(entry, children) - folder_sectors(entry, children - 1)
            if position < first:
                # The record is made of its first instance, which now is another one.
                records += record - branch.record
                changed[key] = _Branch(children, position, record)
            elif children != branch.children:
                changed[key] = _Branch(children, first, branch.record)
        roots = piece.roots
        before = sum(TYPES[item.record_type].prefix < TYPES["PATIENT"].prefix for item in piece.root_items)
        counters = _Counters(
            dicomdir=now.dicomdir + records + roots.record_bytes,
            manifest=now.manifest + load.manifest_bytes + roots.manifest_bytes,
            readme=now.readme + lines,
            supplied=now.supplied + load.supplied + roots.supplied,
            data_sectors=now.data_sectors + load.data_sectors + roots.data_sectors,
            items=now.items + load.items + roots.items,
            directories=now.directories + directories,
            directory_sectors=now.directory_sectors + sectors,
            patients=now.patients + patients,
            roots_before=now.roots_before + before,
            roots_after=now.roots_after + roots.items - before,
            catalogue=now.catalogue + load.catalogue_bytes + roots.catalogue_bytes,
        )
        return counters, changed

    def _sectors(self, now: _Counters) -> int:
        generated = (now.dicomdir, now.manifest, now.readme + self._readme_fixed[now.supplied > 0], now.catalogue)
        dicom = layout.directory_sectors(
            [(FILE_RECORD, now.roots_before), (DIRECTORY_RECORD, now.patients), (FILE_RECORD, now.roots_after)]
        )
        return layout.image_sectors(
            path_table_bytes=_FIXED_PATH_TABLE + now.directories * _PATH_RECORD,
            directories=self._root_directory + dicom + now.directory_sectors,
            files=now.data_sectors + self._further + sum(map(sectors_of, generated)),
        )
