"""What a data set says once its image was compressed with loss (PS3.3 C.7.6.1.1.3 and C.7.6.1.1.5).

Image Type DERIVED, Derivation Description with its history, Source Image Sequence and Derivation Code Sequence with
codes of PS3.16 (context groups 7202 and 7203), Lossy Image Compression, its Ratio and Method appended.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from media import pixels
from media.compress import Unsuitable
from media.encoders import Encoder
from media.framewriter import Rewrite, derived, pixel_rewrite
from media.lossy import INTERCEPT, MODALITY_LUT, RESCALE_TYPE, SLOPE, Survey, rescaled
from media.syntaxes import transfer_syntax

_IMAGE_TYPE, _SOP_CLASS = 0x00080008, 0x00080016
_DERIVATION_DESCRIPTION, _SOURCE_IMAGE, _DERIVATION_CODE = 0x00082111, 0x00082112, 0x00089215
_SMALLEST, _LARGEST = 0x00280106, 0x00280107
_IN_SERIES = (0x00280108, 0x00280109, 0x00280110, 0x00280111)
"""Smallest and Largest Pixel Value in Series and in Plane."""
_PADDING = (0x00280120, 0x00280121)
_LOSSY, _RATIO, _METHOD = 0x00282110, 0x00282112, 0x00282114
_FUNCTIONAL_GROUPS = (0x52009229, 0x52009230)
_DESCRIPTION_LIMIT = 1024
"""Characters of an ST; ours are all ASCII, and others' are counted as bytes."""
_LONGEST = 1 << 15
"""Bytes of a text to which we append."""


@dataclass(frozen=True, slots=True)
class Code:
    """An item of a code sequence, with the context group that it is from (PS3.3 8)."""

    value: str
    meaning: str
    context: str


