"""Headers of many instances that resemble each other, read faster than one by one.

Instances of a series have most of their elements in common, byte by byte. What a run of such elements gives is kept;
where the same bytes stand at the beginning of an element again, they are passed over at once and give the same. Any
other byte is walked through as ever, and whatever is odd about a data set is told by the walk without a memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from operator import attrgetter
from typing import Any, BinaryIO, NamedTuple

from media import datasource
from media.encoding import DEFLATED, Syntax, elements, syntax_of
from media.header import HEADER_TAGS, codecs_of, complete, fields_of, header_in, keys_of
from media.headerwalk import SOP_CLASS_UID, HeaderWalk, Plain, Run, Runs, Wanted, wanted_for
from media.items import Header
from media.problems import NotDicom

Values = tuple[Any, ...]
"""All fields of a Header, in their order: made, kept and fetched several times as fast as the object."""
_VALUES = attrgetter(*(one.name for one in fields(Header)))
_EMPTY = dict(zip((one.name for one in fields(Header)), _VALUES(Header("", "", "")), strict=True))

_LIKE = 16
"""Kinds of instances that are remembered at a time."""
_ELEMENT_LIMIT = 4096
"""Bytes of an element that is worth remembering."""
_LESSONS = 32
"""After so many surprises a memory begins anew: what differed once may be the same for long."""
_BASES = 64
"""Sets of runs of which a Header's part is remembered."""


class HeaderMemory:
    """Reads headers and remembers what they have in common. Not for several threads at a time."""

    def __init__(self) -> None:
        self._likes: dict[tuple[str, str], _Like] = {}

    def values_in(
        self, stream: BinaryIO, head: bytes, *, offset: int, transfer_syntax_uid: str, length: int, like: str = ""
    ) -> Values:
        """``media.header.header_in`` of a file that begins with ``head``; ``like``: what it may resemble others by."""
        if transfer_syntax_uid not in DEFLATED:
            window = head[offset : offset + length]
            source = datasource.from_file(stream, offset + len(window), length - len(window))
            source.data, source.whole = window, len(window) == length
            memory = self._like(transfer_syntax_uid, like)
            walk = HeaderWalk(source, memory.syntax, offset, HEADER_TAGS)
            try:
                walk.run(memory.runs)
                values = memory.values_of(walk, transfer_syntax_uid, length)
                if memory.runs.missed:
                    memory.learn(window, walk.wanted)
                return values
            except NotDicom:
                pass  # and now what and where
        return _VALUES(header_in(stream, offset=offset, transfer_syntax_uid=transfer_syntax_uid, length=length))

    def _like(self, transfer_syntax_uid: str, like: str) -> _Like:
        key = (transfer_syntax_uid, like)
        found = self._likes.get(key)
        if found is None:
            if len(self._likes) >= _LIKE:
                self._likes.clear()
            found = self._likes[key] = _Like(syntax_of(transfer_syntax_uid))
        return found


class _Base(NamedTuple):
    """What some runs make of a Header."""

    plain: Plain
    codecs: tuple[str, ...]
    wanted: Wanted
    fields: dict[str, Any]
    keys: dict[int, bytes]


class _Like:
    """What instances of one kind have in common."""

    def __init__(self, syntax: Syntax) -> None:
        self.syntax = syntax
        self.runs = Runs()
        self._bases: dict[tuple[bytes, ...], _Base] = {}
        """By the first bytes of the runs."""
        self._known: dict[int, bytes] = {}
        """The elements of the last data set that was learnt from."""
        self._other: set[int] = set()
        """Tags of elements that were not the same everywhere, or are too long."""
        self._lessons = 0

    def values_of(self, walk: HeaderWalk, transfer_syntax_uid: str, length: int) -> Values:
        """As ``header_of_walk``; what the runs make of it is made once."""
        codecs = codecs_of(walk.plain)
        base = self._base(walk, codecs)
        rest = {tag: pair for tag, pair in walk.plain.items() if tag not in base.plain}
        made = base.fields | fields_of(rest, codecs)
        complete(made, walk, base.keys | keys_of(rest, walk.wanted), transfer_syntax_uid, length)
        return tuple(made.values())

    def _base(self, walk: HeaderWalk, codecs: tuple[str, ...]) -> _Base:
        key = tuple([run.data[:4] for run in walk.again])
        base = self._bases.get(key)
        if base is None or base.codecs != codecs or base.wanted is not walk.wanted:
            if len(self._bases) >= _BASES:
                self._bases.clear()
            plain = {tag: pair for run in walk.again for tag, pair in run.plain.items()}
            made, keys = _EMPTY | fields_of(plain, codecs), keys_of(plain, walk.wanted)
            base = self._bases[key] = _Base(plain, codecs, walk.wanted, made, keys)
        return base

    def learn(self, data: bytes, wanted: Wanted) -> None:
        """Make runs of what ``data``, the beginning of a data set, has in common with those before."""
        if self._lessons == _LESSONS:
            self._known, self._other, self._lessons = {}, set(), 0
        first = not self._lessons
        self._lessons += 1
        spans = list(_spans(data, self.syntax))
        here: dict[int, bytes] = {}
        for tag, begin, end in spans:
            element = data[begin:end] if end - begin <= _ELEMENT_LIMIT else b""
            if not element or tag in here or (not first and self._known.get(tag) != element):
                self._other.add(tag)
            here[tag] = element
        self._other |= self._known.keys() - here.keys()
        self._known = here
        self.runs.missed = first
        self._bases.clear()
        self.runs.by_tag = {} if first else self._made(data, spans, wanted)

    def _made(self, data: bytes, spans: list[tuple[int, int, int]], wanted: Wanted) -> dict[bytes, Run]:
        """A run for each stretch of elements that were the same everywhere."""
        made: dict[bytes, Run] = {}
        here, start = wanted_for(None, HEADER_TAGS), -1
        ends = spans[-1][2] if spans else 0
        for tag, begin, _ in [*spans, (SOP_CLASS_UID, ends, ends)]:
            alike = tag not in self._other and tag != SOP_CLASS_UID
            if start >= 0 and not alike:
                run = _run(data[start:begin], here, self.syntax)
                if run is not None:
                    made[run.data[:4]] = run
                start = -1
            elif start < 0 and alike:
                start = begin
            if tag == SOP_CLASS_UID:  # it says what is wanted of those behind it
                here = wanted
        return made


def _spans(data: bytes, syntax: Syntax) -> Iterator[tuple[int, int, int]]:
    """Tag, begin and end of the elements at the beginning of a data set, as far as they can be told."""
    begin = 0
    try:
        for tag, _, _, end in elements(data, 0, len(data), syntax, "it"):
            if not tag:
                return  # padding
            yield tag, begin, end
            begin = end
    except NotDicom:
        pass  # cut off


def _run(data: bytes, wanted: Wanted, syntax: Syntax) -> Run | None:
    """What the walk gives of these elements alone; None where that depends on what comes before."""
    walk = HeaderWalk(datasource.from_bytes(data), syntax, 0, HEADER_TAGS)
    walk.wanted = wanted
    try:
        walk.run()
    except NotDicom:
        return None
    return None if walk.shared else Run(data, wanted, walk.plain, walk.sequences, walk.has_pixel_data)
