"""Tells whether two files hold the same instance, however each is encoded (a second arrival: duplicate or conflict).

Compared is what is left after normalising: Explicit VR Little Endian elements with decoded, colour-by-pixel samples.
File meta information, group lengths, trailing padding, lengths of sequences, the blocks that private elements lie in
and VRs (an implicit VR source has none) do not count; every value and sample does.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from media.elements import UNDEFINED, Element, Encoding, Source, dictionary_vr, elements, items
from media.normalise import Normaliser, RedoWithBits
from media.part10 import CHUNK, locate
from media.problems import MediaError, NotDicom

_LOG = logging.getLogger(__name__)
_TEXT_VRS = frozenset(("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "PN", "SH", "TM", "UI"))
"""VRs in which trailing blanks mean nothing (PS3.5 6.2); those of UI, which should be NUL, are sometimes spaces."""


def same_content(path_a: Path, path_b: Path) -> bool:
    """Whether two PS3.10 files with one SOP Instance UID have the same attributes and, decoded, the same samples.

    Lossy compressed data counts as what it decodes to, and so equals only an encoding of just those samples with all
    attributes equal. False where either cannot be read or decoded: then nothing proves that they are equal. Memory
    is bounded by one decoded frame. Decoders may crash on hostile data: call it in a helper process.
    """
    try:
        return content_digest(path_a) == content_digest(path_b)
    except (MediaError, OSError) as error:
        _LOG.info("%s and %s cannot be compared: %s", path_a, path_b, error)
        return False


def content_digest(path: Path) -> str:
    """Digest of an instance's content as ``same_content`` compares it; MediaError where it cannot be read."""
    located = locate(path)
    bits: dict[int, int] = {}
    while True:
        digester = _Digester()
        try:
            Normaliser(path, located, bits=bits, comparing=True).run(digester)
        except RedoWithBits as redo:
            if redo.at in bits:
                raise NotDicom(f"{path}: the frames of its pixel data differ in their number of bits") from None
            bits[redo.at] = redo.bits_stored
            continue
        return digester.digest()


@dataclass(slots=True)
class _DataSet:
    """Of one data set or item: the sum of its elements' digests (their order does not count), in constant memory."""

    total: int = 0
    creators: dict[int, bytes] = field(default_factory=dict)
    """Private Creator by the upper half of the tags that it has reserved."""

    def add(self, key: bytes, content: bytes) -> None:
        digest = hashlib.sha256(len(key).to_bytes(4, "big") + key + content).digest()
        self.total = (self.total + int.from_bytes(digest, "big")) % (1 << 256)

    def key(self, tag: int) -> bytes:
        """The tag; of private elements by their creator's name and not its block (PS3.5 7.8.1)."""
        creator = self.creators.get(tag >> 8) if (tag >> 16) & 1 else None
        if creator is None:
            return tag.to_bytes(4, "big")
        return b"%04x %02x %s" % (tag >> 16, tag & 0xFF, creator)

    def digest(self) -> bytes:
        return self.total.to_bytes(32, "big")


class _Digester:
    """The Emitter that digests what it is given."""

    def __init__(self) -> None:
        self._scopes = [_DataSet()]
        self._sequences: list[list[bytes]] = []

    def digest(self) -> str:
        return self._scopes[0].digest().hex()

    def value(self, tag: int, vr: str, length: int, pieces: Iterator[bytes]) -> None:
        scope = self._scopes[-1]
        if length > CHUNK:
            digest = hashlib.sha256()
            for piece in pieces:
                digest.update(piece)
            scope.add(scope.key(tag), digest.digest())
            return
        value = b"".join(pieces)
        private, number = (tag >> 16) & 1, tag & 0xFFFF
        if private and 0x0010 <= number <= 0x00FF:
            scope.creators[((tag >> 16) << 8) | number] = value.strip(b"\0 ")
            return  # where its block lies does not count; an empty block says nothing
        if private and vr == "UN" and value.startswith(b"\xfe\xff\x00\xe0") and self._as_sequence(tag, value):
            return
        if not private and dictionary_vr(tag) in _TEXT_VRS:
            value = value.rstrip(b"\0 ")
        scope.add(scope.key(tag), hashlib.sha256(value).digest())

    def raw_sequence(self, tag: int) -> Callable[[bytes], None]:
        raise NotImplementedError("A normaliser that compares takes such sequences apart")

    def begin_sequence(self, tag: int) -> None:  # the tag comes again at the end
        self._sequences.append([])

    def begin_item(self) -> None:
        self._scopes.append(_DataSet())

    def end_item(self) -> None:
        self._sequences[-1].append(self._scopes.pop().digest())

    def end_sequence(self, tag: int) -> None:
        scope = self._scopes[-1]
        scope.add(scope.key(tag), hashlib.sha256(b"sequence" + b"".join(self._sequences.pop())).digest())

    def _as_sequence(self, tag: int, value: bytes) -> bool:
        """Take a private element apart that was UN for want of a dictionary, if it is a sequence (PS3.5 6.2.2)."""
        scopes, sequences = len(self._scopes), len(self._sequences)
        total = self._scopes[-1].total
        source = Source(io.BytesIO(value), 0, "a private element")
        try:
            self._items(source, Element(tag, "SQ", len(value), 0, 0), 0)
        except NotDicom:
            del self._scopes[scopes:], self._sequences[sequences:]
            self._scopes[-1].total = total
            return False
        return True

    def _items(self, source: Source, sequence: Element, depth: int) -> None:
        implicit = Encoding(True, True)
        self.begin_sequence(sequence.tag)
        for end in items(source, implicit, sequence, depth):
            self.begin_item()
            for element in elements(source, implicit, end):
                if element.length == UNDEFINED or dictionary_vr(element.tag) == "SQ":
                    self._items(source, element, depth + 1)
                elif element.tag & 0xFFFF == 0:
                    source.skip(element.length)
                else:
                    vr = dictionary_vr(element.tag) or "UN"
                    self.value(element.tag, vr, element.length, source.chunks(element.length))
            self.end_item()
        self.end_sequence(sequence.tag)
