"""Rules of correction: what they may say, when they hold, what they change."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydicom.datadict import dictionary_VR, tag_for_keyword

from media.coercion import RulesError, attributes, corrections, looked_at, read_rules, rules_of

DOCS = Path(__file__).parents[2] / "docs"
NAME, PID, STATION, MODALITY = 0x00100010, 0x00100020, 0x00081010, 0x00080060
VALUES = {NAME: "Doe^Jane", PID: "P1", STATION: "OLDCT1", MODALITY: "CT"}


def changed(*documents: dict[str, Any], values: dict[int, str] = VALUES, **known: str) -> dict[int, str | None]:
    found = corrections(rules_of(documents), values, known, everything=bool(known))
    return {tag: edit.value for tag, edit in found.items()}


@pytest.mark.parametrize("keyword", attributes())
def test_every_attribute_is_as_in_ps3_6_and_is_documented(keyword: str) -> None:
    one = attributes()[keyword]
    assert tag_for_keyword(keyword) == one.tag and dictionary_VR(one.tag) == one.vr
    assert re.search(rf"\b{keyword}\b", (DOCS / "coercion.md").read_text())


def test_a_rule_that_holds_sets_empties_and_removes() -> None:
    rule = {
        "name": "r",
        "when": {"StationName": "OLDCT*", "Modality": ["PT", "CT"]},
        "set": {"StationName": "CT2", "WindowCenter": [40, 50.5]},
        "empty": ["PatientSex"],
        "remove": ["PatientComments", "StudyDescription"],
    }
    values = VALUES | {0x00100040: "F", 0x00104000: "secret"}
    assert changed(rule, values=values) == {STATION: "CT2", 0x00281050: "40\\50.5", 0x00100040: "", 0x00104000: None}
    assert changed(rule, values=values | {MODALITY: "MR"}) == {}


@pytest.mark.parametrize(
    ("pattern", "value", "holds"),
    [
        ("", "", True), ("", "x", False), ("*", "", True), ("?*", "", False), ("A?C", "ABC", True),
        ("abc", "ABC", False), ("a.c", "abc", False),
        (["x", "y"], "y", True), (7, "7", True), ("B", "A\\B", True), ("A\\B", "A\\B", True),
    ],
)  # fmt: skip
def test_conditions(pattern: Any, value: str, holds: bool) -> None:
    rule = {"name": "r", "when": {"SeriesDescription": pattern}, "set": {"StationName": "X"}}
    assert (STATION in changed(rule, values={0x0008103E: value})) is holds


def test_the_later_rule_counts_and_conditions_see_what_was_received() -> None:
    one = {"name": "1", "set": {"StationName": "A"}}
    two = {"name": "2", "when": {"StationName": "OLDCT1"}, "set": {"StationName": "B"}}
    assert changed(one, two) == {STATION: "B"}
    assert changed({"name": "back", "set": {"StationName": "OLDCT1"}}) == {}  # as it is
    assert changed(one, {"name": "back", "set": {"StationName": "OLDCT1"}}) == {}


def test_the_catalogue_fills_and_corrects_but_never_empties() -> None:
    found = changed(PatientName="Doe^Jane^A", StudyDescription="Head", AccessionNumber="", StationName="no")
    assert found == {NAME: "Doe^Jane^A", 0x00081030: "Head"}
    assert changed({"name": "r", "set": {"PatientName": "X"}}, PatientName="Doe^Jane^A") == {NAME: "X"}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"set": {"StationName": "X"}}, "rule 1 needs a name"),
        ({"name": "r"}, "rule r changes nothing"),
        ({"name": "r", "sets": {}}, "rule r has sets"),
        ({"name": "r", "set": {"PixelData": "x"}}, "'PixelData' is not corrected by rules"),
        ({"name": "r", "set": {"SOPInstanceUID": "1.2"}}, "'SOPInstanceUID' is not corrected"),
        ({"name": "r", "set": {"PatientID": ""}}, "PatientID must not be empty"),
        ({"name": "r", "empty": ["PatientID"]}, "PatientID must not be empty"),
        ({"name": "r", "remove": ["PatientName"]}, "PatientName must not be taken out"),
        ({"name": "r", "set": {"PixelPaddingValue": 0}}, "can only be taken out"),
        ({"name": "r", "empty": ["PixelPaddingValue"]}, "can only be taken out"),
        ({"name": "r", "set": {"PatientBirthDate": "1.2.1960"}}, "is no value of PatientBirthDate (VR DA"),
        ({"name": "r", "set": {"StudyTime": "25"}}, "VR TM"),
        ({"name": "r", "set": {"WindowWidth": "wide"}}, "VR DS"),
        ({"name": "r", "set": {"SeriesNumber": 1.5}}, "VR IS"),
        ({"name": "r", "set": {"Modality": "ct"}}, "VR CS"),
        ({"name": "r", "set": {"StationName": "x" * 17}}, "VR SH"),
        ({"name": "r", "set": {"StationName": "a\x00b"}}, "VR SH"),
        ({"name": "r", "set": {"StudyDescription": "a\\b"}}, "VR LO"),
        ({"name": "r", "set": {"PatientName": "a=b=c=d"}}, "VR PN"),
        ({"name": "r", "set": {"StationName": True}}, "no text, number or list"),
        ({"name": "r", "set": {"StationName": "X"}, "empty": ["StationName"]}, "two things of one attribute"),
        ({"name": "r", "set": {"StationName": "X"}, "when": {"Nothing": "x"}}, "'Nothing' is no keyword"),
        ({"name": "r", "set": {"StationName": "X"}, "when": {"Modality": []}}, "condition on Modality"),
        ({"name": "r", "set": {"StationName": "X"}, "when": []}, "when is no table"),
        ({"name": "r", "remove": "StationName"}, "remove is no list"),
        ({"name": "r", "from_catalogue": ["StudyID"]}, "from_catalogue may name PatientName"),
        ("rule", "rule 1 is no table"),
    ],
)
def test_wrong_rules_are_told(document: Any, words: str) -> None:
    with pytest.raises(RulesError, match=re.escape(words)):
        rules_of([document])


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text('[[rule]]\nname = "r"\nwhen = { Rows = 512 }\nset = { StationName = "CT2" }\n')
    documents = read_rules(path)
    assert looked_at(rules_of(documents)) == {STATION, 0x00280010}
    for text, words in (
        ("name = 1", "and has name"),
        ("[[rule", "no TOML"),
        ("[rule]\n", "a table"),
        ('[[rule]]\nname = "r"', "rules.toml: rule r changes nothing"),
        ("#" * (1 << 20) + "\n", "longer than"),
    ):
        path.write_text(text)
        with pytest.raises(RulesError, match=re.escape(words)):
            read_rules(path)
    with pytest.raises(RulesError, match="cannot be read"):
        read_rules(tmp_path / "none")


def test_the_examples_of_the_documentation_are_right(tmp_path: Path) -> None:
    examples = re.findall(r"```toml\n(.*?)```", (DOCS / "coercion.md").read_text(), re.DOTALL)
    path = tmp_path / "rules.toml"
    counts = []
    for example in examples:
        path.write_text(example)
        counts.append(len(read_rules(path)))
    assert counts == [1, 2]


def test_what_is_absent_is_not_put_there_to_be_empty() -> None:
    rule = {"name": "r", "empty": ["PatientComments", "PatientSex", "StudyID"], "set": {"StudyDescription": ""}}
    assert changed(rule, values=VALUES | {0x00100040: "F", 0x00200010: ""}) == {0x00100040: ""}
