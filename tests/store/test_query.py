"""Queries over the catalogue, on both databases: matching, facts, pages, and that indexes are used."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from sqlalchemy import create_engine, select, text, update
from sqlalchemy.orm import Session

from bench.catalogue import family, fill
from media.attributes import Attribute, Attributes
from media.header import read_header
from store import migrate
from store.checks import DAMAGED
from store.db import Database
from store.matching import BadKey
from store.models import Derived, Instance, Patient, Series, Study
from store.models_base import now
from store.models_jobs import Disc, Volume, VolumeInstance
from store.query import Match, _Plan, find
from store.query_keys import KEYS, Level, Query, keys_at
from store.retrieval import held, wanted_contexts, wanted_ids
from store.search import further_groups
from tests.makers import make
from tests.rows import add_disc, add_instance


def attributes(**keys: Any) -> Attributes:
    """By keyword; a sequence is a dictionary: its one item."""
    found: Attributes = {}
    for keyword, value in keys.items():
        tag = tag_for_keyword(keyword)
        assert tag is not None
        if isinstance(value, dict):
            found[tag] = Attribute(b"SQ", (attributes(**value),))
        else:
            found[tag] = Attribute(dictionary_VR(tag).encode(), value)
    return found


def ask(session: Session, level: Level, *, combined: bool = False, **keys: Any) -> list[Match]:
    return list(find(session, Query(level, attributes(**keys), combined_datetime=combined)))


def values(matches: list[Match], keyword: str) -> list[str]:
    tag = tag_for_keyword(keyword)
    assert tag is not None
    return sorted(str(match.attributes[tag].value) for match in matches)


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """Ten studies of as many patients, at different times, to be read only; once on each kind of database."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('query') / 'burnish.db'}"
    else:
        server = request.getfixturevalue("postgres_server")
        name = f"t{uuid.uuid4().hex}"
        engine = create_engine(server.format(name="postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f'CREATE DATABASE "{name}"'))
        engine.dispose()
        url = server.format(name=name)
    database = Database(url)
    migrate.upgrade(database)
    with database.begin() as session:
        for number in range(10):
            add_instance(
                session,
                f"1.{number}",
                patient_id=f"P_{number}",
                patient_name=["Müller^Ana", "MULLER^ANNA", "Ng^O'[x]", "", "de la Cruz^José=李^明"][number % 5]
                + str(number),
                study=f"2.{number}",
                series=f"3.{number}",
                study_date=f"2020010{number}",
                accession=f"A%{number}",
                modality="CT" if number % 2 else "MR",
                instance_number=number,
            )
        session.execute(update(Study).values(study_description="100%_[a-z]*?\\"))
        for study in session.scalars(select(Study)):
            study.study_time = f"{8 + int(study.study_date[-1])}3000.5".rjust(8, "0")
        for patient in session.scalars(select(Patient)):
            patient.name_search_2, patient.name_search_3 = further_groups(patient.name_search)
    yield database
    database.close()


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({"PatientName": "muller^ana0"}, "0"),
        ({"PatientName": "MÜL*"}, "0156"),
        ({"PatientName": "m?ller*"}, "0156"),
        ({"PatientName": "*José"}, "49"),
        ({"PatientName": "MULLER^*"}, "0156"),
        ({"PatientName": "muller^ana0^*"}, "0"),
        ({"PatientName": "muller*^*^*"}, "0156"),
        ({"PatientName": "mulle^*"}, ""),
        ({"PatientName": "*^*"}, "0123456789"),
        ({"PatientName": "DE LA CRUZ*"}, "49"),
        ({"PatientName": "李^*"}, "49"),
        ({"PatientName": "ng^o'[x]?"}, "27"),
        ({"PatientName": "n[a-z]*"}, ""),
        ({"PatientName": "%"}, ""),
        ({"PatientName": "*"}, "0123456789"),
        ({"PatientName": ""}, "0123456789"),
        ({"PatientID": "P_3"}, "3"),
        ({"PatientID": "P_*"}, "0123456789"),
        ({"PatientID": "p_3"}, ""),
        ({"PatientID": "P?3"}, "3"),
        ({"PatientID": "P_3\\P_4*"}, "34"),
        ({"AccessionNumber": "A%*"}, "0123456789"),
        ({"AccessionNumber": "A?5"}, "5"),
        ({"AccessionNumber": "A_5"}, ""),
        ({"StudyDescription": "100%_[a-z]*"}, "0123456789"),
        ({"StudyDescription": "100%_[b-z]*"}, ""),
        ({"StudyDate": "20200103-20200105"}, "345"),
        ({"StudyDate": "-20200101"}, "01"),
        ({"StudyDate": "20200108-"}, "89"),
        ({"StudyDate": "20200102"}, "2"),
        ({"StudyDate": "20200102\\20200108-"}, "289"),
        ({"StudyTime": "10-11"}, "23"),
        ({"StudyTime": "1030"}, "2"),
        ({"StudyTime": "103000.6-1130"}, "3"),
        ({"StudyTime": "-0830"}, "0"),
        ({"StudyDate": "20200101-20200109", "StudyTime": "10-11"}, "23"),
        ({"StudyInstanceUID": "2.1\\2.9\\2.77"}, "19"),
        ({"ModalitiesInStudy": "CT", "StudyDate": "-20200104"}, "13"),
        ({"ModalitiesInStudy": "C*\\XA"}, "13579"),
        ({"PatientSex": "O", "PatientBirthDate": "19600101-19800101"}, "0123456789"),
        ({"PatientBirthDate": "-19600101"}, ""),
    ],
)
def test_matching(filled: Database, keys: dict[str, str], found: str) -> None:
    with filled.read() as session:
        matches = ask(session, "STUDY", **{"StudyInstanceUID": "", **keys})
    assert values(matches, "StudyInstanceUID") == [f"2.{number}" for number in found]


