"""SELECT finds what is meant and nothing else."""

import pytest

from store.db import Database
from store.selection import Selection, SelectionError, instance_ids, parse_date_range
from tests.rows import add_disc, add_instance


@pytest.fixture
def filled(database: Database) -> Database:
    with database.begin() as session:
        one = add_instance(session, "1.1", study="1.2.1", series="1.2.1.1")
        add_instance(session, "1.2", study="1.2.1", series="1.2.1.2", modality="SR")
        add_instance(session, "1.3", patient_id="P2", study="1.2.2", series="1.2.2.1", study_date="20210505")
        add_instance(session, "1.4", patient_id="P2", study="1.2.2", series="1.2.2.1", calling_ae="X", in_spool=False)
        add_instance(session, "1.5", patient_id="P3", study="1.2.3", series="1.2.3.1", study_date="", accession="A3")
        add_disc(session, [one])
    return database


@pytest.mark.parametrize(
    ("selection", "found"),
    [
        (Selection(study=("1.2.1",)), ["1.1", "1.2"]),
        (Selection(study=("1.2.1", "1.2.3")), ["1.1", "1.2", "1.5"]),
        (Selection(series=("1.2.1.2",)), ["1.2"]),
        (Selection(sop=("1.4",)), ["1.4"]),  # named, so a plan can say that it is gone
        (Selection(patient_id=("P2",)), ["1.3", "1.4"]),
        (Selection(accession=("A3",)), ["1.5"]),
        (Selection(date_range="20200101-20201231"), ["1.1", "1.2"]),
        (Selection(date_range="20200102-"), ["1.3"]),
        (Selection(date_range="20210505"), ["1.3"]),
        (Selection(modality=("SR",)), ["1.2"]),
        (Selection(modality=("CT",), patient_id=("P1",)), ["1.1"]),
        (Selection(calling_ae=("CT_SCU",)), ["1.1", "1.2", "1.3", "1.5"]),
        (Selection(all=True), ["1.1", "1.2", "1.3", "1.5"]),
        (Selection(not_on_disc=True), ["1.2", "1.3", "1.5"]),
        (Selection(study=("9.9",)), []),
    ],
)
def test_selects(filled: Database, selection: Selection, found: list[str]) -> None:
    from sqlalchemy import select

    from store.models import Instance

    with filled.read() as session:
        ids = instance_ids(session, Selection.from_json(selection.to_json()))
        uids = {row.id: row.sop_instance_uid for row in session.scalars(select(Instance))}
    assert [uids[i] for i in ids] == found


def test_only_a_verified_disc_counts_as_on_disc(filled: Database) -> None:
    with filled.begin() as session:
        failed = add_instance(session, "1.6")
        add_disc(session, [failed], state="FAILED")
        assert failed.id in instance_ids(session, Selection(not_on_disc=True))


def test_empty_selection_is_refused(filled: Database) -> None:
    with filled.read() as session, pytest.raises(SelectionError):
        instance_ids(session, Selection())


@pytest.mark.parametrize("text", ["", "-", "2020", "20200101-2020", "20210101-20200101", "2020010120200102"])
def test_bad_date_range(text: str) -> None:
    with pytest.raises(SelectionError):
        parse_date_range(text)


def test_unknown_criterion() -> None:
    with pytest.raises(SelectionError):
        Selection.from_json({"colour": ["red"]})
