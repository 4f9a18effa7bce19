"""What lies before us: an image, the disc in a drive, a mounted disc, a folder, or something else altogether.

Read is as little as tells it: the root directory, the head of the DICOMDIR, README.TXT. So a disc is known some seconds
after it was inserted, and what it says of itself is not yet checked by anything.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from media import dicomdir_reader
from media.dicomdir_reader import Limits
from media.isoread import IsoVolume
from media.manifest import FILE_NAME as MANIFEST
from media.problems import MediaError
from media.readme import FILE_NAME as README
from media.readme import person_name
from media.trees import canonical
from media.uids import IMPLEMENTATION_CLASS_UID
from media.verify_meta import read_meta

FILE_SET, FILE_SYSTEM, NOTHING = "file-set", "file system", "nothing"
"""Kinds of what was recognised: a DICOM medium; a readable one without DICOMDIR; none of both."""
_DICOMDIR = "DICOMDIR"
_HEAD = 65536
_DIRECTORY_BYTES = 1 << 20
"""Of a DICOMDIR: enough for the first patients."""
_ENTRIES = 20_000
_PATIENTS = 5
_FILE_SET_ID = re.compile(rb"^File-set ID: +([A-Z0-9_]{1,16}) *\r?$", re.MULTILINE)
_VOLUME = re.compile(rb"^Volume: +(\d{1,4}) of +(\d{1,4})\r?$", re.MULTILINE)
_NO_MEDIUM = (errno.ENOMEDIUM, errno.EMEDIUMTYPE)
_PATIENT_NAME, _PATIENT_ID = 0x00100010, 0x00100020

Opener = Callable[[], BinaryIO]


@dataclass(frozen=True, slots=True)
class Recognised:
    """What a medium says of itself; empty where it does not, or where that cannot be read."""

    kind: str
    says: str
    """One sentence for people: what it is, or why it is none."""
    file_set_uid: str = ""
    file_set_id: str = ""
    """Of the DICOMDIR, else the volume identifier (PS3.12 F: the same on a disc of ours), else of README.TXT."""
    number: int | None = None
    """Volume ``number`` of ``of``, as README.TXT of a disc of ours tells."""
    of: int | None = None
    maker: str = ""
    """Implementation Version Name (0002,0013) of the DICOMDIR, else its Implementation Class UID."""
    ours: bool = False
    """Whether a Burnish made it, this one or another."""
    manifest: bool = False
    patients: tuple[tuple[str, str], ...] = ()
    """Patient ID and name (for people) of the first patients in the DICOMDIR."""

    @property
    def whose(self) -> str:
        """The first patients, for people."""
        return "; ".join(f"{name or '(no name)'} ({number or 'no Patient ID'})" for number, name in self.patients)


def recognise(path: Path) -> Recognised:
    """Say what ``path`` is: an image file, a device, a folder or mount point, or a DICOMDIR in one. Never raises."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode) and canonical(path.name) == _DICOMDIR:
            path, mode = path.parent, stat.S_IFDIR
        if stat.S_ISDIR(mode):
            return _of(_folder(path), "", str(path))
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            return Recognised(NOTHING, f"{path} is neither a file, a folder nor a drive")
        if not _has_medium(path):
            return Recognised(NOTHING, f"there is no disc in {path}")
        with IsoVolume(path) as volume:
            root = {
                canonical(entry.identifier): _in_image(volume, entry)
                for entry, _ in zip(volume.entries(volume.root, ""), range(_ENTRIES), strict=False)
                if not entry.is_directory
            }
            return _of(root, volume.volume_id.strip(), str(path))
    except MediaError as error:
        return Recognised(NOTHING, str(error))
    except (OSError, ValueError) as error:
        return Recognised(NOTHING, f"{path} cannot be read: {getattr(error, 'strerror', None) or error}")


def _has_medium(path: Path) -> bool:
    """False where a drive says that it is empty."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _NO_MEDIUM:
            return False
        raise
    os.close(descriptor)
    return True


def _in_image(volume: IsoVolume, entry: object) -> Opener:
    return lambda: volume.open(entry)  # type: ignore[arg-type]


def _folder(path: Path) -> dict[str, Opener]:
    found: dict[str, Opener] = {}
    with os.scandir(path) as entries:
        for entry, _ in zip(entries, range(_ENTRIES), strict=False):
            if entry.is_file(follow_symlinks=False):
                found[canonical(entry.name)] = _in_folder(Path(entry.path))
    return found


def _in_folder(path: Path) -> Opener:
    def open_() -> BinaryIO:
        return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb")

    return open_


def _of(root: Mapping[str, Opener], volume_id: str, where: str) -> Recognised:
    readme, _ = _read(root.get(README), _HEAD)
    label = volume_id or _text(_FILE_SET_ID, readme)
    if _DICOMDIR not in root:
        named = f" named {label}" if label else ""
        return Recognised(
            FILE_SYSTEM,
            f"{where} is a medium{named} without a DICOMDIR",
            file_set_id=label,
            manifest=MANIFEST in root,
        )
    data, error = _read(root[_DICOMDIR], _DIRECTORY_BYTES)
    meta, _ = read_meta(data[:_HEAD])
    if meta is None:
        named = f" of the medium {label}" if label else ""
        return Recognised(
            FILE_SYSTEM,
            f"the DICOMDIR{named} in {where} cannot be read{f' ({error})' if error else ''}",
            file_set_id=label,
            manifest=MANIFEST in root,
        )
    file_set_id, patients = label, tuple[tuple[str, str], ...]()
    try:
        directory = dicomdir_reader.read(data, Limits(problems=1))
        file_set_id = directory.file_set_id or label
        records = (record for record in directory.records if record.type == "PATIENT")
        patients = tuple(
            (record.text(_PATIENT_ID), person_name(record.text(_PATIENT_NAME)))
            for record, _ in zip(records, range(_PATIENTS), strict=False)
        )
    except MediaError:
        pass
    ours = meta.implementation_class_uid == IMPLEMENTATION_CLASS_UID
    number, of = _volume(readme) if ours else (None, None)
    maker = meta.implementation_version_name or meta.implementation_class_uid
    found = Recognised(
        FILE_SET,
        "",
        file_set_uid=meta.sop_instance_uid,
        file_set_id=file_set_id,
        number=number,
        of=of,
        maker=maker,
        ours=ours,
        manifest=MANIFEST in root,
        patients=patients,
    )
    return _with_sentence(found)


def _with_sentence(found: Recognised) -> Recognised:
    name = found.file_set_id or "without a File-set ID"
    volume = f", volume {found.number} of {found.of}" if found.number else ""
    maker = "" if found.ours else f", made by {found.maker or 'an unnamed program'}"
    whose = f", of {found.whose}" if found.patients else ""
    return replace(found, says=f"the disc {name}{volume}{maker}{whose}")


def _read(opener: Opener | None, limit: int) -> tuple[bytes, str]:
    """What can be read of a file's beginning, and why no more can."""
    if opener is None:
        return b"", ""
    data = bytearray()
    try:
        with opener() as stream:
            while len(data) < limit and (piece := stream.read(min(_HEAD, limit - len(data)))):
                data += piece
    except OSError as error:
        return bytes(data), error.strerror or str(error)
    return bytes(data), ""


def _text(pattern: re.Pattern[bytes], data: bytes) -> str:
    found = pattern.search(data)
    return found[1].decode("ascii") if found else ""


def _volume(readme: bytes) -> tuple[int | None, int | None]:
    found = _VOLUME.search(readme)
    return (int(found[1]), int(found[2])) if found else (None, None)