PREDECESSOR = Code("121320", "Uncompressed predecessor", "7202")
LOSSY_COMPRESSION = Code("113040", "Lossy Compression", "7203")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of the frames."""

    compressed_bytes: int
    smallest: int
    """Of the samples as they decode."""
    largest: int


def lossy_rewrite(survey: Survey, encoder: Encoder, original_uid: str, outcome: Outcome) -> Rewrite:
    """All that changes in the top level of the instance. Unsuitable where it cannot be said.

    ``original_uid`` is the SOP Instance UID of the image before.
    """
    treatment, values = survey.treatment, survey.values
    assert treatment is not None
    after = treatment.after
    if after.samples == 3:
        after = replace(after, photometric=encoder.rgb)
    found = pixel_rewrite(treatment.before, after)
    ratio = max(treatment.before.pixel_bytes / outcome.compressed_bytes, 0.01)
    found.derived_frames = any(tag in survey.sequences for tag in _FUNCTIONAL_GROUPS)
    _say_derived(found, values, encoder, ratio)
    _append_items(found, survey, pixels.text(values, _SOP_CLASS), original_uid)
    _append_method(found, values, encoder, ratio)
    if treatment.moves:
        for tag, new in zip((INTERCEPT, SLOPE), rescaled(values, treatment), strict=True):
            found.set_text(tag, "DS", new, pixels.text(values, tag))
        if RESCALE_TYPE not in values:
            kind = survey.lut_type if treatment.modality_lut is not None else ""
            if kind or (INTERCEPT not in values and SLOPE not in values):
                found.set_text(RESCALE_TYPE, "LO", kind or "US", "")
    if treatment.modality_lut is not None:
        found.drops[MODALITY_LUT] = "it is applied to the samples"
    for tag in _PADDING:
        found.drops[tag] = "samples of a lossy codec are near it, not equal to it"
    for tag in _IN_SERIES:
        found.drops[tag] = "what it is after compression is not known here"
    for tag, number in ((_SMALLEST, outcome.smallest), (_LARGEST, outcome.largest)):
        if tag in values:
            signed = treatment.after.signed
            old = int.from_bytes(values[tag][:2], "little", signed=treatment.before.signed)
            found.set(
                tag, "SS" if signed else "US", struct.pack("<h" if signed else "<H", number), str(old), str(number)
            )
    return found


def _say_derived(found: Rewrite, values: dict[int, bytes], encoder: Encoder, ratio: float) -> None:
    old = values.get(_IMAGE_TYPE, b"")
    new = derived(old)
    if len(new) > _LONGEST:
        raise Unsuitable("its Image Type is too long")
    found.set(_IMAGE_TYPE, "CS", new, pixels.text(values, _IMAGE_TYPE), new.decode("latin-1").strip())
    how = f"quality {encoder.parameter}" if encoder.letter == "q" else f"for a ratio of {encoder.parameter}"
    line = f"DRS: {transfer_syntax(encoder.syntax).name}, {how}, ratio {ratio:.2f}, by Burnish"
    before = values.get(_DERIVATION_DESCRIPTION, b"").rstrip(b"\0 ")
    text = line.encode("ascii")
    for kept in before.split(b"\r\n") if before else ():
        if len(text) + 2 + len(kept) > _DESCRIPTION_LIMIT:
            break  # the oldest go first; a line is never cut, which may be in any character set
        text += b"\r\n" + kept
    words = before.decode("ascii") if before.isascii() else "present"
    new_words = line if not before else f"{line}; then what was there before"
    found.set(_DERIVATION_DESCRIPTION, "ST", text + b" " * (len(text) % 2), words, new_words)


def _append_items(found: Rewrite, survey: Survey, sop_class: str, original_uid: str) -> None:
    if not (_is_uid(sop_class) and _is_uid(original_uid)):
        raise Unsuitable("its SOP Class UID or SOP Instance UID is none, so that nothing can refer to it")
    source = _element(0x00081150, "UI", sop_class) + _element(0x00081155, "UI", original_uid)
    purpose = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(_code(PREDECESSOR))) + _code(PREDECESSOR)
    source += struct.pack("<HH2sHI", 0x0040, 0xA170, b"SQ", 0, len(purpose)) + purpose
    for tag, content, words in (
        (_SOURCE_IMAGE, source, f"item added: {original_uid}, {PREDECESSOR.meaning}"),
        (_DERIVATION_CODE, _code(LOSSY_COMPRESSION), f"item added: {LOSSY_COMPRESSION.meaning}"),
    ):
        if tag in survey.values:
            raise Unsuitable(f"its {_NAMES[tag]} has a VR that is no sequence")
        found.items[tag] = content
        found.changes.append((tag, "present" if tag in survey.sequences else "", words))


_NAMES = {_SOURCE_IMAGE: "Source Image Sequence", _DERIVATION_CODE: "Derivation Code Sequence"}


def _is_uid(text: str) -> bool:
    return 0 < len(text) <= 64 and set(text) <= set("0123456789.")


def _append_method(found: Rewrite, values: dict[int, bytes], encoder: Encoder, ratio: float) -> None:
    found.set_text(_LOSSY, "CS", "01", pixels.text(values, _LOSSY))
    for tag, vr, new in ((_RATIO, "DS", f"{ratio:.2f}"), (_METHOD, "CS", encoder.method)):
        old = pixels.text(values, tag)
        if len(old) > _LONGEST or not old.isascii():
            raise Unsuitable("what it says of earlier lossy compression cannot be read")
        found.set_text(tag, vr, f"{old}\\{new}" if old else new, old)


def _code(code: Code) -> bytes:
    """The content of an item of a code sequence."""
    return b"".join(
        (
            _element(0x00080100, "SH", code.value),
            _element(0x00080102, "SH", "DCM"),
            _element(0x00080104, "LO", code.meaning),
            _element(0x00080105, "CS", "DCMR"),
            _element(0x00080106, "DT", "20020904"),
            _element(0x0008010B, "CS", "N"),
            _element(0x0008010F, "CS", code.context),
        )
    )


def _element(tag: int, vr: str, text: str) -> bytes:
    value = text.encode("ascii")
    value += (b"\0" if vr == "UI" else b" ") * (len(value) % 2)
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode("ascii"), len(value)) + value
