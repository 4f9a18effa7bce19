"""Walks through an encoded data set once and keeps the values and sequences that ``header`` makes a Header of."""

from __future__ import annotations

import functools
import struct
from typing import NamedTuple

from media import records
from media.datasource import DataEnds, DataSource, TooLarge
from media.encoding import (
    IMPLICIT_LE,
    ITEM,
    ITEM_END,
    MAX_DEPTH,
    SEQUENCE_END,
    UNDEFINED,
    Syntax,
    element_head,
    element_to_explicit_le,
    elements,
    encode,
    encode_item,
    items,
    little_endian,
    tag_text,
    to_explicit_le,
)
from media.problems import NotDicom

VERIFICATION_DATETIME = 0x0040A030
SOP_CLASS_UID = 0x00080016
_SHARED_FUNCTIONAL_GROUPS = 0x52009229
_VERIFYING_OBSERVERS = 0x0040A073
_RELATIONSHIP_TYPE = 0x0040A010
_PIXEL_DATA = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))

_VALUE_LIMIT = 1 << 16
"""Longest value of a key that is not a sequence; anything longer is no key but an attack or a defect."""
_PEEK = 4096
_ITEM_VALUE = b"\xfe\xff\x00\xe0"
"""How a little endian value begins that is made of items."""


class Wanted(NamedTuple):
    """What to take of a data set whose record type is known."""

    keys: dict[int, bytes]
    """VRs of what may stand in ``Header.directory_keys``, by tag, sorted."""
    plain: frozenset[int]
    """Those of them that are no sequences, and the others that are wanted."""
    sequences: dict[int, records.Key | None]
    """None: not a key itself, but keys are derived from it."""
    shared: dict[int, records.Key]


Plain = dict[int, tuple[bytes, bytes]]
"""VR as received and value, little endian, by tag."""


class Run(NamedTuple):
    """What the walk gave of some elements, one behind the other, and gives of the same bytes again."""

    data: bytes
    wanted: Wanted
    """What was wanted then; where other things are, it gives others."""
    plain: Plain
    sequences: dict[int, bytes]
    has_pixel_data: bool


class Runs:
    """Runs of elements that are looked for (``media.headermemory``)."""

    __slots__ = ("by_tag", "missed")

    def __init__(self) -> None:
        self.by_tag: dict[bytes, Run] = {}
        """By the first four bytes."""
        self.missed = True
        """Whether one that was looked for was not there."""


@functools.cache
def wanted_for(record_type: str | None, others: frozenset[int] = frozenset()) -> Wanted:
    """For one record type, with other elements; for None (a SOP class without one, or not yet known) what any could
    need."""
    names = records.levels(record_type) if record_type else tuple(records.TYPES)
    keys = {key.tag: key for key in records.QUERY_KEYS}
    keys |= {key.tag: key for name in names for key in records.TYPES[name].keys}
    vrs = {key.tag: key.vr for key in keys.values()} | {records.SPECIFIC_CHARACTER_SET: b"CS"}
    for source in records.DATE_SOURCES:
        vrs |= {source.date: b"DA", source.time: b"TM"} if source.date else {source.datetime: b"DT"}
    sequences: dict[int, records.Key | None] = {tag: key for tag, key in keys.items() if key.vr == b"SQ"}
    shared = {tag: key for tag, key in keys.items() if key.shared}
    if shared:
        sequences[_SHARED_FUNCTIONAL_GROUPS] = None
    if VERIFICATION_DATETIME in keys:
        sequences[_VERIFYING_OBSERVERS] = None
    return Wanted(dict(sorted(vrs.items())), (frozenset(vrs) - sequences.keys()) | others, sequences, shared)


_NO_RUNS: dict[bytes, Run] = {}


