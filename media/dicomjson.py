"""The DICOM JSON model (PS3.18 Annex F): of small data sets in memory, and of instances as a stream of text.

Of an instance only one value is held at a time. A value that is too long to stand in JSON, and all pixel data, is told
by a BulkDataURI whose end says where in the data set it is: ``7FE00010``, or ``00880200/1/7FE00010`` in an item.
"""

from __future__ import annotations

import base64
import json
import math
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from media import charsets
from media.attributes import Attributes
from media.elements import (
    PIXEL_DATA,
    UNDEFINED,
    WORD,
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
    swapped,
)
from media.part10 import Part10
from media.problems import NotDicom

INLINE_LIMIT = 1024
"""Bytes of binary data that still stand in JSON ..."""
TEXT_LIMIT = 65536
"""... and of text or numbers."""
_BINARY = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN"))
_ONE_TEXT = frozenset(("LT", "ST", "UR", "UT"))
"""A backslash in them separates nothing (PS3.5 6.2)."""
_IN_CHARACTER_SET = frozenset(("LO", "LT", "PN", "SH", "ST", "UC", "UT"))
_NUMBERS = {"FD": "d", "FL": "f", "SL": "i", "SS": "h", "SV": "q", "UL": "I", "US": "H", "UV": "Q"}
_CHARACTER_SET, _SIGNED, _ALLOCATED = 0x00080005, 0x00280103, 0x00280100
_PIXELS = (PIXEL_DATA, 0x7FE00008, 0x7FE00009)
_STEPS = re.compile(r"[0-9A-Fa-f]{8}(/[1-9][0-9]{0,8}/[0-9A-Fa-f]{8}){0,64}", re.ASCII)
_NAME_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_GATHERED = 1 << 16
_UTF_8: dict[str, Any] = {"vr": "CS", "Value": ["ISO_IR 192"]}
"""Specific Character Set of what is told in JSON."""

Steps = tuple[int, ...]
"""The way to an element: tag, number of the item from 1, tag ..."""


def of_attributes(attributes: Attributes) -> dict[str, Any]:
    """A small data set."""
    found: dict[str, Any] = {}
    for tag in sorted(attributes):
        name, value = attributes[tag]
        vr = name.decode("ascii")
        if isinstance(value, tuple):
            model: dict[str, Any] = {"vr": vr}
            if value:
                model["Value"] = [of_attributes(item) for item in value]
        elif isinstance(value, bytes):
            model = _of_bytes(vr, value)
        else:
            model = of_text(vr, value)
        found[f"{tag:08X}"] = model
    return found


def of_text(vr: str, text: str) -> dict[str, Any]:
    """An attribute whose values are text, also where they mean numbers (DS, IS)."""
    model: dict[str, Any] = {"vr": vr}
    if "\\" not in text:
        if text := text if vr in _ONE_TEXT else text.strip(" "):
            model["Value"] = [_text_value(vr, text)]
        return model
    parts = [text] if vr in _ONE_TEXT else [part.strip(" ") for part in text.split("\\")]
    if any(parts):
        model["Value"] = [_text_value(vr, part) if part else None for part in parts]
    return model


def _text_value(vr: str, text: str) -> Any:
    if vr == "PN":
        groups = zip(_NAME_GROUPS, text.split("="), strict=False)
        return {name: group for name, group in groups if group}
    if vr in ("DS", "IS"):
        try:
            number = int(text) if vr == "IS" else float(text)
        except ValueError:
            return text  # wrong, but what stands there
        return number if math.isfinite(number) else text
    return text


