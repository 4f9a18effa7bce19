"""ISO 9660 level 1 images: laid out in memory, streamed to a file or a pipe, equal bytes from equal input (ECMA-119).

PS3.12 Annex F asks for exactly this on CD-R: level 1, the File-set ID as volume identifier. No Rock Ridge, no Joliet.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from io import FileIO
from typing import BinaryIO

from media import isolayout as layout
from media.digestpipe import Buffer, DigestPipe
from media.isolayout import SECTOR, sectors_of
from media.items import DiscFile
from media.problems import InstanceRefused, MediaError

PRODUCT = "BURNISH"
"""System, publisher, data preparer and application identifier of every image."""

_READ_AHEAD_FILES = 4
_READ_AHEAD_BYTES = 8 << 20


class WriteCancelled(MediaError):
    """The caller's ``cancelled`` said so; what was written so far is no image."""


class _Directory:
    """A directory on its way into the image: children by name, then number and place."""

    __slots__ = ("extent", "files", "name", "number", "parent", "size", "subdirectories")

    def __init__(self, name: str, parent: _Directory | None) -> None:
        self.name = name
        self.parent = parent or self
        self.subdirectories: dict[str, _Directory] = {}
        self.files: dict[str, int] = {}
        self.number = 0
        self.extent = 0
        self.size = 0

    def children(self) -> list[tuple[str, _Directory | int]]:
        """Every child in the order of the records: subdirectories as such, files as their index."""
        mixed: list[tuple[str, _Directory | int]] = [*self.subdirectories.items(), *self.files.items()]
        mixed.sort(key=lambda child: layout.sort_key(child[0]))
        return mixed