@pytest.mark.parametrize(
    ("combined", "date", "time", "found"),
    [
        (False, "20200102-20200104", "1030-1130", "23"),
        (True, "20200102-20200104", "1030-1130", "23"),
        (True, "20200102-20200104", "1031-1230", "34"),
        (True, "20200102-20200104", "1030-1229", "23"),
        (True, "20200102-", "11-", "3456789"),
        (True, "-20200102", "-1030", "012"),
        (True, "-20200102", "-1029", "01"),
    ],
)
def test_date_and_time_as_one(filled: Database, combined: bool, date: str, time: str, found: str) -> None:
    with filled.read() as session:
        matches = ask(session, "STUDY", combined=combined, StudyDate=date, StudyTime=time, StudyInstanceUID="")
    assert values(matches, "StudyInstanceUID") == [f"2.{number}" for number in found]


@pytest.mark.parametrize(
    ("level", "keys"),
    [
        ("STUDY", {"StudyDate": "2020-01-01"}),
        ("STUDY", {"StudyDate": "today"}),
        ("STUDY", {"StudyDate": "-"}),
        ("STUDY", {"StudyTime": "noon"}),
        ("SERIES", {"SeriesNumber": "one"}),
        ("IMAGE", {"AcquisitionDateTime": "yesterday-today"}),
    ],
)
def test_values_that_cannot_be(filled: Database, level: Level, keys: dict[str, str]) -> None:
    with filled.read() as session, pytest.raises(BadKey):
        ask(session, level, **keys)


def test_hostile_patterns_end(database: Database) -> None:
    with database.begin() as session:
        for number in range(10):
            add_instance(session, f"1.{number}", study=f"2.{number}", series=f"3.{number}", patient_name="a" * 400)
        session.execute(update(Study).values(study_description="a" * 60000))
    with database.read() as session:
        assert ask(session, "STUDY", StudyDescription="*a" * 30 + "b") == []
        assert len(ask(session, "STUDY", StudyDescription="*a" * 30)) == 10
        assert ask(session, "STUDY", PatientName="*a" * 30 + "*b", ReferringPhysicianName="(" * 60 + "*") == []


def test_lower_levels(filled: Database) -> None:
    with filled.read() as session:
        series = ask(session, "SERIES", Modality="CT", SeriesInstanceUID="", PatientName="", SeriesNumber="1")
        images = ask(session, "IMAGE", InstanceNumber="3\\4", SOPInstanceUID="", Rows=b"", SeriesInstanceUID="")
        patients = ask(session, "PATIENT", PatientID="", NumberOfPatientRelatedInstances="", StudyDate="20200101")
    assert values(series, "SeriesInstanceUID") == ["3.1", "3.3", "3.5", "3.7", "3.9"]
    assert values(images, "SOPInstanceUID") == ["1.3", "1.4"]
    assert all(match.attributes[0x00280010].value == b"" for match in images)
    assert len(patients) == 10  # a key of a lower level is none
    assert all(match.attributes[0x00201204].value == "1" for match in patients)


