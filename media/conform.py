"""What must change in an instance so that a profile allows it, and the changing of it.

One recipe is Explicit VR Little Endian, pixel data decoded; the others compress it losslessly (config/codecs.toml).
The SOP Instance UID stays where no sample changes, unless the caller's edits say otherwise (media/editing.py).
Text keeps its bytes and character set, unknown and private elements are kept, attributes about lossy compression
stay as they are; dropped without mention are group lengths and trailing padding (PS3.10 7.2, PS3.5 7.2).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from media.codestreams import FrameError
from media.compress import FrameCollector, Unsuitable
from media.derivation import Outcome, lossy_rewrite
from media.editing import edit_instance
from media.edits import Edits
from media.elements import PIXEL_DATA
from media.encoders import Encoder, encoder_of
from media.explicit import ExplicitWriter
from media.framewriter import FrameWriter, Rewrite, merged, pixel_rewrite
from media.header import read_header
from media.items import Change, Header
from media.lossy import LossyCollector, Survey
from media.normalise import Emitter, Normaliser, RedoWithBits, as_changes
from media.part10 import CHUNK, EXPLICIT_LE, file_meta, locate
from media.problems import InstanceRefused, MediaError, NotDicom
from media.quick import compress_quickly
from media.recipes import EDIT_RECIPE, is_lossy, recipe_syntax
from media.syntaxes import transfer_syntax


@dataclass(frozen=True, slots=True)
class ConformResult:
    """A conformed file and all that was changed in it."""

    changes: tuple[Change, ...]
    """Under the SOP Instance UID that the instance had."""
    size: int
    """Bytes of the whole file."""
    sha256: str
    """Digest of the whole file, lower-case hex."""
    transfer_syntax_uid: str
    directory_keys: bytes | None = None
    """``Header.directory_keys`` of the new file; None: they are the source's."""
    new_sop_instance_uid: str = ""
    """``""``: it kept its own."""
    facts: Mapping[str, Any] | None = None
    """Fields of ``Header`` that are others than the source's, by name; None: none of them can be. Where one tells who
    the patient is, all of ``IDENTITY`` are here."""


