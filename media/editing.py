"""Edits applied to a PS3.10 file: everything that is not edited is copied byte for byte, in its own encoding.

The data set is walked once to find what has to change; the file is then copied with these places replaced. Sequences
of any depth are followed, also those of VR UN. Dropped without mention are group lengths and trailing padding
(PS3.10 7.2, PS3.5 7.2); digital signatures that an edit would make invalid are taken out and listed (PS3.15).
"""

from __future__ import annotations

import struct
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO

from media import charsets, edittext
from media.edits import Edit, Edits, Original
from media.elements import (
    PIXEL_DATA,
    UNDEFINED,
    Element,
    Encoding,
    Source,
    dictionary_vr,
    elements,
    encoding_of,
    items,
    open_source,
    settled,
    skip_value,
    tag_text,
)
from media.items import Change
from media.part10 import CHUNK, DEFLATED_LE, LONG_VRS, Part10, file_meta, locate
from media.problems import InstanceRefused, NotDicom

SOP_CLASS, SOP_INSTANCE = 0x00080016, 0x00080018
CHARACTER_SET = 0x00080005
INSTITUTION = 0x00080080
ORIGINAL_ATTRIBUTES = 0x04000561
_SIGNATURES = frozenset((0x4FFE0001, 0xFFFAFFFA))
"""MAC Parameters Sequence and Digital Signatures Sequence (PS3.3 C.12.1.1.3)."""
_SHORT_LIMIT = 0xFFFE
_UID_LIMIT = 1 << 16
_TEXT_LIMIT = 1 << 24


@dataclass(slots=True)
class _Place:
    """``length`` bytes of the source at ``at`` that ``new`` takes the place of."""

    at: int
    length: int
    new: bytes


@dataclass(slots=True)
class _Survey:
    """What was found on the walk."""

    places: list[_Place] = field(default_factory=list)
    references: dict[tuple[int, str], str] = field(default_factory=dict)
    """New UID by tag and old UID."""
    values: dict[int, list[tuple[Element, bytes]]] = field(default_factory=dict)
    """Values of the elements that are edited."""
    starts: list[tuple[int, int]] = field(default_factory=list)
    """Tag and offset of every element of the data set itself."""
    end: int = 0
    """Of the last element."""
    plain: bool = True
    """Whether all text is ASCII."""
    ends: dict[int, int] = field(default_factory=dict)
    """Where the element that begins at an offset ends."""


@dataclass(frozen=True, slots=True)
class Edited:
    """What was written."""

    changes: tuple[Change, ...]
    """Under the SOP Instance UID that the instance had."""
    sop_class_uid: str
    sop_instance_uid: str
    """As it had been."""


def edit_instance(source: Path, target: Path, edits: Edits) -> Edited:
    """Write ``source`` with ``edits`` made to ``target``, in the same transfer syntax.

    The same source and edits give the same bytes. NotDicom where the source cannot be followed; InstanceRefused where
    a value cannot be written in the instance. OSErrors pass. ``target`` is not synced.
    """
    located = locate(source)
    if located.transfer_syntax_uid != DEFLATED_LE:
        with source.open("rb") as stream, target.open("wb") as out:
            return _Editor(stream, located.dataset_offset, located, str(source), edits).write(out)
    inflated = target.with_name(f"{target.name}.inflated")
    try:
        with source.open("rb") as stream, inflated.open("w+b") as plain:
            _inflate(stream, located, str(source), plain)
            with target.open("wb") as out:
                return _Editor(plain, 0, located, str(source), edits).write(out)
    finally:
        inflated.unlink(missing_ok=True)


