"""How many associations each acceptor process has, in memory that all of them share."""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_WIDTH = 4


class Seats:
    """A limit over all processes: one counter each, changed under a lock, so that a dead one's can be set to zero."""

    def __init__(self, fd: int, acceptors: int, *, own: int, limit: int) -> None:
        """``own`` is the number of this process, from 0."""
        self._fd = fd
        self._map = mmap.mmap(fd, acceptors * _WIDTH)
        self._acceptors = acceptors
        self._own = own
        self._limit = limit
        self._lock = threading.Lock()  # a record lock keeps processes apart, not threads

    @staticmethod
    def create(acceptors: int) -> int:
        """Shared memory for so many processes, as a file descriptor to be inherited."""
        fd = os.memfd_create("burnish-seats", os.MFD_CLOEXEC)
        os.ftruncate(fd, acceptors * _WIDTH)
        return fd

    def enter(self) -> bool:
        """Take a seat; False where all are taken."""
        with self._locked():
            counts = self._counts()
            if sum(counts) >= self._limit:
                return False
            self._set(self._own, counts[self._own] + 1)
            return True

    def leave(self) -> None:
        with self._locked():
            self._set(self._own, max(0, self._counts()[self._own] - 1))

    def is_busiest(self) -> bool:
        """Whether another process has fewer associations than this one, and should take the next."""
        counts = self._counts()
        return counts[self._own] > min(counts)

    def total(self) -> int:
        return sum(self._counts())

    def clear(self, number: int) -> None:
        """A process is dead: nobody sits there any more."""
        with self._locked():
            self._set(number, 0)

    def close(self) -> None:
        self._map.close()

    def _counts(self) -> list[int]:
        return [
            int.from_bytes(self._map[at : at + _WIDTH], "little") for at in range(0, self._acceptors * _WIDTH, _WIDTH)
        ]

    def _set(self, number: int, count: int) -> None:
        self._map[number * _WIDTH : (number + 1) * _WIDTH] = count.to_bytes(_WIDTH, "little")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock:
            fcntl.lockf(self._fd, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.lockf(self._fd, fcntl.LOCK_UN)
