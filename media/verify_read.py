"""One sequential pass over a medium in physical order: every byte read once, hashed as it goes, errors survived.

An image's own SHA-256 comes from the same bytes as those of its files. Where a drive cannot read, sectors are tried one
by one and charged to the file that they belong to. After so many in a row that it must be a scratch the pass goes on
behind that file, which is lost anyway: a drive takes seconds for each sector that it cannot read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from media.device import SECTOR, Ranges, add_range, drop_from_cache, ranges_text
from media.digestpipe import BUFFER, Buffer, DigestPipe
from media.problems import MediaError, Problem, ProblemKind
from media.trees import FileTree, IsoTree

HEAD = 65536
"""Bytes from a file's beginning that ``visit`` gets."""
_IN_A_ROW = 16
"""Sectors that could not be read, one behind the other, after which the rest of a file is not tried: as many as an
error-correction block of a DVD has."""
_NARROWER = 8
"""By how much less is read at a time where a read failed."""
_ENOUGH = 8192
"""With less of a longer file at hand its beginning is read again (it lay across two buffers)."""

Read = Callable[[int, int], bytes]
"""``read(offset, count)``: bytes of a file."""


class FileRead(NamedTuple):
    """A file that has just been read whole."""

    name: str
    """Canonical."""
    size: int
    head: bytes
    """Its first bytes, ``HEAD`` of them where it has so many (or somewhat less)."""
    read: Read


Visit = Callable[[FileRead], None]


class VerifyCancelled(MediaError):
    """The caller's ``cancelled`` said so."""


@dataclass(slots=True)
class Digests:
    """SHA-256 in lower-case hex of what was read."""

    files: dict[str, str] = field(default_factory=dict)
    """By canonical name; a file that could not be read whole is not here."""
    image: str | None = None
    """Of the whole image; None for a folder, and where part of an image could not be read."""
    image_bytes: int = 0
    datasets: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Where the data set of each file begins, and its SHA-256, where that was asked for."""


@dataclass(slots=True)
class Pass:
    """What a pass is asked to do, and what it found wrong."""

    visit: Visit
    progress: Callable[[int, int], None] | None = None
    """Told (bytes read, bytes in all) about once a MiB."""
    cancelled: Callable[[], bool] | None = None
    drop_cache: bool = False
    """Have the bytes come from the medium, not from the page cache (where the system can: posix_fadvise)."""
    image_bytes: int | None = None
    """Read and hash only so much of an image: a drive may show more than was burnt."""
    stream: bool = True
    """Whether an image is hashed as a whole, too."""
    dataset_offset: Callable[[bytes], int] | None = None
    """As of ``DigestPipe``."""
    problems: list[Problem] = field(default_factory=list)
    unreadable: Ranges = field(default_factory=list)
    """Sectors of an image that could not be read, or were not tried any more."""

    def check_cancelled(self) -> None:
        if self.cancelled is not None and self.cancelled():
            raise VerifyCancelled("Verification was cancelled.")

    def report(self, kind: ProblemKind, file: str, detail: str) -> None:
        self.problems.append(Problem(kind, file, detail))

    def told(self, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(done, total)


def reason(error: OSError) -> str:
    """The system's words for an error."""
    return error.strerror or str(error) or type(error).__name__


class _Filler:
    """Buffers on their way to the hashing threads."""

    def __init__(self, pipe: DigestPipe) -> None:
        self._pipe = pipe
        self._buffer: Buffer = pipe.take()
        self._end = 0

    def room(self, wanted: int) -> memoryview:
        """Where up to ``wanted`` bytes can be read to; at least one."""
        if self._end >= BUFFER:
            self.flush()
        return self._buffer.view[self._end : min(BUFFER, self._end + wanted)]

    def took(self, count: int) -> int:
        """So many bytes were read into the room; returns where they begin."""
        self._end += count
        return self._end - count

    def bytes(self, start: int, end: int) -> bytes:
        return bytes(self._buffer.view[start:end])

    def of_file(self, start: int, end: int) -> None:
        """These bytes of the buffer belong to the current file."""
        if end > start:
            self._buffer.part(start, end)

    def end_file(self, name: str) -> None:
        """The current file is complete: its digest is that of ``name``."""
        self._buffer.end_of_file(name)

    def in_stream(self) -> None:
        """Everything in the buffer belongs to the stream (an image) as well."""
        self._buffer.used = self._end

    def flush(self) -> None:
        self._pipe.give(self._buffer)
        self._buffer, self._end = self._pipe.take(), 0


def read_tree(tree: FileTree, task: Pass) -> Digests:
    """Read every file of a tree, and all of an image. Raises VerifyCancelled; other wrongs go to ``task.problems``."""
    with DigestPipe(stream=task.stream, dataset_offset=task.dataset_offset) as pipe:
        if isinstance(tree, IsoTree):
            return _ImagePass(tree, task, pipe).run()
        return _read_folder(tree, task, pipe)


