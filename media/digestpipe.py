"""SHA-256 of a stream and of the files inside it, computed by threads while the stream is read and written.

``hashlib`` lets go of the interpreter lock, so with two cores the digests cost little time beside the input and output.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

BUFFER = 1 << 20
_BUFFERS = 8
_HEAD = 1 << 16
"""Bytes of a file's beginning by which is told where its data set begins."""


class Buffer:
    """A piece of the stream: its bytes, how many of them count, and which belong to which file."""

    __slots__ = ("_parts", "data", "used", "view")

    def __init__(self) -> None:
        self.data = bytearray(BUFFER)
        self.view = memoryview(self.data)
        self.used = 0
        self._parts: list[tuple[int, int, str | None]] = []

    @property
    def free(self) -> int:
        return BUFFER - self.used

    def clear(self) -> None:
        self.used = 0
        self._parts.clear()

    def part(self, start: int, end: int) -> None:
        """The bytes from ``start`` to ``end`` belong to the file that is current."""
        self._parts.append((start, end, None))

    def end_of_file(self, name: str) -> None:
        """The current file, ``name``, is complete; what follows belongs to the next one."""
        self._parts.append((0, 0, name))

    def parts(self) -> list[tuple[int, int, str | None]]:
        return self._parts


_Queue = queue.SimpleQueue[Buffer | None]


class DigestPipe:
    """Buffers go round: taken, filled and written by the caller, hashed by file, hashed as a stream, taken again.

    Use as a context manager; ``finish`` ends the stream. ``digests`` grows while the stream runs.
    """

    def __init__(
        self, *, files: bool = True, stream: bool = True, dataset_offset: Callable[[bytes], int] | None = None
    ) -> None:
        """``stream``: whether all of it is hashed as one. ``dataset_offset``: says of a file's first bytes where its
        data set begins, -1: it has none; then ``datasets`` grows, too."""
        self._free: queue.SimpleQueue[Buffer] = queue.SimpleQueue()
        for _ in range(_BUFFERS):
            self._free.put(Buffer())
        self._stream = hashlib.sha256()
        self.digests: dict[str, str] = {}
        """Lower-case hex SHA-256 by name of the files that have been hashed so far."""
        self.datasets: dict[str, tuple[int, str]] = {}
        """Where the data set of each file begins, and its SHA-256."""
        self._dataset_offset = dataset_offset
        stages: list[tuple[str, Callable[[_Queue, Callable[[Buffer], None]], None]]] = []
        if files:
            stages.append(("digest-files", self._hash_files))
        if dataset_offset is not None:
            stages.append(("digest-datasets", self._hash_datasets))
        if stream or not stages:
            stages.append(("digest-stream", self._hash_stream if stream else self._pass))
        self._queues: list[_Queue] = [queue.SimpleQueue() for _ in stages]
        followers: list[Callable[[Buffer], None]] = [*(each.put for each in self._queues[1:]), self._free.put]
        self._threads = [
            threading.Thread(target=stage, args=(entry, following), name=name, daemon=True)
            for (name, stage), entry, following in zip(stages, self._queues, followers, strict=True)
        ]
        self._ended = False

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def take(self) -> Buffer:
        """An empty buffer; waits until one is free."""
        buffer = self._free.get()
        buffer.clear()
        return buffer

    def give(self, buffer: Buffer) -> None:
        """The buffer is filled and written: hash it. It must not be touched afterwards."""
        self._queues[0].put(buffer)

    def finish(self) -> str:
        """Wait for all hashing; return the SHA-256 of the whole stream."""
        self._end()
        return self._stream.hexdigest()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            for entry, thread in zip(self._queues, self._threads, strict=True):
                entry.put(None)
                thread.join()

    def _hash_files(self, entry: _Queue, following: Callable[[Buffer], None]) -> None:
        current = hashlib.sha256()
        while (buffer := entry.get()) is not None:
            for start, end, name in buffer.parts():
                if name is None:
                    current.update(buffer.view[start:end])
                else:
                    self.digests[name] = current.hexdigest()
                    current = hashlib.sha256()
            following(buffer)

    def _hash_datasets(self, entry: _Queue, following: Callable[[Buffer], None]) -> None:
        assert self._dataset_offset is not None
        head, offset, current = b"", -2, hashlib.sha256()  # -2: not known yet
        while (buffer := entry.get()) is not None:
            for start, end, name in buffer.parts():
                begin = start
                if offset == -2:
                    begin = min(end, start + _HEAD - len(head))
                    head += bytes(buffer.view[start:begin])
                    if name is not None or len(head) == _HEAD:
                        offset = self._dataset_offset(head)
                        current.update(head[max(offset, 0) :])
                if name is not None:
                    if offset >= 0:
                        self.datasets[name] = (offset, current.hexdigest())
                    head, offset, current = b"", -2, hashlib.sha256()
                elif offset >= 0 and end > begin:
                    current.update(buffer.view[begin:end])
            following(buffer)

    def _hash_stream(self, entry: _Queue, following: Callable[[Buffer], None]) -> None:
        while (buffer := entry.get()) is not None:
            self._stream.update(buffer.view[: buffer.used])
            following(buffer)

    @staticmethod
    def _pass(entry: _Queue, following: Callable[[Buffer], None]) -> None:
        while (buffer := entry.get()) is not None:
            following(buffer)