def test_sequences_and_attributes_of_the_first_instance(database: Database, tmp_path: Path) -> None:
    def change(ds: Dataset) -> None:
        ds.RequestAttributesSequence = [Dataset(), Dataset()]
        for number, item in enumerate(ds.RequestAttributesSequence, 7):
            item.RequestedProcedureID, item.ScheduledProcedureStepID = f"RP{number}", f"SPS{number}"
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "C1", "99X", "Schädel"
        ds.ProcedureCodeSequence = [code]
        ds.SpecificCharacterSet = "ISO_IR 100"
        ds.PerformedProcedureStepStartDate = "20210203"
        ds.AcquisitionDateTime = "20210203101112.5"

    header = read_header(make("CT", change=change).write(tmp_path / "a.dcm"))
    with database.begin() as session:
        add_instance(session, "1.1", directory_keys=header.directory_keys)
        add_instance(session, "1.2")
        add_instance(session, "1.3", study="1.2.2", series="1.2.2.1")
    with database.read() as session:
        for keys, number in (
            ({"RequestedProcedureID": "RP7"}, 1),
            ({"RequestedProcedureID": "RP*", "ScheduledProcedureStepID": "SPS8"}, 1),
            ({"RequestedProcedureID": "RP7", "ScheduledProcedureStepID": "SPS8"}, 0),
            ({"RequestedProcedureID": ""}, 2),
        ):
            matches = ask(session, "SERIES", SeriesInstanceUID="", RequestAttributesSequence=keys)
            assert len(matches) == number, keys
        (match,) = ask(session, "STUDY", ProcedureCodeSequence={"CodeMeaning": "Schädel", "CodeValue": "C1"})
        items = match.attributes[0x00081032].value
        assert isinstance(items, tuple) and items[0][0x00080104].value == "Schädel"
        assert len(ask(session, "SERIES", PerformedProcedureStepStartDate="20210101-20211231")) == 1
        assert ask(session, "SERIES", PerformedProcedureStepStartDate="20220101-") == []
        (match,) = ask(session, "IMAGE", AcquisitionDateTime="20210203-202102031012", SOPInstanceUID="")
        assert match.attributes[0x00080018].value == "1.1"


def test_conflicts_and_objects_of_no_patient_are_not_found(database: Database) -> None:
    with database.begin() as session:
        first = add_instance(session, "1.1")
        add_instance(session, "1.1", digest="other", conflict_of=first.id)
        add_instance(session, "1.9", series_id=None)
    with database.read() as session:
        (match,) = ask(session, "IMAGE", SOPInstanceUID="", SeriesInstanceUID="")
        (study,) = ask(session, "STUDY", NumberOfStudyRelatedInstances="")
        ids = list(wanted_ids(session, {"IMAGE": ["1.1", "1.9"]}))
    assert match.attributes[0x00080018].value == "1.1"
    assert study.attributes[0x00201208].value == "1"
    assert ids == [first.id]


# --- Discs ------------------------------------------------------------------------------------------------------------


def told(database: Database, level: Level = "STUDY", **keys: Any) -> list[tuple[str, str]]:
    with database.read() as session:
        matches = ask(session, level, **(keys or {"StudyInstanceUID": ""}))
        return [(match.fact.availability, match.fact.file_set_id) for match in matches]


def test_where_instances_are(database: Database, tmp_path: Path) -> None:
    with database.begin() as session:
        instances = [add_instance(session, f"1.{number}") for number in range(3)]
        disc = add_disc(session, instances[:2])
        name = session.get_one(Volume, disc.volume_id).file_set_id
    assert told(database) == [("ONLINE", "")]  # no one disc holds all of it
    assert sorted(told(database, "IMAGE", SOPInstanceUID="")) == [("ONLINE", ""), ("ONLINE", name), ("ONLINE", name)]
    with database.begin() as session:
        both = add_disc(session, instances)
        whole = session.get_one(Volume, both.volume_id).file_set_id
        session.execute(update(Instance).where(Instance.sop_instance_uid == "1.0").values(spool_path=None))
    assert told(database) == [("OFFLINE", whole)]
    assert told(database, "IMAGE", SOPInstanceUID="1.0") == [("OFFLINE", whole)]
    image = tmp_path / "disc.iso"
    image.write_bytes(b"")
    with database.begin() as session:
        session.execute(update(Disc).where(Disc.id == disc.id).values(image=str(image)))
    assert told(database) == [("NEARLINE", whole)]
    assert told(database, "PATIENT", PatientID="P1") == [("NEARLINE", whole)]
    with database.begin() as session:
        session.execute(update(Disc).where(Disc.id == disc.id).values(image="/dev/null"))
    assert told(database) == [("OFFLINE", whole)]  # a device: nobody knows what lies in it
    with database.begin() as session:
        session.execute(update(Disc).values(checked_result=DAMAGED))
    assert told(database) == [("UNAVAILABLE", "")]


