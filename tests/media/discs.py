"""Makers of disc files and images for the tests of this folder."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from media.iso9660 import IsoImage
from media.items import DiscFile

CREATED = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)


def disc_file(path: str, data: bytes) -> DiscFile:
    return DiscFile(tuple(path.split("/")), len(data), hashlib.sha256(data).hexdigest(), data)


def disc_file_from(path: str, source: Path) -> DiscFile:
    data = source.read_bytes()
    return DiscFile(tuple(path.split("/")), len(data), hashlib.sha256(data).hexdigest(), source)


def image_of(files: Mapping[str, bytes] | Iterable[DiscFile], volume_id: str = "DISC_0001") -> IsoImage:
    if isinstance(files, Mapping):
        files = [disc_file(path, data) for path, data in files.items()]
    return IsoImage(tuple(files), volume_id, CREATED)


def written(image: IsoImage) -> bytes:
    out = io.BytesIO()
    image.write(out)
    return out.getvalue()


def contents(seed: int, instances: int, *, per_series: int = 60) -> dict[str, bytes]:
    """Files as on a disc of ours: awkward sizes, several directories of more than one sector."""
    files = {"DICOMDIR": b"\x00" * 128 + b"DICM", "README.TXT": b"Read me.\r\n" * seed, "MANIFEST.TXT": b""}
    for number in range(instances):
        series, instance = divmod(number, per_series)
        size = (seed * 7919 + number * 2047) % 9000
        name = f"DICOM/P0000001/ST000001/SE{series + 1:06}/IM{instance + 1:06}"
        files[name] = hashlib.sha256(f"{seed} {number}".encode()).digest() * (size // 32) + b"x" * (size % 32)
    return files