def _of_bytes(vr: str, value: bytes) -> dict[str, Any]:
    """A binary value, little endian."""
    model: dict[str, Any] = {"vr": vr}
    if not value:
        return model
    if vr == "AT":
        words = struct.unpack(f"<{len(value) // 4 * 2}H", value[: len(value) // 4 * 4])
        model["Value"] = [f"{words[at]:04X}{words[at + 1]:04X}" for at in range(0, len(words), 2)]
    elif vr in _NUMBERS:
        size = struct.calcsize(_NUMBERS[vr])
        count = len(value) // size
        model["Value"] = [_number(one) for one in struct.unpack(f"<{count}{_NUMBERS[vr]}", value[: count * size])]
    else:
        model["InlineBinary"] = base64.b64encode(value).decode("ascii")
    return model


def _number(value: float) -> float | str:
    """JSON has no words for what is not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


# --- Instances --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Scope:
    """What elements of a data set or item need to know of those before them."""

    encoding: Encoding
    codecs: tuple[str, ...]
    signed: bool = False
    allocated: int = 16
    depth: int = 0


def of_instance(path: Path, located: Part10, bulk: Callable[[str], str], more: Mapping[str, Any]) -> Iterator[str]:
    """The data set of a file as JSON text, in pieces; ``bulk`` makes the URI of what is at a place in it.

    ``more``: elements, as JSON has them, that are told beside. Raises NotDicom where the file is malformed.
    """
    with path.open("rb") as stream:
        source, encoding = opened_at(stream, located.dataset_offset, located.transfer_syntax_uid, path.name)
        writer = _Writer(source, bulk)
        scope = _Scope(encoding, charsets.codecs_of(""))
        parts: list[str] = []
        size = 0
        for part in writer.elements(scope, None, "", more):
            parts.append(part)
            size += len(part)
            if size > _GATHERED:
                yield "".join(parts)
                parts, size = [], 0
        yield "".join(parts)


class _Writer:
    def __init__(self, source: Source, bulk: Callable[[str], str]) -> None:
        self._source = source
        self._bulk = bulk

    def elements(
        self, scope: _Scope, end: int | None, where: str, more: Mapping[str, Any] | None = None
    ) -> Iterator[str]:
        yield "{"
        comma, declared = "", bool(scope.depth)
        for element in elements(self._source, scope.encoding, end, top=not scope.depth):
            tag = element.tag
            if tag & 0xFFFF == 0 or tag == 0xFFFCFFFC or tag >> 16 in (0x0000, 0x0002):
                skip_value(self._source, scope.encoding, element, scope.depth)
                continue
            if more and f"{tag:08X}" in more:
                skip_value(self._source, scope.encoding, element, scope.depth)
                continue
            yield f'{comma}"{tag:08X}":'
            comma = ","
            if tag == _CHARACTER_SET:
                declared = True
            vr = vr_of(element, scope.signed, scope.allocated)
            if vr == "SQ":
                yield from self._sequence(scope, element, f"{where}{tag:08X}/")
            else:
                yield json.dumps(self._value(scope, element, vr, where), ensure_ascii=False, separators=(",", ":"))
        if not declared:
            yield f'{comma}"00080005":{json.dumps(_UTF_8)}'
            comma = ","
        for name, model in (more or {}).items():
            yield f'{comma}"{name}":{json.dumps(model, ensure_ascii=False)}'
            comma = ","
        yield "}"

    def _sequence(self, scope: _Scope, element: Element, where: str) -> Iterator[str]:
        inner = Encoding(True, True) if element.vr == "UN" else scope.encoding
        begin, end = '{"vr":"SQ","Value":[', '{"vr":"SQ"}'
        for number, limit in enumerate(items(self._source, inner, element, scope.depth), 1):
            yield begin
            begin, end = ",", "]}"
            item = _Scope(settled(self._source, inner), scope.codecs, scope.signed, scope.allocated, scope.depth + 1)
            yield from self.elements(item, limit, f"{where}{number}/")
        yield end

    def _value(self, scope: _Scope, element: Element, vr: str, where: str) -> dict[str, Any]:
        source, length = self._source, element.length
        limit = INLINE_LIMIT if vr in _BINARY else TEXT_LIMIT
        if length > limit or (element.tag in _PIXELS and length):
            skip_value(source, scope.encoding, element, scope.depth)
            return {"vr": vr, "BulkDataURI": self._bulk(f"{where}{element.tag:08X}")}
        value = source.read(length)
        if vr in _BINARY or vr in _NUMBERS or vr == "AT":
            model = _of_bytes(vr, value if scope.encoding.little else swapped(value, WORD.get(vr, 1)))
            numbers = model.get("Value")
            if element.tag == _SIGNED and numbers:
                scope.signed = numbers[0] == 1
            elif element.tag == _ALLOCATED and numbers:
                scope.allocated = int(numbers[0])
            return model
        if element.tag == _CHARACTER_SET:
            scope.codecs = charsets.codecs_of(value.decode("ascii", "replace").strip(" \0"))
            return _UTF_8
        if vr in _IN_CHARACTER_SET:
            text = charsets.decode(value, scope.codecs, name=vr == "PN")
        else:
            text = value.decode("latin-1")
        return of_text(vr, text.rstrip(" \0") if vr in _ONE_TEXT else text.strip(" \0"))


def vr_of(element: Element, signed: bool = False, allocated: int = 16) -> str:
    """The VR of an element: as it came, or by the dictionary, settled where that leaves a choice."""
    if element.vr and element.vr != "UN":
        return element.vr
    if element.tag == PIXEL_DATA:
        return "OW" if allocated > 8 and element.length != UNDEFINED else "OB"
    if element.length == UNDEFINED:
        return "SQ"
    vr = dictionary_vr(element.tag) or "UN"
    if " or " not in vr:
        return "UN" if vr == "SQ" and element.vr == "UN" else vr  # whatever that is, it need not be items
    if "OB" in vr or ("OW" in vr and element.length > 2):
        return "OW"
    return "SS" if "SS" in vr and signed else "US"


# --- Bulk data --------------------------------------------------------------------------------------------------------


class NoSuchValue(Exception):
    """There is nothing at this place of the data set."""


def steps_of(text: str) -> Steps:
    """The way that the end of a BulkDataURI tells. Raises NoSuchValue for one that is none."""
    if not _STEPS.fullmatch(text):
        raise NoSuchValue(text)
    return tuple(int(part, 10 if at % 2 else 16) for at, part in enumerate(text.split("/")))


@dataclass(slots=True)
class BulkValue:
    """A value that was found."""

    vr: str
    length: int
    pieces: Iterator[bytes]
    """Little endian; while the file is open."""


def bulk_value(source: Source, encoding: Encoding, steps: Sequence[int]) -> BulkValue:
    """What is at a place of the data set that ``source`` stands at the beginning of.

    Raises NoSuchValue where there is nothing, or what is compressed pixel data; NotDicom for a malformed file.
    """
    end: int | None = None
    for depth, at in enumerate(range(0, len(steps), 2)):
        element = _find(source, encoding, end, steps[at], depth)
        if at == len(steps) - 1:
            vr = vr_of(element)
            if element.length == UNDEFINED or vr == "SQ":
                raise NoSuchValue(f"{steps[at]:08X}")
            unit = 1 if encoding.little else WORD.get(vr, 1)
            pieces = (swapped(piece, unit) for piece in source.chunks(element.length))
            return BulkValue(vr, element.length, pieces)
        encoding = Encoding(True, True) if element.vr == "UN" else encoding
        for number, limit in enumerate(items(source, encoding, element, depth), 1):
            if number == steps[at + 1]:
                encoding, end = settled(source, encoding), limit
                break
            _skip_item(source, settled(source, encoding), limit, depth + 1)
        else:
            raise NoSuchValue(f"{steps[at]:08X}")
    raise AssertionError("unreachable")


def _find(source: Source, encoding: Encoding, end: int | None, tag: int, depth: int) -> Element:
    for element in elements(source, encoding, end, top=not depth):
        if element.tag == tag:
            return element
        skip_value(source, encoding, element, depth)
    raise NoSuchValue(f"{tag:08X}")


def _skip_item(source: Source, encoding: Encoding, limit: int | None, depth: int) -> None:
    if limit is not None:
        source.skip(limit - source.tell())
        return
    for element in elements(source, encoding, None):
        skip_value(source, encoding, element, depth)


def opened_at(stream: BinaryIO, offset: int, transfer_syntax_uid: str, name: str) -> tuple[Source, Encoding]:
    """A source at the beginning of a data set in an open file, with how its elements are encoded."""
    source = open_source(stream, offset, transfer_syntax_uid, name)
    try:
        return source, settled(source, encoding_of(transfer_syntax_uid))
    except struct.error as error:
        raise NotDicom(f"{name} cannot be read: {error}") from error
