"""The arithmetic of an ISO 9660 level 1 volume: names, record lengths and sectors (ECMA-119).

The planner and the image writer both count with these functions, which is why a planned size equals a built one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from media.problems import MediaError

SECTOR = 2048
"""Bytes of a logical sector and of a logical block."""
SYSTEM_AREA_SECTORS = 16
DESCRIPTOR_SECTORS = 2
"""Primary volume descriptor and set terminator."""
PADDING_SECTORS = 150
"""Zero sectors at the end of the image: drives that read ahead fail on the run-out blocks of a CD track."""
FILE_LIMIT = 2**32 - 1
"""A file of this many bytes or more does not go into one extent of a level 1 volume."""
DIRECTORY_LIMIT = 65_535
"""A path table numbers its directories in 16 bits (ECMA-119 9.4.4)."""
ENTRY_LIMIT = 450_000
"""Files and directories of a volume that we make: fewer than ``media.trees`` and the manifest's readers take."""
LEVEL_LIMIT = 8
"""Levels of the directory hierarchy, the root among them (ECMA-119 6.8.2.1); so many components has a File ID."""

_COMPONENT = re.compile(r"[A-Z0-9_]{1,8}")
_ROOT_FILE = re.compile(r"[A-Z0-9_]{1,8}\.[A-Z0-9_]{1,3}")
_VOLUME_ID = re.compile(r"[A-Z0-9_]{1,32}")


def sectors_of(size: int) -> int:
    """Sectors that ``size`` bytes take."""
    return -(-size // SECTOR)


def check_file_id(file_id: tuple[str, ...]) -> None:
    """Raise MediaError unless the components are names that ISO 9660 level 1 and PS3.10 8.5 both allow.

    A file in the root may have an extension (``README.TXT``); a file of the DICOM file-set never has one.
    """
    shown = "/".join(file_id)
    if not 1 <= len(file_id) <= LEVEL_LIMIT:
        raise MediaError(f"File name {shown!r} has {len(file_id)} components; 1 to {LEVEL_LIMIT} are allowed.")
    if len(file_id) == 1 and _ROOT_FILE.fullmatch(file_id[0]):
        return
    for component in file_id:
        if not _COMPONENT.fullmatch(component):
            raise MediaError(
                f"File name {shown!r}: component {component!r} is not 1 to 8 characters of A-Z, 0-9 and underscore."
            )


def check_volume_id(volume_id: str) -> None:
    """Raise MediaError unless ``volume_id`` is 1 to 32 d-characters (ECMA-119 8.4.8)."""
    if not _VOLUME_ID.fullmatch(volume_id):
        raise MediaError(f"Volume identifier {volume_id!r} is not 1 to 32 characters of A-Z, 0-9 and underscore.")


def file_identifier(name: str) -> bytes:
    """``IM000001`` as it stands in a directory record: ``IM000001.;1`` (ECMA-119 7.5.1: both separators always)."""
    return f"{name};1".encode("ascii") if "." in name else f"{name}.;1".encode("ascii")


def sort_key(name: str) -> tuple[str, str]:
    """Order of the records of a directory: name, then extension, each as if padded with blanks (ECMA-119 9.3)."""
    stem, _, extension = name.partition(".")
    return stem.ljust(8), extension.ljust(3)


def record_length(identifier_length: int) -> int:
    """Bytes of a directory record, even (ECMA-119 9.1)."""
    return 33 + identifier_length + (identifier_length + 1) % 2


def path_record_length(identifier_length: int) -> int:
    """Bytes of a path table record, even (ECMA-119 9.4)."""
    return 8 + identifier_length + identifier_length % 2


def directory_sectors(runs: Iterable[tuple[int, int]]) -> int:
    """Sectors of a directory whose records come, sorted, in runs of (record length, how many).

    The records of the directory itself and of its parent are added here. No record crosses a sector (ECMA-119 6.8.1.1).
    """
    used = 2 * record_length(1)
    sectors = 1
    for length, count in runs:
        here = min(count, (SECTOR - used) // length)
        used += here * length
        if count > here:
            per_sector = SECTOR // length
            sectors += -(-(count - here) // per_sector)
            used = ((count - here - 1) % per_sector + 1) * length
    return sectors


def image_sectors(*, path_table_bytes: int, directories: int, files: int) -> int:
    """Sectors of a whole image; ``directories`` and ``files`` are sums of sectors."""
    tables = 2 * sectors_of(path_table_bytes)
    return SYSTEM_AREA_SECTORS + DESCRIPTOR_SECTORS + tables + directories + files + PADDING_SECTORS
