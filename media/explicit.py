"""Writes elements as Explicit VR Little Endian (PS3.5 A.2), the encoding of all files that we make."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO

from media.part10 import LONG_VRS


class ExplicitWriter:
    """Emits elements to a file; sequences and items have undefined length."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()
        self._size = 0
        self._buffer = bytearray()

    def write(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) >= 1 << 18:
            self._flush()

    def _flush(self) -> None:
        self._digest.update(self._buffer)
        self._stream.write(self._buffer)
        self._size += len(self._buffer)
        self._buffer = bytearray()

    def finish(self) -> tuple[int, str]:
        """Bytes written and their SHA-256."""
        self._flush()
        self._stream.flush()
        return self._size, self._digest.hexdigest()

    def value(self, tag: int, vr: str, length: int, pieces: Iterator[bytes]) -> None:
        self._head(tag, vr, length)
        for piece in pieces:
            self.write(piece)

    def _head(self, tag: int, vr: str, length: int) -> None:
        code = vr.encode("ascii")
        if vr in LONG_VRS:
            self.write(struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, code, 0, length))
        else:
            self.write(struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, code, length))

    def raw_sequence(self, tag: int) -> Callable[[bytes], None]:
        self._head(tag, "UN", 0xFFFFFFFF)
        return self.write

    def begin_sequence(self, tag: int) -> None:
        self._head(tag, "SQ", 0xFFFFFFFF)

    def begin_item(self) -> None:
        self.write(b"\xfe\xff\x00\xe0\xff\xff\xff\xff")

    def end_item(self) -> None:
        self.write(b"\xfe\xff\x0d\xe0\0\0\0\0")

    def end_sequence(self, tag: int) -> None:
        self.write(b"\xfe\xff\xdd\xe0\0\0\0\0")
