"""What is compressed and how: policy by SOP class, modality and profile, protection, leave for lossy compression."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from config.sections import Compress, CompressQuality
from config.settings import load
from jobs.checking import Candidate
from jobs.compression import Compression, problems
from jobs.editing import spare_shown
from jobs.options import OptionsError, RequestOptions
from media.profiles import profile
from media.recipes import is_lossy
from service.checks import wrong_settings

CT, MG, TOMO = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.1.2", "1.2.840.10008.5.1.4.1.1.13.1.3"
EXPLICIT_LE, JPEG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50"
J2K = profile("STD-GEN-DVD-J2K")


@dataclass
class Row:
    sop_class_uid: str = CT
    modality: str = "CT"
    transfer_syntax_uid: str = EXPLICIT_LE
    sop_instance_uid: str = "1.2.3"
    photometric_interpretation: str = "MONOCHROME2"
    has_pixel_data: bool = True


def policy(**values: Any) -> Compress:
    return load().compress.model_copy(update=values)


def decide(row: Row, settings: Compress, *, lossy_already: bool = False, **request: Any) -> tuple[str | None, str]:
    found = Compression(settings, **request).decide(row, J2K, is_lossy_already=lambda: lossy_already)
    return found.recipe, found.note


def test_the_most_particular_setting_counts() -> None:
    settings = policy(
        default="none",
        profiles={"STD-GEN-DVD-J2K": "lossless"},
        modalities={"CT": "keep", "MR": "none"},
        sop_classes={MG: "lossless"},
    )
    compression = Compression(settings)
    assert compression.mode(Row(modality="US"), J2K) == "lossless"
    assert compression.mode(Row(), J2K) == "keep"
    assert compression.mode(Row(modality="MR"), J2K) == "none"
    assert compression.mode(Row(MG, "MR"), J2K) == "lossless"
    assert compression.mode(Row(modality="US"), profile("STD-GEN-CD")) == "none"
    assert Compression(settings, "lossless").mode(Row(), J2K) == "lossless"  # the request's own word


def test_lossy_needs_the_requests_leave() -> None:
    settings = policy(modalities={"CT": "lossy"})
    recipe, note = decide(Row(), settings)
    assert recipe is not None and not is_lossy(recipe) and note == "the request does not allow lossy compression"
    recipe, note = decide(Row(), settings, allow_lossy=True)
    assert recipe is not None and is_lossy(recipe) and not note
    recipe, note = decide(Row(has_pixel_data=False), settings, allow_lossy=True)
    assert recipe is None and not note


@pytest.mark.parametrize("row", [Row(MG, "MG"), Row(MG, "OT"), Row(TOMO, "OT"), Row(CT, "MG")])
def test_mammography_is_never_compressed_lossily(row: Row) -> None:
    recipe, note = decide(row, policy(), wanted="lossy", allow_lossy=True)
    assert recipe is not None and not is_lossy(recipe) and "protected" in note


def test_what_is_protected_is_a_setting() -> None:
    settings = policy(protected_modalities=("XA",), protected_sop_classes=())
    recipe, _ = decide(Row(MG, "MG"), settings, wanted="lossy", allow_lossy=True)
    assert recipe is not None and is_lossy(recipe)
    recipe, note = decide(Row(modality="XA"), settings, wanted="lossy", allow_lossy=True)
    assert recipe is not None and not is_lossy(recipe) and "modality XA is protected" in note


def test_what_is_lossy_already_is_compressed_losslessly() -> None:
    recipe, note = decide(Row(), policy(), lossy_already=True, wanted="lossy", allow_lossy=True)
    assert recipe is not None and not is_lossy(recipe) and "compressed lossily before" in note
    recipe, _ = decide(Row(), policy(lossy_again=True), lossy_already=True, wanted="lossy", allow_lossy=True)
    assert recipe is not None and is_lossy(recipe)


def test_quality_by_modality() -> None:
    settings = policy(quality={"CT": CompressQuality(ratio=5)}, j2k_ratio=12)
    one, _ = decide(Row(), settings, wanted="lossy", allow_lossy=True)
    other, _ = decide(Row(modality="MR"), settings, wanted="lossy", allow_lossy=True)
    assert one is not None and "-r5/" in one
    assert other is not None and "-r12/" in other


def test_a_request_that_wants_lossy_must_allow_it() -> None:
    settings = load()
    with pytest.raises(OptionsError, match="allow_lossy"):
        RequestOptions.from_settings(settings, {"compress": "lossy"})
    assert RequestOptions.from_settings(settings, {"compress": "lossy", "allow_lossy": True}).allow_lossy
    assert RequestOptions.from_settings(settings, {}).compress == ""
    # A request of before this option.
    old = RequestOptions.from_settings(settings, {}).to_json()
    del old["allow_lossy"]
    assert RequestOptions.from_json(old).allow_lossy is False


def test_a_corrected_modality_lifts_no_protection() -> None:
    found = Compression(policy(), "lossy", True).decide(
        Row(modality="OT"), J2K, is_lossy_already=lambda: False, received_as="MG"
    )
    assert found.recipe is not None and not is_lossy(found.recipe) and "modality MG is protected" in found.note


def _candidate(key: int, kind: str, recipe: str | None, instead: str | None = None) -> Candidate:
    row: Any = SimpleNamespace(id=key, sop_instance_uid=f"1.2.{key}")
    return Candidate(row, kind, recipe, (), instead)


@pytest.mark.parametrize("kind", ["PRESENTATION", "VALUE MAP"])
def test_what_a_presentation_state_shows_is_not_shifted(kind: str) -> None:
    candidates = [
        _candidate(1, "IMAGE", "jpeg-extended-q90/1", "jpeg-lossless/1"),
        _candidate(2, "IMAGE", "jpeg-extended-q90/1", "jpeg-lossless/1"),
        _candidate(3, "IMAGE", "j2k-lossy-r8/1", "j2k/1"),
        _candidate(4, "IMAGE", None),
        _candidate(5, kind, None),
        _candidate(6, "SR DOCUMENT", None),
    ]
    made = spare_shown(candidates, {5: frozenset(("1.2.1", "1.2.3", "1.2.4")), 6: frozenset(("1.2.2",))})
    assert [candidate.recipe for candidate in made] == [
        "jpeg-lossless/1", "jpeg-extended-q90/1", "j2k-lossy-r8/1", None, None, None
    ]  # fmt: skip
    assert "presentation state" in made[0].note and not any(candidate.note for candidate in made[1:])
    assert spare_shown(candidates, {}) == candidates


def test_settings_that_would_protect_nothing_are_told() -> None:
    assert problems(policy()) == []
    wrong = policy(
        profiles={"STD-GEN-XX": "lossy"}, protected_modalities=("mg",), protected_sop_classes=("1.2.", "Mammo"),
        modalities={"ct": "lossy"}, sop_classes={CT: "none"},
    )  # fmt: skip
    assert problems(wrong) == [
        "compress.profiles: there is no profile 'STD-GEN-XX'",
        "compress.protected_sop_classes: '1.2.' is no UID",
        "compress.protected_sop_classes: 'Mammo' is no UID",
        "compress.modalities: 'ct' is no modality",
        "compress.protected_modalities: 'mg' is no modality",
    ]


def test_a_start_is_refused_with_wrong_corrections(tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text("[[rule]]\nname = 'x'\n")
    settings = load(
        data=tmp_path, overrides={"coerce": {"rules": "rules.toml"}, "compress": {"modalities": {"x": "none"}}}
    )
    found = wrong_settings(settings)
    assert any(line.startswith("coerce: ") and "rule x changes nothing" in line for line in found)
    assert "compress.modalities: 'x' is no modality" in found
