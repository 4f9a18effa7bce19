"""C-FIND over the network: matches, rules of the models, statuses, character sets, cancel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.dataelem import DataElement
from pynetdicom import AE, build_context
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation
from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelFind as PatientRoot,
)
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind as StudyRoot,
)
from sqlalchemy import select

from bench.catalogue import fill
from store.models import Instance, Patient
from store.search import further_groups
from tests.rows import add_disc, add_instance
from tests.scp.conftest import Receiver, Start
from tests.scp.scu import EXPLICIT_LE, IMPLICIT_LE

BIG_ENDIAN = "1.2.840.10008.1.2.2"


def identifier(level: str, *, charset: str = "", **keys: Any) -> Dataset:
    ds = Dataset()
    if charset:
        ds.SpecificCharacterSet = charset
    if level:
        ds.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(ds, keyword, value)
    return ds


class Asker:
    """One association on which questions are asked."""

    def __init__(self, port: int, *, syntax: str = EXPLICIT_LE, agreed: bytes = b"") -> None:
        ae = AE("ASKER")
        contexts = [build_context(PatientRoot, syntax), build_context(StudyRoot, syntax)]
        items = []
        for model in (PatientRoot, StudyRoot) if agreed else ():
            item = SOPClassExtendedNegotiation()
            item.sop_class_uid, item.service_class_application_information = model, agreed
            items.append(item)
        self.assoc = ae.associate("127.0.0.1", port, contexts=contexts, ae_title="BURNISH", ext_neg=items)
        assert self.assoc.is_established

    def __enter__(self) -> Asker:
        return self

    def __exit__(self, *_: object) -> None:
        self.assoc.release()

    def ask(self, ds: Dataset, model: str = StudyRoot) -> tuple[list[Dataset], Dataset]:
        """Matches, and the final status."""
        matches = []
        for status, found in self.assoc.send_c_find(ds, model):
            if status.Status not in (0xFF00, 0xFF01):
                return matches, status
            assert found is not None
            found.pending = status.Status
            matches.append(found)
        raise AssertionError("no final response")


@pytest.fixture(scope="module")
def filled(receiver: Receiver) -> Iterator[Receiver]:
    """Three patients, five studies; one of them is on a disc only."""
    with receiver.db.begin() as session:
        for number, name in enumerate(("DOE^JOHN", "Döe^Jané", "Yamada^Tarou=山田^太郎=やまだ^たろう"), 1):
            for study in range(1, 3):
                uid = f"1.2.{number}.{study}"
                for series, modality in ((1, "CT"), (2, "SR")):
                    for image in (1, 2):
                        add_instance(
                            session,
                            f"{uid}.{series}.{image}",
                            patient_id=f"P{number}",
                            patient_name=name,
                            study=uid,
                            series=f"{uid}.{series}",
                            study_date=f"202001{number}{study}",
                            accession=f"ACC{number}{study}",
                            modality=modality,
                            in_spool=(number, study) != (1, 2),
                            instance_number=image,
                        )
        session.flush()
        for patient in session.scalars(select(Patient)):
            patient.name_search_2, patient.name_search_3 = further_groups(patient.name_search)
        gone = list(session.scalars(select(Instance).where(Instance.spool_path.is_(None))))
        add_disc(session, gone)
    yield receiver


def uids(matches: list[Dataset]) -> list[str]:
    return sorted(str(match.StudyInstanceUID) for match in matches)


@pytest.mark.parametrize("syntax", [EXPLICIT_LE, IMPLICIT_LE, BIG_ENDIAN])
def test_a_study_is_found_with_what_was_asked_for(filled: Receiver, syntax: str) -> None:
    wanted = identifier(
        "STUDY",
        PatientName="doe*",
        StudyDate="",
        AccessionNumber="ACC11",
        ModalitiesInStudy="",
        NumberOfStudyRelatedSeries=None,
        NumberOfStudyRelatedInstances=None,
    )
    with Asker(filled.port, syntax=syntax) as asker:
        (match,), status = asker.ask(wanted)
    assert status.Status == 0
    assert match.pending == 0xFF00
    assert (match.QueryRetrieveLevel, match.StudyInstanceUID, match.PatientName) == ("STUDY", "1.2.1.1", "DOE^JOHN")
    assert (match.StudyDate, list(match.ModalitiesInStudy)) == ("20200111", ["CT", "SR"])
    assert (match.NumberOfStudyRelatedSeries, match.NumberOfStudyRelatedInstances) == (2, 4)
    assert (match.InstanceAvailability, match.RetrieveAETitle) == ("ONLINE", "BURNISH")
    assert "StorageMediaFileSetID" not in match


def test_what_is_only_on_a_disc_says_so(filled: Receiver) -> None:
    with Asker(filled.port) as asker:
        (match,), _ = asker.ask(identifier("STUDY", StudyInstanceUID="1.2.1.2"))
        on_disc, _ = asker.ask(identifier("STUDY", StorageMediaFileSetID=match.StorageMediaFileSetID))
        online, _ = asker.ask(identifier("STUDY", InstanceAvailability="ONLINE"))
    assert (match.InstanceAvailability, match.StorageMediaFileSetUID) == ("OFFLINE", "1.2.3.1")
    assert "RetrieveAETitle" not in match
    assert uids(on_disc) == ["1.2.1.2"]
    assert "1.2.1.2" not in uids(online) and len(online) == 5


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("doe^john", ["1.2.1.1", "1.2.1.2"]),
        ("DOE*", ["1.2.1.1", "1.2.1.2", "1.2.2.1", "1.2.2.2"]),
        ("d?e^jane", ["1.2.2.1", "1.2.2.2"]),
        ("*jané", ["1.2.2.1", "1.2.2.2"]),
        ("DOE", []),
        ("山田*", ["1.2.3.1", "1.2.3.2"]),
        ("=やまだ^たろう", ["1.2.3.1", "1.2.3.2"]),
        ("yam*=山田^太?", ["1.2.3.1", "1.2.3.2"]),
        ("yamada*jiro", []),
        ("*a*m*d*t*r*u", ["1.2.3.1", "1.2.3.2"]),
    ],
)
def test_names(filled: Receiver, pattern: str, found: list[str]) -> None:
    with Asker(filled.port) as asker:
        matches, status = asker.ask(identifier("STUDY", charset="ISO_IR 192", PatientName=pattern))
    assert (uids(matches), status.Status) == (found, 0)


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({"StudyDate": "20200112-20200121"}, ["1.2.1.2", "1.2.2.1"]),
        ({"StudyDate": "-20200111"}, ["1.2.1.1"]),
        ({"StudyDate": "20200132-"}, ["1.2.3.2"]),
        ({"StudyDate": "20200122"}, ["1.2.2.2"]),
        ({"StudyInstanceUID": ["1.2.1.1", "1.2.3.2", "1.2.9"]}, ["1.2.1.1", "1.2.3.2"]),
        ({"AccessionNumber": "ACC?2"}, ["1.2.1.2", "1.2.2.2", "1.2.3.2"]),
        ({"AccessionNumber": "acc11"}, []),
        ({"PatientID": "*", "AccessionNumber": "*C31"}, ["1.2.3.1"]),
        ({"ModalitiesInStudy": "SR", "PatientID": "P1"}, ["1.2.1.1", "1.2.1.2"]),
        ({"ModalitiesInStudy": "MR"}, []),
        ({"SOPClassesInStudy": "1.2.840.10008.5.1.4.1.1.2", "PatientID": "P2"}, ["1.2.2.1", "1.2.2.2"]),
    ],
)
def test_matching(filled: Receiver, keys: dict[str, Any], found: list[str]) -> None:
    with Asker(filled.port) as asker:
        matches, status = asker.ask(identifier("STUDY", **keys))
    assert (uids(matches), status.Status) == (found, 0)


def test_levels_of_patient_root(filled: Receiver) -> None:
    with Asker(filled.port) as asker:
        patients, _ = asker.ask(
            identifier("PATIENT", PatientName="", NumberOfPatientRelatedStudies=None), model=PatientRoot
        )
        series, _ = asker.ask(
            identifier("SERIES", PatientID="P2", StudyInstanceUID="1.2.2.1", Modality="SR", SeriesNumber=None),
            model=PatientRoot,
        )
        images, _ = asker.ask(
            identifier(
                "IMAGE",
                PatientID="P2",
                StudyInstanceUID="1.2.2.1",
                SeriesInstanceUID="1.2.2.1.2",
                InstanceNumber="2",
                SOPClassUID="",
            ),
            model=PatientRoot,
        )
    assert sorted(str(match.PatientID) for match in patients) == ["P1", "P2", "P3"]
    assert {match.NumberOfPatientRelatedStudies for match in patients} == {2}
    assert [match.SeriesInstanceUID for match in series] == ["1.2.2.1.2"]
    assert [(match.SOPInstanceUID, match.SOPClassUID) for match in images] == [
        ("1.2.2.1.2.2", "1.2.840.10008.5.1.4.1.1.2")
    ]
    assert images[0].InstanceAvailability == "ONLINE"


@pytest.mark.parametrize(
    ("model", "ds", "status", "tag"),
    [
        (StudyRoot, identifier("", StudyDate=""), 0xA900, 0x00080052),
        (StudyRoot, identifier("PATIENT", PatientID=""), 0xA900, 0x00080052),
        (PatientRoot, identifier("ROOM", PatientID=""), 0xA900, 0x00080052),
        (StudyRoot, identifier("SERIES", Modality="CT"), 0xA900, 0x0020000D),
        (StudyRoot, identifier("SERIES", StudyInstanceUID=["1.2", "1.3"]), 0xA900, 0x0020000D),
        (PatientRoot, identifier("STUDY", StudyInstanceUID=""), 0xA900, 0x00100020),
        (PatientRoot, identifier("STUDY", PatientID="P*"), 0xA900, 0x00100020),
    ],
)
def test_what_breaks_the_rules_is_refused(filled: Receiver, model: str, ds: Dataset, status: int, tag: int) -> None:
    with Asker(filled.port) as asker:
        matches, final = asker.ask(ds, model=model)
        assert (matches, final.Status, final.OffendingElement) == ([], status, tag)
        assert asker.ask(identifier("STUDY", PatientID="P1"))[1].Status == 0  # the association goes on


def test_a_value_that_cannot_be(filled: Receiver) -> None:
    asked = identifier("STUDY")
    asked[0x00080020] = DataElement(0x00080020, "LO", "yesterday")
    with Asker(filled.port) as asker:
        matches, final = asker.ask(asked)
    assert (matches, final.Status, final.OffendingElement) == ([], 0xC002, 0x00080020)


def test_relational_queries_where_agreed(filled: Receiver) -> None:
    with Asker(filled.port, agreed=b"\x01\x01\x01") as asker:
        assert [item.service_class_application_information for item in asker.assoc.acceptor.user_information[3:]] == [
            b"\x01\x01\x00"
        ] * 2
        matches, status = asker.ask(identifier("SERIES", PatientName="DOE^JO*", Modality="CT"))
    assert status.Status == 0
    assert sorted(match.SeriesInstanceUID for match in matches) == ["1.2.1.1.1", "1.2.1.2.1"]


def test_unknown_keys_are_told(filled: Receiver) -> None:
    with Asker(filled.port) as asker:
        matches, _ = asker.ask(identifier("STUDY", PatientID="P1", PatientComments="x"))
    assert [match.pending for match in matches] == [0xFF01] * 2
    assert all("PatientComments" not in match for match in matches)


@pytest.mark.parametrize(
    ("charset", "answered"),
    [
        ("", "ISO_IR 192"),
        ("ISO_IR 100", "ISO_IR 192"),
        ("ISO_IR 192", "ISO_IR 192"),
        ("\\ISO 2022 IR 87", ["", "ISO 2022 IR 87"]),
    ],
)
def test_character_sets_of_answers(filled: Receiver, charset: str, answered: Any) -> None:
    with Asker(filled.port) as asker:
        (match, _), _ = asker.ask(identifier("STUDY", charset=charset, PatientName="", PatientID="P3"))
        plain, _ = asker.ask(identifier("STUDY", charset=charset, PatientName="", PatientID="P1"))
    match.decode()
    assert str(match.PatientName) == "Yamada^Tarou=山田^太郎=やまだ^たろう"
    assert (match.SpecificCharacterSet or "") == answered
    assert all("SpecificCharacterSet" not in each for each in plain)


def test_japanese_question(filled: Receiver) -> None:
    with Asker(filled.port) as asker:
        matches, _ = asker.ask(identifier("STUDY", charset="\\ISO 2022 IR 87", PatientName="=山田^太郎"))
    assert uids(matches) == ["1.2.3.1", "1.2.3.2"]


def test_cancel(start: Start) -> None:
    receiver = start()
    fill(receiver.db, 3000)
    with Asker(receiver.port) as asker:
        status = Dataset()
        responses = asker.assoc.send_c_find(identifier("STUDY", PatientName=""), StudyRoot, msg_id=7)
        for seen, (response, _) in enumerate(responses):
            status = response
            if seen == 2:
                asker.assoc.send_c_cancel(7, query_model=StudyRoot)
        assert status.Status in (0xFE00, 0x0000)
    # On another association: pynetdicom's user may lose a response after it has sent a C-CANCEL.
    with Asker(receiver.port) as asker:
        matches, status = asker.ask(identifier("STUDY", StudyInstanceUID="1.2.276.0.99.1.2999"))
        assert (uids(matches), status.Status) == (["1.2.276.0.99.1.2999"], 0)
