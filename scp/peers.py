"""Who may connect: addresses that are allowed, and limits for each, over all acceptor processes.

The counts lie in memory that the processes share, a row an address, changed under a lock. A row counts by process, so
that a dead one's connections can be forgotten.
"""

from __future__ import annotations

import fcntl
import hashlib
import ipaddress
import mmap
import os
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_ROWS = 1024
_KEY = 16
_HEAD = struct.Struct(f"<{_KEY}sdI")
"""Digest of the address, start of its minute, connections in it; then two bytes for each process."""
_MINUTE = 60.0


def networks(allowed: Sequence[str]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """``10.0.0.0/8``, ``192.168.1.5`` ... as networks. ValueError names what is none."""
    return tuple(ipaddress.ip_network(text, strict=False) for text in allowed)


def is_allowed(address: str, allowed: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    """Whether an address lies in one of the networks; in any where there are none."""
    if not allowed:
        return True
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return any((mapped or found) in network for network in allowed)


class Peers:
    """Limits for each address; 0: none."""

    def __init__(self, fd: int, acceptors: int, *, own: int, at_once: int, per_minute: int) -> None:
        """``own`` is the number of this process, from 0."""
        self._fd, self._acceptors, self._own = fd, acceptors, own
        self._at_once, self._per_minute = at_once, per_minute
        self._width = _HEAD.size + 2 * acceptors
        self._map = mmap.mmap(fd, _ROWS * self._width)
        self._lock = threading.Lock()  # a record lock keeps processes apart, not threads

    @staticmethod
    def create(acceptors: int) -> int:
        """Shared memory for so many processes, as a file descriptor to be inherited."""
        fd = os.memfd_create("burnish-peers", os.MFD_CLOEXEC)
        os.ftruncate(fd, _ROWS * (_HEAD.size + 2 * acceptors))
        return fd

    def enter(self, address: str) -> str:
        """Count a connection; why it is one too many, or an empty text. ``leave`` belongs to each that may stay."""
        if not self._at_once and not self._per_minute:
            return ""
        with self._locked():
            row = self._row(_key(address))
            if row is None:
                return "there are too many different peers"
            since, recent = self._minute(row)
            if self._per_minute and recent >= self._per_minute:
                return f"more than {self._per_minute} connections a minute"
            if self._at_once and sum(self._counts(row)) >= self._at_once:
                return f"more than {self._at_once} connections at the same time"
            self._write(row, _key(address), since, recent + 1)
            self._add(row, 1)
        return ""

    def leave(self, address: str) -> None:
        if not self._at_once and not self._per_minute:
            return
        with self._locked():
            row = self._row(_key(address))
            if row is not None:
                self._add(row, -1)

    def clear(self, number: int) -> None:
        """A process is dead: nobody is connected to it any more."""
        with self._locked():
            for row in range(_ROWS):
                at = row * self._width + _HEAD.size + 2 * number
                self._map[at : at + 2] = b"\0\0"

    def close(self) -> None:
        self._map.close()

    # -- rows ----------------------------------------------------------------------------------------------------

    def _row(self, key: bytes) -> int | None:
        """The address's row, or that of one who is not connected and came least in its minute."""
        first = int.from_bytes(key[:4], "little") % _ROWS
        free, fewest = None, 1 << 32
        for step in range(64):
            row = (first + step) % _ROWS
            at = row * self._width
            if self._map[at : at + _KEY] == key:
                return row
            if not any(self._counts(row)) and (recent := self._minute(row)[1]) < fewest:
                free, fewest = row, recent
        if free is not None:
            self._write(free, key, 0.0, 0)
        return free

    def _minute(self, row: int) -> tuple[float, int]:
        """Start of the row's minute and its connections since; a new minute where that is over."""
        _, since, recent = _HEAD.unpack_from(self._map, row * self._width)
        now = time.monotonic()
        return (since, recent) if 0 <= now - since < _MINUTE else (now, 0)

    def _write(self, row: int, key: bytes, since: float, recent: int) -> None:
        _HEAD.pack_into(self._map, row * self._width, key, since, recent)

    def _counts(self, row: int) -> tuple[int, ...]:
        return struct.unpack_from(f"<{self._acceptors}H", self._map, row * self._width + _HEAD.size)

    def _add(self, row: int, step: int) -> None:
        at = row * self._width + _HEAD.size + 2 * self._own
        (count,) = struct.unpack_from("<H", self._map, at)
        struct.pack_into("<H", self._map, at, max(0, min(0xFFFF, count + step)))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock:
            fcntl.lockf(self._fd, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.lockf(self._fd, fcntl.LOCK_UN)


def _key(address: str) -> bytes:
    return hashlib.blake2b(address.encode(), digest_size=_KEY).digest()
