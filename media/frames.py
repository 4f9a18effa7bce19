"""Finds the frames in encapsulated pixel data (PS3.5 A.4): by order, offset table or the codestreams' own marks."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Sequence
from itertools import pairwise

from media.codecs import FRAME_LIMIT
from media.codestreams import FrameError
from media.elements import ITEM, SEQUENCE_END, UNDEFINED, Source, tag_text
from media.problems import NotDicom

_STARTS = (b"\xff\xd8", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP")


class Fragments:
    """Where the fragments of one encapsulated Pixel Data lie; ``source`` stands at its first item, later behind it."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.offset_table: tuple[int, ...] = ()
        """The Basic Offset Table; empty where it is."""
        self._at = array("Q")
        self._length = array("Q")
        self._read_items()

    def __len__(self) -> int:
        return len(self._at)

    def _read_items(self) -> None:
        source, first = self._source, True
        while True:
            at = source.tell()
            head = source.peek(8)
            if not head and not first:
                return  # the delimiter is missing, the fragments are whole
            group, number, length = struct.unpack("<HHI", source.read(8))
            tag = (group << 16) | number
            if tag == SEQUENCE_END:
                return
            if tag != ITEM or length == UNDEFINED:
                raise NotDicom(
                    f"{source.name}: compressed pixel data has {tag_text(tag)} at offset {at}, not a fragment"
                )
            if first:
                table = source.read(length)
                self.offset_table = struct.unpack(f"<{length // 4}I", table[: length - length % 4])
                self._origin = source.tell()
                first = False
                continue
            self._at.append(source.tell())
            self._length.append(length)
            source.skip(length)

    def frames(self, count: int) -> Sequence[range]:
        """The fragments of each of ``count`` frames, as ranges of their indices. FrameError where that is unclear."""
        total = len(self)
        if total < count:
            raise FrameError(f"it declares {count} frames, but has {total} fragments")
        if count == 1:
            held = max(len(self.offset_table), len(self._starts_by_mark()) if total > 1 else 1)
            if held > 1:
                raise FrameError(f"it declares 1 frame, but holds {held}")
            return [range(total)]
        if total == count:
            return [range(index, index + 1) for index in range(count)]
        for starts in (self._starts_by_table(count), self._starts_by_mark()):
            if starts and len(starts) == count:
                return [range(start, end) for start, end in zip(starts, [*starts[1:], total], strict=True)]
        raise FrameError(f"it declares {count} frames, and its {total} fragments cannot be told apart as such")

    def _starts_by_table(self, count: int) -> list[int]:
        if len(self.offset_table) != count:
            return []
        index_at = {at - 8 - self._origin: index for index, at in enumerate(self._at)}
        starts = [index_at.get(offset, -1) for offset in self.offset_table]
        ascending = all(one < other for one, other in pairwise(starts))
        return starts if starts[0] == 0 and ascending else []

    def _starts_by_mark(self) -> list[int]:
        starts = []
        for index, at in enumerate(self._at):
            self._source.seek(at)
            if self._source.peek(6).startswith(_STARTS):
                starts.append(index)
        return starts if starts and starts[0] == 0 else []

    def read(self, fragments: range) -> bytes:
        """One frame's compressed bytes."""
        if sum(self._length[index] for index in fragments) > FRAME_LIMIT:
            raise FrameError(f"it is longer than {FRAME_LIMIT} bytes")
        return b"".join(self.pieces(fragments))

    def length(self, fragments: range) -> int:
        """Bytes of one frame, compressed."""
        return sum(self._length[index] for index in fragments)

    def pieces(self, fragments: range) -> Iterator[bytes]:
        """One frame's compressed bytes, however long, in pieces of at most 1 MiB."""
        for index in fragments:
            self._source.seek(self._at[index])
            yield from self._source.chunks(self._length[index])