class _Editor:
    def __init__(self, stream: BinaryIO, offset: int, located: Part10, name: str, edits: Edits) -> None:
        self._stream, self._located, self._name, self._edits = stream, located, name, edits
        self._source = Source(stream, offset, name)
        self._offset = offset
        self._wanted: dict[int, Edit | None] = {edit.tag: edit for edit in edits.values}
        self._survey = _Survey()
        self._changes: list[tuple[int, str, str]] = []
        self._former: tuple[Element, int] | None = None
        """The instance's own Original Attributes Sequence, and by how much it grows."""

    def write(self, out: BinaryIO) -> Edited:
        self._encoding = settled(self._source, encoding_of(self._located.transfer_syntax_uid))
        self._read_all()
        sop_class, uid = self._uid(SOP_CLASS), self._uid(SOP_INSTANCE)
        if not sop_class or not uid:
            missing = "SOP Class UID (0008,0016)" if not sop_class else "SOP Instance UID (0008,0018)"
            raise InstanceRefused("PROC_FAILURE", f"{self._name} has no {missing}")
        self._values(uid)
        out.write(file_meta(sop_class, self._edits.new_sop_instance_uid or uid, self._located.transfer_syntax_uid))
        for piece in self._pieces():
            out.write(piece)
        changes = [*self._changes]
        for (tag, old), new in self._survey.references.items():
            changes.append((tag, old, f"{new}: the reference follows the new SOP Instance UID"))
        changes.sort(key=lambda change: change[0])
        return Edited(tuple(Change(uid, tag_text(tag), old, new) for tag, old, new in changes), sop_class, uid)

    # -- the walk ------------------------------------------------------------------------------------------------

    def _read_all(self) -> None:
        source, survey = self._source, self._survey
        keep = self._wanted.keys() | {SOP_CLASS, SOP_INSTANCE, CHARACTER_SET}
        if self._edits.original is not None:
            keep |= {INSTITUTION}
        survey.end = source.tell()
        for element in elements(source, self._encoding, None, top=True):
            if element.tag & 0xFFFF == 0 or element.tag == 0xFFFCFFFC or element.tag in _SIGNATURES:
                self._drop(element, self._encoding, 0)
                if element.tag in _SIGNATURES:
                    words = "removed: the data set it signs was edited"
                    self._changes.append((element.tag, "present", words))
            elif element.tag in keep and element.length != UNDEFINED:
                if element.length > _TEXT_LIMIT:
                    raise NotDicom(f"{self._name}: {tag_text(element.tag)} is {element.length} bytes long")
                value = source.read(element.length)
                survey.values.setdefault(element.tag, []).append((element, value))
                if element.tag == INSTITUTION and element.tag not in self._wanted:
                    survey.plain &= value.isascii() and b"\x1b" not in value
            elif element.tag in keep:
                skip_value(source, self._encoding, element)
                survey.values.setdefault(element.tag, []).append((element, b""))
            else:
                grown = self._follow(element, self._encoding, 0)
                if element.tag == ORIGINAL_ATTRIBUTES:
                    self._former = (element, grown)
            survey.starts.append((element.tag, element.at))
            survey.end = survey.ends[element.at] = source.tell()

    def _follow(self, element: Element, encoding: Encoding, depth: int) -> int:
        """Pass over an element and note what must change in it; returns by how many bytes it grows."""
        source = self._source
        vr = element.vr or dictionary_vr(element.tag)
        if element.tag == PIXEL_DATA or (element.length != UNDEFINED and vr not in ("", "SQ", "UI", "UN", *_TEXT)):
            skip_value(source, encoding, element, depth)
            return 0
        if vr == "UI" and element.length != UNDEFINED and element.length <= _UID_LIMIT:
            return self._map(element, source.read(element.length), encoding)
        if vr in _TEXT and element.length != UNDEFINED:
            for piece in source.chunks(element.length):
                self._survey.plain &= piece.isascii() and b"\x1b" not in piece
            return 0
        inner = Encoding(True, True) if element.vr == "UN" else encoding  # PS3.5 6.2.2
        if element.length == UNDEFINED:
            return self._sequence(element, inner, depth)
        return self._enclosed(element, inner, depth)

    def _enclosed(self, element: Element, encoding: Encoding, depth: int) -> int:
        """A sequence of defined length, perhaps in a UN; what cannot be followed is left as it is."""
        source = self._source
        begins = b"\xfe\xff\x00\xe0" if encoding.little else b"\xff\xfe\xe0\x00"
        if element.length < 8 or source.peek(4) != begins:
            source.skip(element.length)
            return 0
        before = len(self._survey.places), dict(self._survey.references)
        try:
            grown = self._sequence(element, encoding, depth)
            if source.tell() == element.value_at + element.length:
                return grown
        except NotDicom:
            pass
        del self._survey.places[before[0] :]
        self._survey.references = before[1]
        source.seek(element.value_at)
        source.skip(element.length)
        return 0

    def _sequence(self, element: Element, encoding: Encoding, depth: int) -> int:
        source, total = self._source, 0
        for end in items(source, encoding, element, depth):
            begin = source.tell()
            inner = settled(source, encoding)
            grown = 0
            for nested in elements(source, inner, end):
                if nested.tag & 0xFFFF == 0:
                    grown += self._drop(nested, inner, depth + 1)
                else:
                    grown += self._follow(nested, inner, depth + 1)
            if grown and end is not None:
                self._length(begin - 4, end - begin + grown, encoding)
            total += grown
        if total and element.length != UNDEFINED:
            self._length(element.value_at - 4, element.length + total, encoding)
        return total

    def _length(self, at: int, length: int, encoding: Encoding) -> None:
        self._survey.places.append(_Place(at, 4, struct.pack(encoding.order + "I", length)))

    def _drop(self, element: Element, encoding: Encoding, depth: int) -> int:
        skip_value(self._source, encoding, element, depth)
        length = self._source.tell() - element.at
        self._survey.places.append(_Place(element.at, length, b""))
        return -length

    def _map(self, element: Element, value: bytes, encoding: Encoding) -> int:
        """The UIDs of a value that were changed; an element of VR UI, whatever it is called."""
        known = self._edits.uid_map
        uids = [uid.strip(" \0") for uid in value.decode("latin-1").split("\\")]
        if not any(uid in known for uid in uids):
            return 0
        for uid in uids:
            if uid in known:
                self._survey.references[(element.tag, uid)] = known[uid]
        new = _padded("\\".join(known.get(uid, uid) for uid in uids).encode("latin-1"), b"\0")
        whole = _encoded(element.tag, "UI" if element.vr else "", new, encoding)
        length = element.value_at - element.at + element.length
        self._survey.places.append(_Place(element.at, length, whole))
        return len(whole) - length

    # -- values ----------------------------------------------------------------------------------------------------

    def _uid(self, tag: int) -> str:
        found = self._survey.values.get(tag)
        return found[0][1].decode("latin-1").strip(" \0") if found else ""

    def _values(self, uid: str) -> None:
        """Places for the edited elements, old or new."""
        edits = [edit for edit in self._edits.values if edit.tag not in (SOP_CLASS, SOP_INSTANCE, CHARACTER_SET)]
        if self._edits.new_sop_instance_uid and self._edits.new_sop_instance_uid != uid:
            edits.append(Edit(SOP_INSTANCE, "UI", self._edits.new_sop_instance_uid))
        declared = self._uid(CHARACTER_SET)
        held = edittext.holds(declared, edits)
        if not held:
            if not self._survey.plain or not self._edited_plain():
                tags = ", ".join(tag_text(edit.tag) for edit in edits if not edittext.holds(declared, [edit]))
                words = f"Instance {uid}: its character set {declared or '(none)'} cannot hold the new value of {tags}"
                raise InstanceRefused("PROC_FAILURE", words)
            edits.append(Edit(CHARACTER_SET, "CS", edittext.UNICODE, "for the new values; all else is ASCII"))
        codecs = charsets.codecs_of(declared)
        changed = [
            edit
            for edit in sorted(edits, key=lambda one: one.tag)
            if self._place(edit, codecs, declared if held else edittext.UNICODE)
        ]
        if changed and self._edits.original is not None:
            self._keep_former([edit.tag for edit in changed], self._edits.original)

    def _edited_plain(self) -> bool:
        values = [value for tag, found in self._survey.values.items() for _, value in found if tag in self._wanted]
        return all(value.isascii() and b"\x1b" not in value for value in values)

    def _place(self, edit: Edit, codecs: tuple[str, ...], declared: str) -> bool:
        """Whether it changes anything."""
        survey, found = self._survey, self._survey.values.get(edit.tag, [])
        old = edittext.shown(edit.vr, found[0][1], codecs, self._encoding) if found else "(absent)"
        new = b"" if edit.value is None else edittext.encoded(edit, declared, self._encoding)
        whole = b"" if edit.value is None else _encoded(edit.tag, edit.vr, new, self._encoding)
        if not found and edit.value is None:
            return False
        if found and edit.value is not None and len(found) == 1 and found[0][1].rstrip(b" \0") == new.rstrip(b" \0"):
            return False
        for number, (element, _) in enumerate(found):
            length = survey.ends[element.at] - element.at
            survey.places.append(_Place(element.at, length, b"" if number else whole))
        if not found:
            at = next((at for tag, at in survey.starts if tag > edit.tag), survey.end)
            survey.places.append(_Place(at, 0, whole))
        told = "(removed)" if edit.value is None else edittext.brief(edit.value) or "(empty)"
        self._changes.append((edit.tag, old, f"{told}: {edit.why}" if edit.why else told))
        return True

    def _keep_former(self, tags: list[int], original: Original) -> None:
        """An item of Original Attributes Sequence behind those that are there (PS3.3 C.12.1.1.9)."""
        survey, former = self._survey, self._former
        encoding = Encoding(True, True) if former is not None and former[0].vr == "UN" else self._encoding
        item = self._original_item(tags, original, encoding)
        if former is None:
            at = next((at for tag, at in survey.starts if tag > ORIGINAL_ATTRIBUTES), survey.end)
            survey.places.append(_Place(at, 0, _encoded(ORIGINAL_ATTRIBUTES, "SQ", item, encoding)))
            return
        element, grown = former
        end = survey.ends[element.at]
        if element.length == UNDEFINED:
            survey.places.append(_Place(end - 8, 0, item))  # before the Sequence Delimitation Item
            return
        begins = b"\xfe\xff\x00\xe0" if encoding.little else b"\xff\xfe\xe0\x00"
        self._stream.seek(element.value_at)
        if element.length and self._stream.read(4) != begins:
            raise NotDicom(f"{self._name}: its Original Attributes Sequence {tag_text(ORIGINAL_ATTRIBUTES)} is none")
        at = element.value_at - 4
        survey.places = [place for place in survey.places if (place.at, place.length) != (at, 4)]
        self._length(at, element.length + grown + len(item), encoding)
        survey.places.append(_Place(end, 0, item))

    def _original_item(self, tags: list[int], original: Original, encoding: Encoding) -> bytes:
        found = self._survey.values
        there = [(found[tag][0], tag) for tag in tags if found.get(tag)]
        values = [(tag, element.vr or dictionary_vr(tag), value) for (element, value), tag in there]
        if found.get(CHARACTER_SET) and CHARACTER_SET not in tags:
            values.append((CHARACTER_SET, "CS", found[CHARACTER_SET][0][1]))
        kept = b"".join(_encoded(tag, vr, _padded(value, b" "), encoding) for tag, vr, value in sorted(values))
        source = found[INSTITUTION][0][1].strip(b" \0")[:64] if found.get(INSTITUTION) else b""
        return _item(
            _encoded(0x04000550, "SQ", _item(kept, encoding), encoding)
            + _encoded(0x04000562, "DT", _padded(original.at.encode("ascii"), b" "), encoding)
            + _encoded(0x04000563, "LO", _padded(original.system.encode("ascii"), b" "), encoding)
            + _encoded(0x04000564, "LO", _padded(source, b" "), encoding)
            + _encoded(0x04000565, "CS", _padded(original.reason.encode("ascii"), b" "), encoding),
            encoding,
        )

    # -- the copy ----------------------------------------------------------------------------------------------------

    def _pieces(self) -> Iterator[bytes]:
        deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        if self._located.transfer_syntax_uid != DEFLATED_LE:
            yield from self._copied()
            return
        length = 0
        for piece in self._copied():
            if packed := deflate.compress(piece):
                length += len(packed)
                yield packed
        rest = deflate.flush()
        length += len(rest)
        yield rest + b"\0" * (length % 2)  # PS3.5 A.5: an even length

    def _copied(self) -> Iterator[bytes]:
        at = self._offset
        # Insertions at one offset stay in the order of their tags; they stand before what begins there.
        for place in sorted(self._survey.places, key=lambda place: (place.at, place.length != 0)):
            yield from self._span(at, place.at)
            yield place.new
            at = place.at + place.length
        yield from self._span(at, self._survey.end)

    def _span(self, at: int, end: int) -> Iterator[bytes]:
        if at > end:
            raise NotDicom(f"{self._name}: elements overlap at offset {at}")
        self._stream.seek(at)
        while at < end:
            piece = self._stream.read(min(CHUNK, end - at))
            if not piece:
                raise NotDicom(f"{self._name} became shorter while it was read")
            at += len(piece)
            yield piece


