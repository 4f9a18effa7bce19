"""Writes a data set around frames that were compressed before, with the attributes that this changes (PS3.5 A.4)."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from media import pixels
from media.codecs import PixelFormat
from media.elements import PIXEL_DATA
from media.part10 import CHUNK

_BASIC_LIMIT = 0xFFFFFFFF
"""Offsets beyond this need an Extended Offset Table (PS3.5 A.4)."""
_EXTENDED, _EXTENDED_LENGTHS = 0x7FE00001, 0x7FE00002
_FRAME_TYPE = 0x00089007
_PALETTE = range(0x00281101, 0x00281104), range(0x00281199, 0x0028119A), range(0x00281201, 0x00281224)
"""Palette Color Lookup Tables: descriptors, UID, data and segmented data (PS3.3 C.7.9)."""


def is_palette(tag: int) -> bool:
    """Whether an attribute is one of a Palette Color Lookup Table."""
    return any(tag in tags for tags in _PALETTE)


class Writer(Protocol):
    """What ``media.explicit.ExplicitWriter`` offers."""

    def write(self, data: bytes) -> None: ...
    def value(self, tag: int, vr: str, length: int, pieces: Iterator[bytes]) -> None: ...
    def raw_sequence(self, tag: int) -> Callable[[bytes], None]: ...
    def begin_sequence(self, tag: int) -> None: ...
    def begin_item(self) -> None: ...
    def end_item(self) -> None: ...
    def end_sequence(self, tag: int) -> None: ...


@dataclass(slots=True)
class Rewrite:
    """What changes in the top level of a data set, in the encoding in which it is written."""

    values: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    """VR and value of attributes that are set."""
    drops: dict[int, str] = field(default_factory=dict)
    """Attributes that are removed, where they are, and why."""
    drop_palette: bool = False
    items: dict[int, bytes] = field(default_factory=dict)
    """The content of an item to be appended to a sequence, which begins where there is none."""
    derived_frames: bool = False
    """Frame Type (0008,9007), wherever it is, becomes DERIVED."""
    changes: list[tuple[int, str, str]] = field(default_factory=list)
    """Tag, old and new value in words; those of dropped attributes come when they are met."""

    def set(self, tag: int, vr: str, value: bytes, old: str, new: str) -> None:
        """Give an attribute an encoded value (of even length); told in words, if these differ."""
        self.values[tag] = (vr, value)
        if old != new:
            self.changes.append((tag, old, new))

    def set_text(self, tag: int, vr: str, value: str, old: str) -> None:
        """The same for an ASCII text."""
        encoded = value.encode("ascii")
        self.set(tag, vr, encoded + b" " * (len(encoded) % 2), old, value)

    def dropped(self, tag: int) -> str:
        """Why an attribute is not written; empty where it is."""
        if self.drop_palette and is_palette(tag):
            return "the palette is expanded"
        return self.drops.get(tag, "")


def pixel_rewrite(before: PixelFormat, after: PixelFormat) -> Rewrite:
    """The attributes that say how samples lie, where another format takes the place of one."""
    found = Rewrite(drop_palette=before.photometric == "PALETTE COLOR" and after.samples == 3)
    if before.photometric != after.photometric:
        found.set_text(pixels.PHOTOMETRIC, "CS", after.photometric, before.photometric)
    numbers = [
        (pixels.SAMPLES, before.samples, after.samples),
        (pixels.ALLOCATED, before.bits_allocated, after.bits_allocated),
        (pixels.STORED, before.bits_stored, after.bits_stored),
        (pixels.HIGH, before.high_bit, after.high_bit),
        (pixels.SIGNED, int(before.signed), int(after.signed)),
    ]
    if after.samples > 1:
        numbers.append((pixels.PLANAR, before.planar if before.samples > 1 else -1, 0))
    for tag, old, new in numbers:
        if old != new:
            found.set(tag, "US", struct.pack("<H", new), str(old) if old >= 0 else "", str(new))
    return found


class FrameWriter:
    """An Emitter that hands a data set on to ``writer``, as ``rewrite`` says and with the frames that ``store`` holds.

    ``lengths`` are those of the frames, each even; ``consume`` asks to read the source's own Pixel Data to its end.
    """

    def __init__(
        self, writer: Writer, store: BinaryIO, lengths: Sequence[int], rewrite: Rewrite, *, consume: bool
    ) -> None:
        self._writer, self._store, self._lengths, self._rewrite = writer, store, lengths, rewrite
        self._consume = consume
        self._depth = 0
        self._muted = 0
        """Depth of the sequence that is being dropped, counted from 1."""
        self.changes = rewrite.changes
        self._pending = dict(rewrite.values)
        self._items = dict(rewrite.items)
        offsets = array("Q", [0])
        for length in lengths:
            offsets.append(offsets[-1] + length + 8)
        self._basic = b""
        if offsets[-2] <= _BASIC_LIMIT:
            self._basic = struct.pack(f"<{len(lengths)}I", *offsets[:-1])
        else:
            self._pending[_EXTENDED] = ("OV", struct.pack(f"<{len(lengths)}Q", *offsets[:-1]))
            self._pending[_EXTENDED_LENGTHS] = ("OV", struct.pack(f"<{len(lengths)}Q", *lengths))

    def copy(self, tag: int, encoded: bytes) -> None:
        """An element of the top level that is encoded as it is to be written, if it stays; any for Pixel Data."""
        if tag == PIXEL_DATA or tag in self._pending or self._rewrite.dropped(tag):
            self.value(tag, "", 0, iter(()))
            return
        if self._pending:
            self._flush(tag)
        self._writer.write(encoded)

    def _flush(self, tag: int) -> None:
        """Write what is to stand before ``tag``, where that is of the top level."""
        if self._depth or not (self._pending or self._items):
            return
        for due in sorted(due for due in (*self._pending, *self._items) if due < tag):
            if due in self._pending:
                vr, value = self._pending.pop(due)
                self._writer.value(due, vr, len(value), iter((value,)))
            else:
                self._writer.begin_sequence(due)
                self._append(due)
                self._writer.end_sequence(due)

    def _append(self, tag: int) -> None:
        self._writer.begin_item()
        self._writer.write(self._items.pop(tag))
        self._writer.end_item()

    def _drops(self, tag: int) -> bool:
        why = self._rewrite.dropped(tag) if self._depth == 0 else ""
        if why:
            self.changes.append((tag, "present", f"removed: {why}"))
        return bool(why)

    def value(self, tag: int, vr: str, length: int, pieces: Iterator[bytes]) -> None:
        self._flush(tag)
        if self._muted:
            _consume(pieces)
        elif self._depth == 0 and tag == PIXEL_DATA:
            if self._consume:
                _consume(pieces)
            self._frames()
        elif self._depth == 0 and tag in self._pending:
            _consume(pieces)
            vr, value = self._pending.pop(tag)
            self._writer.value(tag, vr, len(value), iter((value,)))
        elif self._drops(tag):
            _consume(pieces)
        elif tag == _FRAME_TYPE and self._rewrite.derived_frames and length <= CHUNK:
            value = b"".join(pieces)
            new = derived(value)
            if new != value:
                self.changes.append((tag, _words(value), _words(new)))
            self._writer.value(tag, vr, len(new), iter((new,)))
        else:
            self._writer.value(tag, vr, length, pieces)

    def _frames(self) -> None:
        write = self._writer.write
        # Pixel Data, OB, undefined length; then the item with the Basic Offset Table (PS3.5 A.4)
        write(struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF))
        write(struct.pack("<HHI", 0xFFFE, 0xE000, len(self._basic)) + self._basic)
        self._store.seek(0)
        for length in self._lengths:
            write(struct.pack("<HHI", 0xFFFE, 0xE000, length))
            for start in range(0, length, CHUNK):
                write(self._store.read(min(length - start, CHUNK)))
        write(struct.pack("<HHI", 0xFFFE, 0xE0DD, 0))

    def raw_sequence(self, tag: int) -> Callable[[bytes], None]:
        self._flush(tag)
        if self._muted or self._drops(tag):
            return lambda _: None
        return self._writer.raw_sequence(tag)

    def begin_sequence(self, tag: int) -> None:
        self._flush(tag)
        if not self._muted and self._drops(tag):
            self._muted = self._depth + 1
        self._depth += 1
        if not self._muted:
            self._writer.begin_sequence(tag)

    def begin_item(self) -> None:
        if not self._muted:
            self._writer.begin_item()

    def end_item(self) -> None:
        if not self._muted:
            self._writer.end_item()

    def end_sequence(self, tag: int) -> None:
        if self._muted:
            self._muted = 0 if self._muted == self._depth else self._muted
            self._depth -= 1
            return
        self._depth -= 1
        if self._depth == 0 and tag in self._items:
            self._append(tag)
        self._writer.end_sequence(tag)


def _consume(pieces: Iterator[bytes]) -> None:
    for _ in pieces:
        pass


def derived(value: bytes) -> bytes:
    """An encoded Image Type or Frame Type with value 1 DERIVED; one that has no value gets the least that it may be."""
    _, *others = value.rstrip(b"\0 ").split(b"\\")
    new = b"\\".join((b"DERIVED", *(others or [b"SECONDARY"])))
    return new + b" " * (len(new) % 2)


def _words(value: bytes) -> str:
    return value.decode("latin-1").strip("\0 ")


def merged(changes: list[tuple[int, str, str]]) -> list[tuple[int, str, str]]:
    """One change for each tag: the first old and the last new value; none where they are equal."""
    found: dict[int, tuple[str, str]] = {}
    for tag, old, new in changes:
        found[tag] = (found[tag][0] if tag in found else old, new)
    return [(tag, old, new) for tag, (old, new) in found.items() if old != new]
