"""Read ISO 9660 volumes of any maker, hostile ones included (ECMA-119).

Only the primary tree is read: Joliet, Rock Ridge and UDF are left aside, since PS3.12 names files by the primary tree.
Nothing that a volume says is believed before it was compared with the size of the image.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from media.device import Device
from media.problems import FileSetInvalid, Problem, ProblemKind

_SECTOR = 2048
_FIRST_DESCRIPTOR = 16
_DESCRIPTOR_LIMIT = 64
_DIRECTORY_LIMIT = 64 << 20
_DIRECTORIES_LIMIT = 256 << 20
_PROBLEM_LIMIT = 1000
_STREAM_BUFFER = 256 << 10

_NO_LAST_EXTENT = "A file of several extents lacks its last one."

_FLAG_DIRECTORY = 0x02
_FLAG_ASSOCIATED = 0x04
_FLAG_MULTI_EXTENT = 0x80


@dataclass(frozen=True, slots=True)
class IsoEntry:
    """A file or directory as its directory record tells it."""

    identifier: str
    """As recorded, version and all: ``IM000001.;1``. Bytes beyond ASCII are read as Latin-1."""
    is_directory: bool
    extents: tuple[tuple[int, int], ...]
    """(byte offset in the image, length) of each piece; more than one on level 3."""

    @property
    def size(self) -> int:
        return sum(length for _, length in self.extents)


class IsoVolume:
    """The primary volume of an image file or block device.

    Raises FileSetInvalid with the reason when there is none. ``problems`` grows while directories are listed.
    """

    def __init__(self, path: Path, device: Device | None = None) -> None:
        """``device``: read through this one, which is closed with the volume."""
        self.path = path
        self.problems: list[Problem] = []
        self._directory_bytes = 0
        self.device = device or Device(path)
        self.first_descriptor = (self.device.session_start + _FIRST_DESCRIPTOR) * _SECTOR
        """Byte at which the volume descriptors begin: those of the last session."""
        self.image_size = self.device.size
        try:
            self._read_descriptor()
        except OSError as error:
            self.close()
            raise FileSetInvalid(f"{path}: cannot be read: {error.strerror or error}") from error
        except FileSetInvalid:
            self.close()
            raise

    def close(self) -> None:
        self.device.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _invalid(self, reason: str) -> FileSetInvalid:
        return FileSetInvalid(f"{self.path}: {reason}")

    def _problem(self, name: str, detail: str) -> None:
        if len(self.problems) < _PROBLEM_LIMIT:
            self.problems.append(Problem(ProblemKind.STRUCTURE, name, detail))

    def _read_descriptor(self) -> None:
        primary = None
        for index in range(_DESCRIPTOR_LIMIT):
            descriptor = self.device.read_at(self.first_descriptor + index * _SECTOR, _SECTOR)
            if len(descriptor) < _SECTOR or descriptor[1:6] != b"CD001":
                if index == 0 and descriptor[1:6] in (b"BEA01", b"NSR02", b"NSR03"):
                    raise self._invalid(
                        "has a UDF file system without ISO 9660; such a medium can be read once mounted"
                    )
                if index == 0:
                    raise self._invalid("is not an ISO 9660 image (no volume descriptor in sector 16)")
                break
            if descriptor[0] == 1 and primary is None:
                primary = descriptor
            if descriptor[0] == 255:
                break
        else:
            raise self._invalid(f"has more than {_DESCRIPTOR_LIMIT} volume descriptors")
        if primary is None:
            raise self._invalid("has no primary volume descriptor")

        self.volume_id = primary[40:72].decode("latin-1").rstrip(" \x00")
        self.block_size = int.from_bytes(primary[128:130], "little")
        if self.block_size not in (512, 1024, 2048):
            raise self._invalid(f"has logical blocks of {self.block_size} bytes")
        self.volume_size = int.from_bytes(primary[80:84], "little") * self.block_size
        """Bytes that the volume claims to have."""
        if primary[80:84] != primary[84:88][::-1]:
            self._problem("", "The volume's size differs between its two byte orders.")
        if self.volume_size > self.image_size:
            self._problem(
                "", f"The image is cut off: it has {self.image_size} bytes and the volume says {self.volume_size}."
            )
        root = self._entry(primary[156:190], "")
        if root is None or not root.is_directory:
            raise self._invalid("has no root directory")
        self.root = root

    def entries(self, directory: IsoEntry, name: str) -> Iterator[IsoEntry]:
        """The entries of a directory, in the order of its records; ``name`` stands in problems.

        What cannot be true (records that cross sectors, extents beyond the image) becomes a problem and is left out.
        """
        pending: list[IsoEntry] = []
        for record in self._records(directory, name):
            if record[32] == 1 and record[33] in (0, 1):
                continue  # the directory itself and its parent
            if record[25] & _FLAG_ASSOCIATED:
                continue
            shown = f"{name}/{record[33 : 33 + record[32]].decode('latin-1')}".lstrip("/")
            entry = self._entry(record, shown)
            if entry is None:
                pending.clear()
                continue
            if pending and pending[0].identifier != entry.identifier:
                self._problem(shown, _NO_LAST_EXTENT)
                pending.clear()
            pending.append(entry)
            if record[25] & _FLAG_MULTI_EXTENT and not entry.is_directory:
                continue
            if len(pending) > 1:
                extents = tuple(extent for piece in pending for extent in piece.extents)
                entry = IsoEntry(entry.identifier, entry.is_directory, extents)
            pending.clear()
            yield entry
        if pending:
            self._problem(f"{name}/{pending[0].identifier}".lstrip("/"), _NO_LAST_EXTENT)

    def _records(self, directory: IsoEntry, name: str) -> Iterator[bytes]:
        shown = name or "root directory"
        for offset, length in directory.extents:
            self._directory_bytes += length
            if length > _DIRECTORY_LIMIT or self._directory_bytes > _DIRECTORIES_LIMIT:
                self._problem(name, f"The {shown} claims {length} bytes; so much of directories is not read.")
                continue
            for start in range(offset, offset + length, _SECTOR):
                try:
                    sector = self.device.read_at(start, min(_SECTOR, offset + length - start))
                except OSError as error:
                    self.problems.append(Problem(ProblemKind.UNREADABLE, name, f"The {shown} cannot be read: {error}"))
                    return
                yield from self._sector_records(sector, name, shown)

    def _sector_records(self, sector: bytes, name: str, shown: str) -> Iterator[bytes]:
        position = 0
        while position < len(sector) and (length := sector[position]):
            record = sector[position : position + length]
            if len(record) < length or length < 34 or 33 + record[32] > length or not record[32]:
                self._problem(name, f"The {shown} holds what is no directory record; its sector is not read further.")
                return
            yield record
            position += length

    def _entry(self, record: bytes, shown: str) -> IsoEntry | None:
        """The entry of a directory record, or None, with a problem, where it cannot be true."""
        identifier = record[33 : 33 + record[32]].decode("latin-1")
        block = int.from_bytes(record[2:6], "little") + record[1]  # the extended attribute record comes first
        length = int.from_bytes(record[10:14], "little")
        if record[2:6] != record[6:10][::-1] or record[10:14] != record[14:18][::-1]:
            self._problem(shown, "Place or size in the directory record differs between the two byte orders.")
        if record[26] or record[27]:
            self._problem(shown, "Interleaved files are not supported.")
            return None
        offset = block * self.block_size
        if length and offset + length > self.image_size:
            self._problem(
                shown, f"It is said to reach to byte {offset + length}, beyond the image's {self.image_size} bytes."
            )
            return None
        return IsoEntry(identifier, bool(record[25] & _FLAG_DIRECTORY), ((offset, length),) if length else ())

    def open(self, entry: IsoEntry) -> BinaryIO:
        """The bytes of a file, seekable; several may be open and read at a time, also from threads."""
        return io.BufferedReader(_Extents(self.device, entry.extents), _STREAM_BUFFER)

    def read_at(self, offset: int, size: int) -> bytes:
        """Bytes of the image itself."""
        return self.device.read_at(offset, size)


class _Extents(io.RawIOBase):
    """A read-only stream over pieces of an image."""

    def __init__(self, image: Device, extents: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        self._image = image
        self._extents = extents
        self._size = sum(length for _, length in extents)
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError("Negative position in a file.")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        skip = self._position
        for offset, length in self._extents:
            if skip < length:
                wanted = min(len(buffer), length - skip)
                count = self._image.read_into(memoryview(buffer)[:wanted], offset + skip)
                if not count:
                    raise OSError(f"The image ends at byte {offset + skip}, inside a file.")
                self._position += count
                return count
            skip -= length
        return 0