class IsoImage:
    """The image of a volume that holds ``files``, in that order on the disc.

    ``volume_id``: the File-set ID. ``created``: UTC; stands in every date field. Raises MediaError for a name that
    level 1 does not allow, a name used twice or too many directories, and InstanceRefused (INST_OVERSIZED) for a
    file of 4 GiB - 1 or more. The sources are not opened before ``write``.
    """

    def __init__(self, files: Sequence[DiscFile], volume_id: str, created: datetime) -> None:
        layout.check_volume_id(volume_id)
        self.files = tuple(files)
        self.volume_id = volume_id
        self.created = created.astimezone(UTC)
        if not 1900 <= self.created.year <= 2155:
            raise MediaError(f"The year {self.created.year} does not go into an ISO 9660 date.")
        self._directories = _number(_tree(self.files))
        self._path_table_bytes = sum(_path_record_length(directory) for directory in self._directories)
        self._place()

    def _place(self) -> None:
        """Give every directory and file its first sector."""
        table = sectors_of(self._path_table_bytes)
        self._table_l = layout.SYSTEM_AREA_SECTORS + layout.DESCRIPTOR_SECTORS
        self._table_m = self._table_l + table
        position = self._table_m + table
        for directory in self._directories:
            runs = ((layout.record_length(len(_identifier(name, child))), 1) for name, child in directory.children())
            directory.extent = position
            directory.size = layout.directory_sectors(runs) * SECTOR
            position += directory.size // SECTOR
        self._first_file = position
        self._extents: list[int] = []
        for file in self.files:
            self._extents.append(position)
            position += sectors_of(file.size)
        self._padding = position
        self.sectors = position + layout.PADDING_SECTORS
        """Sectors of the image, exactly: what the volume descriptor says and what ``write`` writes."""

    @property
    def size(self) -> int:
        """Bytes of the image."""
        return self.sectors * SECTOR

    def write(
        self,
        out: Callable[[bytes], object] | BinaryIO,
        progress: Callable[[int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> str:
        """Stream the image to ``out``, strictly in sequence (a pipe will do); return its SHA-256 in lower-case hex.

        Every source is checked against its size and digest while it is read. ``progress`` is told the bytes written
        so far, about once a MiB. Raises MediaError naming the file that is not what it was, WriteCancelled when
        ``cancelled`` says so, and OSError from ``out`` itself.
        """
        with DigestPipe() as pipe:
            stream = _Stream(pipe, _writer(out), progress, cancelled)
            stream.put(self._metadata())
            checked = 0
            for file, source in _opened(self.files):
                try:
                    stream.put_file(file, source)
                finally:
                    if isinstance(source, FileIO):
                        source.close()
                checked = self._check(pipe, checked)
            stream.put_zeros(layout.PADDING_SECTORS * SECTOR)
            stream.flush()
            digest = pipe.finish()
            if self._check(pipe, checked) != len(self.files) or stream.written != self.size:
                raise MediaError(f"{stream.written} bytes of image {self.volume_id} were written, not {self.size}.")
        return digest

    def _check(self, pipe: DigestPipe, checked: int) -> int:
        """Compare the digests that have come in; return up to which file."""
        while checked < len(self.files) and (found := pipe.digests.pop(self.files[checked].path, None)) is not None:
            file = self.files[checked]
            if file.sha256 and found != file.sha256:
                raise MediaError(
                    f"{file.path}: its source{_source_name(file)} has changed: SHA-256 {found}, not {file.sha256}."
                )
            checked += 1
        return checked

    def _metadata(self) -> bytes:
        """Everything before the first file: system area, descriptors, path tables, directories."""
        pieces = [bytes(layout.SYSTEM_AREA_SECTORS * SECTOR), self._primary_descriptor(), _TERMINATOR]
        for order in ("<", ">"):
            table = b"".join(_path_record(directory, order) for directory in self._directories)
            pieces.append(_padded(table))
        pieces.extend(self._directory_bytes(directory) for directory in self._directories)
        metadata = b"".join(pieces)
        if len(metadata) != self._first_file * SECTOR:
            raise MediaError(f"Layout of image {self.volume_id} does not agree with itself.")
        return metadata

    def _directory_bytes(self, directory: _Directory) -> bytes:
        data = bytearray()
        stamp = self._record_date()
        records = [
            _record(b"\x00", directory.extent, directory.size, stamp, is_directory=True),
            _record(b"\x01", directory.parent.extent, directory.parent.size, stamp, is_directory=True),
        ]
        for name, child in directory.children():
            identifier = _identifier(name, child)
            if isinstance(child, _Directory):
                records.append(_record(identifier, child.extent, child.size, stamp, is_directory=True))
            else:
                size = self.files[child].size
                records.append(_record(identifier, self._extents[child], size, stamp, is_directory=False))
        for record in records:
            if len(data) % SECTOR + len(record) > SECTOR:
                data.extend(bytes(-len(data) % SECTOR))
            data.extend(record)
        return _padded(bytes(data))

    def _record_date(self) -> bytes:
        """ECMA-119 9.1.5, offset from Greenwich zero."""
        at = self.created
        return bytes((at.year - 1900, at.month, at.day, at.hour, at.minute, at.second, 0))

    def _primary_descriptor(self) -> bytes:
        """ECMA-119 8.4."""
        root = self._directories[0]
        at = self.created
        date = at.strftime("%Y%m%d%H%M%S").encode("ascii") + b"%02d\x00" % (at.microsecond // 10_000)
        unspecified = b"0" * 16 + b"\x00"
        product = PRODUCT.encode("ascii")
        descriptor = b"".join(
            (
                b"\x01CD001\x01\x00",
                product.ljust(32),
                self.volume_id.encode("ascii").ljust(32),
                bytes(8),
                _both32(self.sectors),
                bytes(32),
                _both16(1),  # volume set size
                _both16(1),  # volume sequence number
                _both16(SECTOR),
                _both32(self._path_table_bytes),
                struct.pack("<II", self._table_l, 0),
                struct.pack(">II", self._table_m, 0),
                _record(b"\x00", root.extent, root.size, self._record_date(), is_directory=True),
                b" " * 128,  # volume set identifier
                product.ljust(128),  # publisher
                product.ljust(128),  # data preparer
                product.ljust(128),  # application
                b" " * 37 * 3,  # copyright, abstract and bibliographic files
                date,  # creation
                date,  # modification
                unspecified,  # expiration
                date,  # effective
                b"\x01\x00",
            )
        )
        return _padded(descriptor)


class _Stream:
    """Fills buffers, writes each and hands it on to the hashing threads."""

    def __init__(
        self,
        pipe: DigestPipe,
        write: Callable[[memoryview], None],
        progress: Callable[[int], None] | None,
        cancelled: Callable[[], bool] | None,
    ) -> None:
        self._pipe = pipe
        self._write = write
        self._progress = progress
        self._cancelled = cancelled
        self._buffer = pipe.take()
        self.written = 0

    def _room(self) -> Buffer:
        if not self._buffer.free:
            self.flush()
        return self._buffer

    def flush(self) -> None:
        if self._cancelled is not None and self._cancelled():
            raise WriteCancelled("Writing the image was cancelled.")
        buffer = self._buffer
        self._write(buffer.view[: buffer.used])
        self.written += buffer.used
        self._pipe.give(buffer)
        self._buffer = self._pipe.take()
        if self._progress is not None:
            self._progress(self.written)

    def put(self, data: bytes, *, of_file: bool = False) -> None:
        view = memoryview(data)
        while view:
            buffer = self._room()
            count = min(buffer.free, len(view))
            start, end = buffer.used, buffer.used + count
            buffer.view[start:end] = view[:count]
            buffer.used = end
            if of_file:
                buffer.part(start, end)
            view = view[count:]

    def put_zeros(self, count: int) -> None:
        self.put(bytes(count))

    def put_file(self, file: DiscFile, source: FileIO | bytes) -> None:
        """The file's bytes, then zeros up to the sector's end."""
        if isinstance(source, bytes):
            self.put(source, of_file=True)
        else:
            left = file.size
            while left:
                buffer = self._room()
                start = buffer.used
                try:
                    count = source.readinto(buffer.view[start : start + min(buffer.free, left)])
                except OSError as error:
                    raise MediaError(
                        f"{file.path}: cannot read its source{_source_name(file)}: {error.strerror or error}."
                    ) from error
                if not count:
                    raise MediaError(
                        f"{file.path}: its source{_source_name(file)} ends {left} bytes before its size of {file.size}."
                    )
                buffer.used = start + count
                buffer.part(start, buffer.used)
                left -= count
        self._buffer.end_of_file(file.path)
        self.put_zeros(-file.size % SECTOR)


def _opened(files: Sequence[DiscFile]) -> Iterator[tuple[DiscFile, FileIO | bytes]]:
    """Each file with its source, opened a few files ahead so that the kernel reads while earlier ones are written.

    The consumer closes what it was given; what it did not come to is closed here.
    """
    ahead: deque[tuple[DiscFile, FileIO | bytes]] = deque()
    try:
        for file in files:
            ahead.append((file, _open(file)))
            if len(ahead) > _READ_AHEAD_FILES:
                yield ahead.popleft()
        while ahead:
            yield ahead.popleft()
    finally:
        for _, source in ahead:
            if isinstance(source, FileIO):
                source.close()


def _open(file: DiscFile) -> FileIO | bytes:
    if isinstance(file.source, bytes):
        size = len(file.source)
        source: FileIO | bytes = file.source
    else:
        try:
            source = FileIO(file.source, "rb")
            size = os.fstat(source.fileno()).st_size
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(source.fileno(), 0, _READ_AHEAD_BYTES, os.POSIX_FADV_WILLNEED)
        except OSError as error:
            raise MediaError(
                f"{file.path}: cannot open its source{_source_name(file)}: {error.strerror or error}."
            ) from error
    if size != file.size:
        if isinstance(source, FileIO):
            source.close()
        raise MediaError(f"{file.path}: its source{_source_name(file)} has {size} bytes, not {file.size}.")
    return source


def _source_name(file: DiscFile) -> str:
    return "" if isinstance(file.source, bytes) else f" {file.source}"


def _writer(out: Callable[[bytes], object] | BinaryIO) -> Callable[[memoryview], None]:
    """A function that writes all of what it is given."""
    if callable(out):
        call = out

        def write_copy(view: memoryview) -> None:
            call(bytes(view))

        return write_copy
    write = out.write

    def write_all(view: memoryview) -> None:
        while view:
            # An unbuffered file or a pipe may take less than it was given.
            count = write(view)
            view = view[count:]

    return write_all


def _tree(files: Sequence[DiscFile]) -> _Directory:
    root = _Directory("", None)
    for index, file in enumerate(files):
        layout.check_file_id(file.file_id)
        if file.size >= layout.FILE_LIMIT:
            raise InstanceRefused(
                "INST_OVERSIZED", f"{file.path} has {file.size} bytes; ISO 9660 level 1 takes less than 4 GiB - 1."
            )
        directory = root
        for component in file.file_id[:-1]:
            if component in directory.files:
                raise MediaError(f"{file.path}: {component} is the name of a file already.")
            parent = directory
            directory = parent.subdirectories.get(component) or parent.subdirectories.setdefault(
                component, _Directory(component, parent)
            )
        name = file.file_id[-1]
        if name in directory.files or name in directory.subdirectories:
            raise MediaError(f"{file.path}: this name stands twice in one volume.")
        directory.files[name] = index
    return root


def _number(root: _Directory) -> list[_Directory]:
    """Every directory in the order of the path table: by level, parent, name (ECMA-119 6.9.1)."""
    root.number = 1
    ordered = [root]
    for directory in ordered:
        for name in sorted(directory.subdirectories, key=layout.sort_key):
            child = directory.subdirectories[name]
            ordered.append(child)
            child.number = len(ordered)
            if len(ordered) > layout.DIRECTORY_LIMIT:
                raise MediaError(f"A volume of ISO 9660 holds at most {layout.DIRECTORY_LIMIT:,} directories.")
    return ordered


def _identifier(name: str, child: _Directory | int) -> bytes:
    return name.encode("ascii") if isinstance(child, _Directory) else layout.file_identifier(name)


def _path_record_length(directory: _Directory) -> int:
    return layout.path_record_length(len(directory.name) or 1)


def _path_record(directory: _Directory, order: str) -> bytes:
    """ECMA-119 9.4."""
    identifier = directory.name.encode("ascii") or b"\x00"
    record = struct.pack(order + "BBIH", len(identifier), 0, directory.extent, directory.parent.number) + identifier
    return record + bytes(len(identifier) % 2)


def _record(identifier: bytes, extent: int, size: int, date: bytes, *, is_directory: bool) -> bytes:
    """ECMA-119 9.1."""
    length = layout.record_length(len(identifier))
    head = bytes((length, 0)) + _both32(extent) + _both32(size) + date
    record = head + bytes((2 if is_directory else 0, 0, 0)) + _both16(1) + bytes((len(identifier),)) + identifier
    return record.ljust(length, b"\x00")


def _both16(value: int) -> bytes:
    """ECMA-119 7.2.3: in both byte orders."""
    return struct.pack("<H", value) + struct.pack(">H", value)


def _both32(value: int) -> bytes:
    """ECMA-119 7.3.3: in both byte orders."""
    return struct.pack("<I", value) + struct.pack(">I", value)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % SECTOR)


_TERMINATOR = _padded(b"\xffCD001\x01")