_TEXT = ("LO", "LT", "PN", "SH", "ST", "UC", "UT")


def _padded(value: bytes, pad: bytes) -> bytes:
    return value + pad if len(value) % 2 else value


def _item(content: bytes, encoding: Encoding) -> bytes:
    return struct.pack(encoding.order + "HHI", 0xFFFE, 0xE000, len(content)) + content


def _encoded(tag: int, vr: str, value: bytes, encoding: Encoding) -> bytes:
    """A whole element; ``vr`` ``""`` where the source gave it none."""
    group, number = tag >> 16, tag & 0xFFFF
    if encoding.implicit or not vr:
        return struct.pack(encoding.order + "HHI", group, number, len(value)) + value
    head = struct.pack(encoding.order + "HH", group, number) + vr.encode("ascii")
    if vr in LONG_VRS:
        return head + struct.pack(encoding.order + "HI", 0, len(value)) + value
    if len(value) > _SHORT_LIMIT:
        raise NotDicom(f"{tag_text(tag)} would have a value of {len(value)} bytes, more than its VR {vr} can")
    return head + struct.pack(encoding.order + "H", len(value)) + value


class _Collector(_Editor):
    """Follows every sequence as an editor does, to hear what it refers to."""

    def __init__(self, stream: BinaryIO, offset: int, located: Part10, name: str) -> None:
        super().__init__(stream, offset, located, name, Edits())
        self.uids: set[str] = set()

    def _map(self, element: Element, value: bytes, encoding: Encoding) -> int:
        self.uids.update(uid.strip(" \0") for uid in value.decode("latin-1").split("\\"))
        return 0

    def collect(self) -> set[str]:
        self._encoding = settled(self._source, encoding_of(self._located.transfer_syntax_uid))
        self._read_all()
        return self.uids


