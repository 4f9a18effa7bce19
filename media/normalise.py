"""Turns any instance that we can read into a stream of Explicit VR Little Endian elements, as they come (PS3.5).

What happens to them is an ``Emitter``'s business: ``conform`` writes them to a file, ``compare`` digests them.
Nothing is held but one piece of a native value or one decoded frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Protocol

from media import pixels
from media.codecs import MoreBits
from media.codestreams import FrameError
from media.elements import (
    PIXEL_DATA,
    UNDEFINED,
    WORD,
    Element,
    Encoding,
    InflatedSource,
    Source,
    dictionary_vr,
    elements,
    encoding_of,
    items,
    open_source,
    settled,
    skip_value,
    swapped,
    tag_text,
)
from media.items import Change
from media.part10 import CHUNK, LONG_VRS, Part10
from media.pixels import CompressedPixels, Facts, Oversized, cell_unit, compressed_pixels, plain_samples, text
from media.problems import InstanceRefused
from media.syntaxes import TransferSyntax, require_decodable, transfer_syntax

_SOP_CLASS, _SOP_INSTANCE = 0x00080016, 0x00080018
_TEXT = pixels.TEXT_FACTS | {_SOP_CLASS, _SOP_INSTANCE}
_WANTED = pixels.FACTS | _TEXT
_COMPRESSED_ONLY = frozenset((0x7FE00001, 0x7FE00002, 0x7FE00003))
"""Extended Offset Table, its lengths, Encapsulated Pixel Data Value Total Length: they tell of fragments only."""
_NUL_PADDED = LONG_VRS - {"UC", "UR", "UT"} | {"AT", "FD", "FL", "SL", "SS", "UI", "UL", "US"}


class Emitter(Protocol):
    """Takes the elements of a data set in the order in which they stand in the source."""

    def value(self, tag: int, vr: str, length: int, pieces: Iterator[bytes]) -> None:
        """An element with a value of ``length`` bytes (even), little endian; ``pieces`` must be consumed."""

    def raw_sequence(self, tag: int) -> Callable[[bytes], None]:
        """An element of VR UN and undefined length; the sink is given its items and delimiter, implicit VR."""

    def begin_sequence(self, tag: int) -> None: ...
    def begin_item(self) -> None: ...
    def end_item(self) -> None: ...
    def end_sequence(self, tag: int) -> None: ...


class RedoWithBits(Exception):
    """Pixel Data at this offset has more bits than its data set says: begin anew with ``bits[at]`` given."""

    def __init__(self, at: int, bits_stored: int) -> None:
        super().__init__(at, bits_stored)
        self.at, self.bits_stored = at, bits_stored


@dataclass(slots=True)
class _Scope:
    """A data set or item while it is walked; what later elements need to know of earlier or later ones."""

    start: int
    end: int | None
    encoding: Encoding
    depth: int
    parent: _Scope | None
    facts: dict[int, bytes] | None = None
    pixel_data: Element | None = None
    pending: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    pixels: CompressedPixels | None = None


class Normaliser:
    """One run over one instance. MediaError where it cannot be read or decoded; ``changes`` then is incomplete.

    ``comparing`` brings colour to colour-by-pixel and takes sequences of VR UN apart, so that equal content is equal.
    """

    def __init__(
        self, path: Path, located: Part10, *, bits: dict[int, int] | None = None, comparing: bool = False
    ) -> None:
        self._path, self._located = path, located
        self._bits = bits or {}
        self._comparing = comparing
        self.syntax: TransferSyntax = transfer_syntax(located.transfer_syntax_uid)
        self.changes: list[tuple[int, str, str]] = []
        """Tag, old and new value of every change, in readable words."""
        self.sop_class_uid = located.sop_class_uid
        self.sop_instance_uid = located.sop_instance_uid
        self._top: _Scope | None = None

    def _open(self, stream: BinaryIO) -> Source:
        return open_source(stream, self._located.dataset_offset, self.syntax.uid, str(self._path))

    def survey(self) -> None:
        """First pass: the facts of the data set. InstanceRefused for a syntax that we do not decode."""
        require_decodable(self.syntax, self.sop_instance_uid or str(self._path))
        with self._path.open("rb") as stream:
            source = self._open(stream)
            scope = _Scope(source.tell(), None, settled(source, encoding_of(self.syntax.uid)), 0, None)
            self._gather(source, scope)
        self._top = scope
        facts = scope.facts or {}
        self.sop_class_uid = text(facts, _SOP_CLASS) or self.sop_class_uid
        self.sop_instance_uid = text(facts, _SOP_INSTANCE) or self.sop_instance_uid
        if not self.sop_class_uid or not self.sop_instance_uid:
            missing = "SOP Class UID (0008,0016)" if not self.sop_class_uid else "SOP Instance UID (0008,0018)"
            raise InstanceRefused("PROC_FAILURE", f"{self._path} has no {missing}")

    def run(self, emitter: Emitter) -> None:
        """Second pass: every element, normalised, to ``emitter``."""
        if self._top is None:
            self.survey()
        assert self._top is not None
        if self.syntax.uid != "1.2.840.10008.1.2.1":
            self.changes.append((0x00020010, str(self.syntax), str(transfer_syntax("1.2.840.10008.1.2.1"))))
        with self._path.open("rb") as stream:
            source = self._open(stream)
            self._prepare(source, self._top)
            self._walk(source, self._top, emitter)

    @property
    def decodes(self) -> bool:
        """Whether the top level's Pixel Data is compressed; only then may its pieces be left unconsumed."""
        return self._top is not None and self._top.pixels is not None

    # -- what is known of a data set ---------------------------------------------------------------------------

    def _gather(self, source: Source, scope: _Scope) -> None:
        facts: dict[int, bytes] = {}
        for element in elements(source, scope.encoding, scope.end, top=scope.parent is None):
            if element.tag in _WANTED and element.length <= 128:
                value = source.read(element.length)
                facts[element.tag] = value if element.tag in _TEXT else self._little(value, scope)
                continue
            if element.tag == PIXEL_DATA:
                scope.pixel_data = element
            skip_value(source, scope.encoding, element, scope.depth)
        scope.facts = facts

    @staticmethod
    def _little(value: bytes, scope: _Scope) -> bytes:
        return value if scope.encoding.little else swapped(value, 2)

    def _facts(self, source: Source, scope: _Scope) -> dict[int, bytes]:
        """Of this data set or item; looked up ahead, and at most once."""
        if scope.facts is None:
            scope.facts = {}
            if source.seekable:
                here = source.tell()
                source.seek(scope.start)
                self._gather(source, scope)
                source.seek(here)
        return scope.facts

    def _number(self, source: Source, scope: _Scope, tag: int) -> int | None:
        """A US value of this data set or, where it has none, of those around it."""
        at: _Scope | None = scope
        while at is not None:
            value = self._facts(source, at).get(tag)
            if value and len(value) >= 2:
                return int.from_bytes(value[:2], "little")
            at = at.parent
        return None

    # -- compressed pixel data -----------------------------------------------------------------------------------

    def _prepare(self, source: Source, scope: _Scope) -> None:
        """Find out what decoding will change, before any element of this data set is handed on."""
        if self.syntax.encoding != "encapsulated" and scope.parent is not None:
            return
        facts = self._facts(source, scope)
        element = scope.pixel_data
        if element is None or element.length != UNDEFINED:
            if self._comparing and element is not None and self._by_plane(facts):
                scope.pending[pixels.PLANAR] = ("US", b"\0\0")
            return
        if self.syntax.encoding != "encapsulated":
            raise InstanceRefused(
                "PROC_FAILURE",
                f"Instance {self.sop_instance_uid}: its pixel data is compressed, but its transfer syntax is "
                f"{self.syntax}, which does not say how",
            )
        here = source.tell()
        source.seek(element.value_at)
        bits = self._bits.get(element.at)
        try:
            scope.pixels = compressed_pixels(source, facts, self.syntax, bits_stored=bits, by_pixel=self._comparing)
        except FrameError as error:
            raise self._refused(scope, f"its pixel data cannot be decoded: {error}") from None
        except Oversized as error:
            words = f"decoded, its pixel data has {error}, more than the 4 GiB that one element can hold"
            raise self._refused(scope, words, "INST_OVERSIZED") from None
        source.seek(here)
        scope.pending.update(scope.pixels.overrides)
        self.changes += scope.pixels.changes

    def _refused(self, scope: _Scope, words: str, code: str = "PROC_FAILURE") -> InstanceRefused:
        where = "" if scope.parent is None else " (an image nested in a sequence, like an icon)"
        return InstanceRefused(code, f"Instance {self.sop_instance_uid}{where}: {words}")

    def _emit_pixels(self, source: Source, scope: _Scope, element: Element, emitter: Emitter) -> None:
        compressed = scope.pixels
        assert compressed is not None
        try:
            emitter.value(PIXEL_DATA, compressed.vr, compressed.length, compressed.samples())
        except FrameError as error:
            raise self._refused(scope, str(error)) from None
        except MoreBits as error:
            raise RedoWithBits(element.at, error.bits_stored) from None
        source.seek(compressed.end)

    # -- elements ------------------------------------------------------------------------------------------------

    def _walk(self, source: Source, scope: _Scope, emitter: Emitter) -> None:
        for element in elements(source, scope.encoding, scope.end, top=scope.parent is None):
            for tag in [tag for tag in scope.pending if tag < element.tag]:
                self._emit_pending(scope, tag, emitter)
            if self._dropped(scope, element):
                skip_value(source, scope.encoding, element, scope.depth)
            elif element.tag in scope.pending:
                skip_value(source, scope.encoding, element, scope.depth)
                self._emit_pending(scope, element.tag, emitter)
            elif element.tag == PIXEL_DATA and scope.pixels is not None:
                self._emit_pixels(source, scope, element, emitter)
            elif element.tag == PIXEL_DATA and element.length == UNDEFINED:
                raise self._refused(scope, "it has compressed pixel data where its transfer syntax allows none")
            else:
                self._emit(source, scope, element, emitter)
        for tag in list(scope.pending):
            self._emit_pending(scope, tag, emitter)

    def _emit_pending(self, scope: _Scope, tag: int, emitter: Emitter) -> None:
        vr, value = scope.pending.pop(tag)
        emitter.value(tag, vr, len(value), iter((value,)))

    def _dropped(self, scope: _Scope, element: Element) -> bool:
        """Group lengths and padding are encoding, not content (PS3.10 7.2, PS3.5 7.2); others are listed."""
        if element.tag & 0xFFFF == 0 or element.tag == 0xFFFCFFFC:
            return True
        if scope.parent is None and element.tag >> 16 in (0x0000, 0x0002):
            self.changes.append((element.tag, "present", "removed: it does not belong into a data set"))
            return True
        if scope.pixels is not None and element.tag in _COMPRESSED_ONLY:
            self.changes.append((element.tag, "present", "removed: it describes compressed frames"))
            return True
        return False

    def _emit(self, source: Source, scope: _Scope, element: Element, emitter: Emitter) -> None:
        vr = self._vr(source, scope, element)
        if vr == "SQ":
            self._emit_sequence(source, scope, element, emitter)
        elif element.length == UNDEFINED and self._comparing:
            self._emit_sequence(source, replace(scope, encoding=Encoding(True, True)), element, emitter)
        elif element.length == UNDEFINED:
            sink = emitter.raw_sequence(element.tag)
            self._copy_raw(source, element, sink)
        else:
            unit = 1 if scope.encoding.little else WORD.get(vr, 1)
            if unit == 2 and element.tag == PIXEL_DATA:
                allocated = self._number(source, scope, pixels.ALLOCATED) or 16
                unit = cell_unit(source.peek(min(element.length, CHUNK)), allocated)
            if self._comparing and element.tag == PIXEL_DATA and scope.parent is None:
                pieces = plain_samples(source, element, scope.facts or {}, unit)
            else:
                pieces = self._pieces(source, element.length, unit, vr)
            emitter.value(element.tag, vr, element.length + element.length % 2, pieces)

    def _pieces(self, source: Source, length: int, unit: int, vr: str) -> Iterator[bytes]:
        for piece in source.chunks(length):
            yield swapped(piece, unit)
        if length % 2:
            yield b"\0" if vr in _NUL_PADDED else b" "

    def _vr(self, source: Source, scope: _Scope, element: Element) -> str:
        """The VR to write: as it came, or by the dictionary, settled by the data set where that leaves a choice."""
        vr = element.vr
        if not vr:
            vr = dictionary_vr(element.tag) or "UN"
            if " or " in vr:
                vr = self._chosen(source, scope, element, vr)
            if vr == "SQ" and element.length not in (0, UNDEFINED) and not _begins_item(source.peek(4), scope.encoding):
                vr = "UN"
            elif element.length == UNDEFINED:
                vr = "SQ"  # PS3.5 7.1.3: nothing else has undefined length, pixel data apart
            if not scope.encoding.implicit:
                self.changes.append((element.tag, "a VR that is none", f"VR {vr}"))
        if element.length > 0xFFFE and element.length != UNDEFINED and vr not in LONG_VRS:
            self.changes.append((element.tag, f"VR {vr}", "VR UN: the value is longer than 65,534 bytes"))
            return "UN"  # PS3.5 6.2.2
        return vr

    def _chosen(self, source: Source, scope: _Scope, element: Element, choices: str) -> str:
        if "OB" in choices:
            if element.tag == PIXEL_DATA and (self._number(source, scope, pixels.ALLOCATED) or 16) <= 8:
                return "OB"
            return "OW"
        if "OW" in choices and element.length > 2:
            return "OW"
        return "SS" if "SS" in choices and self._number(source, scope, pixels.SIGNED) == 1 else "US"

    def _emit_sequence(self, source: Source, scope: _Scope, element: Element, emitter: Emitter) -> None:
        emitter.begin_sequence(element.tag)
        for end in items(source, scope.encoding, element, scope.depth):
            emitter.begin_item()
            item = _Scope(source.tell(), end, settled(source, scope.encoding), scope.depth + 1, scope)
            if self.syntax.encoding == "encapsulated":
                self._prepare(source, item)
            self._walk(source, item, emitter)
            emitter.end_item()
        emitter.end_sequence(element.tag)

    @staticmethod
    def _copy_raw(source: Source, element: Element, sink: Callable[[bytes], None]) -> None:
        """The items of a UN of undefined length, byte for byte: they are Implicit VR Little Endian (PS3.5 6.2.2)."""
        implicit = Encoding(True, True)
        if isinstance(source, InflatedSource):
            source.tee = sink
            skip_value(source, implicit, element)
            source.tee = None
            return
        start = source.tell()
        skip_value(source, implicit, element)
        end = source.tell()
        source.seek(start)
        for piece in source.chunks(end - start):
            sink(piece)

    @staticmethod
    def _by_plane(facts: Facts) -> bool:
        return facts.get(pixels.PLANAR) == b"\1\0" and facts.get(pixels.SAMPLES, b"\1\0") != b"\1\0"


def _begins_item(head: bytes, encoding: Encoding) -> bool:
    return head == (b"\xfe\xff\x00\xe0" if encoding.little else b"\xff\xfe\xe0\x00")


def as_changes(sop_instance_uid: str, changes: list[tuple[int, str, str]]) -> tuple[Change, ...]:
    """``Normaliser.changes`` as the values that reports carry."""
    return tuple(Change(sop_instance_uid, tag_text(tag), old, new) for tag, old, new in changes)
