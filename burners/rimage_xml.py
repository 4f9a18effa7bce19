"""Reading and writing the XML of Rimage's orders without trusting it.

What is read comes from another machine: no document may make us open a file or an address, expand an entity, or hold
more than it weighs. Genuine status documents name an external DTD (``<!DOCTYPE ProductionOrderStatus SYSTEM "..">``);
that name is let be and never followed. An internal subset, in which entities could be declared, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.parsers import expat

MAX_BYTES = 1 << 20
MAX_ELEMENTS = 5_000
MAX_DEPTH = 20
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_SYSTEM_ID = re.compile(r"[^\x00-\x1f\x7f\"'<>&]+")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 (2.2) has no way to write, escaped or not."""
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}


class XmlRefused(ValueError):
    """The document is no XML, or does what a status document has no need of; the text says which."""


@dataclass
class Element:
    """An element with its attributes and child elements; text between elements is not kept."""

    name: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Element] = field(default_factory=list)

    def all(self, name: str) -> list[Element]:
        """This element and those below it that have this name, in document order."""
        found = [self] if self.name == name else []
        for child in self.children:
            found += child.all(name)
        return found


def parse(data: bytes) -> Element:
    """The document's root. Raises XmlRefused."""
    if len(data) > MAX_BYTES:
        raise XmlRefused(f"XML of {len(data)} bytes; at most {MAX_BYTES} are read")
    builder = _Builder()
    parser = expat.ParserCreate()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.StartDoctypeDeclHandler = _doctype
    parser.EntityDeclHandler = _entity
    parser.SkippedEntityHandler = _skipped
    parser.ExternalEntityRefHandler = _external
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise XmlRefused(f"no XML: {error}") from error
    except (ValueError, LookupError) as error:  # an encoding that Python does not have
        raise error if isinstance(error, XmlRefused) else XmlRefused(f"no XML: {error}") from error
    if builder.root is None:
        raise XmlRefused("no XML: no element")
    return builder.root


class _Builder:
    """The tree, within limits."""

    def __init__(self) -> None:
        self.root: Element | None = None
        self._open: list[Element] = []
        self._count = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._count += 1
        if self._count > MAX_ELEMENTS or len(self._open) >= MAX_DEPTH:
            raise XmlRefused(f"XML with more than {MAX_ELEMENTS} elements or deeper than {MAX_DEPTH}")
        element = Element(name, dict(attributes))
        if self._open:
            self._open[-1].children.append(element)
        else:
            self.root = element
        self._open.append(element)

    def end(self, name: str) -> None:
        self._open.pop()


def _doctype(name: str, system_id: str | None, public_id: str | None, internal_subset: int) -> None:
    if internal_subset:
        raise XmlRefused("XML with declarations of its own (an internal DTD) is not read")


def _entity(*declaration: object) -> None:
    raise XmlRefused("XML that declares entities is not read")


def _skipped(name: str, is_parameter_entity: bool) -> None:
    raise XmlRefused(f"XML with the unknown entity {name[:40]!r}")


def _external(context: str, base: str | None, system_id: str | None, public_id: str | None) -> int:
    raise XmlRefused("XML that refers to another document is not read")


def element(name: str, attributes: Mapping[str, str] | None = None, *children: Element) -> Element:
    """An element to be written. Raises ValueError for a name that is none."""
    for each in (name, *(attributes or {})):
        if not _NAME.fullmatch(each):
            raise ValueError(f"{each!r} is no XML name")
    return Element(name, dict(attributes or {}), list(children))


def render(root: Element, *, dtd: str = "") -> str:
    """The document as text, one element a line; ``dtd`` is the system identifier of its document type, if any.

    Raises ValueError for a DTD name that could leave its quotes.
    """
    lines = ['<?xml version="1.0" encoding="UTF-8"?>']
    if dtd:
        if not _SYSTEM_ID.fullmatch(dtd):
            raise ValueError(f"{dtd!r} is no name of a DTD")
        lines.append(f'<!DOCTYPE {root.name} SYSTEM "{dtd}">')
    return "\n".join([*lines, *_lines(root, 0)]) + "\n"


def _lines(each: Element, depth: int) -> list[str]:
    attributes = "".join(f' {name}="{escaped(value)}"' for name, value in each.attributes.items())
    start = f"{'  ' * depth}<{each.name}{attributes}"
    if not each.children:
        return [start + "/>"]
    below = [line for child in each.children for line in _lines(child, depth + 1)]
    return [start + ">", *below, f"{'  ' * depth}</{each.name}>"]


def escaped(value: str) -> str:
    """The value as it stands between quotes, in ASCII alone, so that it means the same in any code page."""
    kept = "".join(_ESCAPES.get(character, character) for character in _NOT_XML.sub("", value))
    return kept.encode("ascii", "xmlcharrefreplace").decode("ascii")