def conform(source: Path, target: Path, recipe: str, *, edits: Edits | None = None) -> ConformResult:
    """Write ``source`` as ``recipe`` says, with ``edits`` made first, to ``target``: complete and synced or not at all.

    The same source, recipe and edits give the same bytes. A lossy recipe needs a new SOP Instance UID in the edits.
    InstanceRefused names instance, frame or element and reason; MediaError a target that cannot be written. Decoders
    may crash on hostile data: call it in a helper process.
    """
    recipe_syntax(recipe)
    if is_lossy(recipe) and not (edits and edits.new_sop_instance_uid):
        raise MediaError(f"Recipe {recipe!r} needs a new SOP Instance UID")
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        if edits or recipe == EDIT_RECIPE:
            result = _edited(source, part, recipe, edits or Edits())
        else:
            result = _recoded(source, part, recipe, "")
        part.replace(target)
    except NotDicom as error:
        raise InstanceRefused("PROC_FAILURE", str(error)) from error
    except OSError as error:
        raise MediaError(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
    return result


def _recoded(source: Path, part: Path, recipe: str, original_uid: str) -> ConformResult:
    """``original_uid``: the SOP Instance UID that the source had before it was edited."""
    encoder = encoder_of(recipe)
    if encoder is None:
        return _conform(source, part)
    if quick := compress_quickly(source, part, encoder):
        changes = as_changes(quick.sop_instance_uid, quick.changes)
        return ConformResult(changes, quick.size, quick.sha256, encoder.syntax)
    return _compress(source, part, encoder, original_uid)


def _edited(source: Path, part: Path, recipe: str, edits: Edits) -> ConformResult:
    """In two steps: the edits in the source's own encoding, then the recipe on what came of them."""
    between = part if recipe == EDIT_RECIPE else part.with_name(f"{part.name}.edited")
    try:
        edited = edit_instance(source, between, edits)
        if recipe == EDIT_RECIPE:
            result = _measured(part)
        else:
            try:
                result = _recoded(between, part, recipe, edited.sop_instance_uid)
            except NotDicom as error:
                raise NotDicom(str(error).replace(str(between), str(source))) from None
            except InstanceRefused as error:
                new, old = edits.new_sop_instance_uid or edited.sop_instance_uid, edited.sop_instance_uid
                raise InstanceRefused(error.code, error.reason.replace(new, old)) from None
    finally:
        if between is not part:
            between.unlink(missing_ok=True)
    before, after = read_header(source), read_header(part)
    facts = {name: getattr(after, name) for name in FACTS if getattr(after, name) != getattr(before, name)}
    if facts.keys() & set(IDENTITY):
        facts |= {name: getattr(after, name) for name in IDENTITY}
    changes = tuple(replace(change, sop_instance_uid=edited.sop_instance_uid) for change in result.changes)
    return replace(
        result,
        changes=(*edited.changes, *changes),
        directory_keys=after.directory_keys,
        new_sop_instance_uid=edits.new_sop_instance_uid,
        facts=facts,
    )


def _measured(part: Path) -> ConformResult:
    """An edited file as it lies there, made durable."""
    digest = hashlib.sha256()
    with part.open("r+b") as stream:
        while piece := stream.read(CHUNK):
            digest.update(piece)
        os.fsync(stream.fileno())
        size = stream.tell()
    return ConformResult((), size, digest.hexdigest(), locate(part).transfer_syntax_uid)


FACTS = tuple(
    field.name
    for field in fields(Header)
    if field.name not in ("directory_keys", "dataset_bytes", "sop_instance_uid", "transfer_syntax_uid")
)
"""Fields of a Header that an edit may change and that are told with the result."""
IDENTITY = ("patient_id", "issuer_of_patient_id", "patient_name", "patient_birth_date", "study_instance_uid")
"""What makes a patient different from others (``store.registration.patient_identity``)."""


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


def _compress(source: Path, part: Path, encoder: Encoder, original_uid: str) -> ConformResult:
    """Pixel data that the encoder does not suit stays uncompressed, and the changes say why."""
    frames = part.with_name(f"{part.name}.frames")
    try:
        with frames.open("w+b") as store, part.open("wb") as stream:
            try:
                first, collector, bits, rewrite = _collected(source, encoder, store, original_uid)
            except Unsuitable as reason:
                return _conform(source, part, ((PIXEL_DATA, "", f"not compressed: {reason}"),))
            if rewrite is None:
                return _conform(source, part)
            store.flush()
            normaliser = Normaliser(source, locate(source), bits=bits)
            normaliser.survey()
            writer = ExplicitWriter(stream)
            writer.write(file_meta(first.sop_class_uid, first.sop_instance_uid, encoder.syntax))
            emitter = FrameWriter(writer, store, collector.lengths, rewrite, consume=not first.decodes)
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


def _collected(
    source: Path, encoder: Encoder, store: BinaryIO, original_uid: str
) -> tuple[Normaliser, FrameCollector, dict[int, int], Rewrite | None]:
    """The first run: compressed frames in ``store``, and what changes around them; None where there are no frames."""
    survey = _run(source, lambda _: Survey(encoder))[1] if encoder.lossy else None

    def begin(_: Normaliser) -> FrameCollector:
        store.seek(0)
        store.truncate()
        if survey is not None and survey.treatment is not None:
            return LossyCollector(encoder, store, survey.treatment)
        return FrameCollector(encoder, store)

    normaliser, collector, bits = _run(source, begin)
    if collector.before is None or collector.after is None:
        return normaliser, collector, bits, None
    if survey is not None and isinstance(collector, LossyCollector):
        outcome = Outcome(sum(collector.lengths), collector.smallest, collector.largest)
        return normaliser, collector, bits, lossy_rewrite(survey, encoder, original_uid, outcome)
    return normaliser, collector, bits, pixel_rewrite(collector.before, collector.after)


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
