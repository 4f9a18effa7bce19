"""Searching the catalogue: names in any spelling, discs in their true state."""

import pytest

from store import catalogue
from store.db import Database
from store.search import folded
from tests.rows import add_disc, add_instance


@pytest.fixture
def filled(database: Database) -> Database:
    names = ["Müller^Jürgen", "Yamada^Tarou=山田^太郎=やまだ^たろう", "O'Brien_100%^Ann", "Ørsted^Łucja"]
    with database.begin() as session:
        for number, name in enumerate(names, 1):
            one = add_instance(
                session, f"1.{number}", patient_id=f"P{number}", patient_name=name, study=f"1.2.{number}"
            )
            add_disc(session, [one], state="VERIFIED" if number != 3 else "FAILED")
    return database


@pytest.mark.parametrize(
    ("pattern", "patients"),
    [
        ("MULLER", [1]),
        ("müller^jürgen", [1]),
        ("mul*", [1]),
        ("*jurgen", [1]),
        ("山田*", [2]),
        ("山田 太郎", [2]),
        ("yamada", [2]),
        ("yama", []),
        ("やまだ?たろう", [2]),
        ("o'brien_100%", [3]),
        ("o'brien_1000", []),
        ("%", []),
        ("orsted^lucja", [4]),
        ("*", [1, 2, 3, 4]),
    ],
)
def test_names(filled: Database, pattern: str, patients: list[int]) -> None:
    with filled.read() as session:
        found = catalogue.find(session, patient_name=pattern)
    assert sorted(uid for disc in found for uid in disc["instances"]) == [f"1.{n}" for n in patients]


def test_a_failed_disc_is_told_as_such(filled: Database) -> None:
    with filled.read() as session:
        (disc,) = catalogue.find(session, patient_id="P3")
        assert (disc["state"], disc["verified_by"]) == ("FAILED", None)
        (disc,) = catalogue.find(session, study="1.2.1")
    assert (disc["state"], disc["verified_by"], disc["instances"]) == ("VERIFIED", "read-back", ["1.1"])
    assert disc["verified_at"].endswith("+00:00")


def test_studies(filled: Database) -> None:
    with filled.begin() as session:
        add_instance(session, "1.9", patient_name="Müller^Jürgen", study="1.2.1", series="1.2.1.9", modality="SR")
    with filled.read() as session:
        first = next(s for s in catalogue.studies(session) if s["study_instance_uid"] == "1.2.1")
    assert (first["series"], first["instances"], first["bytes"]) == (2, 2, 2672)
    assert first["modalities"] == ["CT", "SR"]


def test_folding_is_stable() -> None:
    assert folded("DOE^John^^ =山田^太郎") == "=doe john=山田 太郎="
    assert folded("") == "="
