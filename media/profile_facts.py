"""Values of an instance's attributes as the rules of application profiles look at them, read without its pixel data.

A value is text: its components without padding, numbers in decimal. Whatever a file holds gives some text or none; only
a data set whose structure cannot be followed is an error.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from media.elements import (
    MAX_DEPTH,
    UNDEFINED,
    Element,
    Encoding,
    Source,
    elements,
    encoding_of,
    items,
    open_source,
    settled,
    skip_value,
)
from media.part10 import locate
from media.problems import NotDicom

TRANSFER_SYNTAX = 0x00020010
OVERLAYS = 0x60000000
"""Stands for any attribute of any overlay group (60XX)."""
MOST_ITEMS = 1024
"""Items of one sequence that are looked at; real ones have a few."""
LONGEST = 1024
"""Bytes of a value that is decoded; of a longer one only that it is there matters."""
_MOST_COMPONENTS = 32
_PIXELS = 0x7FE0
_EVERY_OVERLAY = (0x0010, 0x0011, 0x0015, 0x0022, 0x0040, 0x0045, 0x0050, 0x0051, 0x0100, 0x0102, 0x1001, 0x1500)
_NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "UV": "Q", "SV": "q"}
_BYTES = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN"))

Values = tuple[str, ...]
"""Components of a value; () where the attribute is empty."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a data set, or an item, says."""

    values: Mapping[int, Values] = field(default_factory=dict)
    """By tag, of the attributes that are there; those of overlay groups and ``OVERLAYS`` where there is any."""
    items: Mapping[int, tuple[Facts, ...]] = field(default_factory=dict)
    """Of the sequences that are there."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to read of a data set or of the items of a sequence."""

    vrs: Mapping[int, str]
    """VR by tag, for files that do not say it."""
    sequences: Mapping[int, Wanted]
    overlay: Mapping[int, str] = field(default_factory=dict)
    """VR by element number, of every overlay group."""

    def vr(self, tag: int) -> str | None:
        """The VR of a wanted attribute; None where it is not wanted."""
        return self.overlay.get(tag & 0xFFFF) if is_overlay(tag) else self.vrs.get(tag)

    def tags(self) -> frozenset[int]:
        """Tags that tell all that is wanted; of any overlay its tags without which there is none."""
        overlay = {*self.overlay, *(_EVERY_OVERLAY if OVERLAYS in self.vrs else ())}
        groups = range(0x6000, 0x6020, 2)
        return frozenset(
            (*self.vrs, *self.sequences, *(group << 16 | number for group in groups for number in overlay))
        )


def is_overlay(tag: int) -> bool:
    """Whether the tag is of an overlay group, 6000 to 601E (PS3.5 7.6)."""
    return 0x6000 <= tag >> 16 <= 0x601E and not tag & 0x10000


def read_facts(path: Path, wanted: Wanted) -> Facts:
    """What is wanted of a PS3.10 file; NotDicom where it is none or is malformed before its pixel data."""
    located = locate(path)
    try:
        with path.open("rb") as stream:
            return facts_in(stream, path.name, wanted, located.transfer_syntax_uid, located.dataset_offset)
    except OSError as error:
        raise NotDicom(f"{path.name} cannot be read: {error.strerror or error}") from error


def facts_in(stream: BinaryIO, name: str, wanted: Wanted, transfer_syntax_uid: str, start: int) -> Facts:
    """The same of a data set that begins at byte ``start`` of an open file, which messages call ``name``."""
    source = open_source(stream, start, transfer_syntax_uid, name)
    try:
        found = _data_set(source, settled(source, encoding_of(transfer_syntax_uid)), None, wanted, 0)
    except struct.error as error:
        raise NotDicom(f"{name} cannot be read: {error}") from error
    return Facts({**found.values, TRANSFER_SYNTAX: (transfer_syntax_uid,)}, found.items)


def _data_set(source: Source, encoding: Encoding, end: int | None, wanted: Wanted, depth: int) -> Facts:
    """A data set (``depth`` 0) up to its pixel data, or one item."""
    values: dict[int, Values] = {}
    sequences: dict[int, tuple[Facts, ...]] = {}
    for element in elements(source, encoding, end, top=depth == 0):
        tag = element.tag
        if depth == 0 and tag >> 16 == _PIXELS:
            break
        if is_overlay(tag):
            values[OVERLAYS] = ()
        inner = wanted.sequences.get(tag)
        if inner is not None and element.vr in ("SQ", "UN", ""):
            sequences[tag] = tuple(_items(source, encoding, element, inner, depth))
            continue
        vr = wanted.vr(tag)
        if vr is None or element.length == UNDEFINED:
            skip_value(source, encoding, element, depth)
        elif element.length > LONGEST:
            values[tag] = (f"{element.length} bytes",)
            source.skip(element.length)
        else:
            given = vr if element.vr in ("", "UN") else element.vr
            values[tag] = text_values(given, source.read(element.length), little=encoding.little)
    return Facts(values, sequences)


def _items(source: Source, encoding: Encoding, element: Element, wanted: Wanted, depth: int) -> Iterator[Facts]:
    """The first ``MOST_ITEMS`` items; one more, empty, where there are others."""
    inner = Encoding(True, True) if element.vr == "UN" else encoding
    for number, end in enumerate(items(source, inner, element, depth)):
        if depth >= MAX_DEPTH:
            raise NotDicom(f"{source.name} is nested more than {MAX_DEPTH} levels deep")
        found = _data_set(source, settled(source, inner), end, wanted, depth + 1)
        if number <= MOST_ITEMS:
            yield found


def text_values(vr: str, data: bytes, *, little: bool = True) -> Values:
    """The components of an encoded value; () where it is empty."""
    if not data:
        return ()
    code = _NUMBERS.get(vr)
    if code is not None:
        size = struct.calcsize(code)
        count = len(data) // size
        if len(data) % size or count > _MOST_COMPONENTS:
            return (f"{len(data)} bytes",)
        numbers = struct.unpack(f"{'<' if little else '>'}{count}{code}", data)
        return tuple(f"{number:g}" if code in "fd" else str(number) for number in numbers)
    if vr in _BYTES or len(data) > LONGEST:
        return (f"{len(data)} bytes",)
    components = tuple(part.strip(" \0") for part in data.decode("latin-1").split("\\"))
    return components if any(components) else ()