class HeaderWalk:
    """One walk through one data set. Methods take a position in the source's window and give the one behind."""

    def __init__(self, source: DataSource, syntax: Syntax, offset: int, others: frozenset[int]) -> None:
        """``offset`` is added to the offsets that messages name; ``others`` are tags that are wanted beside keys."""
        self.plain: Plain = {}
        self.sequences: dict[int, bytes] = {}
        """Whole encoded elements: wanted sequences, and keys that were derived from one."""
        self.shared: dict[int, bytes] = {}
        """Whole encoded elements from the Shared Functional Groups Sequence."""
        self.has_pixel_data = False
        self.again: list[Run] = []
        """Runs that stood there again."""
        self.wanted = wanted_for(None, others)
        self._source = source
        self._syntax = syntax
        self._offset = offset
        self._others = others

    def run(self, runs: Runs | None = None) -> None:
        """Every top level element to the end. NotDicom names the element and offset where it is malformed.

        With ``runs`` those that stand there are passed over at once, and offsets in messages may be earlier ones.
        """
        by_tag = runs.by_tag if runs is not None else _NO_RUNS
        source, syntax = self._source, self._syntax
        plain, sequences = self.wanted.plain, self.wanted.sequences
        at = tag = where = 0
        try:
            while True:
                data = source.data
                if len(data) - at < 12:
                    if source.whole and at == len(data):
                        return
                    at = source.fill(at, 12)
                    data = source.data
                    if len(data) - at < 8:
                        self._padding(at)
                        return
                if by_tag and (run := by_tag.get(data[at : at + 4])) is not None:
                    if run.wanted is self.wanted and data.startswith(run.data, at):
                        self._again(run)
                        at += len(run.data)
                        continue
                    runs.missed = True  # type: ignore[union-attr]
                where = source.base + at
                tag, vr, at, count = element_head(data, at, syntax)
                if tag in plain and count != UNDEFINED:
                    at = self._keep(tag, vr, at, count)
                    if tag == SOP_CLASS_UID:
                        uid = self.plain[tag][1].decode("latin_1").strip(" \0")
                        self.wanted = wanted_for(records.record_type(uid), self._others)
                        plain, sequences = self.wanted.plain, self.wanted.sequences
                elif tag in sequences:
                    at = self._keep_sequence(tag, at, count, IMPLICIT_LE if vr == b"UN" else syntax)
                elif count == UNDEFINED:
                    self.has_pixel_data |= tag in _PIXEL_DATA
                    at = self._pass_sequence(at, IMPLICIT_LE if vr == b"UN" else syntax, 1)
                elif not tag:
                    self._padding(at)
                    return
                elif tag >> 16 == 0xFFFE:
                    raise NotDicom(f"{tag_text(tag)} stands outside of any sequence")
                else:
                    self.has_pixel_data |= tag in _PIXEL_DATA
                    at += count
                    if at > len(data):
                        at = source.skip(at - count, count)
        except (DataEnds, struct.error):
            problem = f"{tag_text(tag)} is cut off by the end of the data set"
        except TooLarge as error:
            problem = f"{tag_text(tag)} is {error}"
        except NotDicom as error:
            problem = str(error)
        raise NotDicom(f"{problem}, at offset {self._offset + where}")

    def _again(self, run: Run) -> None:
        """Take what a run gave."""
        if not self.plain.keys().isdisjoint(run.plain):
            raise NotDicom("An element occurs twice")  # with another value, perhaps
        self.plain.update(run.plain)
        self.sequences.update(run.sequences)
        self.has_pixel_data |= run.has_pixel_data
        self.again.append(run)

    def _padding(self, at: int) -> None:
        """Zeros up to the end are harmless; anything else there is no element."""
        while True:
            at = self._source.fill(at, 1 << 16)
            rest = self._source.data[at:]
            if rest.strip(b"\0"):
                raise NotDicom("Bytes that are no element stand at or before the end of the data set")
            if not rest:
                return
            at = len(self._source.data)

    def _keep(self, tag: int, vr: bytes, at: int, count: int) -> int:
        """Remember a value of limited length."""
        source = self._source
        if count > _VALUE_LIMIT:
            raise TooLarge(f"{count} bytes long, as no value of it can be")
        if at + count > len(source.data):
            at = source.take(at, count)
        value = source.data[at : at + count]
        if self._syntax.order == ">":
            value = little_endian(vr, value, ">")
        if tag in self.plain and self.plain[tag][1] != value:
            raise NotDicom(f"{tag_text(tag)} occurs twice with different values")
        self.plain[tag] = (vr, value)
        return at + count

    def _keep_sequence(self, tag: int, at: int, count: int, syntax: Syntax) -> int:
        """Remember of a sequence what the directory needs of it."""
        source = self._source
        key = self.wanted.sequences[tag]
        if key is not None and key.derived == "concept-modifiers":
            return self._keep_modifiers(tag, at, count, syntax)
        source.mark = at
        at = self._pass_sequence(at, syntax, 1) if count == UNDEFINED else source.take(at, count) + count
        start, source.mark = source.mark, None
        data, what = source.data, tag_text(tag)
        if key is not None:
            try:
                element = element_to_explicit_le(data, tag, b"SQ", (start, at), syntax, keep=key.items)
            except NotDicom:
                if key.type != records.QUERY_ONLY:  # nothing that a disc needs: no reason to refuse the instance
                    raise
                return at
            if len(element) > 12:
                self.sequences[tag] = element
        elif tag == _VERIFYING_OBSERVERS:
            times = [
                data[first:last].rstrip(b" \0")
                for begin, end in items(data, start, at, syntax, what)
                for inner, _, first, last in elements(data, begin, end, syntax, what)
                if inner == VERIFICATION_DATETIME
            ]
            if latest := max(times, default=b""):
                self.sequences[VERIFICATION_DATETIME] = encode(VERIFICATION_DATETIME, b"DT", latest)
        else:
            self._find_shared(data, (start, at), syntax, 1)
        return at

    def _find_shared(self, data: bytes, span: tuple[int, int], syntax: Syntax, depth: int) -> None:
        """Keys on any level of the Shared Functional Groups Sequence, the first of each."""
        what = tag_text(_SHARED_FUNCTIONAL_GROUPS)
        if depth > MAX_DEPTH:
            raise NotDicom(f"{what} is nested more than {MAX_DEPTH} levels deep")
        for begin, end in items(data, *span, syntax, what, depth=depth):
            for tag, vr, first, last in elements(data, begin, end, syntax, what, depth=depth):
                key = self.wanted.shared.get(tag)
                if key is not None and tag not in self.shared and last > first:
                    known = key.vr if vr in (b"", b"UN") else vr
                    element = element_to_explicit_le(data, tag, known, (first, last), syntax, keep=key.items)
                    self.shared[tag] = element
                elif vr == b"SQ" or (vr in (b"", b"UN") and data[first : first + 4] == _ITEM_VALUE):
                    self._find_shared(data, (first, last), IMPLICIT_LE if vr == b"UN" else syntax, depth + 1)

    def _keep_modifiers(self, tag: int, at: int, count: int, syntax: Syntax) -> int:
        """Of a Content Sequence, which may be huge, only the items whose relationship is HAS CONCEPT MOD."""
        source = self._source
        stop = None if count == UNDEFINED else source.base + at + count
        kept = []
        while stop is None or source.base + at < stop:
            at = source.take(at, 8)
            inner, length = _item_head(source.data, at, syntax)
            at += 8
            if inner == SEQUENCE_END and stop is None:
                break
            if inner != ITEM:
                raise NotDicom(f"{tag_text(tag)} holds {tag_text(inner)} where an item should begin")
            at = source.fill(at, min(length, _PEEK))
            relationship = _relationship(source.data[at : at + min(length, _PEEK)], syntax)
            if relationship in (b"HAS CONCEPT MOD", None):
                source.mark = at
            if length == UNDEFINED:
                at = self._pass_item(at, syntax, 1)
            elif stop is not None and source.base + at + length > stop:
                raise NotDicom(f"An item of {tag_text(tag)} is longer than the sequence")
            else:
                at = source.skip(at, length)
            if source.mark is not None:
                item = source.data[source.mark : at]
                source.mark = None
                if _relationship(item, syntax) == b"HAS CONCEPT MOD":
                    kept.append(encode_item(to_explicit_le(item, 0, len(item), syntax, tag_text(tag))))
        if kept:
            self.sequences[tag] = encode(tag, b"SQ", b"".join(kept))
        return at

    def _pass_sequence(self, at: int, syntax: Syntax, depth: int) -> int:
        """Behind the delimiter of a sequence of undefined length, or of encapsulated pixel data."""
        if depth > MAX_DEPTH:
            raise TooLarge(f"nested more than {MAX_DEPTH} levels deep")
        source = self._source
        while True:
            if len(source.data) - at < 8:
                at = source.take(at, 8)
            tag, length = _item_head(source.data, at, syntax)
            at += 8
            if tag == SEQUENCE_END:
                return at
            if tag != ITEM:
                where = self._offset + source.base + at - 8
                raise NotDicom(f"{tag_text(tag)} stands at offset {where} where an item should begin")
            at = self._pass_item(at, syntax, depth) if length == UNDEFINED else source.skip(at, length)

    def _pass_item(self, at: int, syntax: Syntax, depth: int) -> int:
        """Behind the delimiter of an item of undefined length."""
        source = self._source
        while True:
            if len(source.data) - at < 12:
                at = source.fill(at, 12)
                if len(source.data) - at < 8:
                    raise DataEnds
            tag, vr, at, length = element_head(source.data, at, syntax)
            if tag == ITEM_END:
                return at
            if length == UNDEFINED:
                at = self._pass_sequence(at, IMPLICIT_LE if vr == b"UN" else syntax, depth + 1)
            else:
                at = source.skip(at, length)


def _item_head(data: bytes, at: int, syntax: Syntax) -> tuple[int, int]:
    group, element, length = struct.unpack_from("<HHL" if syntax.order == "<" else ">HHL", data, at)
    return group << 16 | element, length


def _relationship(item: bytes, syntax: Syntax) -> bytes | None:
    """Relationship Type of the item that begins there, empty if it has none; None if that is not to be told yet."""
    at = 0
    try:
        while at + 8 <= len(item):
            tag, _, start, length = element_head(item, at, syntax)
            if tag == _RELATIONSHIP_TYPE and start + length <= len(item):
                return item[start : start + length].strip(b" \0")
            if tag > _RELATIONSHIP_TYPE:
                return b""
            if length == UNDEFINED:
                return None
            at = start + length
    except struct.error:
        pass
    return None
