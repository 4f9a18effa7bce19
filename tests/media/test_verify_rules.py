"""``verify --profile`` judges attributes by the same rules as a plan does, with a reader of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from media import profiles, verify_profile
from media.part10 import locate
from media.problems import ProblemKind
from media.profile_rules import check, facts_of, rule_sets
from media.verify import verify_path
from media.verify_instance import FileValues
from media.verify_meta import read_meta
from media.verify_profile import Rules
from media.verify_read import FileRead
from media.verify_scan import scan
from tests.makers import disc_image, file_set, make
from tests.media.test_profile_rules import CONFORMING, cases, profile_with, write


def said_by_verify(path: Path, rules: Rules) -> list[str]:
    data = path.read_bytes()
    file = FileRead("IMAGE", len(data), data, lambda offset, count: data[offset : offset + count])
    meta, _ = read_meta(data)
    assert meta is not None
    found: list[str] = []
    values = scan(data, file.read, meta.dataset_offset, len(data), rules.wanted)
    tree: Any = None
    rules.check_attributes(tree, file, meta, FileValues(values), lambda kind, name, detail: found.append(detail))
    return found


@pytest.mark.parametrize("name", list(rule_sets()))
def test_verify_says_of_every_case_what_the_plan_says(name: str, tmp_path: Path) -> None:
    row = profile_with(name)
    rules = Rules(row)
    made = [(syntax, one) for syntax, one in CONFORMING[name]]
    made += [(syntax, one) for rule in rule_sets()[name] for _, syntax, one in cases(rule, CONFORMING[name])]
    for syntax, one in made:
        path = write(tmp_path, one, syntax)
        assert said_by_verify(path, rules) == [f"{found.text}." for found in check(row, facts_of(path))]


@pytest.mark.parametrize("image", [False, True])
def test_a_file_that_breaks_a_rule_is_named_with_its_clause(image: bool, tmp_path: Path) -> None:
    wrong = {"PhotometricInterpretation": "MONOCHROME1"}
    made = [make("CT", number=1), make("CT", number=2, **wrong), make("CT", number=3, **wrong)]
    folder = file_set(tmp_path / "disc", made)
    (third,) = [
        path
        for path in folder.rglob("*")
        if path.is_file() and made[2].sop_instance_uid.encode() in path.read_bytes()[:400]
    ]
    third.write_bytes(third.read_bytes() + bytes(30))  # a sloppy writer's padding
    target = disc_image(tmp_path / "disc.iso", folder) if image else folder
    result = verify_path(target, profile="STD-CTMR-CD")
    told = [one for one in result.problems if one.kind is ProblemKind.PROFILE and "Photometric" in one.detail]
    assert len({one.file for one in told}) == 2
    for problem in told:
        assert problem.detail == (
            'Photometric Interpretation (0028,0004) is "MONOCHROME1"; in a CT image it must be MONOCHROME2'
            " (PS3.11 Table E.3-3)."
        )
    plain = verify_path(target, profile="STD-GEN-CD")
    assert not [problem for problem in plain.problems if "Photometric" in problem.detail]


def test_files_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = file_set(tmp_path / "disc", [make("CT")])

    def never(*_: Any) -> None:
        raise AssertionError("a well-formed file was opened again")

    monkeypatch.setattr(verify_profile, "facts_in", never)
    verify_path(folder, profile="STD-CTMR-CD")


def test_a_damaged_sequence_is_told_not_raised(tmp_path: Path) -> None:
    syntax, made = CONFORMING["C.4"][0]
    path = write(tmp_path, made, syntax)
    data = bytearray(path.read_bytes())
    at = data.index(b"\xfe\xff\x00\xe0", locate(path).dataset_offset)
    data[at + 8 : at + 14] = b"\xff\xff\xff\xff??"
    path.write_bytes(data)
    (said,) = said_by_verify(path, Rules(profile_with("C.4")))
    assert said.startswith("Its data set is damaged: in Sequence of Ultrasound Regions (0018,6011), ")


def test_profiles_without_rules_want_nothing() -> None:
    assert Rules(None).wanted == frozenset()
    assert Rules(replace(profiles.profile("STD-CTMR-CD"), rules=())).wanted == frozenset()