def test_a_copy_under_another_uid_is_another_instance(database: Database) -> None:
    with database.begin() as session:
        instance = add_instance(session, "1.1", in_spool=False)
        disc = add_disc(session, [instance])
        derived = Derived(
            source_digest=instance.digest,
            sop_instance_uid="1.1",
            recipe="jpeg-baseline-q90/1",
            path="x",
            size=1,
            sha256="0",
            transfer_syntax_uid="1.2.840.10008.1.2.4.50",
            changes=[],
            new_sop_instance_uid="2.25.1",
            created_at=now(),
        )
        session.add(derived)
        session.flush()
        condition = VolumeInstance.volume_id == disc.volume_id
        session.execute(update(VolumeInstance).where(condition).values(derived_id=derived.id))
    assert told(database) == [("UNAVAILABLE", "")]
    with database.read() as session:
        (found,) = held(session, [instance.id])
    assert (found.places, found.file_sets) == ([], [])


def test_what_is_to_be_retrieved(database: Database, tmp_path: Path) -> None:
    image = tmp_path / "disc"
    image.mkdir()
    with database.begin() as session:
        first = add_instance(session, "1.1")
        second = add_instance(session, "1.2", in_spool=False, transfer_syntax_uid="1.2.840.10008.1.2")
        third = add_instance(session, "1.3", in_spool=False, series="1.2.1.2", modality="SR")
        add_instance(session, "1.4", study="1.2.9", series="1.2.9.1")
        disc = add_disc(session, [second, third])
        session.execute(update(Disc).where(Disc.id == disc.id).values(image=str(image)))
    with database.read() as session:
        ids = wanted_ids(session, {"STUDY": ["1.2.1"]})
        assert list(ids) == [first.id, second.id, third.id]
        assert list(wanted_ids(session, {"PATIENT": ["P1"], "STUDY": ["1.2.9"]})) != []
        assert list(wanted_ids(session, {"PATIENT": ["P2"], "STUDY": ["1.2.9"]})) == []
        contexts = wanted_contexts(session, {"STUDY": ["1.2.1"]})
        assert {syntax for _, syntax in contexts} == {"1.2.840.10008.1.2.1", "1.2.840.10008.1.2"}
        found = held(session, list(ids)[::-1])
    assert [each.sop_instance_uid for each in found] == ["1.3", "1.2", "1.1"]
    assert [len(each.places) for each in found] == [1, 1, 0]
    assert found[0].places[0].image == image


# --- Many -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def many(database: Database) -> Database:
    fill(database, 3000)
    return database


@pytest.mark.parametrize(
    "keys",
    [
        {"PatientName": family(7)},
        {"PatientName": "NAME000007^F5"},
        {"PatientID": "PID00000077"},
        {"PatientID": "PID000000*"},
        {"AccessionNumber": "ACC00000077"},
        {"AccessionNumber": "ACC000000*"},
        {"StudyInstanceUID": "1.2.276.0.99.1.77"},
        {"StudyDate": "20200715", "PatientID": "PID00000020"},
        {"StudyDate": "20000101-20301231", "PatientName": family(7)},
    ],
)
def test_indexed_keys_read_no_whole_table(many: Database, keys: dict[str, str]) -> None:
    query = Query("STUDY", attributes(**{"PatientName": "", "StudyInstanceUID": "", **keys}))
    plan = _Plan(query, postgresql=not many.is_sqlite)
    with many.read() as session:
        dialect = session.get_bind().dialect
        statement = str(plan.statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
        if many.is_sqlite:
            lines = session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}")
            steps = [str(row[3]) for row in lines]
            assert not [step for step in steps if step.startswith("SCAN")], steps
            assert not [step for step in steps if "ix_study_study_date" in step and ">" in step], steps
        else:
            session.execute(text("SET LOCAL enable_seqscan = off"))
            lines = session.connection().exec_driver_sql("EXPLAIN " + statement.replace("%", "%%"))
            steps = [str(row[0]) for row in lines]
            assert not [step for step in steps if "Seq Scan" in step], steps
            # An index that only helps to avoid the table would be read as a whole.
            assert [step for step in steps if "Index Cond" in step], steps


def test_of_many_matches_only_a_page_is_held(many: Database) -> None:
    pages: list[int] = []
    count = 0

    def page_done() -> None:
        pages.append(count)

    with many.read() as session:
        query = Query("STUDY", attributes(StudyInstanceUID="", PatientName="NAME*"))
        for _ in find(session, query, page_done):
            count += 1
    assert count == 3000
    assert pages[:2] == [64, 320] and pages[-1] == 3000
    with many.read() as session:
        first = next(iter(find(session, query)))
    assert first.fact.availability == "ONLINE"


def test_keys_are_those_of_the_standard() -> None:
    for key in KEYS.values():
        assert (tag_for_keyword(key.keyword), dictionary_VR(key.tag)) == (key.tag, key.vr.decode())
        model = {"PATIENT": Patient, "STUDY": Study, "SERIES": Series, "IMAGE": Instance}[key.level]
        assert key.source in ("first", "computed") or hasattr(model, key.source)
    assert {key.level for key in keys_at("STUDY")} == {"PATIENT", "STUDY"}
