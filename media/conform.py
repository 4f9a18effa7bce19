"""What must change in an instance so that a profile allows it, and the changing of it.

One recipe is Explicit VR Little Endian, pixel data decoded; the others compress it losslessly (config/codecs.toml).
The SOP Instance UID stays, since no sample changes.
Text keeps its bytes and character set, unknown and private elements are kept, attributes about lossy compression
stay as they are; dropped without mention are group lengths and trailing padding (PS3.10 7.2, PS3.5 7.2).
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

from media.codecs import FrameError, require_decodable, transfer_syntax
from media.compress import FrameCollector, FrameWriter, Unsuitable, merged
from media.elements import PIXEL_DATA
from media.encoders import Encoder, encoders
from media.items import Change
from media.normalise import Emitter, Normaliser, RedoWithBits, as_changes
from media.part10 import EXPLICIT_LE, LONG_VRS, file_meta, locate
from media.problems import InstanceRefused, MediaError, NotDicom
from media.profiles import Profile

EXPLICIT_LE_RECIPE = "explicit-le/1"
"""Name and version: the version rises when the same source would give other bytes (it is a cache key)."""
RECIPES = {EXPLICIT_LE_RECIPE: EXPLICIT_LE} | {name: encoder.syntax for name, encoder in encoders().items()}
"""Transfer syntax that each recipe writes."""


class Described(Protocol):
    """What ``recipe_for`` needs to know of an instance; a Header or a row of the spool will do."""

    @property
    def transfer_syntax_uid(self) -> str: ...
    @property
    def sop_class_uid(self) -> str: ...
    @property
    def sop_instance_uid(self) -> str: ...
    @property
    def has_pixel_data(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class ConformResult:
    """A conformed file and all that was changed in it."""

    changes: tuple[Change, ...]
    size: int
    """Bytes of the whole file."""
    sha256: str
    """Digest of the whole file, lower-case hex."""
    transfer_syntax_uid: str


COMPRESS = ("none", "lossless", "keep")
"""Uncompressed throughout; losslessly compressed where the profile has a syntax for it; as received where it may be."""


def recipe_for(instance: Described, profile: Profile, compress: str = "none") -> str | None:
    """How this instance must be changed for this profile; None: it goes on the disc byte for byte.

    ``compress`` is one of ``COMPRESS``. What is compressed already, in a syntax that the profile allows, is not
    compressed again. InstanceRefused, without looking into any file, for a transfer syntax that the profile does not
    allow and that we cannot decode, and where we cannot make any that it allows.
    """
    syntax = transfer_syntax(instance.transfer_syntax_uid)
    writes, holds = profile.may_write(instance.sop_class_uid), profile.may_hold(instance.sop_class_uid)
    if compress == "keep" and syntax.uid in holds:
        return None
    if compress == "lossless" and instance.has_pixel_data:
        if syntax.codec not in ("", "none") and syntax.uid in holds:
            return None
        for recipe, encoder in encoders().items():
            if encoder.syntax in holds and not syntax.refused:
                return recipe
    if syntax.uid in writes:
        return None
    if not {*writes, *holds}.intersection(RECIPES.values()):
        reason = f"{profile.syntax_violation(instance.sop_class_uid, syntax.uid)}, and none of these is encoded here"
        raise InstanceRefused("INST_AP_CONFLICT", reason)
    require_decodable(syntax, instance.sop_instance_uid)
    if EXPLICIT_LE in writes:
        return EXPLICIT_LE_RECIPE
    for recipe, encoder in encoders().items():
        if encoder.syntax in writes and instance.has_pixel_data:
            return recipe
    reason = f"{profile.syntax_violation(instance.sop_class_uid, EXPLICIT_LE)}, and it has no pixel data to compress"
    raise InstanceRefused("INST_AP_CONFLICT", reason)


def conform(source: Path, target: Path, recipe: str) -> ConformResult:
    """Write ``source`` as ``recipe`` says to ``target``, complete and synced or not at all.

    The same source and recipe give the same bytes. InstanceRefused names instance, frame or element and reason;
    MediaError a target that cannot be written. Decoders may crash on hostile data: call it in a helper process.
    """
    if recipe not in RECIPES:
        raise MediaError(f"There is no recipe {recipe!r}")
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    encoder = encoders().get(recipe)
    try:
        result = _compress(source, part, encoder) if encoder else _conform(source, part)
        part.replace(target)
    except NotDicom as error:
        raise InstanceRefused("PROC_FAILURE", str(error)) from error
    except OSError as error:
        raise MediaError(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
    return result


def _conform(source: Path, part: Path, note: tuple[tuple[int, str, str], ...] = ()) -> ConformResult:
    with part.open("wb") as stream:

        def begin(normaliser: Normaliser) -> ExplicitWriter:
            stream.seek(0)
            stream.truncate()
            writer = ExplicitWriter(stream)
            writer.write(file_meta(normaliser.sop_class_uid, normaliser.sop_instance_uid, EXPLICIT_LE))
            return writer

        normaliser, writer, _ = _run(source, begin)
        size, digest = writer.finish()
        os.fsync(stream.fileno())
    changes = as_changes(normaliser.sop_instance_uid, [*normaliser.changes, *note])
    return ConformResult(changes, size, digest, EXPLICIT_LE)


def _compress(source: Path, part: Path, encoder: Encoder) -> ConformResult:
    """Pixel data that the encoder does not suit stays uncompressed, and the changes say why."""
    frames = part.with_name(f"{part.name}.frames")
    try:
        with frames.open("w+b") as store, part.open("wb") as stream:

            def begin(_: Normaliser) -> FrameCollector:
                store.seek(0)
                store.truncate()
                return FrameCollector(encoder, store)

            try:
                first, collector, bits = _run(source, begin)
            except Unsuitable as reason:
                return _conform(source, part, ((PIXEL_DATA, "", f"not compressed: {reason}"),))
            if collector.after is None:
                return _conform(source, part)
            store.flush()
            normaliser = Normaliser(source, locate(source), bits=bits)
            normaliser.survey()
            writer = ExplicitWriter(stream)
            writer.write(file_meta(first.sop_class_uid, first.sop_instance_uid, encoder.syntax))
            emitter = FrameWriter(writer, collector, store, consume=not first.decodes)
            normaliser.run(emitter)
            size, digest = writer.finish()
            os.fsync(stream.fileno())
    finally:
        frames.unlink(missing_ok=True)
    syntax = (
        0x00020010,
        str(transfer_syntax(locate(source).transfer_syntax_uid)),
        str(transfer_syntax(encoder.syntax)),
    )
    found = merged([*normaliser.changes, *emitter.changes, syntax])
    return ConformResult(as_changes(first.sop_instance_uid, found), size, digest, encoder.syntax)


_Run = TypeVar("_Run", bound=Emitter)


def _run(source: Path, begin: Callable[[Normaliser], _Run]) -> tuple[Normaliser, _Run, dict[int, int]]:
    """One run to a new emitter, begun anew where pixel data turns out to have more bits than it says."""
    located = locate(source)
    bits: dict[int, int] = {}
    while True:
        normaliser = Normaliser(source, located, bits=bits)
        normaliser.survey()
        emitter = begin(normaliser)
        try:
            normaliser.run(emitter)
        except RedoWithBits as redo:
            if redo.at in bits:
                raise NotDicom(f"{source}: the frames of its pixel data differ in their number of bits") from None
            bits[redo.at] = redo.bits_stored
        except FrameError as error:
            raise InstanceRefused("PROC_FAILURE", f"Instance {normaliser.sop_instance_uid}: {error}") from None
        else:
            return normaliser, emitter, bits


class ExplicitWriter:
    """Emits elements to a file as Explicit VR Little Endian (PS3.5 A.2); sequences and items of undefined length."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()
        self._size = 0
        self._buffer = bytearray()

    def write(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) >= 1 << 18:
            self._flush()

    def _flush(self) -> None:
        self._digest.update(self._buffer)
        self._stream.write(self._buffer)
        self._size += len(self._buffer)
        self._buffer = bytearray()

    def finish(self) -> tuple[int, str]:
        """Bytes written and their SHA-256."""
        self._flush()
        self._stream.flush()
        return self._size, self._digest.hexdigest()

    def value(self, tag: int, vr: str, length: int, pieces: Iterator[bytes]) -> None:
        self._head(tag, vr, length)
        for piece in pieces:
            self.write(piece)

    def _head(self, tag: int, vr: str, length: int) -> None:
        code = vr.encode("ascii")
        if vr in LONG_VRS:
            self.write(struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, code, 0, length))
        else:
            self.write(struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, code, length))

    def raw_sequence(self, tag: int) -> Callable[[bytes], None]:
        self._head(tag, "UN", 0xFFFFFFFF)
        return self.write

    def begin_sequence(self, tag: int) -> None:
        self._head(tag, "SQ", 0xFFFFFFFF)

    def begin_item(self) -> None:
        self.write(b"\xfe\xff\x00\xe0\xff\xff\xff\xff")

    def end_item(self) -> None:
        self.write(b"\xfe\xff\x0d\xe0\0\0\0\0")

    def end_sequence(self, tag: int) -> None:
        self.write(b"\xfe\xff\xdd\xe0\0\0\0\0")
