"""README.TXT: everything IHE PDI asks for, 80 columns, a length that numbers do not change."""

from __future__ import annotations

import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.problems import MediaError
from media.readme import (
    DiscText,
    Missing,
    PatientFacts,
    StudyFacts,
    head,
    patient_block,
    person_name,
    readme_bytes,
    shown_date,
    study_block,
    tail,
)
from tests.media.discs import CREATED

TEXT = DiscText(
    product="Burnish 0.1.0",
    profile="STD-GEN-BD",
    medium="BD-25",
    medium_note="UDF as PS3.12 X asks is missing",
    institution="General Hospital, Radiology",
    contact="1 Hospital Street\nTown\n+1 555 0100",
)
DOE = PatientFacts("ID1", "Doe^John^Q^Dr", "19700131")
ROE = PatientFacts("ID2", "Roe^Jane", "", (Missing("1.2.3", "INST_OVERSIZED: too large"),))
CT = StudyFacts("20240102", "CT Abdomen", ("CT", "SR"), 300)


def whole(**changes: object) -> str:
    values = {
        "created": CREATED,
        "file_set_id": "DISC_0001",
        "number": 2,
        "of": 3,
        "contents": [(DOE, [(CT, 120)]), (ROE, [(CT, 300)])],
        "keys_supplied": True,
    } | changes
    return readme_bytes(TEXT, **values).decode("utf-8")  # type: ignore[arg-type]


def test_it_says_who_when_what_and_how_to_check() -> None:
    text = whole()
    for expected in (
        "DISC_0001",
        "   2 of    3",
        "2024-05-06 07:08 UTC",
        "Burnish 0.1.0",
        "General Hospital, Radiology",
        "+1 555 0100",
        "STD-GEN-BD",
        "UDF as PS3.12 X asks is missing",
        "Doe, John Q, Dr",
        "1970-01-31",
        "2024-01-02 CT Abdomen (CT, SR)",
        "    120 of     300 instances",
        "Roe, Jane",
        "1.2.3 INST_OVERSIZED: too large",
        "# supplied",
        "sha256sum -c MANIFEST.TXT",
        "confidential",
    ):
        assert expected in text


def test_what_does_not_apply_is_not_said() -> None:
    text = whole(contents=[(DOE, [(CT, 1)])], keys_supplied=False)
    assert "supplied" not in text
    assert "MISSING" not in text


def test_lines_end_with_cr_lf_and_ascii_stays_ascii() -> None:
    text = whole()
    assert text.isascii()
    assert text.endswith("\r\n")
    assert text.count("\n") == text.count("\r\n")


def _columns(line: str) -> int:
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in line)
    return len(line) + wide - sum(1 for character in line if unicodedata.combining(character))


def test_names_in_other_scripts_are_utf_8_and_wide_characters_count_twice() -> None:
    patient = PatientFacts("1", "Yamada^Tarou=山田^太郎=やまだ^たろう", "19700131")
    study = StudyFacts("20240102", "腹部造影検査" * 20, ("CT",), 1)
    text = whole(contents=[(patient, [(study, 1)])])
    assert "Yamada, Tarou (山田, 太郎) (やまだ, たろう)" in text
    assert max(map(_columns, text.split("\r\n"))) <= 80


_TEXTS = st.text(max_size=400)


@given(_TEXTS, _TEXTS, _TEXTS, _TEXTS, st.lists(_TEXTS, max_size=3), _TEXTS)
def test_hostile_text_breaks_neither_lines_nor_columns(
    name: str, patient_id: str, birth: str, description: str, modalities: list[str], institution: str
) -> None:
    text = replace(TEXT, institution=institution)
    patient = PatientFacts(patient_id, name, birth, (Missing(patient_id, description),))
    study = StudyFacts(birth, description, tuple(modalities), 5)
    data = readme_bytes(
        text,
        created=CREATED,
        file_set_id="DISC",
        number=1,
        of=1,
        contents=[(patient, [(study, 5)])],
        keys_supplied=False,
    )
    for line in data.decode("utf-8").split("\r\n"):
        assert line == "" or line.isprintable()
        assert _columns(line) <= 80
        assert len(line.encode()) < 500


def test_forged_lines_stay_inside_their_value() -> None:
    text = whole(contents=[(replace(DOE, patient_name="Doe\r\nPatient:       Forged^Name"), [(CT, 1)])])
    assert [line for line in text.split("\r\n") if line.startswith("Patient:")] == [
        "Patient:       Doe Patient: Forged, Name"
    ]


def test_endless_values_are_cut() -> None:
    assert len(patient_block(replace(DOE, patient_name="x" * 1_000_000))) < 500


def test_length_depends_on_no_number_that_packing_decides() -> None:
    def length(number: int, of: int) -> int:
        return len(head(TEXT, created=CREATED, file_set_id="DISC_0001", number=number, of=of))

    assert length(1, 1) == length(9999, 9999) == length(12, 100)
    assert len(head(TEXT, created=CREATED, file_set_id="", number=1, of=1)) == length(1, 1)
    assert len(study_block(CT, 1)) == len(study_block(CT, 300)) == len(study_block(replace(CT, instances=7), 7))


def test_the_whole_is_the_sum_of_its_blocks() -> None:
    blocks = [head(TEXT, created=CREATED, file_set_id="DISC_0001", number=2, of=3)]
    blocks += [patient_block(DOE), study_block(CT, 120), patient_block(ROE), study_block(CT, 300)]
    blocks.append(tail(TEXT, keys_supplied=True))
    assert whole().encode() == b"".join(blocks)


@pytest.mark.parametrize(("number", "of"), [(0, 1), (2, 1), (1, 10_000)])
def test_a_volume_number_beyond_the_width_is_an_error(number: int, of: int) -> None:
    with pytest.raises(MediaError, match="Volume"):
        whole(number=number, of=of)


def test_a_file_set_id_beyond_the_width_is_an_error() -> None:
    with pytest.raises(MediaError, match="16 characters"):
        whole(file_set_id="X" * 17)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("Doe^John", "Doe, John"),
        ("Doe", "Doe"),
        ("^John", "John"),
        ("", ""),
        ("=山田^太郎", "山田, 太郎"),
        ("Doe^John^^Prof^Jr", "Doe, John, Prof, Jr"),
        ("a^b^c^d^e^f^g", "a, b c, d, e"),
    ],
)
def test_person_names(value: str, shown: str) -> None:
    assert person_name(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [("19700131", "1970-01-31"), ("1970.01.31", "1970.01.31"), ("", ""), ("x9700131", "x9700131")]
)
def test_dates(value: str, shown: str) -> None:
    assert shown_date(value) == shown