def _read_folder(tree: FileTree, task: Pass, pipe: DigestPipe) -> Digests:
    total = sum(file.size for file in tree.files.values())
    filler = _Filler(pipe)
    failed: set[str] = set()
    done = 0
    for name in tree.order:
        task.check_cancelled()
        try:
            _read_file(tree, name, filler, task)
        except OSError as error:
            task.report(ProblemKind.UNREADABLE, name, f"It cannot be read: {reason(error)}.")
            failed.add(name)
        filler.end_file(name)
        done += tree.files[name].size
        task.told(done, total)
    filler.flush()
    pipe.finish()
    files = {name: digest for name, digest in pipe.digests.items() if name not in failed}
    return Digests(files, datasets=pipe.datasets)


def _read_file(tree: FileTree, name: str, filler: _Filler, task: Pass) -> None:
    """Read one file, and visit it. OSError where it cannot be read or is not what it was when it was listed."""
    size = tree.files[name].size
    with tree.open(name) as stream:
        if task.drop_cache:
            with contextlib.suppress(OSError):
                drop_from_cache(stream.fileno())
        head, left = b"", size
        while left:
            room = filler.room(left)
            count = stream.readinto(room)  # type: ignore[attr-defined]
            if not count:
                raise OSError(f"it ends after {size - left} of {size} bytes")
            start = filler.took(count)
            filler.of_file(start, start + count)
            head = head or filler.bytes(start, start + min(count, HEAD))
            left -= count
            if left:
                task.check_cancelled()
        if stream.read(1):
            raise OSError(f"it grew beyond the {size} bytes that it had")

        def read(offset: int, count: int) -> bytes:
            stream.seek(offset)
            return stream.read(count)

        task.visit(FileRead(name, size, _enough(head, read, size), read))


def _enough(head: bytes, read: Read, size: int) -> bytes:
    return head if len(head) >= min(size, _ENOUGH) else read(0, HEAD)


@dataclass(slots=True)
class _Stretch:
    """A run of the image's bytes that belongs to one file, or (name ``""``) to none."""

    start: int
    end: int
    name: str


