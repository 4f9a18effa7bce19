"""The bytes of an encoded data set, read forward only: from a file, or inflated from one on the way."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import BinaryIO

_CHUNK = 1 << 16
_MAX_CHUNK = 1 << 20
_INFLATED_FLOOR = 512 << 20
_INFLATED_RATIO = 100


class DataEnds(Exception):
    """The data set ends before what was asked for; callers say in which element."""


class TooLarge(Exception):
    """More bytes were to be held in memory, or to be inflated, than allowed; the text says which."""


class DataSource:
    """A window on a data set. ``data`` holds some of its bytes, ``base`` is the offset of the first of them.

    Positions are indices of ``data``; ``fill`` and ``skip`` may move the window and return the position's new index.
    Bytes from ``mark`` on stay in the window, at most ``hold`` of them.
    """

    __slots__ = ("_pass", "_read", "base", "data", "hold", "mark", "whole")

    def __init__(self, read: Callable[[int], bytes], skip: Callable[[int], None]) -> None:
        self.data = b""
        self.base = 0
        self.mark: int | None = None
        self.hold = 16 << 20
        self.whole = False
        """Whether nothing comes behind what is in the window."""
        self._read = read
        self._pass = skip

    def fill(self, at: int, need: int) -> int:
        """Have ``need`` bytes from ``at`` on in the window; fewer where the data set ends before."""
        lacking = need - (len(self.data) - at)
        if lacking <= 0:
            return at
        first = at if self.mark is None else self.mark
        kept = self.data[first:]
        if len(kept) + lacking > self.hold + _MAX_CHUNK:
            raise TooLarge(f"more than {self.hold >> 20} MiB")
        # Growing with what is kept makes a long value cost linear, not quadratic, time.
        self.data = kept + self._read(max(lacking, _CHUNK, min(len(kept), _MAX_CHUNK)))
        self.base += first
        if self.mark is not None:
            self.mark = 0
        return at - first

    def take(self, at: int, need: int) -> int:
        """``fill``, or DataEnds."""
        at = self.fill(at, need)
        if len(self.data) - at < need:
            raise DataEnds
        return at

    def skip(self, at: int, count: int) -> int:
        """The position ``count`` bytes on, or DataEnds. What is passed over is not read where that can be avoided."""
        stop = at + count
        if stop <= len(self.data):
            return stop
        if self.mark is not None:
            return self.take(at, count) + count
        self._pass(stop - len(self.data))
        self.base += stop
        self.data = b""
        return 0


def from_file(stream: BinaryIO, offset: int, length: int) -> DataSource:
    """``length`` bytes of an (unbuffered) file from ``offset`` on."""
    left = length
    moved = True
    position = offset

    def read(count: int) -> bytes:
        nonlocal left, position, moved
        if moved:
            stream.seek(position)
            moved = False
        pieces = []
        count = min(count, left)
        while count > 0 and (piece := stream.read(count)):
            pieces.append(piece)
            count -= len(piece)
            position += len(piece)
            left -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def skip(count: int) -> None:
        nonlocal left, position, moved
        if count > left:
            raise DataEnds
        left -= count
        position += count
        moved = True

    return DataSource(read, skip)


def from_bytes(data: bytes) -> DataSource:
    """A data set in memory."""

    def skip(_count: int) -> None:
        raise DataEnds

    source = DataSource(lambda _count: b"", skip)
    source.data, source.whole = data, True
    return source


def inflated(source: DataSource, length: int) -> DataSource:
    """A deflated data set (PS3.5 A.5), inflated in small pieces; ``length`` is that of the deflated bytes.

    TooLarge where it would inflate without measure. Bytes behind the deflate stream (padding) are ignored.
    """
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    allowed = max(_INFLATED_FLOOR, _INFLATED_RATIO * length)
    at = 0

    def read(count: int) -> bytes:
        nonlocal at, allowed
        pieces = []
        while count > 0 and not engine.eof:
            pending = engine.unconsumed_tail
            if not pending:
                at = source.fill(at, 1)
                pending = source.data[at:]
                at = len(source.data)
                if not pending:
                    raise DataEnds  # before the end of the deflate stream
            try:
                piece = engine.decompress(pending, min(count, _MAX_CHUNK))
            except zlib.error as error:
                raise TooLarge(f"not deflated as its transfer syntax says ({error})") from None
            pieces.append(piece)
            count -= len(piece)
            allowed -= len(piece)
            if allowed < 0:
                raise TooLarge("deflated out of all proportion")
        return b"".join(pieces)

    def skip(count: int) -> None:
        while count > 0:
            piece = read(min(count, _MAX_CHUNK))
            if not piece:
                raise DataEnds
            count -= len(piece)

    return DataSource(read, skip)