def uids_in(path: Path) -> set[str]:
    """Every UID that an instance names, wherever an edit could change it: its references are among them.

    NotDicom where it cannot be followed.
    """
    located = locate(path)
    with path.open("rb") as stream:
        if located.transfer_syntax_uid != DEFLATED_LE:
            return _Collector(stream, located.dataset_offset, located, str(path)).collect()
        with tempfile.TemporaryFile() as plain:
            _inflate(stream, located, str(path), plain)
            return _Collector(plain, 0, located, str(path)).collect()


def _inflate(stream: BinaryIO, located: Part10, name: str, plain: IO[bytes]) -> None:
    reader = open_source(stream, located.dataset_offset, DEFLATED_LE, name)
    while piece := reader.peek(CHUNK):
        plain.write(reader.read(len(piece)))


def top_values(path: Path, tags: Mapping[int, str] | frozenset[int]) -> dict[int, str]:
    """Values of elements of the data set itself as text (``edittext.shown``), without those that are absent.

    Reads no further than the highest tag. NotDicom where the file cannot be followed.
    """
    located = locate(path)
    found: dict[int, tuple[str, bytes]] = {}
    last = max(tags, default=0)
    with path.open("rb") as stream:
        source = open_source(stream, located.dataset_offset, located.transfer_syntax_uid, str(path))
        encoding = settled(source, encoding_of(located.transfer_syntax_uid))
        for element in elements(source, encoding, None, top=True):
            if element.tag > last:
                break
            if (element.tag in tags or element.tag == CHARACTER_SET) and element.length <= _UID_LIMIT:
                vr = dictionary_vr(element.tag) if element.vr in ("", "UN") else element.vr
                found.setdefault(element.tag, (vr, source.read(element.length)))
            else:
                skip_value(source, encoding, element)
    codecs = charsets.codecs_of(found.get(CHARACTER_SET, ("", b""))[1].decode("latin-1").strip(" \0"))
    return {
        tag: edittext.shown(vr, value, codecs, encoding, limit=0) for tag, (vr, value) in found.items() if tag in tags
    }