class _ImagePass:
    """Reads an image from its first byte to its last, cutting it into files on the way."""

    def __init__(self, tree: IsoTree, task: Pass, pipe: DigestPipe) -> None:
        self._tree = tree
        self._task = task
        self._pipe = pipe
        self._filler = _Filler(pipe)
        self._failed: set[str] = set()
        self._whole = True
        self._same: dict[str, list[str]] = {}
        """By file: others that share its place."""
        size = tree.volume.image_size
        self._size = size if task.image_bytes is None else min(size, task.image_bytes)
        self._empty = [name for name, file in tree.files.items() if not file.size]
        self._scattered: list[str] = []
        self._stretches = list(self._cut())
        self._index = 0
        self._head = b""
        self._device = tree.volume.device
        self._bad: Ranges = []
        """Sectors of the current stretch that could not be read."""
        self._unread: Ranges = []
        """The same of the whole image, with those that were not tried."""
        self._charged = -1
        """The last sector that was found unreadable, or given up."""
        self._in_a_row = 0
        self._error = OSError()

    def run(self) -> Digests:
        if self._task.drop_cache:
            self._device.drop_cache()
        self._read()
        for first, last in sorted(self._unread):
            add_range(self._task.unreadable, first, last)
        for name in self._empty:
            self._filler.end_file(name)
            self._task.visit(FileRead(name, 0, b"", lambda _offset, _count: b""))
        for name in self._scattered:
            try:
                _read_file(self._tree, name, self._filler, self._task)
            except OSError as error:
                self._fail(name, error)
            self._filler.end_file(name)
        self._filler.flush()
        image = self._pipe.finish()
        files = {name: digest for name, digest in self._pipe.digests.items() if name not in self._failed}
        for name, others in self._same.items():
            if name in files:
                files.update((other, files[name]) for other in others if other not in self._failed)
                if name in self._pipe.datasets:
                    self._pipe.datasets.update((other, self._pipe.datasets[name]) for other in others)
        whole = image if self._whole and self._task.stream else None
        return Digests(files, whole, self._size, self._pipe.datasets)

    def _cut(self) -> Iterator[_Stretch]:
        """The image's stretches in order, without a gap. A byte is read once, however many files lay claim to it."""
        claims: list[tuple[int, int, str]] = []
        for name in self._tree.files:
            pieces = self._tree.extents(name)
            if not pieces:
                continue
            if any(start + length != other for (start, length), (other, _) in pairwise(pieces)):
                self._scattered.append(name)
                claims.extend((start, start + length, "") for start, length in pieces)
            else:
                claims.append((pieces[0][0], pieces[-1][0] + pieces[-1][1], name))
        claims.sort()
        position, last = 0, (0, 0, "")
        for start, end, name in claims:
            if end > self._size:
                self._refuse(name, f"It reaches to byte {end}, beyond the {self._size} bytes that are read.")
            elif start < position:
                if (start, end) == last[:2] and name and last[2]:
                    self._same.setdefault(last[2], []).append(name)
                else:
                    self._refuse(name, f"It lies at byte {start}, in the middle of {last[2] or 'another file'}.")
            else:
                if start > position:
                    yield _Stretch(position, start, "")
                if name:
                    yield _Stretch(start, end, name)
                else:
                    yield _Stretch(start, end, "")
                position, last = end, (start, end, name)
        if position < self._size:
            yield _Stretch(position, self._size, "")

    def _refuse(self, name: str, detail: str) -> None:
        if name:
            self._task.report(ProblemKind.STRUCTURE, name, detail)
            self._failed.add(name)

    def _fail(self, name: str, error: OSError) -> None:
        self._task.report(ProblemKind.UNREADABLE, name, f"It cannot be read: {reason(error)}.")
        self._failed.add(name)

    def _read(self) -> None:
        position = 0
        step = BUFFER
        careful = 0
        """Up to here each stretch is read by itself, so that an error is charged to the right one."""
        while position < self._size:
            self._task.check_cancelled()
            if position >= careful:
                step, limit = BUFFER, self._size
            else:
                limit = min(self._stretches[self._index].end, position + step - position % min(step, SECTOR))
            room = self._filler.room(limit - position)
            try:
                count = self._device.read_into(room, position)
                if not count:
                    raise OSError(f"the image ends at byte {position}")
            except OSError as error:
                end = position + len(room)
                if end > min(self._stretches[self._index].end, _next_sector(position)):
                    careful = max(careful, end)
                    step = max(SECTOR, min(step, len(room)) // _NARROWER)
                else:
                    position = self._skip(position, error)
                continue
            self._in_a_row = 0
            step = min(BUFFER, step * 2)
            start = self._filler.took(count)
            self._filler.in_stream()
            self._share(position, start, count)
            position += count
            self._task.told(position, self._size)

    def _skip(self, position: int, error: OSError) -> int:
        """Give up the sector at ``position``, or what is left of its file; returns where to go on."""
        stretch = self._stretches[self._index]
        self._whole = False
        self._in_a_row += 1
        sector = position // SECTOR
        # What is left of a sector behind a file's end has been charged to that file.
        if stretch.name or sector != self._charged:
            add_range(self._bad, sector, sector)
            self._charged = sector
        end = min(stretch.end, _next_sector(position))
        if self._in_a_row >= _IN_A_ROW:
            self._in_a_row = 0
            beyond = stretch.end if stretch.name else min(stretch.end, position + BUFFER)
            if beyond > end:
                self._charged = (beyond - 1) // SECTOR
                self._unread.append((end // SECTOR, self._charged))
            end = beyond
        self._error = error
        if end == stretch.end:
            self._end_stretch(stretch)
            self._index += 1
        return end

    def _end_stretch(self, stretch: _Stretch) -> None:
        """Everything of a stretch was read or given up: tell what was not read of it, or visit the file."""
        if stretch.name:
            self._filler.end_file(stretch.name)
        if self._bad:
            where = ranges_text(self._bad)
            if stretch.name:
                detail = f"It cannot be read at {where} of the medium: {reason(self._error)}."
                for name in (stretch.name, *self._same.get(stretch.name, ())):
                    self._task.report(ProblemKind.UNREADABLE, name, detail)
                    self._failed.add(name)
            else:
                detail = f"The medium cannot be read at {where}, where no file lies: {reason(self._error)}."
                self._task.report(ProblemKind.UNREADABLE, "", detail)
            self._unread.extend(self._bad)
            self._bad = []
        elif stretch.name:
            self._visit(stretch)
        self._head = b""

    def _share(self, position: int, start: int, count: int) -> None:
        """Give each file its part of the ``count`` bytes at ``position``, which lie in the buffer from ``start`` on."""
        end = position + count
        while self._index < len(self._stretches):
            stretch = self._stretches[self._index]
            begin, finish = max(position, stretch.start), min(end, stretch.end)
            if stretch.name and finish > begin:
                first = start + begin - position
                self._filler.of_file(first, start + finish - position)
                if begin == stretch.start:
                    self._head = self._filler.bytes(first, start + min(finish, begin + HEAD) - position)
            if stretch.end > end:
                return
            self._end_stretch(stretch)
            self._index += 1

    def _visit(self, stretch: _Stretch) -> None:
        size = stretch.end - stretch.start

        def read(offset: int, count: int) -> bytes:
            return self._device.read_at(stretch.start + offset, max(0, min(count, size - offset)))

        for name in (stretch.name, *self._same.get(stretch.name, ())):
            try:
                self._task.visit(FileRead(name, size, _enough(self._head, read, size), read))
            except OSError as error:
                self._fail(name, error)


def _next_sector(position: int) -> int:
    """Where the sector behind that at ``position`` begins."""
    return (position // SECTOR + 1) * SECTOR
