"""Finding studies by what people type, a page at a time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from store import studylist
from store.db import Database
from store.search import folded, further_groups
from store.selection import SelectionError
from store.studylist import Query
from tests.rows import add_disc, add_instance

PEOPLE = [
    ("DE-17", "Äneas^Rüdiger"),
    ("JP-1", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    ("RU-5", "Чехов^Антон^Павлович"),
    ("P100", "Doe^Jane"),
    ("P1000", "Doeman^John"),
    ("X_5%", "O'Neil^100%_sure"),
]


@pytest.fixture
def filled(database: Database) -> Iterator[Database]:
    with database.begin() as session:
        for number, (patient_id, name) in enumerate(PEOPLE, 1):
            for image in (1, 2):
                made = add_instance(
                    session,
                    f"1.2.{number}.1.{image}",
                    patient_id=patient_id,
                    patient_name=name,
                    study=f"1.2.{number}",
                    series=f"1.2.{number}.1",
                    study_date=f"2024010{number}",
                    accession=f"ACC-{number}",
                    modality="CT" if number % 2 else "MR",
                    calling_ae=f"AE{number}",
                )
            patient = studylist.Patient
            row = session.query(patient).filter_by(patient_id=patient_id).one()
            row.name_search = folded(name)
            row.name_search_2, row.name_search_3 = further_groups(row.name_search)
            if number == 4:
                add_disc(session, [made])
    return database


def ids(database: Database, query: Query) -> list[str]:
    with database.read() as session:
        return [row.patient_id for row in studylist.search(session, query)]


TYPED = [
    ("", ["X_5%", "P1000", "P100", "RU-5", "JP-1", "DE-17"]),
    ("doe", ["P1000", "P100"]),
    ("Doe, Jane", ["P100"]),
    ("doe j", ["P100"]),
    ("aneas", ["DE-17"]),
    ("Äneas", ["DE-17"]),
    ("山田", ["JP-1"]),
    ("やま", ["JP-1"]),
    ("чех", ["RU-5"]),
    ("p100", ["P1000", "P100"]),
    ("acc-3", ["RU-5"]),
    ("jane", ["P100"]),
    ("*jane", ["P100"]),
    ("do?man*", ["P1000"]),
    ("X_5", ["X_5%"]),
    ("100%_s", ["X_5%"]),
    ("nobody", []),
    ("' OR 1=1 --", []),
    ("**", ["X_5%", "P1000", "P100", "RU-5", "JP-1", "DE-17"]),
]
CRITERIA = [
    (Query(patient_id="P100"), ["P100"]),
    (Query(patient_id="P100*"), ["P1000", "P100"]),
    (Query(patient_name="doe^*"), ["P100"]),
    (Query(accession="ACC-1"), ["DE-17"]),
    (Query(study="1.2.2"), ["JP-1"]),
    (Query(date_range="20240103-20240104"), ["P100", "RU-5"]),
    (Query(modality="MR"), ["X_5%", "P100", "JP-1"]),
    (Query(calling_ae="AE5"), ["P1000"]),
    (Query(text="doe", modality="MR"), ["P100"]),
]


def test_what_is_typed_is_found(filled: Database) -> None:
    for typed, expected in TYPED:
        assert ids(filled, Query(text=typed)) == expected, typed


def test_criteria_narrow_the_search(filled: Database) -> None:
    for query, expected in CRITERIA:
        assert ids(filled, query) == expected, query


def test_pages_follow_each_other(filled: Database) -> None:
    found: list[str] = []
    after = None
    with filled.read() as session:
        while page := studylist.search(session, Query(), limit=2, after=after):
            found += [row.patient_id for row in page]
            after = page[-1].key
    assert found == ["X_5%", "P1000", "P100", "RU-5", "JP-1", "DE-17"]


def test_a_row_tells_what_the_study_has(filled: Database) -> None:
    with filled.read() as session:
        row = studylist.search(session, Query(patient_id="P100"))[0]
        again = studylist.one(session, row.id)
    assert (row.series, row.instances, row.in_spool, row.on_disc, row.conflicts) == (1, 2, 2, 1, 0)
    assert row.modalities == ["MR"]
    assert row.bytes == 2 * 1336
    assert again == row


def test_studies_come_in_the_order_that_was_asked_for(filled: Database) -> None:
    with filled.read() as session:
        keys = [row.id for row in studylist.search(session, Query())]
        assert [row.id for row in studylist.some(session, [*keys[::-1], 999])] == keys[::-1]


def test_a_date_range_that_is_none_is_told(filled: Database) -> None:
    with filled.read() as session, pytest.raises(SelectionError, match="no date range"):
        studylist.search(session, Query(date_range="yesterday"))
