"""SHA-256 of a stream and of the files inside it, computed by two threads while the stream is read and written.

``hashlib`` lets go of the interpreter lock, so with two cores the digests cost little time beside the input and output.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from types import TracebackType
from typing import Self

BUFFER = 1 << 20
_BUFFERS = 8


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


class DigestPipe:
    """Buffers go round: taken, filled and written by the caller, hashed by file, hashed as a stream, taken again.

    Use as a context manager; ``finish`` ends the stream. ``digests`` grows while the stream runs.
    """

    def __init__(self, *, files: bool = True) -> None:
        self._free: queue.SimpleQueue[Buffer] = queue.SimpleQueue()
        self._to_files: queue.SimpleQueue[Buffer | None] = queue.SimpleQueue()
        self._to_stream: queue.SimpleQueue[Buffer | None] = queue.SimpleQueue()
        for _ in range(_BUFFERS):
            self._free.put(Buffer())
        self._stream = hashlib.sha256()
        self.digests: dict[str, str] = {}
        """Lower-case hex SHA-256 by name of the files that have been hashed so far."""
        self._threads = [threading.Thread(target=self._hash_stream, name="digest-stream", daemon=True)]
        if files:
            self._threads.append(threading.Thread(target=self._hash_files, name="digest-files", daemon=True))
        self._entry = self._to_files if files else self._to_stream
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
        self._entry.put(buffer)

    def finish(self) -> str:
        """Wait for all hashing; return the SHA-256 of the whole stream."""
        self._end()
        return self._stream.hexdigest()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._entry.put(None)
            for thread in self._threads:
                thread.join()

    def _hash_files(self) -> None:
        current = hashlib.sha256()
        while (buffer := self._to_files.get()) is not None:
            for start, end, name in buffer.parts():
                if name is None:
                    current.update(buffer.view[start:end])
                else:
                    self.digests[name] = current.hexdigest()
                    current = hashlib.sha256()
            self._to_stream.put(buffer)
        self._to_stream.put(None)

    def _hash_stream(self) -> None:
        while (buffer := self._to_stream.get()) is not None:
            self._stream.update(buffer.view[: buffer.used])
            self._free.put(buffer)
